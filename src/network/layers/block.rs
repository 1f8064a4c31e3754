//! Layers that hold sequences of layers: residual blocks and branches.

use serde::{Deserialize, Serialize};

use super::{Kind, Outcome, Site};
use crate::error::Result;
use crate::network::{Layer, Placed, Shape};

/// A body and a shortcut around it, added up (He et al. 2016).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Residual {
    /// What is learned beside the shortcut.
    pub body: Vec<Layer>,
    /// The input itself where there are no layers; otherwise usually a convolution that changes its shape.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortcut: Vec<Layer>,
}

impl Kind for Residual {
    fn title(&self) -> String {
        "residual".into()
    }

    fn describe(&self) -> String {
        "residual".into()
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        let inside = sequences(&[&self.body, &self.shortcut], at)?;
        let [body, shortcut] = [0, 1].map(|i| end(&inside[i], at.input));
        if body != shortcut {
            return Err(at.wrong(format!(
                "its body ends with {body} at {}, its shortcut with {shortcut} at {}; they are added up",
                last(&inside[0]),
                last(&inside[1])
            )));
        }
        Ok(Outcome { inside, ..Outcome::plain(body) })
    }
}

/// Branches from one input.
pub(in crate::network) struct Branches<'a>(pub &'a [Vec<Layer>]);

impl Kind for Branches<'_> {
    fn title(&self) -> String {
        "branches".into()
    }

    fn describe(&self) -> String {
        format!("{} branches", self.0.len())
    }

    fn place(&self, at: &mut Site<'_>) -> Result<Outcome> {
        let branches: Vec<&[Layer]> = self.0.iter().map(Vec::as_slice).collect();
        let inside = sequences(&branches, at)?;
        let ends: Vec<Shape> = inside.iter().map(|sequence| end(sequence, at.input)).collect();
        let differs = ends.iter().position(|end| (end.height, end.width) != (ends[0].height, ends[0].width));
        if let Some(i) = differs {
            return Err(at.wrong(format!(
                "a branch ends with {} at {}, another with {} at {}; their rows and columns must agree",
                ends[0],
                last(&inside[0]),
                ends[i],
                last(&inside[i])
            )));
        }
        let output = Shape { channels: ends.iter().map(|end| end.channels).sum(), ..ends[0] };
        Ok(Outcome { inside, ..Outcome::plain(output) })
    }
}

/// Places the sequences of a block, of which there are two at least.
fn sequences(sequences: &[&[Layer]], at: &mut Site<'_>) -> Result<Vec<Vec<Placed>>> {
    if sequences.len() < 2 || sequences.iter().all(|sequence| sequence.is_empty()) {
        return Err(at.wrong("it needs two sequences at least, not all empty".into()));
    }
    sequences.iter().map(|sequence| at.sequence(sequence)).collect()
}

/// The shape that a sequence ends with.
fn end(sequence: &[Placed], input: Shape) -> Shape {
    sequence.last().map_or(input, |last| last.output)
}

/// The layer that a sequence ends with, in words.
fn last(sequence: &[Placed]) -> String {
    sequence.last().map_or("the input".into(), |last| format!("layer {}", last.name))
}
