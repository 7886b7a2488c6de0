//! Batch normalisation. Sums over a channel are f64 in every path: they are what its accuracy hangs on.

use super::fast::{Sums, for_each, relu, vectorized};
use super::{Args, outputs, typed};
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::op::{After, Norm, Rows};

pub(super) fn run<T: Real>(op: &Norm, args: &mut Args, fast: bool) -> Result<()> {
    // [outer, channels, inner]: planes of `inner` values, `channels` of them an image.
    let rows = Rows::new(&args.specs[0].shape, 1);
    let (channels, inner) = (rows.len, rows.inner);
    let count = (rows.outer * inner) as f64;
    let x: &[T] = bytemuck::cast_slice(args.ins[0]);
    let input = |i: usize| typed::<T>(args.ins[i]);
    let planes = |c: usize| (0..rows.outer).map(move |n| (n * channels + c) * inner..(n * channels + c + 1) * inner);
    // The reference does what there is to do for no images: sums over nothing.
    if fast && !x.is_empty() {
        run_fast(op, args);
        return Ok(());
    }
    // What stands behind the other operands: residual, bias or y, where there is one.
    let last = input(args.ins.len() - 1);
    match *op {
        Norm::BatchNorm { eps, momentum, running, after } => {
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
            affine([x, last], bytemuck::cast_slice_mut(y), inner, channels, line, after);
        }
        Norm::BatchNormEval { eps, after } => {
            let (weight, bias, mean, var) = (input(1), input(2), input(3), input(4));
            let [y, invstd] = &mut args.outs[..] else { return Ok(()) };
            for c in 0..channels {
                put::<T>(invstd, c, 1.0 / (var[c].to_f64() + eps).sqrt());
            }
            let line = |c: usize| (mean[c].to_f64(), weight[c].to_f64() / (var[c].to_f64() + eps).sqrt(), bias[c].to_f64());
            affine([x, last], bytemuck::cast_slice_mut(y), inner, channels, line, after);
        }
        Norm::BatchNormBackward { training, after } => {
            let (dy, weight, mean, invstd) = (input(1), input(2), input(3), input(4));
            let [dx, dweight, dbias, residual @ ..] = &mut args.outs[..] else { return Ok(()) };
            let channel = |i: usize| i / inner % channels;
            // The gradient of each normalised value.
            let gradient = |i: usize| {
                let (c, dy) = (channel(i), dy[i].to_f64());
                let passes = match after {
                    After::Nothing => true,
                    After::Relu { ceiling } => {
                        let (x, mean, invstd) = (x[i].to_f64(), mean[c].to_f64(), invstd[c].to_f64());
                        let (weight, bias) = (weight[c].to_f64(), last[c].to_f64());
                        // In the type's own arithmetic: beside 0 the sign hangs on it.
                        match T::DTYPE {
                            DType::F64 => Bounds::new(bias, ceiling).hold((x - mean) * (invstd * weight)),
                            _ => {
                                let scale = invstd as f32 * weight as f32;
                                Bounds::new(bias as f32, ceiling as f32).hold((x as f32 - mean as f32) * scale)
                            }
                        }
                    }
                    After::AddRelu => last[i].to_f64() > 0.0,
                };
                if passes { dy } else { 0.0 }
            };
            // Of each channel: sum(dy xhat), sum(dy), i.e. the gradients of weight and bias.
            let mut sums = vec![[0.0; 2]; channels];
            for (i, x) in x.iter().enumerate() {
                let c = channel(i);
                sums[c][0] += gradient(i) * (x.to_f64() - mean[c].to_f64()) * invstd[c].to_f64();
                sums[c][1] += gradient(i);
            }
            for c in 0..channels {
                put::<T>(dweight, c, sums[c][0]);
                put::<T>(dbias, c, sums[c][1]);
            }
            for (i, x) in x.iter().enumerate() {
                let c = channel(i);
                let (mean, invstd) = (mean[c].to_f64(), invstd[c].to_f64());
                let (slope, shift) = if training { (sums[c][0] / count * invstd, sums[c][1] / count) } else { (0.0, 0.0) };
                put::<T>(dx, i, weight[c].to_f64() * invstd * (gradient(i) - shift - (x.to_f64() - mean) * slope));
                if let [residual] = residual {
                    put::<T>(residual, i, gradient(i));
                }
            }
        }
    }
    Ok(())
}

/// `y = after((x - mean) scale + bias)` on each plane, `line(channel)` giving the three.
fn affine<T: Real>(
    [x, residual]: [&[T]; 2],
    y: &mut [T],
    inner: usize,
    channels: usize,
    line: impl Fn(usize) -> (f64, f64, f64),
    after: After,
) {
    for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
        let (mean, scale, bias) = line(i / inner % channels);
        let v = (x.to_f64() - mean) * scale + bias;
        let v = match after {
            After::Nothing => v,
            After::Relu { ceiling } if v >= ceiling => ceiling,
            After::Relu { .. } => relu(v),
            After::AddRelu => relu(v + residual[i].to_f64()),
        };
        *y = T::from_f64(v);
    }
}

/// A channel at a time, from its sums to its results, while it lies in a cache.
fn run_fast(op: &Norm, args: &mut Args) {
    let Rows { outer, len: channels, inner } = Rows::new(&args.specs[0].shape, 1);
    let count = (outer * inner) as f64;
    let ins: Vec<&[f32]> = args.ins.iter().map(|bytes| typed(bytes)).collect();
    let planes = |of: usize, c: usize| {
        (0..outer).map(move |n| (n * channels + c) * inner).map({
            let values = ins[of];
            move |at| &values[at..at + inner]
        })
    };
    // Behind the other operands, where there is one: residual, bias or y.
    let last = ins.len() - 1;
    let mut sums = vec![[0.0; 2]; channels];
    match *op {
        Norm::BatchNorm { eps, momentum, running, after } => {
            let [y, mean, invstd, running_mean, running_var] = outputs::<f32, 5>(&mut args.outs);
            for_each(by_channel(y, channels, inner).into_iter().zip(&mut sums).enumerate().collect(), |(c, (y, sums))| {
                *sums = moments(planes(0, c), count);
                let invstd = (1.0 / (sums[1] + eps).sqrt()) as f32;
                let line = Line { mean: sums[0] as f32, scale: ins[1][c] * invstd, bias: ins[2][c] };
                normalise(planes(0, c), planes(last, c), y, line, after);
            });
            for (c, [m, v]) in sums.into_iter().enumerate() {
                (mean[c], invstd[c]) = (m as f32, (1.0 / (v + eps).sqrt()) as f32);
                if running {
                    let mixed = |old: f32, new: f64| ((1.0 - momentum) * old as f64 + momentum * new) as f32;
                    (running_mean[c], running_var[c]) = (mixed(running_mean[c], m), mixed(running_var[c], v * count / (count - 1.0)));
                }
            }
        }
        Norm::BatchNormEval { eps, after } => {
            let [y, invstd] = outputs::<f32, 2>(&mut args.outs);
            invstd.iter_mut().zip(ins[4]).for_each(|(invstd, &var)| *invstd = (1.0 / (var as f64 + eps).sqrt()) as f32);
            for_each(by_channel(y, channels, inner).into_iter().enumerate().collect(), |(c, y)| {
                let line = Line { mean: ins[3][c], scale: ins[1][c] * invstd[c], bias: ins[2][c] };
                normalise(planes(0, c), planes(last, c), y, line, after);
            });
        }
        Norm::BatchNormBackward { training, after } => {
            let [dx, dweight, dbias, residual] = outputs::<f32, 4>(&mut args.outs);
            let of_channel = by_channel(dx, channels, inner).into_iter().zip(by_channel(residual, channels, inner)).zip(&mut sums);
            for_each(of_channel.enumerate().collect(), |(c, ((dx, mut residual), sums))| {
                let invstd = ins[4][c];
                let line = Line {
                    mean: ins[3][c],
                    scale: ins[2][c] * invstd,
                    bias: if let After::Relu { .. } = after { ins[last][c] } else { 0.0 },
                };
                let to = |dx| To { dx, invstd, count: if training { count } else { f64::INFINITY } };
                *sums = match after {
                    After::Nothing => gradient(planes(0, c), planes(1, c), to(dx), line, |_, dy| dy),
                    After::Relu { ceiling } => {
                        let bounds = Bounds::new(line.bias, ceiling as f32);
                        gradient(
                            planes(0, c),
                            planes(1, c),
                            to(dx),
                            line,
                            #[inline(always)]
                            |x, dy| {
                                if bounds.hold((x - line.mean) * line.scale) { dy } else { 0.0 }
                            },
                        )
                    }
                    After::AddRelu => {
                        vectorized(
                            #[inline(always)]
                            || {
                                for (g, (dy, y)) in residual.iter_mut().zip(planes(1, c).zip(planes(last, c))) {
                                    g.iter_mut().zip(dy.iter().zip(y)).for_each(|(g, (&dy, &y))| *g = if y > 0.0 { dy } else { 0.0 });
                                }
                            },
                        );
                        gradient(planes(0, c), residual.iter().map(|g| &**g), to(dx), line, |_, dy| dy)
                    }
                };
            });
            for (c, [xhat, plain]) in sums.into_iter().enumerate() {
                (dweight[c], dbias[c]) = (xhat as f32, plain as f32);
            }
        }
    }
}

/// The planes of each channel; none of an array that is not there.
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
                sums.add(x, x, |x, _| [x as f64]);
            }
            let mean = sums.total()[0] / count;
            let mut squares = Sums::<1>::new();
            for x in planes {
                squares.add(x, x, |x, _| [(x as f64 - mean) * (x as f64 - mean)]);
            }
            [mean, squares.total()[0] / count]
        },
    )
}

/// What a channel's values become.
#[derive(Clone, Copy)]
struct Line {
    mean: f32,
    scale: f32,
    bias: f32,
}

impl Line {
    #[inline(always)]
    fn at(&self, x: f32) -> f32 {
        (x - self.mean) * self.scale + self.bias
    }
}

/// Between them the gradient passes a ReLU behind `p + bias`. They bound p alone, a product, which every device rounds in the same way; of the sum some round
/// the product first and some do not, and would differ beside 0.
#[derive(Clone, Copy)]
struct Bounds<T> {
    low: T,
    high: T,
}

impl<T: Copy + PartialOrd + std::ops::Neg<Output = T> + std::ops::Sub<Output = T>> Bounds<T> {
    fn new(bias: T, ceiling: T) -> Self {
        Bounds { low: -bias, high: ceiling - bias }
    }

    /// Without branches, or loops would not vectorise.
    #[inline(always)]
    fn hold(&self, p: T) -> bool {
        (p > self.low) & (p < self.high)
    }
}

/// `y = after(line(x))`
fn normalise<'a>(
    x: impl Iterator<Item = &'a [f32]>,
    residual: impl Iterator<Item = &'a [f32]>,
    y: Vec<&mut [f32]>,
    line: Line,
    after: After,
) {
    vectorized(
        #[inline(always)]
        || match after {
            After::Nothing => x.zip(y).for_each(|(x, y)| y.iter_mut().zip(x).for_each(|(y, &x)| *y = line.at(x))),
            After::Relu { ceiling } => {
                let low = |v: f32| if v >= ceiling as f32 { ceiling as f32 } else { v };
                x.zip(y).for_each(|(x, y)| y.iter_mut().zip(x).for_each(|(y, &x)| *y = low(relu(line.at(x)))));
            }
            After::AddRelu => {
                for ((x, r), y) in x.zip(residual).zip(y) {
                    y.iter_mut().zip(x.iter().zip(r)).for_each(|(y, (&x, &r))| *y = relu(line.at(x) + r));
                }
            }
        },
    );
}

/// Where a channel's gradient goes, with what it is computed from; the count is infinite where the statistics do not depend on x.
struct To<'a> {
    dx: Vec<&'a mut [f32]>,
    invstd: f32,
    count: f64,
}

/// The gradient of a channel, with `passed(x, dy)` of each value; gives `sum(dy xhat)` and `sum(dy)`.
fn gradient<'a, 'b>(
    x: impl Iterator<Item = &'a [f32]> + Clone,
    dy: impl Iterator<Item = &'b [f32]> + Clone,
    to: To,
    line: Line,
    passed: impl Fn(f32, f32) -> f32,
) -> [f64; 2] {
    let (mean, invstd) = (line.mean as f64, to.invstd as f64);
    let sums = vectorized(
        #[inline(always)]
        || {
            let mut sums = Sums::new();
            for (x, dy) in x.clone().zip(dy.clone()) {
                sums.add(
                    x,
                    dy,
                    #[inline(always)]
                    |x, dy| {
                        let dy = passed(x, dy) as f64;
                        [dy * (x as f64 - mean) * invstd, dy]
                    },
                );
            }
            sums.total()
        },
    );
    let [slope, shift] = [sums[0] / to.count * invstd, sums[1] / to.count].map(|v| v as f32);
    vectorized(
        #[inline(always)]
        || {
            for (dx, (x, dy)) in to.dx.into_iter().zip(x.zip(dy)) {
                for (dx, (&x, &dy)) in dx.iter_mut().zip(x.iter().zip(dy)) {
                    *dx = line.scale * (passed(x, dy) - shift - (x - line.mean) * slope);
                }
            }
        },
    );
    sums
}

fn put<T: Real>(bytes: &mut [u8], i: usize, v: f64) {
    bytemuck::cast_slice_mut::<u8, T>(bytes)[i] = T::from_f64(v);
}

fn get<T: Real>(bytes: &[u8], i: usize) -> f64 {
    bytemuck::cast_slice::<u8, T>(bytes)[i].to_f64()
}
