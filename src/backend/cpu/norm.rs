//! Batch normalisation. Sums over a channel are f64 in every path: they are what its accuracy hangs on.

use super::fast::{Sums, for_each, vectorized};
use super::{Args, outputs};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::{Norm, Rows};

pub(super) fn run<T: Real>(op: &Norm, args: &mut Args, fast: bool) -> Result<()> {
    // [outer, channels, inner]: planes of `inner` values, `channels` of them an image.
    let rows = Rows::new(&args.specs[0].shape, 1);
    let (channels, inner) = (rows.len, rows.inner);
    let count = (rows.outer * inner) as f64;
    let x: &[T] = bytemuck::cast_slice(args.ins[0]);
    let input = |i: usize| -> &[T] { bytemuck::cast_slice(args.ins[i]) };
    let planes = |c: usize| (0..rows.outer).map(move |n| (n * channels + c) * inner..(n * channels + c + 1) * inner);
    if x.is_empty() {
        return Ok(());
    }
    if fast {
        run_fast(op, args);
        return Ok(());
    }
    match *op {
        Norm::BatchNorm { eps, momentum, running } => {
            let moments = |c: usize| {
                let mean = planes(c).map(|p| x[p].iter().map(|v| v.to_f64()).sum::<f64>()).sum::<f64>() / count;
                let var = planes(c).map(|p| x[p].iter().map(|v| (v.to_f64() - mean).powi(2)).sum::<f64>()).sum::<f64>() / count;
                [mean, var]
            };
            let stats: Vec<[f64; 2]> = (0..channels).map(moments).collect();
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
            affine(x, bytemuck::cast_slice_mut(y), inner, channels, line);
        }
        Norm::BatchNormEval { eps } => {
            let (weight, bias, mean, var) = (input(1), input(2), input(3), input(4));
            let [y, invstd] = &mut args.outs[..] else { return Ok(()) };
            for c in 0..channels {
                put::<T>(invstd, c, 1.0 / (var[c].to_f64() + eps).sqrt());
            }
            let line = |c: usize| (mean[c].to_f64(), weight[c].to_f64() / (var[c].to_f64() + eps).sqrt(), bias[c].to_f64());
            affine(x, bytemuck::cast_slice_mut(y), inner, channels, line);
        }
        Norm::BatchNormBackward { training } => {
            let (dy, weight, mean, invstd) = (input(1), input(2), input(3), input(4));
            // Of each channel: sum(dy xhat), sum(dy), i.e. the gradients of weight and bias.
            let sums: Vec<[f64; 2]> = (0..channels)
                .map(|c| {
                    let (mean, invstd) = (mean[c].to_f64(), invstd[c].to_f64());
                    let mut sums = [0.0; 2];
                    for (x, dy) in planes(c).flat_map(|p| x[p.clone()].iter().zip(&dy[p])) {
                        sums[0] += dy.to_f64() * (x.to_f64() - mean) * invstd;
                        sums[1] += dy.to_f64();
                    }
                    sums
                })
                .collect();
            let [dx, dweight, dbias] = &mut args.outs[..] else { return Ok(()) };
            for c in 0..channels {
                put::<T>(dweight, c, sums[c][0]);
                put::<T>(dbias, c, sums[c][1]);
            }
            let dx: &mut [T] = bytemuck::cast_slice_mut(dx);
            for (i, ((dx, x), dy)) in dx.chunks_mut(inner).zip(x.chunks(inner)).zip(dy.chunks(inner)).enumerate() {
                let c = i % channels;
                let (mean, invstd) = (mean[c].to_f64(), invstd[c].to_f64());
                let scale = weight[c].to_f64() * invstd;
                let (slope, shift) = if training { (sums[c][0] / count * invstd, sums[c][1] / count) } else { (0.0, 0.0) };
                for (dx, (x, dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
                    *dx = T::from_f64(scale * (dy.to_f64() - shift - (x.to_f64() - mean) * slope));
                }
            }
        }
    }
    Ok(())
}

/// `y = (x - mean) scale + bias` on each plane, `line(channel)` giving the three.
fn affine<T: Real>(x: &[T], y: &mut [T], inner: usize, channels: usize, line: impl Fn(usize) -> (f64, f64, f64)) {
    for (i, (y, x)) in y.chunks_mut(inner).zip(x.chunks(inner)).enumerate() {
        let (mean, scale, bias) = line(i % channels);
        y.iter_mut().zip(x).for_each(|(y, x)| *y = T::from_f64((x.to_f64() - mean) * scale + bias));
    }
}

/// A channel at a time, from its sums to its results, while it lies in a cache.
fn run_fast(op: &Norm, args: &mut Args) {
    let Rows { outer, len: channels, inner } = Rows::new(&args.specs[0].shape, 1);
    let count = (outer * inner) as f64;
    // The slots of operands that are updated in place are empty, and aligned to nothing.
    let ins: Vec<&[f32]> = args.ins.iter().map(|bytes| if bytes.is_empty() { &[][..] } else { bytemuck::cast_slice(bytes) }).collect();
    let planes = |of: usize, c: usize| {
        (0..outer).map(move |n| (n * channels + c) * inner).map({
            let values = ins[of];
            move |at| &values[at..at + inner]
        })
    };
    let mut sums = vec![[0.0; 2]; channels];
    match *op {
        Norm::BatchNorm { eps, momentum, running } => {
            let [y, mean, invstd, running_mean, running_var] = outputs::<f32, 5>(&mut args.outs);
            for_each(by_channel(y, channels, inner).into_iter().zip(&mut sums).enumerate().collect(), |(c, (y, sums))| {
                *sums = moments(planes(0, c), count);
                normalise(planes(0, c), y, [sums[0], ins[1][c] as f64 / (sums[1] + eps).sqrt(), ins[2][c] as f64]);
            });
            for (c, [m, v]) in sums.into_iter().enumerate() {
                (mean[c], invstd[c]) = (m as f32, (1.0 / (v + eps).sqrt()) as f32);
                if running {
                    let mixed = |old: f32, new: f64| ((1.0 - momentum) * old as f64 + momentum * new) as f32;
                    (running_mean[c], running_var[c]) = (mixed(running_mean[c], m), mixed(running_var[c], v * count / (count - 1.0)));
                }
            }
        }
        Norm::BatchNormEval { eps } => {
            let [y, invstd] = outputs::<f32, 2>(&mut args.outs);
            let scale = |c: usize| 1.0 / (ins[4][c] as f64 + eps).sqrt();
            invstd.iter_mut().enumerate().for_each(|(c, invstd)| *invstd = scale(c) as f32);
            for_each(by_channel(y, channels, inner).into_iter().enumerate().collect(), |(c, y)| {
                normalise(planes(0, c), y, [ins[3][c] as f64, ins[1][c] as f64 * scale(c), ins[2][c] as f64]);
            });
        }
        Norm::BatchNormBackward { training } => {
            let [dx, dweight, dbias] = outputs::<f32, 3>(&mut args.outs);
            for_each(by_channel(dx, channels, inner).into_iter().zip(&mut sums).enumerate().collect(), |(c, (dx, sums))| {
                let [weight, mean, invstd] = [2, 3, 4].map(|i| ins[i][c] as f64);
                *sums = vectorized(
                    #[inline(always)]
                    || {
                        let mut sums = Sums::new();
                        for (x, dy) in planes(0, c).zip(planes(1, c)) {
                            sums.add(x, dy, |x, dy| [dy * (x - mean) * invstd, dy]);
                        }
                        sums.total()
                    },
                );
                let [slope, shift] = if training { [sums[0] / count * invstd, sums[1] / count] } else { [0.0; 2] };
                let [mean, scale, shift, slope] = [mean, weight * invstd, shift, slope].map(|v| v as f32);
                vectorized(
                    #[inline(always)]
                    || {
                        for (dx, (x, dy)) in dx.into_iter().zip(planes(0, c).zip(planes(1, c))) {
                            for (dx, (&x, &dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
                                *dx = scale * (dy - shift - (x - mean) * slope);
                            }
                        }
                    },
                );
            });
            for (c, [xhat, plain]) in sums.into_iter().enumerate() {
                (dweight[c], dbias[c]) = (xhat as f32, plain as f32);
            }
        }
    }
}

/// The planes of each channel.
fn by_channel(y: &mut [f32], channels: usize, inner: usize) -> Vec<Vec<&mut [f32]>> {
    let mut all: Vec<Vec<&mut [f32]>> = (0..channels).map(|_| Vec::with_capacity(y.len() / (channels * inner))).collect();
    y.chunks_exact_mut(inner).enumerate().for_each(|(i, plane)| all[i % channels].push(plane));
    all
}

/// Mean and biased variance.
fn moments<'a>(planes: impl Iterator<Item = &'a [f32]> + Clone, count: f64) -> [f64; 2] {
    vectorized(
        #[inline(always)]
        || {
            let mut sums = Sums::<1>::new();
            for x in planes.clone() {
                sums.add(x, x, |x, _| [x]);
            }
            let mean = sums.total()[0] / count;
            let mut squares = Sums::<1>::new();
            for x in planes {
                squares.add(x, x, |x, _| [(x - mean) * (x - mean)]);
            }
            [mean, squares.total()[0] / count]
        },
    )
}

/// `y = (x - mean) scale + bias`
fn normalise<'a>(x: impl Iterator<Item = &'a [f32]>, y: Vec<&mut [f32]>, line: [f64; 3]) {
    let [mean, scale, bias] = line.map(|v| v as f32);
    vectorized(
        #[inline(always)]
        || {
            for (x, y) in x.zip(y) {
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - mean) * scale + bias);
            }
        },
    );
}

fn put<T: Real>(bytes: &mut [u8], i: usize, v: f64) {
    bytemuck::cast_slice_mut::<u8, T>(bytes)[i] = T::from_f64(v);
}

fn get<T: Real>(bytes: &[u8], i: usize) -> f64 {
    bytemuck::cast_slice::<u8, T>(bytes)[i].to_f64()
}
