//! EfficientNet-Lite: Tan and Le 2019, "EfficientNet: Rethinking model scaling for convolutional neural networks", arXiv:1905.11946, without
//! squeeze-and-excitation and with relu6, as Google published it for phones in 2020.

use super::conv;
use crate::device::Device;
use crate::error::Result;
use crate::nn::{Activation, BatchNorm2d, Context, Conv2d, Dropout, Flatten, GlobalAvgPool2d, Linear, Module, Owned, Sequential, Then};
use crate::op::Conv2dOptions;
use crate::tensor::Tensor;

const RELU6: Activation = Activation::Clamp { min: 0.0, max: 6.0 };

/// EfficientNet-Lite0: `_conv_stem` to 32 channels with stride 2, sixteen inverted bottlenecks `_blocks`, `_conv_head` to 1,280 channels, mean over the
/// pixels, `_fc`. Names are those of the `efficientnet_pytorch` family; padding is TensorFlow's SAME, batch norm has eps 1e-3 and momentum 0.01.
/// Stochastic depth is left out.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn efficientnet_lite0(device: &Device, [channels, _, _]: [usize; 3], classes: usize, dropout: f64) -> Result<Sequential> {
    let mut from = 32;
    let stem = SameConv2d::new(device, [channels, from], 3, 2, 1)?;
    let mut blocks = Sequential::new();
    // Table 1 of the paper: kernel, stride of the first, expansion, channels, blocks.
    for (kernel, first, expansion, to, count) in
        [(3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1)]
    {
        for block in 0..count {
            let stride = if block == 0 { first } else { 1 };
            blocks = blocks.then(Bottleneck::new(device, [from, to], kernel, stride, expansion)?);
            from = to;
        }
    }
    Ok(Sequential::new()
        .named("_conv_stem", stem)
        .named("_bn0", norm(device, 32)?)
        .named("_relu0", RELU6)
        .named("_blocks", blocks)
        .named("_conv_head", conv(device, [from, 1280], 1, 1, 0, false)?)
        .named("_bn1", norm(device, 1280)?)
        .named("_relu1", RELU6)
        .named("_avg_pooling", GlobalAvgPool2d)
        .named("_flatten", Flatten)
        .named("_dropout", Dropout::new(dropout)?)
        .named("_fc", Linear::new(device, 1280, classes, true)?))
}

fn norm(device: &Device, channels: usize) -> Result<BatchNorm2d> {
    let mut norm = BatchNorm2d::new(device, channels)?;
    (norm.eps, norm.momentum) = (1e-3, 0.01);
    Ok(norm)
}

/// A square convolution without bias that gives `ceil(size / stride)` pixels: with an odd sum of padding the last side gets one pixel more.
struct SameConv2d {
    conv: Conv2d,
    kernel: i64,
}

impl SameConv2d {
    fn new(device: &Device, [from, to]: [usize; 2], kernel: usize, stride: usize, groups: usize) -> Result<Self> {
        // An odd kernel that moves by one pixel has as much on both sides, which the convolution adds itself.
        let padding = if stride == 1 { kernel / 2 } else { 0 };
        let options = Conv2dOptions { stride: [stride; 2], padding: [padding; 2], groups, ..Default::default() };
        Ok(SameConv2d { conv: Conv2d::new(device, from, to, [kernel; 2], options, false)?, kernel: kernel as i64 })
    }
}

impl SameConv2d {
    fn padded(&self, x: &Tensor) -> Result<Tensor> {
        let stride = self.conv.options().stride[0] as i64;
        if stride == 1 {
            return Ok(x.clone());
        }
        let [_, _, h, w] = x.shape().nchw("conv2d")?.map(|size| size as i64);
        let missing = |size: i64| ((size + stride - 1) / stride - 1) * stride + self.kernel - size;
        let (h, w) = (missing(h).max(0), missing(w).max(0));
        x.pad(&[w / 2, w - w / 2, h / 2, h - h / 2], 0.0)
    }
}

impl Module for SameConv2d {
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        self.conv.forward(ctx, &self.padded(x)?)
    }

    fn forward_then(&self, ctx: &mut Context, x: &Tensor, then: Then) -> Result<Tensor> {
        self.conv.forward_then(ctx, &self.padded(x)?, then)
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        self.conv.visit(path, visitor);
    }

    fn describe(&self) -> String {
        format!("{}, padding SAME", self.conv.describe())
    }
}

/// Few channels, many by a depthwise convolution, few again; the input is added where its shape allows it.
struct Bottleneck {
    body: Sequential,
    adds_input: bool,
}

impl Bottleneck {
    fn new(device: &Device, [from, to]: [usize; 2], kernel: usize, stride: usize, expansion: usize) -> Result<Self> {
        let hidden = from * expansion;
        let mut body = Sequential::new();
        if expansion != 1 {
            body = body
                .named("_expand_conv", conv(device, [from, hidden], 1, 1, 0, false)?)
                .named("_bn0", norm(device, hidden)?)
                .named("_relu0", RELU6);
        }
        let body = body
            .named("_depthwise_conv", SameConv2d::new(device, [hidden, hidden], kernel, stride, hidden)?)
            .named("_bn1", norm(device, hidden)?)
            .named("_relu1", RELU6)
            .named("_project_conv", conv(device, [hidden, to], 1, 1, 0, false)?)
            .named("_bn2", norm(device, to)?);
        Ok(Bottleneck { body, adds_input: stride == 1 && from == to })
    }
}

impl Module for Bottleneck {
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        let y = self.body.forward(ctx, x)?;
        if self.adds_input { y.add(x) } else { Ok(y) }
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        self.body.visit(path, visitor);
    }
}
