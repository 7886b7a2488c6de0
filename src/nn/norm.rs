//! Batch normalisation layer.

use super::{Activation, Context, Init, Module, Owned, Parameter, Then, join};
use crate::device::Device;
use crate::error::{Error, Result};
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
    fn normalize(&self, training: bool, x: &Tensor, then: Option<Then>) -> Result<Tensor> {
        x.shape().nchw("batch_norm2d")?;
        let (weight, bias) = (self.weight.tensor(), self.bias.tensor());
        let (mean, var) = (&self.running_mean, &self.running_var);
        let (after, residual, rest) = Then::split(then, x)?;
        let y = if training && self.weight.is_trainable() {
            x.batch_norm_then(&weight, &bias, Some((mean, var)), self.momentum, self.eps, (after, residual))
        } else {
            x.batch_norm_eval_then(&weight, &bias, [mean, var], self.eps, (after, residual))
        }?;
        match rest {
            Some(then) => then.apply(&y),
            None => Ok(y),
        }
    }

    /// With the running statistics, and what follows.
    pub(super) fn evaluate(&self, x: &Tensor, then: Option<Then>) -> Result<Tensor> {
        self.normalize(false, x, then)
    }

    /// Weight `[K, ..]` and bias `[K]` of a layer that computes what this norm makes of the one with `weight` and `bias`: with
    /// `s = g / sqrt(v + eps)`, `w s` and `(b - m) s + beta`.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are other channels; errors of the device.
    pub(super) fn fold(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<(Tensor, Tensor)> {
        // A product would broadcast a single channel.
        if weight.shape()[0] != self.weight.shape()[0] {
            return Err(Error::Shape(format!("batch_norm2d of {} channels cannot follow {}", self.weight.shape()[0], weight.shape()[0])));
        }
        let scale = self.weight.data().div(&self.running_var.affine(1.0, self.eps)?.unary(Activation::Sqrt)?)?;
        let mut channels = vec![1; weight.shape().rank()];
        channels[0] = scale.shape()[0];
        let shift = match bias {
            Some(bias) => bias.sub(&self.running_mean)?,
            None => self.running_mean.affine(-1.0, 0.0)?,
        };
        Ok((weight.mul(&scale.reshape(&channels)?)?, shift.mul(&scale)?.add(&self.bias.data())?))
    }
}

impl Module for BatchNorm2d {
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        self.normalize(ctx.is_training(), x, None)
    }

    fn forward_then(&self, ctx: &mut Context, x: &Tensor, then: Then) -> Result<Tensor> {
        self.normalize(ctx.is_training(), x, Some(then))
    }

    fn as_norm(&self) -> Option<&BatchNorm2d> {
        Some(self)
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
