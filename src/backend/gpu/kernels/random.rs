//! Dispatches of random tensors and dropout.

use super::{Kernel, Plan, WG, word};
use crate::backend::Operand;
use crate::error::Result;
use crate::op::Random;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    key: [u32; 2],
    high: [u32; 2],
    n: u32,
    a: f32,
    b: f32,
    pad: u32,
}

pub(super) fn lower(op: &Random, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let n = outputs[0].spec.shape.len();
    let (stream, a, b, kernel) = match *op {
        Random::Uniform { low, high, stream, .. } => (stream, low, high - low, Kernel::new("random", "generate").constant("NORMAL", 0)),
        Random::Normal { mean, std, stream, .. } => (stream, mean, std, Kernel::new("random", "generate").constant("NORMAL", 1)),
        Random::Dropout { p, stream } => (stream, p, 1.0 / (1.0 - p), Kernel::new("random", "dropout")),
    };
    let params = Params { key: stream.key, high: stream.high, n: word(n)?, a: a as f32, b: b as f32, pad: 0 };
    let reads: Vec<&Operand> = inputs.iter().collect();
    plan.push(kernel.constant("WG", WG), &reads, &[&outputs[0]], &params, plan.fold(n.div_ceil(4), WG)?)
}
