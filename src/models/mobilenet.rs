//! Sandler et al. 2018, "MobileNetV2: Inverted residuals and linear bottlenecks", arXiv:1801.04381.

use crate::device::Device;
use crate::error::Result;
use crate::nn::{Activation, BatchNorm2d, Context, Conv2d, Dropout, Flatten, GlobalAvgPool2d, Linear, Module, Owned, Sequential, join};
use crate::op::Conv2dOptions;
use crate::tensor::Tensor;

/// The network of the paper with torchvision's names; `width_mult` scales all channels.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn mobilenet_v2(device: &Device, [channels, _, _]: [usize; 3], classes: usize, width_mult: f64, dropout: f64) -> Result<Sequential> {
    let mut from = eighths(32.0 * width_mult);
    let mut features = Sequential::new().then(normalised(device, [channels, from], 3, 2, 1)?);
    // Table 2 of the paper: expansion, channels, blocks, stride of the first.
    for (expansion, to, blocks, first) in
        [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    {
        let to = eighths(to as f64 * width_mult);
        for block in 0..blocks {
            features = features.then(InvertedResidual::new(device, [from, to], if block == 0 { first } else { 1 }, expansion)?);
            from = to;
        }
    }
    let last = eighths(1280.0 * width_mult.max(1.0));
    let features = features.then(normalised(device, [from, last], 1, 1, 1)?);
    let classifier = Sequential::new().then(Dropout::new(dropout)?).then(Linear::new(device, last, classes, true)?);
    Ok(Sequential::new()
        .named("features", features)
        .named("avgpool", GlobalAvgPool2d)
        .named("flatten", Flatten)
        .named("classifier", classifier))
}

/// The nearest multiple of 8, not more than a tenth below.
fn eighths(channels: f64) -> usize {
    let near = ((channels + 4.0) / 8.0).floor().max(1.0) * 8.0;
    (if near < 0.9 * channels { near + 8.0 } else { near }) as usize
}

/// A convolution that keeps the size but for its stride, batch norm, relu6.
fn normalised(device: &Device, [from, to]: [usize; 2], kernel: usize, stride: usize, groups: usize) -> Result<Sequential> {
    let options = Conv2dOptions { stride: [stride; 2], padding: [kernel / 2; 2], groups, ..Default::default() };
    Ok(Sequential::new()
        .then(Conv2d::new(device, from, to, [kernel; 2], options, false)?)
        .then(BatchNorm2d::new(device, to)?)
        .then(Activation::Clamp { min: 0.0, max: 6.0 }))
}

/// Few channels, many, few again; the input is added where its shape allows it. The last convolution has no activation.
struct InvertedResidual {
    conv: Sequential,
    adds_input: bool,
}

impl InvertedResidual {
    fn new(device: &Device, [from, to]: [usize; 2], stride: usize, expansion: usize) -> Result<Self> {
        let hidden = from * expansion;
        let mut conv = Sequential::new();
        if expansion != 1 {
            conv = conv.then(normalised(device, [from, hidden], 1, 1, 1)?);
        }
        let conv = conv
            .then(normalised(device, [hidden, hidden], 3, stride, hidden)?)
            .then(Conv2d::new(device, hidden, to, [1; 2], Conv2dOptions::default(), false)?)
            .then(BatchNorm2d::new(device, to)?);
        Ok(InvertedResidual { conv, adds_input: stride == 1 && from == to })
    }
}

impl Module for InvertedResidual {
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        let y = ctx.call("conv", &self.conv, x)?;
        if self.adds_input { y.add(x) } else { Ok(y) }
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        self.conv.visit(&join(path, "conv"), visitor);
    }
}
