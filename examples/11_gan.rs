//! Two networks against each other: a generator draws digits, a discriminator tells them from real ones; each learns from the other's mistakes.
//!
//! `cargo run --release --example 11_gan`; the mathematics: docs/tour/11_gan.md

use mappa::data::{Loader, LoaderOptions, digits};
use mappa::nn::{Activation, Context, Linear, Module, Sequential, initialize, loss, named_parameters};
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::rng::Stream;
use mappa::tensor::ops::Reduction;
use mappa::{Device, Result, Tensor, autodiff, metrics::Predictions};

/// Numbers that a digit is drawn from.
const NOISE: usize = 32;
const PIXELS: usize = 64;
const BATCH: usize = 64;
const RATE: f64 = 4e-4;

fn mlp(device: &Device, sizes: [usize; 4], hidden: Activation, last: Option<Activation>, seed: u64) -> Result<Sequential> {
    let mut network = Sequential::new();
    for i in 0..3 {
        network = network.then(Linear::new(device, sizes[i], sizes[i + 1], true)?);
        match (i, last) {
            (2, Some(last)) => network = network.then(last),
            (2, None) => {}
            _ => network = network.then(hidden),
        }
    }
    initialize(&network, seed)?;
    Ok(network)
}

fn adam(network: &Sequential) -> Result<Optimizer> {
    // The usual setting for GANs: less memory of old gradients, since the other network changes what is right (Radford et al. 2015, arXiv:1511.06434).
    Optimizer::new(
        OptimizerConfig::Adam { lr: RATE, betas: [0.5, 0.999], eps: 1e-8, weight_decay: 0.0, maximize: false },
        vec![ParamGroup::new(named_parameters(network))],
    )
}

/// Real digits, 0 to 1, in batches without end.
struct Digits {
    images: Vec<f32>,
}

impl Digits {
    fn batch(&self, device: &Device, step: u64) -> Result<Tensor> {
        let n = self.images.len() / PIXELS;
        let stream = Stream::new(1, "real", step, 0);
        let rows = (0..BATCH as u64).flat_map(|i| self.images[PIXELS * stream.below(i, n)..][..PIXELS].to_vec());
        Tensor::from_slice(device, &[BATCH, PIXELS], &rows.collect::<Vec<f32>>())
    }
}

fn draw(generator: &Sequential, device: &Device, n: usize, step: u64) -> Result<Tensor> {
    let z = Tensor::normal(device, &[n, NOISE], 0.0, 1.0, Stream::new(2, "noise", step, 0))?;
    generator.forward(&mut Context::train(1, step), &z)
}

/// The mean of `-log s(x)` for target 1, of `-log(1 - s(x))` for 0.
fn cross_entropy(logits: &Tensor, target: f64) -> Result<Tensor> {
    let target = Tensor::full(logits.device(), logits.shape(), logits.dtype(), target)?;
    loss::binary_cross_entropy_with_logits(logits, &target, None, None, Reduction::Mean)
}

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    let quick = std::env::var("MAPPA_QUICK").is_ok();
    let steps = if quick { 200 } else { 12_000 };
    let data = digits()?;
    let images = data.train.pixels()?.iter().map(|&pixel| pixel as f32 / 16.0).collect();
    let real = Digits { images };
    let generator = mlp(&device, [NOISE, 128, 128, PIXELS], Activation::Relu, Some(Activation::Sigmoid), 1)?;
    let discriminator = mlp(&device, [PIXELS, 128, 128, 1], Activation::LeakyRelu { negative_slope: 0.2 }, None, 2)?;
    let (mut learn_g, mut learn_d) = (adam(&generator)?, adam(&discriminator)?);
    for step in 0..steps {
        let judge = |x: &Tensor| discriminator.forward(&mut Context::train(1, step), x);
        // The discriminator: real ones are real (0.9: a little doubt keeps it from being sure), drawn ones are not.
        learn_d.zero_grad();
        let drawn = draw(&generator, &device, BATCH, step)?;
        let loss_d = cross_entropy(&judge(&real.batch(&device, step)?)?, 0.9)?.add(&cross_entropy(&judge(&drawn.detach())?, 0.0)?)?;
        loss_d.backward()?;
        learn_d.step(RATE)?;
        // The generator: what it draws should be taken for real (the form of Goodfellow et al. 2014 that does not saturate).
        learn_g.zero_grad();
        let loss_g = cross_entropy(&judge(&drawn)?, 1.0)?;
        loss_g.backward()?;
        learn_g.step(RATE)?;
        if step % (steps / 6) == 0 {
            println!("step {step:5}: discriminator {:.3}, generator {:.3}", loss_d.item_blocking()?, loss_g.item_blocking()?);
        }
    }

    // How good are they? A classifier that has only seen real digits says what it takes them for.
    let samples = draw(&generator, &device, 500, 1 << 40)?.to_vec_blocking::<f32>()?;
    let (counts, confidence) = ask(&device, &samples, quick)?;
    println!("taken for 0 to 9: {counts:?}, with a mean confidence of {:.1} %", 100.0 * confidence);
    // Copies would lie on training images: the distance to the nearest one, beside that of other writers' digits.
    let test = data.test.as_ref().map_or(Ok(Vec::new()), |part| part.pixels())?;
    let test: Vec<f32> = test.iter().map(|&pixel| pixel as f32 / 16.0).collect();
    let (own, others) = (nearest(&samples, &real.images), nearest(&test, &real.images));
    println!("distance to the nearest training image: drawn {own:.2}, other writers' {others:.2}");
    let picture = grid(&samples)?;
    println!("picture {}", picture.display());
    assert!(samples.iter().all(|v| v.is_finite()));
    if !quick {
        assert!(counts.iter().all(|&n| n > 0) && confidence >= 0.8, "{counts:?} {confidence}");
        assert!(own > 0.3 * others, "the digits are copies: {own} beside {others}");
    }
    Ok(())
}

/// Trains a classifier on real digits; of drawn ones, how many it takes for each class, and the mean probability of its answers.
fn ask(device: &Device, samples: &[f32], quick: bool) -> Result<(Vec<usize>, f64)> {
    let data = digits()?;
    let network = mlp(device, [PIXELS, 128, 64, 10], Activation::Relu, None, 3)?;
    let mut optimizer = Optimizer::new(OptimizerConfig::adamw(0.003), vec![ParamGroup::new(named_parameters(&network))])?;
    for epoch in 0..if quick { 2 } else { 20 } {
        for batch in Loader::new(&data, &data.train, LoaderOptions { shuffle: true, seed: 1, epoch, ..Default::default() })? {
            let batch = batch?;
            // As the generator's: 0 to 1, whatever the data set's own preprocessing.
            let (n, x) = (batch.len(), Tensor::from_slice(device, &[batch.len(), PIXELS], &batch.images)?);
            let target = Tensor::from_slice(device, &[n], &batch.targets)?;
            optimizer.zero_grad();
            network.forward(&mut Context::train(1, epoch), &x)?.cross_entropy_mean(&target)?.backward()?;
            optimizer.step(0.003)?;
        }
    }
    let n = samples.len() / PIXELS;
    let _guard = autodiff::no_grad();
    let logits = network.forward(&mut Context::eval(), &Tensor::from_slice(device, &[n, PIXELS], samples)?)?;
    let mut predictions = Predictions::new(10);
    predictions.add(&logits.to_vec_blocking::<f32>()?, &vec![0; n]);
    let mut counts = vec![0; 10];
    predictions.classes_predicted().into_iter().for_each(|class| counts[class] += 1);
    let best = predictions.probabilities.chunks(10).map(|p| p.iter().copied().fold(0.0, f64::max));
    Ok((counts, best.sum::<f64>() / n as f64))
}

/// The mean distance of images to their nearest among others.
fn nearest(images: &[f32], others: &[f32]) -> f64 {
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    let least = |image: &[f32]| others.chunks(PIXELS).map(|other| distance(image, other)).fold(f64::INFINITY, f64::min).sqrt();
    images.chunks(PIXELS).map(least).sum::<f64>() / (images.len() / PIXELS) as f64
}

/// 10 x 10 of them, each pixel 6 x 6.
fn grid(samples: &[f32]) -> Result<std::path::PathBuf> {
    let folder = std::path::Path::new("target/tour");
    let path = folder.join("11_gan.png");
    let picture = image::GrayImage::from_fn(10 * 54, 10 * 54, |x, y| {
        let (cell, inner) = ([x / 54, y / 54], [x % 54, y % 54]);
        let pixel = |v: u32| (v / 6) as usize;
        let seen = inner.iter().all(|&v| v < 48);
        let at = (cell[1] * 10 + cell[0]) as usize * PIXELS + pixel(inner[1]) * 8 + pixel(inner[0]);
        image::Luma([if seen { (255.0 * samples[at]) as u8 } else { 40 }])
    });
    std::fs::create_dir_all(folder).map_err(|e| mappa::Error::io(folder, e))?;
    picture.save(&path).map_err(|e| mappa::Error::data(&path, e.to_string()))?;
    Ok(path)
}
