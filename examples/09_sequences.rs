//! Digits read row by row: an RNN, a GRU and an LSTM see eight pixels at a time and answer after the last row.
//!
//! `cargo run --release --example 09_sequences`; the mathematics: docs/tour/09_sequences.md

use mappa::chart::Chart;
use mappa::data::{Dataset, Loader, LoaderOptions, Part, digits};
use mappa::metrics::Predictions;
use mappa::nn::recurrent::{Cell, RecurrentOptions, RowReader};
use mappa::nn::{Context, Linear, Module, Sequential, initialize, named_parameters};
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::{Device, Result, Tensor, autodiff};
use std::sync::Arc;

const HIDDEN: usize = 64;

fn accuracy(reader: &Sequential, data: &Dataset, part: &Arc<Part>, device: &Device) -> Result<f64> {
    let _guard = autodiff::no_grad();
    let mut predictions = Predictions::new(10);
    for batch in Loader::new(data, part, LoaderOptions { batch_size: 256, ..Default::default() })? {
        let batch = batch?;
        let x = Tensor::from_slice(device, &[batch.len(), 1, 8, 8], &batch.images)?;
        predictions.add(&reader.forward(&mut Context::eval(), &x)?.to_vec_blocking::<f32>()?, &batch.targets);
    }
    Ok(predictions.scores().accuracy)
}

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    let data = digits()?;
    let Some(test) = &data.test else { return Ok(()) };
    let epochs = if std::env::var("MAPPA_QUICK").is_ok() { 2 } else { 20 };
    let mut chart = Chart::new("Accuracy on other writers' digits, read row by row", "epoch", (1.0, epochs as f64), (0.0, 1.0));
    for (colour, (name, cell)) in [("RNN", Cell::RnnTanh), ("GRU", Cell::Gru), ("LSTM", Cell::Lstm)].into_iter().enumerate() {
        // From [N, 1, 8, 8] to the state after the last of eight rows, [N, 64], to ten logits.
        let net = RowReader::new(&device, cell, [1, 8, 8], RecurrentOptions::new(8, HIDDEN), false)?;
        let reader = Sequential::new().named("net", net).named("last", Linear::new(&device, HIDDEN, 10, true)?);
        initialize(&reader, 1)?;
        let mut optimizer = Optimizer::new(OptimizerConfig::adamw(0.004), vec![ParamGroup::new(named_parameters(&reader))])?;
        let mut points = Vec::new();
        for epoch in 0..epochs {
            let options = LoaderOptions { batch_size: 32, shuffle: true, seed: 1, epoch, ..Default::default() };
            for batch in Loader::new(&data, &data.train, options)? {
                let batch = batch?;
                let x = Tensor::from_slice(&device, &[batch.len(), 1, 8, 8], &batch.images)?;
                let target = Tensor::from_slice(&device, &[batch.len()], &batch.targets)?;
                optimizer.zero_grad();
                reader.forward(&mut Context::train(1, epoch), &x)?.cross_entropy_mean(&target)?.backward()?;
                // Steps through time multiply: a bound on the norm keeps a rare large gradient from undoing the rest.
                optimizer.clip_grad_norm(1.0)?;
                optimizer.step(0.004)?;
            }
            points.push((epoch as f64 + 1.0, accuracy(&reader, &data, test, &device)?));
        }
        let reached = points[points.len() - 1].1;
        println!("{name:4}  {:.1} % after {epochs} epochs", 100.0 * reached);
        assert!(reached > if epochs > 2 { 0.85 } else { 0.3 }, "{name}: {reached}");
        chart.line(name, colour, &points);
    }
    chart.save("target/tour/09_sequences.svg")?;
    println!("picture target/tour/09_sequences.svg");
    Ok(())
}
