//! Which parameters are held still.

use super::Tensor;
use crate::error::{Error, Result};

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
    use crate::network::Network;
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
