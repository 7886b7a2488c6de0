//! One tap on every pixel: an image is a matrix `[C, H W]`, and all three passes are matrix products.

use super::{End, Sizes};
use crate::backend::cpu::fast::{clip_all, for_each};
use crate::backend::cpu::matmul::{Strides, serial_sgemm, sgemm};

/// Whether this is a convolution that it can compute.
pub fn can(s: &Sizes) -> bool {
    let o = &s.options;
    s.kh * s.kw == 1 && o.stride == [1, 1] && o.padding == [0, 0] && o.groups == 1
}

/// `y [rows, pixels] = weight x [terms, pixels]` of each image, the weight read with the given strides.
fn images(x: &[f32], y: &mut [f32], [rows, terms, pixels]: [usize; 3], weight: &[f32], strides: Strides, end: End) {
    // One image is a product of its own, which takes all threads; several are spread over them.
    let alone = y.len() == rows * pixels;
    let product = if alone { sgemm } else { serial_sgemm };
    for_each(x.chunks_exact(terms * pixels).zip(y.chunks_exact_mut(rows * pixels)).collect(), |(x, y): (&[f32], &mut [f32])| {
        if let Some(bias) = end.bias {
            y.chunks_exact_mut(pixels).zip(bias).for_each(|(plane, &b)| plane.fill(b));
        }
        product([rows, pixels, terms], weight, strides, x, Strides { row: pixels, col: 1 }, y, end.bias.is_some());
        if let Some(bounds) = end.bounds {
            clip_all(y, bounds);
        }
    });
}

pub fn forward(s: &Sizes, x: &[f32], weight: &[f32], end: End, y: &mut [f32]) {
    images(x, y, [s.k, s.c, s.h * s.w], weight, Strides { row: s.c, col: 1 }, end);
}

pub fn backward_input(s: &Sizes, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    images(dy, dx, [s.c, s.k, s.h * s.w], weight, Strides { row: 1, col: s.c }, End::default());
}

pub fn backward_weight(s: &Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let pixels = s.h * s.w;
    let images = x.chunks_exact(s.c * pixels).zip(dy.chunks_exact(s.k * pixels));
    for (n, (x, dy)) in images.enumerate() {
        let (rows, cols) = (Strides { row: pixels, col: 1 }, Strides { row: 1, col: pixels });
        sgemm([s.k, s.c, pixels], dy, rows, x, cols, dw, n > 0);
    }
}
