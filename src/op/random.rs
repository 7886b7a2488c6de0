//! Random tensors from Philox streams.

use super::{arity, float};
use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::shape::Spec;

/// The family's operations; element i takes word i of its stream (`Normal`: words 2 (i/2) and 2 (i/2) + 1).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Random {
    /// Uniform in `[low, high)`: `low + (high - low) u`.
    Uniform {
        /// Lower bound.
        low: f64,
        /// Upper bound.
        high: f64,
        /// Source of the numbers.
        stream: Stream,
        /// Shape and type of the result.
        spec: Spec,
    },
    /// Normal, by Box and Muller 1958.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
        /// Source of the numbers.
        stream: Stream,
        /// Shape and type of the result.
        spec: Spec,
    },
    /// `y = 0` where `u < p`, else `x / (1 - p)` (Srivastava et al. 2014, inverted). It is its own gradient: the mask is drawn again.
    Dropout {
        /// Probability of a zero, in `[0, 1)`.
        p: f64,
        /// Source of the mask.
        stream: Stream,
    },
}

impl Random {
    pub(super) fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        match self {
            Random::Uniform { spec, .. } | Random::Normal { spec, .. } => {
                let [] = arity(self, inputs)?;
                float(self, &[*spec])?;
                Ok(vec![*spec])
            }
            Random::Dropout { p, .. } => {
                let [x] = arity(self, inputs)?;
                float(self, &[x])?;
                if !(0.0..1.0).contains(p) {
                    return Err(Error::Shape(format!("dropout: p = {p} must lie in [0, 1)")));
                }
                Ok(vec![x])
            }
        }
    }
}
