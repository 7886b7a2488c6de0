//! Convolution and its gradients.

use super::no_gradient;
use crate::autodiff::{Grads, Recorded};
use crate::error::Result;
use crate::op::{Conv, Conv2dOptions, Reduce, ReduceKind};
use crate::tensor::Tensor;

impl Tensor {
    /// `x [N, C, H, W]`, weight `[K, C / groups, kH, kW]`, bias `[K]` to `[N, K, oH, oW]`; see [`Conv2dOptions`].
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when channels or kernel do not fit the input.
    pub fn conv2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: Conv2dOptions) -> Result<Tensor> {
        let op = Conv::Forward { options, bias: bias.is_some() };
        match bias {
            Some(bias) => Tensor::apply1(op, &[self, weight, bias]),
            None => Tensor::apply1(op, &[self, weight]),
        }
    }
}

pub(super) fn vjp(op: &Conv, r: &Recorded, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    let Conv::Forward { options, bias } = *op else { return Err(no_gradient(&(*op).into())) };
    let (x, w) = (r.input(0)?, r.input(1)?);
    grads.op(&[0], Conv::BackwardInput { options, input_size: [x.shape()[2], x.shape()[3]] }, &[dy, w])?;
    grads.op(&[1], Conv::BackwardWeight { options, kernel_size: [w.shape()[2], w.shape()[3]] }, &[x, dy])?;
    if bias {
        grads.op(&[2], Reduce { kind: ReduceKind::Sum, dims: vec![0, 2, 3], keepdim: false }, &[dy])?;
    }
    Ok(())
}
