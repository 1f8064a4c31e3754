#!/usr/bin/env bash
# Builds the page: web/page/pkg (WebAssembly and its JavaScript) and web/page/mnist (a copy of the data). Then any
# static server will do: python3 -m http.server --directory web/page
set -euo pipefail
cd "$(dirname "$0")/.."
target=wasm32-unknown-unknown
arguments=(build --profile web --package lenet-web --target "$target")
# WebAssembly's 128-bit SIMD is in every browser that has WebGPU, and the CPU twins are written for registers.
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="-C target-feature=+simd128"
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    # Without `rustup target add wasm32-unknown-unknown`, Debian's rustc-web and rust-web-src build the standard
    # library as well.
    if [ ! -d "$(/usr/bin/rustc --print sysroot 2>/dev/null)/lib/rustlib/src" ]; then
        echo "no $target here: run 'rustup target add $target' (or, on Debian, apt-get install rustc-web rust-web-src)" >&2
        exit 1
    fi
    host=$(rustc -vV | sed -n 's/^host: //p')
    export RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER="$(env -u RUSTC rustc --print sysroot)/lib/rustlib/$host/bin/rust-lld"
    arguments+=(-Zbuild-std=std,panic_abort)
fi
cargo "${arguments[@]}"
unset RUSTC RUSTC_BOOTSTRAP
built="${CARGO_TARGET_DIR:-target}/$target/web/lenet_web.wasm"
cargo run --quiet --package lenet-bindgen -- "$built" web/page/pkg
mkdir -p web/page/mnist
cp assets/mnist/*-ubyte.gz assets/mnist/training/*-ubyte.gz web/page/mnist/
for file in web/page/pkg/lenet_web_bg.wasm web/page/pkg/lenet_web.js; do
    echo "$file: $(wc -c <"$file") bytes, $(gzip -9 <"$file" | wc -c) gzipped"
done
