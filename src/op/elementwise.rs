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
    /// `1 / sqrt(x)`
    Rsqrt,
    /// -1, 0 or 1, of NaN 0; the gradient is 0.
    Sign,
    /// The largest whole number not above `x`; the gradient is 0.
    Floor,
    /// The smallest whole number not below `x`; the gradient is 0.
    Ceil,
    /// The nearest whole number, of two the even one; the gradient is 0.
    Round,
    /// Sine of `x` in radians.
    Sin,
    /// Cosine of `x` in radians.
    Cos,
    /// Tangent of `x` in radians.
    Tan,
    /// Inverse sine, NaN outside `[-1, 1]`.
    Asin,
    /// Inverse cosine, NaN outside `[-1, 1]`.
    Acos,
    /// Inverse tangent.
    Atan,
    /// Hyperbolic sine.
    Sinh,
    /// Hyperbolic cosine.
    Cosh,
    /// Inverse hyperbolic sine.
    Asinh,
    /// Inverse hyperbolic cosine, NaN below 1.
    Acosh,
    /// Inverse hyperbolic tangent, NaN outside `[-1, 1]`.
    Atanh,
    /// `2 / sqrt(pi)` times the integral of `e^(-t^2)` from 0 to `x`.
    Erf,
    /// `x^exponent`; a negative `x` takes whole exponents. With exponent 0 the gradient is 0.
    Pow {
        /// The power.
        exponent: f64,
    },
    /// `min(max(x, min), max)`, also relu6 and hardtanh; the gradient at both bounds is 0. A bound may be infinite.
    Clamp {
        /// Lower bound.
        min: f64,
        /// Upper bound.
        max: f64,
    },
    /// `x` above `threshold`, else `value`.
    Threshold {
        /// Above it `x` passes.
        threshold: f64,
        /// What stands for the others.
        value: f64,
    },
    /// `x` above 0, else `alpha (e^x - 1)` (Clevert et al. 2015).
    Elu {
        /// Size of the negative part.
        alpha: f64,
    },
    /// `1.0507 (x above 0, else 1.6733 (e^x - 1))` (Klambauer et al. 2017).
    Selu,
    /// `max(x, 0) + min(0, alpha (e^(x / alpha) - 1))` (Barron 2017).
    Celu {
        /// Size and scale of the negative part, not 0.
        alpha: f64,
    },
    /// `x P(X <= x)` for a standard normal X (Hendrycks and Gimpel 2016).
    Gelu,
    /// [`Unary::Gelu`] with `(1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2` for the probability.
    GeluTanh,
    /// `x sigmoid(x)`, also called swish.
    Silu,
    /// `x tanh(softplus(x))` (Misra 2019).
    Mish,
    /// `x min(max(x + 3, 0), 6) / 6` (Howard et al. 2019).
    Hardswish,
    /// `min(max(x + 3, 0), 6) / 6`; the gradient at both kinks is 0.
    Hardsigmoid,
    /// `log(1 + e^(beta x)) / beta`, and `x` where `beta x` is above `threshold`.
    Softplus {
        /// Sharpness of the bend.
        beta: f64,
        /// From where it is taken for linear, PyTorch's default is 20.
        threshold: f64,
    },
    /// `x / (1 + |x|)`
    Softsign,
    /// `log(sigmoid(x))`
    LogSigmoid,
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
            Unary::Exp | Unary::Sqrt | Unary::Rsqrt | Unary::Reciprocal | Unary::Relu | Unary::Sigmoid | Unary::Tanh | Unary::Tan => {
                Saved::Output
            }
            _ => Saved::Input,
        }
    }

    /// One of each function, for case lists.
    pub const ALL: [Unary; 44] = [
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
        Unary::Rsqrt,
        Unary::Sign,
        Unary::Floor,
        Unary::Ceil,
        Unary::Round,
        Unary::Sin,
        Unary::Cos,
        Unary::Tan,
        Unary::Asin,
        Unary::Acos,
        Unary::Atan,
        Unary::Sinh,
        Unary::Cosh,
        Unary::Asinh,
        Unary::Acosh,
        Unary::Atanh,
        Unary::Erf,
        Unary::Pow { exponent: 1.7 },
        Unary::Clamp { min: -0.75, max: 1.25 },
        Unary::Threshold { threshold: 0.3, value: -2.0 },
        Unary::Elu { alpha: 0.8 },
        Unary::Selu,
        Unary::Celu { alpha: 1.5 },
        Unary::Gelu,
        Unary::GeluTanh,
        Unary::Silu,
        Unary::Mish,
        Unary::Hardswish,
        Unary::Hardsigmoid,
        Unary::Softplus { beta: 2.0, threshold: 3.0 },
        Unary::Softsign,
        Unary::LogSigmoid,
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
    /// The larger one; of equal ones each gets half of the gradient.
    Maximum,
    /// The smaller one; of equal ones each gets half of the gradient.
    Minimum,
    /// `a^b`; a negative `a` takes whole exponents.
    Pow,
    /// `a - b floor(a / b)`: the remainder has the sign of the divisor, as Python's.
    Remainder,
    /// `a - b trunc(a / b)`: the remainder has the sign of the dividend, as C's.
    Fmod,
}

impl Binary {
    /// All of them, for case lists.
    pub const ALL: [Binary; 9] = [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::Div,
        Binary::Maximum,
        Binary::Minimum,
        Binary::Pow,
        Binary::Remainder,
        Binary::Fmod,
    ];
}

/// A comparison of two numbers; false where one is NaN, but for `Ne`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `a == b`
    Eq,
    /// `a != b`
    Ne,
    /// `a < b`
    Lt,
    /// `a <= b`
    Le,
    /// `a > b`
    Gt,
    /// `a >= b`
    Ge,
}

impl Comparison {
    /// All of them, for case lists.
    pub const ALL: [Comparison; 6] = [Comparison::Eq, Comparison::Ne, Comparison::Lt, Comparison::Le, Comparison::Gt, Comparison::Ge];
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
    /// Whether `a` and `b`, broadcast, compare so: u32, 1 or 0. Operands are floats or integers of one type.
    Compare(Comparison),
    /// `(condition, a, b)`, broadcast: `a` where the condition (u32) is not 0, else `b`; of one type, whichever.
    Where,
    /// The same numbers as another type: floats to integers towards 0 and within the range, NaN to 0.
    Cast {
        /// The type of the result.
        dtype: DType,
    },
    /// Whether a float is of one of these kinds: u32, 1 or 0.
    Classify {
        /// Not a number.
        nan: bool,
        /// Positive infinity.
        positive_infinity: bool,
        /// Negative infinity.
        negative_infinity: bool,
    },
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
            Elementwise::Compare(f) => {
                let [a, b] = arity(self, inputs)?;
                if a.dtype != b.dtype {
                    return Err(Error::DType(format!("{f:?} compares operands of one type, got {a} and {b}")));
                }
                Ok(vec![Spec::new(Shape::broadcast(&a.shape, &b.shape, &format!("{f:?}").to_lowercase())?, DType::U32)])
            }
            Elementwise::Where => {
                let [condition, a, b] = arity(self, inputs)?;
                if condition.dtype != DType::U32 || a.dtype != b.dtype {
                    return Err(Error::DType(format!(
                        "where takes a u32 condition and two operands of one type, got {condition}, {a} and {b}"
                    )));
                }
                let shape = Shape::broadcast(&condition.shape, &Shape::broadcast(&a.shape, &b.shape, "where")?, "where")?;
                Ok(vec![Spec::new(shape, a.dtype)])
            }
            Elementwise::Cast { dtype } => {
                let [x] = arity(self, inputs)?;
                Ok(vec![Spec::new(x.shape, *dtype)])
            }
            Elementwise::Classify { .. } => {
                let [x] = arity(self, inputs)?;
                float(self, &[x])?;
                Ok(vec![Spec::new(x.shape, DType::U32)])
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
