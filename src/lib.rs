//! LeNet-5 and its kin, trained entirely on the GPU by hand-written WGSL compute shaders.
//!
//! A [`Network`] is data: layers with shapes. A [`plan::Plan`] compiles it to buffers and launches for one batch
//! size and one optimizer. A [`backend::Backend`] replays the launches: as shaders on any Vulkan, Metal, DX12 or
//! WebGPU device, or as their CPU twins. A [`train::Trainer`] queues steps and reports what has been finished;
//! it never waits and never owns the thread.
//!
//! # Embedding
//!
//! On a device that the program already has (at [`wgpu::Limits::default`] or above), between its own frames:
//!
//! ```
//! use lenet::{Network, Result, backend::{Backend, gpu}, data::Dataset, plan::Plan, session::Session, train::*};
//!
//! async fn start(device: wgpu::Device, queue: wgpu::Queue, images: &Dataset, test: &Dataset) -> Result<Trainer> {
//!     let settings = Settings { epochs: 3, ..Settings::default() };
//!     let plan = Plan::new(&Network::preset("lenet5")?, &Trainer::options(&settings, images, test))?;
//!     let backend = Backend::gpu(&gpu::Device::new(device, queue), &plan.program).await?;
//!     Trainer::new(Session::new(plan, backend), settings, images, test)
//! }
//!
//! fn once_a_frame(trainer: &mut Trainer) -> Result<()> {
//!     if trainer.in_flight() < 2 { trainer.advance(8)?; } // queues eight steps, never waits
//!     while let Some(event) = trainer.poll()? { println!("{event:?}"); } // what has been finished
//!     Ok(())
//! }
//! # let adapters = pollster::block_on(gpu::adapters());
//! # if let Some(adapter) = adapters.first() {
//! #     let (device, queue) = pollster::block_on(adapter.request_device(&Default::default())).unwrap();
//! #     let few = Dataset::new("two", [1, 28, 28], 10, vec![0; 2 * 784], vec![3, 4]).unwrap();
//! #     let mut trainer = pollster::block_on(start(device, queue, &few, &few)).unwrap();
//! #     once_a_frame(&mut trainer).unwrap();
//! # }
//! ```
//!
//! What the library promises about threads, the device, errors, cancellation, memory, determinism and versions
//! is in [`embedding`].
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backend;
pub mod check;
pub mod data;
pub mod embedding;
pub mod error;
#[cfg(not(target_arch = "wasm32"))]
pub mod files;
pub mod inspect;
pub mod kernels;
pub mod model;
pub mod network;
pub mod plan;
pub mod read;
pub mod session;
pub mod train;
pub(crate) mod twins;

pub use error::{Error, Result};
pub use network::Network;

/// The README's Rust, compiled with the tests of the documentation.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
