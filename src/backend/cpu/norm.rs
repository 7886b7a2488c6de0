//! Batch normalisation. Sums over a channel are f64 in every path: they are what its accuracy hangs on.

use super::fast::{for_each, sum, sum2, vectorized};
use super::{Args, in_parallel};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::{Norm, Rows};
use rayon::prelude::*;

pub(super) fn run<T: Real>(op: &Norm, args: &mut Args, fast: bool) -> Result<()> {
    // [outer, channels, inner]: planes of `inner` values, `channels` of them an image.
    let rows = Rows::new(&args.specs[0].shape, 1);
    let (channels, inner) = (rows.len, rows.inner);
    let count = (rows.outer * inner) as f64;
    let x: &[T] = bytemuck::cast_slice(args.ins[0]);
    let input = |i: usize| -> &[T] { bytemuck::cast_slice(args.ins[i]) };
    let planes = |c: usize| (0..rows.outer).map(move |n| (n * channels + c) * inner..(n * channels + c + 1) * inner);
    let per_channel = |f: &(dyn Fn(usize) -> [f64; 2] + Sync)| -> Vec<[f64; 2]> {
        if fast && in_parallel() { (0..channels).into_par_iter().map(f).collect() } else { (0..channels).map(f).collect() }
    };
    if x.is_empty() {
        return Ok(());
    }
    match *op {
        Norm::BatchNorm { eps, momentum, running } => {
            let stats = per_channel(&|c| {
                if fast {
                    let x: &[f32] = bytemuck::cast_slice(x);
                    let total = |f: &dyn Fn(&[f32]) -> f64| planes(c).map(|p| f(&x[p])).sum::<f64>() / count;
                    let mean = total(&|plane| vectorized(|| sum(plane, |v| v)));
                    return [mean, total(&|plane| vectorized(|| sum(plane, |v| (v - mean) * (v - mean))))];
                }
                let mean = planes(c).map(|p| x[p].iter().map(|v| v.to_f64()).sum::<f64>()).sum::<f64>() / count;
                let var = planes(c).map(|p| x[p].iter().map(|v| (v.to_f64() - mean).powi(2)).sum::<f64>()).sum::<f64>() / count;
                [mean, var]
            });
            let (weight, bias) = (input(1), input(2));
            let [y, mean, invstd, updated @ ..] = &mut args.outs[..] else { return Ok(()) };
            for c in 0..channels {
                put::<T>(mean, c, stats[c][0]);
                put::<T>(invstd, c, 1.0 / (stats[c][1] + eps).sqrt());
                if let (true, [running_mean, running_var]) = (running, &mut *updated) {
                    let (m, v) = (get::<T>(running_mean, c), get::<T>(running_var, c));
                    put::<T>(running_mean, c, (1.0 - momentum) * m + momentum * stats[c][0]);
                    // The estimate kept for evaluation is unbiased, as PyTorch's.
                    put::<T>(running_var, c, (1.0 - momentum) * v + momentum * stats[c][1] * count / (count - 1.0));
                }
            }
            let line = |c: usize| {
                let scale = weight[c].to_f64() / (stats[c][1] + eps).sqrt();
                (stats[c][0], scale, bias[c].to_f64())
            };
            affine(x, bytemuck::cast_slice_mut(y), inner, channels, fast, line);
        }
        Norm::BatchNormEval { eps } => {
            let (weight, bias, mean, var) = (input(1), input(2), input(3), input(4));
            let [y, invstd] = &mut args.outs[..] else { return Ok(()) };
            for c in 0..channels {
                put::<T>(invstd, c, 1.0 / (var[c].to_f64() + eps).sqrt());
            }
            let line = |c: usize| (mean[c].to_f64(), weight[c].to_f64() / (var[c].to_f64() + eps).sqrt(), bias[c].to_f64());
            affine(x, bytemuck::cast_slice_mut(y), inner, channels, fast, line);
        }
        Norm::BatchNormBackward { training } => {
            let (dy, weight, mean, invstd) = (input(1), input(2), input(3), input(4));
            // Of each channel: sum(dy xhat), sum(dy), i.e. the gradients of weight and bias.
            let sums = per_channel(&|c| {
                let (mean, invstd) = (mean[c].to_f64(), invstd[c].to_f64());
                let mut sums = [0.0; 2];
                for p in planes(c) {
                    if fast {
                        let (x, dy): (&[f32], &[f32]) = (bytemuck::cast_slice(x), bytemuck::cast_slice(dy));
                        let [xhat, plain] = vectorized(|| sum2(&x[p.clone()], &dy[p], |x, dy| [dy * (x - mean) * invstd, dy]));
                        sums = [sums[0] + xhat, sums[1] + plain];
                        continue;
                    }
                    for (x, dy) in x[p.clone()].iter().zip(&dy[p]) {
                        sums[0] += dy.to_f64() * (x.to_f64() - mean) * invstd;
                        sums[1] += dy.to_f64();
                    }
                }
                sums
            });
            let [dx, dweight, dbias] = &mut args.outs[..] else { return Ok(()) };
            for c in 0..channels {
                put::<T>(dweight, c, sums[c][0]);
                put::<T>(dbias, c, sums[c][1]);
            }
            let dx: &mut [T] = bytemuck::cast_slice_mut(dx);
            let one = |(i, ((dx, x), dy)): (usize, ((&mut [T], &[T]), &[T]))| {
                let c = i % channels;
                let (mean, invstd) = (mean[c].to_f64(), invstd[c].to_f64());
                let scale = weight[c].to_f64() * invstd;
                let (slope, shift) = if training { (sums[c][0] / count * invstd, sums[c][1] / count) } else { (0.0, 0.0) };
                if fast {
                    let (dx, x, dy): (&mut [f32], &[f32], &[f32]) =
                        (bytemuck::cast_slice_mut(dx), bytemuck::cast_slice(x), bytemuck::cast_slice(dy));
                    let [mean, scale, shift, slope] = [mean, scale, shift, slope].map(|v| v as f32);
                    return vectorized(|| {
                        for (dx, (&x, &dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
                            *dx = scale * (dy - shift - (x - mean) * slope);
                        }
                    });
                }
                for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
                    *dx = T::from_f64(scale * (dy.to_f64() - shift - (x.to_f64() - mean) * slope));
                }
            };
            for_each(dx.chunks_mut(inner).zip(x.chunks(inner)).zip(dy.chunks(inner)).enumerate().collect(), one);
        }
    }
    Ok(())
}

/// `y = (x - mean) scale + bias` on each plane, `line(channel)` giving the three.
fn affine<T: Real>(x: &[T], y: &mut [T], inner: usize, channels: usize, fast: bool, line: impl Fn(usize) -> (f64, f64, f64) + Sync) {
    let one = |(i, (y, x)): (usize, (&mut [T], &[T]))| {
        let (mean, scale, bias) = line(i % channels);
        if fast {
            let (y, x): (&mut [f32], &[f32]) = (bytemuck::cast_slice_mut(y), bytemuck::cast_slice(x));
            let [mean, scale, bias] = [mean, scale, bias].map(|v| v as f32);
            return vectorized(|| y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - mean) * scale + bias));
        }
        y.iter_mut().zip(x).for_each(|(y, x)| *y = T::from_f64((x.to_f64() - mean) * scale + bias));
    };
    for_each(y.chunks_mut(inner).zip(x.chunks(inner)).enumerate().collect(), one);
}

fn put<T: Real>(bytes: &mut [u8], i: usize, v: f64) {
    bytemuck::cast_slice_mut::<u8, T>(bytes)[i] = T::from_f64(v);
}

fn get<T: Real>(bytes: &[u8], i: usize) -> f64 {
    bytemuck::cast_slice::<u8, T>(bytes)[i].to_f64()
}
