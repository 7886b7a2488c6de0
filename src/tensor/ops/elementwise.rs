//! Elementwise functions and their gradients.

use super::{Saves, no_gradient};
use crate::autodiff::{Grads, Recorded};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::elementwise::Saved;
use crate::op::{Binary, Clip, Comparison, Elementwise, Unary};
use crate::tensor::Tensor;

impl Tensor {
    /// Any [`Unary`] function, element by element.
    ///
    /// # Errors
    /// [`DType`](crate::Error::DType) unless the tensor holds floats.
    pub fn unary(&self, f: Unary) -> Result<Tensor> {
        Tensor::apply1(Elementwise::Unary(f), &[self])
    }

    /// Any [`Binary`] function, broadcast as in NumPy.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when the shapes do not broadcast.
    pub fn binary(&self, f: Binary, other: &Tensor) -> Result<Tensor> {
        Tensor::apply1(Elementwise::Binary(f), &[self, other])
    }

    /// `self + other`, see [`Tensor::binary`].
    ///
    /// # Errors
    /// As [`Tensor::binary`].
    pub fn add(&self, other: &Tensor) -> Result<Tensor> {
        self.binary(Binary::Add, other)
    }

    /// `self - other`, see [`Tensor::binary`].
    ///
    /// # Errors
    /// As [`Tensor::binary`].
    pub fn sub(&self, other: &Tensor) -> Result<Tensor> {
        self.binary(Binary::Sub, other)
    }

    /// `self * other`, see [`Tensor::binary`].
    ///
    /// # Errors
    /// As [`Tensor::binary`].
    pub fn mul(&self, other: &Tensor) -> Result<Tensor> {
        self.binary(Binary::Mul, other)
    }

    /// `self / other`, see [`Tensor::binary`].
    ///
    /// # Errors
    /// As [`Tensor::binary`].
    pub fn div(&self, other: &Tensor) -> Result<Tensor> {
        self.binary(Binary::Div, other)
    }

    /// The larger of `self` and `other`; of equal ones each gets half of the gradient.
    ///
    /// # Errors
    /// As [`Tensor::binary`].
    pub fn maximum(&self, other: &Tensor) -> Result<Tensor> {
        self.binary(Binary::Maximum, other)
    }

    /// The smaller of `self` and `other`; of equal ones each gets half of the gradient.
    ///
    /// # Errors
    /// As [`Tensor::binary`].
    pub fn minimum(&self, other: &Tensor) -> Result<Tensor> {
        self.binary(Binary::Minimum, other)
    }

    /// `self^other`, see [`Binary::Pow`].
    ///
    /// # Errors
    /// As [`Tensor::binary`].
    pub fn pow(&self, other: &Tensor) -> Result<Tensor> {
        self.binary(Binary::Pow, other)
    }

    /// `self^exponent`, see [`Unary::Pow`].
    ///
    /// # Errors
    /// As [`Tensor::unary`].
    pub fn powf(&self, exponent: f64) -> Result<Tensor> {
        self.unary(Unary::Pow { exponent })
    }

    /// Where `self` and `other`, broadcast, compare so: u32, 1 or 0.
    ///
    /// # Errors
    /// [`DType`](crate::Error::DType) unless both are of one type; [`Shape`](crate::Error::Shape) when the shapes do not broadcast.
    pub fn compare(&self, f: Comparison, other: &Tensor) -> Result<Tensor> {
        Tensor::apply1(Elementwise::Compare(f), &[self, other])
    }

    /// `self` where the u32 `condition` is not 0, else `other`; the three shapes are broadcast.
    ///
    /// # Errors
    /// As [`Tensor::compare`].
    pub fn where_(&self, condition: &Tensor, other: &Tensor) -> Result<Tensor> {
        Tensor::apply1(Elementwise::Where, &[condition, self, other])
    }

    /// The same numbers as another type, see [`Elementwise::Cast`].
    ///
    /// # Errors
    /// [`Unsupported`](crate::Error::Unsupported) for f64 on a GPU.
    pub fn cast(&self, dtype: DType) -> Result<Tensor> {
        if self.dtype() == dtype { Ok(self.clone()) } else { Tensor::apply1(Elementwise::Cast { dtype }, &[self]) }
    }

    /// Where values are NaN: u32, 1 or 0.
    ///
    /// # Errors
    /// As [`Tensor::unary`].
    pub fn isnan(&self) -> Result<Tensor> {
        Tensor::apply1(Elementwise::Classify { nan: true, positive_infinity: false, negative_infinity: false }, &[self])
    }

    /// Where values are infinite: u32, 1 or 0.
    ///
    /// # Errors
    /// As [`Tensor::unary`].
    pub fn isinf(&self) -> Result<Tensor> {
        Tensor::apply1(Elementwise::Classify { nan: false, positive_infinity: true, negative_infinity: true }, &[self])
    }

    /// `min(max(self, min), max)`; an absent bound does not bind. The gradient at a bound is 0.
    ///
    /// # Errors
    /// As [`Tensor::unary`].
    pub fn clamp(&self, min: Option<f64>, max: Option<f64>) -> Result<Tensor> {
        self.unary(Unary::Clamp { min: min.unwrap_or(f64::NEG_INFINITY), max: max.unwrap_or(f64::INFINITY) })
    }

    /// `self` above 0, else `weight * self` with a weight a channel `[C]` (dimension 1), or one for all (He et al. 2015).
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when the weights do not fit the channels.
    pub fn prelu(&self, weight: &Tensor) -> Result<Tensor> {
        let channels = weight.shape().len();
        let mut dims = vec![1; self.shape().rank()];
        if channels > 1 {
            if weight.shape().rank() != 1 || dims.len() < 2 || self.shape()[1] != channels {
                return Err(Error::Shape(format!(
                    "prelu: weight {} must hold one value, or one a channel of {}",
                    weight.shape(),
                    self.shape()
                )));
            }
            dims[1] = channels;
        }
        let zero = Tensor::full(self.device(), &[], self.dtype(), 0.0)?;
        self.where_(&self.compare(Comparison::Gt, &zero)?, &self.mul(&weight.reshape(&dims)?)?)
    }

    /// `scale * self + shift`.
    ///
    /// # Errors
    /// As [`Tensor::unary`].
    pub fn affine(&self, scale: f64, shift: f64) -> Result<Tensor> {
        self.unary(Unary::Affine { scale, shift })
    }

    /// `max(self, 0)`.
    ///
    /// # Errors
    /// As [`Tensor::unary`].
    pub fn relu(&self) -> Result<Tensor> {
        self.unary(Unary::Relu)
    }

    /// `1 / (1 + e^-self)`.
    ///
    /// # Errors
    /// As [`Tensor::unary`].
    pub fn sigmoid(&self) -> Result<Tensor> {
        self.unary(Unary::Sigmoid)
    }

    /// Hyperbolic tangent.
    ///
    /// # Errors
    /// As [`Tensor::unary`].
    pub fn tanh(&self) -> Result<Tensor> {
        self.unary(Unary::Tanh)
    }

    /// `e^self`.
    ///
    /// # Errors
    /// As [`Tensor::unary`].
    pub fn exp(&self) -> Result<Tensor> {
        self.unary(Unary::Exp)
    }
}

pub(super) fn saves(op: &Elementwise) -> Saves {
    match op {
        Elementwise::Unary(Unary::Neg | Unary::Affine { .. }) => (&[], &[]),
        Elementwise::Unary(f) if f.saved() == Saved::Input => (&[0], &[]),
        Elementwise::Unary(_) => (&[], &[0]),
        Elementwise::Binary(Binary::Mul | Binary::Maximum | Binary::Minimum | Binary::Remainder | Binary::Fmod) => (&[0, 1], &[]),
        Elementwise::Binary(Binary::Pow) => (&[0, 1], &[0]),
        Elementwise::Where => (&[0], &[]),
        Elementwise::Binary(Binary::Div) => (&[1], &[0]),
        _ => (&[], &[]),
    }
}

pub(super) fn vjp(op: &Elementwise, r: &Recorded, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    let f = match *op {
        Elementwise::Unary(Unary::Neg) => return grads.op(&[0], Elementwise::Unary(Unary::Neg), &[dy]),
        Elementwise::Unary(Unary::Affine { scale, .. }) => {
            return grads.op(&[0], Elementwise::Unary(Unary::Affine { scale, shift: 0.0 }), &[dy]);
        }
        Elementwise::Unary(f) => {
            let saved = if f.saved() == Saved::Input { r.input(0)? } else { r.output(0)? };
            return grads.op(&[0], Elementwise::UnaryBackward(f), &[saved, dy]);
        }
        Elementwise::Binary(f) => f,
        Elementwise::Where => {
            let (condition, zero) = (r.input(0)?, Tensor::full(dy.device(), &[], dy.dtype(), 0.0)?);
            for input in [1, 2] {
                if grads.needs(input) {
                    let full = if input == 1 { dy.where_(condition, &zero)? } else { zero.where_(condition, dy)? };
                    super::reduce::sum_to(&full, &r.input_spec(input).shape, input, grads)?;
                }
            }
            return Ok(());
        }
        Elementwise::Cast { .. } if r.input_spec(0).dtype.is_float() && dy.dtype().is_float() => {
            return grads.add(0, dy.cast(r.input_spec(0).dtype)?);
        }
        _ => return Err(no_gradient(&op.clone().into())),
    };
    let (a, b) = (r.input_spec(0).shape, r.input_spec(1).shape);
    for input in [0, 1] {
        if !grads.needs(input) {
            continue;
        }
        // The gradient at the broadcast shape, then summed over what was broadcast.
        let full = match (f, input) {
            (Binary::Add, _) | (Binary::Sub, 0) => dy.detach(),
            (Binary::Sub, _) => dy.unary(Unary::Neg)?,
            (Binary::Mul, 0) => dy.mul(r.input(1)?)?,
            (Binary::Mul, _) => dy.mul(r.input(0)?)?,
            (Binary::Div, 0) => dy.div(r.input(1)?)?,
            // d(a/b)/db = -(a/b)/b
            (Binary::Div, _) => dy.mul(r.output(0)?)?.div(r.input(1)?)?.unary(Unary::Neg)?,
            (Binary::Maximum, _) => share(Comparison::Gt, r.input(input)?, r.input(1 - input)?, dy)?,
            (Binary::Minimum, _) => share(Comparison::Lt, r.input(input)?, r.input(1 - input)?, dy)?,
            (Binary::Pow, 0) => {
                // b a^(b - 1), and 0 where b is 0, whatever a is.
                let (a, b) = (r.input(0)?, r.input(1)?);
                let slope = a.pow(&b.affine(1.0, -1.0)?)?.mul(b)?.mul(dy)?;
                let zero = Tensor::full(dy.device(), &[], dy.dtype(), 0.0)?;
                zero.where_(&b.compare(Comparison::Eq, &zero)?, &slope)?
            }
            (Binary::Pow, _) => {
                // a^b log a, and 0 where a is 0, whose logarithm is infinite.
                let a = r.input(0)?;
                let zero = Tensor::full(dy.device(), &[], dy.dtype(), 0.0)?;
                let log = zero.where_(&a.compare(Comparison::Eq, &zero)?, &a.unary(Unary::Log)?)?;
                r.output(0)?.mul(&log)?.mul(dy)?
            }
            (Binary::Remainder | Binary::Fmod, 0) => dy.detach(),
            (Binary::Remainder, _) => r.input(0)?.div(r.input(1)?)?.unary(Unary::Floor)?.mul(dy)?.unary(Unary::Neg)?,
            (Binary::Fmod, _) => {
                let quotient = r.input(0)?.div(r.input(1)?)?;
                let whole = quotient.unary(Unary::Abs)?.unary(Unary::Floor)?.mul(&quotient.unary(Unary::Sign)?)?;
                whole.mul(dy)?.unary(Unary::Neg)?
            }
        };
        super::reduce::sum_to(&full, if input == 0 { &a } else { &b }, input, grads)?;
    }
    Ok(())
}

/// The part of `dy` that goes to `own`: all where it wins over `other`, half where they are equal.
fn share(wins: Comparison, own: &Tensor, other: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let zero = Tensor::full(dy.device(), &[], dy.dtype(), 0.0)?;
    let tied = dy.affine(0.5, 0.0)?.where_(&own.compare(Comparison::Eq, other)?, &zero)?;
    dy.where_(&own.compare(wins, other)?, &tied)
}

/// The gradient before what the operation's only result became in its pass. A result lies between the bounds where what it was made of does.
pub(super) fn through(clip: Clip, r: &Recorded, dy: &Tensor) -> Result<Tensor> {
    let function = match clip.bounds() {
        None => return Ok(dy.clone()),
        Some([0.0, f64::INFINITY]) => Unary::Relu,
        Some([min, max]) => Unary::Clamp { min, max },
    };
    Tensor::apply1(Elementwise::UnaryBackward(function), &[r.output(0)?, dy])
}
