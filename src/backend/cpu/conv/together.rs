//! Small images as one wide one: `m` images side by side, pixel by pixel, `[N / m, C, H, W m]`. A tap of the next column is then `m` further on: a
//! dilation. Rows of few pixels alone leave much of a register empty.

use super::{End, Sizes, gradient, planes};
use crate::backend::cpu::fast::{LANES, for_each, with_scratch};
use crate::op::Conv2dOptions;

/// The most pixels of a row for which it pays, in passes whose results must be taken apart again, and in the weight gradient. Measured on images of 4x4,
/// 8x8 and 10x10 (AVX-512), see docs/rejected-optimizations.md.
const NARROW: [usize; 2] = [6, 12];

/// How many images make one, and the sizes then.
fn sizes(s: &Sizes, images: usize, narrow: usize) -> Option<(usize, Sizes)> {
    let o = &s.options;
    if s.ow.max(s.w) > narrow || o.stride[1] != 1 || o.groups != 1 {
        return None;
    }
    let m = (LANES..=4 * LANES).rev().find(|m| images.is_multiple_of(*m))?;
    let options = Conv2dOptions { padding: [o.padding[0], m * o.padding[1]], dilation: [o.dilation[0], m * o.dilation[1]], ..*o };
    Some((m, Sizes { w: m * s.w, ow: m * s.ow, options, ..*s }))
}

/// [`planes::forward`].
pub fn forward(s: &Sizes, x: &[f32], weight: &[f32], end: End, y: &mut [f32]) {
    match sizes(s, x.len() / (s.c * s.h * s.w), NARROW[0]) {
        Some((m, wide)) => apart(m, x, y, [s.c, s.h * s.w], [s.k, s.oh * s.ow], |x, y| planes::forward(&wide, x, weight, end, y)),
        None => planes::forward(s, x, weight, end, y),
    }
}

/// [`planes::backward_input`].
pub fn backward_input(s: &Sizes, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    match sizes(s, dx.len() / (s.c * s.h * s.w), NARROW[0]) {
        Some((m, wide)) => apart(m, dy, dx, [s.k, s.oh * s.ow], [s.c, s.h * s.w], |dy, dx| planes::backward_input(&wide, dy, weight, dx)),
        None => planes::backward_input(s, dy, weight, dx),
    }
}

/// [`gradient::backward_weight`].
pub fn backward_weight(s: &Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let Some((m, wide)) = sizes(s, x.len() / (s.c * s.h * s.w), NARROW[1]) else {
        return gradient::backward_weight(s, x, dy, dw);
    };
    with_scratch(x.len() + dy.len(), |both| {
        let (wide_x, wide_dy) = both.split_at_mut(x.len());
        interleave(x, wide_x, [m, s.c, s.h * s.w]);
        interleave(dy, wide_dy, [m, s.k, s.oh * s.ow]);
        gradient::backward_weight(&wide, wide_x, wide_dy, dw);
    });
}

/// Runs a pass on images side by side, and takes its results apart. `source` and `result` are channels and pixels of an image.
fn apart(m: usize, from: &[f32], to: &mut [f32], source: [usize; 2], result: [usize; 2], pass: impl FnOnce(&[f32], &mut [f32])) {
    with_scratch(from.len() + to.len(), |both| {
        let (wide_from, wide_to) = both.split_at_mut(from.len());
        interleave(from, wide_from, [m, source[0], source[1]]);
        pass(wide_from, wide_to);
        deinterleave(wide_to, to, [m, result[0], result[1]]);
    });
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
