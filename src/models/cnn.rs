//! The default classifier.

use super::conv3x3;
use crate::device::Device;
use crate::error::Result;
use crate::nn::{Activation, BatchNorm2d, Dropout, Flatten, GlobalAvgPool2d, Linear, MaxPool2d, Sequential};

/// The most values that are flattened for the first linear layer; above, each channel is averaged.
const MAX_FLAT: usize = 4096;

/// Blocks of two 3x3 convolutions with batch normalisation and relu, each pooled by 2; then a hidden layer of 128.
///
/// Images with a shorter side below 16 get 16 channels in the first block, others 32; channels double with each block up to 256. There are
/// as many blocks as bring the shorter side down to 4 to 7 pixels, but at least two. Dropout grows from 0.1 with each block, 0.3 before
/// the last layer. Parameters are `features.*` and `classifier.*`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn cnn(device: &Device, [channels, height, width]: [usize; 3], classes: usize) -> Result<Sequential> {
    let (mut in_channels, mut height, mut width) = (channels, height, width);
    let mut out_channels = if height.min(width) < 16 { 16 } else { 32 };
    let mut features = Sequential::new();
    for block in 0.. {
        let side = height.min(width);
        if side < 2 || (block >= 2 && side < 8) {
            break;
        }
        for _ in 0..2 {
            features = features
                .then(conv3x3(device, in_channels, out_channels, 1)?)
                .then(BatchNorm2d::new(device, out_channels)?)
                .then(Activation::Relu);
            in_channels = out_channels;
        }
        features = features.then(MaxPool2d::new(2)).then(Dropout::new((0.1 * (block + 1) as f64).min(0.3))?);
        (height, width) = (height / 2, width / 2);
        out_channels = (2 * out_channels).min(256);
    }
    let mut flat = in_channels * height * width;
    if flat > MAX_FLAT {
        features = features.then(GlobalAvgPool2d);
        flat = in_channels;
    }
    let classifier = Sequential::new()
        .then(Flatten)
        .then(Linear::new(device, flat, 128, true)?)
        .then(Activation::Relu)
        .then(Dropout::new(0.3)?)
        .then(Linear::new(device, 128, classes, true)?);
    Ok(Sequential::new().named("features", features).named("classifier", classifier))
}
