//! What the fast paths share: loops over slices on all threads, compiled for the vector instructions that the processor has, and functions that
//! vectorise. Nothing here depends on the number of threads.

use super::in_parallel;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::cell::RefCell;

/// The most f32 lanes of a register.
pub const LANES: usize = 16;

/// Elements a thread takes at the least, where each is a few operations.
pub const GRAIN: usize = 16_384;
/// Sums that run side by side: a fixed number, so that each processor adds in the same order.
const SUMS: usize = 16;

/// Runs a loop that the compiler vectorises with the widest instructions of this processor. What `f` calls must be inlined into it,
/// and `f` itself: a large one says `#[inline(always)]`. What is not is compiled for any processor
/// (dropout, `mappa bench family_random`: 1.7 instead of 9.7 GB/s).
pub fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(f)
}

/// The vector registers of this processor.
pub struct Registers {
    /// f32 lanes of one.
    pub lanes: usize,
    /// Whether there are 32 of them, not 16.
    pub many: bool,
}

/// What [`vectorized`] and the like run on.
pub fn registers() -> Registers {
    struct Ask;
    impl WithSimd for Ask {
        type Output = Registers;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> Registers {
            Registers { lanes: S::F32_LANES, many: S::REGISTER_COUNT >= 32 }
        }
    }
    Arch::new().dispatch(Ask)
}

/// A register full of f32 from the beginning of `from`.
#[inline(always)]
pub fn load<S: Simd>(from: &[f32]) -> S::f32s {
    bytemuck::pod_read_unaligned(bytemuck::cast_slice(&from[..S::F32_LANES]))
}

/// Lends `f` memory that the thread keeps between calls; its contents are whatever was left there.
pub fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local! {
        static KEPT: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
    }
    // Taken out, since a thread that waits for others may begin another task meanwhile.
    let mut memory = KEPT.with_borrow_mut(Vec::pop).unwrap_or_default();
    if memory.len() < len {
        memory = vec![0.0; len];
    }
    let result = f(&mut memory[..len]);
    KEPT.with_borrow_mut(|kept| kept.push(memory));
    result
}

/// Calls `f` with each item, on all threads where there are several.
pub fn for_each<T: Send>(items: Vec<T>, f: impl Fn(T) + Sync + Send) {
    if in_parallel() { items.into_par_iter().for_each(f) } else { items.into_iter().for_each(f) }
}

/// How many elements of `len`, at least `grain`, one thread takes: fixed by the length alone.
fn chunk(len: usize, grain: usize) -> usize {
    len.div_ceil(64).max(grain)
}

/// `y = value`
pub fn fill<T: Copy + Send + Sync>(y: &mut [T], value: T) {
    for_each(y.chunks_mut(chunk(y.len(), GRAIN)).collect(), |y: &mut [T]| y.fill(value));
}

/// `y = f(x)`
pub fn map(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    let n = chunk(x.len(), GRAIN);
    for_each(x.chunks(n).zip(y.chunks_mut(n)).collect(), |(x, y): (&[f32], &mut [f32])| {
        vectorized(|| y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x)));
    });
}

/// `y = f(a, b)`
pub fn zip(a: &[f32], b: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    let n = chunk(a.len(), GRAIN);
    for_each(a.chunks(n).zip(b.chunks(n)).zip(y.chunks_mut(n)).collect(), |((a, b), y): ((&[f32], &[f32]), &mut [f32])| {
        vectorized(|| y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (&a, &b))| *y = f(a, b)));
    });
}

/// `max(v, 0)`; NaN stays, and -0 becomes 0.
#[inline(always)]
pub fn relu<T: PartialOrd + Default>(v: T) -> T {
    if v <= T::default() { T::default() } else { v }
}

/// `v` within bounds; NaN stays, and -0 becomes the lower bound 0.
#[inline(always)]
pub fn clip<T: PartialOrd>(v: T, [least, most]: [T; 2]) -> T {
    if v <= least {
        least
    } else if v >= most {
        most
    } else {
        v
    }
}

/// `y = clip(y)`
pub fn clip_all(y: &mut [f32], bounds: [f32; 2]) {
    for_each(y.chunks_mut(chunk(y.len(), GRAIN)).collect(), |y: &mut [f32]| {
        vectorized(|| y.iter_mut().for_each(|y| *y = clip(*y, bounds)));
    });
}

/// `y += x`
pub fn add_assign(y: &mut [f32], x: &[f32]) {
    let n = chunk(x.len(), GRAIN);
    for_each(y.chunks_mut(n).zip(x.chunks(n)).collect(), |(y, x): (&mut [f32], &[f32])| {
        vectorized(|| y.iter_mut().zip(x).for_each(|(y, &x)| *y += x));
    });
}

/// Calls `f` with the elements of `arrays`, and of `x`, at each place; all are of one length.
pub fn update<const N: usize>(arrays: [&mut [f32]; N], x: &[f32], f: impl Fn([&mut f32; N], f32) + Sync) {
    let n = chunk(x.len(), GRAIN);
    let mut rest = arrays.map(|array| array.chunks_mut(n));
    let chunks = x.chunks(n).map(|x| (rest.each_mut().map(|array| array.next().unwrap_or_default()), x));
    for_each(chunks.collect(), |(arrays, x): ([&mut [f32]; N], &[f32])| {
        vectorized(
            #[inline(always)]
            || {
                // Blocks of a constant size: no checks within, so that they vectorise.
                let (x_blocks, x_rest) = x.as_chunks::<LANES>();
                let mut arrays = arrays.map(|array| array.as_chunks_mut::<LANES>());
                for (b, x) in x_blocks.iter().enumerate() {
                    let mut blocks = arrays.each_mut().map(|(blocks, _)| &mut blocks[b]);
                    for i in 0..LANES {
                        f(blocks.each_mut().map(|block| &mut block[i]), x[i]);
                    }
                }
                for (i, &x) in x_rest.iter().enumerate() {
                    f(arrays.each_mut().map(|(_, rest)| &mut rest[i]), x);
                }
            },
        );
    });
}

/// Calls `f(first index, part)` for parts of `y` of at least `grain` elements, whose lengths are multiples of `of`, but for the last.
pub fn parts<T: Send>(y: &mut [T], grain: usize, of: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let n = chunk(y.len(), grain).next_multiple_of(of);
    for_each(y.chunks_mut(n).enumerate().collect(), |(i, y): (usize, &mut [T])| f(i * n, y));
}

/// The sum of `f(x)` in f64.
#[inline(always)]
pub fn sum(x: &[f32], f: impl Fn(f64) -> f64) -> f64 {
    let mut sums = [0.0f64; SUMS];
    let (chunks, rest) = x.as_chunks::<SUMS>();
    for chunk in chunks {
        for i in 0..SUMS {
            sums[i] += f(chunk[i] as f64);
        }
    }
    rest.iter().zip(&mut sums).for_each(|(&x, sum)| *sum += f(x as f64));
    sums.iter().sum()
}

/// Sums in f64 that go on from slice to slice.
pub struct Sums<const N: usize>([[f64; SUMS]; N]);

impl<const N: usize> Sums<N> {
    #[inline(always)]
    pub fn new() -> Self {
        Sums([[0.0; SUMS]; N])
    }

    /// Adds `f(a, b)` of each pair.
    #[inline(always)]
    pub fn add(&mut self, a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> [f64; N]) {
        let sums = &mut self.0;
        let mut one = |i: usize, a: f32, b: f32| {
            let terms = f(a, b);
            for n in 0..N {
                sums[n][i] += terms[n];
            }
        };
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<SUMS>(), b.as_chunks::<SUMS>());
        for (a, b) in a.iter().zip(b) {
            for i in 0..SUMS {
                one(i, a[i], b[i]);
            }
        }
        for (i, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
            one(i, a, b);
        }
    }

    #[inline(always)]
    pub fn total(&self) -> [f64; N] {
        self.0.map(|sums| sums.iter().sum())
    }
}

/// `e^x` within 2 ulp, by a polynomial on `[-ln 2 / 2, ln 2 / 2]` (the coefficients of S. Moshier's Cephes library, `expf`) and a power of two.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to a whole number, which is then in the low bits.
    const WHOLE: f32 = 12_582_912.0;
    let clamped = x.clamp(-104.0, 89.0);
    let shifted = clamped * std::f32::consts::LOG2_E + WHOLE;
    let (k, whole) = (shifted.to_bits().wrapping_sub(WHOLE.to_bits()) as i32, shifted - WHOLE);
    let r = clamped - whole * 0.693_359_4 + whole * 2.121_944_4e-4;
    let p = 1.987_569_1e-4 * r + 1.398_199_9e-3;
    let p = ((p * r + 8.333_452e-3) * r + 4.166_579_6e-2) * r + 1.666_666_5e-1;
    let y = (p * r + 0.5) * (r * r) + r + 1.0;
    // In two halves: 2^k alone may be outside the range of f32 while the result is inside.
    let power = |k: i32| f32::from_bits((k.wrapping_add(127) as u32) << 23);
    let half = k >> 1;
    y * power(half) * power(k.wrapping_sub(half))
}

/// Hyperbolic tangent within 3 ulp: near 0 Cephes' polynomial, else `1 - 2 / (e^(2 x) + 1)`.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let (size, z) = (x.abs(), x * x);
    let p = (-5.704_988_7e-3 * z + 2.063_909e-2) * z - 5.373_971_6e-2;
    let near = ((p * z + 1.333_144_2e-1) * z - 3.333_328e-1) * z * x + x;
    let far = (1.0 - 2.0 / (exp(2.0 * size) + 1.0)).copysign(x);
    if size < 0.625 { near } else { far }
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest error in units of the last place over a range of arguments.
    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, range: std::ops::Range<f32>) -> f64 {
        let step = (range.end - range.start) / 200_000.0;
        let error = |i: i32| {
            let x = range.start + i as f32 * step;
            let want = exact(x as f64);
            let ulp = (want.abs() as f32).max(f32::MIN_POSITIVE).to_bits();
            let ulp = (f32::from_bits(ulp + 1) - f32::from_bits(ulp)) as f64;
            (f(x) as f64 - want).abs() / ulp
        };
        (0..200_000).map(error).fold(0.0, f64::max)
    }

    #[test]
    fn functions_are_as_exact_as_they_say() {
        assert!(worst(exp, f64::exp, -87.0..88.7) <= 2.0, "{}", worst(exp, f64::exp, -87.0..88.7));
        assert!(worst(tanh, f64::tanh, -12.0..12.0) <= 3.0, "{}", worst(tanh, f64::tanh, -12.0..12.0));
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        assert!(worst(sigmoid, logistic, -80.0..80.0) <= 4.0, "{}", worst(sigmoid, logistic, -80.0..80.0));
    }

    #[test]
    fn functions_go_on_at_the_ends_of_f32() {
        assert_eq!([exp(-200.0), exp(f32::NEG_INFINITY), exp(0.0)], [0.0, 0.0, 1.0]);
        assert_eq!([exp(88.8), exp(1e30), exp(f32::INFINITY)], [f32::INFINITY; 3]);
        assert_eq!([tanh(f32::INFINITY), tanh(-1e30), tanh(0.0)], [1.0, -1.0, 0.0]);
        assert!(exp(f32::NAN).is_nan() && tanh(f32::NAN).is_nan() && sigmoid(f32::NAN).is_nan());
        assert!(exp(-100.0) > 0.0, "numbers below the smallest normal one");
    }

    #[test]
    fn sums_do_not_depend_on_how_they_are_vectorised() {
        let x: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin()).collect();
        let plain = sum(&x, |v| v * v);
        assert_eq!(plain, vectorized(|| sum(&x, |v| v * v)));
        assert!((plain - x.iter().map(|&v| (v as f64).powi(2)).sum::<f64>()).abs() < 1e-12);
        let mut sums = Sums::new();
        vectorized(|| sums.add(&x, &x, |a, b| [a as f64 * b as f64, a as f64]));
        assert_eq!(sums.total()[0], plain);
    }
}
