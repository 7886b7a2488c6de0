//! mappa trains neural networks on any GPU through hand-written WGSL kernels, and on the CPU where there is no GPU.
//!
//! *Everything is a mapping.* An [`op::Op`] says what to compute, a [`backend::Backend`] how; a [`Tensor`] lives on a [`Device`], and the
//! tape of [`autodiff`] gives gradients. Every GPU kernel has a CPU reference twin, and [`cases`] compare the two.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod autodiff;
pub mod backend;
pub mod cases;
pub mod chart;
pub mod data;
pub mod device;
pub mod dtype;
pub mod error;
pub mod io;
pub mod metrics;
pub mod models;
pub mod nn;
pub mod op;
pub mod optim;
pub mod rng;
pub mod shape;
pub mod tensor;
pub mod train;
pub mod verify;

pub use device::{Device, DeviceChoice};
pub use dtype::DType;
pub use error::{Error, Result};
pub use tensor::Tensor;
