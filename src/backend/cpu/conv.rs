//! Convolution: the definition, and the fast paths.

mod gradient;
mod line;
mod planes;
mod pointwise;
mod together;

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

    /// Whether an image and its padding are of the size of what is computed. Padding by far more than the image, which only a huge dilation can make use of,
    /// is not worth its memory.
    fn padding_is_moderate(&self) -> bool {
        let padded = |axis: usize| [self.h, self.w][axis].saturating_add(self.options.padding[axis].saturating_mul(2));
        padded(0).saturating_mul(padded(1)) <= 16 * (self.h * self.w + self.oh * self.ow) + 4096
    }
}

pub(super) fn run<T: Real>(op: &Conv, args: &mut Args, fast: bool) -> Result<()> {
    let (specs, out) = (args.specs, args.out_specs[0].shape);
    let [y] = outputs::<T, 1>(&mut args.outs);
    let (a, b): (&[T], &[T]) = (bytemuck::cast_slice(args.ins[0]), bytemuck::cast_slice(args.ins[1]));
    let sizes = match *op {
        Conv::Forward { options, .. } => Sizes::new(&specs[0].shape, &specs[1].shape, &out, options),
        Conv::BackwardInput { options, .. } => Sizes::new(&out, &specs[1].shape, &specs[0].shape, options),
        Conv::BackwardWeight { options, .. } => Sizes::new(&specs[0].shape, &out, &specs[1].shape, options),
    };
    let bias: Option<&[T]> = match op {
        Conv::Forward { bias: true, .. } => Some(bytemuck::cast_slice(args.ins[2])),
        _ => None,
    };
    // Without an input channel, an image or an output pixel there is nothing to be fast about.
    if fast && !y.is_empty() && specs.iter().all(|spec| !spec.shape.is_empty()) && sizes.padding_is_moderate() {
        let (a, b, y) = (bytemuck::cast_slice(a), bytemuck::cast_slice(b), bytemuck::cast_slice_mut(y));
        let pointwise = pointwise::fits(&sizes);
        match op {
            Conv::Forward { .. } if pointwise => pointwise::forward(&sizes, a, b, bias.map(bytemuck::cast_slice), y),
            Conv::Forward { .. } => together::forward(&sizes, a, b, bias.map(bytemuck::cast_slice), y),
            Conv::BackwardInput { .. } if pointwise => pointwise::backward_input(&sizes, a, b, y),
            Conv::BackwardInput { .. } => together::backward_input(&sizes, a, b, y),
            Conv::BackwardWeight { .. } if pointwise => pointwise::backward_weight(&sizes, a, b, y),
            Conv::BackwardWeight { .. } => together::backward_weight(&sizes, a, b, y),
        }
        return Ok(());
    }
    let images = specs[0].shape[0];
    let mut sums = vec![0.0; y.len()];
    if let Some(bias) = bias {
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = bias[i / (sizes.oh * sizes.ow) % sizes.k].to_f64();
        }
    }
    match op {
        Conv::Forward { .. } => taps(&sizes, images, |x, w, y| sums[y] += a[x].to_f64() * b[w].to_f64()),
        Conv::BackwardInput { .. } => taps(&sizes, images, |x, w, dy| sums[x] += a[dy].to_f64() * b[w].to_f64()),
        Conv::BackwardWeight { .. } => taps(&sizes, images, |x, w, dy| sums[w] += a[x].to_f64() * b[dy].to_f64()),
    }
    y.iter_mut().zip(sums).for_each(|(y, sum)| *y = T::from_f64(sum));
    Ok(())
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
