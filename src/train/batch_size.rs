//! How many images a step takes: what they need of memory, and how many are fast.

use std::time::Instant;

use super::{Config, batch_loss, groups};
use crate::data::Dataset;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models;
use crate::nn::{Context, Sequential};
use crate::optim::Optimizer;
use crate::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// What a person asks for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BatchSize {
    /// So many.
    Of(usize),
    /// Measured on the device: see [`fastest_batch_size`].
    Auto(Auto),
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auto {
    /// `auto`.
    Auto,
}

impl std::str::FromStr for BatchSize {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(BatchSize::Auto(Auto::Auto)),
            _ => text.parse().map(BatchSize::Of).map_err(|_| "give a number of at least 1, or auto".to_owned()),
        }
    }
}

/// The network and its optimiser.
fn parts(config: &Config, device: &Device) -> Result<(Sequential, Optimizer)> {
    let module = models::build(&config.model, config.input, config.classes.len(), device, config.seed)?;
    let optimizer = Optimizer::new(config.optimizer()?, groups(&module, config))?;
    Ok((module, optimizer))
}

/// One step on black images of class 0: values do not change what it costs.
fn step(config: &Config, device: &Device, module: &Sequential, optimizer: &mut Optimizer, batch_size: usize) -> Result<()> {
    let [c, h, w] = config.input;
    let x = Tensor::from_slice(device, &[batch_size, c, h, w], &vec![0f32; batch_size * c * h * w])?;
    let target = match config.table.as_ref().is_some_and(|table| table.regression) {
        true => Tensor::zeros(device, &[batch_size, 1])?,
        false => Tensor::from_slice(device, &[batch_size], &vec![0i32; batch_size])?,
    };
    optimizer.zero_grad();
    batch_loss(config, module, module, &mut Context::train(config.seed, 0), None, &x, &target, None)?.backward()?;
    optimizer.step(config.lr)
}

/// Bytes of tensors that a training step holds at most: parameters, gradients, the optimiser's state and activations. Computed without a device.
///
/// # Errors
/// Errors of the model's and the optimiser's names, and of shapes.
pub fn memory(config: &Config, batch_size: usize) -> Result<u64> {
    let (device, counts) = Device::null();
    let (module, mut optimizer) = parts(config, &device)?;
    // The second step has the state of the first in memory.
    for _ in 0..2 {
        step(config, &device, &module, &mut optimizer, batch_size)?;
    }
    let counts = counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Ok(counts.memory.peak_bytes)
}

/// What a step may need: a device that trains networks has so much.
const MAX_MEMORY: u64 = 2 << 30;

/// Batches larger than this hardly ever train better.
const LARGEST: usize = 512;

/// The smallest power of two, from 16, with which the images of a second come within a tenth of the most that any size reaches; measured on `device`. An epoch
/// keeps at least eight steps, and a step at most 2 GiB.
///
/// # Errors
/// Errors of the device; [`Error::Config`] when not even one image fits.
pub fn fastest_batch_size(config: &Config, data: &Dataset, device: &Device) -> Result<usize> {
    let sizes = || (4..).map(|power| 1 << power).take_while(|&size| size <= LARGEST && (size == 16 || 8 * size <= data.train.len()));
    if memory(config, 16)? > MAX_MEMORY {
        return (0..4).rev().map(|power| 1 << power).find(|&size| memory(config, size).is_ok_and(|bytes| bytes <= MAX_MEMORY)).ok_or_else(
            || {
                Error::Config(format!(
                    "--batch-size auto: one image of {:?} needs more than 2 GiB; give a number, or a smaller --model",
                    config.input
                ))
            },
        );
    }
    let (module, mut optimizer) = parts(config, device)?;
    let mut speeds: Vec<(usize, f64)> = Vec::new();
    for size in sizes() {
        if memory(config, size)? > MAX_MEMORY {
            break;
        }
        // The first step of a size compiles kernels and fills the pool.
        let mut time = || -> Result<f64> {
            let mut best = f64::INFINITY;
            for _ in 0..4 {
                let begun = Instant::now();
                step(config, device, &module, &mut optimizer, size)?;
                pollster::block_on(device.sync())?;
                best = best.min(begun.elapsed().as_secs_f64());
            }
            Ok(best)
        };
        match time() {
            Ok(best) => speeds.push((size, size as f64 / best)),
            // Too large for this device's memory or buffers: what was measured stands.
            Err(Error::Device(_)) if !speeds.is_empty() => break,
            Err(error) => return Err(error),
        }
    }
    let most = speeds.iter().map(|s| s.1).fold(0.0, f64::max);
    Ok(speeds.iter().find(|s| s.1 >= 0.9 * most).map_or(16, |s| s.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::{Options, Run, Settings, train};

    #[test]
    fn memory_is_predicted_within_a_tenth() {
        let data = crate::data::digits().unwrap();
        let folder = tempfile::tempdir().unwrap();
        for (model, batch_size) in [("lenet5", 64), ("cnn", 32), ("resnet8", 128), ("mlp", 256), ("mobilenet_v2", 8)] {
            let settings = Settings {
                model: Some(model.into()),
                batch_size: Some(BatchSize::Of(batch_size)),
                max_steps: Some(3),
                val_fraction: Some(0.0),
                ..Default::default()
            };
            let mut config = settings.resolve(&data, None).unwrap();
            let device = Device::cpu(1).unwrap();
            let run = Run::create(Some(&folder.path().join(model)), &mut config, &device).unwrap();
            let mut options = Options {
                device: &device,
                workers: 0,
                interrupt: Default::default(),
                on_event: &mut |_| {},
                on_note: &mut |_| {},
                fallback: None,
                log_gradients: false,
            };
            train(&run, &config, &data, &mut options).unwrap();
            let (found, predicted) = (device.memory().peak_bytes as f64, memory(&config, batch_size).unwrap() as f64);
            println!("{model}: {found} bytes, predicted {predicted}");
            assert!((predicted / found - 1.0).abs() < 0.1, "{model}: {found} bytes, predicted {predicted}");
        }
    }

    #[test]
    fn the_fastest_size_is_a_power_of_two_that_fits() {
        let data = crate::data::digits().unwrap();
        let config = Settings { model: Some("mlp".into()), ..Default::default() }.resolve(&data, None).unwrap();
        let size = fastest_batch_size(&config, &data, &Device::cpu(1).unwrap()).unwrap();
        assert!(size.is_power_of_two() && (16..=128).contains(&size), "{size}");
        assert_eq!("auto".parse(), Ok(BatchSize::Auto(Auto::Auto)));
        assert_eq!("32".parse(), Ok(BatchSize::Of(32)));
        assert!("many".parse::<BatchSize>().is_err());
    }
}
