//! Convolution: the definition, and the fast paths.

mod direct;

use super::{Args, outputs};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::{Conv, Conv2dOptions};
use crate::shape::Shape;

/// The sizes of a convolution: x `[n, c, h, w]`, weight `[k, c/groups, kh, kw]`, y `[n, k, oh, ow]`.
#[derive(Clone, Copy)]
struct Sizes {
    c: usize,
    h: usize,
    w: usize,
    k: usize,
    kh: usize,
    kw: usize,
    oh: usize,
    ow: usize,
    options: Conv2dOptions,
}

impl Sizes {
    fn new(x: &Shape, weight: &Shape, y: &Shape, options: Conv2dOptions) -> Self {
        Sizes { c: x[1], h: x[2], w: x[3], k: weight[0], kh: weight[2], kw: weight[3], oh: y[2], ow: y[3], options }
    }

    /// The input coordinate under tap `tap` of output coordinate `o`, unless it is padding.
    fn input(&self, axis: usize, o: usize, tap: usize) -> Option<usize> {
        let at = (o * self.options.stride[axis] + tap * self.options.dilation[axis]).checked_sub(self.options.padding[axis])?;
        (at < [self.h, self.w][axis]).then_some(at)
    }
}

pub(super) fn run<T: Real>(op: &Conv, args: &mut Args, fast: bool) -> Result<()> {
    let (specs, out) = (args.specs, args.out_specs[0].shape);
    let [y] = outputs::<T, 1>(&mut args.outs);
    let (a, b): (&[T], &[T]) = (bytemuck::cast_slice(args.ins[0]), bytemuck::cast_slice(args.ins[1]));
    if y.is_empty() {
        return Ok(());
    }
    // An empty sum: no input channel, no image, no output pixel.
    let fast = fast && specs.iter().all(|spec| !spec.shape.is_empty());
    match *op {
        Conv::Forward { options, bias } => {
            let sizes = Sizes::new(&specs[0].shape, &specs[1].shape, &out, options);
            let bias: Option<&[T]> = if bias { Some(bytemuck::cast_slice(args.ins[2])) } else { None };
            if fast {
                let (x, weight) = (bytemuck::cast_slice(a), bytemuck::cast_slice(b));
                let forward = if pointwise::fits(&sizes) { pointwise::forward } else { direct::forward };
                forward(&sizes, x, weight, bias.map(bytemuck::cast_slice), bytemuck::cast_slice_mut(y));
                return Ok(());
            }
            let mut sums = vec![0.0; y.len()];
            if let Some(bias) = bias {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = bias[i / (sizes.oh * sizes.ow) % sizes.k].to_f64();
                }
            }
            taps(&sizes, specs[0].shape[0], |x, w, y| sums[y] += a[x].to_f64() * b[w].to_f64());
            store(&sums, y);
        }
        Conv::BackwardInput { options, .. } => {
            let sizes = Sizes::new(&out, &specs[1].shape, &specs[0].shape, options);
            if fast {
                let backward_input = if pointwise::fits(&sizes) { pointwise::backward_input } else { direct::backward_input };
                backward_input(&sizes, bytemuck::cast_slice(a), bytemuck::cast_slice(b), bytemuck::cast_slice_mut(y));
                return Ok(());
            }
            let mut sums = vec![0.0; y.len()];
            taps(&sizes, out[0], |x, w, dy| sums[x] += a[dy].to_f64() * b[w].to_f64());
            store(&sums, y);
        }
        Conv::BackwardWeight { options, .. } => {
            let sizes = Sizes::new(&specs[0].shape, &out, &specs[1].shape, options);
            if fast {
                let backward_weight = if pointwise::fits(&sizes) { pointwise::backward_weight } else { direct::backward_weight };
                backward_weight(&sizes, bytemuck::cast_slice(a), bytemuck::cast_slice(b), bytemuck::cast_slice_mut(y));
                return Ok(());
            }
            let mut sums = vec![0.0; y.len()];
            taps(&sizes, specs[0].shape[0], |x, w, dy| sums[w] += a[x].to_f64() * b[dy].to_f64());
            store(&sums, y);
        }
    }
    Ok(())
}

fn store<T: Real>(sums: &[f64], y: &mut [T]) {
    y.iter_mut().zip(sums).for_each(|(y, &sum)| *y = T::from_f64(sum));
}

/// Visits every multiplication of the convolution once, as the indices of x, weight and y. All three passes are sums over these.
fn taps(s: &Sizes, n: usize, mut visit: impl FnMut(usize, usize, usize)) {
    let (cg, kg) = (s.c / s.options.groups, s.k / s.options.groups);
    for n in 0..n {
        for k in 0..s.k {
            for (c, channel) in (k / kg * cg..(k / kg + 1) * cg).enumerate() {
                for oh in 0..s.oh {
                    for i in 0..s.kh {
                        let Some(h) = s.input(0, oh, i) else { continue };
                        for ow in 0..s.ow {
                            for j in 0..s.kw {
                                let Some(w) = s.input(1, ow, j) else { continue };
                                let x = ((n * s.c + channel) * s.h + h) * s.w + w;
                                let weight = ((k * cg + c) * s.kh + i) * s.kw + j;
                                visit(x, weight, ((n * s.k + k) * s.oh + oh) * s.ow + ow);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// One tap on every pixel: an image is a matrix `[C, H W]`, and all three passes are matrix products.
mod pointwise {
    use super::Sizes;
    use crate::backend::cpu::in_parallel;
    use crate::backend::cpu::matmul::{Strides, sgemm, sgemm_with};
    use rayon::prelude::*;

    pub fn fits(s: &Sizes) -> bool {
        let o = &s.options;
        s.kh * s.kw == 1 && o.stride == [1, 1] && o.padding == [0, 0] && o.groups == 1
    }

    /// `y [rows, pixels] = weight x [terms, pixels]` of each image, the weight read with the given strides.
    fn images(x: &[f32], y: &mut [f32], [rows, terms, pixels]: [usize; 3], weight: &[f32], strides: Strides, bias: Option<&[f32]>) {
        let image = Strides { row: pixels, col: 1 };
        let start = |y: &mut [f32]| {
            if let Some(bias) = bias {
                y.chunks_exact_mut(pixels).zip(bias).for_each(|(plane, &b)| plane.fill(b));
            }
        };
        // One image is a product of its own, which takes all threads; several are spread over them.
        if y.len() > rows * pixels && in_parallel() {
            x.par_chunks_exact(terms * pixels).zip(y.par_chunks_exact_mut(rows * pixels)).for_each(|(x, y)| {
                start(y);
                sgemm_with(gemm::Parallelism::None, [rows, pixels, terms], weight, strides, x, image, y, bias.is_some());
            });
        } else {
            for (x, y) in x.chunks_exact(terms * pixels).zip(y.chunks_exact_mut(rows * pixels)) {
                start(y);
                sgemm([rows, pixels, terms], weight, strides, x, image, y, bias.is_some());
            }
        }
    }

    pub fn forward(s: &Sizes, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        images(x, y, [s.k, s.c, s.h * s.w], weight, Strides { row: s.c, col: 1 }, bias);
    }

    pub fn backward_input(s: &Sizes, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
        images(dy, dx, [s.c, s.k, s.h * s.w], weight, Strides { row: 1, col: s.c }, None);
    }

    pub fn backward_weight(s: &Sizes, x: &[f32], dy: &[f32], dw: &mut [f32]) {
        let pixels = s.h * s.w;
        let images = x.chunks_exact(s.c * pixels).zip(dy.chunks_exact(s.k * pixels));
        for (n, (x, dy)) in images.enumerate() {
            let (rows, cols) = (Strides { row: pixels, col: 1 }, Strides { row: 1, col: pixels });
            sgemm([s.k, s.c, pixels], dy, rows, x, cols, dw, n > 0);
        }
    }
}
