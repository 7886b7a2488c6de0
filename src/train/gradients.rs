//! How large the gradients of layers are.

use crate::autodiff::no_grad;
use crate::error::Result;
use crate::nn::{Module, named_parameters};
use crate::op::Unary;
use crate::optim::Optimizer;
use crate::tensor::Tensor;

/// Powers of ten between which absolute gradients are counted: below 10^-12, from there to 10^-11, ..., from 10^1 on.
pub const GRADIENT_DECADES: std::ops::RangeInclusive<i32> = -12..=1;

/// The gradient of each layer's weights, those with two or more dimensions, and the factor that loss scaling gives all of them.
fn gradients(module: &dyn Module, optimizer: &Optimizer) -> Result<(Vec<(String, Tensor)>, f32)> {
    let scale = optimizer.loss_scale().map(Tensor::to_vec_blocking::<f32>).transpose()?.map_or(1.0, |scale| scale[0]);
    let trained = named_parameters(module).into_iter().filter(|(_, parameter)| parameter.is_trainable() && parameter.shape().rank() >= 2);
    Ok((trained.filter_map(|(name, parameter)| Some((name, parameter.grad()?))).collect(), scale))
}

/// The norm of each layer's gradient, before clipping.
pub(super) fn norms(module: &dyn Module, optimizer: &Optimizer) -> Result<Vec<(String, f64)>> {
    let _guard = no_grad();
    let (all, scale) = gradients(module, optimizer)?;
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let square = |(_, gradient): &(String, Tensor)| gradient.unary(Unary::Square)?.sum(None, false)?.reshape(&[1]);
    let squares = all.iter().map(square).collect::<Result<Vec<_>>>()?;
    let squares = Tensor::concat(&squares.iter().collect::<Vec<_>>(), 0)?.to_vec_blocking::<f32>()?;
    // A step that overflowed says nothing of its layers.
    let norms = all.into_iter().zip(squares).map(|((name, _), square)| (name, f64::from(square).sqrt() / f64::from(scale)));
    Ok(norms.filter(|(_, norm)| norm.is_finite()).collect())
}

/// How many gradients of each layer lie between the powers of ten.
pub(super) fn histograms(module: &dyn Module, optimizer: &Optimizer) -> Result<Vec<(String, Vec<u64>)>> {
    let (all, scale) = gradients(module, optimizer)?;
    let count = |(name, gradient): (String, Tensor)| {
        let mut counts = vec![0; GRADIENT_DECADES.count() + 1];
        for value in gradient.to_vec_blocking::<f32>()? {
            let decade = (value.abs() / scale).log10().floor();
            // The logarithm of 0 is below all, NaN is no size.
            let place = (decade as i32).saturating_sub(GRADIENT_DECADES.start() - 1).clamp(0, counts.len() as i32 - 1);
            counts[place as usize] += u64::from(!decade.is_nan());
        }
        Ok((name, counts))
    };
    all.into_iter().map(count).collect()
}
