//! Initial weights, drawn on the CPU so that they are the same on every device.

use super::{Module, Parameter, named_parameters};
use crate::error::Result;
use crate::rng::Stream;
use crate::shape::Shape;

/// The distribution of a parameter's initial values.
///
/// `fan_in` and `fan_out` are PyTorch's: for a weight `[out, in, ..]` they are `in` and `out` times the product of the sizes after them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// `U(-1/sqrt(fan_in), 1/sqrt(fan_in))`: what PyTorch's Linear and Conv2d use, there written `kaiming_uniform(a = sqrt(5))`.
    Default,
    /// `U(-b, b)`, `b = sqrt(6 / fan_in)` (He et al. 2015, arXiv:1502.01852, for relu).
    KaimingUniform,
    /// `N(0, 2 / fan_in)` (He et al. 2015, arXiv:1502.01852, for relu).
    KaimingNormal,
    /// `U(-b, b)`, `b = sqrt(6 / (fan_in + fan_out))` (Glorot and Bengio 2010).
    XavierUniform,
    /// `N(0, 2 / (fan_in + fan_out))` (Glorot and Bengio 2010).
    XavierNormal,
    /// `U(-bound, bound)`.
    Uniform {
        /// Largest absolute value.
        bound: f64,
    },
    /// `N(0, std^2)`.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Every element the same: 0 for biases, 1 for the weights of normalisation layers.
    Constant(f64),
}

/// `(fan_in, fan_out)`; a vector counts as one output a value.
fn fans(shape: &Shape) -> (f64, f64) {
    let receptive: usize = shape.iter().skip(2).product();
    let size = |d: usize| (shape.get(d).copied().unwrap_or(1) * receptive) as f64;
    (size(1), size(0))
}

/// The bound of [`Init::Default`] for a fan-in; 0 where there are no inputs.
pub(super) fn default_bound(fan_in: usize) -> f64 {
    if fan_in == 0 { 0.0 } else { 1.0 / (fan_in as f64).sqrt() }
}

impl Init {
    /// The values of a parameter of this shape.
    pub fn values(self, shape: &Shape, stream: Stream) -> Vec<f32> {
        let (fan_in, fan_out) = fans(shape);
        let n = shape.len() as u64;
        let uniform = |bound: f64| (0..n).map(|i| (bound * (2.0 * stream.uniform(i) as f64 - 1.0)) as f32).collect();
        let normal = |std: f64| (0..n).map(|i| (std * stream.normal(i)) as f32).collect();
        match self {
            Init::Default => uniform(default_bound(fan_in as usize)),
            Init::KaimingUniform => uniform((6.0 / fan_in.max(1.0)).sqrt()),
            Init::KaimingNormal => normal((2.0 / fan_in.max(1.0)).sqrt()),
            Init::XavierUniform => uniform((6.0 / (fan_in + fan_out).max(1.0)).sqrt()),
            Init::XavierNormal => normal((2.0 / (fan_in + fan_out).max(1.0)).sqrt()),
            Init::Uniform { bound } => uniform(bound),
            Init::Normal { std } => normal(std),
            Init::Constant(value) => vec![value as f32; shape.len()],
        }
    }
}

/// Fills every parameter of a module as its [`Parameter::init`] says. Layers hold zeros before.
///
/// The values are a function of the seed and of the parameter's name (`Stream::new(seed, "init/<name>", 0, 0)`) alone.
///
/// # Errors
/// Errors of the device.
pub fn initialize(module: &dyn Module, seed: u64) -> Result<()> {
    let fill = |(name, parameter): (String, Parameter)| {
        let stream = Stream::new(seed, &format!("init/{name}"), 0, 0);
        parameter.write(&parameter.init().values(&parameter.shape(), stream))
    };
    named_parameters(module).into_iter().try_for_each(fill)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::nn::{Conv2d, Linear};
    use crate::op::Conv2dOptions;

    fn moments(values: &[f32]) -> (f64, f64, f32) {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| v as f64).sum::<f64>() / n;
        let var = values.iter().map(|&v| (v as f64 - mean).powi(2)).sum::<f64>() / n;
        (mean, var, values.iter().fold(0.0, |m, v| v.abs().max(m)))
    }

    #[test]
    fn distributions_have_the_published_variances() {
        let shape = Shape::new(&[64, 16, 3, 3]).unwrap();
        let (fan_in, fan_out) = (144.0, 576.0);
        let stream = Stream::new(7, "init/w", 0, 0);
        let cases = [
            (Init::Default, 1.0 / (3.0 * fan_in), Some(1.0 / 12.0)),
            (Init::KaimingUniform, 2.0 / fan_in, Some((6.0f64 / fan_in).sqrt())),
            (Init::KaimingNormal, 2.0 / fan_in, None),
            (Init::XavierUniform, 2.0 / (fan_in + fan_out), Some((6.0 / (fan_in + fan_out)).sqrt())),
            (Init::XavierNormal, 2.0 / (fan_in + fan_out), None),
            (Init::Uniform { bound: 0.3 }, 0.03, Some(0.3)),
            (Init::Normal { std: 0.3 }, 0.09, None),
        ];
        for (init, variance, bound) in cases {
            let (mean, var, max) = moments(&init.values(&shape, stream));
            // 9,216 values: the mean is within 5 of its standard errors, the variance within 5 * sqrt(2 / n) of itself.
            assert!(mean.abs() < 5.0 * (variance / 9216.0).sqrt(), "{init:?}: mean {mean}");
            assert!((var / variance - 1.0).abs() < 0.08, "{init:?}: variance {var}, expected {variance}");
            if let Some(bound) = bound {
                assert!(max as f64 <= bound * (1.0 + 1e-6) && max as f64 > 0.99 * bound, "{init:?}: largest {max}, bound {bound}");
            }
        }
        assert_eq!(Init::Constant(1.0).values(&Shape::new(&[3]).unwrap(), stream), [1.0; 3]);
    }

    #[test]
    fn layers_start_as_in_pytorch_and_names_decide_the_values() {
        let device = Device::cpu(1).unwrap();
        let values = |module: &dyn Module, seed| {
            initialize(module, seed).unwrap();
            named_parameters(module).into_iter().map(|(_, p)| p.data().to_vec_blocking::<f32>().unwrap()).collect::<Vec<_>>()
        };
        let conv = Conv2d::new(&device, 8, 32, [3, 3], Conv2dOptions { groups: 2, ..Default::default() }, true).unwrap();
        let bound = 1.0 / 6.0;
        for v in values(&conv, 1) {
            let (_, _, max) = moments(&v);
            assert!(max <= bound && max > 0.8 * bound, "{max}");
        }
        let (a, b) = (Linear::new(&device, 5, 5, true).unwrap(), Linear::new(&device, 5, 5, true).unwrap());
        assert_eq!(values(&a, 3), values(&b, 3));
        assert_ne!(values(&a, 3), values(&b, 4));
        let expected = Init::Default.values(&Shape::new(&[5, 5]).unwrap(), Stream::new(3, "init/weight", 0, 0));
        assert_eq!(values(&a, 3)[0], expected);
    }
}
