//! Dropout layer.

use super::{Context, Module};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// In training each element is 0 with probability `p`, else divided by `1 - p` (Srivastava et al. 2014); in evaluation nothing happens.
#[derive(Debug, Clone, Copy)]
pub struct Dropout {
    p: f64,
}

impl Dropout {
    /// A layer that drops with probability `p`.
    ///
    /// # Errors
    /// [`Error::Config`] unless `p` lies in `[0, 1)`.
    pub fn new(p: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&p) {
            return Err(Error::Config(format!("dropout: p = {p} must lie in [0, 1)")));
        }
        Ok(Dropout { p })
    }
}

impl Module for Dropout {
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        if !ctx.is_training() || self.p == 0.0 {
            return Ok(x.clone());
        }
        x.dropout(self.p, ctx.stream())
    }

    fn draws(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        format!("Dropout {}", self.p)
    }
}
