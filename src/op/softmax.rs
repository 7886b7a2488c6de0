//! Log-softmax, and the cross-entropy of logits fused with it.

use super::{arity, float, same};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::{Shape, Spec};

/// Attributes of cross-entropy, with PyTorch's meaning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossEntropyOptions {
    /// Targets of this value count nothing.
    pub ignore_index: i64,
    /// Share of the target spread over all classes.
    pub label_smoothing: f64,
    /// A third operand `[C]` weights the classes.
    pub weight: bool,
}

impl Default for CrossEntropyOptions {
    fn default() -> Self {
        CrossEntropyOptions { ignore_index: -100, label_smoothing: 0.0, weight: false }
    }
}

/// The family's operations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Softmax {
    /// `y = x - log(sum(exp(x)))` along `dim`, computed from `x - max(x)`.
    LogSoftmax {
        /// The dimension of the classes.
        dim: usize,
    },
    /// `(y, dy) -> dx = dy - exp(y) sum(dy)`.
    LogSoftmaxBackward {
        /// As in the forward pass.
        dim: usize,
    },
    /// `(logits [N, C, ..], target i32 [N, ..], weight [C]?) -> (loss [N, ..], row_weight [N, ..])`.
    ///
    /// `loss = (1-e) w_t (lse - x_t) + e/C sum_c w_c (lse - x_c)`, `row_weight = w_t`; both 0 for ignored targets. A target
    /// outside `0..C` that is not ignored gives NaN.
    CrossEntropy(CrossEntropyOptions),
    /// `(logits, target, weight?, dloss [N, ..]) -> dlogits`.
    CrossEntropyBackward(CrossEntropyOptions),
}

/// A tensor seen as rows of `len` values that lie `inner` apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    /// Product of the dimensions before.
    pub outer: usize,
    /// The dimension's size.
    pub len: usize,
    /// Product of the dimensions after.
    pub inner: usize,
}

impl Rows {
    /// The rows of `shape` along `dim`.
    pub fn new(shape: &Shape, dim: usize) -> Self {
        Rows { outer: shape[..dim].iter().product(), len: shape[dim], inner: shape[dim + 1..].iter().product() }
    }
}

impl Softmax {
    pub(super) fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        match self {
            Softmax::LogSoftmax { dim } => {
                let [x] = arity(self, inputs)?;
                float(self, &[x])?;
                x.shape.dim(*dim as i64, "log_softmax")?;
                Ok(vec![x])
            }
            Softmax::LogSoftmaxBackward { dim } => {
                let [y, dy] = arity(self, inputs)?;
                float(self, &[y, dy])?;
                y.shape.dim(*dim as i64, "log_softmax")?;
                same(self, &y.shape, &dy.shape)?;
                Ok(vec![y])
            }
            Softmax::CrossEntropy(options) | Softmax::CrossEntropyBackward(options) => {
                let backward = matches!(self, Softmax::CrossEntropyBackward(_));
                let expected = 2 + options.weight as usize + backward as usize;
                if inputs.len() != expected {
                    return Err(Error::Shape(format!("{self:?} got {} operands, expected {expected}", inputs.len())));
                }
                if !(0.0..=1.0).contains(&options.label_smoothing) {
                    return Err(Error::Shape(format!(
                        "cross_entropy: label_smoothing must lie in [0, 1], got {}",
                        options.label_smoothing
                    )));
                }
                let (logits, target) = (inputs[0], inputs[1]);
                float(self, &[logits])?;
                if target.dtype != DType::I32 {
                    return Err(Error::DType(format!("cross_entropy: targets are class indices of type i32, got {target}")));
                }
                if <[usize]>::len(&logits.shape) < 2 {
                    return Err(Error::Shape(format!("cross_entropy expects logits [N, C, ..], got {}", logits.shape)));
                }
                let mut dims = logits.shape.to_vec();
                let classes = dims.remove(1);
                let rows = Shape::new(&dims)?;
                if target.shape != rows {
                    return Err(Error::Shape(format!("cross_entropy: logits {} need targets {rows}, got {}", logits.shape, target.shape)));
                }
                if options.weight {
                    same(self, &inputs[2].shape, &Shape::new(&[classes])?)?;
                }
                if backward {
                    same(self, &inputs[inputs.len() - 1].shape, &rows)?;
                    return Ok(vec![logits]);
                }
                Ok(vec![Spec::new(rows, logits.dtype); 2])
            }
        }
    }
}
