//! Random tensors and dropout, from the Philox streams of [`crate::rng`].

use super::fast::{GRAIN, parts};
use super::{Args, outputs};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::Random;
use crate::rng::{philox, unit};

pub(super) fn run<T: Real>(op: &Random, args: &mut Args, fast: bool) -> Result<()> {
    let [y] = outputs::<T, 1>(&mut args.outs);
    match *op {
        Random::Uniform { low, high, stream, .. } => {
            // In f32 where T is f32, as the kernel computes it: the same bits.
            each_word(stream, 0, y, |y, word| {
                *y = match T::DTYPE {
                    crate::dtype::DType::F32 => T::from_f64((low as f32 + (high - low) as f32 * unit(word)) as f64),
                    _ => T::from_f64(low + (high - low) * unit(word) as f64),
                }
            });
        }
        Random::Normal { mean, std, stream, .. } => {
            for (i, y) in y.iter_mut().enumerate() {
                *y = T::from_f64(mean + std * stream.normal(i as u64));
            }
        }
        Random::Dropout { p, stream } => {
            let x: &[T] = bytemuck::cast_slice(args.ins[0]);
            let (threshold, scale) = (p as f32, 1.0 / (1.0 - p));
            let part = |start: usize, y: &mut [T]| {
                let mut x = x[start..].iter();
                each_word(stream, start / 4, y, |y, word| {
                    let x = x.next().copied().unwrap_or_default();
                    *y = if unit(word) < threshold { T::default() } else { T::from_f64(x.to_f64() * scale) };
                });
            };
            if fast { parts(y, GRAIN, 4, part) } else { part(0, y) }
        }
    }
    Ok(())
}

/// Calls `f` with each element and its word; a Philox block serves four elements, the first of them number `first`.
fn each_word<T>(stream: crate::rng::Stream, first: usize, y: &mut [T], mut f: impl FnMut(&mut T, u32)) {
    for (block, y) in (first..).zip(y.chunks_mut(4)) {
        let words = philox([block as u32, (block as u64 >> 32) as u32, stream.high[0], stream.high[1]], stream.key);
        y.iter_mut().zip(words).for_each(|(y, word)| f(y, word));
    }
}
