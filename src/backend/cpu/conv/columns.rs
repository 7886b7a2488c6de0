//! Convolution as a matrix product: every window of some images becomes a column of `[C kH kW, pixels]`, and all three passes are products with it
//! (Chellapilla, Puri and Simard 2006, "High Performance Convolutional Neural Networks for Document Processing").
//!
//! A stride makes the columns few: they hold `kH kW / stride^2` times the image. With stride 1 the lines of [`super::line`] or the tiles of
//! [`super::winograd`] are faster, unless the image is small beside the weights.

use super::{End, Sizes};
use crate::backend::cpu::fast::{for_each, with_scratch};
use crate::backend::cpu::matmul::{Strides, sgemm};
use std::ops::Range;

/// Bytes of columns that are multiplied at a time.
const BLOCK_BYTES: usize = 4 << 20;
/// Whether this is a convolution that it can compute.
pub fn can(s: &Sizes) -> bool {
    s.options.groups == 1
}

/// Outputs of an axis that see the image through a tap, and the first pixel they see.
fn inside(s: &Sizes, axis: usize, tap: usize) -> (Range<usize>, usize) {
    let (stride, padding, at) = (s.options.stride[axis], s.options.padding[axis], tap * s.options.dilation[axis]);
    let (size, out) = ([s.h, s.w][axis], [s.oh, s.ow][axis]);
    let first = padding.saturating_sub(at).div_ceil(stride).min(out);
    let end = (size + padding).saturating_sub(at).div_ceil(stride).clamp(first, out);
    (first..end, (first * stride + at).saturating_sub(padding))
}

/// Calls `f` for each row of outputs that tap (i, j) sees pixels for: the first pixel's and the first output's place in their planes, and how many there are. The
/// pixels are a stride apart.
fn pairs(s: &Sizes, [i, j]: [usize; 2], mut f: impl FnMut(usize, usize, usize)) {
    let ((rows, h), (cols, w)) = (inside(s, 0, i), inside(s, 1, j));
    if cols.is_empty() {
        return;
    }
    for (n, row) in rows.enumerate() {
        f((h + n * s.options.stride[0]) * s.w + w, row * s.ow + cols.start, cols.len());
    }
}

/// Calls `f` with some images at a time, and room for their columns `[C kH kW, image and pixel]` and their outputs `[K, image and pixel]`.
fn blocks(s: &Sizes, images: usize, mut f: impl FnMut(Range<usize>, &mut [f32], &mut [f32])) {
    let (out, terms) = (s.oh * s.ow, s.c * s.kh * s.kw);
    let at_once = (BLOCK_BYTES / (4 * terms * out)).clamp(1, images);
    for first in (0..images).step_by(at_once) {
        let images = first..(first + at_once).min(images);
        let width = images.len() * out;
        with_scratch((terms + s.k) * width, |both| {
            let (columns, rows) = both.split_at_mut(terms * width);
            f(images, columns, rows);
        });
    }
}

/// `[C kH kW, image and pixel]` of some images.
fn gather(s: &Sizes, x: &[f32], images: &Range<usize>, columns: &mut [f32]) {
    let (plane, out) = (s.h * s.w, s.oh * s.ow);
    let width = images.len() * out;
    for_each(columns.chunks_exact_mut(s.kh * s.kw * width).enumerate().collect(), |(c, columns): (usize, &mut [f32])| {
        for (tap, row) in columns.chunks_exact_mut(width).enumerate() {
            row.fill(0.0);
            for (n, to) in images.clone().zip(row.chunks_exact_mut(out)) {
                let from = &x[(n * s.c + c) * plane..][..plane];
                pairs(s, [tap / s.kw, tap % s.kw], |at, to_at, len| {
                    to[to_at..][..len].iter_mut().zip(from[at..].iter().step_by(s.options.stride[1])).for_each(|(to, &v)| *to = v);
                });
            }
        }
    });
}

/// Sums `[C kH kW, image and pixel]` into the pixels that the windows saw.
fn scatter(s: &Sizes, columns: &[f32], images: usize, dx: &mut [f32]) {
    let (plane, out) = (s.h * s.w, s.oh * s.ow);
    let width = images * out;
    for_each(dx.chunks_exact_mut(plane).enumerate().collect(), |(i, to): (usize, &mut [f32])| {
        let (n, c) = (i / s.c, i % s.c);
        to.fill(0.0);
        for tap in 0..s.kh * s.kw {
            let from = &columns[(c * s.kh * s.kw + tap) * width + n * out..][..out];
            pairs(s, [tap / s.kw, tap % s.kw], |at, from_at, len| {
                to[at..].iter_mut().step_by(s.options.stride[1]).zip(&from[from_at..][..len]).for_each(|(to, &v)| *to += v);
            });
        }
    });
}

/// `[outer, inner, plane] -> [inner, outer, plane]`, with the end of each of the outer.
fn swap(from: &[f32], to: &mut [f32], [outer, inner, plane]: [usize; 3], end: Option<End>) {
    for_each(to.chunks_exact_mut(plane).enumerate().collect(), |(i, to): (usize, &mut [f32])| {
        let (a, b) = (i / outer, i % outer);
        let from = &from[(b * inner + a) * plane..][..plane];
        match end.map(|end| end.of(b)) {
            Some(end) => to.iter_mut().zip(from).for_each(|(to, &v)| *to = end.of(v)),
            None => to.copy_from_slice(from),
        }
    });
}

/// `y [N, K, oH, oW]` from `x [N, C, H, W]` and `weight [K, C, kH, kW]`.
pub fn forward(s: &Sizes, x: &[f32], weight: &[f32], end: End, y: &mut [f32]) {
    let (out, terms) = (s.oh * s.ow, s.c * s.kh * s.kw);
    blocks(s, y.len() / (s.k * out), |images, columns, rows| {
        let width = images.len() * out;
        gather(s, x, &images, columns);
        sgemm([s.k, width, terms], weight, Strides { row: terms, col: 1 }, columns, Strides { row: width, col: 1 }, rows, false);
        swap(rows, &mut y[images.start * s.k * out..images.end * s.k * out], [s.k, images.len(), out], Some(end));
    });
}

/// `dx [N, C, H, W]` from `dy [N, K, oH, oW]` and `weight [K, C, kH, kW]`.
pub fn backward_input(s: &Sizes, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    let (plane, out, terms) = (s.h * s.w, s.oh * s.ow, s.c * s.kh * s.kw);
    blocks(s, dy.len() / (s.k * out), |images, columns, rows| {
        let width = images.len() * out;
        swap(&dy[images.start * s.k * out..], rows, [images.len(), s.k, out], None);
        sgemm([terms, width, s.k], weight, Strides { row: 1, col: terms }, rows, Strides { row: width, col: 1 }, columns, false);
        scatter(s, columns, images.len(), &mut dx[images.start * s.c * plane..images.end * s.c * plane]);
    });
}

/// `dw [K, C, kH, kW]` from `x [N, C, H, W]` and `dy [N, K, oH, oW]`.
pub fn backward_weight(s: &Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let (out, terms) = (s.oh * s.ow, s.c * s.kh * s.kw);
    blocks(s, dy.len() / (s.k * out), |images, columns, rows| {
        let width = images.len() * out;
        gather(s, x, &images, columns);
        swap(&dy[images.start * s.k * out..], rows, [images.len(), s.k, out], None);
        let (a, b) = (Strides { row: width, col: 1 }, Strides { row: 1, col: width });
        sgemm([s.k, terms, width], rows, a, columns, b, dw, images.start > 0);
    });
}
