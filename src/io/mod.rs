//! File formats: what a file holds and how it is read or written. What the content means (classes, splits, layers) is decided above.

pub mod atomic;
pub mod idx;
pub mod npy;
pub mod onnx;
#[cfg(feature = "image")]
pub mod picture;
pub mod pth;
pub mod safetensors;
pub mod tensorboard;
