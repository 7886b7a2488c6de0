//! Dispatches of cumulative sums and of the largest elements.

use super::{Kernel, Plan, WG, word};
use crate::backend::Operand;
use crate::error::Result;
use crate::op::{Rows, Scan};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    rows: u32,
    len: u32,
    inner: u32,
    k: u32,
}

pub(super) fn lower(op: &Scan, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let shape = &inputs[0].spec.shape;
    let params = |dim: usize, k: usize| -> Result<(Rows, Params)> {
        let rows = Rows::new(shape, dim);
        let params = Params { rows: word(rows.outer * rows.inner)?, len: word(rows.len)?, inner: word(rows.inner)?, k: word(k)? };
        Ok((rows, params))
    };
    match *op {
        Scan::Cumsum { dim, reverse } => {
            let (rows, params) = params(dim, 0)?;
            let kernel = Kernel::new("scan", "cumsum").constant("FLAG", reverse as u32);
            plan.push(kernel, &[&inputs[0]], &[&outputs[0]], &params, plan.fold(rows.outer * rows.inner, 1)?)
        }
        Scan::TopK { dim, k, largest } => {
            let (_, params) = params(dim, k)?;
            let kernel = Kernel::new("scan", "topk").constant("FLAG", largest as u32);
            plan.push(kernel, &[&inputs[0]], &[&outputs[0], &outputs[1]], &params, plan.fold(shape.len(), WG)?)
        }
    }
}
