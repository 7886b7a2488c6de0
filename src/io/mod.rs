//! File formats: what a file holds and how it is read or written. What the content means (classes, splits, layers) is decided above.

pub mod atomic;
pub mod idx;
pub mod npy;
#[cfg(feature = "image")]
pub mod picture;
pub mod safetensors;
pub mod tensorboard;
