//! Pooling and its gradients.

use super::{Saves, no_gradient};
use crate::autodiff::{Grads, Recorded};
use crate::error::{Error, Result};
use crate::op::{AvgPool2dOptions, Pool, Pool1dOptions, Pool2dOptions};
use crate::tensor::Tensor;

impl Tensor {
    /// The largest value of each window, `[N, C, H, W] -> [N, C, oH, oW]`; of equal values the first gets the gradient.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when the window does not fit.
    pub fn max_pool2d(&self, options: Pool2dOptions) -> Result<Tensor> {
        Tensor::apply1(Pool::Max(options), &[self])
    }

    /// The mean of each window, `[N, C, H, W] -> [N, C, oH, oW]`.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when the window does not fit.
    pub fn avg_pool2d(&self, options: AvgPool2dOptions) -> Result<Tensor> {
        Tensor::apply1(Pool::Avg(options), &[self])
    }

    /// Averages each channel over its pixels: `[N, C, H, W] -> [N, C, 1, 1]`. See [`Pool::GlobalAvg`].
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) unless the input has rank 4 and at least one pixel.
    pub fn global_avg_pool2d(&self) -> Result<Tensor> {
        Tensor::apply1(Pool::GlobalAvg, &[self])
    }

    /// The largest value of each window of `[N, C, L]`, see [`Tensor::max_pool2d`].
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when the window does not fit.
    pub fn max_pool1d(&self, options: Pool1dOptions) -> Result<Tensor> {
        self.unsqueeze_height("max_pool1d")?.max_pool2d(options.two_d())?.squeeze_height()
    }

    /// The mean of each window of `[N, C, L]`, see [`Tensor::avg_pool2d`].
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when the window does not fit.
    pub fn avg_pool1d(&self, options: Pool1dOptions, count_include_pad: bool) -> Result<Tensor> {
        let options = AvgPool2dOptions { window: options.two_d(), count_include_pad, divisor_override: None };
        self.unsqueeze_height("avg_pool1d")?.avg_pool2d(options)?.squeeze_height()
    }

    /// `(sum x^p)^(1/p)` over each window, without padding; no absolute value is taken, as in PyTorch.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when the window does not fit.
    pub fn lp_pool2d(&self, norm_type: f64, window: Pool2dOptions) -> Result<Tensor> {
        let options = AvgPool2dOptions { window, count_include_pad: true, divisor_override: Some(1) };
        self.powf(norm_type)?.avg_pool2d(options)?.powf(1.0 / norm_type)
    }

    /// Means over windows that divide the image into `output_size` parts: window i of n over L is `floor(i L / n) .. ceil((i + 1) L / n)`.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) unless the input has rank 4 and at least one pixel, and the sizes are at least 1.
    pub fn adaptive_avg_pool2d(&self, output_size: [usize; 2]) -> Result<Tensor> {
        let [_, _, h, w] = self.shape().nchw("adaptive_avg_pool2d")?;
        if output_size == [1, 1] {
            return self.global_avg_pool2d();
        }
        if let Some(window) = even_windows([h, w], output_size) {
            return self.avg_pool2d(AvgPool2dOptions { window, count_include_pad: true, divisor_override: None });
        }
        // Windows of different sizes are a product with a matrix of shares along each axis.
        let shares = |size: usize, parts: usize| -> Result<Tensor> {
            let mut matrix = vec![0.0f64; parts * size];
            for (i, (start, end)) in adaptive_windows(size, parts)?.into_iter().enumerate() {
                matrix[i * size + start..i * size + end].fill(1.0 / (end - start) as f64);
            }
            Tensor::from_slice(self.device(), &[parts, size], &matrix.iter().map(|&v| v as f32).collect::<Vec<f32>>())?.cast(self.dtype())
        };
        shares(h, output_size[0])?.matmul(&self.matmul_with(&shares(w, output_size[1])?, false, true)?)
    }

    /// Largest values over the windows of [`Tensor::adaptive_avg_pool2d`].
    ///
    /// # Errors
    /// As [`Tensor::adaptive_avg_pool2d`].
    pub fn adaptive_max_pool2d(&self, output_size: [usize; 2]) -> Result<Tensor> {
        let [_, _, h, w] = self.shape().nchw("adaptive_max_pool2d")?;
        if let Some(window) = even_windows([h, w], output_size) {
            return self.max_pool2d(window);
        }
        // Windows of one size by repeating the last pixel of the shorter ones: a repeated value changes no maximum, and comes after its first.
        let (mut x, mut kernel_size) = (self.clone(), [1, 1]);
        for (axis, size) in [h, w].into_iter().enumerate() {
            let windows = adaptive_windows(size, output_size[axis])?;
            let longest = windows.iter().map(|(start, end)| end - start).max().unwrap_or(1);
            let index: Vec<u32> =
                windows.iter().flat_map(|&(start, end)| (0..longest).map(move |i| (start + i).min(end - 1) as u32)).collect();
            x = x.index_select(axis as i64 + 2, &Tensor::from_slice(self.device(), &[index.len()], &index)?)?;
            kernel_size[axis] = longest;
        }
        x.max_pool2d(Pool2dOptions { kernel_size, stride: kernel_size, ..Pool2dOptions::new(1) })
    }
}

/// The window that divides the image evenly, if there is one.
fn even_windows(size: [usize; 2], parts: [usize; 2]) -> Option<Pool2dOptions> {
    let even = (0..2).all(|axis| parts[axis] > 0 && size[axis] > 0 && size[axis].is_multiple_of(parts[axis]));
    let kernel_size = [size[0].checked_div(parts[0])?, size[1].checked_div(parts[1])?];
    even.then(|| Pool2dOptions { kernel_size, stride: kernel_size, ..Pool2dOptions::new(1) })
}

/// Start and end of each of `parts` windows over `size` pixels.
fn adaptive_windows(size: usize, parts: usize) -> Result<Vec<(usize, usize)>> {
    if size == 0 || parts == 0 {
        return Err(Error::Shape(format!("adaptive pooling of {size} pixels into {parts} parts: both must be at least 1")));
    }
    Ok((0..parts).map(|i| (i * size / parts, ((i + 1) * size).div_ceil(parts))).collect())
}

pub(super) fn saves(op: &Pool) -> Saves {
    match op {
        Pool::Max(_) => (&[], &[1]),
        _ => (&[], &[]),
    }
}

pub(super) fn vjp(op: &Pool, r: &Recorded, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    let x = r.input_spec(0).shape;
    match *op {
        Pool::Max(options) => grads.op(&[0], Pool::MaxBackward { options, input_size: [x[2], x[3]] }, &[dy, r.output(1)?]),
        Pool::Avg(options) => grads.op(&[0], Pool::AvgBackward { options, input_size: [x[2], x[3]] }, &[dy]),
        // Every pixel of a plane entered the mean with weight 1/(H*W).
        Pool::GlobalAvg => grads.op(&[0], Pool::GlobalAvgBackward { input_size: [x[2], x[3]] }, &[dy]),
        _ => Err(no_gradient(&(*op).into())),
    }
}
