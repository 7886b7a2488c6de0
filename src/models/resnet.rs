//! Residual networks: He, Zhang, Ren, Sun 2015, "Deep residual learning for image recognition", arXiv:1512.03385.

use super::conv3x3;
use crate::device::Device;
use crate::error::Result;
use crate::nn::{Activation, BatchNorm2d, Conv2d, Flatten, GlobalAvgPool2d, Linear, Residual, Sequential};
use crate::op::Conv2dOptions;

/// The paper's CIFAR network with one block a stage (n = 1): `conv1` 3x3 to 16 channels, `layer1` to `layer3` with 16, 32 and 64
/// channels and strides 1, 2, 2, global average pool, `fc`. Shortcuts are 1x1 convolutions where the shape changes (option B).
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn resnet8(device: &Device, [channels, _, _]: [usize; 3], classes: usize) -> Result<Sequential> {
    Ok(Sequential::new()
        .named("conv1", conv3x3(device, channels, 16, 1)?)
        .named("bn1", BatchNorm2d::new(device, 16)?)
        .named("relu", Activation::Relu)
        .named("layer1", Sequential::new().then(basic_block(device, 16, 16, 1)?))
        .named("layer2", Sequential::new().then(basic_block(device, 16, 32, 2)?))
        .named("layer3", Sequential::new().then(basic_block(device, 32, 64, 2)?))
        .named("avgpool", GlobalAvgPool2d)
        .named("flatten", Flatten)
        .named("fc", Linear::new(device, 64, classes, true)?))
}

/// Two 3x3 convolutions, each normalised, and a shortcut around them; names as in torchvision.
fn basic_block(device: &Device, in_channels: usize, channels: usize, stride: usize) -> Result<Residual> {
    let body = Sequential::new()
        .named("conv1", conv3x3(device, in_channels, channels, stride)?)
        .named("bn1", BatchNorm2d::new(device, channels)?)
        .named("relu", Activation::Relu)
        .named("conv2", conv3x3(device, channels, channels, 1)?)
        .named("bn2", BatchNorm2d::new(device, channels)?);
    if stride == 1 && in_channels == channels {
        return Ok(Residual::new(body, None));
    }
    let options = Conv2dOptions { stride: [stride; 2], ..Default::default() };
    let shortcut = Sequential::new()
        .then(Conv2d::new(device, in_channels, channels, [1; 2], options, false)?)
        .then(BatchNorm2d::new(device, channels)?);
    Ok(Residual::new(body, Some(shortcut)))
}
