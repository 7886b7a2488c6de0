//! Matrix products and their gradients.

use crate::autodiff::{Grads, Recorded};
use crate::error::{Error, Result};
use crate::op::{Clip, Matmul, Reduce, ReduceKind};
use crate::tensor::Tensor;

impl Tensor {
    /// `[.., M, K] x [.., K, N] -> [.., M, N]`; leading dimensions broadcast.
    ///
    /// # Errors
    /// [`Error::Shape`] when inner sizes differ.
    pub fn matmul(&self, other: &Tensor) -> Result<Tensor> {
        self.matmul_with(other, false, false)
    }

    /// As [`Tensor::matmul`], with the last two dimensions of either operand swapped first.
    ///
    /// # Errors
    /// [`Error::Shape`] when inner sizes differ.
    pub fn matmul_with(&self, other: &Tensor, transpose_a: bool, transpose_b: bool) -> Result<Tensor> {
        Tensor::apply1(Matmul { transpose_a, transpose_b, ..Default::default() }, &[self, other])
    }

    /// `x W^T + b`: `[.., in] x [out, in] + [out] -> [.., out]`, as PyTorch's `linear`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `in` differs.
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        self.linear_with(weight, bias, false)
    }

    /// [`Tensor::linear`], and with `relu` what is above 0 of it, in one pass.
    ///
    /// # Errors
    /// As [`Tensor::linear`].
    pub fn linear_with(&self, weight: &Tensor, bias: Option<&Tensor>, relu: bool) -> Result<Tensor> {
        let (Some((&features, lead)), &[out, expected]) = (self.shape().split_last(), &weight.shape()[..]) else {
            return Err(Error::Shape(format!(
                "linear expects input [.., in] and weight [out, in], got {} and {}",
                self.shape(),
                weight.shape()
            )));
        };
        if features != expected {
            return Err(Error::Shape(format!(
                "linear got input {} with {features} features but weight {} expects {expected}; set in_features = {features}",
                self.shape(),
                weight.shape()
            )));
        }
        // One product over all rows: the weight's gradient then needs no sum over leading dimensions.
        let rows = self.reshape(&[lead.iter().product(), features])?;
        let op = Matmul { transpose_a: false, transpose_b: true, bias: bias.is_some(), relu };
        let y = match bias {
            Some(bias) => Tensor::apply1(op, &[&rows, weight, bias])?,
            None => Tensor::apply1(op, &[&rows, weight])?,
        };
        let dims: Vec<usize> = lead.iter().copied().chain([out]).collect();
        if lead.len() == 1 { Ok(y) } else { y.reshape(&dims) }
    }
}

pub(super) fn vjp(op: &Matmul, r: &Recorded, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    let (a, b) = (r.input(0)?, r.input(1)?);
    let dy = &super::elementwise::through(if op.relu { Clip::Relu } else { Clip::Nothing }, r, dy)?;
    let (ta, tb) = (op.transpose_a, op.transpose_b);
    let product = |transpose_a, transpose_b| Matmul { transpose_a, transpose_b, ..Default::default() };
    let batched = <[usize]>::len(dy.shape()) > 2;
    for input in [0, 1] {
        if !grads.needs(input) {
            continue;
        }
        // With C = op(A) op(B): dA = dC op(B)^T and dB = op(A)^T dC, transposed once more where the flag is set.
        let (f, x, y) = match (input, ta, tb) {
            (0, false, _) => (product(false, !tb), dy, b),
            (0, true, _) => (product(tb, true), b, dy),
            (_, _, false) => (product(!ta, false), a, dy),
            (_, _, true) => (product(true, ta), dy, a),
        };
        let shape = r.input_spec(input).shape;
        if batched {
            let full = Tensor::apply1(f, &[x, y])?;
            super::reduce::sum_to(&full, &shape, input, grads)?;
        } else {
            grads.op(&[input], f, &[x, y])?;
        }
    }
    if op.bias && grads.needs(2) {
        let dims = (0..<[usize]>::len(dy.shape()) - 1).collect();
        grads.op(&[2], Reduce { kind: ReduceKind::Sum, dims, keepdim: false }, &[dy])?;
    }
    Ok(())
}
