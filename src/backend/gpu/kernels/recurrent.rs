//! Dispatches of steps of recurrent nets.

use super::{Kernel, Plan, WG, word};
use crate::backend::Operand;
use crate::error::Result;
use crate::op::Recurrent;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    all: u32,
    h: u32,
    pad: [u32; 2],
}

pub(super) fn lower(op: &Recurrent, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let (entry, state) = match op {
        Recurrent::Lstm => ("lstm", &inputs[2]),
        Recurrent::LstmBackward => ("lstm_backward", &inputs[1]),
        Recurrent::Gru => ("gru", &inputs[2]),
        Recurrent::GruBackward => ("gru_backward", &inputs[1]),
    };
    let shape = &state.spec.shape;
    let (n, h) = (shape[shape.rank() - 2], shape[shape.rank() - 1]);
    let params = Params { all: word(n * h)?, h: word(h)?, pad: [0; 2] };
    let kernel = Kernel::new("recurrent", entry).constant("WG", WG);
    plan.push(kernel, &inputs.iter().collect::<Vec<_>>(), &outputs.iter().collect::<Vec<_>>(), &params, plan.fold(n * h, WG)?)
}
