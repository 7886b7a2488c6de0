//! Dispatches of convolution.

use super::tile::Tile;
use super::{Kernel, Plan, Storage, Variant, elementwise, reduce, word};
use crate::backend::Operand;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Conv, Conv2dOptions, ReduceKind};
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
    first_h: u32,
    first_w: u32,
    size_h: u32,
    size_w: u32,
    origin_h: u32,
    origin_w: u32,
    tap_h: u32,
    tap_w: u32,
    tap_step_h: u32,
    tap_step_w: u32,
    taps_h: u32,
    taps_w: u32,
    reach_h: u32,
    reach_w: u32,
    pad: [u32; 2],
}

/// Along one axis of an input's gradient: the pixels `first + n stride`, `size` of them, that share their taps, which are `count` from `tap` on.
struct Phase {
    first: usize,
    size: usize,
    /// The output that the first tap of the first pixel sees, modulo 2^32.
    origin: u32,
    tap: usize,
    tap_step: usize,
    count: usize,
    /// Outputs between one tap and the next.
    reach: usize,
}

/// The phases of an axis of `size` pixels: pixel `h` got something of output `o` through tap `i` where `h + padding = o stride + i dilation`, so that
/// the pixels of one remainder of `h + padding` by the stride share their taps.
fn phases(options: &Conv2dOptions, axis: usize, size: usize, kernel: usize) -> Vec<Phase> {
    let (stride, dilation, padding) = (options.stride[axis], options.dilation[axis], options.padding[axis]);
    let of = |remainder: usize| {
        let output = padding.saturating_sub(remainder).div_ceil(stride);
        let first = stride * output + remainder - padding;
        let taps: Vec<usize> = (0..kernel).filter(|i| i * dilation % stride == remainder).collect();
        let tap = taps.first().copied().unwrap_or(0);
        let tap_step = taps.get(1).map_or(1, |next| next - tap);
        let back = (tap * dilation).saturating_sub(remainder) / stride;
        Phase {
            first,
            size: size.saturating_sub(first).div_ceil(stride),
            origin: (output as u32).wrapping_sub(back as u32),
            tap,
            tap_step,
            count: taps.len(),
            reach: tap_step * dilation / stride,
        }
    };
    (0..stride).map(of).filter(|phase| phase.size > 0).collect()
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
    let splits = if pass == 2 { terms.div_ceil(TERMS_A_SPLIT).clamp(1, 256) } else { 1 };
    if options.groups * splits > plan.limits.workgroups as usize {
        return Err(Error::Shape(format!("conv2d with {} groups needs more workgroups than the GPU takes", options.groups)));
    }
    if pass == 1 && plan.limits.lanes {
        return input_gradient(options, [x, weight, y], [first, second], &outputs[0], plan);
    }
    let tile = Tile::choose(rows, cols, plan.limits);
    let row_tiles = rows.div_ceil(tile.rows() as usize);
    let tiles = row_tiles * cols.div_ceil(tile.cols() as usize);
    let terms_a_split = terms.div_ceil(splits).max(1);
    let z = options.groups * splits;
    let params = Params {
        splits: word(splits)?,
        terms_a_split: word(terms_a_split)?,
        terms: word(terms)?,
        rows: word(rows)?,
        cols: word(cols)?,
        row_tiles: word(row_tiles)?,
        tiles: word(tiles)?,
        ..base(options, [x, weight, y])?
    };
    let bias = match op {
        Conv::Forward { bias: true, .. } => Some(&inputs[2]),
        _ => None,
    };
    let kernel = tile
        // Forward reads rows of weights, the weight gradient rows of dy: both contiguous along the sum.
        .apply(Kernel::new("conv", "conv2d"), [pass != 1, pass == 2])
        .constant("PASS", pass)
        .constant("BIAS", bias.is_some() as u32);
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

/// What all passes say of the sizes of x, weight and y.
fn base(options: Conv2dOptions, [x, weight, y]: [Shape; 3]) -> Result<Params> {
    Ok(Params {
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
        cg: word(weight[1])?,
        kg: word(weight[0] / options.groups)?,
        ..bytemuck::Zeroable::zeroed()
    })
}

/// The input's gradient on subgroups of eight lanes, one dispatch for each phase of the strides: no tap is asked for in vain.
fn input_gradient(options: Conv2dOptions, shapes: [Shape; 3], operands: [&Operand; 2], dx: &Operand, plan: &mut Plan) -> Result<()> {
    let [x, weight, _] = shapes;
    let columns = phases(&options, 1, x[3], weight[3]);
    for down in phases(&options, 0, x[2], weight[2]) {
        for right in &columns {
            let (rows, cols) = (weight[1], x[0] * down.size * right.size);
            let terms = weight[0] / options.groups * down.count * right.count;
            let tile = Tile::choose(rows, cols, plan.limits);
            let row_tiles = rows.div_ceil(tile.rows() as usize);
            let tiles = row_tiles * cols.div_ceil(tile.cols() as usize);
            let params = Params {
                splits: 1,
                terms_a_split: word(terms)?,
                terms: word(terms)?,
                rows: word(rows)?,
                cols: word(cols)?,
                row_tiles: word(row_tiles)?,
                tiles: word(tiles)?,
                first_h: word(down.first)?,
                first_w: word(right.first)?,
                size_h: word(down.size)?,
                size_w: word(right.size)?,
                origin_h: down.origin,
                origin_w: right.origin,
                tap_h: word(down.tap)?,
                tap_w: word(right.tap)?,
                tap_step_h: word(down.tap_step)?,
                tap_step_w: word(right.tap_step)?,
                taps_h: word(down.count)?,
                taps_w: word(right.count)?,
                reach_h: word(down.reach)?,
                reach_w: word(right.reach)?,
                ..base(options, shapes)?
            };
            let kernel = tile.apply(Kernel::new("conv", "conv2d"), [false, false]).constant("PASS", 1).constant("BIAS", 0);
            let [gx, gy, _] = plan.fold(tiles, 1)?;
            plan.push(kernel, &[operands[0], operands[1], operands[0]], &[dx], &params, [gx, gy, word(options.groups)?])?;
        }
    }
    Ok(())
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
