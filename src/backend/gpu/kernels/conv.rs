//! Dispatches of convolution.

use super::tile::Tile;
use super::{Kernel, Plan, Storage, Variant, elementwise, reduce, word};
use crate::backend::Operand;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Conv, ReduceKind};
use crate::shape::{Shape, Spec};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    n: u32,
    c: u32,
    h: u32,
    w: u32,
    k: u32,
    kh: u32,
    kw: u32,
    oh: u32,
    ow: u32,
    stride_h: u32,
    stride_w: u32,
    pad_h: u32,
    pad_w: u32,
    dil_h: u32,
    dil_w: u32,
    cg: u32,
    kg: u32,
    splits: u32,
    terms_a_split: u32,
    terms: u32,
    rows: u32,
    cols: u32,
    row_tiles: u32,
    tiles: u32,
}

/// Terms of a weight gradient that one workgroup sums: long enough to pay for a partial result, short enough to keep many busy.
const TERMS_A_SPLIT: usize = 1024;

pub(super) fn lower(op: &Conv, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let shape = |o: &Operand| o.spec.shape;
    // `first` and `second` are the operands in the order of the shader's formulas.
    let (pass, options, x, weight, y, first, second) = match *op {
        Conv::Forward { options, .. } => (0, options, shape(&inputs[0]), shape(&inputs[1]), shape(&outputs[0]), &inputs[0], &inputs[1]),
        Conv::BackwardInput { options, .. } => {
            (1, options, shape(&outputs[0]), shape(&inputs[1]), shape(&inputs[0]), &inputs[0], &inputs[1])
        }
        Conv::BackwardWeight { options, .. } => {
            (2, options, shape(&inputs[0]), shape(&outputs[0]), shape(&inputs[1]), &inputs[0], &inputs[1])
        }
    };
    let (cg, kg, taps) = (weight[1], weight[0] / options.groups, weight[2] * weight[3]);
    let (rows, cols, terms) = match pass {
        0 => (kg, x[0] * y[2] * y[3], cg * taps),
        1 => (cg, x[0] * x[2] * x[3], kg * taps),
        _ => (kg, cg * taps, x[0] * y[2] * y[3]),
    };
    let tile = Tile::choose(rows, cols, plan.limits);
    let row_tiles = rows.div_ceil(tile.rows() as usize);
    let tiles = row_tiles * cols.div_ceil(tile.cols() as usize);
    let splits = if pass == 2 { terms.div_ceil(TERMS_A_SPLIT).clamp(1, 256) } else { 1 };
    let terms_a_split = terms.div_ceil(splits).max(1);
    let z = options.groups * splits;
    if z > plan.limits.workgroups as usize {
        return Err(Error::Shape(format!("conv2d with {} groups needs more workgroups than the GPU takes", options.groups)));
    }
    let params = Params {
        n: word(x[0])?,
        c: word(x[1])?,
        h: word(x[2])?,
        w: word(x[3])?,
        k: word(weight[0])?,
        kh: word(weight[2])?,
        kw: word(weight[3])?,
        oh: word(y[2])?,
        ow: word(y[3])?,
        stride_h: word(options.stride[0])?,
        stride_w: word(options.stride[1])?,
        pad_h: word(options.padding[0])?,
        pad_w: word(options.padding[1])?,
        dil_h: word(options.dilation[0])?,
        dil_w: word(options.dilation[1])?,
        cg: word(cg)?,
        kg: word(kg)?,
        splits: word(splits)?,
        terms_a_split: word(terms_a_split)?,
        terms: word(terms)?,
        rows: word(rows)?,
        cols: word(cols)?,
        row_tiles: word(row_tiles)?,
        tiles: word(tiles)?,
    };
    let bias = match op {
        Conv::Forward { bias: true, .. } => Some(&inputs[2]),
        _ => None,
    };
    let kernel = tile
        // Forward reads rows of weights, the weight gradient rows of dy: both contiguous along the sum.
        .apply(Kernel::new("conv", "conv2d"), [pass != 1, pass == 2])
        .constant("PASS", pass)
        .constant("BIAS", bias.is_some() as u32)
        .constant("STRIDED", (pass == 1 && options.stride != [1, 1]) as u32);
    let [gx, gy, _] = plan.fold(tiles, 1)?;
    let groups = [gx, gy, word(z)?];
    let dw = &outputs[0];
    if pass == 2 && dw.spec.dtype == DType::F16 {
        // Sums of f16 products stay in f32 until the last one.
        let sum = plan.scratch(Spec::new(dw.spec.shape, DType::F32))?;
        let kernel = Kernel { variant: Variant { storage: Storage::F16ToF32, ..kernel.variant }, ..kernel };
        split_sum(kernel, splits, [first, second], &sum, &params, groups, plan)?;
        return elementwise::cast(&sum, dw, plan);
    }
    if splits == 1 {
        return plan.push(kernel, &[first, second, bias.unwrap_or(first)], &[&outputs[0]], &params, groups);
    }
    split_sum(kernel, splits, [first, second], dw, &params, groups, plan)
}

/// A weight gradient (f32) whose terms are summed in `splits` parts.
fn split_sum(
    kernel: Kernel,
    splits: usize,
    [first, second]: [&Operand; 2],
    dw: &Operand,
    params: &Params,
    groups: [u32; 3],
    plan: &mut Plan,
) -> Result<()> {
    if splits == 1 {
        return plan.push(kernel, &[first, second, first], &[dw], params, groups);
    }
    let partial = plan.scratch(Spec::new(Shape::new(&[splits, dw.spec.shape.len()])?, DType::F32))?;
    plan.push(kernel, &[first, second, first], &[&partial], params, groups)?;
    reduce::over(ReduceKind::Sum, &partial, &[0], dw, plan)
}
