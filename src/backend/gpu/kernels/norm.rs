//! Dispatches of batch normalisation.

use super::{Kernel, Plan, WG, word};
use crate::backend::Operand;
use crate::error::Result;
use crate::dtype::DType;
use crate::op::{After, Norm, Rows};
use crate::shape::{Shape, Spec};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    channels: u32,
    inner: u32,
    count: u32,
    total: u32,
    eps: f32,
    momentum: f32,
    ceiling: f32,
    pad: [u32; 1],
}

/// Numbers of a channel that the backward pass hands on from its sums.
const COEFFICIENTS: usize = 8;

pub(super) fn lower(op: &Norm, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let rows = Rows::new(&inputs[0].spec.shape, 1);
    let (eps, momentum) = match *op {
        Norm::BatchNorm { eps, momentum, .. } => (eps, momentum),
        Norm::BatchNormEval { eps, .. } => (eps, 0.0),
        Norm::BatchNormBackward { .. } => (0.0, 0.0),
    };
    let total = inputs[0].spec.shape.len();
    let params = Params {
        channels: word(rows.len)?,
        inner: word(rows.inner)?,
        count: word(rows.outer * rows.inner)?,
        total: word(total)?,
        eps: eps as f32,
        momentum: momentum as f32,
        ceiling: if let After::Relu { ceiling } = op.after() { (ceiling as f32).min(f32::MAX) } else { 0.0 },
        pad: [0],
    };
    let kernel = |entry| Kernel::new("norm", entry).constant("WG", WG);
    let relu = matches!(op.after(), After::Relu { .. }) as u32;
    let (channels, elements) = (plan.fold(rows.len, 1)?, plan.fold(total, WG)?);
    let x = &inputs[0];
    let normalize = |plan: &mut Plan, [mean, invstd]: [&Operand; 2], y: &Operand| {
        let line = [x, mean, invstd, &inputs[1], &inputs[2]];
        match (op.after(), inputs.last()) {
            (After::AddRelu, Some(residual)) => {
                let reads = [&line[..], &[residual]].concat();
                plan.push(kernel("normalize_add"), &reads, &[y], &params, elements)
            }
            _ => plan.push(kernel("normalize").constant("RELU", relu), &line, &[y], &params, elements),
        }
    };
    match *op {
        Norm::BatchNorm { running, .. } => {
            let [y, mean, invstd] = outputs else { return Ok(()) };
            if running {
                plan.push(kernel("stats_running"), &[x], &[mean, invstd, &inputs[3], &inputs[4]], &params, channels)?;
            } else {
                plan.push(kernel("stats"), &[x], &[mean, invstd], &params, channels)?;
            }
            normalize(plan, [mean, invstd], y)
        }
        Norm::BatchNormEval { .. } => {
            let [y, invstd] = outputs else { return Ok(()) };
            plan.push(kernel("inverse_root"), &[&inputs[4]], &[invstd], &params, plan.fold(rows.len, WG)?)?;
            normalize(plan, [&inputs[3], invstd], y)
        }
        Norm::BatchNormBackward { training, after } => {
            let ([dx, dweight, dbias, ..], [_, dy, weight, mean, invstd, ..]) = (outputs, inputs) else { return Ok(()) };
            // In memory of their own: dweight and dbias may lie in one arena, whose parts need not begin where a binding may.
            let coefficients = plan.scratch(Spec::new(Shape::new(&[rows.len, COEFFICIENTS])?, DType::F32))?;
            let training = ("TRAINING", training as u32);
            let given = |sums: Kernel| sums.constant(training.0, training.1);
            let gradient = match (after, inputs.last(), outputs.last()) {
                (After::AddRelu, Some(y), Some(dresidual)) => {
                    let reads = [x, mean, invstd, dy, weight, y];
                    plan.push(given(kernel("backward_sums_add")), &reads, &[&coefficients, dresidual], &params, channels)?;
                    dresidual
                }
                (_, last, _) => {
                    let bias = if relu == 1 { last.unwrap_or(weight) } else { weight };
                    let reads = [x, mean, invstd, dy, weight, bias];
                    plan.push(given(kernel("backward_sums")).constant("RELU", relu), &reads, &[&coefficients], &params, channels)?;
                    dy
                }
            };
            plan.push(kernel("backward").constant("RELU", relu), &[x, gradient, &coefficients], &[dx], &params, elements)?;
            plan.push(kernel("parameter_gradients"), &[&coefficients], &[dweight, dbias], &params, plan.fold(rows.len, WG)?)
        }
    }
}
