//! Residual networks: He, Zhang, Ren, Sun 2015, "Deep residual learning for image recognition", arXiv:1512.03385.

use super::{conv, conv3x3};
use crate::device::Device;
use crate::error::Result;
use crate::nn::{Activation, BatchNorm2d, Context, Flatten, GlobalAvgPool2d, Linear, MaxPool2d, Module, Residual, Sequential};
use crate::op::Pool2dOptions;
use crate::tensor::Tensor;

/// What stands beside a block whose shape changes.
#[derive(Clone, Copy, PartialEq)]
enum Shortcut {
    /// Every second row and column, and channels of zeros: option A of the paper.
    Subsample,
    /// A normalised 1x1 convolution: option B.
    Convolution,
}

/// The paper's CIFAR network with one block a stage (n = 1): `conv1` 3x3 to 16 channels, `layer1` to `layer3` with 16, 32 and 64
/// channels and strides 1, 2, 2, global average pool, `fc`. Shortcuts are 1x1 convolutions where the shape changes (option B).
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn resnet8(device: &Device, [channels, _, _]: [usize; 3], classes: usize) -> Result<Sequential> {
    let stem = stem(device, conv3x3(device, channels, 16, 1)?, 16)?;
    stages(device, stem, 16, &[16, 32, 64], 1, Shortcut::Convolution, classes)
}

/// The paper's CIFAR network with three blocks a stage (n = 3) and its parameterless shortcuts (option A); the head is `fc`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn resnet20(device: &Device, [channels, _, _]: [usize; 3], classes: usize) -> Result<Sequential> {
    let stem = stem(device, conv3x3(device, channels, 16, 1)?, 16)?;
    stages(device, stem, 16, &[16, 32, 64], 3, Shortcut::Subsample, classes)
}

/// The paper's 18-layer network for ImageNet, with torchvision's names. `small_images` has a stem that keeps the size: `conv1` 3x3 with stride 1 and
/// no max pool, as is usual for CIFAR.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn resnet18(device: &Device, [channels, _, _]: [usize; 3], classes: usize, small_images: bool) -> Result<Sequential> {
    let stem = if small_images {
        stem(device, conv3x3(device, channels, 64, 1)?, 64)?
    } else {
        let pool = Pool2dOptions { stride: [2; 2], padding: [1; 2], ..Pool2dOptions::new(3) };
        stem(device, conv(device, [channels, 64], 7, 2, 3, false)?, 64)?.named("maxpool", MaxPool2d(pool))
    };
    stages(device, stem, 64, &[64, 128, 256, 512], 2, Shortcut::Convolution, classes)
}

fn stem(device: &Device, conv1: impl Module + 'static, channels: usize) -> Result<Sequential> {
    Ok(Sequential::new().named("conv1", conv1).named("bn1", BatchNorm2d::new(device, channels)?).named("relu", Activation::Relu))
}

/// `layer1`, `layer2` ... of `blocks` blocks, all but the first begin with stride 2; then the head.
fn stages(
    device: &Device,
    mut network: Sequential,
    mut from: usize,
    channels: &[usize],
    blocks: usize,
    shortcut: Shortcut,
    classes: usize,
) -> Result<Sequential> {
    for (i, &to) in channels.iter().enumerate() {
        let mut layer = Sequential::new();
        for block in 0..blocks {
            let stride = if i > 0 && block == 0 { 2 } else { 1 };
            layer = layer.then(basic_block(device, from, to, stride, shortcut)?);
            from = to;
        }
        network = network.named(&format!("layer{}", i + 1), layer);
    }
    Ok(network.named("avgpool", GlobalAvgPool2d).named("flatten", Flatten).named("fc", Linear::new(device, from, classes, true)?))
}

/// Two 3x3 convolutions, each normalised, and a shortcut around them; names as in torchvision.
fn basic_block(device: &Device, in_channels: usize, channels: usize, stride: usize, shortcut: Shortcut) -> Result<Residual> {
    let body = Sequential::new()
        .named("conv1", conv3x3(device, in_channels, channels, stride)?)
        .named("bn1", BatchNorm2d::new(device, channels)?)
        .named("relu", Activation::Relu)
        .named("conv2", conv3x3(device, channels, channels, 1)?)
        .named("bn2", BatchNorm2d::new(device, channels)?);
    if stride == 1 && in_channels == channels {
        return Ok(Residual::new(body, None));
    }
    let beside = match shortcut {
        Shortcut::Subsample => Sequential::new().then(Subsample { added: (channels - in_channels) / 2 }),
        Shortcut::Convolution => {
            Sequential::new().then(conv(device, [in_channels, channels], 1, stride, 0, false)?).then(BatchNorm2d::new(device, channels)?)
        }
    };
    Ok(Residual::new(body, Some(beside)))
}

/// Every second row and column, and `added` channels of zeros on both sides.
struct Subsample {
    added: usize,
}

impl Module for Subsample {
    fn forward(&self, _: &mut Context, x: &Tensor) -> Result<Tensor> {
        let [n, c, h, w] = x.shape().nchw("subsample")?.map(|size| size as i64);
        let added = self.added as i64;
        x.slice(&[0; 4], &[n, c, h, w], &[1, 1, 2, 2])?.pad(&[0, 0, 0, 0, added, added], 0.0)
    }
}
