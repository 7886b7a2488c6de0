//! Pooling over windows, and over whole planes.

use super::{arity, float, same};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::{Shape, Spec};

/// Attributes of a pooling window, with PyTorch's meaning; pairs are `[height, width]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pool2dOptions {
    /// Window size.
    pub kernel_size: [usize; 2],
    /// Step of the window; PyTorch's default is the kernel size.
    pub stride: [usize; 2],
    /// Padding on each of the two sides; it never wins a maximum.
    pub padding: [usize; 2],
    /// Distance between taps (maximum pooling only).
    pub dilation: [usize; 2],
    /// Round the output size up; a last window that would start in the right padding is left out.
    pub ceil_mode: bool,
}

impl Pool2dOptions {
    /// A square window that steps by its own size.
    pub fn new(kernel_size: usize) -> Self {
        let k = [kernel_size; 2];
        Pool2dOptions { kernel_size: k, stride: k, padding: [0; 2], dilation: [1; 2], ceil_mode: false }
    }

    /// The output shape for `[N, C, H, W]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the window does not fit, padding exceeds half the window, or some window holds nothing but padding.
    pub fn output_shape(&self, x: &Shape) -> Result<Shape> {
        let [n, c, h, w] = x.nchw("pool2d")?;
        let mut out = [0; 2];
        for (axis, size) in [h, w].into_iter().enumerate() {
            let (k, s, p, d) = (self.kernel_size[axis], self.stride[axis], self.padding[axis], self.dilation[axis]);
            if k == 0 || s == 0 || d == 0 {
                return Err(Error::Shape(format!("pool2d: kernel_size, stride and dilation must be at least 1, got {self:?}")));
            }
            if p > k / 2 {
                return Err(Error::Shape(format!("pool2d: padding {p} must be at most half of kernel_size {k}")));
            }
            let window = (k - 1).saturating_mul(d).saturating_add(1);
            if size + 2 * p < window {
                return Err(Error::Shape(format!("pool2d: window {window} does not fit the input {x} with padding {p}")));
            }
            let span = size + 2 * p - window;
            out[axis] = if self.ceil_mode {
                let n = span.div_ceil(s) + 1;
                if (n - 1) * s >= size + p { n - 1 } else { n }
            } else {
                span / s + 1
            };
            // Taps farther apart than the image is wide can step over all of it.
            let empty = |i: usize| (0..k).all(|tap| !(p..p + size).contains(&(i * s + tap * d)));
            if d > size && (0..out[axis]).any(empty) {
                return Err(Error::Shape(format!(
                    "pool2d: a window of {k} taps with dilation {d} and padding {p} holds no pixel of the input {x}; use a smaller dilation"
                )));
            }
        }
        Shape::new(&[n, c, out[0], out[1]])
    }
}

/// Attributes of a window over `[N, C, L]`; see [`Pool2dOptions`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pool1dOptions {
    /// Window size.
    pub kernel_size: usize,
    /// Step of the window; PyTorch's default is the kernel size.
    pub stride: usize,
    /// Padding on each of the two sides.
    pub padding: usize,
    /// Distance between taps (maximum pooling only).
    pub dilation: usize,
    /// Round the output size up.
    pub ceil_mode: bool,
}

impl Pool1dOptions {
    /// The same window over `[N, C, 1, L]`.
    pub fn two_d(&self) -> Pool2dOptions {
        Pool2dOptions {
            kernel_size: [1, self.kernel_size],
            stride: [1, self.stride],
            padding: [0, self.padding],
            dilation: [1, self.dilation],
            ceil_mode: self.ceil_mode,
        }
    }
}

/// Attributes of average pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AvgPool2dOptions {
    /// The window; dilation must be 1.
    pub window: Pool2dOptions,
    /// The divisor counts padding (but not what `ceil_mode` adds beyond it).
    pub count_include_pad: bool,
    /// Replaces the divisor.
    pub divisor_override: Option<usize>,
}

impl AvgPool2dOptions {
    fn check(&self) -> Result<()> {
        if self.divisor_override == Some(0) {
            return Err(Error::Shape("avg_pool2d: divisor_override must be at least 1, got 0".into()));
        }
        if self.window.dilation != [1, 1] {
            return Err(Error::Shape(format!("avg_pool2d: dilation must be [1, 1], got {:?}", self.window.dilation)));
        }
        Ok(())
    }

    /// Start and end of window `i` on `axis` inside the input, and the divisor's share of that axis.
    pub fn extent(&self, axis: usize, i: usize, size: usize) -> (usize, usize, usize) {
        let (k, s, p) = (self.window.kernel_size[axis], self.window.stride[axis], self.window.padding[axis]);
        let padded_end = (i * s + k).min(size + 2 * p);
        let (start, end) = ((i * s).max(p) - p, padded_end.clamp(p, size + p) - p);
        (start, end, if self.count_include_pad { padded_end - i * s } else { end - start })
    }
}

/// The family's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pool {
    /// `x [N, C, H, W] -> (y [N, C, oH, oW], index u32)`: the largest value and its index `h W + w`; a tie goes to the first.
    Max(Pool2dOptions),
    /// `(dy, index) -> dx [N, C, height, width]`. An index outside the plane adds nothing.
    MaxBackward {
        /// As in the forward pass.
        options: Pool2dOptions,
        /// `[H, W]` of the input.
        input_size: [usize; 2],
    },
    /// `x [N, C, H, W] -> y [N, C, oH, oW]`.
    Avg(AvgPool2dOptions),
    /// `dy -> dx [N, C, height, width]`.
    AvgBackward {
        /// As in the forward pass.
        options: AvgPool2dOptions,
        /// `[H, W]` of the input.
        input_size: [usize; 2],
    },
    /// Mean of each channel over its pixels, `[N, C, H, W] -> [N, C, 1, 1]`.
    ///
    /// `y[n,c] = sum_{h,w} x[n,c,h,w] / (H*W)`. ONNX `GlobalAveragePool`, PyTorch
    /// `adaptive_avg_pool2d(x, 1)`; Lin et al. 2013, "Network In Network", arXiv:1312.4400, section 3.2.
    GlobalAvg,
    /// `dy [N, C, 1, 1] -> dx [N, C, height, width]`, `dx[n,c,h,w] = dy[n,c] / (height*width)`.
    GlobalAvgBackward {
        /// `[H, W]` of the input.
        input_size: [usize; 2],
    },
}

impl Pool {
    pub(super) fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let image = |like: &Spec, size: &[usize; 2]| -> Result<Spec> {
            let [n, c, ..] = like.shape.nchw("pool2d gradient")?;
            Ok(Spec::new(Shape::new(&[n, c, size[0], size[1]])?, like.dtype))
        };
        match self {
            Pool::Max(options) => {
                let [x] = arity(self, inputs)?;
                float(self, &[x])?;
                let shape = options.output_shape(&x.shape)?;
                if u32::try_from(x.shape[2] * x.shape[3]).is_err() {
                    return Err(Error::Shape(format!("max_pool2d: a plane of {} has more pixels than u32 counts", x.shape)));
                }
                Ok(vec![Spec::new(shape, x.dtype), Spec::new(shape, DType::U32)])
            }
            Pool::MaxBackward { options, input_size } => {
                let [dy, index] = arity(self, inputs)?;
                float(self, &[dy])?;
                if index.dtype != DType::U32 {
                    return Err(Error::DType(format!("max_pool2d gradient: indices are u32 {}, got {index}", dy.shape)));
                }
                let x = image(&dy, input_size)?;
                same(self, &dy.shape, &options.output_shape(&x.shape)?)?;
                same(self, &dy.shape, &index.shape)?;
                Ok(vec![x])
            }
            Pool::Avg(options) => {
                let [x] = arity(self, inputs)?;
                float(self, &[x])?;
                options.check()?;
                Ok(vec![Spec::new(options.window.output_shape(&x.shape)?, x.dtype)])
            }
            Pool::AvgBackward { options, input_size } => {
                let [dy] = arity(self, inputs)?;
                float(self, &[dy])?;
                options.check()?;
                let x = image(&dy, input_size)?;
                same(self, &dy.shape, &options.window.output_shape(&x.shape)?)?;
                Ok(vec![x])
            }
            Pool::GlobalAvg => {
                let [x] = arity(self, inputs)?;
                float(self, &[x])?;
                let [n, c, h, w] = x.shape.nchw("global_avg_pool2d")?;
                if h * w == 0 {
                    return Err(Error::Shape(format!("global_avg_pool2d: input {} has no pixels", x.shape)));
                }
                Ok(vec![Spec::new(Shape::new(&[n, c, 1, 1])?, x.dtype)])
            }
            Pool::GlobalAvgBackward { input_size } => {
                let [dy] = arity(self, inputs)?;
                float(self, &[dy])?;
                Ok(vec![image(&dy, input_size)?])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_that_steps_over_the_whole_image_is_refused() {
        let options = Pool2dOptions { kernel_size: [2, 1], stride: [1, 1], padding: [1, 0], dilation: [2, 1], ceil_mode: false };
        let shape = |h| options.output_shape(&Shape::new(&[1, 1, h, 1]).unwrap());
        let error = shape(1).unwrap_err().to_string();
        assert_eq!(
            error,
            "pool2d: a window of 2 taps with dilation 2 and padding 1 holds no pixel of the input [1, 1, 1, 1]; use a smaller dilation"
        );
        assert_eq!(shape(2).unwrap()[..], [1, 1, 2, 1]);
    }
}
