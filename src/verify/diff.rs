//! One training step on two devices: how far apart layers and gradients are, and which operation is the first to leave its tolerance.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::models;
use crate::nn::{Context, Module, named_parameters};
use crate::rng::Stream;
use crate::tensor::Tensor;
use std::sync::{Arc, Mutex, PoisonError};

/// The step to compare: images are random, weights as initialised from the seed.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    /// A name of [`models::NAMES`].
    pub model: &'a str,
    /// `[C, H, W]` of an image.
    pub input: [usize; 3],
    /// Images.
    pub batch_size: usize,
    /// Classes.
    pub classes: usize,
    /// Of weights, images and dropout.
    pub seed: u64,
}

/// How far a layer's output or a parameter's gradient is from the CPU's.
#[derive(Debug, Clone)]
pub struct Difference {
    /// `layer`, `loss` or `gradient`.
    pub part: &'static str,
    /// The layer's path, or the parameter's name.
    pub name: String,
    /// Largest absolute difference; infinite where one of them is not finite.
    pub error: f64,
    /// Largest absolute value on the CPU.
    pub size: f64,
}

/// What [`diff`] found.
#[derive(Debug, Clone)]
pub struct Report {
    /// Layers in the order in which they were done, the loss, the gradients.
    pub rows: Vec<Difference>,
    /// Operations that were compared one by one, each from the device's own operands.
    pub operations: u64,
    /// The first of them that left its tolerance, with the layer in front.
    pub mismatch: Option<String>,
}

type Values = Vec<(&'static str, String, Vec<f32>)>;

impl Step<'_> {
    /// Loss and gradients of the step, and each layer's output where somebody is to see it: then layers compute apart.
    fn run(&self, device: &Device, layers_too: bool) -> Result<Values> {
        let module = models::build(self.model, self.input, self.classes, device, self.seed)?;
        let [c, h, w] = self.input;
        let x = Tensor::normal(device, &[self.batch_size, c, h, w], 0.0, 1.0, Stream::new(self.seed, "diff", 0, 0))?;
        let target: Vec<i32> = (0..self.batch_size).map(|i| (i % self.classes) as i32).collect();
        let target = Tensor::from_slice(device, &[self.batch_size], &target)?;
        let seen: Arc<Mutex<Vec<(String, Tensor)>>> = Arc::default();
        let layers = Arc::clone(&seen);
        let observer = move |path: &str, _: &dyn Module, y: &Tensor| {
            layers.lock().unwrap_or_else(PoisonError::into_inner).push((path.to_owned(), y.detach()));
            None
        };
        let context = Context::train(self.seed, 0);
        let mut context = if layers_too { context.observe(Box::new(observer)) } else { context };
        let loss = module.forward(&mut context, &x)?.cross_entropy_mean(&target)?;
        loss.backward()?;
        let mut values = Values::new();
        for (path, y) in seen.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            values.push(("layer", path.clone(), y.to_vec_blocking()?));
        }
        values.push(("loss", String::new(), loss.to_vec_blocking()?));
        for (name, parameter) in named_parameters(&module) {
            if let Some(gradient) = parameter.grad() {
                values.push(("gradient", name, gradient.to_vec_blocking()?));
            }
        }
        Ok(values)
    }
}

/// Compares a training step on `device` with the CPU.
///
/// Layers and gradients show how differences grow: each has those before it in its operands. Whether an operation is right is judged one by one,
/// on the device's own operands, as [`Device::checked`] does it.
///
/// # Errors
/// [`Error::Config`] for an unknown model, [`Error::Shape`] when the images are too small for it; errors of the devices. A difference is none.
pub fn diff(step: &Step, device: &Device) -> Result<Report> {
    let want = step.run(&Device::cpu(0)?, true)?;
    let got = step.run(device, true)?;
    let row = |((part, name, want), (_, _, got)): (&(&'static str, String, Vec<f32>), &(&'static str, String, Vec<f32>))| {
        let apart = |(w, g): (&f32, &f32)| if w == g { 0.0 } else { f64::from((w - g).abs()) };
        let finite = |d: f64| if d.is_nan() { f64::INFINITY } else { d };
        let error = want.iter().zip(got).map(apart).map(finite).fold(0.0, f64::max);
        Difference { part, name: name.clone(), error, size: want.iter().fold(0.0, |m, v| m.max(f64::from(v.abs()))) }
    };
    let rows = want.iter().zip(&got).map(row).collect();
    let (checked, operations) = device.checked()?;
    // The operations that training uses, several layers in one.
    let mismatch = match step.run(&checked, false) {
        Ok(_) => None,
        Err(Error::Mismatch(message)) => Some(message),
        Err(error) => return Err(error),
    };
    Ok(Report { rows, operations: operations.load(std::sync::atomic::Ordering::Relaxed), mismatch })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(model: &str) -> Step<'_> {
        Step { model, input: [1, 8, 8], batch_size: 3, classes: 4, seed: 1 }
    }

    #[test]
    fn a_device_agrees_with_itself() {
        let report = diff(&step("resnet8"), &Device::cpu(1).unwrap()).unwrap();
        assert!(report.mismatch.is_none() && report.operations > 60, "{report:?}");
        assert!(report.rows.iter().all(|row| row.error == 0.0), "{report:?}");
        let parts = |part: &str| report.rows.iter().filter(|row| row.part == part).count();
        assert_eq!((parts("loss"), parts("gradient")), (1, 29), "{report:?}");
        let error = diff(&step("cnm"), &Device::cpu(1).unwrap()).unwrap_err().to_string();
        assert!(error.contains("did you mean cnn"), "{error}");
    }
}
