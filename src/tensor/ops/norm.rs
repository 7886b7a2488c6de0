//! Batch normalisation and its gradient.

use super::{Saves, no_gradient};
use crate::autodiff::{Grads, Recorded};
use crate::error::Result;
use crate::op::Norm;
use crate::tensor::Tensor;

impl Tensor {
    /// Normalises each channel of `[N, C, ..]` with the batch's statistics and updates `running` (mean, variance) in place.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when sizes differ, or a channel has fewer than two values.
    pub fn batch_norm(
        &self,
        weight: &Tensor,
        bias: &Tensor,
        running: Option<(&Tensor, &Tensor)>,
        momentum: f64,
        eps: f64,
    ) -> Result<Tensor> {
        let op = Norm::BatchNorm { eps, momentum, running: running.is_some() };
        match running {
            Some((mean, var)) => Tensor::apply1(op, &[self, weight, bias, mean, var]),
            None => Tensor::apply1(op, &[self, weight, bias]),
        }
    }

    /// Normalises each channel of `[N, C, ..]` with given statistics.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when sizes differ.
    pub fn batch_norm_eval(&self, weight: &Tensor, bias: &Tensor, mean: &Tensor, var: &Tensor, eps: f64) -> Result<Tensor> {
        Tensor::apply1(Norm::BatchNormEval { eps }, &[self, weight, bias, mean, var])
    }
}

pub(super) fn saves(op: &Norm) -> Saves {
    match op {
        Norm::BatchNorm { .. } => (&[0, 1], &[1, 2]),
        Norm::BatchNormEval { .. } => (&[0, 1, 3], &[1]),
        Norm::BatchNormBackward { .. } => (&[], &[]),
    }
}

pub(super) fn vjp(op: &Norm, r: &Recorded, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    let (training, mean, invstd) = match op {
        Norm::BatchNorm { .. } => (true, r.output(1)?, r.output(2)?),
        Norm::BatchNormEval { .. } => (false, r.input(3)?, r.output(1)?),
        Norm::BatchNormBackward { .. } => return Err(no_gradient(&(*op).into())),
    };
    grads.op(&[0, 1, 2], Norm::BatchNormBackward { training }, &[r.input(0)?, dy, r.input(1)?, mean, invstd])
}
