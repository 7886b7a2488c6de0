//! What comes next in a series: a GRU sees two dozen numbers and foretells the one after, then lives on what it foretold.
//!
//! `cargo run --release --example 09_forecast`; the mathematics: docs/tour/09_forecast.md

use mappa::chart::Chart;
use mappa::nn::recurrent::{Cell, RecurrentOptions, RowReader};
use mappa::nn::{Context, Linear, Module, Sequential, initialize, loss, named_parameters};
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::rng::Stream;
use mappa::tensor::ops::Reduction;
use mappa::{Device, Result, Tensor, autodiff};

/// Numbers that the next one is foretold from.
const WINDOW: usize = 24;
const BATCH: usize = 32;
const RATE: f64 = 0.005;

/// Hours of something that has a daily and a slower rhythm, and noise; about standardised.
fn series(n: usize) -> Vec<f32> {
    let stream = Stream::new(3, "series", 0, 0);
    let value = |t: usize| (t as f64 / 3.8).sin() + 0.6 * (t as f64 / 23.0).sin() * (t as f64 / 7.6).cos() + 0.05 * stream.normal(t as u64);
    (0..n).map(|t| value(t) as f32).collect()
}

/// Windows `[N, 1, WINDOW, 1]` that begin at some places.
fn windows(device: &Device, values: &[f32], places: &[usize]) -> Result<Tensor> {
    let rows: Vec<f32> = places.iter().flat_map(|&at| values[at..at + WINDOW].to_vec()).collect();
    Tensor::from_slice(device, &[places.len(), 1, WINDOW, 1], &rows)
}

fn foretell(network: &Sequential, device: &Device, values: &[f32], places: &[usize]) -> Result<Vec<f32>> {
    let _guard = autodiff::no_grad();
    network.forward(&mut Context::eval(), &windows(device, values, places)?)?.to_vec_blocking::<f32>()
}

fn rmse(a: impl Iterator<Item = f32>, b: impl Iterator<Item = f32>) -> f64 {
    let (n, sum) = a.zip(b).fold((0, 0.0), |(n, sum), (a, b)| (n + 1, sum + f64::from(a - b).powi(2)));
    (sum / n as f64).sqrt()
}

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    let steps = if std::env::var("MAPPA_QUICK").is_ok() { 150 } else { 1500 };
    let values = series(1600);
    // What is judged comes later than all that is learned from; at random places windows of both would share numbers.
    let learned = 1200;
    let net = RowReader::new(&device, Cell::Gru, [1, WINDOW, 1], RecurrentOptions::new(0, 64), false)?;
    let network = Sequential::new().named("net", net).named("last", Linear::new(&device, 64, 1, true)?);
    initialize(&network, 1)?;
    let mut optimizer = Optimizer::new(OptimizerConfig::adamw(RATE), vec![ParamGroup::new(named_parameters(&network))])?;
    for step in 0..steps {
        let stream = Stream::new(1, "places", step, 0);
        let places: Vec<usize> = (0..BATCH as u64).map(|i| stream.below(i, learned - WINDOW)).collect();
        let next: Vec<f32> = places.iter().map(|&at| values[at + WINDOW]).collect();
        optimizer.zero_grad();
        let answer = network.forward(&mut Context::train(1, step), &windows(&device, &values, &places)?)?;
        let loss = loss::mse(&answer, &Tensor::from_slice(&device, &[BATCH, 1], &next)?, Reduction::Mean)?;
        loss.backward()?;
        optimizer.step(RATE * (1.0 - step as f64 / steps as f64))?;
        if step % (steps / 5) == 0 {
            println!("step {step:4}: loss {:.4}", loss.item_blocking()?);
        }
    }

    // One number ahead, beside the simplest of all forecasts: it stays as it is.
    let places: Vec<usize> = (learned..values.len() - WINDOW).collect();
    let truth = || places.iter().map(|&at| values[at + WINDOW]);
    let ahead = rmse(foretell(&network, &device, &values, &places)?.into_iter(), truth());
    let naive = rmse(places.iter().map(|&at| values[at + WINDOW - 1]), truth());
    println!("one ahead: off by {ahead:.3}, as it was before by {naive:.3}; the noise alone is 0.05");

    // Many ahead: what was foretold is the past of what comes after.
    let mut dreamed = values[learned..learned + WINDOW].to_vec();
    for i in 0..96 {
        dreamed.push(foretell(&network, &device, &dreamed, &[i])?[0]);
    }
    let real = &values[learned..learned + dreamed.len()];
    let far = rmse(dreamed[WINDOW..].iter().copied(), real[WINDOW..].iter().copied());
    println!("96 ahead, living on its own answers: off by {far:.3}");
    let mut chart = Chart::new("A series, and 96 numbers foretold from 24", "hour", (0.0, dreamed.len() as f64 - 1.0), (-2.0, 2.0));
    let points = |values: &[f32]| values.iter().enumerate().map(|(t, &v)| (t as f64, f64::from(v))).collect::<Vec<_>>();
    chart.line("what came", 0, &points(real));
    chart.line("foretold, after hour 24", 1, &points(&dreamed));
    chart.save("target/tour/09_forecast.svg")?;
    println!("picture target/tour/09_forecast.svg");
    assert!(ahead < if steps < 1000 { 0.6 } else { 0.35 } * naive, "{ahead} beside {naive}");
    Ok(())
}
