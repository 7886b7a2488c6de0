//! What the fast paths share: loops over slices on all threads, compiled for the vector instructions that the processor has, and functions that
//! vectorise. Nothing here depends on the number of threads.

use super::in_parallel;
use pulp::Arch;
use rayon::prelude::*;

/// Elements a thread takes at the least.
const GRAIN: usize = 16_384;
/// Sums that run side by side: a fixed number, so that each processor adds in the same order.
const SUMS: usize = 16;

/// Runs a loop that the compiler vectorises with the widest instructions of this processor. What `f` calls must be inlined into it.
pub fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(f)
}

/// How many elements of `len` one thread takes: fixed by the length alone.
fn chunk(len: usize) -> usize {
    len.div_ceil(64).max(GRAIN)
}

/// `y = f(x)`
pub fn map(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    let part = |x: &[f32], y: &mut [f32]| vectorized(|| y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x)));
    if in_parallel() {
        let n = chunk(x.len());
        x.par_chunks(n).zip(y.par_chunks_mut(n)).for_each(|(x, y)| part(x, y));
    } else {
        part(x, y);
    }
}

/// `y = f(a, b)`
pub fn zip(a: &[f32], b: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    let part =
        |a: &[f32], b: &[f32], y: &mut [f32]| vectorized(|| y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (&a, &b))| *y = f(a, b)));
    if in_parallel() {
        let n = chunk(a.len());
        a.par_chunks(n).zip(b.par_chunks(n)).zip(y.par_chunks_mut(n)).for_each(|((a, b), y)| part(a, b, y));
    } else {
        part(a, b, y);
    }
}

/// `y = f(y, x)`
pub fn update(y: &mut [f32], x: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    let part = |y: &mut [f32], x: &[f32]| vectorized(|| y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(*y, x)));
    if in_parallel() {
        let n = chunk(x.len());
        y.par_chunks_mut(n).zip(x.par_chunks(n)).for_each(|(y, x)| part(y, x));
    } else {
        part(y, x);
    }
}

/// Calls `f(first index, part)` for parts of `y` whose lengths are multiples of `of`, but for the last.
pub fn parts<T: Send>(y: &mut [T], of: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    if in_parallel() {
        let n = chunk(y.len()).next_multiple_of(of);
        y.par_chunks_mut(n).enumerate().for_each(|(i, y)| f(i * n, y));
    } else {
        f(0, y);
    }
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

/// The sums of `f(a, b)` in f64.
#[inline(always)]
pub fn sum2(a: &[f32], b: &[f32], f: impl Fn(f64, f64) -> [f64; 2]) -> [f64; 2] {
    let mut sums = [[0.0f64; SUMS]; 2];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<SUMS>(), b.as_chunks::<SUMS>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..SUMS {
            let terms = f(a[i] as f64, b[i] as f64);
            sums[0][i] += terms[0];
            sums[1][i] += terms[1];
        }
    }
    for (i, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        let terms = f(a as f64, b as f64);
        sums[0][i] += terms[0];
        sums[1][i] += terms[1];
    }
    sums.map(|sums| sums.iter().sum())
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
        assert_eq!(vectorized(|| sum2(&x, &x, |a, b| [a * b, a]))[0], plain);
    }
}
