//! Batch normalisation: Ioffe and Szegedy 2015, arXiv:1502.03167.

use super::{float, same};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::{Shape, Spec};

/// What becomes of a normalised value `v` before it is stored: the functions that follow in nearly every network, without a pass over memory of their own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum After {
    /// `v`
    Nothing,
    /// `min(max(v, 0), ceiling)`: ReLU with an infinite ceiling, ReLU6 with 6; the gradient at both bounds is 0.
    Relu {
        /// Upper bound.
        ceiling: f64,
    },
    /// `max(v + residual, 0)`, the end of a residual block; `residual`, of the shape of x, is one more operand behind the others.
    AddRelu,
}

/// The family's operations on `x [N, C, ..]`; statistics are one value a channel, f32 where x is f16.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// `(x, weight, bias, running_mean*, running_var*, residual?) -> (y, mean, invstd)` with the batch's statistics.
    ///
    /// `y = after((x - mean) invstd weight + bias)`, `invstd = 1/sqrt(var + eps)` with the biased variance. With `running` the two
    /// starred operands are updated in place: `r = (1 - momentum) r + momentum batch`, the variance unbiased (as PyTorch).
    BatchNorm {
        /// Added to the variance.
        eps: f64,
        /// Share of the batch in the running statistics.
        momentum: f64,
        /// Whether running statistics are given.
        running: bool,
        /// What follows.
        after: After,
    },
    /// `(x, weight, bias, running_mean, running_var, residual?) -> (y, invstd)` with the running statistics.
    BatchNormEval {
        /// Added to the variance.
        eps: f64,
        /// What follows.
        after: After,
    },
    /// `(x, dy, weight, mean, invstd) -> (dx, dweight, dbias)`. In training mode the statistics depend on x.
    ///
    /// Behind a ReLU the operands end with `bias`: whether a value passed is computed anew, from what is read anyway. After the end of a residual block they
    /// end with `y`, and the results with the gradient of `residual`.
    BatchNormBackward {
        /// Whether the forward pass used the batch's statistics.
        training: bool,
        /// What followed.
        after: After,
    },
}

impl Norm {
    /// What follows the normalisation.
    pub fn after(&self) -> After {
        match *self {
            Norm::BatchNorm { after, .. } | Norm::BatchNormEval { after, .. } | Norm::BatchNormBackward { after, .. } => after,
        }
    }

    pub(super) fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let (backward, after) = (matches!(self, Norm::BatchNormBackward { .. }), self.after());
        let base = match self {
            Norm::BatchNorm { running: false, .. } => 3,
            _ => 5,
        };
        let n = base + (after == After::AddRelu || backward && after != After::Nothing) as usize;
        if inputs.len() != n {
            return Err(Error::Shape(format!("{self:?} got {} operands, expected {n}", inputs.len())));
        }
        let x = inputs[0];
        // Of the shape of x: dy, and what stands behind the others unless it is the bias.
        let (head, rest) = inputs.split_at(if backward { 2 } else { 1 });
        let (stats, tail) = rest.split_at(if after == After::AddRelu { rest.len() - 1 } else { rest.len() });
        float(self, head)?;
        for tensor in head.iter().chain(tail) {
            float(self, &[x, *tensor])?;
            same(self, &x.shape, &tensor.shape)?;
        }
        // Statistics and weights of f16 activations are f32.
        let stat_dtype = if x.dtype == DType::F16 { DType::F32 } else { x.dtype };
        if let Some(stat) = stats.iter().find(|stat| stat.dtype != stat_dtype) {
            return Err(Error::DType(format!("{self:?} on {x} expects statistics and weights of {stat_dtype}, got {stat}")));
        }
        if <[usize]>::len(&x.shape) < 2 {
            return Err(Error::Shape(format!("batch_norm expects [N, C, ..], got {}", x.shape)));
        }
        let channels = Spec::new(Shape::new(&[x.shape[1]])?, stat_dtype);
        for stat in stats {
            if stat.shape != channels.shape {
                return Err(Error::Shape(format!(
                    "batch_norm: input {} has {} channels but a statistic or weight is {}",
                    x.shape, x.shape[1], stat.shape
                )));
            }
        }
        match self {
            Norm::BatchNorm { .. } => {
                if x.shape.len() <= x.shape[1] {
                    return Err(Error::Shape(format!("batch_norm in training needs more than one value a channel, got {}", x.shape)));
                }
                Ok(vec![x, channels, channels])
            }
            Norm::BatchNormEval { .. } => Ok(vec![x, channels]),
            Norm::BatchNormBackward { after: After::AddRelu, .. } => Ok(vec![x, channels, channels, x]),
            Norm::BatchNormBackward { .. } => Ok(vec![x, channels, channels]),
        }
    }
}
