//! Dispatches of pooling.

use super::{Kernel, Plan, WG, word};
use crate::backend::Operand;
use crate::error::Result;
use crate::op::{Pool, Pool2dOptions};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    planes: u32,
    h: u32,
    w: u32,
    oh: u32,
    ow: u32,
    kernel_h: u32,
    kernel_w: u32,
    stride_h: u32,
    stride_w: u32,
    pad_h: u32,
    pad_w: u32,
    dil_h: u32,
    dil_w: u32,
    count_include_pad: u32,
    divisor: u32,
    total: u32,
}

pub(super) fn lower(op: &Pool, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let (entry, window, backward) = match *op {
        Pool::Max(o) => ("max_pool2d", o, false),
        Pool::MaxBackward { options, .. } => ("max_pool2d_backward", options, true),
        Pool::Avg(o) => ("avg_pool2d", o.window, false),
        Pool::AvgBackward { options, .. } => ("avg_pool2d_backward", options.window, true),
        Pool::GlobalAvg => ("global_avg_pool2d", Pool2dOptions::new(1), false),
        Pool::GlobalAvgBackward { .. } => ("global_avg_pool2d_backward", Pool2dOptions::new(1), true),
    };
    let (count_include_pad, divisor) = match *op {
        Pool::Avg(o) | Pool::AvgBackward { options: o, .. } => (o.count_include_pad, o.divisor_override.unwrap_or(0)),
        _ => (false, 0),
    };
    let (image, windows) = if backward { (&outputs[0], &inputs[0]) } else { (&inputs[0], &outputs[0]) };
    let (x, y) = (image.spec.shape, windows.spec.shape);
    let total = outputs[0].spec.shape.len();
    let params = Params {
        planes: word(x[0] * x[1])?,
        h: word(x[2])?,
        w: word(x[3])?,
        oh: word(y[2])?,
        ow: word(y[3])?,
        kernel_h: word(window.kernel_size[0])?,
        kernel_w: word(window.kernel_size[1])?,
        stride_h: word(window.stride[0])?,
        stride_w: word(window.stride[1])?,
        pad_h: word(window.padding[0])?,
        pad_w: word(window.padding[1])?,
        dil_h: word(window.dilation[0])?,
        dil_w: word(window.dilation[1])?,
        count_include_pad: count_include_pad as u32,
        divisor: word(divisor)?,
        total: word(total)?,
    };
    let groups = if let Pool::GlobalAvg = op { plan.fold(total, 1)? } else { plan.fold(total, WG)? };
    let reads: Vec<&Operand> = inputs.iter().collect();
    let writes: Vec<&Operand> = outputs.iter().collect();
    let apart = (0..2).all(|axis| {
        window.dilation[axis] == 1 && window.stride[axis] >= window.kernel_size[axis] && x[2 + axis] + 2 * window.padding[axis] < 1 << 21
    });
    let kernel = Kernel::new("pool", entry).constant("WG", WG).constant("APART", (apart && entry == "max_pool2d_backward") as u32);
    plan.push(kernel, &reads, &writes, &params, groups)
}
