//! Copies that move elements, and their gradients.

use super::{Saves, no_gradient};
use crate::autodiff::{Grads, Recorded};
use crate::error::{Error, Result};
use crate::op::Layout;
use crate::shape::Shape;
use crate::tensor::Tensor;

impl Tensor {
    /// Reorders dimensions: output dimension i is input dimension `dims[i]` (negative: from the end).
    ///
    /// # Errors
    /// [`Error::Shape`] unless `dims` is a permutation.
    pub fn permute(&self, dims: &[i64]) -> Result<Tensor> {
        let dims = dims.iter().map(|&d| self.shape().dim(d, "permute")).collect::<Result<_>>()?;
        Tensor::apply1(Layout::Permute { dims }, &[self])
    }

    /// `x[starts..ends by steps]` in each dimension; negative bounds count from the end, and bounds are clamped, as in Python.
    ///
    /// # Errors
    /// [`Error::Shape`] when a list's length is not the rank, or a step is not positive.
    pub fn slice(&self, starts: &[i64], ends: &[i64], steps: &[i64]) -> Result<Tensor> {
        let rank = <[usize]>::len(self.shape());
        if [starts.len(), ends.len(), steps.len()] != [rank; 3] || steps.iter().any(|&s| s < 1) {
            return Err(Error::Shape(format!(
                "slice of {}: give one start, end and positive step a dimension, got {starts:?}, {ends:?}, {steps:?}",
                self.shape()
            )));
        }
        let bound = |v: i64, size: usize| (if v < 0 { v + size as i64 } else { v }).clamp(0, size as i64) as usize;
        let first: Vec<usize> = (0..rank).map(|d| bound(starts[d], self.shape()[d])).collect();
        let sizes = (0..rank).map(|d| bound(ends[d], self.shape()[d]).saturating_sub(first[d]).div_ceil(steps[d] as usize)).collect();
        let steps = steps.iter().map(|&s| s as usize).collect();
        Tensor::apply1(Layout::Slice { starts: first, steps, sizes }, &[self])
    }

    /// Constant padding with PyTorch's list: `[left, right, top, bottom, ...]`, last dimension first; negative amounts crop.
    ///
    /// # Errors
    /// [`Error::Shape`] when the list is odd or too long, or crops more than there is.
    pub fn pad(&self, pad: &[i64], value: f64) -> Result<Tensor> {
        let rank = <[usize]>::len(self.shape());
        if pad.len() % 2 == 1 || pad.len() / 2 > rank {
            return Err(Error::Shape(format!(
                "pad of {}: {pad:?} must hold two numbers for each of at most {rank} dimensions",
                self.shape()
            )));
        }
        let amounts = |side: usize| -> Vec<i64> { (0..rank).map(|d| pad.get(2 * (rank - 1 - d) + side).copied().unwrap_or(0)).collect() };
        let (before, after) = (amounts(0), amounts(1));
        let mut x = self.clone();
        if pad.iter().any(|&p| p < 0) {
            let starts: Vec<i64> = before.iter().map(|&p| (-p).max(0)).collect();
            let ends: Vec<i64> = (0..rank).map(|d| self.shape()[d] as i64 + after[d].min(0)).collect();
            if (0..rank).any(|d| ends[d] < starts[d]) {
                return Err(Error::Shape(format!("pad of {}: {pad:?} crops more than there is", self.shape())));
            }
            x = x.slice(&starts, &ends, &vec![1; rank])?;
        }
        let grow = |amounts: Vec<i64>| amounts.into_iter().map(|p| p.max(0) as usize).collect();
        Tensor::apply1(Layout::Pad { before: grow(before), after: grow(after), value }, &[&x])
    }

    /// Joins tensors along `dim`.
    ///
    /// # Errors
    /// [`Error::Shape`] when other sizes differ or there are none.
    pub fn concat(tensors: &[&Tensor], dim: i64) -> Result<Tensor> {
        let Some(first) = tensors.first() else { return Err(Error::Shape("concat needs at least one tensor".into())) };
        let dim = first.shape().dim(dim, "concat")?;
        Tensor::apply1(Layout::Concat { dim }, tensors)
    }

    /// Broadcasts to `shape` and writes it out.
    ///
    /// # Errors
    /// [`Error::Shape`] when it does not broadcast.
    pub fn expand(&self, shape: &[usize]) -> Result<Tensor> {
        Tensor::apply1(Layout::Expand { shape: Shape::new(shape)? }, &[self])
    }

    /// `y[.., i, ..] = x[.., index[i], ..]` along `dim`; `index` is u32 or i32 `[n]`, and one outside the dimension gives zeros.
    ///
    /// # Errors
    /// [`Error::Shape`] when `dim` is out of range.
    pub fn index_select(&self, dim: i64, index: &Tensor) -> Result<Tensor> {
        let dim = self.shape().dim(dim, "index_select")?;
        Tensor::apply1(Layout::IndexSelect { dim }, &[self, index])
    }
}

pub(super) fn saves(op: &Layout) -> Saves {
    match op {
        Layout::IndexSelect { .. } => (&[1], &[]),
        _ => (&[], &[]),
    }
}

pub(super) fn vjp(op: &Layout, r: &Recorded, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    let shape = r.input_spec(0).shape;
    let rank = <[usize]>::len(&shape);
    match op {
        Layout::Permute { dims } => {
            let mut inverse = vec![0; dims.len()];
            dims.iter().enumerate().for_each(|(i, &d)| inverse[d] = i);
            grads.op(&[0], Layout::Permute { dims: inverse }, &[dy])
        }
        Layout::Slice { starts, steps, .. } => {
            grads.op(&[0], Layout::SliceBackward { starts: starts.clone(), steps: steps.clone(), shape }, &[dy])
        }
        Layout::Pad { before, .. } => {
            grads.op(&[0], Layout::Slice { starts: before.clone(), steps: vec![1; rank], sizes: shape.to_vec() }, &[dy])
        }
        Layout::Concat { dim } => {
            let mut starts = vec![0; rank];
            for input in 0..r.inputs() {
                let size = r.input_spec(input).shape;
                grads.op(&[input], Layout::Slice { starts: starts.clone(), steps: vec![1; rank], sizes: size.to_vec() }, &[dy])?;
                starts[*dim] += size[*dim];
            }
            Ok(())
        }
        Layout::Expand { .. } => super::reduce::sum_to(dy, &shape, 0, grads),
        Layout::IndexSelect { dim } => grads.op(&[0], Layout::IndexAdd { dim: *dim, size: shape[*dim] }, &[dy, r.input(1)?]),
        _ => Err(no_gradient(&op.clone().into())),
    }
}
