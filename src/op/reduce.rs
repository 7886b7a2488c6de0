//! Reductions over any set of dimensions.

use super::arity;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::{Shape, Spec};

/// What is computed over the reduced elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReduceKind {
    /// Sum; 0 for no elements.
    Sum,
    /// Sum of squares.
    SumSquares,
    /// Mean.
    Mean,
    /// Largest value; its gradient is shared equally by ties, as PyTorch's `amax`.
    Max,
    /// Index (u32) of the largest value within the reduced dimensions, row-major; a tie goes to the first.
    ArgMax,
    /// Smallest value; its gradient is shared equally by ties, as PyTorch's `amin`.
    Min,
    /// Index (u32) of the smallest value, as [`ReduceKind::ArgMax`].
    ArgMin,
    /// Product; 1 for no elements.
    Prod,
    /// Variance with divisor `n - correction`, by the deviations from the mean.
    Var {
        /// 1 is the unbiased estimate.
        correction: usize,
    },
}

/// A reduction of `x` over `dims`, which keep size 1 with `keepdim` and vanish without.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reduce {
    /// What is computed.
    pub kind: ReduceKind,
    /// Sorted, without repeats; empty reduces nothing.
    pub dims: Vec<usize>,
    /// Keep reduced dimensions with size 1.
    pub keepdim: bool,
}

impl Reduce {
    /// Whether the result is an index.
    pub fn is_index(&self) -> bool {
        matches!(self.kind, ReduceKind::ArgMax | ReduceKind::ArgMin)
    }

    pub(super) fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = arity(self, inputs)?;
        super::float(self, &[x])?;
        if let Some(&d) = self.dims.iter().find(|&&d| d >= <[usize]>::len(&x.shape)) {
            return Err(Error::Shape(format!("reduce: dimension {d} is out of range for {}", x.shape)));
        }
        if !self.dims.is_sorted_by(|a, b| a < b) {
            return Err(Error::Shape(format!("reduce: dims must rise without repeats, got {:?} for {}", self.dims, x.shape)));
        }
        let n: usize = self.dims.iter().map(|&d| x.shape[d]).product();
        let needs_elements = !matches!(self.kind, ReduceKind::Sum | ReduceKind::SumSquares | ReduceKind::Prod);
        if needs_elements && n == 0 {
            return Err(Error::Shape(format!("reduce {:?} over no elements: shape {}, dims {:?}", self.kind, x.shape, self.dims)));
        }
        if self.is_index() && u32::try_from(n).is_err() {
            return Err(Error::Shape(format!("argmax or argmin over {n} elements: more than u32 counts")));
        }
        let mut dims = Vec::new();
        for (d, &size) in x.shape.iter().enumerate() {
            match (self.dims.contains(&d), self.keepdim) {
                (false, _) => dims.push(size),
                (true, true) => dims.push(1),
                (true, false) => {}
            }
        }
        let dtype = if self.is_index() { DType::U32 } else { x.dtype };
        Ok(vec![Spec::new(Shape::new(&dims)?, dtype)])
    }
}
