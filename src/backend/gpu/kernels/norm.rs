//! Dispatches of batch normalisation.

use super::{Kernel, Plan, WG, elementwise, word};
use crate::backend::Operand;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{After, Norm, Rows};
use crate::shape::{Shape, Spec};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    channels: u32,
    inner: u32,
    count: u32,
    parts: u32,
    step_images: u32,
    step_rest: u32,
    eps: f32,
    momentum: f32,
    ceiling: f32,
    part: u32,
    pad: [u32; 2],
}

/// Numbers of a channel that the backward pass hands on from its sums.
const COEFFICIENTS: usize = 8;

/// Invocations of a workgroup, and elements of each, for channels of `count` elements. 16 elements are enough to hide the memory's latency, and few enough to
/// stay in registers; few sizes, so that few kernels are compiled.
fn invocations(count: usize) -> (usize, usize) {
    match count {
        0..=64 => (64, 1),
        65..=256 => (256, 1),
        257..=1024 => (256, 4),
        _ => (256, 16),
    }
}

pub(super) fn lower(op: &Norm, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let rows = Rows::new(&inputs[0].spec.shape, 1);
    let (eps, momentum) = match *op {
        Norm::BatchNorm { eps, momentum, .. } => (eps, momentum),
        Norm::BatchNormEval { eps, .. } => (eps, 0.0),
        Norm::BatchNormBackward { .. } => (0.0, 0.0),
    };
    let (channels, count) = (rows.len, rows.outer * rows.inner);
    if let (0, Norm::BatchNormBackward { .. }, [_, dweight, dbias, ..]) = (count, op, outputs) {
        elementwise::fill(dweight, 0.0, plan)?;
        return elementwise::fill(dbias, 0.0, plan);
    }
    // WGSL has no infinity.
    let ceiling = match op.after() {
        After::Relu { ceiling } if ceiling <= f64::from(f32::MAX) => Some(ceiling),
        _ => None,
    };
    let (wg, each) = invocations(count);
    let part = wg * each;
    let parts = count.div_ceil(part);
    let params = Params {
        channels: word(channels)?,
        inner: word(rows.inner)?,
        count: word(count)?,
        parts: word(parts)?,
        step_images: word(wg / rows.inner.max(1))?,
        step_rest: word(wg % rows.inner.max(1))?,
        eps: eps as f32,
        momentum: momentum as f32,
        ceiling: ceiling.unwrap_or(0.0) as f32,
        part: word(part)?,
        pad: [0; 2],
    };
    let kernel = |entry| Kernel::new("norm", entry).constant("WG", wg as u32).spec("EACH", each as u32);
    // Joins parts.
    let joining = |entry| Kernel::new("norm", entry).constant("WG", parts.next_power_of_two().min(WG as usize) as u32);
    let relu = |kernel: Kernel, relu: bool| kernel.constant("RELU", relu as u32).constant("CEILING", ceiling.is_some() as u32);
    let (plain, masked) = (op.after() == After::Nothing, matches!(op.after(), After::Relu { .. }));
    let (each_channel, each_part) = (plan.fold(channels, 1)?, plan.fold(channels * parts, 1)?);
    let scratch = |plan: &Plan, dims: &[usize]| plan.scratch(Spec::new(Shape::new(dims)?, DType::F32));
    let x = &inputs[0];
    let normalize = |plan: &mut Plan, [mean, invstd]: [&Operand; 2], y: &Operand| {
        if count == 0 {
            return Ok(());
        }
        let residual = inputs.last().filter(|_| op.after() == After::AddRelu);
        let kernel = relu(kernel("normalize"), !plain).constant("ADD", residual.is_some() as u32);
        plan.push(kernel, &[x, mean, invstd, &inputs[1], &inputs[2], residual.unwrap_or(x)], &[y], &params, each_part)
    };
    match *op {
        Norm::BatchNorm { running, .. } => {
            let [y, mean, invstd] = outputs else { return Ok(()) };
            let moments = scratch(plan, &[channels, parts, 2])?;
            plan.push(kernel("moments"), &[x], &[&moments], &params, each_part)?;
            if running {
                plan.push(joining("stats_running"), &[&moments], &[mean, invstd, &inputs[3], &inputs[4]], &params, each_channel)?;
            } else {
                plan.push(joining("stats"), &[&moments], &[mean, invstd], &params, each_channel)?;
            }
            normalize(plan, [mean, invstd], y)
        }
        Norm::BatchNormEval { .. } => {
            let [y, invstd] = outputs else { return Ok(()) };
            let root = Kernel::new("norm", "inverse_root").constant("WG", WG);
            plan.push(root, &[&inputs[4]], &[invstd], &params, plan.fold(channels, WG)?)?;
            normalize(plan, [&inputs[3], invstd], y)
        }
        Norm::BatchNormBackward { training, after } => {
            let ([dx, dweight, dbias, ..], [_, dy, weight, mean, invstd, ..]) = (outputs, inputs) else { return Ok(()) };
            let sums = scratch(plan, &[channels, parts, 2])?;
            let coefficients = scratch(plan, &[channels, COEFFICIENTS])?;
            let bias = inputs.last().filter(|_| masked).unwrap_or(weight);
            let gradient = match (after, inputs.last(), outputs.last()) {
                (After::AddRelu, Some(y), Some(dresidual)) => {
                    plan.push(kernel("backward_sums_add"), &[x, mean, dy, y], &[&sums, dresidual], &params, each_part)?;
                    dresidual
                }
                _ => {
                    let reads = [x, mean, invstd, dy, weight, bias];
                    plan.push(relu(kernel("backward_sums"), masked), &reads, &[&sums], &params, each_part)?;
                    dy
                }
            };
            let joined = joining("coefficients_of").constant("TRAINING", training as u32);
            plan.push(joined, &[&sums, mean, invstd, weight, bias], &[&coefficients, dweight, dbias], &params, each_channel)?;
            plan.push(relu(kernel("backward"), masked), &[x, gradient, &coefficients], &[dx], &params, each_part)
        }
    }
}
