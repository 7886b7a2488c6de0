//! Reductions and their gradients.

use super::{Saves, no_gradient};
use crate::autodiff::{Grads, Recorded};
use crate::error::{Error, Result};
use crate::op::{Comparison, Layout, Reduce, ReduceKind, Unary};
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

    /// Largest value over `dims`, see [`Tensor::reduce`].
    ///
    /// # Errors
    /// As [`Tensor::reduce`].
    pub fn amax(&self, dims: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
        self.reduce(ReduceKind::Max, dims, keepdim)
    }

    /// Smallest value over `dims`, see [`Tensor::reduce`].
    ///
    /// # Errors
    /// As [`Tensor::reduce`].
    pub fn amin(&self, dims: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
        self.reduce(ReduceKind::Min, dims, keepdim)
    }

    /// Product over `dims`; its gradient is right where elements are 0 too. See [`Tensor::reduce`].
    ///
    /// # Errors
    /// As [`Tensor::reduce`].
    pub fn prod(&self, dims: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
        self.reduce(ReduceKind::Prod, dims, keepdim)
    }

    /// Standard deviation over `dims` with divisor `n - correction`, see [`Tensor::reduce`].
    ///
    /// # Errors
    /// As [`Tensor::reduce`].
    pub fn std(&self, dims: Option<&[i64]>, correction: usize, keepdim: bool) -> Result<Tensor> {
        self.reduce(ReduceKind::Var { correction }, dims, keepdim)?.unary(Unary::Sqrt)
    }

    /// `(sum |x|^p)^(1/p)` over `dims`; infinite `p` is the largest `|x|`. The gradient where the norm is 0 is 0.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) unless `p` is above 0; otherwise as [`Tensor::reduce`].
    pub fn norm(&self, p: f64, dims: Option<&[i64]>, keepdim: bool) -> Result<Tensor> {
        if p == f64::INFINITY {
            return self.unary(Unary::Abs)?.amax(dims, keepdim);
        }
        if p == 1.0 {
            return self.unary(Unary::Abs)?.sum(dims, keepdim);
        }
        if !(p > 0.0) {
            return Err(Error::Shape(format!("norm: p = {p} must be above 0")));
        }
        let sum = if p == 2.0 {
            self.reduce(ReduceKind::SumSquares, dims, keepdim)?
        } else {
            self.unary(Unary::Abs)?.powf(p)?.sum(dims, keepdim)?
        };
        // The root's slope at 0 is infinite: there 1 takes its place, and 0 that of the result.
        let (zero, one) = (Tensor::full(self.device(), &[], self.dtype(), 0.0)?, Tensor::full(self.device(), &[], self.dtype(), 1.0)?);
        let is_zero = sum.compare(Comparison::Eq, &zero)?;
        let safe = one.where_(&is_zero, &sum)?;
        let root = if p == 2.0 { safe.unary(Unary::Sqrt)? } else { safe.powf(1.0 / p)? };
        zero.where_(&is_zero, &root)
    }

    /// Index (u32) of the smallest value along `dim`; the first of equals.
    ///
    /// # Errors
    /// As [`Tensor::reduce`].
    pub fn argmin(&self, dim: i64) -> Result<Tensor> {
        self.reduce(ReduceKind::ArgMin, Some(&[dim]), false)
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
        ReduceKind::Max | ReduceKind::Min => (&[0], &[0]),
        ReduceKind::Prod => (&[0], &[]),
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
        ReduceKind::Max | ReduceKind::Min => {
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
        // The product of the others: of the elements that are not 0, without the own factor; where one is 0, only that one's is not 0.
        ReduceKind::Prod => {
            let x = r.input(0)?;
            let scalar = |value: f64| Tensor::full(x.device(), &[], x.dtype(), value);
            let (zero, one) = (scalar(0.0)?, scalar(1.0)?);
            let is_zero = x.compare(Comparison::Eq, &zero)?;
            let zeros = is_zero.cast(x.dtype())?.sum(Some(&dims), true)?;
            let others = one.where_(&is_zero, x)?;
            let product = others.prod(Some(&dims), true)?.mul(&dy)?;
            let without = product.div(&others)?;
            let none = without.where_(&zeros.compare(Comparison::Eq, &zero)?, &zero)?;
            let single = product.where_(&is_zero, &zero)?.where_(&zeros.compare(Comparison::Eq, &one)?, &none)?;
            grads.add(0, single)
        }
        ReduceKind::ArgMax | ReduceKind::ArgMin => Err(no_gradient(&op.clone().into())),
    }
}
