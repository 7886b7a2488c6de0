//! Activation functions as layers: any function of one element.

use super::{Context, Module};
use crate::error::Result;
use crate::op::Unary;
use crate::tensor::Tensor;

impl Module for Unary {
    fn forward(&self, _: &mut Context, x: &Tensor) -> Result<Tensor> {
        x.unary(*self)
    }

    fn describe(&self) -> String {
        format!("{self:?}")
    }
}
