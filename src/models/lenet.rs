//! LeNet-5: LeCun, Bottou, Bengio, Haffner 1998, "Gradient-based learning applied to document recognition".

use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::{Activation, Conv2d, Flatten, Linear, MaxPool2d, Sequential};
use crate::op::Conv2dOptions;

/// LeNet-5 with relu and max pooling: two 5x5 convolutions (6 and 16 channels), each pooled by 2, and three linear layers.
///
/// `conv1` has padding 2. `conv2` has none, as in the original, which shrinks 14x14 to 10x10; images with a side below 14 would be
/// used up by that, so there `conv2` has padding 2 as well. `fc1` takes what remains of the image (16x5x5 of 28x28).
///
/// # Errors
/// [`Error::Shape`] for images with a side below 4; out of memory.
pub fn lenet5(device: &Device, [channels, height, width]: [usize; 3], classes: usize) -> Result<Sequential> {
    let side = height.min(width);
    if side < 4 {
        return Err(Error::Shape(format!(
            "lenet5 halves the image twice and needs at least 4x4 pixels, got {height}x{width}; use --model mlp"
        )));
    }
    let padding = if side < 14 { 2 } else { 0 };
    let conv = |in_channels, out_channels, padding| {
        let options = Conv2dOptions { padding: [padding; 2], ..Default::default() };
        Conv2d::new(device, in_channels, out_channels, [5; 2], options, true)
    };
    let left = |size: usize| (size / 2 + 2 * padding - 4) / 2;
    Ok(Sequential::new()
        .named("conv1", conv(channels, 6, 2)?)
        .named("relu1", Activation::Relu)
        .named("pool1", MaxPool2d::new(2))
        .named("conv2", conv(6, 16, padding)?)
        .named("relu2", Activation::Relu)
        .named("pool2", MaxPool2d::new(2))
        .named("flatten", Flatten)
        .named("fc1", Linear::new(device, 16 * left(height) * left(width), 120, true)?)
        .named("relu3", Activation::Relu)
        .named("fc2", Linear::new(device, 120, 84, true)?)
        .named("relu4", Activation::Relu)
        .named("fc3", Linear::new(device, 84, classes, true)?))
}
