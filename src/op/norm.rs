//! Batch normalisation: Ioffe and Szegedy 2015, arXiv:1502.03167.

use super::{arity, float, same};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::{Shape, Spec};

/// The family's operations on `x [N, C, ..]`; statistics are one value a channel, f32 where x is f16.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Norm {
    /// `(x, weight, bias, running_mean*, running_var*) -> (y, mean, invstd)` with the batch's statistics.
    ///
    /// `y = (x - mean) invstd weight + bias`, `invstd = 1/sqrt(var + eps)` with the biased variance. With `running` the two
    /// starred operands are updated in place: `r = (1 - momentum) r + momentum batch`, the variance unbiased (as PyTorch).
    BatchNorm {
        /// Added to the variance.
        eps: f64,
        /// Share of the batch in the running statistics.
        momentum: f64,
        /// Whether running statistics are given.
        running: bool,
    },
    /// `(x, weight, bias, running_mean, running_var) -> (y, invstd)` with the running statistics.
    BatchNormEval {
        /// Added to the variance.
        eps: f64,
    },
    /// `(x, dy, weight, mean, invstd) -> (dx, dweight, dbias)`. In training mode the statistics depend on x.
    BatchNormBackward {
        /// Whether the forward pass used the batch's statistics.
        training: bool,
    },
}

impl Norm {
    pub(super) fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let n = match self {
            Norm::BatchNorm { running: false, .. } => 3,
            _ => 5,
        };
        if inputs.len() != n {
            return Err(Error::Shape(format!("{self:?} got {} operands, expected {n}", inputs.len())));
        }
        let x = inputs[0];
        let skip = if let Norm::BatchNormBackward { .. } = self { 2 } else { 1 };
        float(self, &inputs[..skip])?;
        // Statistics and weights of f16 activations are f32.
        let stat_dtype = if x.dtype == DType::F16 { DType::F32 } else { x.dtype };
        if let Some(stat) = inputs[skip..].iter().find(|stat| stat.dtype != stat_dtype) {
            return Err(Error::DType(format!("{self:?} on {x} expects statistics and weights of {stat_dtype}, got {stat}")));
        }
        if <[usize]>::len(&x.shape) < 2 {
            return Err(Error::Shape(format!("batch_norm expects [N, C, ..], got {}", x.shape)));
        }
        let channels = Spec::new(Shape::new(&[x.shape[1]])?, stat_dtype);
        for stat in &inputs[skip..] {
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
            Norm::BatchNormBackward { .. } => {
                same(self, &x.shape, &inputs[1].shape)?;
                let [..] = arity::<5>(self, inputs)?;
                Ok(vec![x, channels, channels])
            }
        }
    }
}
