//! Two networks against each other: a generator draws digits, a critic tells them from real ones; each learns from the other's mistakes.
//!
//! `cargo run --release --example 11_gan [dcgan|mlp] [non-saturating|hinge|wasserstein]`; the mathematics: docs/tour/11_gan.md

use mappa::data::{Loader, LoaderOptions, digits};
use mappa::nn::{
    Activation, BatchNorm2d, Context, Conv2d, ConvTranspose2d, Flatten, Linear, Module, Sequential, initialize, loss::Adversarial,
    named_parameters,
};
use mappa::op::{Conv2dOptions, ConvTranspose2dOptions};
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::rng::Stream;
use mappa::{Device, Error, Result, Tensor, autodiff, metrics::Predictions};
use std::path::Path;

/// Numbers that a digit is drawn from.
const NOISE: usize = 32;
const PIXELS: usize = 64;
const BATCH: usize = 64;
const LEAKY: Activation = Activation::LeakyRelu { negative_slope: 0.2 };
/// Weights of a Wasserstein critic stay within so much of 0.
const BOUND: f64 = 0.05;

fn mlp(device: &Device, sizes: [usize; 4], hidden: Activation) -> Result<Sequential> {
    let layer = |i: usize| Linear::new(device, sizes[i], sizes[i + 1], true);
    Ok(Sequential::new().then(layer(0)?).then(hidden).then(layer(1)?).then(hidden).then(layer(2)?))
}

/// A generator from `[N, 32, 1, 1]` to `[N, 1, 8, 8]` and its critic, to one logit (Radford et al. 2015, arXiv:1511.06434).
fn dcgan(device: &Device) -> Result<[Sequential; 2]> {
    let half = Conv2dOptions { stride: [2; 2], padding: [1; 2], ..Default::default() };
    let up = |from, to, options| {
        ConvTranspose2d::new(device, from, to, [4; 2], ConvTranspose2dOptions { conv: options, output_padding: [0; 2] }, false)
    };
    // One value becomes 4 x 4 of them, then 8 x 8.
    let generator = Sequential::new()
        .then(up(NOISE, 64, Conv2dOptions::default())?)
        .then(BatchNorm2d::new(device, 64)?)
        .then(Activation::Relu)
        .then(up(64, 32, half)?)
        .then(BatchNorm2d::new(device, 32)?)
        .then(Activation::Relu)
        .then(Conv2d::new(device, 32, 1, [3; 2], Conv2dOptions { padding: [1; 2], ..Default::default() }, true)?)
        .then(Activation::Sigmoid);
    let critic = Sequential::new()
        .then(Conv2d::new(device, 1, 32, [4; 2], half, true)?)
        .then(LEAKY)
        .then(Conv2d::new(device, 32, 64, [4; 2], half, true)?)
        .then(LEAKY)
        .then(Flatten)
        .then(Linear::new(device, 64 * 4, 1, true)?);
    Ok([generator, critic])
}

fn adam(network: &Sequential, lr: f64) -> Result<Optimizer> {
    // The usual setting for GANs: less memory of old gradients, since the other network changes what is right.
    let adam = OptimizerConfig::Adam { lr, betas: [0.5, 0.999], eps: 1e-8, weight_decay: 0.0, maximize: false };
    Optimizer::new(adam, vec![ParamGroup::new(named_parameters(network))])
}

/// The pair, the game, and the shapes that they speak in.
struct Game {
    generator: Sequential,
    critic: Sequential,
    loss: Adversarial,
    noise: Vec<usize>,
    picture: Vec<usize>,
    lr: f64,
}

impl Game {
    fn new(device: &Device, networks: &str, loss: &str) -> Result<Self> {
        let loss = match loss {
            "non-saturating" => Adversarial::NonSaturating,
            "hinge" => Adversarial::Hinge,
            "wasserstein" => Adversarial::Wasserstein,
            _ => return Err(Error::Config(format!("{loss}: the game is non-saturating, hinge or wasserstein"))),
        };
        let (generator, critic, noise, picture, lr) = match networks {
            "mlp" => {
                let generator = mlp(device, [NOISE, 128, 128, PIXELS], Activation::Relu)?.then(Activation::Sigmoid);
                (generator, mlp(device, [PIXELS, 128, 128, 1], LEAKY)?, vec![NOISE], vec![PIXELS], 4e-4)
            }
            "dcgan" => {
                let [generator, critic] = dcgan(device)?;
                (generator, critic, vec![NOISE, 1, 1], vec![1, 8, 8], 4e-4)
            }
            _ => return Err(Error::Config(format!("{networks}: the networks are mlp or dcgan"))),
        };
        initialize(&generator, 1)?;
        initialize(&critic, 2)?;
        Ok(Game { generator, critic, loss, noise, picture, lr })
    }

    fn draw(&self, device: &Device, n: usize, step: u64) -> Result<Tensor> {
        let z = Tensor::normal(device, &[&[n], &self.noise[..]].concat(), 0.0, 1.0, Stream::new(2, "noise", step, 0))?;
        self.generator.forward(&mut Context::train(1, step), &z)
    }

    /// One turn of each; their losses.
    fn turn(&self, real: &Tensor, step: u64, learn: &mut [Optimizer; 2]) -> Result<[Tensor; 2]> {
        let judge = |x: &Tensor| self.critic.forward(&mut Context::train(1, step), x);
        let drawn = self.draw(real.device(), BATCH, step)?;
        learn[1].zero_grad();
        // Detached: the generator does not help the critic. A little doubt about real ones (0.9) keeps it from being sure.
        let of_critic = self.loss.critic(&judge(real)?, &judge(&drawn.detach())?, 0.1)?;
        of_critic.backward()?;
        learn[1].step(self.lr)?;
        if self.loss == Adversarial::Wasserstein {
            for (_, weight) in named_parameters(&self.critic) {
                weight.set(&weight.data().clamp(Some(-BOUND), Some(BOUND))?)?;
            }
        }
        learn[0].zero_grad();
        let of_generator = self.loss.generator(&judge(&drawn)?)?;
        of_generator.backward()?;
        learn[0].step(self.lr)?;
        Ok([of_generator, of_critic])
    }
}

/// A classifier that has only seen real digits, and these.
struct Judge {
    classifier: Sequential,
    train: Vec<f32>,
    /// The mean distance of other writers' digits to the nearest training image.
    others: f64,
}

impl Judge {
    fn new(device: &Device, epochs: u64) -> Result<Self> {
        let data = digits()?;
        let unit = |pixels: Vec<u8>| pixels.into_iter().map(|pixel| pixel as f32 / 16.0).collect::<Vec<f32>>();
        let train = unit(data.train.pixels()?);
        let test = unit(data.test.as_ref().map_or(Ok(Vec::new()), |part| part.pixels())?);
        let classifier = mlp(device, [PIXELS, 128, 64, 10], Activation::Relu)?;
        initialize(&classifier, 3)?;
        let mut optimizer = Optimizer::new(OptimizerConfig::adamw(0.003), vec![ParamGroup::new(named_parameters(&classifier))])?;
        for epoch in 0..epochs {
            for batch in Loader::new(&data, &data.train, LoaderOptions { shuffle: true, seed: 1, epoch, ..Default::default() })? {
                let batch = batch?;
                let pixels: Vec<f32> = batch.indices.iter().flat_map(|&i| train[PIXELS * i as usize..][..PIXELS].to_vec()).collect();
                let x = Tensor::from_slice(device, &[batch.len(), PIXELS], &pixels)?;
                optimizer.zero_grad();
                classifier.forward(&mut Context::train(1, epoch), &x)?.cross_entropy_mean(&batch.target(device)?)?.backward()?;
                optimizer.step(0.003)?;
            }
        }
        let others = nearest(&test, &train);
        Ok(Judge { classifier, train, others })
    }

    /// How many drawn digits are taken for each class, the mean probability of these answers, and the mean distance to the nearest training image.
    fn ask(&self, device: &Device, samples: &[f32]) -> Result<(Vec<usize>, f64, f64)> {
        let _guard = autodiff::no_grad();
        let n = samples.len() / PIXELS;
        let logits = self.classifier.forward(&mut Context::eval(), &Tensor::from_slice(device, &[n, PIXELS], samples)?)?;
        let mut predictions = Predictions::new(10);
        predictions.add(&logits.to_vec_blocking::<f32>()?, &vec![0; n]);
        let mut counts = vec![0; 10];
        predictions.classes_predicted().into_iter().for_each(|class| counts[class] += 1);
        let confidence = predictions.probabilities.chunks(10).map(|p| p.iter().copied().fold(0.0, f64::max)).sum::<f64>() / n as f64;
        Ok((counts, confidence, nearest(samples, &self.train)))
    }
}

/// The mean distance of images to their nearest among others.
fn nearest(images: &[f32], others: &[f32]) -> f64 {
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
    let least = |image: &[f32]| others.chunks(PIXELS).map(|other| distance(image, other)).fold(f32::INFINITY, f32::min).sqrt();
    images.chunks(PIXELS).map(|image| f64::from(least(image))).sum::<f64>() / (images.len() / PIXELS) as f64
}

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    let quick = std::env::var("MAPPA_QUICK").is_ok();
    let mut words = std::env::args().skip(1);
    let (networks, loss) = (words.next().unwrap_or("dcgan".into()), words.next().unwrap_or("non-saturating".into()));
    let game = Game::new(&device, &networks, &loss)?;
    let steps = match networks.as_str() {
        _ if quick => 100,
        "dcgan" => 5_000,
        _ => 12_000,
    };
    let judge = Judge::new(&device, if quick { 2 } else { 20 })?;
    let mut learn = [adam(&game.generator, game.lr)?, adam(&game.critic, game.lr)?];
    let (mut metrics, mut last) = (String::new(), (Vec::new(), 0.0, 0.0));
    for step in 0..steps {
        let stream = Stream::new(1, "real", step, 0);
        let n = judge.train.len() / PIXELS;
        let rows: Vec<f32> = (0..BATCH as u64).flat_map(|i| judge.train[PIXELS * stream.below(i, n)..][..PIXELS].to_vec()).collect();
        let real = Tensor::from_slice(&device, &[&[BATCH], &game.picture[..]].concat(), &rows)?;
        let [of_generator, of_critic] = game.turn(&real, step, &mut learn)?;
        // Six times on the way: a grid of digits from the same noise, and what others make of them. The losses only measure one player against the other.
        if (step + 1) % (steps / 6) == 0 {
            let samples = game.draw(&device, 500, 1 << 40)?.to_vec_blocking::<f32>()?;
            let [of_generator, of_critic] = [of_generator.item_blocking()?, of_critic.item_blocking()?];
            last = judge.ask(&device, &samples)?;
            let classes = last.0.iter().filter(|&&count| count > 0).count();
            println!(
                "step {:5}: critic {of_critic:6.3}, generator {of_generator:6.3}; {classes} classes, confidence {:.1} %, distance {:.2}",
                step + 1,
                100.0 * last.1,
                last.2
            );
            metrics += &format!(
                "{{\"step\": {}, \"critic\": {of_critic}, \"generator\": {of_generator}, \"counts\": {:?}, \"confidence\": {}, \"distance\": {}}}\n",
                step + 1,
                last.0,
                last.1,
                last.2
            );
            let name = if step + 1 == steps / 6 * 6 { "11_gan".into() } else { format!("11_gan-{}", step + 1) };
            save(&samples, &name)?;
            assert!(samples.iter().all(|v| v.is_finite()));
        }
    }
    std::fs::write("target/tour/11_gan.jsonl", metrics).map_err(|e| Error::io("target/tour/11_gan.jsonl", e))?;
    let (counts, confidence, own) = last;
    println!("taken for 0 to 9: {counts:?}, with a mean confidence of {:.1} %", 100.0 * confidence);
    // Copies would lie on training images.
    println!("distance to the nearest training image: drawn {own:.2}, other writers' {:.2}", judge.others);
    println!("pictures target/tour/11_gan*.png, figures target/tour/11_gan.jsonl");
    if quick {
        // After 16 steps they are still 2.3 away.
        assert!(own < 2.0, "{own}");
    } else {
        assert!(counts.iter().all(|&n| n > 0) && confidence >= 0.8, "{counts:?} {confidence}");
        assert!(own > 0.3 * judge.others, "the digits are copies: {own} beside {}", judge.others);
    }
    Ok(())
}

/// 10 x 10 of them, each pixel 6 x 6.
fn save(samples: &[f32], name: &str) -> Result<()> {
    let folder = Path::new("target/tour");
    let path = folder.join(format!("{name}.png"));
    let picture = image::GrayImage::from_fn(10 * 54, 10 * 54, |x, y| {
        let (cell, inner) = ([x / 54, y / 54], [x % 54, y % 54]);
        let pixel = |v: u32| (v / 6) as usize;
        let seen = inner.iter().all(|&v| v < 48);
        let at = (cell[1] * 10 + cell[0]) as usize * PIXELS + pixel(inner[1]) * 8 + pixel(inner[0]);
        image::Luma([if seen { (255.0 * samples[at]) as u8 } else { 40 }])
    });
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    picture.save(&path).map_err(|e| Error::data(&path, e.to_string()))
}
