//! Too small, too few, too fast: how the size of a network, the number of images and the learning rate decide what is reached, and a search for the best.
//!
//! `cargo run --release --example 06_search`; the mathematics: docs/tour/06_search.md

use mappa::chart::Chart;
use mappa::data::{Dataset, Loader, LoaderOptions, Part, digits};
use mappa::nn::{Activation, Context, Dropout, Flatten, Linear, Module, Sequential, initialize, named_parameters};
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::rng::Stream;
use mappa::{Device, Error, Result, train};
use std::sync::Arc;

/// What is chosen before anything is learned.
#[derive(Clone, Copy, Debug)]
struct Choice {
    hidden: usize,
    lr: f64,
    dropout: f64,
    batch: usize,
}

const USUAL: Choice = Choice { hidden: 64, lr: 0.004, dropout: 0.0, batch: 32 };

/// Learns from `part` for so many steps; the network, and its accuracy there.
fn learn(device: &Device, data: &Dataset, part: &Arc<Part>, choice: Choice, steps: u64) -> Result<(Sequential, f64)> {
    let network = Sequential::new()
        .then(Flatten)
        .then(Linear::new(device, 64, choice.hidden, true)?)
        .then(Activation::Relu)
        .then(Dropout::new(choice.dropout)?)
        .then(Linear::new(device, choice.hidden, 10, true)?);
    initialize(&network, 1)?;
    let mut optimizer = Optimizer::new(OptimizerConfig::adamw(choice.lr), vec![ParamGroup::new(named_parameters(&network))])?;
    let mut step = 0;
    for epoch in 0.. {
        for batch in
            Loader::new(data, part, LoaderOptions { batch_size: choice.batch, shuffle: true, seed: 1, epoch, ..Default::default() })?
        {
            let batch = batch?;
            let x = mappa::Tensor::from_slice(device, &[batch.len(), 1, 8, 8], &batch.images)?;
            optimizer.zero_grad();
            network.forward(&mut Context::train(1, step), &x)?.cross_entropy_mean(&batch.target(device)?)?.backward()?;
            optimizer.step(choice.lr)?;
            step += 1;
            if step == steps {
                let own = accuracy(&network, device, data, part)?;
                return Ok((network, own));
            }
        }
    }
    Err(Error::Config("no steps".into()))
}

fn accuracy(network: &Sequential, device: &Device, data: &Dataset, part: &Arc<Part>) -> Result<f64> {
    Ok(train::evaluate(network, data, part, device, 512, 0)?.scores().accuracy)
}

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    let quick = std::env::var("MAPPA_QUICK").is_ok();
    let steps = if quick { 60 } else { 800 };
    // Choices are made on the validation part. The test part is asked once, at the end.
    let data = digits()?.with_validation(0.2, 1)?;
    let (Some(val), Some(test)) = (&data.val, &data.test) else { return Ok(()) };

    let mut chart = Chart::new("Accuracy on images held back, by what is chosen", "doublings", (0.0, 6.0), (0.0, 1.0));
    let mut sizes = Vec::new();
    for i in 0..=6 {
        let choice = Choice { hidden: 1 << i, ..USUAL };
        let (network, own) = learn(&device, &data, &data.train, choice, steps)?;
        let held_back = accuracy(&network, &device, &data, val)?;
        println!("{:3} hidden values: {:.1} % of own images, {:.1} % of those held back", choice.hidden, 100.0 * own, 100.0 * held_back);
        sizes.push((i as f64, held_back));
    }
    let mut amounts = Vec::new();
    for i in 0..=6 {
        let n = data.train.len() >> (6 - i);
        let rows: Vec<usize> = (0..n).map(|row| row * data.train.len() / n).collect();
        let (network, own) = learn(&device, &data, &Arc::new(data.train.select(&rows)), USUAL, steps)?;
        let held_back = accuracy(&network, &device, &data, val)?;
        println!("{n:4} images: {:.1} % of own images, {:.1} % of those held back", 100.0 * own, 100.0 * held_back);
        amounts.push((i as f64, held_back));
    }
    chart.line("1 to 64 hidden values", 0, &sizes);
    chart.line("17 to 1,149 images", 1, &amounts);
    chart.save("target/tour/06_search.svg")?;

    // Chance finds good settings faster than a grid, where few of many matter (Bergstra and Bengio 2012). Rates are drawn on a logarithmic scale.
    let mut tried = Vec::new();
    for i in 0..if quick { 3 } else { 24 } {
        let stream = Stream::new(5, "search", i, 0);
        let choice = Choice {
            hidden: 16 << stream.below(0, 5),
            lr: 10f64.powf(-4.0 + 3.0 * f64::from(stream.uniform(1))),
            dropout: 0.5 * f64::from(stream.uniform(2)),
            batch: 16 << stream.below(3, 4),
        };
        let (network, _) = learn(&device, &data, &data.train, choice, steps)?;
        tried.push((accuracy(&network, &device, &data, val)?, choice, network));
    }
    tried.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (held_back, choice, _) in tried.iter().take(3).chain(tried.last()) {
        println!("{:.1} %: {choice:?}", 100.0 * held_back);
    }
    let mut chart = Chart::new("24 draws: accuracy by learning rate", "log10 of the learning rate", (-4.0, -1.0), (0.5, 1.0));
    chart.points("a draw", 0, &tried.iter().map(|(held_back, choice, _)| (choice.lr.log10(), *held_back)).collect::<Vec<_>>());
    chart.save("target/tour/06_search_draws.svg")?;
    let reached = accuracy(&tried[0].2, &device, &data, test)?;
    println!("the best of them on other writers' digits: {:.1} % (held back: {:.1} %)", 100.0 * reached, 100.0 * tried[0].0);
    println!("pictures target/tour/06_search.svg, target/tour/06_search_draws.svg");
    // One hidden value cannot tell ten digits, a few images do not show what they have in common, and draws differ.
    assert!(sizes[0].1 + 0.2 < sizes[6].1 && amounts[0].1 + 0.1 < amounts[6].1, "{sizes:?} {amounts:?}");
    assert!(tried[0].0 > tried[tried.len() - 1].0 && (quick || reached > 0.85), "{reached}");
    Ok(())
}
