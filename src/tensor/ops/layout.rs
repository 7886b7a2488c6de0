//! Copies that move elements, and their gradients.

use super::{Saves, no_gradient};
use crate::autodiff::{Grads, Recorded};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Comparison, Layout};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// Where padding takes its values from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PadMode {
    /// Mirrored at the border, which is not repeated.
    Reflect,
    /// The border repeated.
    Replicate,
    /// From the other end.
    Wrap,
}

impl Tensor {
    /// Reorders dimensions: output dimension i is input dimension `dims[i]` (negative: from the end).
    ///
    /// # Errors
    /// [`Error::Shape`] unless `dims` is a permutation.
    pub fn permute(&self, dims: &[i64]) -> Result<Tensor> {
        let dims = dims.iter().map(|&d| self.shape().dim(d, "permute")).collect::<Result<_>>()?;
        Tensor::apply1(Layout::Permute { dims }, &[self])
    }

    /// `x[starts..ends by steps]` in each dimension; negative bounds count from the end, and bounds are clamped, as in Python. A negative step
    /// walks backwards; then an end far below 0 includes the first element.
    ///
    /// # Errors
    /// [`Error::Shape`] when a list's length is not the rank, or a step is 0.
    pub fn slice(&self, starts: &[i64], ends: &[i64], steps: &[i64]) -> Result<Tensor> {
        let rank = <[usize]>::len(self.shape());
        if [starts.len(), ends.len(), steps.len()] != [rank; 3] || steps.contains(&0) {
            return Err(Error::Shape(format!(
                "slice of {}: give one start, end and step (not 0) a dimension, got {starts:?}, {ends:?}, {steps:?}",
                self.shape()
            )));
        }
        let (mut first, mut sizes) = (Vec::new(), Vec::new());
        for d in 0..rank {
            let size = self.shape()[d] as i64;
            // Backwards the bounds are one lower: -1 is before the first element.
            let (low, high) = if steps[d] > 0 { (0, size) } else { (-1, size - 1) };
            let bound = |v: i64| (if v < 0 { v.saturating_add(size) } else { v }).clamp(low, high);
            let (start, end) = (bound(starts[d]), bound(ends[d]));
            let distance = if steps[d] > 0 { end - start } else { start - end };
            sizes.push(distance.max(0).unsigned_abs().div_ceil(steps[d].unsigned_abs()) as usize);
            first.push(start.max(0) as usize);
        }
        let steps = steps.iter().map(|&s| s as isize).collect();
        Tensor::apply1(Layout::Slice { starts: first, steps, sizes }, &[self])
    }

    /// Dimension `dim` from `start` on, `len` elements of it.
    ///
    /// # Errors
    /// [`Error::Shape`] when they leave the dimension.
    pub fn narrow(&self, dim: i64, start: usize, len: usize) -> Result<Tensor> {
        let dim = self.shape().dim(dim, "narrow")?;
        if let Some(view) = self.part(dim, start, len)? {
            return Ok(view);
        }
        let (mut starts, mut sizes) = (vec![0; self.shape().rank()], self.shape().to_vec());
        (starts[dim], sizes[dim]) = (start, len);
        Tensor::apply1(Layout::Slice { starts, steps: vec![1; sizes.len()], sizes }, &[self])
    }

    /// Parts along `dim` of the given sizes, which add up to the dimension.
    ///
    /// # Errors
    /// [`Error::Shape`] when they do not.
    pub fn split(&self, sizes: &[usize], dim: i64) -> Result<Vec<Tensor>> {
        let size = self.shape()[self.shape().dim(dim, "split")?];
        if sizes.iter().sum::<usize>() != size {
            return Err(Error::Shape(format!("split: sizes {sizes:?} do not add up to dimension {dim} of {}", self.shape())));
        }
        let mut start = 0;
        let part = |&len: &usize| {
            start += len;
            self.narrow(dim, start - len, len)
        };
        sizes.iter().map(part).collect()
    }

    /// Reverses the order along each of `dims`.
    ///
    /// # Errors
    /// [`Error::Shape`] when a dimension is out of range.
    pub fn flip(&self, dims: &[i64]) -> Result<Tensor> {
        let (mut starts, mut steps) = (vec![0; self.shape().rank()], vec![1; self.shape().rank()]);
        for &dim in dims {
            let dim = self.shape().dim(dim, "flip")?;
            (starts[dim], steps[dim]) = (self.shape()[dim].saturating_sub(1), -1);
        }
        Tensor::apply1(Layout::Slice { starts, steps, sizes: self.shape().to_vec() }, &[self])
    }

    /// Moves elements by `shifts[i]` places along `dims[i]`; what leaves at the end comes back at the start.
    ///
    /// # Errors
    /// [`Error::Shape`] when the lists differ in length, or a dimension is out of range.
    pub fn roll(&self, shifts: &[i64], dims: &[i64]) -> Result<Tensor> {
        if shifts.len() != dims.len() {
            return Err(Error::Shape(format!("roll: {} shifts for {} dimensions", shifts.len(), dims.len())));
        }
        let mut x = self.clone();
        for (&shift, &dim) in shifts.iter().zip(dims) {
            let size = x.shape()[x.shape().dim(dim, "roll")?];
            let shift = shift.rem_euclid(size.max(1) as i64) as usize;
            if shift > 0 {
                x = Tensor::concat(&[&x.narrow(dim, size - shift, shift)?, &x.narrow(dim, 0, size - shift)?], dim)?;
            }
        }
        Ok(x)
    }

    /// Joins tensors of one shape along a new dimension `dim`.
    ///
    /// # Errors
    /// [`Error::Shape`] when shapes differ or there are none.
    pub fn stack(tensors: &[&Tensor], dim: i64) -> Result<Tensor> {
        let Some(first) = tensors.first() else { return Err(Error::Shape("stack needs at least one tensor".into())) };
        let rank = first.shape().rank() as i64 + 1;
        let at = if dim < 0 { dim + rank } else { dim };
        if !(0..rank).contains(&at) {
            return Err(Error::Shape(format!("stack: dimension {dim} is out of range for {rank} dimensions")));
        }
        let unsqueezed = |t: &&Tensor| {
            let mut dims = t.shape().to_vec();
            dims.insert(at as usize, 1);
            t.reshape(&dims)
        };
        let tensors = tensors.iter().map(unsqueezed).collect::<Result<Vec<_>>>()?;
        Tensor::concat(&tensors.iter().collect::<Vec<_>>(), at)
    }

    /// Repeats the tensor `repeats[i]` times along dimension i; missing leading ones are 1.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are more dimensions than repeats.
    pub fn tile(&self, repeats: &[usize]) -> Result<Tensor> {
        let rank = self.shape().rank();
        if repeats.len() < rank {
            return Err(Error::Shape(format!("tile: {repeats:?} has fewer entries than {} has dimensions", self.shape())));
        }
        let mut x = self.reshape(&[vec![1; repeats.len() - rank], self.shape().to_vec()].concat())?;
        for (dim, &n) in repeats.iter().enumerate() {
            if n != 1 {
                // Repeating along `dim` repeats all that lies behind it.
                let mut dims = x.shape().to_vec();
                let (lead, row): (usize, usize) = (dims[..dim].iter().product(), dims[dim..].iter().product());
                dims[dim] *= n;
                x = x.reshape(&[lead, 1, row])?.expand(&[lead, n, row])?.reshape(&dims)?;
            }
        }
        Ok(x)
    }

    /// `y[.., i, ..] = x[.., index[.., i, ..], ..]` along `dim`; see [`Layout::Gather`].
    ///
    /// # Errors
    /// [`Error::Shape`] when the index does not fit, [`Error::DType`] unless it is u32 or i32.
    pub fn gather(&self, dim: i64, index: &Tensor) -> Result<Tensor> {
        let dim = self.shape().dim(dim, "gather")?;
        Tensor::apply1(Layout::Gather { dim }, &[self, index])
    }

    /// `self`, to which `src[.., i, ..]` is added at `[.., index[.., i, ..], ..]` along `dim`.
    ///
    /// # Errors
    /// As [`Tensor::gather`].
    pub fn scatter_add(&self, dim: i64, index: &Tensor, src: &Tensor) -> Result<Tensor> {
        let dim = self.shape().dim(dim, "scatter_add")?;
        self.add(&Tensor::apply1(Layout::ScatterAdd { dim, shape: *self.shape() }, &[src, index])?)
    }

    /// 1 at the index along a new last dimension of `classes`, else 0 (u32). An index outside gives zeros.
    ///
    /// # Errors
    /// [`Error::DType`] unless the tensor is u32 or i32.
    pub fn one_hot(&self, classes: usize) -> Result<Tensor> {
        let numbers = match self.dtype() {
            DType::I32 => Tensor::from_slice(self.device(), &[classes], &(0..classes as i32).collect::<Vec<_>>())?,
            DType::U32 => Tensor::from_slice(self.device(), &[classes], &(0..classes as u32).collect::<Vec<_>>())?,
            other => return Err(Error::DType(format!("one_hot takes u32 or i32 indices, got {other}"))),
        };
        self.reshape(&[&self.shape()[..], &[1]].concat())?.compare(Comparison::Eq, &numbers)
    }

    /// Rows of `self` `[V, D]` for each index: `index [..] -> [.., D]`.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `self` has two dimensions.
    pub fn embedding(&self, index: &Tensor) -> Result<Tensor> {
        let [_, d] = self.shape()[..] else {
            return Err(Error::Shape(format!("embedding: weights are [V, D], got {}", self.shape())));
        };
        self.index_select(0, &index.reshape(&[index.shape().len()])?)?.reshape(&[&index.shape()[..], &[d]].concat())
    }

    /// Padding with values of the tensor itself, PyTorch's list as for [`Tensor::pad`]: mirrored without repeating the border, or the border
    /// repeated.
    ///
    /// # Errors
    /// [`Error::Shape`] when the list is odd, too long or negative, or a mirror is longer than the tensor.
    pub fn pad_with(&self, pad: &[i64], mode: PadMode) -> Result<Tensor> {
        let rank = self.shape().rank();
        if pad.len() % 2 == 1 || pad.len() / 2 > rank || pad.iter().any(|&p| p < 0) {
            return Err(Error::Shape(format!(
                "pad of {}: {pad:?} must hold two numbers of at least 0 for each of at most {rank} dimensions",
                self.shape()
            )));
        }
        let mut x = self.clone();
        for (i, amounts) in pad.chunks_exact(2).enumerate() {
            let dim = rank - 1 - i;
            let size = self.shape()[dim] as i64;
            if amounts == [0, 0] {
                continue;
            }
            let longest = if mode == PadMode::Reflect { size - 1 } else { i64::MAX };
            if size == 0 || amounts.iter().any(|&p| p > longest) {
                return Err(Error::Shape(format!(
                    "pad of {}: {amounts:?} along dimension {dim} exceeds what {mode:?} can give",
                    self.shape()
                )));
            }
            let source = |i: i64| match mode {
                PadMode::Reflect if i < 0 => -i,
                PadMode::Reflect if i >= size => 2 * (size - 1) - i,
                PadMode::Wrap => i.rem_euclid(size),
                _ => i.clamp(0, size - 1),
            };
            let index: Vec<u32> = (-amounts[0]..size + amounts[1]).map(|i| source(i) as u32).collect();
            x = x.index_select(dim as i64, &Tensor::from_slice(self.device(), &[index.len()], &index)?)?;
        }
        Ok(x)
    }

    /// `[N, C r^2, H, W]` to `[N, C, H r, W r]` (Shi et al. 2016): channel `c r^2 + i r + j` gives row `i` and column `j` of each `r x r` block.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `r^2` divides the channels.
    pub fn pixel_shuffle(&self, r: usize) -> Result<Tensor> {
        let [n, c, h, w] = self.shape().nchw("pixel_shuffle")?;
        if r == 0 || c % (r * r) != 0 {
            return Err(Error::Shape(format!("pixel_shuffle: {c} channels do not divide by {r}^2")));
        }
        let k = c / (r * r);
        self.reshape(&[n, k, r, r, h, w])?.permute(&[0, 1, 4, 2, 5, 3])?.reshape(&[n, k, h * r, w * r])
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
            let starts: Vec<i64> = before.iter().map(|&p| p.saturating_neg().max(0)).collect();
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
        Layout::IndexSelect { .. } | Layout::Gather { .. } | Layout::ScatterAdd { .. } => (&[1], &[]),
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
                // Parts that lie together need no copies.
                if let Some(view) = dy.part(*dim, starts[*dim], size[*dim])? {
                    grads.add(input, view)?;
                    starts[*dim] += size[*dim];
                    continue;
                }
                grads.op(&[input], Layout::Slice { starts: starts.clone(), steps: vec![1; rank], sizes: size.to_vec() }, &[dy])?;
                starts[*dim] += size[*dim];
            }
            Ok(())
        }
        Layout::Expand { .. } => super::reduce::sum_to(dy, &shape, 0, grads),
        Layout::Gather { dim } => grads.op(&[0], Layout::ScatterAdd { dim: *dim, shape }, &[dy, r.input(1)?]),
        Layout::ScatterAdd { dim, .. } => grads.op(&[0], Layout::Gather { dim: *dim }, &[dy, r.input(1)?]),
        Layout::IndexSelect { dim } => grads.op(&[0], Layout::IndexAdd { dim: *dim, size: shape[*dim] }, &[dy, r.input(1)?]),
        _ => Err(no_gradient(&op.clone().into())),
    }
}
