//! Fitting too well: a network with far more weights than images learns them by heart; what helps it to see what they have in common.
//!
//! `cargo run --release --example 06_regularisation`; the mathematics: docs/tour/06_regularisation.md

use mappa::chart::Chart;
use mappa::data::augment::Augment;
use mappa::data::{Dataset, Loader, LoaderOptions, digits};
use mappa::nn::{Activation, BatchNorm2d, Context, Conv2d, Dropout, Flatten, Linear, Module, Sequential, initialize, named_parameters};
use mappa::op::{Conv2dOptions, Unary};
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::{Device, Result, Tensor, train};
use std::sync::Arc;

/// Images that are learned from, of 1,437.
const FEW: usize = 100;

/// What is done against fitting too well.
#[derive(Clone, Copy, Default)]
struct Cure {
    dropout: f64,
    /// Of adamw: weights shrink by this share of the learning rate in each step.
    weight_decay: f64,
    /// Times the sum of absolute weights, in the loss.
    l1: f64,
    shift: usize,
    batch_norm: bool,
    images: usize,
}

fn network(device: &Device, cure: Cure) -> Result<Sequential> {
    let same = Conv2dOptions { padding: [1, 1], ..Default::default() };
    let mut network = Sequential::new().then(Conv2d::new(device, 1, 16, [3, 3], same, true)?);
    if cure.batch_norm {
        network = network.then(BatchNorm2d::new(device, 16)?);
    }
    network = network.then(Activation::Relu).then(Flatten).then(Dropout::new(cure.dropout)?).then(Linear::new(device, 16 * 64, 128, true)?);
    network = network.then(Activation::Relu).then(Dropout::new(cure.dropout)?).then(Linear::new(device, 128, 10, true)?);
    initialize(&network, 1)?;
    Ok(network)
}

/// Accuracy on the images learned from and on other writers', epoch by epoch.
fn learn(device: &Device, data: &Dataset, cure: Cure, epochs: u64) -> Result<Vec<[f64; 2]>> {
    let network = network(device, cure)?;
    let config = OptimizerConfig::AdamW { lr: 0.003, betas: [0.9, 0.999], eps: 1e-8, weight_decay: cure.weight_decay, maximize: false };
    let mut optimizer = Optimizer::new(config, vec![ParamGroup::new(named_parameters(&network))])?;
    // Every n-th image: of each writer some.
    let rows: Vec<usize> = (0..cure.images).map(|i| i * data.train.len() / cure.images).collect();
    let part = Arc::new(data.train.select(&rows));
    let augment = Augment { shift: cure.shift, ..Default::default() };
    let (mut points, mut step) = (Vec::new(), 0);
    for epoch in 0..epochs {
        // As many steps an epoch however many images there are.
        let options = LoaderOptions { batch_size: cure.images.div_ceil(4), shuffle: true, augment, seed: 1, epoch, ..Default::default() };
        for batch in Loader::new(data, &part, options)? {
            let batch = batch?;
            let x = Tensor::from_slice(device, &[batch.len(), 1, 8, 8], &batch.images)?;
            let target = Tensor::from_slice(device, &[batch.len()], &batch.targets)?;
            optimizer.zero_grad();
            let mut loss = network.forward(&mut Context::train(1, step), &x)?.cross_entropy_mean(&target)?;
            for (_, weight) in named_parameters(&network).iter().filter(|_| cure.l1 > 0.0) {
                loss = loss.add(&weight.tensor().unary(Unary::Abs)?.sum(None, false)?.affine(cure.l1, 0.0)?)?;
            }
            loss.backward()?;
            optimizer.step(0.003)?;
            step += 1;
        }
        let accuracy = |part: &Arc<_>| Ok(train::evaluate(&network, data, part, device, 512, 0)?.scores().accuracy);
        let (own, others): (Result<f64>, Result<f64>) = (accuracy(&part), data.test.as_ref().map_or(Ok(0.0), accuracy));
        points.push([own?, others?]);
    }
    Ok(points)
}

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    let data = digits()?;
    let quick = std::env::var("MAPPA_QUICK").is_ok();
    let epochs = if quick { 5 } else { 60 };
    let none = Cure { images: FEW, ..Default::default() };
    let mut chart = Chart::new("Accuracy on other writers' digits", "epoch", (1.0, epochs as f64), (0.0, 1.0));
    let mut reached = Vec::new();
    println!("{:22} {:>12} {:>14}  best epoch", "", "own images", "other writers");
    for (colour, (name, cure)) in [
        ("100 images, no cure", none),
        ("L2 (weight decay)", Cure { weight_decay: 1.0, ..none }),
        ("L1", Cure { l1: 3e-4, ..none }),
        ("dropout 0.5", Cure { dropout: 0.5, ..none }),
        ("batch norm", Cure { batch_norm: true, ..none }),
        ("augmentation", Cure { shift: 1, ..none }),
        ("1,437 images", Cure { images: 1437, ..none }),
    ]
    .into_iter()
    .enumerate()
    {
        let points = learn(&device, &data, cure, epochs)?;
        let [own, others] = points[points.len() - 1];
        // Early stopping keeps the epoch that did best on images held back.
        let best = (0..points.len()).fold(0, |best, i| if points[i][1] > points[best][1] { i } else { best });
        println!("{name:22} {:10.1} % {:12.1} %  {:.1} % in epoch {}", 100.0 * own, 100.0 * others, 100.0 * points[best][1], best + 1);
        chart.line(name, colour, &points.iter().enumerate().map(|(i, p)| (i as f64 + 1.0, p[1])).collect::<Vec<_>>());
        reached.push([own, others]);
    }
    if quick {
        // A few epochs teach something, and own images first.
        assert!(reached.iter().all(|[own, others]| *own > 0.3 && *others > 0.2), "{reached:?}");
    } else {
        // By heart, and yet wrong on others; moving the images and having more of them help.
        let [own, others] = reached[0];
        assert!(own > 0.99 && own - others > 0.1, "{reached:?}");
        assert!(reached[5][1] > others + 0.02 && reached[6][1] > others + 0.05, "{reached:?}");
    }
    chart.save("target/tour/06_regularisation.svg")?;
    println!("picture target/tour/06_regularisation.svg");
    Ok(())
}
