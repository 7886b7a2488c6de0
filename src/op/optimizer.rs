//! Fused optimiser steps, element by element, in place on whole arenas.

use super::{float, same};
use crate::error::{Error, Result};
use crate::shape::{Shape, Spec};

/// Settings of stochastic gradient descent, as torch.optim.SGD.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub lr: f64,
    /// Momentum; 0 keeps no buffer.
    pub momentum: f64,
    /// Dampening of the gradient in the momentum buffer.
    pub dampening: f64,
    /// L2 penalty, added to the gradient.
    pub weight_decay: f64,
    /// Nesterov's variant.
    pub nesterov: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
    /// Number of this step, from 1. In the first one the momentum buffer becomes the gradient.
    pub step: u32,
}

/// Settings of Adam (Kingma and Ba 2014, arXiv:1412.6980) and AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// AdamW: decay the weights, not the gradient.
    pub decoupled: bool,
    /// Ascend instead of descend.
    pub maximize: bool,
    /// Number of this step, from 1.
    pub step: u32,
}

/// Settings of dynamic loss scaling (Micikevicius et al. 2017, arXiv:1710.03740), as torch.amp.GradScaler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossScaleStep {
    /// The largest norm of the unscaled gradients that is left alone; infinite: no clipping.
    pub max_norm: f64,
    /// Factor of the loss scale after `growth_interval` steps in a row without overflow.
    pub growth_factor: f64,
    /// Factor of the loss scale after an overflow.
    pub backoff_factor: f64,
    /// Steps in a row without overflow until the loss scale grows.
    pub growth_interval: u32,
}

/// The family's operations. `scale` holds what the device alone knows of a step, so that nothing is read back: its first value is a factor of the
/// gradient (clipping). Where there are four, as [`Optimizer::LossScale`] makes them, the third skips the step unless it is 0, and the fourth is
/// the number of steps skipped so far, which do not count in the step's number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// `(weight*, gradient, scale, momentum_buffer*?)`, starred operands updated in place.
    Sgd(SgdStep),
    /// `(weight*, gradient, scale, first_moment*, second_moment*)`.
    Adam(AdamStep),
    /// `sums [n] -> (factor, norm) [2]`: `norm = sqrt(sum(sums))`, `factor = min(1, max_norm / (norm + 1e-6))`.
    ClipFactor {
        /// The largest norm that is left alone.
        max_norm: f64,
    },
    /// `(sums [n], state* [3]) -> (factor, norm, skip, skipped) [4]`, for gradients `g` of a loss that was multiplied by `s`. The state is `s`, the steps
    /// in a row without overflow, and the steps skipped so far; `sums` adds up to `sum(g^2)`.
    ///
    /// `norm = sqrt(sum(sums)) / s`, `factor = min(1, max_norm / (norm + 1e-6)) / s`. Where the sum is infinite or NaN, `factor`, `norm` are 0, `skip` is 1.
    LossScale(LossScaleStep),
}

impl Optimizer {
    pub(super) fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        float(self, inputs)?;
        let expected = match self {
            Optimizer::Sgd(s) => 3 + (s.momentum != 0.0) as usize,
            Optimizer::Adam(_) => 5,
            Optimizer::ClipFactor { .. } => 1,
            Optimizer::LossScale(_) => 2,
        };
        if inputs.len() != expected {
            return Err(Error::Shape(format!("{self:?} got {} operands, expected {expected}", inputs.len())));
        }
        if let Optimizer::ClipFactor { .. } = self {
            return Ok(vec![Spec::new(Shape::new(&[2])?, inputs[0].dtype)]);
        }
        if let Optimizer::LossScale(_) = self {
            same(self, &inputs[1].shape, &Shape::new(&[3])?)?;
            return Ok(vec![Spec::new(Shape::new(&[4])?, inputs[0].dtype)]);
        }
        for (i, operand) in inputs.iter().enumerate() {
            if i == 2 {
                if operand.shape.is_empty() {
                    return Err(Error::Shape("optimiser: the gradient scale is empty, expected at least one value".into()));
                }
            } else {
                same(self, &operand.shape, &inputs[0].shape)?;
            }
        }
        Ok(vec![])
    }
}
