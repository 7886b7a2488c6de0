//! What follows a layer.

use crate::error::{Error, Result};
use crate::op::{After, Unary};
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
}

impl<'a> Then<'a> {
    /// Of a layer that takes a ReLU into its pass if it is asked to, and nothing else.
    ///
    /// # Errors
    /// Those of `forward`, and as [`Then::apply`].
    pub fn after(self, forward: impl FnOnce(bool) -> Result<Tensor>) -> Result<Tensor> {
        match self {
            Then::Relu { ceiling: f64::INFINITY } => forward(true),
            then => then.apply(&forward(false)?),
        }
    }

    /// As a pass of its own.
    ///
    /// # Errors
    /// [`Error::Shape`] when `y` and the residual differ.
    pub fn apply(self, y: &Tensor) -> Result<Tensor> {
        let (_, residual) = self.checked(y)?;
        match (self, residual) {
            (Then::Relu { ceiling }, _) if ceiling < f64::INFINITY => y.unary(Unary::Clamp { min: 0.0, max: ceiling }),
            (_, Some(residual)) => y.add(residual)?.unary(Unary::Relu),
            _ => y.unary(Unary::Relu),
        }
    }

    /// As an attribute and an operand of a layer whose result is of the shape of `y`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `y` and the residual differ.
    pub fn checked(self, y: &Tensor) -> Result<(After, Option<&'a Tensor>)> {
        match self {
            Then::Relu { ceiling } => Ok((After::Relu { ceiling }, None)),
            // Checked here: a sum would broadcast where one of them has a single channel or pixel.
            Then::AddRelu(residual) if residual.shape() != y.shape() => Err(Error::Shape(format!(
                "residual: the body gives {} but the shortcut {}; give both the same channels and stride",
                y.shape(),
                residual.shape()
            ))),
            Then::AddRelu(residual) => Ok((After::AddRelu, Some(residual))),
        }
    }
}
