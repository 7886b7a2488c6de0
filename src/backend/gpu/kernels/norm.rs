//! Dispatches of batch normalisation.

use super::{Kernel, Plan, WG, word};
use crate::backend::Operand;
use crate::error::Result;
use crate::op::{Norm, Rows};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    channels: u32,
    inner: u32,
    count: u32,
    total: u32,
    eps: f32,
    momentum: f32,
    pad: [u32; 2],
}

pub(super) fn lower(op: &Norm, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let rows = Rows::new(&inputs[0].spec.shape, 1);
    let (eps, momentum) = match *op {
        Norm::BatchNorm { eps, momentum, .. } => (eps, momentum),
        Norm::BatchNormEval { eps } => (eps, 0.0),
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
        pad: [0; 2],
    };
    let kernel = |entry| Kernel::new("norm", entry).constant("WG", WG);
    let (channels, elements) = (plan.fold(rows.len, 1)?, plan.fold(total, WG)?);
    let x = &inputs[0];
    match *op {
        Norm::BatchNorm { running, .. } => {
            let [y, mean, invstd] = outputs else { return Ok(()) };
            if running {
                plan.push(kernel("stats_running"), &[x], &[mean, invstd, &inputs[3], &inputs[4]], &params, channels)?;
            } else {
                plan.push(kernel("stats"), &[x], &[mean, invstd], &params, channels)?;
            }
            plan.push(kernel("normalize"), &[x, mean, invstd, &inputs[1], &inputs[2]], &[y], &params, elements)
        }
        Norm::BatchNormEval { .. } => {
            let [y, invstd] = outputs else { return Ok(()) };
            plan.push(kernel("inverse_root"), &[&inputs[4]], &[invstd], &params, plan.fold(rows.len, WG)?)?;
            plan.push(kernel("normalize"), &[x, &inputs[3], invstd, &inputs[1], &inputs[2]], &[y], &params, elements)
        }
        Norm::BatchNormBackward { training } => {
            let ([dx, dweight, dbias], [_, dy, weight, mean, invstd]) = (outputs, inputs) else { return Ok(()) };
            // Sums in memory of their own: dweight and dbias may lie in one arena, and a buffer cannot be read and written in one dispatch.
            let (sum_xhat, sum) = (plan.scratch(dweight.spec)?, plan.scratch(dbias.spec)?);
            plan.push(kernel("backward_sums"), &[x, mean, invstd, dy], &[&sum_xhat, &sum], &params, channels)?;
            plan.push(
                kernel("backward").constant("TRAINING", training as u32),
                &[x, mean, invstd, dy, weight, &sum_xhat, &sum],
                &[dx],
                &params,
                elements,
            )?;
            for (from, to) in [(&sum_xhat, dweight), (&sum, dbias)] {
                super::layout::lower(
                    &crate::op::Layout::Expand { shape: to.spec.shape },
                    std::slice::from_ref(from),
                    std::slice::from_ref(to),
                    plan,
                )?;
            }
            Ok(())
        }
    }
}
