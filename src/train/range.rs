//! The learning-rate range test: Smith 2015, "Cyclical learning rates for training neural networks", arXiv:1506.01186, section 3.3.

use super::frozen::freeze;
use super::{Config, Options, batch_loss, begin, class_weights, groups, training_batches};
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::models;
use crate::nn::Context;
use crate::optim::Optimizer;
use crate::tensor::Tensor;

/// Share of the past in the smoothed loss.
const SMOOTHING: f64 = 0.9;

/// Learning rates that grow exponentially from step to step, each with the smoothed training loss there, in f32 and one batch a step. Ends early when that is four times the lowest.
///
/// # Errors
/// Errors of the configuration, the data and the device.
pub fn lr_range(config: &Config, data: &Dataset, [from, to]: [f64; 2], steps: usize, options: &mut Options) -> Result<Vec<(f64, f64)>> {
    // Small learning rates need no 16 bits, and loss scaling would skip steps.
    let config = &Config { precision: "f32".into(), ..config.clone() };
    let device = options.device;
    let module = models::build(&config.model, config.input, config.classes.len(), device, config.seed)?;
    if !config.weights.is_empty() {
        begin(&module, config)?;
    }
    freeze(&module, &config.freeze)?;
    let mut optimizer = Optimizer::new(config.optimizer()?, groups(&module, config))?;
    let weight = class_weights(config, &data.train, device)?;
    let (mut curve, mut average, mut lowest) = (Vec::new(), 0.0, f64::INFINITY);
    for epoch in 0.. {
        let loader = training_batches(config, data, epoch, 0, options.workers)?;
        if loader.batches() == 0 {
            return Err(Error::data(&data.name, "holds no training images"));
        }
        for batch in loader {
            let (batch, step) = (batch?, curve.len());
            let lr = from * (to / from).powf(step as f64 / (steps - 1).max(1) as f64);
            let x = Tensor::from_slice(device, &[batch.len(), data.channels, data.height, data.width], &batch.images)?;
            let target = batch.target(device)?;
            optimizer.zero_grad();
            let mut context = Context::train(config.seed, step as u64);
            let loss = batch_loss(config, &module, &module, &mut context, weight.as_ref(), &x, &target, batch.mix.as_ref())?;
            loss.backward()?;
            optimizer.step(lr)?;
            let loss = loss.item_blocking()? as f64;
            average = SMOOTHING * average + (1.0 - SMOOTHING) * loss;
            // As Adam does: the average begins at 0.
            let own = average / (1.0 - SMOOTHING.powi(step as i32 + 1));
            if !own.is_finite() {
                return Ok(curve);
            }
            curve.push((lr, own));
            lowest = own.min(lowest);
            if own > 4.0 * lowest || curve.len() >= steps {
                return Ok(curve);
            }
        }
    }
    Ok(curve)
}

/// The rate at which the smoothed loss falls fastest on the way to its lowest; `None` where it does not fall.
pub fn suggest_lr(curve: &[(f64, f64)]) -> Option<f64> {
    let lowest = curve.iter().enumerate().min_by(|a, b| a.1.1.total_cmp(&b.1.1)).map(|(i, _)| i)?;
    // Over a tenth of the steps, so that the noise of one does not decide.
    let span = (curve.len() / 10).max(1);
    let fall = |i: usize| curve[i].1 - curve[i + span].1;
    let steepest = (0..lowest.saturating_sub(span)).max_by(|&a, &b| fall(a).total_cmp(&fall(b)))?;
    (fall(steepest) > 0.0).then(|| curve[steepest + span / 2].0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_steepest_place_is_suggested() {
        // A step down about the 60th of 100 rates, then up.
        let loss = |i: f64| 2.0 - 1.5 / (1.0 + (-(i - 60.0) / 4.0).exp()) + if i > 80.0 { (i - 80.0) * 0.2 } else { 0.0 };
        let curve: Vec<(f64, f64)> = (0..100).map(|i| (1e-5 * 10f64.powf(i as f64 / 20.0), loss(i as f64))).collect();
        let lr = suggest_lr(&curve).unwrap();
        assert!((lr.log10() + 2.0).abs() < 0.2, "{lr}");
        let rising: Vec<(f64, f64)> = (0..100).map(|i| (i as f64, i as f64)).collect();
        assert_eq!((suggest_lr(&rising), suggest_lr(&[])), (None, None));
    }
}
