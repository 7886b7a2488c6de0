//! Resizing: each axis on its own is a linear map from old to new pixels, whose rows are the weights of a filter.
//!
//! Nearest neighbours are selected by index; all else is a product with the axis' matrix `[new, old]`, which the tiled GEMM computes and whose
//! gradient is the product with its transpose.

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Which old pixels make a new one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Filter {
    /// The nearest pixel.
    Nearest(Nearest),
    /// The two neighbours, by their distance.
    Linear,
    /// Four neighbours (Keys 1981).
    Cubic {
        /// The parameter of the kernel, -0.75 in PyTorch.
        a: f64,
    },
}

/// What a place between two pixels, or in the middle of them, is rounded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nearest {
    /// Down.
    Floor,
    /// Up.
    Ceil,
    /// The nearer one; from the middle down.
    PreferFloor,
    /// The nearer one; from the middle up.
    PreferCeil,
}

/// Where new pixel `i` lies among the old ones; ONNX's `coordinate_transformation_mode`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Coordinates {
    /// Pixels are squares whose edges are aligned: `(i + 0.5) / scale - 0.5`.
    HalfPixel,
    /// As `HalfPixel` about the centre of the image, where the scale does not give the size exactly.
    HalfPixelSymmetric,
    /// As `HalfPixel`, but a single new pixel lies at 0.
    PytorchHalfPixel,
    /// First and last pixels are aligned: `i (old - 1) / (scale old - 1)`.
    AlignCorners,
    /// `i / scale`.
    Asymmetric,
    /// A part of the old image: from `start` to `end`, in shares of its length. Places outside are given `extrapolation`.
    CropAndResize {
        /// Where the part begins.
        start: f64,
        /// Where it ends.
        end: f64,
    },
}

/// How one axis is resized.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Resize {
    /// New pixels.
    pub size: usize,
    /// New pixels for each old one; not always the ratio of the sizes.
    pub scale: f64,
    /// Which old pixels make a new one.
    pub filter: Filter,
    /// Where they are looked for.
    pub coordinates: Coordinates,
    /// Stretches the filter when the image shrinks, so that every old pixel counts.
    pub antialias: bool,
    /// Leaves out what the filter takes from outside the image, instead of repeating the border.
    pub exclude_outside: bool,
    /// The value of places outside the image, with `CropAndResize`.
    pub extrapolation: f64,
}

impl Resize {
    /// To `size` pixels of `old`, without antialiasing.
    pub fn new(old: usize, size: usize, filter: Filter, coordinates: Coordinates) -> Self {
        let scale = size as f64 / old.max(1) as f64;
        Resize { size, scale, filter, coordinates, antialias: false, exclude_outside: false, extrapolation: 0.0 }
    }

    /// The place of new pixel `i` among `old` pixels.
    fn place(&self, i: usize, old: usize) -> f64 {
        let (i, n, new) = (i as f64, old as f64, self.size as f64);
        let half_pixel = (i + 0.5) / self.scale - 0.5;
        match self.coordinates {
            Coordinates::HalfPixel => half_pixel,
            // The rounded size covers this share of the exact one; what lacks is split between both sides.
            Coordinates::HalfPixelSymmetric => n / 2.0 * (1.0 - new / (self.scale * n)) + half_pixel,
            Coordinates::PytorchHalfPixel => {
                if self.size > 1 {
                    half_pixel
                } else {
                    0.0
                }
            }
            // The exact size, which `size` may round.
            Coordinates::AlignCorners => {
                if self.size > 1 {
                    i * (n - 1.0) / (self.scale * n - 1.0)
                } else {
                    0.0
                }
            }
            Coordinates::Asymmetric => i / self.scale,
            Coordinates::CropAndResize { start, end } => {
                if self.size > 1 {
                    start * (n - 1.0) + i * (end - start) * (n - 1.0) / (new - 1.0)
                } else {
                    0.5 * (start + end) * (n - 1.0)
                }
            }
        }
    }

    /// The old pixel nearest to each new one.
    fn nearest(&self, rounding: Nearest, old: usize) -> Vec<usize> {
        let round = |x: f64| match rounding {
            Nearest::Floor => x.floor(),
            Nearest::Ceil => x.ceil(),
            Nearest::PreferFloor => (x - 0.5).ceil(),
            Nearest::PreferCeil => (x + 0.5).floor(),
        };
        (0..self.size).map(|i| round(self.place(i, old)).clamp(0.0, old as f64 - 1.0) as usize).collect()
    }

    /// The weights `[new, old]`, and for each new pixel whether it lies outside the image.
    fn matrix(&self, old: usize) -> (Vec<f64>, Vec<bool>) {
        let mut matrix = vec![0.0; self.size * old];
        let mut outside = vec![false; self.size];
        // A shrinking image stretches the filter by 1 / scale.
        let shrink = if self.antialias { self.scale.min(1.0) } else { 1.0 };
        let (kernel, radius): (&dyn Fn(f64) -> f64, f64) = match self.filter {
            Filter::Cubic { a } => (&move |x: f64| cubic(x.abs(), a), 2.0),
            _ => (&|x: f64| (1.0 - x.abs()).max(0.0), 1.0),
        };
        for (i, row) in matrix.chunks_mut(old).enumerate() {
            let x = self.place(i, old);
            outside[i] = matches!(self.coordinates, Coordinates::CropAndResize { .. }) && !(0.0..=old as f64 - 1.0).contains(&x);
            let taps = (x - radius / shrink).floor() as i64..=(x + radius / shrink).ceil() as i64;
            let inside = |tap: i64| (0..old as i64).contains(&tap);
            let weight = |tap: i64| if self.exclude_outside && !inside(tap) { 0.0 } else { kernel((tap as f64 - x) * shrink) };
            let sum: f64 = taps.clone().map(weight).sum();
            for tap in taps {
                row[tap.clamp(0, old as i64 - 1) as usize] += weight(tap) / sum;
            }
        }
        (matrix, outside)
    }
}

/// The cubic kernel at distance `x`.
fn cubic(x: f64, a: f64) -> f64 {
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

/// Resizes dimension `dim` of `x`.
///
/// # Errors
/// [`Error::Shape`] when the dimension is out of range or empty, or the scale is not above 0.
pub fn resize(x: &Tensor, dim: i64, how: &Resize) -> Result<Tensor> {
    let dim = x.shape().dim(dim, "resize")?;
    let old = x.shape()[dim];
    if old == 0 || how.size == 0 || !(how.scale > 0.0 && how.scale.is_finite()) {
        return Err(Error::Shape(format!(
            "resize of dimension {dim} of {} to {} with scale {}: sizes and scale must be above 0",
            x.shape(),
            how.size,
            how.scale
        )));
    }
    if let Filter::Nearest(rounding) = how.filter {
        let index: Vec<u32> = how.nearest(rounding, old).into_iter().map(|i| i as u32).collect();
        if index.iter().enumerate().all(|(i, &from)| i == from as usize) && index.len() == old {
            return Ok(x.clone());
        }
        return x.index_select(dim as i64, &Tensor::from_slice(x.device(), &[index.len()], &index)?);
    }
    let (matrix, outside) = how.matrix(old);
    let matrix: Vec<f32> = matrix.into_iter().map(|w| w as f32).collect();
    let matrix = Tensor::from_slice(x.device(), &[how.size, old], &matrix)?.cast(x.dtype())?;
    let (lead, inner): (usize, usize) = (x.shape()[..dim].iter().product(), x.shape()[dim + 1..].iter().product());
    let mut shape = x.shape().to_vec();
    shape[dim] = how.size;
    let y = if inner == 1 {
        x.reshape(&[lead, old])?.matmul_with(&matrix, false, true)?
    } else {
        matrix.matmul(&x.reshape(&[lead, old, inner])?)?
    };
    let y = y.reshape(&shape)?;
    if !outside.contains(&true) {
        return Ok(y);
    }
    let flags = outside.into_iter().map(u32::from).collect::<Vec<_>>();
    let mut dims = vec![1; shape.len()];
    dims[dim] = how.size;
    let flags = Tensor::from_slice(x.device(), &dims, &flags)?;
    Tensor::full(x.device(), &[], x.dtype(), how.extrapolation)?.where_(&flags, &y)
}

/// How [`interpolate`] finds new pixels, by PyTorch's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// The pixel at or before the place.
    Nearest,
    /// Linear in both directions.
    Bilinear,
    /// Cubic in both directions, `a = -0.75`.
    Bicubic,
}

/// `[N, C, H, W]` to `[N, C, size]`, as PyTorch's `interpolate`; `scale_factor`, where given, takes the place of the sizes' ratio in the coordinates.
///
/// # Errors
/// [`Error::Shape`] unless `x` has four dimensions and the sizes are above 0.
pub fn interpolate(
    x: &Tensor,
    size: [usize; 2],
    scale_factor: Option<[f64; 2]>,
    mode: Interpolation,
    align_corners: bool,
) -> Result<Tensor> {
    let [_, _, h, w] = x.shape().nchw("interpolate")?;
    let mut y = x.clone();
    for (axis, old) in [h, w].into_iter().enumerate() {
        let (filter, coordinates) = match (mode, align_corners) {
            (Interpolation::Nearest, _) => (Filter::Nearest(Nearest::Floor), Coordinates::Asymmetric),
            (Interpolation::Bilinear, true) => (Filter::Linear, Coordinates::AlignCorners),
            (Interpolation::Bilinear, false) => (Filter::Linear, Coordinates::HalfPixel),
            (Interpolation::Bicubic, true) => (Filter::Cubic { a: -0.75 }, Coordinates::AlignCorners),
            (Interpolation::Bicubic, false) => (Filter::Cubic { a: -0.75 }, Coordinates::HalfPixel),
        };
        let mut how = Resize::new(old, size[axis], filter, coordinates);
        // Aligned corners are those of the rounded size.
        if let (Some(factor), false) = (scale_factor, align_corners) {
            how.scale = factor[axis];
        }
        y = resize(&y, axis as i64 + 2, &how)?;
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(how: Resize, old: usize, i: usize) -> Vec<f64> {
        how.matrix(old).0[i * old..][..old].to_vec()
    }

    /// Worked by hand.
    #[test]
    fn filters_follow_their_definitions() {
        let linear = Resize::new(2, 4, Filter::Linear, Coordinates::HalfPixel);
        assert_eq!([0, 1, 2, 3].map(|i| row(linear, 2, i)), [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]].map(Vec::from));
        let corners = Resize { coordinates: Coordinates::AlignCorners, ..Resize::new(2, 3, Filter::Linear, Coordinates::HalfPixel) };
        assert_eq!(row(corners, 2, 1), [0.5, 0.5]);
        // Halving with antialias: triangles of radius 2 about 0.5 weigh 5 : 5 : 3 : (and -1 beyond the border, 3, on pixel 0).
        let shrunk = Resize { antialias: true, ..Resize::new(4, 2, Filter::Linear, Coordinates::HalfPixel) };
        let want = [0.5, 0.375, 0.125, 0.0];
        assert!(row(shrunk, 4, 0).iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-12), "{:?}", row(shrunk, 4, 0));
        assert_eq!((cubic(0.0, -0.75), cubic(1.0, -0.75), cubic(2.0, -0.75)), (1.0, 0.0, 0.0));
        for (rounding, want) in [(Nearest::Floor, [0, 0, 0, 1]), (Nearest::PreferFloor, [0, 0, 1, 1]), (Nearest::Ceil, [0, 1, 1, 1])] {
            assert_eq!(linear.nearest(rounding, 2), want, "{rounding:?}");
        }
    }

    #[test]
    fn sizes_and_scales_that_make_no_sense_are_named() {
        let device = crate::Device::cpu(1).unwrap();
        let x = Tensor::zeros(&device, &[1, 1, 2, 2]).unwrap();
        let how = Resize { scale: f64::NAN, ..Resize::new(2, 4, Filter::Linear, Coordinates::HalfPixel) };
        assert!(resize(&x, 2, &how).unwrap_err().to_string().contains("scale NaN"));
        assert!(interpolate(&x, [0, 3], None, Interpolation::Nearest, false).is_err());
    }
}
