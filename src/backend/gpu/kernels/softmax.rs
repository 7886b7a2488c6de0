//! Dispatches of log-softmax and cross-entropy.

use super::{Kernel, Plan, word};
use crate::backend::Operand;
use crate::error::Result;
use crate::op::{Rows, Softmax};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable, Default)]
pub(super) struct Params {
    rows: u32,
    classes: u32,
    inner: u32,
    ignore: i32,
    ignores: u32,
    smoothing: f32,
    nan_bits: u32,
    pad: u32,
}

pub(super) fn lower(op: &Softmax, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let dim = match op {
        Softmax::LogSoftmax { dim } | Softmax::LogSoftmaxBackward { dim } => *dim,
        _ => 1,
    };
    let rows = Rows::new(&inputs[0].spec.shape, dim);
    let count = rows.outer * rows.inner;
    let mut params = Params { rows: word(count)?, classes: word(rows.len)?, inner: word(rows.inner)?, ..Default::default() };
    // A lane a row for few classes, a workgroup a row for many.
    let lanes: u32 = match rows.len {
        0..=32 => 1,
        33..=256 => 16,
        _ => 256,
    };
    let rows_a_group = (64 / lanes).max(1);
    let kernel = |entry| Kernel::new("softmax", entry).spec("LANES", lanes).spec("ROWS_A_GROUP", rows_a_group);
    let groups = plan.fold(count, rows_a_group)?;
    match op {
        Softmax::LogSoftmax { .. } => plan.push(kernel("log_softmax"), &[&inputs[0]], &[&outputs[0]], &params, groups),
        Softmax::LogSoftmaxBackward { .. } => {
            plan.push(kernel("log_softmax_backward"), &[&inputs[0], &inputs[1]], &[&outputs[0]], &params, groups)
        }
        Softmax::CrossEntropy(o) | Softmax::CrossEntropyBackward(o) => {
            params.smoothing = o.label_smoothing as f32;
            params.nan_bits = f32::NAN.to_bits();
            // An ignore_index that no i32 can equal ignores nothing.
            if let Ok(ignore) = i32::try_from(o.ignore_index) {
                (params.ignore, params.ignores) = (ignore, 1);
            }
            let weight = if o.weight { &inputs[2] } else { &inputs[0] };
            let kernel = |entry| kernel(entry).constant("WEIGHTED", o.weight as u32);
            if let Softmax::CrossEntropy(_) = op {
                plan.push(kernel("cross_entropy"), &[&inputs[0], &inputs[1], weight], &[&outputs[0], &outputs[1]], &params, groups)
            } else {
                let dloss = &inputs[inputs.len() - 1];
                plan.push(kernel("cross_entropy_backward"), &[&inputs[0], &inputs[1], weight, dloss], &[&outputs[0]], &params, groups)
            }
        }
    }
}
