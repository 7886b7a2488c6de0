//! Reductions and their gradients.

use super::{Saves, no_gradient};
use crate::autodiff::{Grads, Recorded};
use crate::error::Result;
use crate::op::{Comparison, Layout, Reduce, ReduceKind};
use crate::shape::Shape;
use crate::tensor::Tensor;

impl Tensor {
    /// A reduction over `dims` (negative: from the end; `None`: all), which keep size 1 with `keepdim`.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when a dimension is out of range.
    pub fn reduce(&self, kind: ReduceKind, dims: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
        let mut dims = match dims {
            Some(dims) => dims.iter().map(|&d| self.shape().dim(d, "reduce")).collect::<Result<Vec<_>>>()?,
            None => (0..<[usize]>::len(self.shape())).collect(),
        };
        dims.sort_unstable();
        dims.dedup();
        Tensor::apply1(Reduce { kind, dims, keepdim }, &[self])
    }

    /// Sum over `dims`, see [`Tensor::reduce`].
    ///
    /// # Errors
    /// As [`Tensor::reduce`].
    pub fn sum(&self, dims: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
        self.reduce(ReduceKind::Sum, dims, keepdim)
    }

    /// Mean over `dims`, see [`Tensor::reduce`].
    ///
    /// # Errors
    /// As [`Tensor::reduce`].
    pub fn mean(&self, dims: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
        self.reduce(ReduceKind::Mean, dims, keepdim)
    }

    /// Index (u32) of the largest value along `dim`; the first of equals.
    ///
    /// # Errors
    /// As [`Tensor::reduce`].
    pub fn argmax(&self, dim: i64) -> Result<Tensor> {
        self.reduce(ReduceKind::ArgMax, Some(&[dim]), false)
    }
}

/// Sums `full` over what broadcasting `shape` to it repeated: the gradient of a broadcast operand.
pub(super) fn sum_to(full: &Tensor, shape: &Shape, target: usize, grads: &mut Grads) -> Result<()> {
    if full.shape() == shape {
        return grads.add(target, full.detach());
    }
    let lead = <[usize]>::len(full.shape()) - <[usize]>::len(shape);
    let dims = (0..<[usize]>::len(full.shape())).filter(|&d| d < lead || shape[d - lead] != full.shape()[d]).collect();
    let sum = Tensor::apply1(Reduce { kind: ReduceKind::Sum, dims, keepdim: true }, &[full])?;
    grads.add(target, sum.reshape(shape)?)
}

pub(super) fn saves(op: &Reduce) -> Saves {
    match op.kind {
        ReduceKind::SumSquares | ReduceKind::Var { .. } => (&[0], &[]),
        ReduceKind::Max => (&[0], &[0]),
        _ => (&[], &[]),
    }
}

pub(super) fn vjp(op: &Reduce, r: &Recorded, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    let shape = r.input_spec(0).shape;
    let n: usize = op.dims.iter().map(|&d| shape[d]).product();
    let mut kept = shape.to_vec();
    op.dims.iter().for_each(|&d| kept[d] = 1);
    let dy = dy.reshape(&kept)?;
    let dims: Vec<i64> = op.dims.iter().map(|&d| d as i64).collect();
    match op.kind {
        ReduceKind::Sum => grads.op(&[0], Layout::Expand { shape }, &[&dy]),
        ReduceKind::Mean => grads.op(&[0], Layout::Expand { shape }, &[&dy.affine(1.0 / n as f64, 0.0)?]),
        ReduceKind::SumSquares => grads.add(0, r.input(0)?.mul(&dy.affine(2.0, 0.0)?)?),
        ReduceKind::Max => {
            let mask = r.input(0)?.compare(Comparison::Eq, &r.output(0)?.reshape(&kept)?)?.cast(dy.dtype())?;
            let ties = mask.sum(Some(&dims), true)?;
            grads.add(0, mask.mul(&dy.div(&ties)?)?)
        }
        // d var / dx = 2 (x - mean) / (n - correction); the mean's own dependence on x cancels.
        ReduceKind::Var { correction } => {
            let x = r.input(0)?;
            let deviation = x.sub(&x.mean(Some(&dims), true)?)?;
            grads.add(0, deviation.mul(&dy.affine(2.0 / (n as f64 - correction as f64), 0.0)?)?)
        }
        ReduceKind::ArgMax => Err(no_gradient(&op.clone().into())),
    }
}
