//! Convolution without im2col: an image, padded once, is a line in memory, and what a tap sees is the same line a little further on.
//!
//! Let a padded plane have `pitch` columns. Output pixel (r, c) is number `p = r pitch + c` of a line with as many columns, and tap (i, j) adds
//! `weight x[p + i pitch + j]`: every tap is a shifted view of one line, so that a register full of pixels is one unaligned load, whatever the
//! kernel. The `pitch - columns` results between two rows are computed and dropped. A stride s cuts the plane into s x s phases first (rows a,
//! a + s, a + 2s ... for each a), each of which a tap then walks with stride 1; a dilation only changes the shift.
//! The gradient of the input is the same sum over the padded gradient of the output, one part of the image for each phase.
//! The gradient of the weight sums products of two such lines.
//!
//! Several images make one line. Each result is one sum in a fixed order, whatever the number of threads.

use super::Sizes;
use crate::backend::cpu::in_parallel;
use crate::op::Conv2dOptions;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ops::Range;

/// Registers of pixels in a tile; a tile's rows are output channels.
const WIDE: usize = 3;
/// The most rows of a tile: 8 x 3 sums fit 32 vector registers, 4 x 3 fit 16.
const ROWS: usize = 8;
/// The most lanes of a register.
const LANES: usize = 16;
/// Pixels of the widest tile.
const TILE: usize = WIDE * LANES;
/// Bytes of padded images that one task works on: half of a usual second-level cache.
const BLOCK_BYTES: usize = 512 << 10;
/// Bytes of source channels that a block of rows sums at a time: most of a first-level cache.
const CHANNEL_BYTES: usize = 24 << 10;
/// Bytes of padded images and gradients that the weight gradient sums at a time: the more, the rarer are sums across lanes.
const GRADIENT_BYTES: usize = 2 << 20;
/// Pixels of the weight gradient's lines that are multiplied at a time: four of dy and two of x fit a first-level cache.
const CHUNK: usize = 768;

/// f32 lanes of a register.
fn lanes() -> usize {
    struct Ask;
    impl WithSimd for Ask {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            S::F32_LANES
        }
    }
    Arch::new().dispatch(Ask)
}

/// Whether there are 32 vector registers. A tile of the forward pass then has 8 rows, else 4; one of the weight gradient 4 x 6 sums, else 3 x 4.
fn many_registers() -> bool {
    struct Ask;
    impl WithSimd for Ask {
        type Output = bool;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> bool {
            S::REGISTER_COUNT >= 32
        }
    }
    Arch::new().dispatch(Ask)
}

/// Lends `f` memory that the thread keeps between calls; its contents are whatever was left there.
fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
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

/// A tap of one axis: which phase of the source it reads, how far on, and its index in the kernel.
#[derive(Clone, Copy)]
struct Tap {
    phase: usize,
    shift: usize,
    index: usize,
}

/// The results of one axis that one set of taps makes: coordinates `first + n step`, `size` of them.
struct AxisPart {
    taps: Vec<Tap>,
    first: usize,
    step: usize,
    size: usize,
}

/// How one axis of a source is padded and cut.
struct Axis {
    /// Remainders of the padded coordinate that taps use.
    phases: Vec<usize>,
    /// Distance of the padded coordinates of a phase.
    step: usize,
    /// Padded coordinate of the source's first pixel.
    pad: usize,
    /// Padded coordinates of one phase.
    len: usize,
}

/// What the forward pass and the weight gradient read: tap `i` of output `o` sees the padded coordinate `o stride + i dilation`.
fn input_axis(s: &Sizes, axis: usize) -> (Axis, AxisPart) {
    let (step, dilation) = (s.options.stride[axis], s.options.dilation[axis]);
    let (kernel, size) = ([s.kh, s.kw][axis], [s.oh, s.ow][axis]);
    let mut phases: Vec<usize> = (0..kernel).map(|i| i * dilation % step).collect();
    phases.sort_unstable();
    phases.dedup();
    let phase = |i: usize| phases.iter().position(|&p| p == i * dilation % step).unwrap_or(0);
    let taps: Vec<Tap> = (0..kernel).map(|i| Tap { phase: phase(i), shift: i * dilation / step, index: i }).collect();
    let len = size + taps.iter().map(|tap| tap.shift).max().unwrap_or(0);
    (Axis { phases, step, pad: s.options.padding[axis], len }, AxisPart { taps, first: 0, step: 1, size })
}

/// What the gradient of the input reads of the output's gradient. Input `h` got something of output `o` through tap `i` where
/// `h + padding = o stride + i dilation`: the inputs of one remainder `a` of `h + padding` have their taps in common.
fn output_axis(s: &Sizes, axis: usize) -> (Axis, Vec<AxisPart>) {
    let (step, dilation, pad) = (s.options.stride[axis], s.options.dilation[axis], s.options.padding[axis]);
    let (kernel, size) = ([s.kh, s.kw][axis], [s.h, s.w][axis]);
    // Of each remainder: its first input `step q + a - pad`, and how far before output `q` each tap reads.
    let of = |a: usize| {
        let q = pad.saturating_sub(a).div_ceil(step);
        let back = (0..kernel).filter(|i| i * dilation % step == a).map(|i| (i, (i * dilation - a) / step));
        (q, step * q + a - pad, back.collect::<Vec<_>>())
    };
    let remainders: Vec<_> = (0..step).map(of).filter(|(_, first, _)| *first < size).collect();
    let before = |q: usize, back: &[(usize, usize)]| back.iter().map(|(_, e)| e.saturating_sub(q)).max().unwrap_or(0);
    let pad = remainders.iter().map(|(q, _, back)| before(*q, back)).max().unwrap_or(0);
    let part = |(q, first, back): &(usize, usize, Vec<(usize, usize)>)| AxisPart {
        taps: back.iter().map(|&(index, e)| Tap { phase: 0, shift: pad + q - e, index }).collect(),
        first: *first,
        step,
        size: (size - first).div_ceil(step),
    };
    let parts: Vec<AxisPart> = remainders.iter().map(part).collect();
    let reach = |part: &AxisPart| part.size + part.taps.iter().map(|tap| tap.shift).max().unwrap_or(0);
    let len = parts.iter().map(reach).max().unwrap_or(0);
    (Axis { phases: vec![0], step: 1, pad, len }, parts)
}

impl Axis {
    /// The source's coordinates in a phase: the place of the first of them, itself, and their number.
    fn inside(&self, phase: usize, size: usize) -> (usize, usize, usize) {
        let remainder = self.phases[phase];
        let place = self.pad.saturating_sub(remainder).div_ceil(self.step).min(self.len);
        let first = (place * self.step + remainder).saturating_sub(self.pad);
        (place, first, size.saturating_sub(first).div_ceil(self.step).min(self.len - place))
    }
}

/// Padded planes, `[channel][phase][image][plane]`.
struct Source {
    rows: Axis,
    cols: Axis,
    /// Height and width before padding.
    size: [usize; 2],
    /// Elements of a padded plane.
    plane: usize,
}

impl Source {
    fn new(rows: Axis, cols: Axis, size: [usize; 2]) -> Source {
        // Room behind the last row, so that a register which begins in a plane ends there: values of one channel never meet another's.
        let plane = rows.len * cols.len + LANES;
        Source { rows, cols, size, plane }
    }

    fn phases(&self) -> usize {
        self.rows.phases.len() * self.cols.phases.len()
    }

    /// Elements of one channel.
    fn channel(&self, images: usize) -> usize {
        self.phases() * images * self.plane
    }

    /// Where a pair of taps sees the first result, from the beginning of its channel.
    fn offset(&self, down: Tap, right: Tap, images: usize) -> usize {
        (down.phase * self.cols.phases.len() + right.phase) * images * self.plane + down.shift * self.cols.len + right.shift
    }

    /// Pads and cuts one channel of images, whose planes `plane_of` gives.
    fn fill<'a>(&self, into: &mut [f32], images: usize, plane_of: impl Fn(usize) -> &'a [f32]) {
        let (width, pitch) = (self.size[1], self.cols.len);
        for (at, padded) in into.chunks_exact_mut(self.plane).enumerate() {
            let (phase, plane) = (at / images, plane_of(at % images));
            let (top, h, height) = self.rows.inside(phase / self.cols.phases.len(), self.size[0]);
            let (left, w, count) = self.cols.inside(phase % self.cols.phases.len(), width);
            padded[..top * pitch].fill(0.0);
            padded[(top + height) * pitch..].fill(0.0);
            for r in 0..height {
                let line = &mut padded[(top + r) * pitch..][..pitch];
                let from = &plane[(h + r * self.rows.step) * width..][..width];
                line[..left].fill(0.0);
                line[left + count..].fill(0.0);
                if self.cols.step == 1 {
                    line[left..left + count].copy_from_slice(&from[w..w + count]);
                } else if count > 0 {
                    let inside = line[left..left + count].iter_mut();
                    inside.zip(from[w..].iter().step_by(self.cols.step)).for_each(|(to, &v)| *to = v);
                }
            }
        }
    }
}

/// The results that one set of taps makes: rows and columns.
struct Part<'a>(&'a AxisPart, &'a AxisPart);

impl Part<'_> {
    /// Pairs of taps.
    fn taps(&self) -> impl Iterator<Item = (Tap, Tap)> {
        self.0.taps.iter().flat_map(|&down| self.1.taps.iter().map(move |&right| (down, right)))
    }

    /// The registers full of pixels that cover all results of `images` images, image by image.
    fn vectors(&self, source: &Source, images: usize, width: usize) -> Vec<Vector> {
        let (lanes, pitch) = (lanes(), source.cols.len);
        let mut vectors: Vec<Vector> = Vec::new();
        for image in 0..images {
            for r in 0..self.0.size {
                let mut c = 0;
                while c < self.1.size {
                    let p = image * source.plane + r * pitch + c;
                    if vectors.last().is_none_or(|v| p >= v.start + lanes) {
                        vectors.push(Vector { start: p, runs: Vec::new() });
                    }
                    // The last vector reaches this place.
                    let Some(vector) = vectors.last_mut() else { continue };
                    let len = (self.1.size - c).min(vector.start + lanes - p);
                    let pixel = (self.0.first + r * self.0.step) * width + self.1.first + c * self.1.step;
                    vector.runs.push(Run { image, pixel, lane: p - vector.start, len });
                    c += len;
                }
            }
        }
        vectors
    }
}

/// Neighbouring lanes of a vector that are neighbouring results: from `pixel` of image `image` on.
struct Run {
    image: usize,
    pixel: usize,
    lane: usize,
    len: usize,
}

/// A register full of pixels: where it starts in the line, and which of its lanes are results.
struct Vector {
    start: usize,
    runs: Vec<Run>,
}

#[inline(always)]
fn load<S: Simd>(from: &[f32]) -> S::f32s {
    bytemuck::pod_read_unaligned(bytemuck::cast_slice(&from[..S::F32_LANES]))
}

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
    /// One value a row.
    bias: Option<&'a [f32]>,
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
                    let bias = self.bias.map_or(0.0, |bias| bias[m]);
                    let from = &sums[(m * WIDE + w) * lanes + run.lane..][..run.len];
                    let to = &mut self.planes[run.image * M + m][run.pixel..];
                    if self.step == 1 {
                        to[..run.len].iter_mut().zip(from).for_each(|(to, v)| *to = v + bias);
                    } else {
                        to.iter_mut().step_by(self.step).zip(from).for_each(|(to, v)| *to = v + bias);
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

/// A pass whose results are planes: forward, and the gradient of the input.
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
    /// One value a result row.
    bias: Option<&'a [f32]>,
    /// Height and width of a result plane.
    size: [usize; 2],
}

impl Pass<'_> {
    fn run(&self, x: &[f32], y: &mut [f32]) {
        let [from, to] = self.channels.map(|c| c / self.groups);
        let [x_plane, y_plane] = [self.source.size, self.size].map(|[h, w]| h * w);
        let images = y.len() / (self.channels[1] * y_plane);
        let blocks = row_blocks(to, if many_registers() { ROWS } else { ROWS / 2 });
        // As many images a task as fill a block, but work for all threads.
        let fill = BLOCK_BYTES / 4 / (from * self.source.channel(1)).max(1);
        let fair = (images * self.groups).div_ceil(4 * rayon::current_num_threads());
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
        let width = self.size[1];
        let vectors: Vec<Vec<Vector>> = self.parts.iter().map(|part| part.vectors(&self.source, at_once, width)).collect();
        // Small planes: as many channels at a time as stay in the first-level cache while all their tiles are computed.
        let channels = match CHANNEL_BYTES / 4 / self.source.channel(at_once).max(1) {
            0..4 => from,
            channels => channels,
        };
        let terms = |part: &Part| from * part.taps().count();
        let all_terms: usize = self.parts.iter().map(terms).sum();
        with_scratch(self.groups * to * all_terms, |packed| {
            self.pack(packed, &blocks, from);
            let packed = &*packed;
            for_each(tasks.into_iter().enumerate().collect(), |(i, task)| {
                let (first, group) = (i / self.groups * at_once, i % self.groups);
                let count = at_once.min(images - first);
                let channel = self.source.channel(count);
                with_scratch(from * channel + TILE, |line| {
                    for_each(line[..from * channel].chunks_exact_mut(channel).enumerate().collect(), |(c, into): (usize, &mut [f32])| {
                        let plane = |n: usize| &x[((first + n) * self.channels[0] + group * from + c) * x_plane..][..x_plane];
                        self.source.fill(into, count, plane);
                    });
                    line[from * channel..].fill(0.0);
                    let line = &*line;
                    let mut at = group * to * all_terms;
                    let mut weights = Vec::new();
                    for part in &self.parts {
                        for block in &blocks {
                            weights.push(&packed[at..at + block.len() * terms(part)]);
                            at += block.len() * terms(part);
                        }
                    }
                    let offsets: Vec<Vec<usize>> = self.parts.iter().map(|part| self.offsets(part, from, count)).collect();
                    for_each(task.into_iter().enumerate().collect(), |(b, mut planes)| {
                        let bias = self.bias.map(|bias| &bias[group * to + blocks[b].start..][..blocks[b].len()]);
                        for (i, part) in self.parts.iter().enumerate() {
                            // A last task of fewer images takes the first of the vectors.
                            let end = vectors[i].partition_point(|vector| vector.start < count * self.source.plane);
                            // Not within the dispatch: a closure would be compiled for any processor.
                            with_scratch(end.div_ceil(WIDE) * TILE * ROWS, |memory| {
                                Arch::new().dispatch(Correlation {
                                    line,
                                    vectors: &vectors[i][..end],
                                    images: count,
                                    step: part.1.step,
                                    offsets: &offsets[i],
                                    at_once: channels * part.taps().count().max(1),
                                    weights: weights[i * blocks.len() + b],
                                    bias,
                                    planes: &mut planes,
                                    memory,
                                });
                            });
                        }
                    });
                });
            });
        });
    }

    /// Where each term of a part, `[channel][tap]`, sees its first result.
    fn offsets(&self, part: &Part, channels: usize, images: usize) -> Vec<usize> {
        let channel = self.source.channel(images);
        (0..channels).flat_map(|c| part.taps().map(move |(down, right)| c * channel + self.source.offset(down, right, images))).collect()
    }

    /// Weights as the tiles read them: `[group][part][block of rows][term][row]`.
    fn pack(&self, mut packed: &mut [f32], blocks: &[Range<usize>], from: usize) {
        let mut places = Vec::new();
        for group in 0..self.groups {
            for part in &self.parts {
                for block in blocks {
                    let (place, rest) = packed.split_at_mut(block.len() * from * part.taps().count());
                    places.push((group, part, block, place));
                    packed = rest;
                }
            }
        }
        let [of_group, of_row, of_channel] = self.strides;
        for_each(places, |(group, part, block, place)| {
            let taps: Vec<usize> = part.taps().map(|(down, right)| down.index * self.kernel_width + right.index).collect();
            let mut terms = place.chunks_exact_mut(block.len());
            for c in 0..from {
                let weight = &self.weight[group * of_group + block.start * of_row + c * of_channel..];
                for (&tap, term) in taps.iter().zip(&mut terms) {
                    term.iter_mut().enumerate().for_each(|(row, w)| *w = weight[row * of_row + tap]);
                }
            }
        });
    }
}

/// Over the threads of the pool that the call runs in, if it does.
fn for_each<T: Send>(items: Vec<T>, f: impl Fn(T) + Sync + Send) {
    if in_parallel() { items.into_par_iter().for_each(f) } else { items.into_iter().for_each(f) }
}

/// `y [N, K, oH, oW]` from `x [N, C, H, W]` and `weight [K, C / groups, kH, kW]`.
pub(super) fn forward(s: &Sizes, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    if let Some((m, wide)) = side_by_side(s, x.len() / (s.c * s.h * s.w), NARROW[0]) {
        let sizes = [[s.c, s.h * s.w], [s.k, s.oh * s.ow]];
        return merged(m, x, y, sizes, |x, y| forward_of(&wide, x, weight, bias, y));
    }
    forward_of(s, x, weight, bias, y);
}

fn forward_of(s: &Sizes, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
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
        bias,
        size: [s.oh, s.ow],
    };
    pass.run(x, y);
}

/// Runs a pass from planes of `sizes[0]` channels and pixels to planes of `sizes[1]` on images side by side.
fn merged(m: usize, from: &[f32], to: &mut [f32], sizes: [[usize; 2]; 2], pass: impl FnOnce(&[f32], &mut [f32])) {
    with_scratch(from.len() + to.len(), |both| {
        let (wide_from, wide_to) = both.split_at_mut(from.len());
        interleave(from, wide_from, [m, sizes[0][0], sizes[0][1]]);
        pass(wide_from, wide_to);
        deinterleave(wide_to, to, [m, sizes[1][0], sizes[1][1]]);
    });
}

/// `dx [N, C, H, W]` from `dy [N, K, oH, oW]` and `weight [K, C / groups, kH, kW]`.
pub(super) fn backward_input(s: &Sizes, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    if let Some((m, wide)) = side_by_side(s, dx.len() / (s.c * s.h * s.w), NARROW[0]) {
        let sizes = [[s.k, s.oh * s.ow], [s.c, s.h * s.w]];
        return merged(m, dy, dx, sizes, |dy, dx| input_gradient(&wide, dy, weight, dx));
    }
    input_gradient(s, dy, weight, dx);
}

fn input_gradient(s: &Sizes, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
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
        bias: None,
        size: [s.h, s.w],
    };
    pass.run(dy, dx);
}

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
pub(super) fn backward_weight(s: &Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    if let Some((m, wide)) = side_by_side(s, x.len() / (s.c * s.h * s.w), NARROW[1]) {
        return with_scratch(x.len() + dy.len(), |both| {
            let (wide_x, wide_dy) = both.split_at_mut(x.len());
            interleave(x, wide_x, [m, s.c, s.h * s.w]);
            interleave(dy, wide_dy, [m, s.k, s.oh * s.ow]);
            weight_gradient(&wide, wide_x, wide_dy, dw);
        });
    }
    weight_gradient(s, x, dy, dw);
}

fn weight_gradient(s: &Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let ((rows, row_part), (cols, col_part)) = (input_axis(s, 0), input_axis(s, 1));
    let (source, part, groups) = (Source::new(rows, cols, [s.h, s.w]), Part(&row_part, &col_part), s.options.groups);
    let ([cg, kg], [x_plane, y_plane]) = ([s.c, s.k].map(|c| c / groups), [s.h * s.w, s.oh * s.ow]);
    let images = x.len() / (s.c * x_plane);
    let (pitch, terms) = (source.cols.len, cg * s.kh * s.kw);
    let lines = Lines::new(s, pitch);
    let image = s.oh.div_ceil(lines.rows) * lines.len;
    let at_once = (GRADIENT_BYTES / 4 / (source.channel(1) * cg + kg * image)).clamp(1, images);
    let most = if many_registers() { 4 } else { 3 };
    dw.fill(0.0);
    for_each(dw.chunks_exact_mut(kg * terms).enumerate().collect(), |(group, dw)| {
        for first in (0..images).step_by(at_once) {
            let count = at_once.min(images - first);
            let (channel, row) = (source.channel(count), count * image);
            let (segments, chunks) = lines.segments(&source, s, count);
            with_scratch(cg * channel + TILE, |line| {
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
                    let of = |c: usize| part.taps().map(move |(down, right)| (c, down, right));
                    let offsets: Vec<usize> =
                        (0..cg).flat_map(of).map(|(c, down, right)| c * channel + source.offset(down, right, count)).collect();
                    let tiles = dw.chunks_mut(most * terms).zip(gradients.chunks(most * row)).collect();
                    for_each(tiles, |(dw, dy): (&mut [f32], &[f32])| {
                        // At most 4 rows, and 6 terms a tile.
                        with_scratch((terms + 6) * 4 * LANES, |memory| {
                            let (segments, chunks, offsets) = (&segments[..], &chunks[..], &offsets[..]);
                            Arch::new().dispatch(Products { line, segments, chunks, offsets, dy, row, dw, memory });
                        });
                    });
                });
            });
        }
    });
}

/// Rows of at most so many pixels leave so much of a register empty that it pays to put images side by side: in passes whose results are planes,
/// which must be taken apart again, and in the weight gradient. Measured on images of 4x4, 8x8 and 10x10 (AVX-512).
const NARROW: [usize; 2] = [6, 12];

/// Small images as one wide one: `m` images side by side, pixel by pixel, `[N / m, C, H, W m]`. A tap of the next column is then `m` further on: a dilation.
fn side_by_side(s: &Sizes, images: usize, narrow: usize) -> Option<(usize, Sizes)> {
    let o = &s.options;
    if s.ow.max(s.w) > narrow || o.stride[1] != 1 || o.groups != 1 {
        return None;
    }
    let m = (LANES..=4 * LANES).rev().find(|m| images.is_multiple_of(*m))?;
    let options = Conv2dOptions { padding: [o.padding[0], m * o.padding[1]], dilation: [o.dilation[0], m * o.dilation[1]], ..*o };
    Some((m, Sizes { w: m * s.w, ow: m * s.ow, options, ..*s }))
}

/// `[N / m, m, channels, plane] -> [N / m, channels, plane, m]`
fn interleave(from: &[f32], to: &mut [f32], [m, channels, plane]: [usize; 3]) {
    for_each(to.chunks_exact_mut(plane * m).enumerate().collect(), |(i, to): (usize, &mut [f32])| {
        let (block, c) = (i / channels, i % channels);
        for n in 0..m {
            let from = &from[((block * m + n) * channels + c) * plane..][..plane];
            to[n..].iter_mut().step_by(m).zip(from).for_each(|(to, &v)| *to = v);
        }
    });
}

/// The inverse of [`interleave`].
fn deinterleave(from: &[f32], to: &mut [f32], [m, channels, plane]: [usize; 3]) {
    for_each(to.chunks_exact_mut(plane).enumerate().collect(), |(i, to): (usize, &mut [f32])| {
        let (n, c) = (i / channels, i % channels);
        let from = &from[(n / m * channels + c) * plane * m + n % m..];
        to.iter_mut().zip(from.iter().step_by(m)).for_each(|(to, &v)| *to = v);
    });
}
