//! Pooling layers.

use super::{Context, Module, by};
use crate::error::Result;
use crate::op::{AvgPool2dOptions, Pool2dOptions};
use crate::tensor::Tensor;

/// The largest value of each window, see [`Tensor::max_pool2d`].
#[derive(Debug, Clone, Copy)]
pub struct MaxPool2d(pub Pool2dOptions);

/// The mean of each window, see [`Tensor::avg_pool2d`].
#[derive(Debug, Clone, Copy)]
pub struct AvgPool2d(pub AvgPool2dOptions);

/// The mean of each channel, `[N, C, H, W] -> [N, C, 1, 1]`, see [`Tensor::global_avg_pool2d`].
#[derive(Debug, Clone, Copy)]
pub struct GlobalAvgPool2d;

impl MaxPool2d {
    /// A square window that steps by its own size.
    pub fn new(kernel_size: usize) -> Self {
        MaxPool2d(Pool2dOptions::new(kernel_size))
    }
}

impl AvgPool2d {
    /// A square window that steps by its own size.
    pub fn new(kernel_size: usize) -> Self {
        let window = Pool2dOptions::new(kernel_size);
        AvgPool2d(AvgPool2dOptions { window, count_include_pad: true, divisor_override: None })
    }
}

impl Module for MaxPool2d {
    fn forward(&self, _: &mut Context, x: &Tensor) -> Result<Tensor> {
        x.max_pool2d(self.0)
    }

    fn describe(&self) -> String {
        window("MaxPool2d", &self.0)
    }
}

impl Module for AvgPool2d {
    fn forward(&self, _: &mut Context, x: &Tensor) -> Result<Tensor> {
        x.avg_pool2d(self.0)
    }

    fn describe(&self) -> String {
        window("AvgPool2d", &self.0.window)
    }
}

impl Module for GlobalAvgPool2d {
    fn forward(&self, _: &mut Context, x: &Tensor) -> Result<Tensor> {
        x.global_avg_pool2d()
    }
}

fn window(name: &str, o: &Pool2dOptions) -> String {
    let mut text = format!("{name} {}", by(o.kernel_size));
    for (name, value, default) in [("stride", o.stride, o.kernel_size), ("padding", o.padding, [0; 2]), ("dilation", o.dilation, [1; 2])] {
        if value != default {
            text += &format!(", {name} {}", by(value));
        }
    }
    text
}
