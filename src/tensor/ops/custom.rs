//! The gradient of an operation from outside the crate; its forward is [`Tensor::apply`].

use super::no_gradient;
use crate::autodiff::{Grads, Recorded};
use crate::error::Result;
use crate::op::{Custom, Op};
use crate::tensor::Tensor;

pub(super) fn vjp(op: &Custom, r: &Recorded, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    let Some(gradient) = op.gradient() else { return Err(no_gradient(&Op::Custom(op.clone()))) };
    let mut operands = (0..r.inputs()).map(|i| r.input(i)).collect::<Result<Vec<_>>>()?;
    operands.push(dy);
    let targets: Vec<usize> = (0..r.inputs()).collect();
    grads.op(&targets, gradient, &operands)
}
