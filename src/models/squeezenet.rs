//! Iandola et al. 2016, "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", arXiv:1602.07360.

use super::conv;
use crate::device::Device;
use crate::error::Result;
use crate::nn::{Activation, Context, Conv2d, Dropout, Flatten, GlobalAvgPool2d, MaxPool2d, Module, Owned, Sequential, join};
use crate::op::Pool2dOptions;
use crate::tensor::Tensor;

/// Version 1.0, with torchvision's names and its dropout before the last convolution.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn squeezenet1_0(device: &Device, input: [usize; 3], classes: usize, dropout: f64) -> Result<Sequential> {
    // Channels of the squeeze and of each expansion of the modules between two pools.
    let modules = [&[][..], &[(16, 64), (16, 64), (32, 128)], &[(32, 128), (48, 192), (48, 192), (64, 256)], &[(64, 256)]];
    network(device, input[0], (96, 7), &modules, classes, dropout)
}

/// Version 1.1, which pools earlier and so computes less, with torchvision's names and its dropout before the last convolution.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn squeezenet1_1(device: &Device, input: [usize; 3], classes: usize, dropout: f64) -> Result<Sequential> {
    let modules = [&[][..], &[(16, 64), (16, 64)], &[(32, 128), (32, 128)], &[(48, 192), (48, 192), (64, 256), (64, 256)]];
    network(device, input[0], (64, 3), &modules, classes, dropout)
}

/// A convolution to `stem` channels with its kernel's side, then the modules, with a pool between one list of them and the next.
fn network(
    device: &Device,
    channels: usize,
    stem: (usize, usize),
    modules: &[&[(usize, usize)]],
    classes: usize,
    dropout: f64,
) -> Result<Sequential> {
    let mut features = Sequential::new().then(conv(device, [channels, stem.0], stem.1, 2, 0, true)?).then(Activation::Relu);
    let pool = MaxPool2d(Pool2dOptions { stride: [2; 2], ceil_mode: true, ..Pool2dOptions::new(3) });
    let mut from = stem.0;
    for (i, &list) in modules.iter().enumerate() {
        if i > 0 {
            features = features.then(pool);
        }
        for &(squeeze, expand) in list {
            features = features.then(Fire {
                squeeze: conv(device, [from, squeeze], 1, 1, 0, true)?,
                expand1x1: conv(device, [squeeze, expand], 1, 1, 0, true)?,
                expand3x3: conv(device, [squeeze, expand], 3, 1, 1, true)?,
            });
            from = 2 * expand;
        }
    }
    let classifier = Sequential::new()
        .then(Dropout::new(dropout)?)
        .then(conv(device, [from, classes], 1, 1, 0, true)?)
        .then(Activation::Relu)
        .then(GlobalAvgPool2d)
        .then(Flatten);
    Ok(Sequential::new().named("features", features).named("classifier", classifier))
}

/// Few channels, then many by two kernels side by side.
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
