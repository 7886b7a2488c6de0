//! The gradient of the weight: sums of products of two lines of [`super::line`].

use super::Sizes;
use super::line::{Part, Source, input_axis};
use crate::backend::cpu::fast::{LANES, for_each, load, registers, with_scratch};
use pulp::{Arch, Simd, WithSimd};
use std::ops::Range;

/// Bytes of padded images and gradients that are summed at a time: the more, the rarer are sums across lanes.
const GRADIENT_BYTES: usize = 2 << 20;
/// Pixels of lines that are multiplied at a time: four of dy and two of x fit a first-level cache.
const CHUNK: usize = 768;
/// The most rows and terms of a tile: 4 x 6 sums fit 32 vector registers, 3 x 4 fit 16.
const TILE: [usize; 2] = [4, 6];

/// `dw[k][t] += sum over images and pixels of dy[k][p] x[p + offset of t]`.
struct Products<'a> {
    line: &'a [f32],
    /// Pieces of the line, and those of them that are multiplied at a time.
    segments: &'a [Segment],
    chunks: &'a [Range<usize>],
    offsets: &'a [usize],
    /// Rows of gradients, 0 where the line has no result.
    dy: &'a [f32],
    /// Elements of a row.
    row: usize,
    /// `[row][term]`
    dw: &'a mut [f32],
    /// Room for the sums of all tiles.
    memory: &'a mut [f32],
}

impl Products<'_> {
    /// `K` rows, `T` terms at a time.
    #[inline(always)]
    fn tiles<S: Simd, const K: usize, const T: usize>(self, simd: S) {
        let Products { line, segments, chunks, offsets, dy, row, dw, memory } = self;
        let (lanes, terms) = (S::F32_LANES, offsets.len());
        let tile_len = K * T * lanes;
        for (i, chunk) in chunks.iter().enumerate() {
            for (tile, memory) in memory.chunks_exact_mut(tile_len).take(terms.div_ceil(T)).enumerate() {
                // The last tile may repeat the last term.
                let mut places = [offsets[terms - 1]; T];
                places.iter_mut().zip(&offsets[tile * T..]).for_each(|(place, &offset)| *place = offset);
                let mut sums = [[simd.splat_f32s(0.0); T]; K];
                if i > 0 {
                    for k in 0..K {
                        for t in 0..T {
                            sums[k][t] = load::<S>(&memory[(k * T + t) * lanes..]);
                        }
                    }
                }
                for segment in &segments[chunk.clone()] {
                    let dy: [&[f32]; K] = std::array::from_fn(|k| &dy[k * row + segment.dy..][..segment.len]);
                    let x: [&[f32]; T] = std::array::from_fn(|t| &line[places[t] + segment.x..][..segment.len]);
                    for p in (0..segment.len).step_by(lanes) {
                        let mut gradients = [simd.splat_f32s(0.0); K];
                        for k in 0..K {
                            gradients[k] = load::<S>(&dy[k][p..]);
                        }
                        for t in 0..T {
                            let pixels = load::<S>(&x[t][p..]);
                            for k in 0..K {
                                sums[k][t] = simd.mul_add_e_f32s(gradients[k], pixels, sums[k][t]);
                            }
                        }
                    }
                }
                for k in 0..K {
                    for t in 0..T {
                        memory[(k * T + t) * lanes..][..lanes].copy_from_slice(bytemuck::cast_slice(&[sums[k][t]]));
                    }
                }
            }
        }
        for (tile, memory) in memory.chunks_exact(tile_len).take(terms.div_ceil(T)).enumerate() {
            for k in 0..K {
                for t in 0..T.min(terms - tile * T) {
                    dw[k * terms + tile * T + t] += simd.reduce_sum_f32s(load::<S>(&memory[(k * T + t) * lanes..]));
                }
            }
        }
    }
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match (self.dy.len() / self.row, S::REGISTER_COUNT >= 32) {
            (1, true) => self.tiles::<S, 1, 6>(simd),
            (2, true) => self.tiles::<S, 2, 6>(simd),
            (3, true) => self.tiles::<S, 3, 6>(simd),
            (_, true) => self.tiles::<S, 4, 6>(simd),
            (1, false) => self.tiles::<S, 1, 4>(simd),
            (2, false) => self.tiles::<S, 2, 4>(simd),
            (_, false) => self.tiles::<S, 3, 4>(simd),
        }
    }
}

/// A piece of a line: where it begins in a row of gradients and in a channel of the source, a multiple of [`LANES`] long.
struct Segment {
    dy: usize,
    x: usize,
    len: usize,
}

/// How the gradients of an image's rows are laid out: one line with the source's pitch, gaps as zeros, or, where the gaps are wider than a register,
/// a line each.
struct Lines {
    /// Rows of an image that are one line.
    rows: usize,
    /// Elements of a line.
    len: usize,
}

impl Lines {
    fn new(s: &Sizes, pitch: usize) -> Lines {
        let rows = if pitch - s.ow < LANES { s.oh } else { 1 };
        Lines { rows, len: ((rows - 1) * pitch + s.ow).next_multiple_of(LANES) }
    }

    /// The pieces of `count` images, and how they are grouped.
    fn segments(&self, source: &Source, s: &Sizes, count: usize) -> (Vec<Segment>, Vec<Range<usize>>) {
        let mut segments = Vec::new();
        for image in 0..count {
            for (i, row) in (0..s.oh).step_by(self.rows).enumerate() {
                let (dy, x) = ((image * s.oh.div_ceil(self.rows) + i) * self.len, image * source.plane + row * source.cols.len);
                for at in (0..self.len).step_by(CHUNK) {
                    segments.push(Segment { dy: dy + at, x: x + at, len: CHUNK.min(self.len - at) });
                }
            }
        }
        let (mut chunks, mut filled): (Vec<Range<usize>>, usize) = (Vec::new(), 0);
        for (i, segment) in segments.iter().enumerate() {
            match chunks.last_mut() {
                Some(chunk) if filled + segment.len <= CHUNK => chunk.end = i + 1,
                _ => {
                    chunks.push(i..i + 1);
                    filled = 0;
                }
            }
            filled += segment.len;
        }
        (segments, chunks)
    }
}

/// `dw [K, C / groups, kH, kW]` from `x [N, C, H, W]` and `dy [N, K, oH, oW]`.
///
/// Images are summed in blocks that depend on the sizes alone, so that the result does not depend on the threads.
pub fn backward_weight(s: &Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let ((rows, row_part), (cols, col_part)) = (input_axis(s, 0), input_axis(s, 1));
    let (source, part, groups) = (Source::new(rows, cols, [s.h, s.w]), Part(&row_part, &col_part), s.options.groups);
    let ([cg, kg], [x_plane, y_plane]) = ([s.c, s.k].map(|c| c / groups), [s.h * s.w, s.oh * s.ow]);
    let images = x.len() / (s.c * x_plane);
    let (pitch, terms) = (source.cols.len, cg * s.kh * s.kw);
    let lines = Lines::new(s, pitch);
    let image = s.oh.div_ceil(lines.rows) * lines.len;
    let at_once = (GRADIENT_BYTES / 4 / (source.channel(1) * cg + kg * image)).clamp(1, images);
    let most = if registers().many { TILE[0] } else { 3 };
    dw.fill(0.0);
    for_each(dw.chunks_exact_mut(kg * terms).enumerate().collect(), |(group, dw)| {
        for first in (0..images).step_by(at_once) {
            let count = at_once.min(images - first);
            let (channel, row) = (source.channel(count), count * image);
            let (segments, chunks) = lines.segments(&source, s, count);
            with_scratch(cg * channel + LANES, |line| {
                with_scratch(kg * row, |gradients| {
                    let channels = line[..cg * channel].chunks_exact_mut(channel).enumerate().collect();
                    for_each(channels, |(c, into): (usize, &mut [f32])| {
                        source.fill(into, count, |n| &x[((first + n) * s.c + group * cg + c) * x_plane..][..x_plane]);
                    });
                    line[cg * channel..].fill(0.0);
                    let planes = gradients.chunks_exact_mut(image).enumerate().collect();
                    for_each(planes, |(i, into): (usize, &mut [f32])| {
                        let (k, n) = (i / count, i % count);
                        let plane = &dy[((first + n) * s.k + group * kg + k) * y_plane..][..y_plane];
                        into.fill(0.0);
                        let to = into.chunks_mut(if lines.rows == 1 { lines.len } else { pitch });
                        to.zip(plane.chunks_exact(s.ow)).for_each(|(to, row)| to[..s.ow].copy_from_slice(row));
                    });
                    let (line, gradients) = (&*line, &*gradients);
                    let offsets = source.offsets(&part, cg, count);
                    let tiles = dw.chunks_mut(most * terms).zip(gradients.chunks(most * row)).collect();
                    for_each(tiles, |(dw, dy): (&mut [f32], &[f32])| {
                        with_scratch((terms + TILE[1]) * TILE[0] * LANES, |memory| {
                            let (segments, chunks, offsets) = (&segments[..], &chunks[..], &offsets[..]);
                            Arch::new().dispatch(Products { line, segments, chunks, offsets, dy, row, dw, memory });
                        });
                    });
                });
            });
        }
    });
}
