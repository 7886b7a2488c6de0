//! Dispatches of copies.

use super::{Kernel, Plan, WG, eight, elementwise, strides, word, words};
use crate::backend::Operand;
use crate::error::Result;
use crate::op::layout::StridedCopy;
use crate::op::{Layout, Rows};
use crate::shape::{MAX_RANK, Shape};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable, Default)]
pub(super) struct Params {
    n: u32,
    from_offset: u32,
    to_offset: u32,
    inner: u32,
    from_len: u32,
    to_len: u32,
    pad: [u32; 2],
    sizes: [[u32; 4]; 2],
    from_strides: [[u32; 4]; 2],
    to_strides: [[u32; 4]; 2],
}

pub(super) fn lower(op: &Layout, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let output = &outputs[0];
    if let Layout::IndexSelect { dim } | Layout::IndexAdd { dim, .. } = *op {
        let (from, to) = (Rows::new(&inputs[0].spec.shape, dim), Rows::new(&output.spec.shape, dim));
        let n = output.spec.shape.len();
        let params = Params { n: word(n)?, inner: word(to.inner)?, from_len: word(from.len)?, to_len: word(to.len)?, ..Default::default() };
        let entry = if let Layout::IndexSelect { .. } = op { "index_select" } else { "index_add" };
        let kernel = Kernel::new("layout", entry).constant("WG", WG);
        return plan.push(kernel, &[&inputs[0], &inputs[1]], &[output], &params, plan.fold(n, WG)?);
    }
    if let Layout::Gather { dim } | Layout::ScatterAdd { dim, .. } = *op {
        let gather = matches!(op, Layout::Gather { .. });
        let n = output.spec.shape.len();
        // Of what is indexed: the larger tensor, and the tensor of the indices' shape.
        let (full, index) =
            if gather { (&inputs[0].spec.shape, &inputs[1].spec.shape) } else { (&output.spec.shape, &inputs[1].spec.shape) };
        let other = if gather { full } else { index };
        let mut own = other.strides();
        let inner = std::mem::replace(&mut own[dim], 0);
        let mut limits = index.to_vec();
        limits[dim] = output.spec.shape[dim];
        let params = Params {
            n: word(n)?,
            inner: word(inner)?,
            from_len: word(other[dim])?,
            // The dimension's place among the eight of the kernel.
            to_len: word(MAX_RANK - output.spec.shape.rank() + dim)?,
            sizes: eight(&words(output.spec.shape.iter().copied())?, 1),
            from_strides: eight(&words(own)?, 0),
            to_strides: eight(&words(limits)?, 1),
            ..Default::default()
        };
        let kernel = Kernel::new("layout", if gather { "gather" } else { "scatter_add" }).constant("WG", WG);
        return plan.push(kernel, &[&inputs[0], &inputs[1]], &[output], &params, plan.fold(n, WG)?);
    }
    if let Some(value) = StridedCopy::background(op) {
        elementwise::fill(output, value, plan)?;
    }
    let shapes: Vec<Shape> = inputs.iter().map(|o| o.spec.shape).collect();
    for (i, input) in inputs.iter().enumerate() {
        let Some(copy) = StridedCopy::new(op, &shapes, &output.spec.shape, i) else { continue };
        let n: usize = copy.sizes.iter().product();
        if n == 0 {
            continue;
        }
        let params = Params {
            n: word(n)?,
            from_offset: word(copy.from_offset)?,
            to_offset: word(copy.to_offset)?,
            sizes: eight(&words(copy.sizes.iter().copied())?, 1),
            from_strides: eight(&strides(&copy.from)?, 0),
            to_strides: eight(&strides(&copy.to)?, 0),
            ..Default::default()
        };
        plan.push(Kernel::new("layout", "copy").constant("WG", WG), &[input], &[output], &params, plan.fold(n, WG)?)?;
    }
    Ok(())
}
