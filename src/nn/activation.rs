//! Activation functions as layers: any function of one element.

use super::{Context, Module, Then};
use crate::error::Result;
use crate::op::Unary;
use crate::tensor::Tensor;

impl Module for Unary {
    fn forward(&self, _: &mut Context, x: &Tensor) -> Result<Tensor> {
        x.unary(*self)
    }

    fn as_then(&self) -> Option<Then<'static>> {
        match *self {
            Unary::Relu => Some(Then::Relu { ceiling: f64::INFINITY }),
            Unary::Clamp { min: 0.0, max } if max > 0.0 => Some(Then::Relu { ceiling: max }),
            _ => None,
        }
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }
}
