//! Transfer learning: a network that knows the digits 0 to 4 learns 5 to 9 from fifty images, by a new last layer on what it already sees.
//!
//! `cargo run --release --example 08_transfer`; the mathematics: docs/tour/08_transfer.md

use mappa::chart::Chart;
use mappa::data::augment::Augment;
use mappa::data::{Dataset, Loader, LoaderOptions, Part, digits};
use mappa::nn::{Activation, Context, Conv2d, Flatten, Linear, MaxPool2d, Module, Sequential, copy_state, initialize, named_parameters};
use mappa::op::Conv2dOptions;
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::{Device, Result, Tensor, train};
use std::sync::Arc;

/// Images of the new digits.
const FEW: usize = 50;

/// What sees, and what answers.
fn parts(device: &Device) -> Result<(Sequential, Sequential)> {
    let same = Conv2dOptions { padding: [1, 1], ..Default::default() };
    let features = Sequential::new()
        .then(Conv2d::new(device, 1, 16, [3, 3], same, true)?)
        .then(Activation::Relu)
        .then(MaxPool2d::new(2))
        .then(Conv2d::new(device, 16, 32, [3, 3], same, true)?)
        .then(Activation::Relu)
        .then(Flatten);
    let head = Sequential::new().then(Linear::new(device, 32 * 16, 5, true)?);
    initialize(&features, 1)?;
    initialize(&head, 2)?;
    Ok((features, head))
}

/// The images of some digits, which become the classes 0 to 4; at most `most` of them.
fn only(data: &Dataset, digits: std::ops::Range<u32>, most: usize) -> Dataset {
    let some = |part: &Arc<Part>, most: usize| {
        let rows: Vec<usize> = (0..part.len()).filter(|&row| digits.contains(&part.labels[row])).collect();
        let step = rows.len().div_ceil(most.min(rows.len()).max(1));
        let mut own = part.select(&rows.into_iter().step_by(step).collect::<Vec<_>>());
        own.labels.iter_mut().for_each(|label| *label -= digits.start);
        Arc::new(own)
    };
    let classes = digits.clone().map(|digit| digit.to_string()).collect();
    Dataset { classes, train: some(&data.train, most), test: data.test.as_ref().map(|test| some(test, usize::MAX)), ..data.clone() }
}

/// Trains what is trainable, and says the accuracy on other writers' digits after each epoch.
fn learn(network: &Sequential, data: &Dataset, epochs: u64, rate: f64, device: &Device) -> Result<Vec<(f64, f64)>> {
    let trainable = named_parameters(network).into_iter().filter(|(_, parameter)| parameter.is_trainable()).collect();
    let mut optimizer = Optimizer::new(OptimizerConfig::adamw(rate), vec![ParamGroup::new(trainable)])?;
    let (mut points, mut step) = (Vec::new(), 0);
    for epoch in 0..epochs {
        let augment = Augment { shift: 1, ..Default::default() };
        let options = LoaderOptions { batch_size: 25, shuffle: true, augment, seed: 1, epoch, ..Default::default() };
        for batch in Loader::new(data, &data.train, options)? {
            let batch = batch?;
            let x = Tensor::from_slice(device, &[batch.len(), 1, 8, 8], &batch.images)?;
            let target = Tensor::from_slice(device, &[batch.len()], &batch.targets)?;
            optimizer.zero_grad();
            network.forward(&mut Context::train(1, step), &x)?.cross_entropy_mean(&target)?.backward()?;
            optimizer.step(rate)?;
            step += 1;
        }
        if let Some(test) = &data.test {
            points.push((epoch as f64 + 1.0, train::evaluate(network, data, test, device, 512, 0)?.scores().accuracy));
        }
    }
    Ok(points)
}

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    let quick = std::env::var("MAPPA_QUICK").is_ok();
    let all = digits()?;
    let (old, new) = (only(&all, 0..5, usize::MAX), only(&all, 5..10, FEW));

    // What others have done: many images of 0 to 4.
    let (features, head) = parts(&device)?;
    let first = Sequential::new().named("features", features).named("head", head);
    let known = learn(&first, &old, if quick { 3 } else { 15 }, 0.003, &device)?;
    println!("0 to 4 from {} images: {:.1} % on other writers'", old.train.len(), 100.0 * known[known.len() - 1].1);

    let epochs = if quick { 10 } else { 40 };
    let mut chart = Chart::new("5 to 9, learned from 50 images", "epoch", (1.0, epochs as f64), (0.2, 1.0));
    let mut reached = Vec::new();
    for (colour, (name, copied, frozen)) in
        [("from scratch", false, false), ("new last layer", true, true), ("fine-tuned", true, false)].into_iter().enumerate()
    {
        let (features, head) = parts(&device)?;
        if copied {
            // The first child of the trained network holds its features.
            for (_, old_features) in first.children().take(1) {
                copy_state(old_features, &features)?;
            }
        }
        named_parameters(&features).iter().for_each(|(_, parameter)| parameter.set_trainable(!frozen));
        let network = Sequential::new().named("features", features).named("head", head);
        let points = learn(&network, &new, epochs, 0.003, &device)?;
        let last = points[points.len() - 1].1;
        println!("5 to 9 from {} images, {name}: {:.1} %", new.train.len(), 100.0 * last);
        chart.line(name, colour, &points);
        // How soon: the mean over the epochs.
        reached.push((last, points.iter().map(|p| p.1).sum::<f64>() / points.len() as f64));
    }
    // What was seen for other digits is of use: the new layer learns sooner than a whole network.
    assert!(reached[1].1 > reached[0].1, "{reached:?}");
    assert!(quick || reached[2].0 > 0.75, "{reached:?}");
    chart.save("target/tour/08_transfer.svg")?;
    println!("picture target/tour/08_transfer.svg");
    Ok(())
}
