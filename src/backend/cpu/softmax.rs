//! Log-softmax and cross-entropy, row by row in f64. Rows of neighbouring elements have a fast path, with exponentials in f32.

use super::fast::{GRAIN, exp, for_each, sum, vectorized};
use super::{Args, outputs};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::{CrossEntropyOptions, Rows, Softmax};

pub(super) fn run<T: Real>(op: &Softmax, args: &mut Args, fast: bool) -> Result<()> {
    let shape = args.specs[0].shape;
    if let Softmax::LogSoftmax { dim } | Softmax::LogSoftmaxBackward { dim } = op {
        let rows = Rows::new(&shape, *dim);
        if fast && rows.inner == 1 && rows.len > 0 {
            let x: &[f32] = bytemuck::cast_slice(args.ins[0]);
            let dy: Option<&[f32]> = args.ins.get(1).map(|dy| bytemuck::cast_slice(dy));
            let [y] = outputs::<f32, 1>(&mut args.outs);
            contiguous(rows.len, x, dy, y);
            return Ok(());
        }
    }
    let a: &[T] = bytemuck::cast_slice(args.ins[0]);
    match op {
        Softmax::LogSoftmax { dim } => {
            let rows = Rows::new(&shape, *dim);
            let [y] = outputs::<T, 1>(&mut args.outs);
            each_row(rows, |at| {
                let lse = log_sum_exp(rows.len, |c| a[at(c)].to_f64());
                (0..rows.len).for_each(|c| y[at(c)] = T::from_f64(a[at(c)].to_f64() - lse));
            });
        }
        Softmax::LogSoftmaxBackward { dim } => {
            let rows = Rows::new(&shape, *dim);
            let dy: &[T] = bytemuck::cast_slice(args.ins[1]);
            let [dx] = outputs::<T, 1>(&mut args.outs);
            each_row(rows, |at| {
                let sum: f64 = (0..rows.len).map(|c| dy[at(c)].to_f64()).sum();
                for c in 0..rows.len {
                    dx[at(c)] = T::from_f64(dy[at(c)].to_f64() - a[at(c)].to_f64().exp() * sum);
                }
            });
        }
        Softmax::CrossEntropy(options) | Softmax::CrossEntropyBackward(options) => {
            let rows = Rows::new(&shape, 1);
            let target: &[i32] = bytemuck::cast_slice(args.ins[1]);
            let weight: Option<&[T]> = if options.weight { Some(bytemuck::cast_slice(args.ins[2])) } else { None };
            let class_weight = |c: usize| weight.map_or(1.0, |w| w[c].to_f64());
            let mut row = 0;
            if let Softmax::CrossEntropy(_) = op {
                let [loss, row_weight] = outputs::<T, 2>(&mut args.outs);
                each_row(rows, |at| {
                    let (l, w) = forward(options, rows.len, target[row], |c| a[at(c)].to_f64(), class_weight);
                    (loss[row], row_weight[row]) = (T::from_f64(l), T::from_f64(w));
                    row += 1;
                });
            } else {
                let dloss: &[T] = bytemuck::cast_slice(args.ins[args.ins.len() - 1]);
                let [dx] = outputs::<T, 1>(&mut args.outs);
                each_row(rows, |at| {
                    let x = |c: usize| a[at(c)].to_f64();
                    let lse = log_sum_exp(rows.len, x);
                    for c in 0..rows.len {
                        let g = gradient(options, rows.len, target[row], c, (x(c) - lse).exp(), class_weight);
                        dx[at(c)] = T::from_f64(g * dloss[row].to_f64());
                    }
                    row += 1;
                });
            }
        }
    }
    Ok(())
}

/// Log-softmax of rows of `len` neighbours; given `dy`, its gradient, and `x` is the result.
fn contiguous(len: usize, x: &[f32], dy: Option<&[f32]>, y: &mut [f32]) {
    let rows = (GRAIN / 4).div_ceil(len);
    let part = |(i, y): (usize, &mut [f32])| {
        let at = i * rows * len;
        for (r, y) in y.chunks_exact_mut(len).enumerate() {
            let row = at + r * len..at + (r + 1) * len;
            match dy {
                None => vectorized(|| forward_row(&x[row], y)),
                Some(dy) => vectorized(|| backward_row(&x[row.clone()], &dy[row], y)),
            }
        }
    };
    for_each(y.chunks_mut(rows * len).enumerate().collect(), part);
}

#[inline(always)]
fn forward_row(x: &[f32], y: &mut [f32]) {
    // As f32::max does, without NaN; the sum has it.
    let (chunks, rest) = x.as_chunks::<16>();
    let mut most = [f32::NEG_INFINITY; 16];
    for chunk in chunks {
        for i in 0..16 {
            most[i] = if chunk[i] > most[i] { chunk[i] } else { most[i] };
        }
    }
    let max = most.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    let lse = max as f64 + sum(x, |v| exp(v as f32 - max) as f64).ln();
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x as f64 - lse) as f32);
}

#[inline(always)]
fn backward_row(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    let total = sum(dy, |v| v);
    dx.iter_mut().zip(x.iter().zip(dy)).for_each(|(dx, (&x, &dy))| *dx = (dy as f64 - exp(x) as f64 * total) as f32);
}

/// Calls `f` for each row with the map from class to index; rows in row-major order of the other dimensions.
fn each_row(rows: Rows, mut f: impl FnMut(&dyn Fn(usize) -> usize)) {
    for outer in 0..rows.outer {
        for inner in 0..rows.inner {
            f(&|c| (outer * rows.len + c) * rows.inner + inner);
        }
    }
}

fn log_sum_exp(n: usize, x: impl Fn(usize) -> f64) -> f64 {
    let max = (0..n).map(&x).fold(f64::NEG_INFINITY, f64::max);
    max + (0..n).map(|c| (x(c) - max).exp()).sum::<f64>().ln()
}

fn forward(o: &CrossEntropyOptions, n: usize, target: i32, x: impl Fn(usize) -> f64, weight: impl Fn(usize) -> f64) -> (f64, f64) {
    if target as i64 == o.ignore_index {
        return (0.0, 0.0);
    }
    let Some(t) = usize::try_from(target).ok().filter(|&t| t < n) else { return (f64::NAN, f64::NAN) };
    let lse = log_sum_exp(n, &x);
    let mut loss = (1.0 - o.label_smoothing) * weight(t) * (lse - x(t));
    if o.label_smoothing > 0.0 {
        loss += o.label_smoothing / n as f64 * (0..n).map(|c| weight(c) * (lse - x(c))).sum::<f64>();
    }
    (loss, weight(t))
}

/// d loss / d x_c, with `p` the softmax probability of class c.
fn gradient(o: &CrossEntropyOptions, n: usize, target: i32, c: usize, p: f64, weight: impl Fn(usize) -> f64) -> f64 {
    if target as i64 == o.ignore_index {
        return 0.0;
    }
    let Some(t) = usize::try_from(target).ok().filter(|&t| t < n) else { return f64::NAN };
    let hard = (1.0 - o.label_smoothing) * weight(t) * (p - (c == t) as u32 as f64);
    let total: f64 = if o.label_smoothing > 0.0 { (0..n).map(&weight).sum() } else { 0.0 };
    hard + o.label_smoothing / n as f64 * (p * total - weight(c))
}
