//! One training step (forward, backward, optimiser) on batches of 64 images of 28 x 28. The loss is read once, after the last step.
//!
//! `cargo bench --bench train_step`

mod common;

use common::{criterion, devices, sync};
use criterion::{BenchmarkId, SamplingMode, Throughput};
use mappa::models;
use mappa::nn::{Context, named_parameters};
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::rng::Stream;
use mappa::{Device, Tensor};
use std::time::Instant;

const BATCH: usize = 64;
const LEARNING_RATE: f64 = 1e-3;

fn step(model: &dyn mappa::nn::Module, optimizer: &mut Optimizer, number: u64, x: &Tensor, target: &Tensor) -> mappa::Result<Tensor> {
    optimizer.zero_grad();
    let loss = model.forward(&mut Context::train(1, number), x)?.cross_entropy_mean(target)?;
    loss.backward()?;
    optimizer.step(LEARNING_RATE)?;
    Ok(loss.detach())
}

fn batch(device: &Device) -> mappa::Result<(Tensor, Tensor)> {
    let targets: Vec<i32> = (0..BATCH as i32).map(|i| i % 10).collect();
    let x = Tensor::uniform(device, &[BATCH, 1, 28, 28], 0.0, 1.0, Stream::new(1, "bench", 0, 0))?;
    Ok((x, Tensor::from_slice(device, &[BATCH], &targets)?))
}

fn main() {
    let mut c = criterion();
    for (kind, device) in &devices() {
        let (x, target) = batch(device).unwrap();
        for name in ["lenet5", "cnn"] {
            let model = models::build(name, [1, 28, 28], 10, device, 1).unwrap();
            let parameters = vec![ParamGroup::new(named_parameters(&model))];
            let mut optimizer = Optimizer::new(OptimizerConfig::adam(LEARNING_RATE), parameters).unwrap();
            let mut group = c.benchmark_group(format!("training step, {name}"));
            group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(BATCH as u64));
            let mut number = 0;
            group.bench_function(BenchmarkId::from_parameter(kind), |b| {
                b.iter_custom(|iterations| {
                    sync(device);
                    let begun = Instant::now();
                    let mut last = None;
                    for _ in 0..iterations {
                        last = Some(step(&model, &mut optimizer, number, &x, &target).unwrap());
                        number += 1;
                    }
                    let loss = last.unwrap().item_blocking().unwrap();
                    let elapsed = begun.elapsed();
                    assert!(loss.is_finite(), "the loss is {loss} after step {number}");
                    elapsed
                });
            });
            group.finish();
        }
    }
    c.final_summary();
}
