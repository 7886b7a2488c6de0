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
//!
//! This file says where everything lies in a line; `planes` makes results that are planes from it, `gradient` the weight's gradient. A pixel that is infinite
//! or NaN may make more of a weight's gradient NaN than the definition does: it meets the zeros between two rows, too.

use super::Sizes;
use crate::backend::cpu::fast::{LANES, registers};
use crate::op::conv::Phase;

/// A tap of one axis: which phase of the source it reads, how far on, and its index in the kernel.
#[derive(Clone, Copy)]
pub struct Tap {
    pub phase: usize,
    pub shift: usize,
    pub index: usize,
}

/// The results of one axis that one set of taps makes: coordinates `first + n step`, `size` of them.
pub struct AxisPart {
    pub taps: Vec<Tap>,
    pub first: usize,
    pub step: usize,
    pub size: usize,
}

/// How one axis of a source is padded and cut.
pub struct Axis {
    /// Remainders of the padded coordinate that taps use.
    phases: Vec<usize>,
    /// Distance of the padded coordinates of a phase.
    step: usize,
    /// Padded coordinate of the source's first pixel.
    pad: usize,
    /// Padded coordinates of one phase.
    pub len: usize,
}

/// What the forward pass and the weight gradient read: tap `i` of output `o` sees the padded coordinate `o stride + i dilation`.
pub fn input_axis(s: &Sizes, axis: usize) -> (Axis, AxisPart) {
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

/// What the gradient of the input reads of the output's gradient: each phase of the strides has its taps.
pub fn output_axis(s: &Sizes, axis: usize) -> (Axis, Vec<AxisPart>) {
    let phases = s.options.phases(axis, [s.h, s.w][axis], [s.kh, s.kw][axis]);
    // The taps that see furthest before the first output decide on the padding.
    let before = phases.iter().flat_map(|phase| phase.taps.iter().map(|(_, back)| back.saturating_sub(phase.output)));
    let pad = before.max().unwrap_or(0);
    let part = |phase: &Phase| AxisPart {
        taps: phase.taps.iter().map(|&(index, back)| Tap { phase: 0, shift: pad + phase.output - back, index }).collect(),
        first: phase.first,
        step: s.options.stride[axis],
        size: phase.size,
    };
    let parts: Vec<AxisPart> = phases.iter().map(part).collect();
    let len = parts.iter().flat_map(|part| part.taps.iter().map(|tap| part.size + tap.shift)).max().unwrap_or(0);
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
pub struct Source {
    rows: Axis,
    pub cols: Axis,
    /// Height and width before padding.
    pub size: [usize; 2],
    /// Elements of a padded plane.
    pub plane: usize,
}

impl Source {
    pub fn new(rows: Axis, cols: Axis, size: [usize; 2]) -> Source {
        // Room behind the last row, so that a register which begins in a plane ends there: values of one channel never meet another's.
        let plane = rows.len * cols.len + LANES;
        Source { rows, cols, size, plane }
    }

    fn phases(&self) -> usize {
        self.rows.phases.len() * self.cols.phases.len()
    }

    /// Elements of one channel.
    pub fn channel(&self, images: usize) -> usize {
        self.phases() * images * self.plane
    }

    /// Where each term, `[channel][pair of taps]`, of a part sees its first result.
    pub fn offsets(&self, part: &Part, channels: usize, images: usize) -> Vec<usize> {
        let channel = self.channel(images);
        (0..channels).flat_map(|c| part.taps().map(move |(down, right)| c * channel + self.offset(down, right, images))).collect()
    }

    /// Where a pair of taps sees the first result, from the beginning of its channel.
    fn offset(&self, down: Tap, right: Tap, images: usize) -> usize {
        (down.phase * self.cols.phases.len() + right.phase) * images * self.plane + down.shift * self.cols.len + right.shift
    }

    /// Pads and cuts one channel of images, whose planes `plane_of` gives.
    pub fn fill<'a>(&self, into: &mut [f32], images: usize, plane_of: impl Fn(usize) -> &'a [f32]) {
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
pub struct Part<'a>(pub &'a AxisPart, pub &'a AxisPart);

impl Part<'_> {
    /// Pairs of taps.
    pub fn taps(&self) -> impl Iterator<Item = (Tap, Tap)> {
        self.0.taps.iter().flat_map(|&down| self.1.taps.iter().map(move |&right| (down, right)))
    }

    /// The registers full of pixels that cover all results of `images` images, image by image.
    pub fn vectors(&self, source: &Source, images: usize, width: usize) -> Vec<Vector> {
        let (lanes, pitch) = (registers().lanes, source.cols.len);
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
pub struct Run {
    pub image: usize,
    pub pixel: usize,
    pub lane: usize,
    pub len: usize,
}

/// A register full of pixels: where it starts in the line, and which of its lanes are results.
pub struct Vector {
    pub start: usize,
    pub runs: Vec<Run>,
}
