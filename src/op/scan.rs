//! Functions along one dimension, of all elements up to a place or of their order.

use super::{arity, float};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::{Shape, Spec};

/// The family's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scan {
    /// `y[i] = x[0] + .. + x[i]` along `dim`; from the end with `reverse`.
    Cumsum {
        /// The dimension.
        dim: usize,
        /// Sums from the end.
        reverse: bool,
    },
    /// `x -> (values, index u32)`: the `k` largest (or smallest) along `dim` in their order; of equal ones the first comes first, and NaN
    /// counts as the largest.
    TopK {
        /// The dimension.
        dim: usize,
        /// How many, at most the dimension's size.
        k: usize,
        /// The largest, not the smallest.
        largest: bool,
    },
}

impl Scan {
    pub(super) fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let [x] = arity(self, inputs)?;
        float(self, &[x])?;
        match *self {
            Scan::Cumsum { dim, .. } => {
                x.shape.dim(dim as i64, "cumsum")?;
                Ok(vec![x])
            }
            Scan::TopK { dim, k, .. } => {
                let mut dims = x.shape.to_vec();
                let dim = x.shape.dim(dim as i64, "topk")?;
                if k > dims[dim] {
                    return Err(Error::Shape(format!("topk: k = {k} of the {} elements along dimension {dim} of {}", dims[dim], x.shape)));
                }
                dims[dim] = k;
                let shape = Shape::new(&dims)?;
                Ok(vec![Spec::new(shape, x.dtype), Spec::new(shape, DType::U32)])
            }
        }
    }
}
