//! Pooling. Planes `[H, W]` are independent; each is done by plain loops, on several threads where there are many.

use super::fast::{for_each, vectorized};
use super::{Args, outputs};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::{AvgPool2dOptions, Pool, Pool2dOptions};

pub(super) fn run<T: Real>(op: &Pool, args: &mut Args, fast: bool) -> Result<()> {
    let (specs, out_specs) = (args.specs, args.out_specs);
    let size = |shape: &crate::shape::Shape| [shape[2], shape[3]];
    let (from, to) = (size(&specs[0].shape), size(&out_specs[0].shape));
    let a: &[T] = bytemuck::cast_slice(args.ins[0]);
    match op {
        Pool::Max(options) => {
            let [y, index] = &mut args.outs[..] else { return Ok(()) };
            let (y, index): (&mut [T], &mut [u32]) = (bytemuck::cast_slice_mut(y), bytemuck::cast_slice_mut(index));
            let planes = to[0] * to[1];
            if planes == 0 || a.is_empty() {
                return Ok(());
            }
            // Without dilation each window has a pixel that is no padding.
            let fast = fast && options.dilation == [1, 1];
            let one = |((x, y), index): ((&[T], &mut [T]), &mut [u32])| match fast {
                true => vectorized(
                    #[inline(always)]
                    || {
                        let (x, y) = (bytemuck::cast_slice(x), bytemuck::cast_slice_mut(y));
                        match options.stride[1] {
                            1 => max_rows::<1>(options, x, from, y, index, to),
                            2 => max_rows::<2>(options, x, from, y, index, to),
                            _ => max_rows::<0>(options, x, from, y, index, to),
                        }
                    },
                ),
                false => max_pool2d(options, x, from, y, index, to),
            };
            for_each(a.chunks_exact(from[0] * from[1]).zip(y.chunks_exact_mut(planes)).zip(index.chunks_exact_mut(planes)).collect(), one);
        }
        Pool::MaxBackward { .. } => {
            let index: &[u32] = bytemuck::cast_slice(args.ins[1]);
            let [dx] = outputs::<T, 1>(&mut args.outs);
            dx.fill(T::default());
            let (area, windows) = (to[0] * to[1], from[0] * from[1]);
            if area == 0 || windows == 0 {
                return Ok(());
            }
            let one = |(dx, (dy, index)): (&mut [T], (&[T], &[u32]))| {
                for (dy, &i) in dy.iter().zip(index) {
                    if let Some(dx) = dx.get_mut(i as usize) {
                        *dx = T::from_f64(dx.to_f64() + dy.to_f64());
                    }
                }
            };
            for_each(dx.chunks_exact_mut(area).zip(a.chunks_exact(windows).zip(index.chunks_exact(windows))).collect(), one);
        }
        Pool::Avg(options) => {
            let [y] = outputs::<T, 1>(&mut args.outs);
            planes(a, from, y, to, |x, y| {
                windows(options, from, to, |window, area, divisor| {
                    let sum: f64 = area.map(|i| x[i].to_f64()).sum();
                    y[window] = T::from_f64(sum / divisor);
                });
            });
        }
        Pool::AvgBackward { options, .. } => {
            let [dx] = outputs::<T, 1>(&mut args.outs);
            planes(a, from, dx, to, |dy, dx| {
                let mut sums = vec![0.0; dx.len()];
                windows(options, to, from, |window, area, divisor| {
                    area.for_each(|i| sums[i] += dy[window].to_f64() / divisor);
                });
                dx.iter_mut().zip(sums).for_each(|(dx, sum)| *dx = T::from_f64(sum));
            });
        }
        Pool::GlobalAvg => {
            let [y] = outputs::<T, 1>(&mut args.outs);
            global_avg_pool2d(a, from[0] * from[1], y);
        }
        Pool::GlobalAvgBackward { .. } => {
            let [dx] = outputs::<T, 1>(&mut args.outs);
            let area = to[0] * to[1];
            if area > 0 {
                dx.chunks_exact_mut(area).zip(a).for_each(|(plane, dy)| plane.fill(T::from_f64(dy.to_f64() / area as f64)));
            }
        }
    }
    Ok(())
}

/// `x` holds one plane of `area = H*W` values per (n, c); `y` one mean per plane. `T` is f32, or f64 for gradient checks.
fn global_avg_pool2d<T: Real>(x: &[T], area: usize, y: &mut [T]) {
    for (plane, mean) in x.chunks_exact(area).zip(y) {
        // f64, so that a disagreement with the GPU is the GPU's rounding and not ours.
        let sum: f64 = plane.iter().map(|&v| v.to_f64()).sum();
        *mean = T::from_f64(sum / area as f64);
    }
}

/// One plane of `x` into one plane of `y`; the maximum starts from the first value inside the window, so padding never wins.
fn max_pool2d<T: Real>(o: &Pool2dOptions, x: &[T], [h, w]: [usize; 2], y: &mut [T], index: &mut [u32], [_, ow]: [usize; 2]) {
    for (at, (y, index)) in y.iter_mut().zip(index).enumerate() {
        let (top, left) = (at / ow * o.stride[0], at % ow * o.stride[1]);
        let mut best: Option<(T, usize)> = None;
        for i in 0..o.kernel_size[0] {
            let Some(row) = (top + i * o.dilation[0]).checked_sub(o.padding[0]).filter(|&r| r < h) else { continue };
            for j in 0..o.kernel_size[1] {
                let Some(col) = (left + j * o.dilation[1]).checked_sub(o.padding[1]).filter(|&c| c < w) else { continue };
                let v = x[row * w + col];
                // A tie keeps the first; NaN wins, so that it is not hidden.
                if best.is_none_or(|(b, _)| v > b || v.to_f64().is_nan() && !b.to_f64().is_nan()) {
                    best = Some((v, row * w + col));
                }
            }
        }
        let (v, i) = best.unwrap_or_default();
        (*y, *index) = (v, i as u32);
    }
}

/// [`max_pool2d`] a row of windows and one of their pixels at a time. `S` is the stride along a row, if it is a constant.
#[inline(always)]
fn max_rows<const S: usize>(o: &Pool2dOptions, x: &[f32], [h, w]: [usize; 2], y: &mut [f32], index: &mut [u32], [_, ow]: [usize; 2]) {
    let stride = if S > 0 { S } else { o.stride[1] };
    for (r, (y, index)) in y.chunks_exact_mut(ow).zip(index.chunks_exact_mut(ow)).enumerate() {
        let top = r * o.stride[0];
        let rows = top.saturating_sub(o.padding[0])..(top + o.kernel_size[0]).saturating_sub(o.padding[0]).min(h);
        // A maximum below which nothing is begins as the window's first pixel.
        y.fill(f32::NEG_INFINITY);
        index.iter_mut().enumerate().for_each(|(c, index)| *index = (rows.start * w + (c * stride).saturating_sub(o.padding[1])) as u32);
        for row in rows {
            for j in 0..o.kernel_size[1] {
                // The windows whose pixel j is inside the image: 0 <= c stride + j - padding < w.
                let first = o.padding[1].saturating_sub(j).div_ceil(stride).min(ow);
                let last = (w + o.padding[1]).saturating_sub(j).div_ceil(stride).min(ow).max(first);
                let start = (first * stride + j).saturating_sub(o.padding[1]);
                let (line, at) = (x[row * w..(row + 1) * w].get(start..).unwrap_or_default(), row * w + start);
                let (y, index) = (&mut y[first..last], &mut index[first..last]);
                let best = |y: &mut f32, index: &mut u32, v: f32, at: usize| {
                    // A tie keeps the first; NaN wins, so that it is not hidden.
                    let wins = v > *y || (v.is_nan() && !y.is_nan());
                    *y = if wins { v } else { *y };
                    *index = if wins { at as u32 } else { *index };
                };
                // Whole strides vectorise; of the last one there may be less.
                let (strides, rest) = if S > 0 { line.as_chunks::<S>() } else { (&[][..], line) };
                let whole = strides.len().min(y.len());
                let (y_rest, index_rest) = (&mut y[whole..], &mut index[whole..]);
                for (c, v) in rest.iter().step_by(stride).take(y_rest.len()).enumerate() {
                    best(&mut y_rest[c], &mut index_rest[c], *v, at + (whole + c) * stride);
                }
                for (c, ((y, index), v)) in y[..whole].iter_mut().zip(&mut index[..whole]).zip(&strides[..whole]).enumerate() {
                    best(y, index, v[0], at + c * S);
                }
            }
        }
    }
}

fn planes<T: Real>(x: &[T], from: [usize; 2], y: &mut [T], to: [usize; 2], plane: impl Fn(&[T], &mut [T]) + Sync) {
    let (a, b) = (from[0] * from[1], to[0] * to[1]);
    if a == 0 || b == 0 {
        return;
    }
    for_each(x.chunks_exact(a).zip(y.chunks_exact_mut(b)).collect(), |(x, y): (&[T], &mut [T])| plane(x, y));
}

/// Visits the windows of average pooling over `[h, w]`: output index, input indices, divisor.
fn windows(
    o: &AvgPool2dOptions,
    [h, w]: [usize; 2],
    [oh, ow]: [usize; 2],
    mut visit: impl FnMut(usize, &mut dyn Iterator<Item = usize>, f64),
) {
    for i in 0..oh {
        let (top, bottom, rows) = o.extent(0, i, h);
        for j in 0..ow {
            let (left, right, cols) = o.extent(1, j, w);
            let divisor = o.divisor_override.unwrap_or(rows * cols) as f64;
            visit(i * ow + j, &mut (top..bottom).flat_map(|r| (left..right).map(move |c| r * w + c)), divisor);
        }
    }
}
