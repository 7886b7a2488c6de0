//! Random tensors and dropout, from the Philox streams of [`crate::rng`].

use super::fast::{GRAIN, parts, vectorized};
use super::{Args, outputs};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::Random;
use crate::rng::{ROUNDS, Stream, next_key, philox, round, unit};

pub(super) fn run<T: Real>(op: &Random, args: &mut Args, fast: bool) -> Result<()> {
    let [y] = outputs::<T, 1>(&mut args.outs);
    match *op {
        Random::Uniform { low, high, stream, .. } => {
            // In f32 where T is f32, as the kernel computes it: the same bits.
            each_word(stream, y, |y, word| {
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
            if fast {
                let (x, y) = (bytemuck::cast_slice::<T, f32>(x), bytemuck::cast_slice_mut(y));
                parts(y, GRAIN, WIDE * 4, |start, y| {
                    let x = &x[start..start + y.len()];
                    vectorized(
                        #[inline(always)]
                        || {
                            for (i, (y, x)) in y.chunks_mut(WIDE * 4).zip(x.chunks(WIDE * 4)).enumerate() {
                                let words = wide(stream, start / 4 + i * WIDE);
                                y.iter_mut().zip(x).zip(&words).for_each(|((y, &x), &word)| {
                                    *y = if unit(word) < threshold { 0.0 } else { (x as f64 * scale) as f32 };
                                });
                            }
                        },
                    );
                });
            } else {
                let mut x = x.iter();
                each_word(stream, y, |y, word| {
                    let x = x.next().copied().unwrap_or_default();
                    *y = if unit(word) < threshold { T::default() } else { T::from_f64(x.to_f64() * scale) };
                });
            }
        }
    }
    Ok(())
}

/// Philox blocks made side by side.
const WIDE: usize = 64;

/// The words of `WIDE` blocks from number `first` on, as [`philox`] makes them one by one.
#[inline(always)]
fn wide(stream: Stream, first: usize) -> [u32; WIDE * 4] {
    let mut words = [[0; WIDE]; 4];
    for i in 0..WIDE {
        let block = (first + i) as u64;
        (words[0][i], words[1][i], words[2][i], words[3][i]) = (block as u32, (block >> 32) as u32, stream.high[0], stream.high[1]);
    }
    let mut key = stream.key;
    for _ in 0..ROUNDS {
        let [c0, c1, c2, c3] = &mut words;
        for i in 0..WIDE {
            [c0[i], c1[i], c2[i], c3[i]] = round([c0[i], c1[i], c2[i], c3[i]], key);
        }
        key = next_key(key);
    }
    let mut out = [0; WIDE * 4];
    for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *out = [words[0][i], words[1][i], words[2][i], words[3][i]];
    }
    out
}

/// Calls `f` with each element and its word; a Philox block serves four elements.
fn each_word<T>(stream: Stream, y: &mut [T], mut f: impl FnMut(&mut T, u32)) {
    for (block, y) in (0u64..).zip(y.chunks_mut(4)) {
        let words = philox([block as u32, (block >> 32) as u32, stream.high[0], stream.high[1]], stream.key);
        y.iter_mut().zip(words).for_each(|(y, word)| f(y, word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_side_by_side_are_those_made_one_by_one() {
        let stream = Stream::new(3, "wide", 1, 2);
        for first in [0, 5, u32::MAX as usize - 3] {
            let one_by_one = (first as u64..)
                .take(WIDE)
                .map(|block| philox([block as u32, (block >> 32) as u32, stream.high[0], stream.high[1]], stream.key));
            assert_eq!(wide(stream, first).to_vec(), one_by_one.flatten().collect::<Vec<u32>>());
        }
    }
}
