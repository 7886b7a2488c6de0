//! Two-dimensional convolution (cross-correlation, as in every deep-learning library) and its two gradients.

use super::float;
use crate::error::{Error, Result};
use crate::shape::{Shape, Spec};
use std::collections::BTreeMap;

/// Attributes of a convolution, with PyTorch's meaning and defaults; pairs are `[height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv2dOptions {
    /// Step of the window.
    pub stride: [usize; 2],
    /// Zeros added on each of the two sides.
    pub padding: [usize; 2],
    /// Distance between taps.
    pub dilation: [usize; 2],
    /// Independent groups of channels.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Conv2dOptions { stride: [1, 1], padding: [0, 0], dilation: [1, 1], groups: 1 }
    }
}

impl Conv2dOptions {
    fn check(&self) -> Result<()> {
        if self.stride.contains(&0) || self.dilation.contains(&0) || self.groups == 0 {
            return Err(Error::Shape(format!("conv2d: stride, dilation and groups must be at least 1, got {self:?}")));
        }
        Ok(())
    }

    /// Output size of one axis: `floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1`.
    fn output(&self, axis: usize, size: usize, kernel: usize) -> Result<usize> {
        let window = kernel.saturating_sub(1).saturating_mul(self.dilation[axis]).saturating_add(1);
        let padded = self.padding[axis].saturating_mul(2).saturating_add(size);
        if kernel == 0 || padded < window {
            let name = ["height", "width"][axis];
            return Err(Error::Shape(format!(
                "conv2d: kernel {name} {kernel} (dilation {}) does not fit the input's {name} {size} with padding {}",
                self.dilation[axis], self.padding[axis]
            )));
        }
        Ok((padded - window) / self.stride[axis] + 1)
    }

    /// The output shape for input `[N, C, H, W]` and weight `[K, C / groups, kH, kW]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when channels, groups or kernel do not fit.
    pub fn output_shape(&self, x: &Shape, w: &Shape) -> Result<Shape> {
        self.check()?;
        let [n, c, h, width] = x.nchw("conv2d")?;
        let [k, cg, kh, kw] = w.nchw("conv2d weight")?;
        if cg.checked_mul(self.groups) != Some(c) {
            return Err(Error::Shape(format!(
                "conv2d got input {x} (C = {c}) but weight {w} with groups = {} expects C = {}; set in_channels = {c}, or groups so that C / groups matches the weight",
                self.groups,
                cg.saturating_mul(self.groups)
            )));
        }
        if k % self.groups != 0 {
            return Err(Error::Shape(format!("conv2d: {k} output channels do not divide into {} groups", self.groups)));
        }
        Shape::new(&[n, k, self.output(0, h, kh)?, self.output(1, width, kw)?])
    }

    /// The phases of an axis of `size` input pixels that have taps; the gradient of the other pixels is 0.
    pub(crate) fn phases(&self, axis: usize, size: usize, kernel: usize) -> Vec<Phase> {
        let (stride, dilation, padding) = (self.stride[axis], self.dilation[axis], self.padding[axis]);
        let mut taps: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        for i in 0..kernel {
            taps.entry(i * dilation % stride).or_default().push((i, i * dilation / stride));
        }
        let phase = |(remainder, taps): (usize, Vec<(usize, usize)>)| {
            let output = padding.saturating_sub(remainder).div_ceil(stride);
            let first = stride * output + remainder - padding;
            Phase { first, size: size.saturating_sub(first).div_ceil(stride), output, taps }
        };
        taps.into_iter().map(phase).filter(|phase| phase.size > 0).collect()
    }
}

/// Along one axis, the input pixels `first + n stride`, `size` of them, that have their taps in common.
///
/// Pixel `h` is part of output `o` through tap `i` where `h + padding = o stride + i dilation`, so that all pixels of one remainder of `h + padding` by the
/// stride share their taps. They are in equal steps, as the residues of a multiple are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Phase {
    /// The first pixel.
    pub first: usize,
    /// Pixels.
    pub size: usize,
    /// The output that pixel 0 would be part of through a tap 0.
    pub output: usize,
    /// Taps, and how many outputs before `output + n` pixel `n` is part of through each.
    pub taps: Vec<(usize, usize)>,
}

/// Attributes of a convolution over `[N, C, L]`; see [`Conv2dOptions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Conv1dOptions {
    /// Step of the window.
    pub stride: usize,
    /// Zeros added on each of the two sides.
    pub padding: usize,
    /// Distance between taps.
    pub dilation: usize,
    /// Independent groups of channels.
    pub groups: usize,
}

impl Conv1dOptions {
    /// The same convolution over `[N, C, 1, L]`.
    pub fn two_d(&self) -> Conv2dOptions {
        Conv2dOptions { stride: [1, self.stride], padding: [0, self.padding], dilation: [1, self.dilation], groups: self.groups }
    }
}

/// Attributes of a transposed convolution, with PyTorch's meaning and defaults; pairs are `[height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConvTranspose2dOptions {
    /// The convolution whose gradient this is: its stride, padding, dilation and groups.
    pub conv: Conv2dOptions,
    /// Rows and columns added at the end, less than the stride or the dilation.
    pub output_padding: [usize; 2],
}

impl ConvTranspose2dOptions {
    /// Output `[H, W]` for an input of `size` and a kernel of `kernel`:
    /// `(size - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1`.
    ///
    /// # Errors
    /// [`Error::Shape`] when nothing would be left, or `output_padding` is neither less than the stride nor than the dilation.
    pub fn output_size(&self, size: [usize; 2], kernel: [usize; 2]) -> Result<[usize; 2]> {
        self.conv.check()?;
        let mut out = [0; 2];
        for axis in 0..2 {
            let (s, p, d, extra) = (self.conv.stride[axis], self.conv.padding[axis], self.conv.dilation[axis], self.output_padding[axis]);
            if extra >= s.max(d) {
                return Err(Error::Shape(format!("conv_transpose2d: output_padding {extra} must be less than stride {s} or dilation {d}")));
            }
            let full =
                size[axis].saturating_sub(1).saturating_mul(s).saturating_add(d.saturating_mul(kernel[axis].saturating_sub(1)) + extra + 1);
            out[axis] =
                full.checked_sub(p.saturating_mul(2)).filter(|&n| n > 0 && size[axis] > 0 && kernel[axis] > 0).ok_or_else(|| {
                    Error::Shape(format!(
                        "conv_transpose2d: padding {p} leaves nothing of the {full} rows or columns that input size {} gives",
                        size[axis]
                    ))
                })?;
        }
        Ok(out)
    }
}

/// What becomes of a convolution's result before it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clip {
    /// `y`
    Nothing,
    /// `max(y, 0)`
    Relu,
    /// `min(max(y, 0), 6)`
    Relu6,
}

impl Clip {
    /// That with such a ceiling, where there is one.
    pub fn with_ceiling(ceiling: f64) -> Option<Clip> {
        [Clip::Relu, Clip::Relu6].into_iter().find(|clip| clip.bounds().is_some_and(|[_, most]| most == ceiling))
    }

    /// Least and greatest result.
    pub fn bounds(self) -> Option<[f64; 2]> {
        match self {
            Clip::Nothing => None,
            Clip::Relu => Some([0.0, f64::INFINITY]),
            Clip::Relu6 => Some([0.0, 6.0]),
        }
    }
}

/// The family's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Conv {
    /// `(x [N, C, H, W], w [K, C/groups, kH, kW], bias [K]?) -> y [N, K, oH, oW]`, with `clip` of it.
    Forward {
        /// Stride, padding, dilation, groups.
        options: Conv2dOptions,
        /// A third operand `[K]` is added.
        bias: bool,
        /// What becomes of the results.
        clip: Clip,
    },
    /// `(dy, w) -> dx [N, C, H, W]`.
    BackwardInput {
        /// As in the forward pass.
        options: Conv2dOptions,
        /// `[H, W]` of the input, which stride and padding do not determine.
        input_size: [usize; 2],
    },
    /// `(x, dy) -> dw [K, C/groups, kH, kW]`.
    BackwardWeight {
        /// As in the forward pass.
        options: Conv2dOptions,
        /// `[kH, kW]`.
        kernel_size: [usize; 2],
    },
}

impl Conv {
    pub(super) fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        float(self, inputs)?;
        let wrong = |expected: usize| Error::Shape(format!("{self:?} got {} operands, expected {expected}", inputs.len()));
        let shape = match *self {
            Conv::Forward { options, bias, .. } => {
                let expected = 2 + bias as usize;
                if inputs.len() != expected {
                    return Err(wrong(expected));
                }
                let y = options.output_shape(&inputs[0].shape, &inputs[1].shape)?;
                if bias && inputs[2].shape[..] != [y[1]] {
                    return Err(Error::Shape(format!("conv2d: bias {} must be [{}], one value a channel", inputs[2].shape, y[1])));
                }
                y
            }
            Conv::BackwardInput { options, input_size } => {
                let [dy, w] = inputs else { return Err(wrong(2)) };
                let [n, ..] = dy.shape.nchw("conv2d gradient")?;
                let [_, cg, ..] = w.shape.nchw("conv2d weight")?;
                let x = Shape::new(&[n, cg.saturating_mul(options.groups), input_size[0], input_size[1]])?;
                super::same(self, &dy.shape, &options.output_shape(&x, &w.shape)?)?;
                x
            }
            Conv::BackwardWeight { options, kernel_size } => {
                let [x, dy] = inputs else { return Err(wrong(2)) };
                options.check()?;
                let [_, c, ..] = x.shape.nchw("conv2d")?;
                let [_, k, ..] = dy.shape.nchw("conv2d gradient")?;
                let w = Shape::new(&[k, c / options.groups, kernel_size[0], kernel_size[1]])?;
                super::same(self, &dy.shape, &options.output_shape(&x.shape, &w)?)?;
                w
            }
        };
        Ok(vec![Spec::new(shape, inputs[0].dtype)])
    }

    /// Multiply-accumulates of one call: the same for all three passes, padding taps counted.
    pub fn macs(&self, inputs: &[Spec], outputs: &[Spec]) -> u64 {
        let (y, w) = match self {
            Conv::Forward { .. } => (&outputs[0].shape, &inputs[1].shape),
            Conv::BackwardInput { .. } => (&inputs[0].shape, &inputs[1].shape),
            Conv::BackwardWeight { .. } => (&inputs[1].shape, &outputs[0].shape),
        };
        y.len() as u64 * w[1..].iter().product::<usize>() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each pair of pixel and tap that the definition lists is in exactly one phase, and no other.
    #[test]
    fn phases_list_every_tap_of_every_pixel_once() {
        for (stride, dilation, padding, kernel, size) in [
            (1, 1, 0, 1, 5),
            (1, 2, 3, 3, 9),
            (2, 1, 1, 3, 8),
            (3, 2, 2, 4, 11),
            (4, 6, 5, 3, 17),
            (7, 1, 0, 2, 20),
            (2, 2, 0, 3, 6),
            (1000, 1, 0, 1, 3),
        ] {
            let options = Conv2dOptions { stride: [1, stride], dilation: [1, dilation], padding: [0, padding], groups: 1 };
            let mut found = Vec::new();
            for phase in options.phases(1, size, kernel) {
                for n in 0..phase.size {
                    found.extend(
                        phase.taps.iter().map(|&(tap, back)| (phase.first + n * stride, tap, (phase.output + n) as i64 - back as i64)),
                    );
                }
                let steps = |f: fn(&(usize, usize)) -> usize| phase.taps.windows(2).map(|w| f(&w[1]) - f(&w[0])).collect::<Vec<_>>();
                assert!(steps(|t| t.0).windows(2).all(|w| w[0] == w[1]) && steps(|t| t.1).windows(2).all(|w| w[0] == w[1]));
            }
            let mut want = Vec::new();
            for h in 0..size {
                for i in 0..kernel {
                    let at = (h + padding) as i64 - (i * dilation) as i64;
                    if at.rem_euclid(stride as i64) == 0 {
                        want.push((h, i, at.div_euclid(stride as i64)));
                    }
                }
            }
            found.sort_unstable();
            want.sort_unstable();
            assert_eq!(found, want, "stride {stride}, dilation {dilation}, padding {padding}, kernel {kernel}");
        }
    }
}
