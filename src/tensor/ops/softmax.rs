//! Log-softmax, cross-entropy and their gradients.

use super::{Saves, no_gradient};
use crate::autodiff::{Grads, Recorded};
use crate::error::Result;
use crate::op::{CrossEntropyOptions, Softmax};
use crate::tensor::Tensor;

/// How the losses of the rows become the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reduction {
    /// One loss a row.
    None,
    /// Their sum.
    Sum,
    /// Their sum divided by the sum of the targets' weights.
    #[default]
    Mean,
}

impl Tensor {
    /// `x - log(sum(exp(x)))` along `dim`.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when `dim` is out of range.
    pub fn log_softmax(&self, dim: i64) -> Result<Tensor> {
        let dim = self.shape().dim(dim, "log_softmax")?;
        Tensor::apply1(Softmax::LogSoftmax { dim }, &[self])
    }

    /// Cross-entropy of logits `[N, C, ..]` with class indices `target` (i32, `[N, ..]`) and class weights `[C]`, fused with the softmax.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) or [`DType`](crate::Error::DType) when the operands do not fit.
    pub fn cross_entropy(
        &self,
        target: &Tensor,
        weight: Option<&Tensor>,
        options: CrossEntropyOptions,
        reduction: Reduction,
    ) -> Result<Tensor> {
        let op = Softmax::CrossEntropy(CrossEntropyOptions { weight: weight.is_some(), ..options });
        let outputs = match weight {
            Some(weight) => Tensor::apply(op, &[self, target, weight])?,
            None => Tensor::apply(op, &[self, target])?,
        };
        match reduction {
            Reduction::None => Ok(outputs[0].clone()),
            Reduction::Sum => outputs[0].sum(None, false),
            Reduction::Mean => outputs[0].sum(None, false)?.div(&outputs[1].sum(None, false)?),
        }
    }

    /// Mean cross-entropy of logits `[N, C]` with class indices `[N]` (i32).
    ///
    /// # Errors
    /// As [`Tensor::cross_entropy`].
    pub fn cross_entropy_mean(&self, target: &Tensor) -> Result<Tensor> {
        let rows =
            Tensor::apply1(Softmax::CrossEntropy(CrossEntropyOptions { ignore_index: i64::MIN, ..Default::default() }), &[self, target])?;
        rows.mean(None, false)
    }

    /// Cross-entropy with target probabilities of the logits' shape `[N, C, ..]`; the mean divides by N times the trailing sizes.
    ///
    /// # Errors
    /// As [`Tensor::log_softmax`] and [`Tensor::mul`].
    pub fn cross_entropy_soft(&self, target: &Tensor, label_smoothing: f64, reduction: Reduction) -> Result<Tensor> {
        let log_p = self.log_softmax(1)?;
        let classes = self.shape()[1] as f64;
        let target = if label_smoothing > 0.0 { target.affine(1.0 - label_smoothing, label_smoothing / classes)? } else { target.clone() };
        let rows = log_p.mul(&target)?.sum(Some(&[1]), false)?.affine(-1.0, 0.0)?;
        match reduction {
            Reduction::None => Ok(rows),
            Reduction::Sum => rows.sum(None, false),
            Reduction::Mean => rows.mean(None, false),
        }
    }
}

pub(super) fn saves(op: &Softmax) -> Saves {
    match op {
        Softmax::LogSoftmax { .. } => (&[], &[0]),
        Softmax::CrossEntropy(o) if o.weight => (&[0, 1, 2], &[]),
        Softmax::CrossEntropy(_) => (&[0, 1], &[]),
        _ => (&[], &[]),
    }
}

pub(super) fn vjp(op: &Softmax, r: &Recorded, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    match *op {
        Softmax::LogSoftmax { dim } => grads.op(&[0], Softmax::LogSoftmaxBackward { dim }, &[r.output(0)?, dy]),
        Softmax::CrossEntropy(o) if o.weight => {
            grads.op(&[0], Softmax::CrossEntropyBackward(o), &[r.input(0)?, r.input(1)?, r.input(2)?, dy])
        }
        Softmax::CrossEntropy(o) => grads.op(&[0], Softmax::CrossEntropyBackward(o), &[r.input(0)?, r.input(1)?, dy]),
        _ => Err(no_gradient(&(*op).into())),
    }
}
