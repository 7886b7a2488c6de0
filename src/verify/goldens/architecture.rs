//! The networks of the cases, told by the manifest's own words: another text is another network, which nobody promised to build here.

use super::golden::{Attributes, Outcome, malformed, unsupported};
use crate::device::Device;
use crate::error::Result;
use crate::models;
use crate::nn::{
    Activation, BatchNorm2d, Context, Conv2d, Flatten, GlobalAvgPool2d, Linear, MaxPool2d, Module, Owned, Residual, Sequential, join,
};
use crate::op::{Conv2dOptions, Pool2dOptions};
use crate::tensor::Tensor;

const LENET5: &str = "conv1 1->6 5x5 pad 2, relu, max pool 2, conv2 6->16 5x5, relu, max pool 2, flatten, fc1 400->120, relu, fc2 120->84, relu, \
    fc3 84->classes; all with bias";
const RESNET18: &str = "torchvision resnet18";
const RESNET18_CIFAR: &str = "torchvision resnet18 with conv1 = 3x3, stride 1, padding 1, no bias, and without the max pool";
const RESNET20: &str = "He et al. 2015 (arXiv:1512.03385) CIFAR ResNet-20: conv1 3x3 16, bn1, relu; layer1..3 of 3 basic blocks with 16, 32, 64 \
    channels, stride 2 at the start of layer2 and layer3; shortcut option A: every second row and column from 0, then zero channels, half of the \
    added channels before and half after; global average pool; fc";
const VGG: &str = "features: torchvision VGG make_layers(channels, batch_norm=True), 'M' = max pool 2 (convolutions 3x3, padding 1, with bias, then \
    batch norm and relu); mean over the pixels; classifier: one linear layer";
const SQUEEZENET: &str = "torchvision squeezenet1_1, no dropout";
const TRAIN_MLP: &str = "flatten to 64; '0' linear 64->32, '1' relu, '2' linear 32->10";
const TRAIN_CNN: &str = "'0' conv 1->6 3x3 pad 1, '1' relu, '2' max pool 2, '3' conv 6->12 3x3 pad 1, '4' relu, '5' max pool 2, '6' flatten, \
    '7' linear 48->32, '8' relu, '9' linear 32->10";
const TRAIN_CNN_BN: &str = "'0' conv 1->8 3x3 pad 1 no bias, '1' batch norm (eps 1e-5, momentum 0.1), '2' relu, '3' conv 8->16 3x3 stride 2 pad 1 \
    no bias, '4' batch norm, '5' relu, '6' global average pool, '7' flatten, '8' linear 16->10";

/// Builds the network that the attribute `architecture` describes, for images `[channels, height, width]`.
pub(super) fn build(attributes: Attributes, image: [usize; 3], device: &Device) -> Outcome<Sequential> {
    let architecture: String = attributes.get("architecture")?;
    let classes = || attributes.get::<usize>("num_classes");
    Ok(match architecture.as_str() {
        LENET5 => models::lenet5(device, image, classes()?)?,
        RESNET18 => resnet18(device, image[0], classes()?, false)?,
        RESNET18_CIFAR => resnet18(device, image[0], classes()?, true)?,
        RESNET20 => resnet20(device, image[0], classes()?)?,
        VGG => vgg(device, image[0], &attributes.get::<Vec<serde_json::Value>>("channels")?, classes()?)?,
        SQUEEZENET => squeezenet(device, image[0], classes()?)?,
        TRAIN_MLP => Sequential::new()
            .named("flatten", Flatten)
            .named("0", Linear::new(device, 64, 32, true)?)
            .named("1", Activation::Relu)
            .named("2", Linear::new(device, 32, 10, true)?),
        TRAIN_CNN => Sequential::new()
            .then(conv(device, [1, 6], 3, 1, 1, true)?)
            .then(Activation::Relu)
            .then(MaxPool2d::new(2))
            .then(conv(device, [6, 12], 3, 1, 1, true)?)
            .then(Activation::Relu)
            .then(MaxPool2d::new(2))
            .then(Flatten)
            .then(Linear::new(device, 48, 32, true)?)
            .then(Activation::Relu)
            .then(Linear::new(device, 32, 10, true)?),
        TRAIN_CNN_BN => Sequential::new()
            .then(conv(device, [1, 8], 3, 1, 1, false)?)
            .then(BatchNorm2d::new(device, 8)?)
            .then(Activation::Relu)
            .then(conv(device, [8, 16], 3, 2, 1, false)?)
            .then(BatchNorm2d::new(device, 16)?)
            .then(Activation::Relu)
            .then(GlobalAvgPool2d)
            .then(Flatten)
            .then(Linear::new(device, 16, 10, true)?),
        _ => return unsupported(format!("architecture '{architecture}'")),
    })
}

fn conv(device: &Device, [from, to]: [usize; 2], kernel: usize, stride: usize, padding: usize, bias: bool) -> Result<Conv2d> {
    let options = Conv2dOptions { stride: [stride; 2], padding: [padding; 2], ..Default::default() };
    Conv2d::new(device, from, to, [kernel; 2], options, bias)
}

fn max_pool3(padding: usize, ceil_mode: bool) -> MaxPool2d {
    MaxPool2d(Pool2dOptions { stride: [2; 2], padding: [padding; 2], ceil_mode, ..Pool2dOptions::new(3) })
}

/// Two normalised 3x3 convolutions and a shortcut around them, with torchvision's names.
fn basic_block(device: &Device, [from, to]: [usize; 2], stride: usize, shortcut: Option<Sequential>) -> Result<Residual> {
    let body = Sequential::new()
        .named("conv1", conv(device, [from, to], 3, stride, 1, false)?)
        .named("bn1", BatchNorm2d::new(device, to)?)
        .named("relu", Activation::Relu)
        .named("conv2", conv(device, [to, to], 3, 1, 1, false)?)
        .named("bn2", BatchNorm2d::new(device, to)?);
    Ok(Residual::new(body, shortcut))
}

/// `cifar`: a 3x3 stem that keeps the size.
fn resnet18(device: &Device, channels: usize, classes: usize, cifar: bool) -> Result<Sequential> {
    let stem = if cifar { conv(device, [channels, 64], 3, 1, 1, false)? } else { conv(device, [channels, 64], 7, 2, 3, false)? };
    let mut network = Sequential::new().named("conv1", stem).named("bn1", BatchNorm2d::new(device, 64)?).named("relu", Activation::Relu);
    if !cifar {
        network = network.named("maxpool", max_pool3(1, false));
    }
    let mut from = 64;
    for (i, to) in [64, 128, 256, 512].into_iter().enumerate() {
        let shortcut = match i {
            0 => None,
            _ => Some(Sequential::new().then(conv(device, [from, to], 1, 2, 0, false)?).then(BatchNorm2d::new(device, to)?)),
        };
        let first = basic_block(device, [from, to], if i == 0 { 1 } else { 2 }, shortcut)?;
        let layer = Sequential::new().then(first).then(basic_block(device, [to, to], 1, None)?);
        network = network.named(&format!("layer{}", i + 1), layer);
        from = to;
    }
    head(device, network, from, classes)
}

fn head(device: &Device, network: Sequential, features: usize, classes: usize) -> Result<Sequential> {
    Ok(network.named("avgpool", GlobalAvgPool2d).named("flatten", Flatten).named("fc", Linear::new(device, features, classes, true)?))
}

fn resnet20(device: &Device, channels: usize, classes: usize) -> Result<Sequential> {
    let mut network = Sequential::new()
        .named("conv1", conv(device, [channels, 16], 3, 1, 1, false)?)
        .named("bn1", BatchNorm2d::new(device, 16)?)
        .named("relu", Activation::Relu);
    let mut from = 16;
    for (i, to) in [16, 32, 64].into_iter().enumerate() {
        let mut layer = Sequential::new();
        for _ in 0..3 {
            let shrinks = from != to;
            let shortcut = shrinks.then(|| Sequential::new().then(Subsample { added: (to - from) / 2 }));
            layer = layer.then(basic_block(device, [from, to], if shrinks { 2 } else { 1 }, shortcut)?);
            from = to;
        }
        network = network.named(&format!("layer{}", i + 1), layer);
    }
    head(device, network, from, classes)
}

/// Option A of He et al. 2015: every second row and column, and `added` channels of zeros on both sides.
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

fn vgg(device: &Device, channels: usize, layers: &[serde_json::Value], classes: usize) -> Outcome<Sequential> {
    let mut features = Sequential::new();
    let mut from = channels;
    for layer in layers {
        features = match (layer.as_str(), layer.as_u64()) {
            (Some("M"), _) => features.then(MaxPool2d::new(2)),
            (_, Some(to)) => {
                let to = to as usize;
                let features = features.then(conv(device, [from, to], 3, 1, 1, true)?);
                from = to;
                features.then(BatchNorm2d::new(device, to)?).then(Activation::Relu)
            }
            _ => return malformed(format!("attribute channels: {layer} is neither 'M' nor a number of channels")),
        };
    }
    Ok(Sequential::new()
        .named("features", features)
        .named("avgpool", GlobalAvgPool2d)
        .named("flatten", Flatten)
        .named("classifier", Linear::new(device, from, classes, true)?))
}

fn squeezenet(device: &Device, channels: usize, classes: usize) -> Result<Sequential> {
    let mut features = Sequential::new().then(conv(device, [channels, 64], 3, 2, 0, true)?).then(Activation::Relu);
    let mut from = 64;
    // Channels of the squeeze and of each expansion; 0 is a max pool.
    for [squeeze, expand] in [[0, 0], [16, 64], [16, 64], [0, 0], [32, 128], [32, 128], [0, 0], [48, 192], [48, 192], [64, 256], [64, 256]]
    {
        if squeeze == 0 {
            features = features.then(max_pool3(0, true));
            continue;
        }
        features = features.then(Fire {
            squeeze: conv(device, [from, squeeze], 1, 1, 0, true)?,
            expand1x1: conv(device, [squeeze, expand], 1, 1, 0, true)?,
            expand3x3: conv(device, [squeeze, expand], 3, 1, 1, true)?,
        });
        from = 2 * expand;
    }
    let classifier = Sequential::new()
        .named("1", conv(device, [from, classes], 1, 1, 0, true)?)
        .named("2", Activation::Relu)
        .named("3", GlobalAvgPool2d)
        .named("flatten", Flatten);
    Ok(Sequential::new().named("features", features).named("classifier", classifier))
}

/// The module of Iandola et al. 2016, "SqueezeNet", arXiv:1602.07360: few channels, then many by two kernels side by side.
struct Fire {
    squeeze: Conv2d,
    expand1x1: Conv2d,
    expand3x3: Conv2d,
}

impl Module for Fire {
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        let x = ctx.call("squeeze", &self.squeeze, x)?.relu()?;
        let a = ctx.call("expand1x1", &self.expand1x1, &x)?.relu()?;
        let b = ctx.call("expand3x3", &self.expand3x3, &x)?.relu()?;
        Tensor::concat(&[&a, &b], 1)
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        self.squeeze.visit(&join(path, "squeeze"), visitor);
        self.expand1x1.visit(&join(path, "expand1x1"), visitor);
        self.expand3x3.visit(&join(path, "expand3x3"), visitor);
    }
}
