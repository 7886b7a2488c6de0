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

/// What a block computes beside its shortcut.
#[derive(Clone, Copy, PartialEq)]
enum Block {
    /// Two 3x3 convolutions.
    Basic,
    /// 1x1, 3x3 with the stride, 1x1 to four times the channels.
    Bottleneck,
}

/// The paper's CIFAR network with one block a stage (n = 1): `conv1` 3x3 to 16 channels, `layer1` to `layer3` with 16, 32 and 64
/// channels and strides 1, 2, 2, global average pool, `fc`. Shortcuts are 1x1 convolutions where the shape changes (option B).
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn resnet8(device: &Device, [channels, _, _]: [usize; 3], classes: usize) -> Result<Sequential> {
    let stem = stem(device, conv3x3(device, channels, 16, 1)?, 16)?;
    stages(device, stem, &[(16, 1), (32, 1), (64, 1)], Block::Basic, Shortcut::Convolution, classes)
}

/// The paper's CIFAR network with `blocks` blocks a stage, 6 `blocks` + 2 layers, and its parameterless shortcuts (option A); the head is `fc`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn resnet_cifar(device: &Device, [channels, _, _]: [usize; 3], classes: usize, blocks: usize) -> Result<Sequential> {
    let stem = stem(device, conv3x3(device, channels, 16, 1)?, 16)?;
    stages(device, stem, &[(16, blocks), (32, blocks), (64, blocks)], Block::Basic, Shortcut::Subsample, classes)
}

/// The paper's 18-layer network for ImageNet, with torchvision's names. `small_images` has a stem that keeps the size: `conv1` 3x3 with stride 1 and
/// no max pool, as is usual for CIFAR.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn resnet18(device: &Device, input: [usize; 3], classes: usize, small_images: bool) -> Result<Sequential> {
    imagenet(device, input, classes, small_images, [2, 2, 2, 2], Block::Basic)
}

/// The paper's 34-layer network; else as [`resnet18`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn resnet34(device: &Device, input: [usize; 3], classes: usize, small_images: bool) -> Result<Sequential> {
    imagenet(device, input, classes, small_images, [3, 4, 6, 3], Block::Basic)
}

/// The paper's 50-layer network of bottlenecks, with the stride in their 3x3 convolution as torchvision has it; else as [`resnet18`].
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn resnet50(device: &Device, input: [usize; 3], classes: usize, small_images: bool) -> Result<Sequential> {
    imagenet(device, input, classes, small_images, [3, 4, 6, 3], Block::Bottleneck)
}

fn imagenet(
    device: &Device,
    [channels, _, _]: [usize; 3],
    classes: usize,
    small_images: bool,
    blocks: [usize; 4],
    block: Block,
) -> Result<Sequential> {
    let stem = if small_images {
        stem(device, conv3x3(device, channels, 64, 1)?, 64)?
    } else {
        let pool = Pool2dOptions { stride: [2; 2], padding: [1; 2], ..Pool2dOptions::new(3) };
        stem(device, conv(device, [channels, 64], 7, 2, 3, false)?, 64)?.named("maxpool", MaxPool2d(pool))
    };
    let stages_of: Vec<(usize, usize)> = [64, 128, 256, 512].into_iter().zip(blocks).collect();
    stages(device, stem, &stages_of, block, Shortcut::Convolution, classes)
}

fn stem(device: &Device, conv1: impl Module + 'static, channels: usize) -> Result<Sequential> {
    Ok(Sequential::new().named("conv1", conv1).named("bn1", BatchNorm2d::new(device, channels)?).named("relu", Activation::Relu))
}

/// `layer1`, `layer2` ... of some width and number of blocks each; all but the first begin with stride 2. Then the head.
fn stages(
    device: &Device,
    mut network: Sequential,
    layers: &[(usize, usize)],
    block: Block,
    shortcut: Shortcut,
    classes: usize,
) -> Result<Sequential> {
    let mut from = layers[0].0;
    for (i, &(width, blocks)) in layers.iter().enumerate() {
        let mut layer = Sequential::new();
        for n in 0..blocks {
            let stride = if i > 0 && n == 0 { 2 } else { 1 };
            let (body, to) = match block {
                Block::Basic => (basic(device, [from, width], stride)?, width),
                Block::Bottleneck => (bottleneck(device, [from, width], stride)?, 4 * width),
            };
            layer = layer.then(Residual::new(body, beside(device, [from, to], stride, shortcut)?));
            from = to;
        }
        network = network.named(&format!("layer{}", i + 1), layer);
    }
    Ok(network.named("avgpool", GlobalAvgPool2d).named("flatten", Flatten).named("fc", Linear::new(device, from, classes, true)?))
}

/// Two 3x3 convolutions, each normalised; names as in torchvision.
fn basic(device: &Device, [from, width]: [usize; 2], stride: usize) -> Result<Sequential> {
    Ok(Sequential::new()
        .named("conv1", conv3x3(device, from, width, stride)?)
        .named("bn1", BatchNorm2d::new(device, width)?)
        .named("relu", Activation::Relu)
        .named("conv2", conv3x3(device, width, width, 1)?)
        .named("bn2", BatchNorm2d::new(device, width)?))
}

/// Three convolutions, each normalised, the middle one 3x3; names as in torchvision.
fn bottleneck(device: &Device, [from, width]: [usize; 2], stride: usize) -> Result<Sequential> {
    Ok(Sequential::new()
        .named("conv1", conv(device, [from, width], 1, 1, 0, false)?)
        .named("bn1", BatchNorm2d::new(device, width)?)
        .named("relu1", Activation::Relu)
        .named("conv2", conv3x3(device, width, width, stride)?)
        .named("bn2", BatchNorm2d::new(device, width)?)
        .named("relu2", Activation::Relu)
        .named("conv3", conv(device, [width, 4 * width], 1, 1, 0, false)?)
        .named("bn3", BatchNorm2d::new(device, 4 * width)?))
}

/// What stands beside a block that changes the shape.
fn beside(device: &Device, [from, to]: [usize; 2], stride: usize, shortcut: Shortcut) -> Result<Option<Sequential>> {
    if stride == 1 && from == to {
        return Ok(None);
    }
    Ok(Some(match shortcut {
        Shortcut::Subsample => Sequential::new().then(Subsample { added: (to - from) / 2 }),
        Shortcut::Convolution => Sequential::new().then(conv(device, [from, to], 1, stride, 0, false)?).then(BatchNorm2d::new(device, to)?),
    }))
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
