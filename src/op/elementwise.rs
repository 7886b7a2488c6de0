//! Functions of one element, or of two broadcast against each other.

use super::{arity, float, same};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::{Shape, Spec};

/// A function of one float.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unary {
    /// `-x`
    Neg,
    /// `e^x`
    Exp,
    /// Natural logarithm.
    Log,
    /// `sqrt(x)`
    Sqrt,
    /// `x^2`
    Square,
    /// `|x|`; the gradient at 0 is 0.
    Abs,
    /// `1/x`
    Reciprocal,
    /// `max(x, 0)`; the gradient at 0 is 0.
    Relu,
    /// `x` above 0, else `negative_slope x`; the gradient at 0 is `negative_slope`.
    LeakyRelu {
        /// Slope left of 0, PyTorch's default is 0.01.
        negative_slope: f64,
    },
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `scale x + shift`
    Affine {
        /// Factor.
        scale: f64,
        /// Summand.
        shift: f64,
    },
}

/// What the gradient of a [`Unary`] is computed from, besides `dy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// The input.
    Input,
    /// The output.
    Output,
}

impl Unary {
    /// Which tensor the backward kernel reads.
    pub fn saved(self) -> Saved {
        match self {
            Unary::Exp | Unary::Sqrt | Unary::Reciprocal | Unary::Relu | Unary::Sigmoid | Unary::Tanh => Saved::Output,
            _ => Saved::Input,
        }
    }

    /// One of each function, for case lists.
    pub const ALL: [Unary; 12] = [
        Unary::Neg,
        Unary::Exp,
        Unary::Log,
        Unary::Sqrt,
        Unary::Square,
        Unary::Abs,
        Unary::Reciprocal,
        Unary::Relu,
        Unary::LeakyRelu { negative_slope: 0.1 },
        Unary::Sigmoid,
        Unary::Tanh,
        Unary::Affine { scale: -1.5, shift: 0.25 },
    ];
}

/// A function of two floats, broadcast as in NumPy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a b`
    Mul,
    /// `a / b`
    Div,
    /// 1 where `a == b`, else 0, as floats; has no gradient.
    EqualMask,
}

/// The family's operations.
#[derive(Debug, Clone, PartialEq)]
pub enum Elementwise {
    /// `y = f(x)`.
    Unary(Unary),
    /// `(saved, dy) -> dx = f'(x) dy`, where `saved` is x or y as [`Unary::saved`] says.
    UnaryBackward(Unary),
    /// `y = f(a, b)`.
    Binary(Binary),
    /// `(acc, x)`: `acc += x` in place.
    AddAssign,
    /// A tensor of one value.
    Fill {
        /// Every element.
        value: f64,
        /// Shape and type of the result.
        spec: Spec,
    },
}

impl Elementwise {
    pub(super) fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        match self {
            Elementwise::Unary(f) => {
                let [x] = arity(self, inputs)?;
                float(f, &[x])?;
                Ok(vec![x])
            }
            Elementwise::UnaryBackward(f) => {
                let [saved, dy] = arity(self, inputs)?;
                float(f, &[saved, dy])?;
                same(f, &saved.shape, &dy.shape)?;
                Ok(vec![dy])
            }
            Elementwise::Binary(f) => {
                let [a, b] = arity(self, inputs)?;
                float(f, &[a, b])?;
                Ok(vec![Spec::new(Shape::broadcast(&a.shape, &b.shape, &format!("{f:?}").to_lowercase())?, a.dtype)])
            }
            Elementwise::AddAssign => {
                let [acc, x] = arity(self, inputs)?;
                float(self, &[acc, x])?;
                same(self, &acc.shape, &x.shape)?;
                Ok(vec![])
            }
            Elementwise::Fill { spec, .. } => {
                let [] = arity(self, inputs)?;
                if spec.dtype == DType::I32 {
                    return Err(Error::DType("fill makes f32, f64 or u32, not i32".into()));
                }
                Ok(vec![*spec])
            }
        }
    }
}
