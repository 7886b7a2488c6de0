//! Dispatches of matrix products.

use super::tile::{Layout, Tile};
use super::{Kernel, Plan, eight, strides, word, words};
use crate::backend::Operand;
use crate::error::Result;
use crate::op::Matmul;
use crate::shape::{Shape, collapse};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    m: u32,
    n: u32,
    k: u32,
    row_tiles: u32,
    tiles: u32,
    a_row: u32,
    a_col: u32,
    b_row: u32,
    b_col: u32,
    first_batch: u32,
    pad: [u32; 2],
    sizes: [[u32; 4]; 2],
    stride_a: [[u32; 4]; 2],
    stride_b: [[u32; 4]; 2],
}

pub(super) fn lower(op: &Matmul, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let (a, b) = (inputs[0].spec.shape, inputs[1].spec.shape);
    let sizes = op.sizes(&a, &b)?;
    let (m, n, k) = (sizes.m, sizes.n, sizes.k);
    let lead = |s: &Shape, matrix: usize| -> Result<Vec<i64>> {
        let lead = Shape::new(&s[..<[usize]>::len(s) - 2])?;
        Ok(lead.broadcast_strides(&sizes.batch).iter().map(|&v| (v * matrix) as i64).collect())
    };
    let (dims, lists) = collapse(&sizes.batch, &[&lead(&a, m * k)?, &lead(&b, k * n)?]);
    let tile = Tile::choose(m, n, inputs[0].spec.dtype, plan.limits);
    let lines = [if op.transpose_a { m } else { k }, if op.transpose_b { k } else { n }];
    let layout = Layout { along_k: [!op.transpose_a, op.transpose_b], vectors: lines.map(|line| line.is_multiple_of(4) && k > 0) };
    let row_tiles = m.div_ceil(tile.rows() as usize);
    let tiles = row_tiles * n.div_ceil(tile.cols() as usize);
    let [x, y, _] = plan.fold(tiles, 1)?;
    let kernel = tile.apply(Kernel::new("matmul", "matmul"), layout).constant("BIAS", op.bias as u32).constant("RELU", op.relu as u32);
    let bias = if op.bias { &inputs[2] } else { &inputs[0] };
    let batch = sizes.batch.len();
    // The batch is the third dimension of the dispatch: as many dispatches as that takes.
    for first in (0..batch).step_by(plan.limits.workgroups as usize) {
        let params = Params {
            m: word(m)?,
            n: word(n)?,
            k: word(k)?,
            row_tiles: word(row_tiles)?,
            tiles: word(tiles)?,
            a_row: word(if op.transpose_a { 1 } else { k })?,
            a_col: word(if op.transpose_a { m } else { 1 })?,
            b_row: word(if op.transpose_b { 1 } else { n })?,
            b_col: word(if op.transpose_b { k } else { 1 })?,
            first_batch: word(first)?,
            pad: [0; 2],
            sizes: eight(&words(dims.iter().copied())?, 1),
            stride_a: eight(&strides(&lists[0])?, 0),
            stride_b: eight(&strides(&lists[1])?, 0),
        };
        let z = (batch - first).min(plan.limits.workgroups as usize);
        plan.push(kernel.clone(), &[&inputs[0], &inputs[1], bias], &[&outputs[0]], &params, [x, y, word(z)?])?;
    }
    Ok(())
}
