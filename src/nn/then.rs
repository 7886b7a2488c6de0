//! What follows a layer.

use super::BatchNorm2d;
use crate::error::{Error, Result};
use crate::op::{After, Clip, Unary};
use crate::tensor::Tensor;

/// What becomes of a layer's result: functions that a layer may compute in its own pass over memory, see [`Module::forward_then`](super::Module::forward_then).
#[derive(Debug, Clone, Copy)]
pub enum Then<'a> {
    /// `min(max(y, 0), ceiling)`: ReLU with an infinite ceiling, ReLU6 with 6.
    Relu {
        /// Upper bound.
        ceiling: f64,
    },
    /// `max(y + residual, 0)`, the end of a residual block.
    AddRelu(&'a Tensor),
    /// Batch norm in evaluation, and what follows that.
    Norm(&'a BatchNorm2d, Option<&'a Then<'a>>),
}

impl<'a> Then<'a> {
    /// What a convolution makes of it in its pass, where it can.
    pub(super) fn clip(self) -> Option<Clip> {
        if let Then::Relu { ceiling } = self { Clip::with_ceiling(ceiling) } else { None }
    }

    /// As a pass of its own.
    ///
    /// # Errors
    /// [`Error::Shape`] when `y` and the residual differ.
    pub fn apply(self, y: &Tensor) -> Result<Tensor> {
        match self {
            Then::Relu { ceiling: f64::INFINITY } => y.unary(Unary::Relu),
            Then::Relu { ceiling } => y.unary(Unary::Clamp { min: 0.0, max: ceiling }),
            Then::AddRelu(residual) => y.add(like(y, residual)?)?.unary(Unary::Relu),
            Then::Norm(norm, then) => norm.evaluate(y, then.copied()),
        }
    }

    /// What batch norm computes in its pass behind a result `y`, with its operand, and what is left to do then.
    pub(super) fn split(then: Option<Then<'a>>, y: &Tensor) -> Result<(After, Option<&'a Tensor>, Option<Then<'a>>)> {
        Ok(match then {
            None => (After::Nothing, None, None),
            Some(Then::Relu { ceiling }) => (After::Relu { ceiling }, None, None),
            Some(Then::AddRelu(residual)) => (After::AddRelu, Some(like(y, residual)?), None),
            Some(then) => (After::Nothing, None, Some(then)),
        })
    }
}

/// A residual for `y`. Checked, since a sum would broadcast where one of them has a single channel or pixel.
fn like<'a>(y: &Tensor, residual: &'a Tensor) -> Result<&'a Tensor> {
    if residual.shape() == y.shape() {
        return Ok(residual);
    }
    Err(Error::Shape(format!(
        "residual: the body gives {} but the shortcut {}; give both the same channels and stride",
        y.shape(),
        residual.shape()
    )))
}
