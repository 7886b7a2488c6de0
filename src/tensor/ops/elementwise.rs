//! Elementwise functions and their gradients.

use super::{Saves, no_gradient};
use crate::autodiff::{Grads, Recorded};
use crate::error::Result;
use crate::op::elementwise::Saved;
use crate::op::{Binary, Elementwise, Unary};
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
        Elementwise::Binary(Binary::Mul) => (&[0, 1], &[]),
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
            (Binary::EqualMask, _) => return Err(no_gradient(&op.clone().into())),
        };
        super::reduce::sum_to(&full, if input == 0 { &a } else { &b }, input, grads)?;
    }
    Ok(())
}
