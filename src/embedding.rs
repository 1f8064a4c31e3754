#![doc = include_str!("embedding.md")]

// The names that the document links to.
#[cfg(doc)]
use crate::{
    Error, Network,
    backend::{Answer, Backend, Gpu, gpu},
    check, checkpoint, data,
    data::Dataset,
    inspect, kernels, model,
    pace::{self, Pace},
    plan::{Options, Plan, Program, Tensor},
    train::{self, Advance, Session, Trainer},
};
