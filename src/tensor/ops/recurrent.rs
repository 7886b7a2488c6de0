//! The gradients of recurrent steps. Whole nets are in [`nn::recurrent`](crate::nn::recurrent).

use super::{Saves, no_gradient};
use crate::autodiff::{Grads, Recorded};
use crate::error::Result;
use crate::op::{Matmul, Recurrent};
use crate::tensor::Tensor;

pub(super) fn saves(op: &Recurrent) -> Saves {
    match op {
        Recurrent::Lstm => (&[2], &[0, 1]),
        Recurrent::Gru => (&[2], &[1]),
        Recurrent::LstmLayer { .. } => (&[1, 2], &[0, 1]),
        Recurrent::LstmBackward | Recurrent::GruBackward | Recurrent::LstmLayerBackward { .. } => (&[], &[]),
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
        Recurrent::LstmLayer { reverse } => {
            let (states, first) = (r.output(0)?, r.input(2)?);
            let backward = Recurrent::LstmLayerBackward { reverse: *reverse };
            let results = Tensor::apply(backward, &[r.output(1)?, r.input(1)?, first, states, dy])?;
            let [dgates, dstate] = &results[..] else { return Ok(()) };
            grads.add(0, dgates.clone())?;
            grads.add(2, dstate.clone())?;
            let &[steps, n, wide] = &dgates.shape()[..] else { return Ok(()) };
            let h = wide / 4;
            // The weights' gradient of all steps in one product: with the h that each step began with.
            let of = |all: &Tensor, rows: usize| all.slice(&[0, 0, 0, 0], &[rows as i64, 1, n as i64, h as i64], &[1; 4]);
            let first = of(&first.reshape(&[1, 2, n, h])?, 1)?;
            let before = if steps == 1 {
                first
            } else if *reverse {
                Tensor::concat(&[&of(&states.narrow(0, 1, steps - 1)?, steps - 1)?, &first], 0)?
            } else {
                Tensor::concat(&[&first, &of(&states.narrow(0, 0, steps - 1)?, steps - 1)?], 0)?
            };
            let product = Matmul { transpose_a: true, ..Default::default() };
            grads.op(&[1], product, &[&dgates.reshape(&[steps * n, wide])?, &before.reshape(&[steps * n, h])?])
        }
        Recurrent::Gru => grads.op(&[0, 1, 2], Recurrent::GruBackward, &[r.output(1)?, r.input(2)?, dy]),
        _ => Err(no_gradient(&(*op).into())),
    }
}
