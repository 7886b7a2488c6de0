//! Log-softmax, cross-entropy and their gradients.

use super::{Saves, no_gradient};
use crate::autodiff::{Grads, Recorded};
use crate::error::Result;
use crate::op::{CrossEntropyOptions, Softmax, Unary};
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

    /// `exp(x) / sum(exp(x))` along `dim`, computed from the log-softmax.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when `dim` is out of range.
    pub fn softmax(&self, dim: i64) -> Result<Tensor> {
        self.log_softmax(dim)?.exp()
    }

    /// `log(sum(exp(x)))` over `dims`, computed from `x - max(x)`; of no elements, or of `-inf` alone, it is `-inf`.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when a dimension is out of range.
    pub fn logsumexp(&self, dims: &[i64], keepdim: bool) -> Result<Tensor> {
        let scalar = |value: f64| Tensor::full(self.device(), &[], self.dtype(), value);
        if self.shape().is_empty() {
            return self.sum(Some(dims), keepdim)?.add(&scalar(f64::NEG_INFINITY)?);
        }
        // The maximum is a constant: what it adds, the sum takes away. An infinite one would make NaN of the difference.
        let max = self.detach().amax(Some(dims), true)?;
        let max = scalar(0.0)?.where_(&max.isinf()?, &max)?;
        let sum = self.sub(&max)?.exp()?.sum(Some(dims), keepdim)?;
        sum.unary(Unary::Log)?.add(&max.reshape(sum.shape())?)
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
