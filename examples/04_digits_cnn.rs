//! A convolutional network of your own: layers, an optimiser and a loop over the digits.
//!
//! `cargo run --release --example 04_digits_cnn`; the mathematics: docs/tour/04_digits_cnn.md

use mappa::chart::Chart;
use mappa::data::augment::Augment;
use mappa::data::{Loader, LoaderOptions, digits};
use mappa::nn::{Activation, Context, Conv2d, Flatten, Linear, MaxPool2d, Module, Sequential, initialize, named_parameters};
use mappa::op::Conv2dOptions;
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::{Device, Result, Tensor, train};

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    let data = digits()?;
    let same = Conv2dOptions { padding: [1, 1], ..Default::default() };
    let network = Sequential::new()
        .then(Conv2d::new(&device, 1, 16, [3, 3], same, true)?)
        .then(Activation::Relu)
        .then(MaxPool2d::new(2))
        .then(Conv2d::new(&device, 16, 32, [3, 3], same, true)?)
        .then(Activation::Relu)
        .then(Flatten)
        .then(Linear::new(&device, 32 * 4 * 4, 10, true)?);
    initialize(&network, 1)?;
    let mut optimizer = Optimizer::new(OptimizerConfig::adamw(0.003), vec![ParamGroup::new(named_parameters(&network))])?;
    let epochs = if std::env::var("MAPPA_QUICK").is_ok() { 2 } else { 20 };
    // Moved by up to a pixel, every epoch anew: the network sees other digits each time.
    let augment = Augment { shift: 1, ..Default::default() };
    let (mut step, mut points) = (0, Vec::new());
    for epoch in 0..epochs {
        let loader =
            Loader::new(&data, &data.train, LoaderOptions { shuffle: true, augment, seed: 1, epoch, workers: 1, ..Default::default() })?;
        let mut last = None;
        for batch in loader {
            let batch = batch?;
            let x = Tensor::from_slice(&device, &[batch.len(), 1, 8, 8], &batch.images)?;
            let target = Tensor::from_slice(&device, &[batch.len()], &batch.targets)?;
            optimizer.zero_grad();
            let loss = network.forward(&mut Context::train(1, step), &x)?.cross_entropy_mean(&target)?;
            loss.backward()?;
            optimizer.step(0.003)?;
            (step, last) = (step + 1, Some(loss));
        }
        if let (Some(loss), Some(test)) = (last, &data.test) {
            let scores = train::evaluate(&network, &data, test, &device, 256, 0)?.scores();
            println!("epoch {}: loss {:.3}, accuracy on other writers {:.1} %", epoch + 1, loss.item_blocking()?, 100.0 * scores.accuracy);
            points.push((epoch as f64 + 1.0, scores.accuracy));
        }
    }
    let reached = points.last().map_or(0.0, |point| point.1);
    assert!(reached > if epochs > 2 { 0.93 } else { 0.6 }, "{reached}");
    let mut chart = Chart::new("Accuracy on other writers' digits", "epoch", (1.0, epochs as f64), (0.5, 1.0));
    chart.line("two convolutions, one linear layer", 0, &points);
    chart.save("target/tour/04_digits_cnn.svg")?;
    println!("picture target/tour/04_digits_cnn.svg");
    Ok(())
}
