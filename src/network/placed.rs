//! Layers with their names, shapes and parameters worked out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::layers::Site;
use super::{Initialisation, Layer, Shape};
use crate::error::{Error, Result};

/// How a parameter starts.
#[derive(Debug, Clone, PartialEq)]
pub enum Init {
    /// Uniform within ±bound.
    Uniform(f64),
    /// −1 or 1.
    Signs,
    /// One value.
    Constant(f32),
    /// These values.
    Values(Arc<Vec<f32>>),
}

/// A tensor that belongs to a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// `conv1.weight`, …, as PyTorch names it.
    pub name: String,
    /// Its shape: OIHW for filters, out × in for linear layers.
    pub shape: Vec<usize>,
    /// How it starts.
    pub init: Init,
    /// Whether an optimizer may change it. Running statistics and fixed codes it may not.
    pub learned: bool,
    /// Of a filter with a connection table: whether output `o` sees input `i`, at `o · inputs + i`.
    pub mask: Option<Arc<Vec<bool>>>,
}

impl Parameter {
    /// Elements, those of pairs of channels that are not connected among them.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are none; a network's parameters never are.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements that are learned.
    pub fn count(&self) -> usize {
        match &self.mask {
            _ if !self.learned => 0,
            None => self.len(),
            Some(mask) => self.len() / mask.len() * mask.iter().filter(|&&connected| connected).count(),
        }
    }

    /// Sets elements of pairs that are not connected to 0.
    pub fn disconnect(&self, values: &mut [f32]) {
        if let Some(mask) = &self.mask {
            let taps = self.len() / mask.len();
            for (values, connected) in values.chunks_exact_mut(taps).zip(mask.iter()) {
                if !connected {
                    values.fill(0.0);
                }
            }
        }
    }
}

/// A layer with its shapes worked out.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed {
    /// Its name, unique in the network.
    pub name: String,
    /// The layer.
    pub layer: Layer,
    /// What it takes.
    pub input: Shape,
    /// What it gives.
    pub output: Shape,
    /// What it holds: weight, bias, running mean, running variance.
    pub parameters: Vec<Parameter>,
    /// Multiply-adds for one image.
    pub multiply_adds: u64,
    /// The sequences inside: body and shortcut, or the branches.
    pub inside: Vec<Vec<Placed>>,
}

impl Placed {
    /// The layer and all layers inside it, in the order in which they run, with how deep they lie.
    pub fn all(&self) -> Vec<(usize, &Placed)> {
        let mut all = vec![(0, self)];
        for sequence in &self.inside {
            all.extend(sequence.iter().flat_map(Placed::all).map(|(depth, layer)| (depth + 1, layer)));
        }
        all
    }
}

/// Names layers and their places while a network's shapes are worked out.
pub(super) struct Placing {
    pub(super) initialisation: Initialisation,
    counts: BTreeMap<String, usize>,
    names: BTreeSet<String>,
}

/// How deep sequences may be nested: more than any network needs, and less than a thread's stack.
const DEEPEST: usize = 16;

impl Placing {
    /// Nothing placed yet.
    pub(super) fn new(initialisation: Initialisation) -> Placing {
        Placing { initialisation, counts: BTreeMap::new(), names: BTreeSet::new() }
    }

    /// Places a sequence of layers.
    pub(super) fn sequence(
        &mut self,
        layers: &[Layer],
        mut shape: Shape,
        depth: usize,
    ) -> Result<Vec<Placed>> {
        if depth > DEEPEST {
            return Err(Error::Network(format!("layers are nested more than {DEEPEST} deep")));
        }
        let mut placed: Vec<Placed> = Vec::with_capacity(layers.len());
        for layer in layers {
            let (given, kind) = layer.ask(|kind| (kind.given().cloned(), kind.title()));
            let number = self.counts.entry(kind.clone()).and_modify(|n| *n += 1).or_insert(1);
            let name = given.unwrap_or_else(|| format!("{kind}{number}"));
            if !self.names.insert(name.clone()) {
                return Err(Error::Network(format!("two layers are called {name}")));
            }
            let next = self.place(layer, name, shape, depth)?;
            shape = next.output;
            placed.push(next);
        }
        Ok(placed)
    }

    fn place(&mut self, layer: &Layer, name: String, input: Shape, depth: usize) -> Result<Placed> {
        let outcome =
            layer.ask(|kind| kind.place(&mut Site { name: &name, kind, input, depth, placing: self }))?;
        Ok(Placed {
            name,
            layer: layer.clone(),
            input,
            output: outcome.output,
            parameters: outcome.parameters,
            multiply_adds: outcome.multiply_adds,
            inside: outcome.inside,
        })
    }
}
