//! A network for other data than it was written for.

use super::Network;
use crate::error::{Error, Result};

impl Network {
    /// The network for data of `shape` (channels, rows, columns) with `classes` labels, and what had to be changed
    /// for it, in words: its input, and the outputs of its last layer (linear, radial basis or convolution). Where the data allows it the padding
    /// makes up for another size, so that all layers but the first and the last keep their shapes.
    ///
    /// # Errors
    /// [`Error::Network`] with the layer that does not take such an input, or when no such layer gives the logits.
    pub fn fitted(
        &self,
        [channels, height, width]: [usize; 3],
        classes: usize,
    ) -> Result<(Network, Vec<String>)> {
        let mut fitted = self.clone();
        let mut changes = Vec::new();
        let (seen, input) = (self.input_shape(), &mut fitted.input);
        (input.channels, input.height, input.width) = (channels, height, width);
        if let (Some(rows), Some(columns)) = (seen.height.checked_sub(height), seen.width.checked_sub(width))
            && rows == columns
            && rows % 2 == 0
        {
            input.pad = rows / 2;
        }
        let (old, new) = (self.input, fitted.input);
        if old != new {
            let padding = if old.pad == new.pad {
                String::new()
            } else {
                format!(", padding {} → {}", old.pad, new.pad)
            };
            changes.push(format!(
                "input {}×{}×{} → {channels}×{height}×{width}{padding}",
                old.channels, old.height, old.width,
            ));
        }
        let at = fitted.layers.iter_mut().rposition(|layer| layer.outputs_mut().is_some());
        if let Some(outputs) = at.and_then(|at| fitted.layers[at].outputs_mut()) {
            *outputs = classes;
        }
        let placed = fitted.place()?;
        let before = self.place()?;
        match at.map(|at| (&before[at], &placed[at])) {
            Some((old, new)) if old.output.channels != new.output.channels => {
                let [old, new_count] = [old, new].map(|layer| layer.output.channels);
                changes.push(format!("{} {old} → {new_count} outputs", new.name));
            }
            _ => {}
        }
        match placed.last() {
            Some(last) if last.output.channels == classes => Ok((fitted, changes)),
            last => Err(Error::Network(format!(
                "{} cannot be fitted to {classes} classes: its last layer {} gives {} logits, and no layer that \
                 learns decides how many",
                self.name,
                last.map_or("", |last| &last.name),
                last.map_or(0, |last| last.output.channels),
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_fits_other_data() {
        let network = Network::preset("lenet5").unwrap();
        let (same, changes) = network.fitted([1, 28, 28], 10).unwrap();
        assert_eq!((same, changes.len()), (network.clone(), 0));
        let (color, changes) = network.fitted([3, 32, 32], 100).unwrap();
        assert_eq!(changes, ["input 1×28×28 → 3×32×32, padding 2 → 0", "fc3 10 → 100 outputs"]);
        color.check_data([3, 32, 32], 100, [1, 1]).unwrap();
        let shapes = |network: &Network| -> Vec<Vec<usize>> {
            network.parameters().unwrap().into_iter().map(|parameter| parameter.shape).collect()
        };
        let (before, after) = (shapes(&network), shapes(&color));
        assert_eq!((after[0].as_slice(), after[8].as_slice()), (&[6, 3, 5, 5][..], &[100, 84][..]));
        assert_eq!(before[1..8], after[1..8]);
        // A size that padding cannot make up for goes through the layers.
        let (large, changes) = network.fitted([1, 65, 40], 10).unwrap();
        assert_eq!((changes, large.input.pad), (vec!["input 1×28×28 → 1×65×40".to_string()], 2));
        assert_eq!(shapes(&large)[4], [120, 16 * 14 * 8]);
        // So does one whose sides differ otherwise than the padded input's.
        assert!(network.fitted([1, 28, 12], 10).is_ok());
        let error = network.fitted([1, 28, 9], 10).unwrap_err().to_string();
        assert!(error.contains("conv2") && error.contains("5 pixels"), "{error}");
    }

    #[test]
    fn what_no_layer_decides_is_not_fitted() {
        let text = |end: &str| {
            let start = "name = \"all\"\ninput = { channels = 1, height = 8, width = 8 }\nlayers = [";
            Network::parse(&format!("{start}{{ conv2d = {{ channels = 4, kernel = 8 }} }}{end}]")).unwrap()
        };
        let (fitted, changes) = text("").fitted([2, 8, 8], 5).unwrap();
        assert_eq!((fitted.output().unwrap().channels, &changes[1][..]), (5, "conv1 4 → 5 outputs"));
        // Twice what the convolution gives.
        let twice = text(", { branches = [[], [\"tanh\"]] }");
        assert!(twice.fitted([1, 8, 8], 8).is_err());
        let error = twice.fitted([1, 8, 8], 5).unwrap_err().to_string();
        assert!(
            error.contains("all cannot be fitted to 5 classes: its last layer branches1 gives 10"),
            "{error}"
        );
        // Its filters have nothing to see.
        let error = text("").fitted([1, 7, 7], 4).unwrap_err().to_string();
        assert!(error.contains("conv1") && error.contains("8 pixels"), "{error}");
    }
}
