//! The gradients of recurrent steps. Whole nets are in [`nn::recurrent`](crate::nn::recurrent).

use super::{Saves, no_gradient};
use crate::autodiff::{Grads, Recorded};
use crate::error::Result;
use crate::op::Recurrent;
use crate::tensor::Tensor;

pub(super) fn saves(op: &Recurrent) -> Saves {
    match op {
        Recurrent::Lstm => (&[2], &[0, 1]),
        Recurrent::Gru => (&[2], &[1]),
        Recurrent::LstmBackward | Recurrent::GruBackward => (&[], &[]),
    }
}

pub(super) fn vjp(op: &Recurrent, r: &Recorded, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    match op {
        Recurrent::Lstm => {
            let results = Tensor::apply(Recurrent::LstmBackward, &[r.output(1)?, r.input(2)?, r.output(0)?, dy])?;
            let [dgates, dstate] = &results[..] else { return Ok(()) };
            grads.add(0, dgates.clone())?;
            grads.add(1, dgates.clone())?;
            grads.add(2, dstate.clone())
        }
        Recurrent::Gru => grads.op(&[0, 1, 2], Recurrent::GruBackward, &[r.output(1)?, r.input(2)?, dy]),
        _ => Err(no_gradient(&(*op).into())),
    }
}
