//! `shaders/join.wgsl`: where the branches of a network meet and part.

use std::sync::Arc;

use rayon::prelude::*;

use super::activation::{Activation, fused_code};
use super::{Args, Constants, LANES, Launch, Range, blocks, elementwise};
use crate::error::{Error, Result};

/// The most terms of a sum, and parts of a concatenation, that one launch takes.
pub const MOST: usize = 4;

/// Elements that a thread takes at once.
const GRAIN: usize = 1 << 14;

/// The shader's names of terms, of parts, and of the parts' gradients.
const TERMS: [&str; MOST] = ["a", "b", "c", "d"];
const GRADIENTS: [&str; MOST] = ["a_grad", "b_grad", "c_grad", "d_grad"];

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
    let constants = [
        ("ELEMENTS", output.len as f64),
        ("ROW", row as f64),
        ("TERMS", count as f64),
        ("ACTIVATION", fused_code(activation)),
    ];
    let mut bindings = bound(TERMS, terms, terms[0]);
    bindings.push(("output", output));
    let twin = move |args: &mut Args<'_>| {
        let terms: Vec<&[f32]> = TERMS[..count].iter().map(|name| args.f32(name)).collect();
        args.f32_mut("output").par_chunks_mut(GRAIN).enumerate().for_each(|(i, output)| {
            let len = output.len();
            let part = |term: usize| &terms[term][i * GRAIN..][..len];
            let (a, b) = (part(0), part(1));
            output.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum = a + b);
            for term in 2..count {
                let part = part(term);
                output.iter_mut().zip(part).for_each(|(sum, term)| *sum += term);
            }
            if let Some(activation) = activation {
                output.iter_mut().for_each(|sum| *sum = activation.value(*sum));
            }
        });
    };
    let flop = ((count - 1 + usize::from(activation.is_some())) * output.len) as u64;
    let launch = Launch::old(("join", "sum"), &constants, grid, &bindings, flop, Arc::new(twin))?;
    Ok(launch.with_bytes(4 * ((count + 1) * output.len) as u64))
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
    let constants =
        [("ELEMENTS", output.len as f64), ("ROW", row as f64), ("ACTIVATION", fused_code(Some(activation)))];
    let bindings = [("value", output), ("output_grad", output_grad), ("input_grad", input_grad)];
    let twin = move |args: &mut Args<'_>| {
        let upstream = args.f32("value").par_chunks(GRAIN).zip(args.f32("output_grad").par_chunks(GRAIN));
        args.f32_mut("input_grad").par_chunks_mut(GRAIN).zip(upstream).for_each(
            |(grad, (values, upstream))| {
                for ((grad, &y), upstream) in grad.iter_mut().zip(values).zip(upstream) {
                    *grad = activation.slope_by_value(y) * upstream;
                }
            },
        );
    };
    Launch::old(("join", "slope"), &constants, grid, &bindings, 2 * output.len as u64, Arc::new(twin))
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
    /// The launches' constants, grid and elements.
    fn shape(&self, parts: &[Part], whole: Range) -> Result<(Constants, [usize; 3], usize)> {
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
        let (grid, row) = elementwise(features * rows);
        let mut constants = vec![
            ("ELEMENTS", (features * rows) as f64),
            ("ROW", row as f64),
            ("OFFSET", self.offset as f64),
            ("TOTAL", self.total as f64),
        ];
        constants.extend(["A", "B", "C", "D"].into_iter().zip(parts.iter().map(|part| part.features as f64)));
        Ok((constants, grid, features * rows))
    }

    /// Puts up to [`MOST`] parts side by side, from feature `offset` of the output on. Of channels as wide and
    /// high as each other's, that is a concatenation of channels.
    ///
    /// # Errors
    /// [`Error::Device`] when there are too many parts, or they do not fit.
    pub fn concat(self, parts: &[Part], output: Range) -> Result<Launch> {
        let (constants, grid, elements) = self.shape(parts, output)?;
        let ranges: Vec<Range> = parts.iter().map(|part| part.range).collect();
        let mut bindings = bound(TERMS, &ranges, ranges[0]);
        bindings.push(("output", output));
        let features: Vec<usize> = parts.iter().map(|part| part.features).collect();
        let twin = move |args: &mut Args<'_>| {
            let parts: Vec<&[f32]> = TERMS[..features.len()].iter().map(|name| args.f32(name)).collect();
            let blocks = args.f32_mut("output").par_chunks_mut(self.total * LANES).enumerate();
            blocks.for_each(|(block, output)| {
                let mut output = &mut output[self.offset * LANES..];
                for (part, features) in parts.iter().zip(&features) {
                    let len = features * LANES;
                    let (here, rest) = output.split_at_mut(len);
                    here.copy_from_slice(&part[block * len..][..len]);
                    output = rest;
                }
            });
        };
        let launch = Launch::old(("join", "concat"), &constants, grid, &bindings, 0, Arc::new(twin))?;
        Ok(launch.with_bytes(8 * elements as u64))
    }

    /// Parts the gradient of a concatenation among up to [`MOST`] neighbouring parts, from feature `offset` on.
    ///
    /// # Errors
    /// As [`Geometry::concat`].
    pub fn split(self, output_grad: Range, parts: &[Part]) -> Result<Launch> {
        let (constants, grid, elements) = self.shape(parts, output_grad)?;
        let mut bindings = vec![("output_grad", output_grad)];
        bindings.extend(GRADIENTS.into_iter().zip(parts.iter().map(|part| part.range)));
        let features: Vec<usize> = parts.iter().map(|part| part.features).collect();
        let twin = move |args: &mut Args<'_>| {
            let whole = args.f32("output_grad");
            let mut offset = self.offset;
            for (name, &features) in GRADIENTS.iter().zip(&features) {
                let blocks = args.f32_mut(name).par_chunks_mut(features * LANES);
                blocks.zip(whole.par_chunks(self.total * LANES)).for_each(|(part, whole)| {
                    part.copy_from_slice(&whole[offset * LANES..][..part.len()]);
                });
                offset += features;
            }
        };
        let entry = ["slice", "split2", "split3", "split4"][parts.len() - 1];
        let launch = Launch::old(("join", entry), &constants, grid, &bindings, 0, Arc::new(twin))?;
        Ok(launch.with_bytes(8 * elements as u64))
    }
}

fn by_value(activation: Option<Activation>) -> Result<()> {
    match activation.filter(|activation| !activation.by_value()) {
        Some(activation) => Err(mistake(format!("the slope of {activation:?} is no function of its value"))),
        None => Ok(()),
    }
}

/// The ranges by name, `spare` for names without one.
fn bound(names: [&'static str; MOST], ranges: &[Range], spare: Range) -> Vec<(&'static str, Range)> {
    let ranges = ranges.iter().copied().chain(std::iter::repeat(spare));
    names.into_iter().zip(ranges).collect()
}
