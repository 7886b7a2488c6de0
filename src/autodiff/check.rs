//! Gradients against central differences, in f64.

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The outcome of a gradient check: the worst element found.
#[derive(Debug, Clone)]
pub struct GradCheck {
    /// Largest `|analytic - numeric| / max(1, |numeric|)`.
    pub error: f64,
    /// Which input, which element, the analytic and the numeric derivative.
    pub worst: (usize, usize, f64, f64),
}

/// Checks the gradient of `sum(f(inputs) * upstream)` with respect to every input, all f64 on the CPU.
///
/// Central differences with step `h = 1e-5` have an error of `h^2 f'''/6 + 1e-16 |f| / h`, about 1e-10 for functions of size 1.
///
/// # Errors
/// Whatever `f` returns, and [`Error::DType`] unless all inputs are f64.
pub fn check_gradient(inputs: &[Tensor], upstream: &Tensor, f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<GradCheck> {
    const STEP: f64 = 1e-5;
    let leaves: Vec<Tensor> = inputs.iter().map(|t| t.detach().requires_grad()).collect();
    f(&leaves)?.backward_with(upstream)?;
    let weights = upstream.to_vec_blocking::<f64>()?;
    let value = |inputs: &[Tensor]| -> Result<f64> {
        let _guard = super::no_grad();
        Ok(f(inputs)?.to_vec_blocking::<f64>()?.iter().zip(&weights).map(|(y, w)| y * w).sum())
    };
    let mut check = GradCheck { error: 0.0, worst: (0, 0, 0.0, 0.0) };
    for (i, leaf) in leaves.iter().enumerate() {
        let Some(grad) = leaf.grad() else {
            return Err(Error::Autodiff(format!("gradient check: input {i} received no gradient")));
        };
        let analytic = grad.to_vec_blocking::<f64>()?;
        let data = leaf.to_vec_blocking::<f64>()?;
        for e in 0..data.len() {
            let at = |delta: f64| -> Result<f64> {
                let mut moved = data.clone();
                moved[e] += delta;
                let mut all: Vec<Tensor> = leaves.iter().map(Tensor::detach).collect();
                all[i] = Tensor::from_slice(leaf.device(), leaf.shape(), &moved)?;
                value(&all)
            };
            let numeric = (at(STEP)? - at(-STEP)?) / (2.0 * STEP);
            let error = (analytic[e] - numeric).abs() / numeric.abs().max(1.0);
            // `!(<=)` rather than `>`: NaN fails.
            if !(error <= check.error) {
                check = GradCheck { error, worst: (i, e, analytic[e], numeric) };
            }
        }
    }
    Ok(check)
}
