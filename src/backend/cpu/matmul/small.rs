//! Products too small to be worth packing: operands are read where they lie, row by row and number by number.
//!
//! A tile of `M` rows and up to three registers of columns is summed in registers; a term is a row of `b`, loaded once for all rows, and a number of `a` for
//! each of them. `b` transposed has no rows to load: the result is then computed transposed, with `a` transposed once, which is small.

use super::Strides;
use crate::backend::cpu::fast::{LANES, for_each, load, registers, with_scratch};
use pulp::{Arch, Simd, WithSimd};

/// The most registers of a tile's row.
const WIDE: usize = 3;
/// The most rows of a tile: 8 x 3 sums fit 32 vector registers, 4 x 3 fit 16.
const ROWS: usize = 8;
/// Multiply-adds above which `gemm`, which packs both matrices, is faster.
const MOST: usize = 1 << 23;
/// Rows up to which `a` is transposed for a transposed `b`.
const MOST_ROWS: usize = 128;
/// Terms of a sum, which here has one rounding for each: longer ones are better added in parts, as `gemm` does.
const MOST_TERMS: usize = 1 << 12;

/// Whether [`product`] is the faster way; the matrices are contiguous, each perhaps transposed.
pub fn fits([m, n, k]: [usize; 3], sb: Strides) -> bool {
    let columns = if sb.col == 1 { n } else { m };
    columns >= registers().lanes && m * n * k <= MOST && k <= MOST_TERMS && (sb.col == 1 || m <= MOST_ROWS)
}

/// `y [m, n] = a [m, k] b [k, n]`, plus `bias [n]`. Each sum is in order of k, whatever the number of threads.
pub fn product([m, n, k]: [usize; 3], a: &[f32], sa: Strides, b: &[f32], sb: Strides, bias: Option<&[f32]>, y: &mut [f32]) {
    if sb.col == 1 {
        return rows([m, n, k], a, sa, b, bias, y);
    }
    // y^T [n, m] = b^T [n, k] a^T [k, m]
    with_scratch(k * m + n * m, |memory| {
        let (at, yt) = memory.split_at_mut(k * m);
        let at: &[f32] = if sa.row == 1 {
            &a[..k * m]
        } else {
            transpose(a, [m, k], None, at);
            at
        };
        rows([n, m, k], b, Strides { row: sb.col, col: sb.row }, at, None, yt);
        transpose(yt, [n, m], bias, y);
    });
}

/// `to [columns, rows] = from [rows, columns]`, plus `bias [rows]`.
fn transpose(from: &[f32], [rows, columns]: [usize; 2], bias: Option<&[f32]>, to: &mut [f32]) {
    const SIDE: usize = 16;
    let blocks = to.chunks_mut(SIDE * rows).enumerate().collect();
    for_each(blocks, |(i, to): (usize, &mut [f32])| {
        for first in (0..rows).step_by(SIDE) {
            let last = (first + SIDE).min(rows);
            for (j, to) in to.chunks_exact_mut(rows).enumerate() {
                let column = i * SIDE + j;
                for (r, to) in (first..last).zip(&mut to[first..last]) {
                    *to = from[r * columns + column];
                }
            }
        }
        if let Some(bias) = bias {
            to.chunks_exact_mut(rows).for_each(|to| to.iter_mut().zip(bias).for_each(|(to, &b)| *to += b));
        }
    });
}

/// As [`product`], with `b` row by row.
fn rows([m, n, k]: [usize; 3], a: &[f32], sa: Strides, b: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let most = if registers().many { ROWS } else { ROWS / 2 };
    // Blocks of rows whose sizes differ by one at most, in two parts or more a thread.
    let blocks = m.div_ceil(most);
    let each = blocks.div_ceil(4 * crate::backend::cpu::threads());
    let mut rest = y;
    let mut parts = Vec::new();
    for first in (0..blocks).step_by(each) {
        let last = (first + each).min(blocks);
        let from = first * m / blocks;
        let (part, others) = std::mem::take(&mut rest).split_at_mut((last * m / blocks - from) * n);
        rest = others;
        parts.push((first..last, from, part));
    }
    for_each(parts, |(part, from, y)| {
        Arch::new().dispatch(Rows {
            blocks: part.map(|i| i * m / blocks - from..(i + 1) * m / blocks - from).collect(),
            from,
            n,
            k,
            a,
            sa,
            b,
            bias,
            y,
        });
    });
}

/// Some blocks of rows; `y` begins with row `from`, as the blocks do.
struct Rows<'a> {
    blocks: Vec<std::ops::Range<usize>>,
    from: usize,
    n: usize,
    k: usize,
    a: &'a [f32],
    sa: Strides,
    b: &'a [f32],
    bias: Option<&'a [f32]>,
    y: &'a mut [f32],
}

impl WithSimd for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let lanes = S::F32_LANES;
        // The columns of a tile stay in the first-level cache for all blocks of rows.
        let mut column = 0;
        while column < self.n {
            // What is left of the last register is computed twice.
            let width = (self.n - column).div_ceil(lanes).min(WIDE);
            for block in self.blocks.clone() {
                match block.len() {
                    1 => self.block::<S, 1>(simd, block.start, column, width),
                    2 => self.block::<S, 2>(simd, block.start, column, width),
                    3 => self.block::<S, 3>(simd, block.start, column, width),
                    4 => self.block::<S, 4>(simd, block.start, column, width),
                    5 => self.block::<S, 5>(simd, block.start, column, width),
                    6 => self.block::<S, 6>(simd, block.start, column, width),
                    7 => self.block::<S, 7>(simd, block.start, column, width),
                    _ => self.block::<S, ROWS>(simd, block.start, column, width),
                }
            }
            column += width * lanes;
        }
    }
}

impl Rows<'_> {
    #[inline(always)]
    fn block<S: Simd, const M: usize>(&mut self, simd: S, row: usize, column: usize, width: usize) {
        match width {
            1 => self.tile::<S, M, 1>(simd, row, column),
            2 => self.tile::<S, M, 2>(simd, row, column),
            _ => self.tile::<S, M, WIDE>(simd, row, column),
        }
    }

    /// `M` rows and `W` registers of columns.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const W: usize>(&mut self, simd: S, row: usize, column: usize) {
        let (lanes, n, k) = (S::F32_LANES, self.n, self.k);
        // Registers beyond the last column begin earlier.
        let columns: [usize; W] = std::array::from_fn(|w| (column + w * lanes).min(n - lanes));
        let mut sums = [[simd.splat_f32s(0.0); W]; M];
        let first = self.from + row;
        let terms = self.b[..k * n].chunks_exact(n);
        if self.sa.col == 1 {
            let lines: [&[f32]; M] = std::array::from_fn(|m| &self.a[(first + m) * self.sa.row..][..k]);
            for (j, line) in terms.enumerate() {
                let mut numbers = [0.0; M];
                for m in 0..M {
                    numbers[m] = lines[m][j];
                }
                sums = add_term::<S, M, W>(simd, sums, line, columns, numbers);
            }
        } else {
            for (j, line) in terms.enumerate() {
                let mut numbers = [0.0; M];
                numbers.copy_from_slice(&self.a[j * self.sa.col + first..][..M]);
                sums = add_term::<S, M, W>(simd, sums, line, columns, numbers);
            }
        }
        // By a loop of nothing else, which is unrolled: else all sums lie in memory, and each term is added there.
        let mut results = [[[0.0f32; LANES]; W]; M];
        for m in 0..M {
            for w in 0..W {
                results[m][w][..lanes].copy_from_slice(bytemuck::cast_slice(&[sums[m][w]]));
            }
        }
        for (m, results) in results.iter().enumerate() {
            let line = &mut self.y[(row + m) * n..][..n];
            for (&at, result) in columns.iter().zip(results) {
                let to = &mut line[at..at + lanes];
                match self.bias {
                    Some(bias) => to.iter_mut().zip(&result[..lanes]).zip(&bias[at..]).for_each(|((to, v), b)| *to = v + b),
                    None => to.copy_from_slice(&result[..lanes]),
                }
            }
        }
    }
}

/// Adds a term: `M` numbers of `a` times registers of a row of `b`. Not a closure, which would be compiled for any processor; and by value, since sums behind a
/// reference are written to memory with each term.
#[inline(always)]
fn add_term<S: Simd, const M: usize, const W: usize>(
    simd: S,
    mut sums: [[S::f32s; W]; M],
    line: &[f32],
    columns: [usize; W],
    numbers: [f32; M],
) -> [[S::f32s; W]; M] {
    let mut terms = [simd.splat_f32s(0.0); W];
    for w in 0..W {
        terms[w] = load::<S>(&line[columns[w]..]);
    }
    for m in 0..M {
        let number = simd.splat_f32s(numbers[m]);
        for w in 0..W {
            sums[m][w] = simd.mul_add_e_f32s(number, terms[w], sums[m][w]);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    #[test]
    fn every_order_and_remainder_is_the_definition() {
        let numbers = |n: usize, name: &str| -> Vec<f32> { (0..n).map(|i| Stream::new(1, name, 0, 0).normal(i as u64) as f32).collect() };
        for [m, n, k] in [[1, 16, 1], [7, 33, 5], [64, 48, 19], [17, 100, 8], [128, 16, 3], [35, 40, 0]] {
            let (a, b, bias) = (numbers(m * k, "a"), numbers(k * n, "b"), numbers(n, "bias"));
            for (ta, tb) in [(false, false), (true, false), (false, true), (true, true)] {
                let sa = if ta { Strides { row: 1, col: m } } else { Strides { row: k, col: 1 } };
                let sb = if tb { Strides { row: 1, col: k } } else { Strides { row: n, col: 1 } };
                if !fits([m, n, k], sb) {
                    continue;
                }
                let mut y = vec![f32::NAN; m * n];
                product([m, n, k], &a, sa, &b, sb, Some(&bias), &mut y);
                for (i, &y) in y.iter().enumerate() {
                    let (r, c) = (i / n, i % n);
                    let terms = (0..k).map(|j| a[r * sa.row + j * sa.col] as f64 * b[j * sb.row + c * sb.col] as f64);
                    let (want, size) = terms.fold((bias[c] as f64, bias[c].abs() as f64), |(sum, size), t| (sum + t, size + t.abs()));
                    // A rounding a term of sums no larger than that of the absolute values.
                    assert!((y as f64 - want).abs() <= (k + 1) as f64 * size / 16_777_216.0, "{m} {n} {k} {ta} {tb}: {r}, {c}");
                }
            }
        }
    }
}
