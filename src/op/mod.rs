//! Operations as plain data: an [`Op`] says *what* to compute. Backends decide how.
//!
//! One file a family: its attributes and its shape rule. Nothing here touches memory or a device.

pub mod conv;
pub mod custom;
pub mod elementwise;
pub mod layout;
pub mod matmul;
pub mod norm;
pub mod optimizer;
pub mod pool;
pub mod random;
pub mod recurrent;
pub mod reduce;
pub mod scan;
pub mod softmax;
mod tolerance;

use crate::error::{Error, Result};
use crate::shape::{Shape, Spec};
pub use conv::{Clip, Conv, Conv1dOptions, Conv2dOptions, ConvTranspose2dOptions};
pub use custom::{Custom, CustomOp};
pub use elementwise::{Binary, Comparison, Elementwise, Unary};
pub use layout::Layout;
pub use matmul::Matmul;
pub use norm::{After, Norm};
pub use optimizer::{AdamStep, LossScaleStep, Optimizer, SgdStep};
pub use pool::{AvgPool2dOptions, Pool, Pool1dOptions, Pool2dOptions};
pub use random::Random;
pub use recurrent::Recurrent;
pub use reduce::{Reduce, ReduceKind};
pub use scan::Scan;
pub use softmax::{CrossEntropyOptions, Rows, Softmax};
pub use tolerance::Magnitudes;

/// An operation with its attributes; operands and results are given to [`Backend::run`](crate::backend::Backend::run).
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Functions of one or two elements.
    Elementwise(Elementwise),
    /// Matrix products.
    Matmul(Matmul),
    /// Convolution and its gradients.
    Conv(Conv),
    /// Pooling and its gradients.
    Pool(Pool),
    /// Steps of recurrent nets.
    Recurrent(Recurrent),
    /// Reductions over dimensions.
    Reduce(Reduce),
    /// Cumulative sums and order along a dimension.
    Scan(Scan),
    /// Log-softmax and cross-entropy.
    Softmax(Softmax),
    /// Copies that move elements.
    Layout(Layout),
    /// Random tensors and dropout.
    Random(Random),
    /// Normalisation.
    Norm(Norm),
    /// Fused optimiser steps.
    Optimizer(Optimizer),
    /// Operations from outside the crate.
    Custom(Custom),
}

impl Op {
    /// Shapes and types of the results for operands of these shapes and types.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::DType`] saying what does not fit.
    pub fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        match self {
            Op::Elementwise(op) => op.infer(inputs),
            Op::Matmul(op) => op.infer(inputs),
            Op::Conv(op) => op.infer(inputs),
            Op::Pool(op) => op.infer(inputs),
            Op::Recurrent(op) => op.infer(inputs),
            Op::Reduce(op) => op.infer(inputs),
            Op::Scan(op) => op.infer(inputs),
            Op::Softmax(op) => op.infer(inputs),
            Op::Layout(op) => op.infer(inputs),
            Op::Random(op) => op.infer(inputs),
            Op::Norm(op) => op.infer(inputs),
            Op::Optimizer(op) => op.infer(inputs),
            Op::Custom(op) => op.infer(inputs),
        }
    }

    /// Indices of the inputs that are updated in place; each is bound once, for reading and writing.
    pub fn in_place(&self) -> &'static [usize] {
        match self {
            Op::Elementwise(Elementwise::AddAssign) => &[0],
            Op::Norm(Norm::BatchNorm { running: true, .. }) => &[3, 4],
            Op::Optimizer(Optimizer::Sgd(s)) if s.momentum != 0.0 => &[0, 3],
            Op::Optimizer(Optimizer::Sgd(_)) => &[0],
            Op::Optimizer(Optimizer::Adam(_)) => &[0, 3, 4],
            Op::Optimizer(Optimizer::LossScale(_)) => &[1],
            _ => &[],
        }
    }

    /// The family's stem, as in the names of its files.
    pub fn family(&self) -> &'static str {
        match self {
            Op::Elementwise(_) => "elementwise",
            Op::Matmul(_) => "matmul",
            Op::Conv(_) => "conv",
            Op::Pool(_) => "pool",
            Op::Recurrent(_) => "recurrent",
            Op::Reduce(_) => "reduce",
            Op::Scan(_) => "scan",
            Op::Softmax(_) => "softmax",
            Op::Layout(_) => "layout",
            Op::Random(_) => "random",
            Op::Norm(_) => "norm",
            Op::Optimizer(_) => "optimizer",
            Op::Custom(_) => "custom",
        }
    }

    /// The operation's own name without attributes: `add`, `conv2d_backward_weight`, `max_pool2d` ...
    pub fn name(&self) -> String {
        // Debug text up to the first attribute, so that a new variant has a name without a second list to keep.
        let text = match self {
            Op::Elementwise(Elementwise::Unary(f)) => format!("{f:?}"),
            Op::Elementwise(Elementwise::UnaryBackward(f)) => {
                format!("{}Backward", format!("{f:?}").split([' ', '{']).next().unwrap_or_default())
            }
            Op::Elementwise(Elementwise::Binary(f)) => format!("{f:?}"),
            Op::Elementwise(Elementwise::Compare(f)) => format!("{f:?}"),
            Op::Elementwise(op) => format!("{op:?}"),
            Op::Matmul(_) => "Matmul".into(),
            Op::Conv(Conv::Forward { .. }) => "Conv2d".into(),
            Op::Conv(op) => format!("Conv2d{op:?}"),
            Op::Pool(op) => {
                let text = format!("{op:?}");
                let head = text.split([' ', '(']).next().unwrap_or_default();
                match head.strip_suffix("Backward") {
                    Some(stem) => format!("{stem}Pool2dBackward"),
                    None => format!("{head}Pool2d"),
                }
            }
            Op::Recurrent(op) => format!("{op:?}"),
            Op::Reduce(op) => format!("{:?}", op.kind),
            Op::Scan(op) => format!("{op:?}"),
            Op::Softmax(op) => format!("{op:?}"),
            Op::Layout(op) => format!("{op:?}"),
            Op::Random(op) => format!("{op:?}"),
            Op::Norm(op) => format!("{op:?}"),
            Op::Optimizer(op) => format!("{op:?}"),
            Op::Custom(op) => return op.name().to_owned(),
        };
        let head = text.split([' ', '{', '(']).next().unwrap_or_default();
        let mut name = String::new();
        for (i, c) in head.char_indices() {
            if c.is_ascii_uppercase() && i > 0 {
                name.push('_');
            }
            name.push(c.to_ascii_lowercase());
        }
        name
    }

    /// Floating-point operations of one call: exact for products (a multiply-accumulate is two), one an element elsewhere.
    pub fn flops(&self, inputs: &[Spec], outputs: &[Spec]) -> u64 {
        match self {
            Op::Matmul(op) => match op.sizes(&inputs[0].shape, &inputs[1].shape) {
                Ok(s) => 2 * (s.batch.len() * s.m * s.n * s.k) as u64,
                Err(_) => 0,
            },
            Op::Conv(op) => 2 * op.macs(inputs, outputs),
            Op::Layout(_) => 0,
            _ => {
                let largest = || inputs.iter().chain(outputs).map(|s| s.shape.len()).max().unwrap_or(0) as u64;
                let products = if let Op::Recurrent(op) = self { op.products(inputs) } else { None };
                products.unwrap_or_else(largest)
            }
        }
    }

    /// Bytes read and written by one call when every operand is moved once.
    pub fn bytes(&self, inputs: &[Spec], outputs: &[Spec]) -> u64 {
        let updated: usize = self.in_place().iter().filter_map(|&i| inputs.get(i)).map(Spec::len_bytes).sum();
        (inputs.iter().chain(outputs).map(Spec::len_bytes).sum::<usize>() + updated) as u64
    }
}

/// Exactly `N` operands.
fn arity<const N: usize>(op: &impl std::fmt::Debug, inputs: &[Spec]) -> Result<[Spec; N]> {
    <[Spec; N]>::try_from(inputs).map_err(|_| Error::Shape(format!("{op:?} takes {N} operands, got {}", inputs.len())))
}

/// Operands are floats of one type. An integer operand among them is named.
fn float(op: &impl std::fmt::Debug, inputs: &[Spec]) -> Result<()> {
    for spec in inputs {
        if !spec.dtype.is_float() || spec.dtype != inputs[0].dtype {
            return Err(Error::DType(format!("{op:?} expects float operands of one type, got {spec} beside {}", inputs[0])));
        }
    }
    Ok(())
}

/// Two shapes are equal.
fn same(op: &impl std::fmt::Debug, a: &Shape, b: &Shape) -> Result<()> {
    if a != b {
        return Err(Error::Shape(format!("{op:?}: shapes {a} and {b} must be equal")));
    }
    Ok(())
}
