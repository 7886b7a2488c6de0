//! Activation functions as layers.

use super::{Context, Module};
use crate::error::Result;
use crate::op::Unary;
use crate::tensor::Tensor;

/// A function of each element.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `x` above 0, else `negative_slope x`.
    LeakyRelu {
        /// Slope left of 0; PyTorch's default is 0.01.
        negative_slope: f64,
    },
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
}

impl Module for Activation {
    fn forward(&self, _: &mut Context, x: &Tensor) -> Result<Tensor> {
        x.unary(match *self {
            Activation::Relu => Unary::Relu,
            Activation::LeakyRelu { negative_slope } => Unary::LeakyRelu { negative_slope },
            Activation::Sigmoid => Unary::Sigmoid,
            Activation::Tanh => Unary::Tanh,
        })
    }

    fn describe(&self) -> String {
        match self {
            Activation::LeakyRelu { negative_slope } => format!("LeakyRelu {negative_slope}"),
            other => format!("{other:?}"),
        }
    }
}
