//! Cumulative sums and the largest elements, and their gradients.

use super::Saves;
use crate::autodiff::{Grads, Recorded};
use crate::error::{Error, Result};
use crate::op::{Layout, Scan};
use crate::tensor::Tensor;

impl Tensor {
    /// `y[i] = x[0] + .. + x[i]` along `dim` (negative: from the end).
    ///
    /// # Errors
    /// [`Error::Shape`] when `dim` is out of range.
    pub fn cumsum(&self, dim: i64) -> Result<Tensor> {
        let dim = self.shape().dim(dim, "cumsum")?;
        Tensor::apply1(Scan::Cumsum { dim, reverse: false }, &[self])
    }

    /// The `k` largest (or smallest) values along `dim` in their order, and their indices (u32); see [`Scan::TopK`].
    ///
    /// # Errors
    /// [`Error::Shape`] when `dim` is out of range, or has fewer than `k` elements.
    pub fn topk(&self, k: usize, dim: i64, largest: bool) -> Result<(Tensor, Tensor)> {
        let dim = self.shape().dim(dim, "topk")?;
        match <[Tensor; 2]>::try_from(Tensor::apply(Scan::TopK { dim, k, largest }, &[self])?) {
            Ok([values, index]) => Ok((values, index)),
            Err(results) => Err(Error::Shape(format!("topk gave {} results", results.len()))),
        }
    }
}

pub(super) fn saves(op: &Scan) -> Saves {
    match op {
        Scan::Cumsum { .. } => (&[], &[]),
        Scan::TopK { .. } => (&[], &[1]),
    }
}

pub(super) fn vjp(op: &Scan, r: &Recorded, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    match *op {
        // Each element is in all sums from its own on.
        Scan::Cumsum { dim, reverse } => grads.op(&[0], Scan::Cumsum { dim, reverse: !reverse }, &[dy]),
        Scan::TopK { dim, .. } => grads.op(&[0], Layout::ScatterAdd { dim, shape: r.input_spec(0).shape }, &[dy, r.output(1)?]),
    }
}
