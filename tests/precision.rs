//! Mixed precision: activations in f16, weights and statistics in f32, steps that overflow skipped on the device.

mod common;

use mappa::dtype::DType;
use mappa::models;
use mappa::nn::{Context, Init, Module, Parameter, named_parameters};
use mappa::op::CrossEntropyOptions;
use mappa::optim::{LossScaling, Optimizer, OptimizerConfig, ParamGroup};
use mappa::tensor::ops::Reduction;
use mappa::{Device, Error, Tensor};

fn devices() -> Vec<Device> {
    #[allow(unused_mut)]
    let mut devices = vec![Device::cpu(1).unwrap()];
    #[cfg(feature = "gpu")]
    if let Some(gpu) = common::gpu(Default::default()) {
        devices.push(Device::new(gpu));
    }
    devices
}

/// An optimiser of one weight `[3]` of zeros, and that weight.
fn one_weight(device: &Device, config: OptimizerConfig) -> (Optimizer, Parameter) {
    let weight = Parameter::new(device, &[3], Init::Constant(0.0)).unwrap();
    (Optimizer::new(config, vec![ParamGroup::new(vec![("w".into(), weight.clone())])]).unwrap(), weight)
}

/// One step on the loss `sum(w x)`, which passes through f16 if `half`.
fn step(optimizer: &mut Optimizer, weight: &Parameter, x: &[f32; 3], half: bool, clip: Option<f64>) {
    let dtype = if half { DType::F16 } else { DType::F32 };
    let x = Tensor::from_slice(weight.data().device(), &[3], x).unwrap().cast(dtype).unwrap();
    optimizer.zero_grad();
    let loss = weight.tensor_for(&x).unwrap().mul(&x).unwrap().cast(DType::F32).unwrap().sum(None, false).unwrap();
    optimizer.scale_loss(&loss).unwrap().backward().unwrap();
    if let Some(max_norm) = clip {
        optimizer.clip_grad_norm(max_norm).unwrap();
    }
    optimizer.step(0.1).unwrap();
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_vec_blocking().unwrap()
}

#[test]
fn steps_that_overflow_change_nothing_but_the_scale_and_do_not_count() {
    let x = [1.0, -0.5, 0.25];
    let sgd = OptimizerConfig::Sgd { lr: 0.1, momentum: 0.9, dampening: 0.5, weight_decay: 0.0, nesterov: false, maximize: false };
    for device in devices() {
        for config in [OptimizerConfig::adam(0.1), sgd, OptimizerConfig::sgd(0.1)] {
            for clip in [None, Some(0.5)] {
                let (mut plain, expected) = one_weight(&device, config);
                let (optimizer, weight) = one_weight(&device, config);
                // 2^17 and 2^16 overflow f16, whose largest number is 65504; 2^15 does not, and grows after two good steps.
                let scaling = LossScaling { init_scale: 131_072.0, growth_interval: 2, ..Default::default() };
                let mut optimizer = optimizer.with_loss_scaling(scaling).unwrap();
                for (attempt, state) in
                    [[65536.0, 0.0, 1.0], [32768.0, 0.0, 2.0], [32768.0, 1.0, 2.0], [65536.0, 0.0, 2.0]].iter().enumerate()
                {
                    step(&mut optimizer, &weight, &x, true, clip);
                    assert_eq!(values(optimizer.loss_scale().unwrap()), state, "{config:?} on {}", device.name());
                    if attempt < 2 {
                        assert_eq!(values(&weight.data()), [0.0; 3], "a step was taken in spite of overflow: {config:?}");
                        continue;
                    }
                    // A power of two scales exactly: what is left are the roundings of clipping and of Adam's correction.
                    step(&mut plain, &expected, &x, false, clip);
                    for (got, want) in values(&weight.data()).iter().zip(values(&expected.data())) {
                        assert!((got - want).abs() <= 1e-6 * want.abs(), "{config:?} on {}: {got} beside {want}", device.name());
                    }
                }
            }
        }
    }
}

#[test]
fn the_scale_is_part_of_the_optimisers_state() {
    let device = Device::cpu(1).unwrap();
    let (optimizer, _) = one_weight(&device, OptimizerConfig::adam(0.1));
    let optimizer = optimizer.with_loss_scaling(LossScaling::default()).unwrap();
    let state = optimizer.state();
    let (_, scale) = state.iter().find(|(name, _)| name == "loss_scale").unwrap();
    assert_eq!(values(scale), [65536.0, 0.0, 0.0]);
}

#[test]
fn what_cannot_work_with_scaled_gradients_is_refused() {
    let device = Device::cpu(1).unwrap();
    let refused = |error: Error, word: &str| assert!(matches!(&error, Error::Config(m) if m.contains(word)), "{error}");
    let (optimizer, _) = one_weight(&device, OptimizerConfig::named("rmsprop", 0.1).unwrap());
    refused(optimizer.with_loss_scaling(LossScaling::default()).unwrap_err(), "sgd, adam and adamw");
    let (optimizer, _) = one_weight(&device, OptimizerConfig::adam(0.1));
    let mut optimizer = optimizer.with_loss_scaling(LossScaling::default()).unwrap();
    refused(optimizer.clip_grad_value(1.0).unwrap_err(), "clip_grad_norm");
    refused(optimizer.clip_grad_norm_of(1.0, f64::INFINITY).unwrap_err(), "clip_grad_norm");
    for scaling in [
        LossScaling { init_scale: 0.0, ..Default::default() },
        LossScaling { backoff_factor: 1.0, ..Default::default() },
        LossScaling { growth_factor: f64::NAN, ..Default::default() },
        LossScaling { growth_interval: 0, ..Default::default() },
    ] {
        let (optimizer, _) = one_weight(&device, OptimizerConfig::adam(0.1));
        refused(optimizer.with_loss_scaling(scaling).unwrap_err(), "loss scaling");
    }
}

#[test]
fn gradients_of_a_network_in_f16_are_those_in_f32_up_to_roundings() {
    for device in devices() {
        let gradients = |half: bool| -> Vec<(String, Vec<f32>)> {
            let module = models::build("resnet8", [3, 12, 12], 5, &device, 1).unwrap();
            let parameters = named_parameters(&module);
            let optimizer = Optimizer::new(OptimizerConfig::sgd(0.1), vec![ParamGroup::new(parameters.clone())]).unwrap();
            let optimizer = if half {
                optimizer.with_loss_scaling(LossScaling { init_scale: 1024.0, ..Default::default() }).unwrap()
            } else {
                optimizer
            };
            let x = Tensor::normal(&device, &[16, 3, 12, 12], 0.0, 1.0, mappa::rng::Stream::new(3, "test", 0, 0)).unwrap();
            let target = Tensor::from_slice(&device, &[16], &(0..16).map(|i| i % 5).collect::<Vec<i32>>()).unwrap();
            let x = x.cast(if half { DType::F16 } else { DType::F32 }).unwrap();
            let logits = module.forward(&mut Context::train(1, 0), &x).unwrap();
            assert_eq!(logits.dtype(), x.dtype());
            let loss =
                logits.cast(DType::F32).unwrap().cross_entropy(&target, None, CrossEntropyOptions::default(), Reduction::Mean).unwrap();
            optimizer.scale_loss(&loss).unwrap().backward().unwrap();
            let scale = if half { 1.0 / 1024.0 } else { 1.0 };
            parameters.iter().map(|(name, p)| (name.clone(), values(&p.grad().unwrap()).iter().map(|g| g * scale).collect())).collect()
        };
        let (half, single) = (gradients(true), gradients(false));
        for ((name, half), (_, single)) in half.iter().zip(&single) {
            let norm = |v: &mut dyn Iterator<Item = f32>| v.map(|x| (x as f64).powi(2)).sum::<f64>().sqrt();
            let difference = norm(&mut half.iter().zip(single).map(|(a, b)| a - b));
            let size = norm(&mut single.iter().copied());
            // Where f16's rounding moves a sum across 0, relu's mask changes and the whole element of the gradient with it. Normalised sums are of
            // unit variance and err by some 2^-10, so that a share of about 0.8 * 2^-10 of the masks differs: a relative error of sqrt(0.8 * 2^-10)
            // = 2.8 % a relu, of sqrt(7) times that behind all seven, twice that in a small tensor. A wrong scale or a lost term makes an error of
            // the gradient's own size. What lies before the last relu is rounded alone: 2^-11 an operation.
            let bound = if name.starts_with("fc") { 0.004 } else { 0.15 };
            // Written so that NaN fails.
            assert!(size > 0.0 && difference <= bound * size, "{name} on {}: {difference} of {size}", device.name());
        }
    }
}
