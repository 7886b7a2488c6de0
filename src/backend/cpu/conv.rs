//! Convolution: the definition, and the fast paths.

mod columns;
mod gradient;
mod line;
mod planes;
mod pointwise;
mod together;
mod winograd;

use super::fast::clip;
use super::{Args, outputs};
use crate::backend::KernelTable;
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

/// How a pass ends: what is added to each sum, and its bounds then.
#[derive(Clone, Copy, Default)]
struct End<'a> {
    /// One value a result channel.
    bias: Option<&'a [f32]>,
    /// Least and greatest result.
    bounds: Option<[f32; 2]>,
}

impl<'a> End<'a> {
    /// Of the result channels from `first` on.
    fn from(self, first: usize) -> Self {
        End { bias: self.bias.map(|bias| &bias[first..]), ..self }
    }

    /// Of result channel `k`.
    fn of(self, k: usize) -> ChannelEnd {
        let [least, most] = self.bounds.unwrap_or([f32::NEG_INFINITY, f32::INFINITY]);
        ChannelEnd { bias: self.bias.map_or(0.0, |bias| bias[k]), least, most }
    }
}

/// The end of one channel.
#[derive(Clone, Copy)]
struct ChannelEnd {
    bias: f32,
    least: f32,
    most: f32,
}

impl ChannelEnd {
    #[inline(always)]
    fn of(self, sum: f32) -> f32 {
        clip(sum + self.bias, [self.least, self.most])
    }
}

/// The fast ways to compute a convolution. The [`KernelTable`] says which one pays.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// One tap: an image is a matrix.
    Pointwise,
    /// 3x3 by minimal filtering.
    Tiles,
    /// Windows as columns of a matrix.
    Columns,
    /// Padded images as lines: any convolution.
    Lines,
}

impl Way {
    /// For a pass that makes planes, or for the weight's gradient.
    fn choose(s: &Sizes, images: usize, weights: bool, table: &KernelTable) -> Way {
        let channels = s.c.min(s.k);
        let filters = winograd::can(s) && table.filters(channels, weights) && s.oh.min(s.ow) > 2;
        // So few that the kernels' transform takes longer than it saves.
        let few = filters && images * s.oh * s.ow < table.pixels;
        // Strides so long that the columns are at most four times the image.
        let [down, right] = s.options.stride;
        let strided = down > 1 && right > 1 && s.kh * s.kw <= 4 * down * right;
        if pointwise::can(s) {
            Way::Pointwise
        } else if filters && !few {
            Way::Tiles
        } else if columns::can(s) && (strided || few) && channels >= 16 && s.ow < table.columns[weights as usize] {
            Way::Columns
        } else {
            Way::Lines
        }
    }
}

/// With a table the fast way that it chooses.
pub(super) fn run<T: Real>(op: &Conv, args: &mut Args, table: Option<&KernelTable>) -> Result<()> {
    let (specs, out) = (args.specs, args.out_specs[0].shape);
    let [y] = outputs::<T, 1>(&mut args.outs);
    let (a, b): (&[T], &[T]) = (bytemuck::cast_slice(args.ins[0]), bytemuck::cast_slice(args.ins[1]));
    let sizes = match *op {
        Conv::Forward { options, .. } => Sizes::new(&specs[0].shape, &specs[1].shape, &out, options),
        Conv::BackwardInput { options, .. } => Sizes::new(&out, &specs[1].shape, &specs[0].shape, options),
        Conv::BackwardWeight { options, .. } => Sizes::new(&specs[0].shape, &out, &specs[1].shape, options),
    };
    let (bias, bounds): (Option<&[T]>, _) = match *op {
        Conv::Forward { bias, clip, .. } => (bias.then(|| bytemuck::cast_slice(args.ins[2])), clip.bounds()),
        _ => (None, None),
    };
    // Without an input channel, an image or an output pixel there is nothing to be fast about.
    let some = !y.is_empty() && specs.iter().all(|spec| !spec.shape.is_empty());
    if let Some(table) = table.filter(|_| some && sizes.padding_is_moderate()) {
        let (a, b, y) = (bytemuck::cast_slice(a), bytemuck::cast_slice(b), bytemuck::cast_slice_mut(y));
        let way = Way::choose(&sizes, specs[0].shape[0], matches!(op, Conv::BackwardWeight { .. }), table);
        match (op, way) {
            (Conv::Forward { .. }, way) => {
                let end = End { bias: bias.map(bytemuck::cast_slice), bounds: bounds.map(|bounds| bounds.map(|bound| bound as f32)) };
                match way {
                    Way::Pointwise => pointwise::forward(&sizes, a, b, end, y),
                    Way::Tiles => winograd::forward(&sizes, a, b, end, y),
                    Way::Columns => columns::forward(&sizes, a, b, end, y),
                    Way::Lines => together::forward(&sizes, a, b, end, y),
                }
            }
            (Conv::BackwardInput { .. }, Way::Pointwise) => pointwise::backward_input(&sizes, a, b, y),
            (Conv::BackwardInput { .. }, Way::Tiles) => winograd::backward_input(&sizes, a, b, y),
            (Conv::BackwardInput { .. }, Way::Columns) => columns::backward_input(&sizes, a, b, y),
            (Conv::BackwardInput { .. }, Way::Lines) => together::backward_input(&sizes, a, b, y),
            (Conv::BackwardWeight { .. }, Way::Pointwise) => pointwise::backward_weight(&sizes, a, b, y),
            (Conv::BackwardWeight { .. }, Way::Tiles) => winograd::backward_weight(&sizes, a, b, y),
            (Conv::BackwardWeight { .. }, Way::Columns) => columns::backward_weight(&sizes, a, b, y),
            (Conv::BackwardWeight { .. }, Way::Lines) => together::backward_weight(&sizes, a, b, y),
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
    y.iter_mut().zip(sums).for_each(|(y, sum)| *y = T::from_f64(bounds.map_or(sum, |bounds| clip(sum, bounds))));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::op::{Clip, Magnitudes, Op};
    use crate::rng::Stream;
    use crate::shape::Spec;

    type Planes = fn(&Sizes, &[f32], &[f32], &mut [f32]);

    /// Every way, chosen or not, on every shape that it can do: the same within the tolerance of the operation.
    #[test]
    fn every_way_computes_the_definition() {
        // n, c, h, w, k, kernel, stride, padding, dilation
        let shapes = [
            (1, 1, 1, 1, 1, [3, 3], [1, 1], [1, 1], [1, 1]),
            (2, 3, 4, 5, 9, [3, 3], [1, 1], [0, 0], [1, 1]),
            (3, 17, 9, 40, 8, [3, 3], [1, 1], [1, 2], [1, 1]),
            (5, 33, 7, 7, 70, [3, 3], [1, 1], [2, 0], [1, 1]),
            (1, 8, 70, 66, 5, [3, 3], [1, 1], [1, 1], [1, 1]),
            (18, 40, 2, 2, 40, [3, 3], [1, 1], [1, 1], [1, 1]),
            (2, 5, 9, 8, 6, [3, 2], [2, 3], [1, 0], [1, 2]),
            (3, 2, 11, 6, 3, [1, 1], [2, 2], [0, 0], [1, 1]),
            (2, 4, 5, 4, 3, [4, 5], [3, 2], [3, 2], [1, 1]),
            // Taps that see padding alone.
            (1, 16, 3, 3, 16, [3, 3], [2, 2], [4, 4], [4, 4]),
            (1, 3, 4, 2, 2, [3, 8], [2, 2], [1, 3], [1, 1]),
        ];
        for (n, c, h, w, k, kernel_size, stride, padding, dilation) in shapes {
            let options = Conv2dOptions { stride, padding, dilation, groups: 1 };
            let (xs, ws) = (Shape::new(&[n, c, h, w]).unwrap(), Shape::new(&[k, c, kernel_size[0], kernel_size[1]]).unwrap());
            let ys = Shape::new(&options.output_shape(&xs, &ws).unwrap()).unwrap();
            let sizes = Sizes::new(&xs, &ws, &ys, options);
            let numbers = |name: &str, shape: &Shape| -> Vec<f32> {
                let stream = Stream::new(7, name, 0, 0);
                (0..shape.len() as u64).map(|i| 2.0 * stream.uniform(i) - 1.0).collect()
            };
            let (x, weight, dy) = (numbers("x", &xs), numbers("w", &ws), numbers("dy", &ys));
            let minimal = winograd::can(&sizes);
            let passes: [(Op, [(&Shape, &Vec<f32>); 2], &Shape, Vec<Planes>); 3] = [
                (
                    Conv::Forward { options, bias: false, clip: Clip::Nothing }.into(),
                    [(&xs, &x), (&ws, &weight)],
                    &ys,
                    vec![
                        |s, x, w, y| together::forward(s, x, w, End::default(), y),
                        |s, x, w, y| columns::forward(s, x, w, End::default(), y),
                        |s, x, w, y| winograd::forward(s, x, w, End::default(), y),
                    ],
                ),
                (
                    Conv::BackwardInput { options, input_size: [h, w] }.into(),
                    [(&ys, &dy), (&ws, &weight)],
                    &xs,
                    vec![together::backward_input, columns::backward_input, winograd::backward_input],
                ),
                (
                    Conv::BackwardWeight { options, kernel_size }.into(),
                    [(&xs, &x), (&ys, &dy)],
                    &ws,
                    vec![together::backward_weight, columns::backward_weight, winograd::backward_weight],
                ),
            ];
            for (pass, (op, [(a_shape, a), (b_shape, b)], out, ways)) in passes.into_iter().enumerate() {
                let mut want = vec![0.0; out.len()];
                taps(&sizes, n, |x_at, w_at, y_at| match pass {
                    0 => want[y_at] += a[x_at] as f64 * b[w_at] as f64,
                    1 => want[x_at] += a[y_at] as f64 * b[w_at] as f64,
                    _ => want[w_at] += a[x_at] as f64 * b[y_at] as f64,
                });
                let largest = |values: &mut dyn Iterator<Item = f64>| values.map(f64::abs).fold(0.0, f64::max);
                let inputs = [largest(&mut a.iter().map(|&v| v as f64)), largest(&mut b.iter().map(|&v| v as f64))];
                let size = Magnitudes { inputs: &inputs, output: largest(&mut want.iter().copied()) };
                let specs = [Spec::new(*a_shape, DType::F32), Spec::new(*b_shape, DType::F32)];
                let tolerance = op.tolerance(&specs, &[Spec::new(*out, DType::F32)], 0, &size);
                for (way, run) in ways.into_iter().enumerate().filter(|(way, _)| *way < 2 || minimal) {
                    let mut got = vec![f32::NAN; out.len()];
                    run(&sizes, a, b, &mut got);
                    let error = largest(&mut got.iter().zip(&want).map(|(&got, want)| got as f64 - want));
                    let finite = got.iter().all(|v| v.is_finite());
                    assert!(finite && error <= tolerance, "pass {pass}, way {way}, x {xs}, weight {ws}: {error:e} > {tolerance:e}");
                }
            }
        }
    }
}
