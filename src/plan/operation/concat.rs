//! Branches side by side.

use super::{Operation, Site, Upstream};
use crate::error::Result;
use crate::kernels::{Launch, Range, join};

/// The inputs' channels side by side.
#[derive(Debug)]
pub(in crate::plan) struct Concat;

impl Operation for Concat {
    fn forward(&self, site: &Site) -> Result<Vec<Launch>> {
        let launches = parts(site, site.inputs.iter().copied().map(Some)).into_iter();
        launches.map(|(g, parts)| g.concat(&parts, site.output)).collect()
    }

    fn backward(&self, site: &Site, gradients: &Upstream<'_>) -> Result<Vec<Launch>> {
        let arrived = gradients.arrived()?;
        let launches = parts(site, gradients.inputs.iter().copied()).into_iter();
        launches.map(|(g, parts)| g.split(arrived, &parts)).collect()
    }
}

/// What each launch takes: neighbouring inputs with the `ranges` that stand for them, up to [`join::MOST`]. An input
/// without a range separates those before it from those after it.
fn parts(site: &Site, ranges: impl Iterator<Item = Option<Range>>) -> Vec<(join::Geometry, Vec<join::Part>)> {
    let total = site.output.len / site.rows;
    let mut launches: Vec<(join::Geometry, Vec<join::Part>)> = Vec::new();
    // Where the last launch ends, and where the next input begins.
    let (mut end, mut offset) = (0, 0);
    for (input, range) in site.inputs.iter().zip(ranges) {
        let features = input.len / site.rows;
        if let Some(range) = range {
            let part = join::Part { range, features };
            match launches.last_mut() {
                Some((_, parts)) if end == offset && parts.len() < join::MOST => parts.push(part),
                _ => launches.push((join::Geometry { offset, total, batch: site.rows }, vec![part])),
            }
            end = offset + features;
        }
        offset += features;
    }
    launches
}
