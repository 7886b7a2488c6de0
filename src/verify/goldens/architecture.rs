//! The networks of the cases, told by the manifest's own words: another text is another network, which nobody promised to build here.

use super::golden::{Attributes, Outcome, malformed, unsupported};
use crate::device::Device;
use crate::error::Result;
use crate::models::{self, VggLayer};
use crate::nn::recurrent::{Cell, RecurrentOptions, RowReader};
use crate::nn::{Activation, BatchNorm2d, Conv2d, Flatten, GlobalAvgPool2d, Linear, MaxPool2d, Sequential};
use crate::op::Conv2dOptions;

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
const MOBILENET: &str = "torchvision mobilenet_v2, no dropout";
const TRAIN_LSTM: &str = "lstm: input_size 8, hidden_size 24, one layer, reads the 8 rows of an image from the top; fc 24->10 on the last output; \
    zero initial state";
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
        RESNET18 => models::resnet18(device, image, classes()?, false)?,
        RESNET18_CIFAR => models::resnet18(device, image, classes()?, true)?,
        RESNET20 => models::resnet_cifar(device, image, classes()?, 3)?,
        MOBILENET => models::mobilenet_v2(device, image, classes()?, attributes.get::<Option<f64>>("width_mult")?.unwrap_or(1.0), 0.0)?,
        VGG => models::vgg(device, image, &layers(&attributes.get::<Vec<serde_json::Value>>("channels")?)?, classes()?)?,
        SQUEEZENET => models::squeezenet1_1(device, image, classes()?, 0.0)?,
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
        TRAIN_LSTM => Sequential::new()
            .named("lstm", RowReader::new(device, Cell::Lstm, [1, 8, 8], RecurrentOptions::new(0, 24), false)?)
            .named("fc", Linear::new(device, 24, 10, true)?),
        _ => return unsupported(format!("architecture '{architecture}'")),
    })
}

fn conv(device: &Device, [from, to]: [usize; 2], kernel: usize, stride: usize, padding: usize, bias: bool) -> Result<Conv2d> {
    let options = Conv2dOptions { stride: [stride; 2], padding: [padding; 2], ..Default::default() };
    Conv2d::new(device, from, to, [kernel; 2], options, bias)
}

fn layers(channels: &[serde_json::Value]) -> Outcome<Vec<VggLayer>> {
    let layer = |layer: &serde_json::Value| match (layer.as_str(), layer.as_u64()) {
        (Some("M"), _) => Ok(VggLayer::Pool),
        (_, Some(to)) => Ok(VggLayer::Conv(to as usize)),
        _ => malformed(format!("attribute channels: {layer} is neither 'M' nor a number of channels")),
    };
    channels.iter().map(layer).collect()
}
