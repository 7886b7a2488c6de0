//! Passes whose results are planes, forward and the gradient of the input: weights times the lines of [`super::line`].

use super::line::{Part, Source, Vector, input_axis, output_axis};
use super::{End, Sizes};
use crate::backend::cpu::fast::{LANES, for_each, load, registers, with_scratch};
use crate::backend::cpu::threads;
use pulp::{Arch, Simd, WithSimd};
use std::ops::Range;

/// Registers of pixels in a tile; a tile's rows are output channels.
const WIDE: usize = 3;
/// The most rows of a tile: 8 x 3 sums fit 32 vector registers, 4 x 3 fit 16.
const ROWS: usize = 8;
/// Bytes of padded images that one task works on: half of a usual second-level cache.
const BLOCK_BYTES: usize = 512 << 10;
/// Bytes of source channels that a block of rows sums at a time: most of a first-level cache.
const CHANNEL_BYTES: usize = 24 << 10;

/// A block of rows of results from packed weights `[term][row]`: each is the sum over terms of weight times the line from the term's offset on.
struct Correlation<'a, 'b> {
    line: &'a [f32],
    vectors: &'a [Vector],
    images: usize,
    /// Step of results in a row of the image.
    step: usize,
    offsets: &'a [usize],
    /// Terms that are summed at a time.
    at_once: usize,
    weights: &'a [f32],
    /// Of the rows.
    end: End<'a>,
    /// Result planes, `[image][row]`.
    planes: &'a mut [&'b mut [f32]],
    /// Room for the sums of all tiles.
    memory: &'a mut [f32],
}

impl Correlation<'_, '_> {
    #[inline(always)]
    fn tiles<S: Simd, const M: usize>(mut self, simd: S) {
        let blocks = self.offsets.len().div_ceil(self.at_once).max(1);
        let tile_len = M * WIDE * S::F32_LANES;
        let memory = std::mem::take(&mut self.memory);
        for block in 0..blocks {
            let terms = block * self.at_once..((block + 1) * self.at_once).min(self.offsets.len());
            let (offsets, weights) = (&self.offsets[terms.clone()], &self.weights[terms.start * M..terms.end * M]);
            for (vectors, sums) in self.vectors.chunks(WIDE).zip(memory.chunks_exact_mut(tile_len)) {
                match vectors {
                    [a, b, c] => self.tile::<S, M, WIDE>(simd, [a, b, c], offsets, weights, sums, block == 0),
                    [a, b] => self.tile::<S, M, 2>(simd, [a, b], offsets, weights, sums, block == 0),
                    [a] => self.tile::<S, M, 1>(simd, [a], offsets, weights, sums, block == 0),
                    _ => {}
                }
            }
        }
        for (vectors, sums) in self.vectors.chunks(WIDE).zip(memory.chunks_exact(tile_len)) {
            self.store::<M>(vectors, sums, S::F32_LANES);
        }
    }

    /// Adds terms to the sums of `M` rows and `W` vectors, which begin with 0 in the first block.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const W: usize>(
        &self,
        simd: S,
        vectors: [&Vector; W],
        offsets: &[usize],
        weights: &[f32],
        memory: &mut [f32],
        first: bool,
    ) {
        let lanes = S::F32_LANES;
        let starts = vectors.map(|vector| vector.start);
        let mut sums = [[simd.splat_f32s(0.0); W]; M];
        if !first {
            for m in 0..M {
                for w in 0..W {
                    sums[m][w] = load::<S>(&memory[(m * WIDE + w) * lanes..]);
                }
            }
        }
        for (&offset, weights) in offsets.iter().zip(weights.as_chunks::<M>().0) {
            let mut pixels = [simd.splat_f32s(0.0); W];
            for w in 0..W {
                pixels[w] = load::<S>(&self.line[offset + starts[w]..]);
            }
            for m in 0..M {
                let weight = simd.splat_f32s(weights[m]);
                for w in 0..W {
                    sums[m][w] = simd.mul_add_e_f32s(weight, pixels[w], sums[m][w]);
                }
            }
        }
        for m in 0..M {
            for w in 0..W {
                memory[(m * WIDE + w) * lanes..][..lanes].copy_from_slice(bytemuck::cast_slice(&[sums[m][w]]));
            }
        }
    }

    /// Copies the lanes that are results to where they belong.
    fn store<const M: usize>(&mut self, vectors: &[Vector], sums: &[f32], lanes: usize) {
        for (w, vector) in vectors.iter().enumerate() {
            for run in vector.runs.iter().filter(|run| run.image < self.images) {
                for m in 0..M {
                    let end = self.end.of(m);
                    let from = &sums[(m * WIDE + w) * lanes + run.lane..][..run.len];
                    let to = &mut self.planes[run.image * M + m][run.pixel..];
                    if self.step == 1 {
                        to[..run.len].iter_mut().zip(from).for_each(|(to, &v)| *to = end.of(v));
                    } else {
                        to.iter_mut().step_by(self.step).zip(from).for_each(|(to, &v)| *to = end.of(v));
                    }
                }
            }
        }
    }
}

impl WithSimd for Correlation<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.planes.len() / self.images {
            1 => self.tiles::<S, 1>(simd),
            2 => self.tiles::<S, 2>(simd),
            3 => self.tiles::<S, 3>(simd),
            4 => self.tiles::<S, 4>(simd),
            5 => self.tiles::<S, 5>(simd),
            6 => self.tiles::<S, 6>(simd),
            7 => self.tiles::<S, 7>(simd),
            _ => self.tiles::<S, ROWS>(simd),
        }
    }
}

/// `total` rows in blocks of at most `most`, whose sizes differ by one at most.
fn row_blocks(total: usize, most: usize) -> Vec<Range<usize>> {
    let blocks = total.div_ceil(most);
    (0..blocks).map(|i| i * total / blocks..(i + 1) * total / blocks).collect()
}

/// A pass: what is read, what is made of it, and by which weights.
struct Pass<'a> {
    source: Source,
    parts: Vec<Part<'a>>,
    /// Planes of an image: of the source, and of the result.
    channels: [usize; 2],
    groups: usize,
    weight: &'a [f32],
    /// From one group's, result row's and source channel's weights to the next one's.
    strides: [usize; 3],
    /// Columns of a kernel.
    kernel_width: usize,
    /// Of the result rows.
    end: End<'a>,
    /// Height and width of a result plane.
    size: [usize; 2],
}

/// What all tasks of a pass share.
struct Shared<'a> {
    x: &'a [f32],
    images: usize,
    /// Images of a task.
    at_once: usize,
    /// Rows of results that are computed together.
    blocks: Vec<Range<usize>>,
    /// Of each part.
    vectors: Vec<Vec<Vector>>,
    /// Weights, `[group][part][block of rows][term][row]`.
    packed: &'a [f32],
}

impl Pass<'_> {
    /// Channels of a group: of the source, and of the result.
    fn of_group(&self) -> [usize; 2] {
        self.channels.map(|c| c / self.groups)
    }

    /// Terms of a result that a part makes.
    fn terms(&self, part: &Part) -> usize {
        self.of_group()[0] * part.taps().count()
    }

    fn run(&self, x: &[f32], y: &mut [f32]) {
        let [from, to] = self.of_group();
        let y_plane = self.size[0] * self.size[1];
        let made: usize = self.parts.iter().map(|part| part.0.size * part.1.size).sum();
        if made < y_plane {
            // Pixels that no tap reaches.
            y.fill(0.0);
        }
        let images = y.len() / (self.channels[1] * y_plane);
        let blocks = row_blocks(to, if registers().many { ROWS } else { ROWS / 2 });
        // As many images a task as fill a block, but work for all threads.
        let fill = BLOCK_BYTES / 4 / (from * self.source.channel(1)).max(1);
        let fair = (images * self.groups).div_ceil(4 * threads());
        let at_once = fill.min(fair).clamp(1, images);
        // Result planes by task (images, group) and block of rows, in each `[image][row]`.
        let mut tasks: Vec<Vec<Vec<&mut [f32]>>> =
            (0..images.div_ceil(at_once) * self.groups).map(|_| blocks.iter().map(|_| Vec::new()).collect()).collect();
        let mut planes = y.chunks_exact_mut(y_plane);
        for n in 0..images {
            for group in 0..self.groups {
                let task = &mut tasks[n / at_once * self.groups + group];
                task.iter_mut().zip(&blocks).for_each(|(task, block)| task.extend(planes.by_ref().take(block.len())));
            }
        }
        let vectors = self.parts.iter().map(|part| part.vectors(&self.source, at_once, self.size[1])).collect();
        let weights: usize = self.parts.iter().map(|part| self.groups * to * self.terms(part)).sum();
        with_scratch(weights, |packed| {
            self.pack(packed, &blocks);
            let shared = Shared { x, images, at_once, blocks, vectors, packed };
            for_each(tasks.into_iter().enumerate().collect(), |(i, task)| self.task(&shared, i, task));
        });
    }

    /// One group of some images; `results` by block of rows.
    fn task(&self, shared: &Shared, i: usize, results: Vec<Vec<&mut [f32]>>) {
        let (first, group) = (i / self.groups * shared.at_once, i % self.groups);
        let count = shared.at_once.min(shared.images - first);
        let [from, _] = self.of_group();
        let plane = self.source.size[0] * self.source.size[1];
        let channel = self.source.channel(count);
        with_scratch(from * channel + WIDE * LANES, |line| {
            for_each(line[..from * channel].chunks_exact_mut(channel).enumerate().collect(), |(c, into): (usize, &mut [f32])| {
                self.source.fill(into, count, |n| &shared.x[((first + n) * self.channels[0] + group * from + c) * plane..][..plane]);
            });
            line[from * channel..].fill(0.0);
            let line = &*line;
            let offsets: Vec<Vec<usize>> = self.parts.iter().map(|part| self.source.offsets(part, from, count)).collect();
            for_each(results.into_iter().enumerate().collect(), |(block, mut planes)| {
                for part in 0..self.parts.len() {
                    self.rows(shared, group, count, part, block, line, &offsets[part], &mut planes);
                }
            });
        });
    }

    /// One block of rows of one part.
    #[allow(clippy::too_many_arguments)] // which part of what
    fn rows(
        &self,
        shared: &Shared,
        group: usize,
        images: usize,
        part: usize,
        block: usize,
        line: &[f32],
        offsets: &[usize],
        planes: &mut [&mut [f32]],
    ) {
        let (vectors, rows, terms) = (&shared.vectors[part], &shared.blocks[block], self.terms(&self.parts[part]));
        let [from, to] = self.of_group();
        // Of a last task of fewer images, the first of the vectors.
        let vectors = &vectors[..vectors.partition_point(|vector| vector.start < images * self.source.plane)];
        // Small planes: as many channels at a time as stay in the first-level cache while all their tiles are computed.
        let channels = match CHANNEL_BYTES / 4 / self.source.channel(shared.at_once).max(1) {
            0..4 => from,
            channels => channels,
        };
        let (before, all) = (self.parts[..part].iter().map(|part| self.terms(part)), self.parts.iter().map(|part| self.terms(part)));
        let start = to * (group * all.sum::<usize>() + before.sum::<usize>()) + rows.start * terms;
        // Not within the dispatch: a closure would be compiled for any processor.
        with_scratch(vectors.len().div_ceil(WIDE) * WIDE * LANES * rows.len(), |memory| {
            Arch::new().dispatch(Correlation {
                line,
                vectors,
                images,
                step: self.parts[part].1.step,
                offsets,
                at_once: channels * self.parts[part].taps().count().max(1),
                weights: &shared.packed[start..start + rows.len() * terms],
                end: self.end.from(group * to + rows.start),
                planes,
                memory,
            });
        });
    }

    /// Weights as the tiles read them, see [`Shared::packed`].
    fn pack(&self, mut packed: &mut [f32], blocks: &[Range<usize>]) {
        let mut places = Vec::new();
        for group in 0..self.groups {
            for part in &self.parts {
                for block in blocks {
                    let (place, rest) = packed.split_at_mut(block.len() * self.terms(part));
                    places.push((group, part, block, place));
                    packed = rest;
                }
            }
        }
        let [of_group, of_row, of_channel] = self.strides;
        for_each(places, |(group, part, block, place)| {
            let taps: Vec<usize> = part.taps().map(|(down, right)| down.index * self.kernel_width + right.index).collect();
            let mut terms = place.chunks_exact_mut(block.len());
            for c in 0..self.of_group()[0] {
                let weight = &self.weight[group * of_group + block.start * of_row + c * of_channel..];
                for (&tap, rows) in taps.iter().zip(&mut terms) {
                    rows.iter_mut().enumerate().for_each(|(row, to)| *to = weight[row * of_row + tap]);
                }
            }
        });
    }
}

/// `y [N, K, oH, oW]` from `x [N, C, H, W]` and `weight [K, C / groups, kH, kW]`.
pub fn forward(s: &Sizes, x: &[f32], weight: &[f32], end: End, y: &mut [f32]) {
    let ((rows, row_part), (cols, col_part)) = (input_axis(s, 0), input_axis(s, 1));
    let ([cg, kg], taps) = ([s.c, s.k].map(|c| c / s.options.groups), s.kh * s.kw);
    let pass = Pass {
        source: Source::new(rows, cols, [s.h, s.w]),
        parts: vec![Part(&row_part, &col_part)],
        channels: [s.c, s.k],
        groups: s.options.groups,
        weight,
        strides: [kg * cg * taps, cg * taps, taps],
        kernel_width: s.kw,
        end,
        size: [s.oh, s.ow],
    };
    pass.run(x, y);
}

/// `dx [N, C, H, W]` from `dy [N, K, oH, oW]` and `weight [K, C / groups, kH, kW]`.
pub fn backward_input(s: &Sizes, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    let ((rows, row_parts), (cols, col_parts)) = (output_axis(s, 0), output_axis(s, 1));
    let ([cg, kg], taps) = ([s.c, s.k].map(|c| c / s.options.groups), s.kh * s.kw);
    let pass = Pass {
        source: Source::new(rows, cols, [s.oh, s.ow]),
        parts: row_parts.iter().flat_map(|rows| col_parts.iter().map(move |cols| Part(rows, cols))).collect(),
        channels: [s.k, s.c],
        groups: s.options.groups,
        weight,
        strides: [kg * cg * taps, taps, cg * taps],
        kernel_width: s.kw,
        end: End::default(),
        size: [s.h, s.w],
    };
    pass.run(dy, dx);
}
