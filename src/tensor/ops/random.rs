//! Dropout and its gradient. Random tensors are made by [`Tensor::uniform`] and [`Tensor::normal`].

use super::no_gradient;
use crate::autodiff::Grads;
use crate::error::Result;
use crate::op::Random;
use crate::rng::Stream;
use crate::tensor::Tensor;

impl Tensor {
    /// Zeros each element with probability `p` and divides the others by `1 - p`; the mask is a function of the stream alone.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) unless `p` lies in `[0, 1)`.
    pub fn dropout(&self, p: f64, stream: Stream) -> Result<Tensor> {
        Tensor::apply1(Random::Dropout { p, stream }, &[self])
    }
}

pub(super) fn vjp(op: &Random, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    match op {
        // Linear in x, with the mask drawn again from the same stream.
        Random::Dropout { .. } => grads.op(&[0], *op, &[dy]),
        _ => Err(no_gradient(&(*op).into())),
    }
}
