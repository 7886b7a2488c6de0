//! Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks", arXiv:1404.5997: AlexNet on one device.

use super::conv;
use crate::device::Device;
use crate::error::Result;
use crate::nn::{Activation, Dropout, Flatten, Linear, MaxPool2d, Sequential};
use crate::op::Pool2dOptions;

/// Five convolutions and three linear layers with torchvision's names and its dropout. Images of more than 64 pixels have torchvision's sizes (without its
/// adaptive pooling, which changes nothing at 224); smaller ones are `small`: the first convolution is 3x3 without a stride, windows of pools do not overlap,
/// and the hidden linear layers have 1,024 features in the place of 4,096.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn alexnet(device: &Device, [channels, height, width]: [usize; 3], classes: usize, small: bool, dropout: f64) -> Result<Sequential> {
    let pool = if small { MaxPool2d::new(2) } else { MaxPool2d(Pool2dOptions { stride: [2; 2], ..Pool2dOptions::new(3) }) };
    let first = if small { conv(device, [channels, 64], 3, 1, 1, true)? } else { conv(device, [channels, 64], 11, 4, 2, true)? };
    let features = Sequential::new()
        .then(first)
        .then(Activation::Relu)
        .then(pool)
        .then(conv(device, [64, 192], 5, 1, 2, true)?)
        .then(Activation::Relu)
        .then(pool)
        .then(conv(device, [192, 384], 3, 1, 1, true)?)
        .then(Activation::Relu)
        .then(conv(device, [384, 256], 3, 1, 1, true)?)
        .then(Activation::Relu)
        .then(conv(device, [256, 256], 3, 1, 1, true)?)
        .then(Activation::Relu)
        .then(pool);
    // What three pools leave; where that is nothing, the forward pass says so and where.
    let left = |size: usize| match small {
        true => size / 8,
        false => (0..3).fold((size + 4).saturating_sub(11) / 4 + 1, |size, _| size.saturating_sub(3) / 2 + 1),
    };
    let (flat, hidden) = (256 * (left(height) * left(width)).max(1), if small { 1024 } else { 4096 });
    let classifier = Sequential::new()
        .then(Dropout::new(dropout)?)
        .then(Linear::new(device, flat, hidden, true)?)
        .then(Activation::Relu)
        .then(Dropout::new(dropout)?)
        .then(Linear::new(device, hidden, hidden, true)?)
        .then(Activation::Relu)
        .then(Linear::new(device, hidden, classes, true)?);
    Ok(Sequential::new().named("features", features).named("flatten", Flatten).named("classifier", classifier))
}
