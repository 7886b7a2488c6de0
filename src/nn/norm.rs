//! Batch normalisation layer.

use super::{Context, Init, Module, Owned, Parameter, Then, join};
use crate::device::Device;
use crate::error::Result;
use crate::op::After;
use crate::tensor::Tensor;

/// Normalises each channel of `[N, C, H, W]`, PyTorch's `BatchNorm2d` (Ioffe and Szegedy 2015, arXiv:1502.03167).
///
/// In training it uses the batch's statistics and updates the running ones in place; in evaluation, and when its weight is frozen, it uses the running ones.
#[derive(Debug)]
pub struct BatchNorm2d {
    weight: Parameter,
    bias: Parameter,
    running_mean: Tensor,
    running_var: Tensor,
    /// Added to the variance; 1e-5.
    pub eps: f64,
    /// Share of the batch in the running statistics; 0.1.
    pub momentum: f64,
}

impl BatchNorm2d {
    /// A layer for `channels` channels with PyTorch's `eps` and `momentum`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(device: &Device, channels: usize) -> Result<Self> {
        Ok(BatchNorm2d {
            weight: Parameter::new(device, &[channels], Init::Constant(1.0))?,
            bias: Parameter::new(device, &[channels], Init::Constant(0.0))?,
            running_mean: Tensor::zeros(device, &[channels])?,
            running_var: Tensor::ones(device, &[channels])?,
            eps: 1e-5,
            momentum: 0.1,
        })
    }

    /// The factor `[C]`.
    pub fn weight(&self) -> &Parameter {
        &self.weight
    }

    /// The summand `[C]`.
    pub fn bias(&self) -> &Parameter {
        &self.bias
    }
}

impl BatchNorm2d {
    fn normalize(&self, ctx: &Context, x: &Tensor, after: (After, Option<&Tensor>)) -> Result<Tensor> {
        x.shape().nchw("batch_norm2d")?;
        let (weight, bias) = (self.weight.tensor(), self.bias.tensor());
        let (mean, var) = (&self.running_mean, &self.running_var);
        if ctx.is_training() && self.weight.is_trainable() {
            x.batch_norm_then(&weight, &bias, Some((mean, var)), self.momentum, self.eps, after)
        } else {
            x.batch_norm_eval_then(&weight, &bias, [mean, var], self.eps, after)
        }
    }
}

impl Module for BatchNorm2d {
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        self.normalize(ctx, x, (After::Nothing, None))
    }

    fn forward_then(&self, ctx: &mut Context, x: &Tensor, then: Then) -> Result<Tensor> {
        self.normalize(ctx, x, then.checked(x)?)
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        visitor(join(path, "weight"), Owned::Parameter(&self.weight));
        visitor(join(path, "bias"), Owned::Parameter(&self.bias));
        visitor(join(path, "running_mean"), Owned::Buffer(&self.running_mean));
        visitor(join(path, "running_var"), Owned::Buffer(&self.running_var));
    }

    fn describe(&self) -> String {
        format!("BatchNorm2d {}", self.weight.shape()[0])
    }
}
