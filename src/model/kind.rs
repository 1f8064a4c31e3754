//! What files are that people take for weights, and how weights are made of them.

/// What kind of file bytes are that are no safetensors file, with what makes one of it; none where nobody knows.
pub fn kind(bytes: &[u8]) -> Option<String> {
    let has = |text: &str| bytes.windows(text.len()).take(1 << 16).any(|window| window == text.as_bytes());
    let python = |read: &str| {
        format!(
            "in Python: import torch; from safetensors.torch import save_file; save_file({read}, \"model.safetensors\")"
        )
    };
    let state = "{k: v.contiguous() for k, v in torch.load(\"FILE\", map_location=\"cpu\", weights_only=True).items()}";
    let keras = "in Python: import keras; from safetensors.numpy import save_file; save_file({v.path.replace(\"/\", \".\"): \
                 v.numpy() for v in keras.models.load_model(\"FILE\").weights}, \"model.safetensors\"), then --layout keras";
    let (what, how) = match bytes {
        [b'P', b'K', 3 | 5, 4 | 6, ..] if has("model.weights.h5") || has("config.json") => {
            ("a .keras file of Keras", keras.to_owned())
        }
        [b'P', b'K', 3 | 5, 4 | 6, ..] if has(".npy") => (
            "a .npz file of NumPy",
            "in Python: import numpy; from safetensors.numpy import save_file; save_file(dict(numpy.load(\"FILE\")), \
             \"model.safetensors\")"
                .to_owned(),
        ),
        [b'P', b'K', 3 | 5, 4 | 6, ..] => ("a zip file, as torch.save writes it (.pt, .pth)", python(state)),
        [0x89, b'H', b'D', b'F', ..] => ("an HDF5 file, as Keras writes it (.h5)", keras.to_owned()),
        [0x80, 2..=5, ..] => ("a Python pickle (.pkl, .pt, .pth)", python(state)),
        [b'G', b'G', b'U', b'F', ..] => ("a GGUF file", "export the weights as safetensors instead".to_owned()),
        [b'{', ..] if has("weight_map") => (
            "the index of weights that lie in several files",
            "merge them; in Python: from safetensors.torch import load_file, save_file, over all files of its weight_map"
                .to_owned(),
        ),
        _ => return None,
    };
    Some(format!("{what} found, expected a safetensors file; {how}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::model::safetensors::{self, Named};

    #[test]
    fn other_files_are_called_by_their_kind() {
        let refused = |bytes: &[u8]| safetensors::decode("it", bytes).unwrap_err().to_string();
        for (bytes, says) in [
            (&b"PK\x03\x04................archive/data.pkl"[..], "torch.load"),
            (b"PK\x03\x04................config.json.model.weights.h5", "a .keras file"),
            (b"PK\x03\x04................arr_0.npy", "numpy.load"),
            (b"\x89HDF\r\n\x1a\n........", "HDF5"),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j", "pickle"),
            (b"GGUF............", "GGUF"),
            (b"{\"metadata\": {}, \"weight_map\": {}}", "several files"),
        ] {
            let told = refused(bytes);
            assert!(told.contains(says) && told.contains("expected a safetensors file"), "{told}");
        }
        // A file of ours begins with its header's length.
        let none: [Named<'_>; 0] = [];
        assert!(safetensors::decode("it", &safetensors::encode(&none, &BTreeMap::new()).unwrap()).is_ok());
    }
}
