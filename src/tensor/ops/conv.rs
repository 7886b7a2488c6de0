//! Convolution and its gradients.

use super::no_gradient;
use crate::autodiff::{Grads, Recorded};
use crate::error::{Error, Result};
use crate::op::{Clip, Conv, Conv1dOptions, Conv2dOptions, ConvTranspose2dOptions, Reduce, ReduceKind};
use crate::tensor::Tensor;

impl Tensor {
    /// `x [N, C, H, W]`, weight `[K, C / groups, kH, kW]`, bias `[K]` to `[N, K, oH, oW]`; see [`Conv2dOptions`].
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when channels or kernel do not fit the input.
    pub fn conv2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: Conv2dOptions) -> Result<Tensor> {
        self.conv2d_with(weight, bias, options, Clip::Nothing)
    }

    /// [`Tensor::conv2d`] and `clip` of it, in one pass.
    ///
    /// # Errors
    /// As [`Tensor::conv2d`].
    pub fn conv2d_with(&self, weight: &Tensor, bias: Option<&Tensor>, options: Conv2dOptions, clip: Clip) -> Result<Tensor> {
        let op = Conv::Forward { options, bias: bias.is_some(), clip };
        match bias {
            Some(bias) => Tensor::apply1(op, &[self, weight, bias]),
            None => Tensor::apply1(op, &[self, weight]),
        }
    }

    /// `x [N, C, L]`, weight `[K, C / groups, k]`, bias `[K]` to `[N, K, oL]`; see [`Conv1dOptions`].
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when channels or kernel do not fit the input.
    pub fn conv1d(&self, weight: &Tensor, bias: Option<&Tensor>, options: Conv1dOptions) -> Result<Tensor> {
        let y = self.unsqueeze_height("conv1d")?.conv2d(&weight.unsqueeze_height("conv1d weight")?, bias, options.two_d())?;
        y.squeeze_height()
    }

    /// The gradient of a convolution with respect to its input, as an operation of its own: `x [N, C, H, W]`, weight
    /// `[C, K / groups, kH, kW]`, bias `[K]` to `[N, K, oH, oW]` (Zeiler et al. 2010); see [`ConvTranspose2dOptions`].
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when channels do not fit, or nothing would be left.
    pub fn conv_transpose2d(&self, weight: &Tensor, bias: Option<&Tensor>, options: ConvTranspose2dOptions) -> Result<Tensor> {
        let [_, _, h, w] = self.shape().nchw("conv_transpose2d")?;
        let [_, _, kh, kw] = weight.shape().nchw("conv_transpose2d weight")?;
        let input_size = options.output_size([h, w], [kh, kw])?;
        // More padding than the stride makes room for further windows, whose gradient is 0.
        let further = |axis: usize| (options.output_padding[axis] / options.conv.stride[axis]) as i64;
        let x = if further(0) + further(1) > 0 { self.pad(&[0, further(1), 0, further(0)], 0.0)? } else { self.clone() };
        let y = Tensor::apply1(Conv::BackwardInput { options: options.conv, input_size }, &[&x, weight])?;
        match bias {
            Some(bias) if bias.shape()[..] == [y.shape()[1]] => y.add(&bias.reshape(&[y.shape()[1], 1, 1])?),
            Some(bias) => {
                Err(Error::Shape(format!("conv_transpose2d: bias {} must be [{}], one value a channel", bias.shape(), y.shape()[1])))
            }
            None => Ok(y),
        }
    }

    /// `[N, C, L]` as `[N, C, 1, L]`.
    pub(super) fn unsqueeze_height(&self, what: &str) -> Result<Tensor> {
        let [n, c, l] = self.shape()[..] else {
            return Err(Error::Shape(format!("{what} expects three dimensions, got {}", self.shape())));
        };
        self.reshape(&[n, c, 1, l])
    }

    /// `[N, C, 1, L]` as `[N, C, L]`.
    pub(super) fn squeeze_height(&self) -> Result<Tensor> {
        let [n, c, _, l] = self.shape().nchw("a row")?;
        self.reshape(&[n, c, l])
    }
}

pub(super) fn vjp(op: &Conv, r: &Recorded, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    let (x, w) = (r.input(0)?, r.input(1)?);
    let (options, bias, clip) = match *op {
        Conv::Forward { options, bias, clip } => (options, bias, clip),
        // Linear in both operands: the convolution itself, and the weight's gradient with the roles of image and gradient exchanged.
        Conv::BackwardInput { options, .. } => {
            grads.op(&[0], Conv::Forward { options, bias: false, clip: Clip::Nothing }, &[dy, w])?;
            return grads.op(&[1], Conv::BackwardWeight { options, kernel_size: [w.shape()[2], w.shape()[3]] }, &[dy, x]);
        }
        Conv::BackwardWeight { .. } => return Err(no_gradient(&(*op).into())),
    };
    let dy = &super::elementwise::through(clip, r, dy)?;
    grads.op(&[0], Conv::BackwardInput { options, input_size: [x.shape()[2], x.shape()[3]] }, &[dy, w])?;
    grads.op(&[1], Conv::BackwardWeight { options, kernel_size: [w.shape()[2], w.shape()[3]] }, &[x, dy])?;
    if bias {
        grads.op(&[2], Reduce { kind: ReduceKind::Sum, dims: vec![0, 2, 3], keepdim: false }, &[dy])?;
    }
    Ok(())
}
