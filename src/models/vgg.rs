//! Simonyan and Zisserman 2014, "Very deep convolutional networks for large-scale image recognition", arXiv:1409.1556, with batch normalisation.

use super::conv;
use crate::device::Device;
use crate::error::Result;
use crate::nn::{Activation, BatchNorm2d, Flatten, GlobalAvgPool2d, Linear, MaxPool2d, Sequential};

/// A part of the features.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// A 3x3 convolution to this many channels, batch norm, relu.
    Conv(usize),
    /// A 2x2 max pool.
    Pool,
}

/// The paper's network A with 11 layers, less its two hidden fully connected ones.
pub const VGG11: [Layer; 13] = [
    Layer::Conv(64),
    Layer::Pool,
    Layer::Conv(128),
    Layer::Pool,
    Layer::Conv(256),
    Layer::Conv(256),
    Layer::Pool,
    Layer::Conv(512),
    Layer::Conv(512),
    Layer::Pool,
    Layer::Conv(512),
    Layer::Conv(512),
    Layer::Pool,
];

/// The paper's network D with 16 layers, less its two hidden fully connected ones.
pub const VGG16: [Layer; 18] = [
    Layer::Conv(64),
    Layer::Conv(64),
    Layer::Pool,
    Layer::Conv(128),
    Layer::Conv(128),
    Layer::Pool,
    Layer::Conv(256),
    Layer::Conv(256),
    Layer::Conv(256),
    Layer::Pool,
    Layer::Conv(512),
    Layer::Conv(512),
    Layer::Conv(512),
    Layer::Pool,
    Layer::Conv(512),
    Layer::Conv(512),
    Layer::Conv(512),
    Layer::Pool,
];

/// `features` as torchvision's `make_layers(.., batch_norm=True)`, the mean over the pixels, and one linear layer, `classifier`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn vgg(device: &Device, [channels, _, _]: [usize; 3], layers: &[Layer], classes: usize) -> Result<Sequential> {
    let (mut features, mut from) = (Sequential::new(), channels);
    for &layer in layers {
        features = match layer {
            Layer::Pool => features.then(MaxPool2d::new(2)),
            Layer::Conv(to) => {
                let features = features.then(conv(device, [from, to], 3, 1, 1, true)?);
                from = to;
                features.then(BatchNorm2d::new(device, to)?).then(Activation::Relu)
            }
        };
    }
    Ok(Sequential::new()
        .named("features", features)
        .named("avgpool", GlobalAvgPool2d)
        .named("flatten", Flatten)
        .named("classifier", Linear::new(device, from, classes, true)?))
}
