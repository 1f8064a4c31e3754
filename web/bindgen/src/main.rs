//! `lenet-bindgen IN.wasm OUT_DIR`: what `wasm-bindgen --target web --no-typescript` does, pinned by `Cargo.lock` to
//! the version that the wasm was compiled with.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [input, output] = arguments.as_slice() else {
        return Err("usage: lenet-bindgen IN.wasm OUT_DIR".into());
    };
    wasm_bindgen_cli_support::Bindgen::new()
        .input_path(input)
        .web(true)?
        .typescript(false)
        .omit_default_module_path(false)
        .remove_name_section(true)
        .generate(output)?;
    Ok(())
}
