//! `shaders/join.wgsl`: where the branches of a network meet and part.

use super::activation::Activation;
use super::shaders::join as shader;
use super::{LANES, Launch, Range, blocks, elementwise, fused};
use crate::error::{Error, Result};

/// The most terms of a sum, and parts of a concatenation, that one launch takes.
pub const MOST: usize = 4;

fn mistake(what: String) -> Error {
    Error::Device(format!("join: {what}"))
}

/// `output = f(a + b + …)`, elementwise, of 2 to [`MOST`] terms: the end of a residual block (He et al. 2016), or
/// the gradient of a value that several layers read. The caller chains launches where there are more.
///
/// # Errors
/// [`Error::Device`] when the number of terms or their lengths are wrong, or the activation is not
/// [`Activation::by_value`].
pub fn sum(terms: &[Range], activation: Option<Activation>, output: Range) -> Result<Launch> {
    if !(2..=MOST).contains(&terms.len()) {
        return Err(mistake(format!("a sum of {} terms, expected 2 to {MOST}", terms.len())));
    }
    if let Some(term) = terms.iter().find(|term| term.len != output.len) {
        return Err(mistake(format!("a term of {} floats, expected {}", term.len, output.len)));
    }
    by_value(activation)?;
    let count = terms.len();
    let (grid, row) = elementwise(output.len);
    let flop = ((count - 1 + usize::from(activation.is_some())) * output.len) as u64;
    let activation = fused(activation);
    let constants = shader::sum::Constants { elements: output.len, row, terms: count, activation };
    let [a, b, c, d] = bound(terms);
    let bindings = shader::sum::Bindings { a, b, c, d, output };
    Ok(shader::sum::launch(constants, bindings, grid, flop)?
        .with_bytes(4 * ((count + 1) * output.len) as u64))
}

/// `input_grad = f′(output) · output_grad`, elementwise: the gradient of each term of a [`sum`] that ends with an
/// activation. Without one it is the gradient of the sum itself, and there is nothing to launch.
///
/// # Errors
/// [`Error::Device`] when the lengths differ, or the activation is not [`Activation::by_value`].
pub fn slope(activation: Activation, output: Range, output_grad: Range, input_grad: Range) -> Result<Launch> {
    by_value(Some(activation))?;
    if output.len != input_grad.len || output_grad.len != input_grad.len {
        let lengths = [output.len, output_grad.len, input_grad.len];
        return Err(mistake(format!("{lengths:?} floats, expected as many of each")));
    }
    let (grid, row) = elementwise(output.len);
    let activation = fused(Some(activation));
    let constants = shader::slope::Constants { elements: output.len, row, activation };
    let bindings = shader::slope::Bindings { value: output, output_grad, input_grad };
    shader::slope::launch(constants, bindings, grid, 2 * output.len as u64)
}

/// Some neighbouring features of a concatenation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Features of an image before the first part: 0, or what earlier launches handle.
    pub offset: usize,
    /// Features of an image in the concatenation.
    pub total: usize,
    /// Images in a batch.
    pub batch: usize,
}

/// A part of a concatenation, or its gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Where it lies.
    pub range: Range,
    /// Features of an image: channels · rows · columns.
    pub features: usize,
}

impl Geometry {
    /// The launches' constants and grid.
    fn shape(&self, parts: &[Part], whole: Range) -> Result<(shader::Constants, [usize; 3])> {
        if !(1..=MOST).contains(&parts.len()) {
            return Err(mistake(format!("{} parts, expected 1 to {MOST}", parts.len())));
        }
        let features: usize = parts.iter().map(|part| part.features).sum();
        let rows = blocks(self.batch) * LANES;
        let fits = parts.iter().all(|part| part.features > 0 && part.range.len == part.features * rows);
        if !fits || self.offset + features > self.total || whole.len != self.total * rows {
            let whole = whole.len;
            return Err(mistake(format!("{parts:?} do not fit {self:?}, which has {whole} floats")));
        }
        let elements = features * rows;
        let (grid, row) = elementwise(elements);
        let (terms, activation) = (parts.len(), fused(None));
        let [a, b, c, d] = std::array::from_fn(|i| parts.get(i).map_or(0, |part| part.features));
        let Geometry { offset, total, .. } = *self;
        let constants = shader::Constants { elements, row, terms, activation, a, b, c, d, offset, total };
        Ok((constants, grid))
    }

    /// Puts up to [`MOST`] parts side by side, from feature `offset` of the output on. Of channels as wide and
    /// high as each other's, that is a concatenation of channels.
    ///
    /// # Errors
    /// [`Error::Device`] when there are too many parts, or they do not fit.
    pub fn concat(self, parts: &[Part], output: Range) -> Result<Launch> {
        let (constants, grid) = self.shape(parts, output)?;
        let [a, b, c, d] = ranges(parts);
        let bindings = shader::concat::Bindings { a, b, c, d, output };
        let launch = shader::concat::launch(constants, bindings, grid, 0)?;
        Ok(launch.with_bytes(8 * constants.elements as u64))
    }

    /// Parts the gradient of a concatenation among up to [`MOST`] neighbouring parts, from feature `offset` on.
    ///
    /// # Errors
    /// As [`Geometry::concat`].
    pub fn split(self, output_grad: Range, parts: &[Part]) -> Result<Launch> {
        let (constants, grid) = self.shape(parts, output_grad)?;
        let [a_grad, b_grad, c_grad, d_grad] = ranges(parts);
        let launch = match parts.len() {
            1 => shader::slice::launch(constants, shader::slice::Bindings { output_grad, a_grad }, grid, 0),
            2 => {
                let bindings = shader::split2::Bindings { output_grad, a_grad, b_grad };
                shader::split2::launch(constants, bindings, grid, 0)
            }
            3 => {
                let bindings = shader::split3::Bindings { output_grad, a_grad, b_grad, c_grad };
                shader::split3::launch(constants, bindings, grid, 0)
            }
            _ => {
                let bindings = shader::split4::Bindings { output_grad, a_grad, b_grad, c_grad, d_grad };
                shader::split4::launch(constants, bindings, grid, 0)
            }
        };
        Ok(launch?.with_bytes(8 * constants.elements as u64))
    }
}

fn by_value(activation: Option<Activation>) -> Result<()> {
    match activation.filter(|activation| !activation.by_value()) {
        Some(activation) => Err(mistake(format!("the slope of {activation:?} is no function of its value"))),
        None => Ok(()),
    }
}

/// The ranges, and the first again for bindings without one: an entry binds all that it names.
fn bound(ranges: &[Range]) -> [Range; MOST] {
    std::array::from_fn(|i| *ranges.get(i).unwrap_or(&ranges[0]))
}

/// The parts' ranges, as [`bound`].
fn ranges(parts: &[Part]) -> [Range; MOST] {
    bound(&parts.iter().map(|part| part.range).collect::<Vec<_>>())
}
