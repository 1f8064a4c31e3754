//! Networks that serve again: fitted to other data, with some of their weights held still.

use crate::error::{Error, Result};
use crate::network::{Layer, Network};
use crate::plan::Tensor;

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
        let decides = |layer: &Layer| {
            matches!(layer, Layer::Linear(_) | Layer::Rbf(_) | Layer::Conv2d(_) | Layer::Conv1d(_))
        };
        let at = fitted.layers.iter().rposition(decides);
        match at.and_then(|at| fitted.layers.get_mut(at)) {
            Some(Layer::Linear(last)) => last.outputs = classes,
            Some(Layer::Rbf(last)) => last.outputs = classes,
            Some(Layer::Conv2d(last)) => last.channels = classes,
            Some(Layer::Conv1d(last)) => last.channels = classes,
            _ => {}
        }
        let placed = fitted.place()?;
        match (self.place()?.iter().rev().zip(placed.iter().rev())).find(|(_, new)| decides(&new.layer)) {
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

/// Whether a name is what a pattern means: the same, where each `*` stands for any characters or none.
pub fn matches(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut left) = name.strip_prefix(start) else { return false };
    let Some((middle, end)) = rest.rsplit_once('*') else { return left.ends_with(rest) };
    for part in middle.split('*') {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(end)
}

/// Freezes the tensors whose names match one of the patterns.
///
/// # Errors
/// [`Error::Settings`] with all names when a pattern matches none of them, or when nothing is left to train.
pub(crate) fn freeze(tensors: &mut [Tensor], patterns: &[String]) -> Result<()> {
    let names: Vec<String> = tensors.iter().map(|tensor| tensor.parameter.name.clone()).collect();
    for pattern in patterns {
        if !names.iter().any(|name| matches(pattern, name)) {
            return Err(Error::Settings(format!(
                "freeze {pattern} matches no parameter; there are {}",
                names.join(", ")
            )));
        }
    }
    for (tensor, name) in tensors.iter_mut().zip(&names) {
        tensor.trainable &= !patterns.iter().any(|pattern| matches(pattern, name));
    }
    if !patterns.is_empty() && tensors.iter().all(|tensor| !tensor.trainable) {
        return Err(Error::Settings(format!("freeze {} leaves nothing to train", patterns.join(", "))));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Options, Plan};

    #[test]
    fn patterns_match_what_they_mean() {
        for (pattern, name, does) in [
            ("conv1.weight", "conv1.weight", true),
            ("conv1", "conv1.weight", false),
            ("conv*", "conv1.weight", true),
            ("conv*", "my.conv1.weight", false),
            ("*.bias", "fc1.bias", true),
            ("*.bias", "fc1.weight", false),
            ("*", "", true),
            ("c*1.w*t", "conv1.weight", true),
            ("c*1*1.w*", "conv1.weight", false),
            ("*a*a", "aba", true),
            ("*a*a", "a", false),
            ("ab*ba", "aba", false),
            ("a**b", "ab", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, name), does, "{pattern} and {name}");
        }
    }

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

    #[test]
    fn frozen_is_what_the_patterns_say() {
        let plan = |patterns: &[&str]| {
            let freeze = patterns.iter().map(|pattern| (*pattern).to_string()).collect();
            Plan::new(&Network::preset("lenet5").unwrap(), &Options { freeze, ..Options::default() })
        };
        let trained = |patterns: &[&str]| -> Vec<String> {
            let plan = plan(patterns).unwrap();
            let names = plan.tensors.iter().filter(|tensor| tensor.trainable);
            names.map(|tensor| tensor.parameter.name.clone()).collect()
        };
        assert_eq!(trained(&[]).len(), 10);
        assert_eq!(trained(&["conv*", "fc1.*", "*.bias"]), ["fc2.weight", "fc3.weight"]);
        let error = |patterns: &[&str]| plan(patterns).unwrap_err().to_string();
        assert_eq!(
            error(&["conv*", "conv3.*"]),
            "freeze conv3.* matches no parameter; there are conv1.weight, conv1.bias, conv2.weight, conv2.bias, \
             fc1.weight, fc1.bias, fc2.weight, fc2.bias, fc3.weight, fc3.bias"
        );
        assert_eq!(error(&["*.bias", "*.weight"]), "freeze *.bias, *.weight leaves nothing to train");
    }
}
