//! Products whose terms lie side by side in both operands, `y[i][j] (+)= sum over k of a[i][k] b[j][k]`: `x W^T` of a linear layer, sums over pixels of a
//! weight's gradient. `gemm` first copies both into the order that its kernels read; here they are read as they lie.

use crate::backend::cpu::fast::{for_each, load};
use crate::backend::cpu::threads;
use pulp::{Arch, Simd, WithSimd};

/// Terms at a time: six rows of b fit a first-level cache, [`ROWS`] of a a second-level one.
const CHUNK: usize = 1024;
/// Rows of a for a task.
const ROWS: usize = 64;

/// Some of the results: `y[i][j]` of `a[i * stride_a..]` and `b[j * stride_b..]`, `terms` each.
struct Block<'a> {
    a: &'a [f32],
    stride_a: usize,
    b: &'a [f32],
    stride_b: usize,
    terms: usize,
    y: Vec<&'a mut [f32]>,
    add: bool,
}

impl Block<'_> {
    /// Sums of `R` x `C` results in registers. Each result is the same sum, in the same order, wherever in a block it is.
    #[inline(always)]
    fn tiles<S: Simd, const R: usize, const C: usize>(mut self, simd: S) {
        let (rows, cols) = (self.y.len(), self.y[0].len());
        for from in (0..self.terms).step_by(CHUNK) {
            let len = CHUNK.min(self.terms - from);
            let whole = len / S::F32_LANES * S::F32_LANES;
            for j in (0..cols).step_by(C) {
                // At the edges of the block the last row is repeated.
                let b: [&[f32]; C] = std::array::from_fn(|c| &self.b[(j + c).min(cols - 1) * self.stride_b + from..][..len]);
                for i in (0..rows).step_by(R) {
                    let a: [&[f32]; R] = std::array::from_fn(|r| &self.a[(i + r).min(rows - 1) * self.stride_a + from..][..len]);
                    let mut sums = [[simd.splat_f32s(0.0); C]; R];
                    for p in (0..whole).step_by(S::F32_LANES) {
                        let mut left = [simd.splat_f32s(0.0); R];
                        for r in 0..R {
                            left[r] = load::<S>(&a[r][p..]);
                        }
                        for c in 0..C {
                            let right = load::<S>(&b[c][p..]);
                            for r in 0..R {
                                sums[r][c] = simd.mul_add_e_f32s(left[r], right, sums[r][c]);
                            }
                        }
                    }
                    if whole < len {
                        for r in 0..R {
                            let left = simd.partial_load_f32s(&a[r][whole..]);
                            for c in 0..C {
                                sums[r][c] = simd.mul_add_e_f32s(left, simd.partial_load_f32s(&b[c][whole..]), sums[r][c]);
                            }
                        }
                    }
                    // Places of a register are constants: sums that a variable chooses from would live in memory.
                    let mut totals = [[0.0; C]; R];
                    for r in 0..R {
                        for c in 0..C {
                            totals[r][c] = simd.reduce_sum_f32s(sums[r][c]);
                        }
                    }
                    for (y, totals) in self.y[i..].iter_mut().zip(totals) {
                        for (y, total) in y[j..].iter_mut().zip(totals) {
                            *y = if self.add || from > 0 { *y + total } else { total };
                        }
                    }
                }
            }
        }
    }
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        // As many sums as the registers hold.
        if S::REGISTER_COUNT >= 32 { self.tiles::<S, 4, 6>(simd) } else { self.tiles::<S, 3, 4>(simd) }
    }
}

/// Whether this is faster than `gemm`: sums across the lanes of a register are dear, so that they have to be long, or so few that moving the operands takes
/// longest. Measured with AVX-512, docs/performance.md.
pub fn pays([m, n, k]: [usize; 3]) -> bool {
    let few = m.min(n);
    few > 1 && (few <= 128 && k >= 512 || few <= 8 && m.max(n) * k >= 1 << 15)
}

/// `y [m, n] (+)= a [m, k] b [n, k]^T`; the rows of a and b are `stride_a` and `stride_b` apart, `k` is at least 1.
pub fn product([m, n, k]: [usize; 3], a: &[f32], stride_a: usize, b: &[f32], stride_b: usize, y: &mut [f32], add: bool) {
    // Rows of b for a task: the more, the less often a is read. No result depends on it.
    let cols = (n / threads()).clamp(24, 96).next_multiple_of(12);
    let mut blocks: Vec<Block> = Vec::new();
    for (i, y) in y[..m * n].chunks_mut(ROWS * n).enumerate() {
        let first = blocks.len();
        for row in y.chunks_mut(n) {
            for (j, y) in row.chunks_mut(cols).enumerate() {
                if first + j == blocks.len() {
                    let (a, b) = (&a[i * ROWS * stride_a..], &b[j * cols * stride_b..]);
                    blocks.push(Block { a, stride_a, b, stride_b, terms: k, y: Vec::with_capacity(ROWS), add });
                }
                blocks[first + j].y.push(y);
            }
        }
    }
    for_each(blocks, |block| Arch::new().dispatch(block));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    /// Each result within the error of a sum of so many terms, gamma_k of Higham 2002 ("Accuracy and Stability of Numerical Algorithms", 3.5), and the same bits
    /// wherever it is computed.
    #[test]
    fn every_edge_of_a_block_is_the_sum_that_it_should_be() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let sizes = [[1, 1, 1], [2, 3, 15], [5, 7, 16], [4, 6, 33], [70, 30, 40], [3, 100, 1024], [9, 13, 1025], [66, 25, 2063]];
        for [m, n, k] in sizes {
            let numbers = |name: &str, len: usize| -> Vec<f32> {
                let stream = Stream::new(7, name, 0, 0);
                (0..len as u64).map(|i| 2.0 * stream.uniform(i) - 1.0).collect()
            };
            // Rows further apart than they are long.
            let (a, b, before) = (numbers("a", m * (k + 2)), numbers("b", n * (k + 1)), numbers("y", m * n));
            for add in [false, true] {
                let mut y = before.clone();
                product([m, n, k], &a, k + 2, &b, k + 1, &mut y, add);
                for (i, row) in y.chunks(n).enumerate() {
                    for (j, &got) in row.iter().enumerate() {
                        let terms = || (0..k).map(|t| a[i * (k + 2) + t] as f64 * b[j * (k + 1) + t] as f64);
                        let start = if add { before[i * n + j] as f64 } else { 0.0 };
                        let (want, size) = (start + terms().sum::<f64>(), start.abs() + terms().map(f64::abs).sum::<f64>());
                        let bound = (k + 1) as f64 * f32::EPSILON as f64 / 2.0 * size;
                        assert!((got as f64 - want).abs() <= bound, "{m} x {n} x {k}, {i} {j}: {got}, not {want}");
                    }
                }
                let mut other = before.clone();
                pool.install(|| product([m, n, k], &a, k + 2, &b, k + 1, &mut other, add));
                assert_eq!(y, other);
            }
        }
    }
}
