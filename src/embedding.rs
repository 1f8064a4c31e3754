#![doc = include_str!("embedding.md")]

// The names that the document links to.
#[cfg(doc)]
use crate::{
    Error, Network,
    backend::{Answer, Backend, Device, Gpu, gpu},
    check, data,
    data::Dataset,
    files, inspect, kernels, model,
    plan::{Options, Plan, Program, Tensor},
    session::Session,
    train::{
        self, Advance, Trainer,
        pace::{self, Pace},
    },
};
