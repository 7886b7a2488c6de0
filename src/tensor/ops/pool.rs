//! Pooling and its gradients.

use super::{Saves, no_gradient};
use crate::autodiff::{Grads, Recorded};
use crate::error::Result;
use crate::op::{AvgPool2dOptions, Pool, Pool2dOptions};
use crate::tensor::Tensor;

impl Tensor {
    /// The largest value of each window, `[N, C, H, W] -> [N, C, oH, oW]`; of equal values the first gets the gradient.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when the window does not fit.
    pub fn max_pool2d(&self, options: Pool2dOptions) -> Result<Tensor> {
        Tensor::apply1(Pool::Max(options), &[self])
    }

    /// The mean of each window, `[N, C, H, W] -> [N, C, oH, oW]`.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when the window does not fit.
    pub fn avg_pool2d(&self, options: AvgPool2dOptions) -> Result<Tensor> {
        Tensor::apply1(Pool::Avg(options), &[self])
    }

    /// Averages each channel over its pixels: `[N, C, H, W] -> [N, C, 1, 1]`. See [`Pool::GlobalAvg`].
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) unless the input has rank 4 and at least one pixel.
    pub fn global_avg_pool2d(&self) -> Result<Tensor> {
        Tensor::apply1(Pool::GlobalAvg, &[self])
    }
}

pub(super) fn saves(op: &Pool) -> Saves {
    match op {
        Pool::Max(_) => (&[], &[1]),
        _ => (&[], &[]),
    }
}

pub(super) fn vjp(op: &Pool, r: &Recorded, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    let x = r.input_spec(0).shape;
    match *op {
        Pool::Max(options) => grads.op(&[0], Pool::MaxBackward { options, input_size: [x[2], x[3]] }, &[dy, r.output(1)?]),
        Pool::Avg(options) => grads.op(&[0], Pool::AvgBackward { options, input_size: [x[2], x[3]] }, &[dy]),
        // Every pixel of a plane entered the mean with weight 1/(H*W).
        Pool::GlobalAvg => grads.op(&[0], Pool::GlobalAvgBackward { input_size: [x[2], x[3]] }, &[dy]),
        _ => Err(no_gradient(&(*op).into())),
    }
}
