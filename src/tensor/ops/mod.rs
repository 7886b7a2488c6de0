//! Operations on tensors, one file a family, each forward beside its gradient rule (vjp).

mod conv;
mod custom;
mod elementwise;
mod layout;
mod matmul;
mod norm;
mod pool;
mod random;
mod recurrent;
mod reduce;
mod scan;
mod softmax;

pub use layout::PadMode;
pub use softmax::Reduction;

use crate::autodiff::{Grads, Recorded};
use crate::error::{Error, Result};
use crate::op::{Clip, Conv, Matmul, Op};
use crate::tensor::Tensor;

impl From<crate::op::Elementwise> for Op {
    fn from(op: crate::op::Elementwise) -> Op {
        Op::Elementwise(op)
    }
}
impl From<crate::op::Matmul> for Op {
    fn from(op: crate::op::Matmul) -> Op {
        Op::Matmul(op)
    }
}
impl From<crate::op::Conv> for Op {
    fn from(op: crate::op::Conv) -> Op {
        Op::Conv(op)
    }
}
impl From<crate::op::Pool> for Op {
    fn from(op: crate::op::Pool) -> Op {
        Op::Pool(op)
    }
}
impl From<crate::op::Recurrent> for Op {
    fn from(op: crate::op::Recurrent) -> Op {
        Op::Recurrent(op)
    }
}
impl From<crate::op::Reduce> for Op {
    fn from(op: crate::op::Reduce) -> Op {
        Op::Reduce(op)
    }
}
impl From<crate::op::Scan> for Op {
    fn from(op: crate::op::Scan) -> Op {
        Op::Scan(op)
    }
}
impl From<crate::op::Softmax> for Op {
    fn from(op: crate::op::Softmax) -> Op {
        Op::Softmax(op)
    }
}
impl From<crate::op::Layout> for Op {
    fn from(op: crate::op::Layout) -> Op {
        Op::Layout(op)
    }
}
impl From<crate::op::Random> for Op {
    fn from(op: crate::op::Random) -> Op {
        Op::Random(op)
    }
}
impl From<crate::op::Norm> for Op {
    fn from(op: crate::op::Norm) -> Op {
        Op::Norm(op)
    }
}
impl From<crate::op::Custom> for Op {
    fn from(op: crate::op::Custom) -> Op {
        Op::Custom(op)
    }
}
impl From<crate::op::Optimizer> for Op {
    fn from(op: crate::op::Optimizer) -> Op {
        Op::Optimizer(op)
    }
}

/// Indices of the inputs and of the outputs that an operation's rule reads.
pub(crate) type Saves = (&'static [usize], &'static [usize]);

/// What to keep of a recorded operation.
pub(crate) fn saves(op: &Op) -> Saves {
    match op {
        Op::Elementwise(op) => elementwise::saves(op),
        Op::Matmul(Matmul { relu: true, .. }) | Op::Conv(Conv::Forward { clip: Clip::Relu | Clip::Relu6, .. }) => (&[0, 1], &[0]),
        Op::Matmul(_) | Op::Conv(_) => (&[0, 1], &[]),
        Op::Pool(op) => pool::saves(op),
        Op::Recurrent(op) => recurrent::saves(op),
        Op::Reduce(op) => reduce::saves(op),
        Op::Scan(op) => scan::saves(op),
        Op::Softmax(op) => softmax::saves(op),
        Op::Layout(op) => layout::saves(op),
        Op::Random(_) => (&[], &[]),
        Op::Norm(op) => norm::saves(op),
        Op::Optimizer(_) => (&[], &[]),
        // Whatever its gradient reads: the operands alone, as many as a default binding limit allows.
        Op::Custom(_) => (&[0, 1, 2, 3, 4, 5, 6, 7], &[]),
    }
}

/// The vector-Jacobian product: from the gradient `dy` of an operation's first result to those of its inputs.
pub(crate) fn vjp(op: &Op, r: &Recorded, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    match op {
        Op::Elementwise(f) => elementwise::vjp(f, r, dy, grads),
        Op::Matmul(f) => matmul::vjp(f, r, dy, grads),
        Op::Conv(f) => conv::vjp(f, r, dy, grads),
        Op::Pool(f) => pool::vjp(f, r, dy, grads),
        Op::Recurrent(f) => recurrent::vjp(f, r, dy, grads),
        Op::Reduce(f) => reduce::vjp(f, r, dy, grads),
        Op::Scan(f) => scan::vjp(f, r, dy, grads),
        Op::Softmax(f) => softmax::vjp(f, r, dy, grads),
        Op::Layout(f) => layout::vjp(f, r, dy, grads),
        Op::Random(f) => random::vjp(f, dy, grads),
        Op::Norm(f) => norm::vjp(f, r, dy, grads),
        Op::Optimizer(_) => Err(no_gradient(op)),
        Op::Custom(f) => custom::vjp(f, r, dy, grads),
    }
}

/// The error of an operation without a rule.
fn no_gradient(op: &Op) -> Error {
    Error::Autodiff(format!("{} has no gradient; detach its input, or run it under no_grad", op.name()))
}
