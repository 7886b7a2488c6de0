//! Convolution: the definition, and a fast path that lowers each image to a matrix product.

use super::matmul::Strides;
use super::{Args, outputs};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::{Conv, Conv2dOptions};
use crate::shape::Shape;
use rayon::prelude::*;

/// The sizes of a convolution: x `[n, c, h, w]`, weight `[k, c/groups, kh, kw]`, y `[n, k, oh, ow]`.
#[derive(Clone, Copy)]
struct Sizes {
    c: usize,
    h: usize,
    w: usize,
    k: usize,
    kh: usize,
    kw: usize,
    oh: usize,
    ow: usize,
    options: Conv2dOptions,
}

impl Sizes {
    fn new(x: &Shape, weight: &Shape, y: &Shape, options: Conv2dOptions) -> Self {
        Sizes { c: x[1], h: x[2], w: x[3], k: weight[0], kh: weight[2], kw: weight[3], oh: y[2], ow: y[3], options }
    }

    /// The input coordinate under tap `tap` of output coordinate `o`, unless it is padding.
    fn input(&self, axis: usize, o: usize, tap: usize) -> Option<usize> {
        let at = (o * self.options.stride[axis] + tap * self.options.dilation[axis]).checked_sub(self.options.padding[axis])?;
        (at < [self.h, self.w][axis]).then_some(at)
    }
}

pub(super) fn run<T: Real>(op: &Conv, args: &mut Args, fast: bool) -> Result<()> {
    let (specs, out) = (args.specs, args.out_specs[0].shape);
    let [y] = outputs::<T, 1>(&mut args.outs);
    let (a, b): (&[T], &[T]) = (bytemuck::cast_slice(args.ins[0]), bytemuck::cast_slice(args.ins[1]));
    match *op {
        Conv::Forward { options, bias } => {
            let sizes = Sizes::new(&specs[0].shape, &specs[1].shape, &out, options);
            let bias: Option<&[T]> = if bias { Some(bytemuck::cast_slice(args.ins[2])) } else { None };
            if fast {
                fast_forward(
                    &sizes,
                    bytemuck::cast_slice(a),
                    bytemuck::cast_slice(b),
                    bias.map(bytemuck::cast_slice),
                    bytemuck::cast_slice_mut(y),
                );
                return Ok(());
            }
            let mut sums = vec![0.0; y.len()];
            if let Some(bias) = bias {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = bias[i / (sizes.oh * sizes.ow) % sizes.k].to_f64();
                }
            }
            taps(&sizes, specs[0].shape[0], |x, w, y| sums[y] += a[x].to_f64() * b[w].to_f64());
            store(&sums, y);
        }
        Conv::BackwardInput { options, .. } => {
            let sizes = Sizes::new(&out, &specs[1].shape, &specs[0].shape, options);
            if fast {
                fast_backward_input(&sizes, bytemuck::cast_slice(a), bytemuck::cast_slice(b), bytemuck::cast_slice_mut(y));
                return Ok(());
            }
            let mut sums = vec![0.0; y.len()];
            taps(&sizes, out[0], |x, w, dy| sums[x] += a[dy].to_f64() * b[w].to_f64());
            store(&sums, y);
        }
        Conv::BackwardWeight { options, .. } => {
            let sizes = Sizes::new(&specs[0].shape, &out, &specs[1].shape, options);
            if fast {
                fast_backward_weight(&sizes, bytemuck::cast_slice(a), bytemuck::cast_slice(b), bytemuck::cast_slice_mut(y));
                return Ok(());
            }
            let mut sums = vec![0.0; y.len()];
            taps(&sizes, specs[0].shape[0], |x, w, dy| sums[w] += a[x].to_f64() * b[dy].to_f64());
            store(&sums, y);
        }
    }
    Ok(())
}

fn store<T: Real>(sums: &[f64], y: &mut [T]) {
    y.iter_mut().zip(sums).for_each(|(y, &sum)| *y = T::from_f64(sum));
}

/// Visits every multiplication of the convolution once, as the indices of x, weight and y. All three passes are sums over these.
fn taps(s: &Sizes, n: usize, mut visit: impl FnMut(usize, usize, usize)) {
    let (cg, kg) = (s.c / s.options.groups, s.k / s.options.groups);
    for n in 0..n {
        for k in 0..s.k {
            for (c, channel) in (k / kg * cg..(k / kg + 1) * cg).enumerate() {
                for oh in 0..s.oh {
                    for i in 0..s.kh {
                        let Some(h) = s.input(0, oh, i) else { continue };
                        for ow in 0..s.ow {
                            for j in 0..s.kw {
                                let Some(w) = s.input(1, ow, j) else { continue };
                                let x = ((n * s.c + channel) * s.h + h) * s.w + w;
                                let weight = ((k * cg + c) * s.kh + i) * s.kw + j;
                                visit(x, weight, ((n * s.k + k) * s.oh + oh) * s.ow + ow);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// One group of one image as a matrix `[cg kh kw, oh ow]`: row (c, i, j) holds what tap (i, j) of channel c sees.
fn im2col(s: &Sizes, x: &[f32], columns: &mut [f32]) {
    let (stride, pixels) = (s.options.stride[1], s.oh * s.ow);
    for (row, out) in columns.chunks_exact_mut(pixels).enumerate() {
        let (c, i, j) = (row / (s.kh * s.kw), row / s.kw % s.kh, row % s.kw);
        for (oh, out) in out.chunks_exact_mut(s.ow).enumerate() {
            let Some(h) = s.input(0, oh, i) else {
                out.fill(0.0);
                continue;
            };
            let line = &x[(c * s.h + h) * s.w..(c * s.h + h + 1) * s.w];
            let (first, last) = inside(s, j);
            out[..first].fill(0.0);
            out[last..].fill(0.0);
            if first < last {
                let start = first * stride + j * s.options.dilation[1] - s.options.padding[1];
                if stride == 1 {
                    out[first..last].copy_from_slice(&line[start..start + last - first]);
                } else {
                    out[first..last].iter_mut().zip(line[start..].iter().step_by(stride)).for_each(|(o, &v)| *o = v);
                }
            }
        }
    }
}

/// The output columns `first..last` whose tap `j` lies inside the input's width.
fn inside(s: &Sizes, j: usize) -> (usize, usize) {
    let (stride, tap, pad) = (s.options.stride[1], j * s.options.dilation[1], s.options.padding[1]);
    let first = pad.saturating_sub(tap).div_ceil(stride).min(s.ow);
    let last = (s.w + pad).saturating_sub(tap).div_ceil(stride).min(s.ow);
    (first, last.max(first))
}

/// The transpose of `im2col`: adds the columns back into the image.
fn col2im(s: &Sizes, columns: &[f32], x: &mut [f32]) {
    let (stride, pixels) = (s.options.stride[1], s.oh * s.ow);
    for (row, values) in columns.chunks_exact(pixels).enumerate() {
        let (c, i, j) = (row / (s.kh * s.kw), row / s.kw % s.kh, row % s.kw);
        let (first, last) = inside(s, j);
        if first == last {
            continue;
        }
        let start = first * stride + j * s.options.dilation[1] - s.options.padding[1];
        for (oh, values) in values.chunks_exact(s.ow).enumerate() {
            let Some(h) = s.input(0, oh, i) else { continue };
            let line = &mut x[(c * s.h + h) * s.w..(c * s.h + h + 1) * s.w];
            line[start..].iter_mut().step_by(stride).zip(&values[first..last]).for_each(|(x, v)| *x += v);
        }
    }
}

fn fast_forward(s: &Sizes, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let groups = s.options.groups;
    let (cg, kg, pixels) = (s.c / groups, s.k / groups, s.oh * s.ow);
    let rows = cg * s.kh * s.kw;
    let (image, result) = (s.c * s.h * s.w, s.k * pixels);
    if image == 0 || result == 0 {
        return y.fill(0.0);
    }
    x.par_chunks_exact(image).zip(y.par_chunks_exact_mut(result)).for_each_init(
        || vec![0.0f32; rows * pixels],
        |columns, (x, y)| {
            for g in 0..groups {
                im2col(s, &x[g * cg * s.h * s.w..(g + 1) * cg * s.h * s.w], columns);
                let y = &mut y[g * kg * pixels..(g + 1) * kg * pixels];
                if let Some(bias) = bias {
                    y.chunks_exact_mut(pixels).zip(&bias[g * kg..]).for_each(|(plane, &b)| plane.fill(b));
                }
                let w = &weight[g * kg * rows..(g + 1) * kg * rows];
                serial_gemm(
                    [kg, pixels, rows],
                    w,
                    Strides { row: rows, col: 1 },
                    columns,
                    Strides { row: pixels, col: 1 },
                    y,
                    bias.is_some(),
                );
            }
        },
    );
}

fn fast_backward_input(s: &Sizes, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    let groups = s.options.groups;
    let (cg, kg, pixels) = (s.c / groups, s.k / groups, s.oh * s.ow);
    let rows = cg * s.kh * s.kw;
    let (image, result) = (s.c * s.h * s.w, s.k * pixels);
    dx.fill(0.0);
    if image == 0 || result == 0 {
        return;
    }
    dy.par_chunks_exact(result).zip(dx.par_chunks_exact_mut(image)).for_each_init(
        || vec![0.0f32; rows * pixels],
        |columns, (dy, dx)| {
            for g in 0..groups {
                let w = &weight[g * kg * rows..(g + 1) * kg * rows];
                let dy = &dy[g * kg * pixels..(g + 1) * kg * pixels];
                serial_gemm([rows, pixels, kg], w, Strides { row: 1, col: rows }, dy, Strides { row: pixels, col: 1 }, columns, false);
                col2im(s, columns, &mut dx[g * cg * s.h * s.w..(g + 1) * cg * s.h * s.w]);
            }
        },
    );
}

/// Images are summed in blocks whose number depends on the batch alone, so that the result does not depend on the threads.
fn fast_backward_weight(s: &Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    const BLOCKS: usize = 16;
    let groups = s.options.groups;
    let (cg, kg, pixels) = (s.c / groups, s.k / groups, s.oh * s.ow);
    let rows = cg * s.kh * s.kw;
    let (image, result) = (s.c * s.h * s.w, s.k * pixels);
    dw.fill(0.0);
    if image == 0 || result == 0 || x.is_empty() {
        return;
    }
    let block = (x.len() / image).div_ceil(BLOCKS);
    let partial: Vec<Vec<f32>> = x
        .par_chunks(image * block)
        .zip(dy.par_chunks(result * block))
        .map(|(x, dy)| {
            let (mut sum, mut columns) = (vec![0.0f32; dw.len()], vec![0.0f32; rows * pixels]);
            for (x, dy) in x.chunks_exact(image).zip(dy.chunks_exact(result)) {
                for g in 0..groups {
                    im2col(s, &x[g * cg * s.h * s.w..(g + 1) * cg * s.h * s.w], &mut columns);
                    let dy = &dy[g * kg * pixels..(g + 1) * kg * pixels];
                    let sum = &mut sum[g * kg * rows..(g + 1) * kg * rows];
                    serial_gemm(
                        [kg, rows, pixels],
                        dy,
                        Strides { row: pixels, col: 1 },
                        &columns,
                        Strides { row: 1, col: pixels },
                        sum,
                        true,
                    );
                }
            }
            sum
        })
        .collect();
    for part in partial {
        dw.iter_mut().zip(part).for_each(|(dw, v)| *dw += v);
    }
}

/// A product on the calling thread: the images are what is spread over threads.
fn serial_gemm(sizes: [usize; 3], a: &[f32], sa: Strides, b: &[f32], sb: Strides, y: &mut [f32], add: bool) {
    super::matmul::sgemm_with(gemm::Parallelism::None, sizes, a, sa, b, sb, y, add);
}
