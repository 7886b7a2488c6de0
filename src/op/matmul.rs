//! Matrix products.

use super::float;
use crate::error::{Error, Result};
use crate::shape::{Shape, Spec};

/// `c = op(a) op(b) (+ bias)`, or `max(c, 0)`: `[.., M, K] x [.., K, N] -> [.., M, N]`; leading dimensions broadcast, an empty K gives zeros.
///
/// A flag swaps the last two dimensions of its operand before the product. `bias` `[N]` is added to every row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Matmul {
    /// `a` is stored `[.., K, M]`.
    pub transpose_a: bool,
    /// `b` is stored `[.., N, K]`, as PyTorch's Linear keeps its weight.
    pub transpose_b: bool,
    /// A third operand `[N]` is added.
    pub bias: bool,
    /// Results below 0 become 0.
    pub relu: bool,
}

/// The sizes of a product after the flags are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatmulSizes {
    /// Broadcast leading dimensions.
    pub batch: Shape,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
}

impl Matmul {
    /// Resolves the sizes of `a x b`.
    ///
    /// # Errors
    /// [`Error::Shape`] when ranks are below 2 or the inner sizes differ.
    pub fn sizes(&self, a: &Shape, b: &Shape) -> Result<MatmulSizes> {
        if <[usize]>::len(a) < 2 || <[usize]>::len(b) < 2 {
            return Err(Error::Shape(format!("matmul expects matrices [.., M, K] and [.., K, N], got {a} and {b}")));
        }
        let last = |s: &Shape, transposed: bool| {
            let (r, c) = (s[<[usize]>::len(s) - 2], s[<[usize]>::len(s) - 1]);
            if transposed { (c, r) } else { (r, c) }
        };
        let ((m, k), (k2, n)) = (last(a, self.transpose_a), last(b, self.transpose_b));
        if k != k2 {
            return Err(Error::Shape(format!(
                "matmul: inner sizes differ: {a}{} has K = {k}, {b}{} has K = {k2}",
                if self.transpose_a { " transposed" } else { "" },
                if self.transpose_b { " transposed" } else { "" }
            )));
        }
        let lead = |s: &Shape| Shape::new(&s[..<[usize]>::len(s) - 2]);
        Ok(MatmulSizes { batch: Shape::broadcast(&lead(a)?, &lead(b)?, "matmul")?, m, n, k })
    }

    pub(super) fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        float(self, inputs)?;
        let (a, b) = match inputs {
            [a, b] if !self.bias => (a, b),
            [a, b, _] if self.bias => (a, b),
            _ => return Err(Error::Shape(format!("{self:?} got {} operands, expected {}", inputs.len(), 2 + self.bias as usize))),
        };
        let sizes = self.sizes(&a.shape, &b.shape)?;
        if self.bias && inputs[2].shape[..] != [sizes.n] {
            return Err(Error::Shape(format!("matmul: bias {} must be [{}], one value a column", inputs[2].shape, sizes.n)));
        }
        let dims: Vec<usize> = sizes.batch.iter().copied().chain([sizes.m, sizes.n]).collect();
        Ok(vec![Spec::new(Shape::new(&dims)?, a.dtype)])
    }
}
