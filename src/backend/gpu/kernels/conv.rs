//! Dispatches of convolution.

use super::tile::{Layout, Tile};
use super::{Kernel, Limits, Plan, Storage, Variant, WG, elementwise, matmul, reduce, word};
use crate::backend::{Operand, Product};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::conv::Phase;
use crate::op::{Clip, Conv, Conv2dOptions, Matmul, ReduceKind};
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
    first_tile: u32,
    pad: [u32; 1],
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
    let sizes = sizes(options, [x, weight, y])?;
    if minimal(op, [x, weight, y], inputs, plan.limits) {
        return tiles(op, [x, weight, y], sizes, inputs, &outputs[0], plan);
    }
    if depthwise(options, [x, weight], first.spec.dtype, plan.limits) {
        return direct(op, pass, sizes, [first, second], inputs, &outputs[0], plan);
    }
    let (cg, kg, taps) = (weight[1], weight[0] / options.groups, weight[2] * weight[3]);
    let (rows, shares) = match pass {
        0 => (kg, vec![Share { cols: x[0] * y[2] * y[3], terms: cg * taps, params: sizes }]),
        1 => (cg, input_shares(options, [x, weight], sizes)?),
        _ => (kg, vec![Share { cols: cg * taps, terms: x[0] * y[2] * y[3], params: sizes }]),
    };
    if pass == 1 && shares.iter().map(|share| share.cols).sum::<usize>() < x[0] * x[2] * x[3] {
        // Pixels that no tap reaches.
        elementwise::fill(&outputs[0], 0.0, plan)?;
    }
    let (bias, clip) = end(op, inputs);
    for Share { cols, terms, params } in shares {
        let splits = if pass == 2 { terms.div_ceil(TERMS_A_SPLIT).clamp(1, 256) } else { 1 };
        let z = options.groups * splits;
        if z > plan.limits.workgroups as usize {
            return Err(Error::Shape(format!("conv2d with {} groups needs more workgroups than the GPU takes", options.groups)));
        }
        let tile = Tile::choose(rows, cols, first.spec.dtype, plan.limits);
        let row_tiles = rows.div_ceil(tile.rows() as usize);
        let tiles = row_tiles * cols.div_ceil(tile.cols() as usize);
        let params = Params {
            splits: word(splits)?,
            terms_a_split: word(terms.div_ceil(splits).next_multiple_of(4))?,
            terms: word(terms)?,
            rows: word(rows)?,
            cols: word(cols)?,
            row_tiles: word(row_tiles)?,
            tiles: word(tiles)?,
            ..params
        };
        // Rows of the left matrix; in the weight gradient, of one image.
        let line = if pass == 2 { y[2] * y[3] } else { terms };
        // A kernel of one pixel sees neighbouring pixels for neighbouring results.
        let plain = taps == 1 && options.stride == [1, 1] && options.padding == [0, 0] && (y[2] * y[3]).is_multiple_of(4);
        let kernel = tile
            // Forward reads rows of weights, the weight gradient rows of dy: both contiguous along the sum.
            .apply(
                Kernel::new("conv", "conv2d"),
                Layout { along_k: [pass != 1, pass == 2], vectors: [terms > 0 && line.is_multiple_of(4), terms > 0 && plain] },
            )
            .constant("PASS", pass);
        let kernel = ended(kernel, bias, clip);
        let [gx, gy, _] = plan.fold(tiles, 1)?;
        let groups = [gx, gy, word(z)?];
        if pass == 2 {
            weight_gradient(kernel, splits, [first, second], &outputs[0], &params, groups, plan)?;
        } else {
            plan.push(kernel, &[first, second, bias.unwrap_or(first)], &[&outputs[0]], &params, groups)?;
        }
    }
    Ok(())
}

/// Whether each channel is convolved with its own kernel, and the direct kernels for that pay: a staged tile of a product has 16 rows and more for its one row,
/// while the lanes make tiles of one.
fn depthwise(options: Conv2dOptions, [x, weight]: [Shape; 2], dtype: DType, limits: &Limits) -> bool {
    // Places are divided by reciprocals, see `divided` of shaders/shared/index.wgsl.
    let small = [x[2] + 2 * options.padding[0], x[3] + 2 * options.padding[1]].iter().all(|&size| size < 1 << 21);
    weight[1] == 1 && weight[0] == options.groups && small && limits.kernels.product_of(dtype) != Product::Lanes
}

/// A pass by the direct kernels.
fn direct(
    op: &Conv,
    pass: u32,
    sizes: Params,
    [first, second]: [&Operand; 2],
    inputs: &[Operand],
    result: &Operand,
    plan: &mut Plan,
) -> Result<()> {
    let (bias, clip) = end(op, inputs);
    let (entry, each) = if pass == 2 { ("depthwise_weight", 1) } else { ("depthwise", WG) };
    let kernel = ended(Kernel::new("conv", entry).constant("PASS", pass), bias, clip);
    let results = result.spec.shape.len();
    let params = Params { rows: word(results)?, ..sizes };
    plan.push(kernel, &[first, second, bias.unwrap_or(first)], &[result], &params, plan.fold(results, each)?)
}

/// What a pass adds to its sums, and what becomes of them then.
fn end<'a>(op: &Conv, inputs: &'a [Operand]) -> (Option<&'a Operand>, Clip) {
    match *op {
        Conv::Forward { bias, clip, .. } => (bias.then(|| &inputs[2]), clip),
        _ => (None, Clip::Nothing),
    }
}

/// A kernel that ends so.
fn ended(kernel: Kernel, bias: Option<&Operand>, clip: Clip) -> Kernel {
    let ceiling = if clip == Clip::Relu6 { 6 } else { 0 };
    kernel.constant("BIAS", bias.is_some() as u32).constant("RELU", (clip != Clip::Nothing) as u32).constant("CEILING", ceiling)
}

/// What one dispatch makes of a pass: columns of the result, each a sum of so many terms.
struct Share {
    cols: usize,
    terms: usize,
    params: Params,
}

/// The sizes of x, weight and y, and the attributes.
fn sizes(options: Conv2dOptions, [x, weight, y]: [Shape; 3]) -> Result<Params> {
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

/// The input's gradient, phase by phase of the strides, so that no tap is asked for in vain.
fn input_shares(options: Conv2dOptions, [x, weight]: [Shape; 2], sizes: Params) -> Result<Vec<Share>> {
    let columns = options.phases(1, x[3], weight[3]);
    let mut shares = Vec::new();
    for down in options.phases(0, x[2], weight[2]) {
        for right in &columns {
            let [(tap_h, tap_step_h, origin_h, reach_h), (tap_w, tap_step_w, origin_w, reach_w)] = [walk(&down)?, walk(right)?];
            let params = Params {
                first_h: word(down.first)?,
                first_w: word(right.first)?,
                size_h: word(down.size)?,
                size_w: word(right.size)?,
                origin_h,
                origin_w,
                tap_h,
                tap_w,
                tap_step_h,
                tap_step_w,
                taps_h: word(down.taps.len())?,
                taps_w: word(right.taps.len())?,
                reach_h,
                reach_w,
                ..sizes
            };
            let terms = weight[0] / options.groups * down.taps.len() * right.taps.len();
            shares.push(Share { cols: x[0] * down.size * right.size, terms, params });
        }
    }
    Ok(shares)
}

/// The taps of a phase as the kernel counts them: the first, the step, the output under the first of pixel 0 (modulo 2^32), outputs back a step.
fn walk(phase: &Phase) -> Result<(u32, u32, u32, u32)> {
    let (tap, back) = phase.taps[0];
    let (next, next_back) = phase.taps.get(1).copied().unwrap_or((tap, back));
    Ok((word(tap)?, word(next - tap)?, word(phase.output)?.wrapping_sub(word(back)?), word(next_back - back)?))
}

/// A weight gradient whose terms are summed in `splits` parts, all in f32 until the last sum.
fn weight_gradient(
    kernel: Kernel,
    splits: usize,
    [first, second]: [&Operand; 2],
    dw: &Operand,
    params: &Params,
    groups: [u32; 3],
    plan: &mut Plan,
) -> Result<()> {
    if dw.spec.dtype == DType::F16 {
        let sum = plan.scratch(Spec::new(dw.spec.shape, DType::F32))?;
        let kernel = Kernel { variant: Variant { storage: Storage::F16ToF32, ..kernel.variant }, ..kernel };
        weight_gradient(kernel, splits, [first, second], &sum, params, groups, plan)?;
        return elementwise::cast(&sum, dw, plan);
    }
    if splits == 1 {
        return plan.push(kernel, &[first, second, first], &[dw], params, groups);
    }
    let partial = plan.scratch(Spec::new(Shape::new(&[splits, dw.spec.shape.len()])?, DType::F32))?;
    plan.push(kernel, &[first, second, first], &[&partial], params, groups)?;
    reduce::over(ReduceKind::Sum, &partial, &[0], dw, plan)
}

/// Numbers of transformed tiles, of both operands or of operand and result, that lie in memory at a time: 16 MiB, what large GPUs have for a cache.
const TILE_NUMBERS: usize = 4 << 20;
/// Tiles that one sum of the weight's gradient runs over, at most. It may have four times as many numbers of tiles in memory, and as many again of sums: it
/// is the better the fewer sums there are.
const TILES_A_SPLIT: usize = 1024;
const GRADIENT_NUMBERS: usize = 4 * TILE_NUMBERS;
/// Places of a tile.
const PLACES: usize = 16;
/// Invocations of a workgroup in the entries for tiles.
const TILE_WG: u32 = 64;

/// Whether the convolution goes tile by tile with minimal filtering, F(2x2, 3x3), as on the CPU.
fn minimal(op: &Conv, [x, weight, y]: [Shape; 3], inputs: &[Operand], limits: &Limits) -> bool {
    let (Conv::Forward { options: o, .. } | Conv::BackwardInput { options: o, .. } | Conv::BackwardWeight { options: o, .. }) = op;
    let (c, k) = (x[1], weight[0]);
    let plain = [weight[2], weight[3]] == [3, 3] && o.stride == [1, 1] && o.dilation == [1, 1] && o.groups == 1;
    // The input's gradient pads by 2 - padding.
    let fits = o.padding.iter().all(|&p| p <= 2) && y[2].min(y[3]) > 2;
    let weights = matches!(op, Conv::BackwardWeight { .. });
    let pays = limits.kernels.filters(c.min(k), weights) && inputs[0].spec.dtype == DType::F32;
    // What lies between the transforms is bound as a whole; the sums of a block of splits where a binding may begin.
    let kernels = PLACES * c * k;
    let memory = match op {
        Conv::BackwardWeight { .. } => {
            let (splits, each) = splits(x[0] * y[2].div_ceil(2) * y[3].div_ceil(2), c + k);
            let numbers = (splits * kernels).max(PLACES * each * c.max(k));
            (4 * kernels).is_multiple_of(limits.alignment)
                && splits * kernels <= GRADIENT_NUMBERS
                && 4 * numbers as u64 <= limits.binding_bytes
        }
        _ => 4 * kernels as u64 <= limits.binding_bytes,
    };
    plain && fits && pays && memory
}

/// Sums of the weight's gradient that run side by side, and tiles of each.
fn splits(tiles: usize, channels: usize) -> (usize, usize) {
    let each = TILES_A_SPLIT.min(GRADIENT_NUMBERS / (PLACES * channels)).min(tiles).max(1);
    (tiles.div_ceil(each), each)
}

/// A pass as transforms and products, block by block of tiles.
fn tiles(op: &Conv, [x, weight, y]: [Shape; 3], sizes: Params, inputs: &[Operand], out: &Operand, plan: &mut Plan) -> Result<()> {
    let (c, k) = (x[1], weight[0]);
    let f32s = |dims: &[usize]| Ok::<_, Error>(Spec::new(Shape::new(dims)?, DType::F32));
    let part = |operand: &Operand, first: usize, dims: &[usize]| {
        Ok::<_, Error>(Operand { buffer: operand.buffer.clone(), offset: operand.offset + first, spec: f32s(dims)? })
    };
    let tile = |entry: &'static str| Kernel::new("conv", entry);
    // Tiles cover the results of the pass: those of the input's gradient are pixels of the input.
    let results = if let Conv::BackwardInput { .. } = op { [x[2], x[3]] } else { [y[2], y[3]] };
    let grid = results.map(|size| size.div_ceil(2));
    let total = x[0] * grid[0] * grid[1];
    let most = (TILE_NUMBERS / (PLACES * (c + k))).max(1);
    let sizes = Params { size_h: word(grid[0])?, size_w: word(grid[1])?, splits: 1, ..sizes };
    if let Conv::BackwardWeight { .. } = op {
        let (splits, each) = splits(total, c + k);
        let at_once = (most / each).max(1);
        let sums = plan.scratch(f32s(&[splits * PLACES, k, c])?)?;
        let block = at_once.min(splits) * PLACES * each;
        let (v, d) = (plan.scratch(f32s(&[block * c])?)?, plan.scratch(f32s(&[block * k])?)?);
        for first in (0..splits).step_by(at_once) {
            let count = at_once.min(splits - first);
            let params = Params { splits: word(count)?, tiles: word(each)?, first_tile: word(first * each)?, ..sizes };
            let dy_params = Params { c: params.k, h: params.oh, w: params.ow, ..params };
            let [v, d] = [(&v, c), (&d, k)].map(|(operand, channels)| part(operand, 0, &[count * PLACES, channels, each]));
            let (v, d) = (v?, d?);
            plan.push(tile("input_tiles"), &[&inputs[0]], &[&v], &params, plan.fold(count * c * each, TILE_WG)?)?;
            plan.push(tile("gradient_tiles"), &[&inputs[1]], &[&d], &dy_params, plan.fold(count * k * each, TILE_WG)?)?;
            let into = part(&sums, first * PLACES * k * c, &[count * PLACES, k, c])?;
            matmul::lower(&Matmul { transpose_b: true, ..Default::default() }, &[d, v], &[into], plan)?;
        }
        let params = Params { splits: word(splits)?, ..sizes };
        return plan.push(tile("kernel_gradients"), &[&sums], &[out], &params, plan.fold(k * c, TILE_WG)?);
    }
    // Here c, h and w are of what is read, k, oh and ow of what is made.
    let (pass, [from, to], sizes) = match op {
        Conv::BackwardInput { .. } => {
            let pad = |padding: u32| 2 - padding;
            let turned = Params {
                c: sizes.k,
                h: sizes.oh,
                w: sizes.ow,
                k: sizes.c,
                oh: sizes.h,
                ow: sizes.w,
                pad_h: pad(sizes.pad_h),
                pad_w: pad(sizes.pad_w),
                ..sizes
            };
            (1, [k, c], turned)
        }
        _ => (0, [c, k], sizes),
    };
    let (bias, clip) = end(op, inputs);
    let u = plan.scratch(f32s(&[PLACES, to, from])?)?;
    plan.push(tile("kernel_tiles").constant("PASS", pass), &[&inputs[1]], &[&u], &sizes, plan.fold(to * from, TILE_WG)?)?;
    let block = most.min(total);
    let (v, m) = (plan.scratch(f32s(&[PLACES * from * block])?)?, plan.scratch(f32s(&[PLACES * to * block])?)?);
    for first in (0..total).step_by(block) {
        let count = block.min(total - first);
        let params = Params { tiles: word(count)?, first_tile: word(first)?, ..sizes };
        let (v, m) = (part(&v, 0, &[PLACES, from, count])?, part(&m, 0, &[PLACES, to, count])?);
        plan.push(tile("input_tiles"), &[&inputs[0]], &[&v], &params, plan.fold(from * count, TILE_WG)?)?;
        let product = Matmul::default();
        matmul::lower(&product, &[u.clone(), v], std::slice::from_ref(&m), plan)?;
        let kernel = ended(tile("output_tiles"), bias, clip);
        plan.push(kernel, &[&m, bias.unwrap_or(&m)], &[out], &params, plan.fold(to * count, TILE_WG)?)?;
    }
    Ok(())
}
