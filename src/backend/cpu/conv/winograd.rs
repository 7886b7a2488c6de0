//! 3x3 convolution by minimal filtering, F(2x2, 3x3): Winograd 1980, in the form of Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural
//! Networks", arXiv:1509.09308, section 4.1.
//!
//! A tile of 2x2 results sees 4x4 pixels: `y = A^T [(G g G^T) * (B^T d B)] A`, with 16 multiplications in the place of 36. Summed over channels, each of
//! the 16 places is a matrix product of its own, `M [K, tiles] = U [K, C] V [C, tiles]`. The gradient of the input is the same with the kernel turned
//! around; that of the weight is the transposed formula, `dg = G^T [sum over tiles of (A dy A^T) * (B^T d B)] G`.
//!
//! All factors are 0, 1, -1 and 1/2, so that errors are a small multiple of a direct sum's. But they are relative to the largest pixel of a tile, not to
//! what a result itself sums: an infinite or NaN pixel spreads over the results of its tile.

use super::{ChannelEnd, End, Sizes};
use crate::backend::cpu::fast::{LANES, add_assign, for_each, load, registers, vectorized, with_scratch};
use crate::backend::cpu::threads;
use pulp::{Arch, Simd, WithSimd};
use std::ops::Range;

/// Places of a tile.
const PLACES: usize = 16;
/// Registers of tiles in a product's inner loop.
const WIDE: usize = 3;
/// Result channels that a task takes.
const ROWS: usize = 64;
/// Parts of the source channels whose tiles different threads may transform, at most.
const PIECES: usize = 8;
/// Tiles times source channels up to which all tiles are one block, if there are more kernels than that.
const FEW_TILES: usize = 128 << 10;
/// Bytes of transformed tiles that are multiplied at a time: about a second-level cache.
const BLOCK_BYTES: usize = 1 << 20;
/// In the weight's gradient: tiles that one thread transforms at a time, and how many times as many it multiplies at once.
const UNIT_TILES: usize = 32;
const GRADIENT_UNITS: usize = 4;
/// Parts of the images that have sums of their own there, at most, and the bytes of all sums. A core then reads only what it has transformed itself.
const PARTS: usize = 16;
const PARTS_BYTES: usize = 4 << 20;

/// Whether this is a convolution that it can compute.
pub fn can(s: &Sizes) -> bool {
    let o = &s.options;
    // The input's gradient pads by 2 - padding.
    [s.kh, s.kw] == [3, 3] && o.stride == [1, 1] && o.dilation == [1, 1] && o.groups == 1 && o.padding.iter().all(|&p| p <= 2)
}

/// What tiles are cut from: planes of `size` pixels, `padding` zeros before them, `out` results of each.
#[derive(Clone, Copy)]
struct Grid {
    size: [usize; 2],
    padding: [usize; 2],
    out: [usize; 2],
}

impl Grid {
    /// Rows of tiles of an image.
    fn rows(&self) -> usize {
        self.out[0].div_ceil(2)
    }

    /// Tiles of a row.
    fn cols(&self) -> usize {
        self.out[1].div_ceil(2)
    }

    /// Elements of half a line: every second pixel of a row, and what whole registers of tiles read behind it.
    fn half(&self) -> usize {
        self.cols() + 1 + LANES
    }

    /// `B^T d B` of rows of tiles, counted through all images, into `[place][tile]`, places `pitch` apart. May write up to 15 values behind the last tile.
    fn input<'a>(&self, rows: &Range<usize>, plane_of: impl Fn(usize) -> &'a [f32], into: &mut [f32], pitch: usize) {
        let ([height, width], half, cols) = (self.size, self.half(), self.cols());
        with_scratch(8 * half, |lines| {
            lines.fill(0.0);
            for (row, number) in rows.clone().enumerate() {
                let (plane, first) = (plane_of(number / self.rows()), 2 * (number % self.rows()));
                for (i, line) in lines.chunks_exact_mut(2 * half).enumerate() {
                    match (first + i).checked_sub(self.padding[0]) {
                        Some(h) if h < height => split(&plane[h * width..][..width], self.padding[1], line, half),
                        _ => line.fill(0.0),
                    }
                }
                Arch::new().dispatch(InputTiles { lines, half, cols, into: &mut into[row * cols..], pitch });
            }
        });
    }

    /// `A^T m A`, ended, of a row of tiles into its one or two rows of results; the places of `m` are `pitch` apart.
    fn output(&self, m: &[f32], pitch: usize, end: ChannelEnd, y: &mut [f32]) {
        let half = self.half();
        with_scratch(4 * half, |lines| {
            Arch::new().dispatch(OutputTiles { m, pitch, end, cols: self.cols(), lines, half });
            for (y, line) in y.chunks_exact_mut(self.out[1]).zip(lines.chunks_exact(2 * half)) {
                let (even, odd) = line.split_at(half);
                vectorized(|| {
                    let (pairs, last) = y.as_chunks_mut::<2>();
                    for (pair, (&even, &odd)) in pairs.iter_mut().zip(even.iter().zip(odd)) {
                        *pair = [even, odd];
                    }
                    last.iter_mut().zip(&even[pairs.len()..]).for_each(|(y, &even)| *y = even);
                });
            }
        });
    }
}

/// A row of pixels after `padding` zeros as every second of them from the first, and from `half` on from the second.
fn split(pixels: &[f32], padding: usize, line: &mut [f32], half: usize) {
    let (even, odd) = line.split_at_mut(half);
    let (first, second) = match padding % 2 {
        0 => (&mut even[padding / 2..], &mut odd[padding / 2..]),
        _ => (&mut odd[padding / 2..], &mut even[padding / 2 + 1..]),
    };
    vectorized(|| {
        let (pairs, last) = pixels.as_chunks::<2>();
        for (pair, (first, second)) in pairs.iter().zip(first.iter_mut().zip(second)) {
            [*first, *second] = *pair;
        }
        last.iter().zip(&mut first[pairs.len()..]).for_each(|(&pixel, first)| *first = pixel);
    });
}

#[inline(always)]
fn store<S: Simd>(to: &mut [f32], at: usize, v: S::f32s) {
    to[at..][..S::F32_LANES].copy_from_slice(bytemuck::cast_slice(&[v]));
}

/// `f m f^T` of a small matrix, whose number at a row and a column `at` gives: `f` down each column, then along each row.
#[inline(always)]
fn both_ways<V: Copy, const N: usize, const M: usize>(
    zero: V,
    at: impl Fn(usize, usize) -> V,
    f: impl Fn([V; N]) -> [V; M],
) -> [[V; M]; M] {
    // Plain loops: what the closures of iterators call might be compiled for any processor.
    let mut down = [[zero; N]; M];
    for j in 0..N {
        let mut column = [zero; N];
        for i in 0..N {
            column[i] = at(i, j);
        }
        let column = f(column);
        for i in 0..M {
            down[i][j] = column[i];
        }
    }
    let mut out = [[zero; M]; M];
    for i in 0..M {
        out[i] = f(down[i]);
    }
    out
}

/// `B^T v`
#[inline(always)]
fn input_transform<S: Simd>(simd: S, [a, b, c, d]: [S::f32s; 4]) -> [S::f32s; 4] {
    [simd.sub_f32s(a, c), simd.add_f32s(b, c), simd.sub_f32s(c, b), simd.sub_f32s(b, d)]
}

/// `A v`
#[inline(always)]
fn gradient_transform<S: Simd>(simd: S, [a, b]: [S::f32s; 2]) -> [S::f32s; 4] {
    [a, simd.add_f32s(a, b), simd.sub_f32s(a, b), simd.sub_f32s(simd.splat_f32s(0.0), b)]
}

/// Stores the 16 places, `pitch` apart.
#[inline(always)]
fn store_places<S: Simd>(into: &mut [f32], pitch: usize, at: usize, places: [[S::f32s; 4]; 4]) {
    for i in 0..4 {
        for j in 0..4 {
            store::<S>(into, (4 * i + j) * pitch + at, places[i][j]);
        }
    }
}

/// `B^T d B` of a row of tiles from the four rows of pixels that it sees, each [`split`].
struct InputTiles<'a> {
    lines: &'a [f32],
    half: usize,
    cols: usize,
    into: &'a mut [f32],
    pitch: usize,
}

impl WithSimd for InputTiles<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for col in (0..self.cols).step_by(S::F32_LANES) {
            let pixel = |i: usize, j: usize| load::<S>(&self.lines[(2 * i + j % 2) * self.half + j / 2 + col..]);
            let places = both_ways(simd.splat_f32s(0.0), pixel, |v| input_transform(simd, v));
            store_places::<S>(self.into, self.pitch, col, places);
        }
    }
}

/// `A^T m A`, ended, of a row of tiles: two rows of results, each as by [`split`].
struct OutputTiles<'a> {
    m: &'a [f32],
    pitch: usize,
    end: ChannelEnd,
    cols: usize,
    lines: &'a mut [f32],
    half: usize,
}

impl WithSimd for OutputTiles<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let bounded = self.end.least > f32::NEG_INFINITY;
        let [bias, least, most] = [self.end.bias, self.end.least, self.end.most].map(|v| simd.splat_f32s(v));
        let transform = |[a, b, c, d]: [S::f32s; 4]| [simd.add_f32s(simd.add_f32s(a, b), c), simd.sub_f32s(simd.sub_f32s(b, c), d)];
        for col in (0..self.cols).step_by(S::F32_LANES) {
            let place = |i: usize, j: usize| load::<S>(&self.m[(4 * i + j) * self.pitch + col..]);
            let results = both_ways(bias, place, transform);
            for i in 0..2 {
                for j in 0..2 {
                    let mut v = simd.add_f32s(results[i][j], bias);
                    // As `ChannelEnd::of`.
                    if bounded {
                        v = simd.select_f32s(simd.less_than_or_equal_f32s(v, least), least, v);
                        v = simd.select_f32s(simd.greater_than_or_equal_f32s(v, most), most, v);
                    }
                    store::<S>(self.lines, (2 * i + j) * self.half + col, v);
                }
            }
        }
    }
}

/// Kernels `[result channel, source channel]` of a pass, as it reads them.
struct Kernels<'a> {
    weight: &'a [f32],
    /// From one result channel's and one source channel's kernel to the next one's.
    strides: [usize; 2],
    /// Whether they are turned around, as for the input's gradient.
    turned: bool,
}

impl Kernels<'_> {
    /// `G g G^T` of `R` result channels from `first` on, of which `rows` exist, `[place][source channel][R]`.
    fn transform<const R: usize>(&self, first: usize, rows: usize, channels: usize, into: &mut [f32]) {
        vectorized(
            #[inline(always)]
            || {
                for from in (0..channels).step_by(LANES) {
                    // Some channels first gathered, then transformed: a register that is read right after its numbers were written one by one has to wait.
                    let count = LANES.min(channels - from);
                    let mut g = [[[0.0; R]; 9]; LANES];
                    for r in 0..R.min(rows) {
                        for (c, g) in g[..count].iter_mut().enumerate() {
                            let kernel = &self.weight[(first + r) * self.strides[0] + (from + c) * self.strides[1]..][..9];
                            for tap in 0..9 {
                                g[tap][r] = kernel[if self.turned { 8 - tap } else { tap }];
                            }
                        }
                    }
                    for (c, g) in g[..count].iter().enumerate() {
                        // Not by `both_ways`, which copies these arrays: 3 to 8 % of a convolution of 256 channels on four images.
                        let mut down = [[[0.0; R]; 3]; 4];
                        for j in 0..3 {
                            let rows = kernel_rows([g[j], g[3 + j], g[6 + j]]);
                            for i in 0..4 {
                                down[i][j] = rows[i];
                            }
                        }
                        for (i, row) in down.into_iter().enumerate() {
                            for (j, place) in kernel_rows(row).iter().enumerate() {
                                into[((4 * i + j) * channels + from + c) * R..][..R].copy_from_slice(place);
                            }
                        }
                    }
                }
            },
        );
    }
}

/// `G v` of `R` vectors of three.
#[inline(always)]
fn kernel_rows<const R: usize>([a, b, c]: [[f32; R]; 3]) -> [[f32; R]; 4] {
    let mut out = [a, [0.0; R], [0.0; R], c];
    for r in 0..R {
        out[1][r] = 0.5 * (a[r] + b[r] + c[r]);
        out[2][r] = 0.5 * (a[r] - b[r] + c[r]);
    }
    out
}

/// `m [row, col] (+)= sum over terms of u [term, row] v [term, col]`, columns in whole registers.
struct Product<'a> {
    /// Terms lie in pieces of so many.
    pieces: usize,
    terms: usize,
    /// Weights: from one block of `R` rows, one piece and one term to the next one.
    u: &'a [f32],
    u_strides: [usize; 3],
    /// The same of what they are multiplied by: piece and term.
    v: &'a [f32],
    v_strides: [usize; 2],
    m: &'a mut [f32],
    /// From one block of rows, and one row, to the next one.
    m_strides: [usize; 2],
    rows: usize,
    cols: usize,
    add: bool,
}

impl Product<'_> {
    #[inline(always)]
    fn blocks<S: Simd, const R: usize>(mut self, simd: S) {
        let lanes = S::F32_LANES;
        let registers = self.cols / lanes;
        let tiles = registers.div_ceil(WIDE);
        for tile in 0..tiles {
            // Four registers are two and two: one alone has more loads than multiplications.
            let (from, to) = (tile * registers / tiles, (tile + 1) * registers / tiles);
            for block in 0..self.rows.div_ceil(R) {
                match to - from {
                    1 => self.tile::<S, R, 1>(simd, from * lanes, block),
                    2 => self.tile::<S, R, 2>(simd, from * lanes, block),
                    _ => self.tile::<S, R, WIDE>(simd, from * lanes, block),
                }
            }
        }
    }

    /// `R` rows of `W` registers.
    #[inline(always)]
    fn tile<S: Simd, const R: usize, const W: usize>(&mut self, simd: S, at: usize, block: usize) {
        let (lanes, [u_block, u_piece, u_term], [v_piece, v_term]) = (S::F32_LANES, self.u_strides, self.v_strides);
        let m = &mut self.m[block * self.m_strides[0]..];
        let mut sums = [[simd.splat_f32s(0.0); W]; R];
        if self.add {
            for r in 0..R {
                for w in 0..W {
                    sums[r][w] = load::<S>(&m[r * self.m_strides[1] + at + w * lanes..]);
                }
            }
        }
        for piece in 0..self.pieces {
            let u = &self.u[block * u_block + piece * u_piece..][..(self.terms - 1) * u_term + R];
            let v = &self.v[piece * v_piece..][..self.terms * v_term];
            for (u, v) in u.chunks(u_term).zip(v.chunks_exact(v_term)) {
                let (u, v) = (&u[..R], &v[at..][..W * lanes]);
                let mut cols = [simd.splat_f32s(0.0); W];
                for w in 0..W {
                    cols[w] = load::<S>(&v[w * lanes..]);
                }
                for r in 0..R {
                    let weight = simd.splat_f32s(u[r]);
                    for w in 0..W {
                        sums[r][w] = simd.mul_add_e_f32s(weight, cols[w], sums[r][w]);
                    }
                }
            }
        }
        for r in 0..R {
            for w in 0..W {
                store::<S>(m, r * self.m_strides[1] + at + w * lanes, sums[r][w]);
            }
        }
    }
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if S::REGISTER_COUNT >= 32 { self.blocks::<S, 8>(simd) } else { self.blocks::<S, 4>(simd) }
    }
}

/// Rows of tiles that are computed together, of `total`: at most as many as fill a block; all of them read the transformed weights once.
fn rows_at_once(total: usize, cols: usize, channels: usize, results: usize) -> usize {
    let bytes = BLOCK_BYTES.max(PLACES * channels * results).min(8 * BLOCK_BYTES);
    let most = (bytes / (PLACES * 4 * (channels + results.min(ROWS))) / cols).max((WIDE * LANES).div_ceil(cols)).min(total);
    let cost = |rows: usize| {
        // Registers of tiles, and weights loaded for three of them; and how long the thread with the most blocks takes.
        let registers = (rows * cols).div_ceil(LANES) + 2 * (rows * cols).div_ceil(WIDE * LANES);
        registers * total.div_ceil(rows).div_ceil(threads())
    };
    (most.div_ceil(2)..=most).min_by_key(|&rows| (cost(rows), std::cmp::Reverse(rows))).unwrap_or(1)
}

/// The sums over source channels, `y [N, K, out]` from `x [N, C, size]`.
struct Pass<'a> {
    grid: Grid,
    channels: usize,
    results: usize,
    x: &'a [f32],
    kernels: Kernels<'a>,
    /// Of the result channels.
    end: End<'a>,
}

/// Some rows of tiles, transformed: `[piece][place][channel of the piece][tile]`.
struct Block<'a> {
    rows: Range<usize>,
    v: &'a [f32],
    pieces: usize,
    /// Tiles in whole registers: the distance of channels.
    pitch: usize,
    place_len: usize,
}

impl Pass<'_> {
    fn run(&self, y: &mut [f32]) {
        let (grid, cols) = (&self.grid, self.grid.cols());
        let total = y.len() / (self.results * grid.out[0] * grid.out[1]) * grid.rows();
        // Many kernels and few tiles: each task transforms the kernels of its rows itself, so that these do not leave its second-level cache.
        let few = total * cols * self.channels <= FEW_TILES.min(self.channels * self.results);
        let at_once = if few { total } else { rows_at_once(total, cols, self.channels, self.results) };
        let blocks: Vec<Range<usize>> = (0..total).step_by(at_once).map(|first| first..(first + at_once).min(total)).collect();
        let parts = self.parts(&blocks, at_once, y);
        let r = rows_at_a_time();
        let kept = if few { 0 } else { self.results.div_ceil(r) * PLACES * self.channels * r };
        with_scratch(kept, |u| {
            self.kernels_of(0, u);
            let u = &*u;
            for_each(blocks.into_iter().zip(parts).collect(), |(rows, parts)| {
                let pitch = (rows.len() * cols).next_multiple_of(LANES);
                let pieces = (1..=PIECES).rev().find(|&pieces| self.channels.is_multiple_of(pieces)).unwrap_or(1);
                // What is written behind one channel's last tile belongs to the next channel, or to nothing behind the last one.
                let place_len = self.channels / pieces * pitch + LANES;
                with_scratch(pieces * PLACES * place_len, |v| {
                    for_each(v.chunks_exact_mut(PLACES * place_len).enumerate().collect(), |(piece, v): (usize, &mut [f32])| {
                        let plane = grid.size[0] * grid.size[1];
                        for i in 0..self.channels / pieces {
                            let c = piece * (self.channels / pieces) + i;
                            grid.input(&rows, |n| &self.x[(n * self.channels + c) * plane..][..plane], &mut v[i * pitch..], place_len);
                        }
                    });
                    let block = Block { rows, v, pieces, pitch, place_len };
                    for_each(parts.into_iter().enumerate().collect(), |(task, parts)| {
                        let first = task * ROWS;
                        if few {
                            let rows = ROWS.min(self.results - first).next_multiple_of(r);
                            with_scratch(rows * PLACES * self.channels, |u| {
                                self.kernels_of(first, u);
                                self.task(&block, first, u, parts);
                            });
                        } else {
                            self.task(&block, first, &u[first * PLACES * self.channels..], parts);
                        }
                    });
                });
            });
        });
    }

    /// The rows of results that each task of each block makes: by image and channel.
    fn parts<'y>(&self, blocks: &[Range<usize>], at_once: usize, y: &'y mut [f32]) -> Vec<Vec<Vec<&'y mut [f32]>>> {
        let grid = &self.grid;
        let mut parts: Vec<Vec<Vec<&mut [f32]>>> =
            blocks.iter().map(|_| (0..self.results.div_ceil(ROWS)).map(|_| Vec::new()).collect()).collect();
        for (i, mut plane) in y.chunks_exact_mut(grid.out[0] * grid.out[1]).enumerate() {
            let (image, k) = (i / self.results, i % self.results);
            let all = image * grid.rows()..(image + 1) * grid.rows();
            for i in all.start / at_once..all.end.div_ceil(at_once) {
                let rows = blocks[i].start.max(all.start)..blocks[i].end.min(all.end);
                let (part, rest) = plane.split_at_mut(plane.len().min(rows.len() * 2 * grid.out[1]));
                parts[i][k / ROWS].push(part);
                plane = rest;
            }
        }
        parts
    }

    /// The transformed kernels of as many result channels from `first` on as `u` has room for, `[rows at a time][place][channel][row]`.
    fn kernels_of(&self, first: usize, u: &mut [f32]) {
        let r = rows_at_a_time();
        for_each(u.chunks_exact_mut(PLACES * self.channels * r).enumerate().collect(), |(i, u): (usize, &mut [f32])| {
            let first = first + i * r;
            match r {
                8 => self.kernels.transform::<8>(first, self.results - first, self.channels, u),
                _ => self.kernels.transform::<4>(first, self.results - first, self.channels, u),
            }
        });
    }

    /// The results `parts` of a block, channels from `first` on.
    fn task(&self, block: &Block, first: usize, u: &[f32], parts: Vec<&mut [f32]>) {
        let (grid, r, pitch) = (&self.grid, rows_at_a_time(), block.pitch);
        let (rows, packed) = (ROWS.min(self.results - first), self.channels * r);
        with_scratch(PLACES * ROWS * pitch + LANES, |m| {
            for place in 0..PLACES {
                Arch::new().dispatch(Product {
                    pieces: block.pieces,
                    terms: self.channels / block.pieces,
                    u: &u[place * packed..],
                    u_strides: [PLACES * packed, packed / block.pieces, r],
                    v: &block.v[place * block.place_len..],
                    v_strides: [PLACES * block.place_len, pitch],
                    m: &mut m[place * r * pitch..],
                    m_strides: [PLACES * r * pitch, pitch],
                    rows,
                    cols: pitch,
                    add: false,
                });
            }
            let (mut parts, mut row) = (parts.into_iter(), block.rows.start);
            while row < block.rows.end {
                let count = (block.rows.end - row).min(grid.rows() - row % grid.rows());
                for (k, part) in parts.by_ref().take(rows).enumerate() {
                    let end = self.end.of(first + k);
                    let m = &m[(k / r * r * PLACES + k % r) * pitch..];
                    for (i, y) in part.chunks_mut(2 * grid.out[1]).enumerate() {
                        grid.output(&m[(row - block.rows.start + i) * grid.cols()..], r * pitch, end, y);
                    }
                }
                row += count;
            }
        });
    }
}

/// Result channels of one product's inner loop: 8 x 3 sums fit 32 vector registers, 4 x 3 fit 16.
fn rows_at_a_time() -> usize {
    if registers().many { 8 } else { 4 }
}

/// `y [N, K, oH, oW]` from `x [N, C, H, W]` and `weight [K, C, 3, 3]`.
pub fn forward(s: &Sizes, x: &[f32], weight: &[f32], end: End, y: &mut [f32]) {
    let grid = Grid { size: [s.h, s.w], padding: s.options.padding, out: [s.oh, s.ow] };
    let kernels = Kernels { weight, strides: [9 * s.c, 9], turned: false };
    Pass { grid, channels: s.c, results: s.k, x, kernels, end }.run(y);
}

/// `dx [N, C, H, W]` from `dy [N, K, oH, oW]` and `weight [K, C, 3, 3]`.
pub fn backward_input(s: &Sizes, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    let grid = Grid { size: [s.oh, s.ow], padding: s.options.padding.map(|p| 2 - p), out: [s.h, s.w] };
    let kernels = Kernels { weight, strides: [9, 9 * s.c], turned: true };
    Pass { grid, channels: s.k, results: s.c, x: dy, kernels, end: End::default() }.run(dx);
}

/// Rows of pixels with their channels side by side, `[row][pixel][channel]`, `lanes` channels each.
struct Pixels<'a> {
    from: &'a [f32],
    channels: usize,
    size: [usize; 2],
    lanes: usize,
}

impl Pixels<'_> {
    /// One row of an image, zeros where there is none; `into` begins at its first pixel.
    fn row(&self, image: usize, h: Option<usize>, into: &mut [f32]) {
        let [height, width] = self.size;
        let Some(h) = h.filter(|&h| h < height) else { return into[..width * self.lanes].fill(0.0) };
        for c in 0..self.channels {
            let row = &self.from[((image * self.channels + c) * height + h) * width..][..width];
            into[c..].iter_mut().step_by(self.lanes).zip(row).for_each(|(to, &v)| *to = v);
        }
    }
}

/// `B^T d B`, from four rows of pixels, or `A dy A^T`, from two, of a row of tiles: `[place][tile][channel]`.
struct ChannelTiles<'a> {
    rows: &'a [f32],
    /// Elements of a row.
    line: usize,
    /// Channels in whole registers.
    lanes: usize,
    cols: usize,
    into: &'a mut [f32],
    /// Distance of places.
    pitch: usize,
    gradient: bool,
}

impl WithSimd for ChannelTiles<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let zero = simd.splat_f32s(0.0);
        for tile in 0..self.cols {
            for channel in (0..self.lanes).step_by(S::F32_LANES) {
                let pixel = |i: usize, j: usize| load::<S>(&self.rows[i * self.line + (2 * tile + j) * self.lanes + channel..]);
                let places = match self.gradient {
                    true => both_ways(zero, pixel, |v| gradient_transform(simd, v)),
                    false => both_ways(zero, pixel, |v| input_transform(simd, v)),
                };
                store_places::<S>(self.into, self.pitch, tile * self.lanes + channel, places);
            }
        }
    }
}

/// The tiles of some rows, of x and of dy.
fn channel_tiles(grid: &Grid, rows: Range<usize>, x: &Pixels, dy: &Pixels, v: &mut [f32], d: &mut [f32]) {
    let cols = grid.cols();
    let (x_line, y_line) = ((2 * cols + 2) * x.lanes, 2 * cols * dy.lanes);
    with_scratch(4 * x_line + 2 * y_line, |lines| {
        lines.fill(0.0);
        let (x_lines, y_lines) = lines.split_at_mut(4 * x_line);
        for (row, number) in rows.enumerate() {
            let (image, first) = (number / grid.rows(), 2 * (number % grid.rows()));
            // The row before saw two of these rows of pixels.
            let kept = if row > 0 && first > 0 { 2 } else { 0 };
            x_lines.copy_within((4 - kept) * x_line.., 0);
            for i in kept..4 {
                x.row(image, (first + i).checked_sub(grid.padding[0]), &mut x_lines[i * x_line + grid.padding[1] * x.lanes..]);
            }
            for i in 0..2 {
                dy.row(image, Some(first + i), &mut y_lines[i * y_line..]);
            }
            let tiles = |rows: &[f32], line: usize, lanes: usize, into: &mut [f32], gradient: bool| {
                let pitch = into.len() / PLACES;
                Arch::new().dispatch(ChannelTiles { rows, line, lanes, cols, into: &mut into[row * cols * lanes..], pitch, gradient });
            };
            tiles(x_lines, x_line, x.lanes, v, false);
            tiles(y_lines, y_line, dy.lanes, d, true);
        }
    });
}

/// `G^T m G` of one result channel; `m` has its row at each place, `pitch` apart.
struct KernelGradients<'a> {
    m: &'a [f32],
    pitch: usize,
    dw: &'a mut [f32],
}

impl WithSimd for KernelGradients<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let half = simd.splat_f32s(0.5);
        let transform = |[a, b, c, d]: [S::f32s; 4]| {
            let (sum, difference) = (simd.mul_f32s(half, simd.add_f32s(b, c)), simd.mul_f32s(half, simd.sub_f32s(b, c)));
            [simd.add_f32s(a, sum), difference, simd.add_f32s(sum, d)]
        };
        for (i, kernels) in self.dw.chunks_mut(9 * S::F32_LANES).enumerate() {
            let place = |row: usize, col: usize| load::<S>(&self.m[(4 * row + col) * self.pitch + i * S::F32_LANES..]);
            let gradients = both_ways(half, place, transform);
            let mut taps = [[0.0; LANES]; 9];
            for (tap, &v) in gradients.as_flattened().iter().enumerate() {
                store::<S>(&mut taps[tap], 0, v);
            }
            for (l, kernel) in kernels.as_chunks_mut::<9>().0.iter_mut().enumerate() {
                for tap in 0..9 {
                    kernel[tap] = taps[tap][l];
                }
            }
        }
    }
}

/// `dw [K, C, 3, 3]` from `x [N, C, H, W]` and `dy [N, K, oH, oW]`. Tiles are summed in blocks that depend on the sizes alone.
///
/// Sums run over tiles, so that here channels lie side by side.
pub fn backward_weight(s: &Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let grid = Grid { size: [s.h, s.w], padding: s.options.padding, out: [s.oh, s.ow] };
    let [c, k] = [s.c, s.k].map(|channels| channels.next_multiple_of(LANES));
    let (x, dy) =
        (Pixels { from: x, channels: s.c, size: grid.size, lanes: c }, Pixels { from: dy, channels: s.k, size: grid.out, lanes: k });
    let images = x.from.len() / (s.c * s.h * s.w);
    let (total, cols) = (images * grid.rows(), grid.cols());
    // Rows of tiles of a unit, of a block of units, and of a part.
    let unit = UNIT_TILES.div_ceil(cols);
    let block = GRADIENT_UNITS * unit;
    let parts = (PARTS_BYTES / (4 * PLACES * k * c)).clamp(1, PARTS).min(total.div_ceil(block));
    let part = total.div_ceil(parts).next_multiple_of(unit);
    let unit_len = PLACES * unit * cols * (c + k);
    let (tiles, r) = (unit * cols, rows_at_a_time());
    with_scratch(parts * PLACES * k * c, |sums| {
        for_each(sums.chunks_exact_mut(PLACES * k * c).enumerate().collect(), |(i, m): (usize, &mut [f32])| {
            let all = (i * part).min(total)..((i + 1) * part).min(total);
            if all.is_empty() {
                m.fill(0.0);
            }
            for first in all.clone().step_by(block) {
                let rows = first..(first + block).min(all.end);
                with_scratch(rows.len().div_ceil(unit) * unit_len, |units| {
                    for_each(units.chunks_exact_mut(unit_len).enumerate().collect(), |(i, into): (usize, &mut [f32])| {
                        let rows = rows.start + i * unit..(rows.start + (i + 1) * unit).min(rows.end);
                        if rows.len() < unit {
                            into.fill(0.0);
                        }
                        let (v, d) = into.split_at_mut(PLACES * tiles * c);
                        channel_tiles(&grid, rows, &x, &dy, v, d);
                    });
                    let units = &*units;
                    for_each(m.chunks_exact_mut(k * c).enumerate().collect(), |(place, m): (usize, &mut [f32])| {
                        Arch::new().dispatch(Product {
                            pieces: units.len() / unit_len,
                            terms: tiles,
                            u: &units[(PLACES * c + place * k) * tiles..],
                            u_strides: [r, unit_len, k],
                            v: &units[place * tiles * c..],
                            v_strides: [unit_len, c],
                            m,
                            m_strides: [r * c, c],
                            rows: s.k,
                            cols: c,
                            add: first > all.start,
                        });
                    });
                });
            }
        });
        let (m, others) = sums.split_at_mut(PLACES * k * c);
        others.chunks_exact(m.len()).for_each(|other| add_assign(m, other));
        let m = &*m;
        for_each(dw.chunks_exact_mut(9 * s.c).enumerate().collect(), |(row, dw): (usize, &mut [f32])| {
            Arch::new().dispatch(KernelGradients { m: &m[row * c..], pitch: k * c, dw });
        });
    });
}
