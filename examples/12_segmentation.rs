//! Which pixels are a digit, and which digit: a U-Net says it of every pixel of a small scene.
//!
//! `cargo run --release --example 12_segmentation`; the mathematics: docs/tour/12_segmentation.md

mod scenes;

use mappa::data::digits;
use mappa::metrics::Confusion;
use mappa::nn::{Activation, BatchNorm2d, Context, Conv2d, ConvTranspose2d, Module, Owned, Sequential, initialize, join, named_parameters};
use mappa::op::{Conv2dOptions, ConvTranspose2dOptions, Pool2dOptions};
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::{Device, Result, Tensor, autodiff};
use scenes::{COLOURS, Digits, SIDE, Scene, compose, images};

const CLASSES: usize = 11;
const BATCH: usize = 16;
const RATE: f64 = 0.004;

/// Ronneberger et al. 2015, arXiv:1505.04597: down to see what things are, up again to see where, with bridges for the details.
struct UNet {
    down: [Sequential; 3],
    up: [ConvTranspose2d; 2],
    join: [Sequential; 2],
    last: Conv2d,
}

fn conv(device: &Device, from: usize, to: usize, kernel: usize, bias: bool) -> Result<Conv2d> {
    let options = Conv2dOptions { padding: [kernel / 2; 2], ..Default::default() };
    Conv2d::new(device, from, to, [kernel; 2], options, bias)
}

/// Twice a convolution that keeps the size, batch normalisation and relu.
fn double(device: &Device, from: usize, to: usize) -> Result<Sequential> {
    let mut block = Sequential::new();
    for from in [from, to] {
        block = block.then(conv(device, from, to, 3, false)?).then(BatchNorm2d::new(device, to)?).then(Activation::Relu);
    }
    Ok(block)
}

impl UNet {
    fn new(device: &Device) -> Result<Self> {
        let twice = ConvTranspose2dOptions { conv: Conv2dOptions { stride: [2; 2], ..Default::default() }, output_padding: [0; 2] };
        Ok(UNet {
            down: [double(device, 1, 16)?, double(device, 16, 32)?, double(device, 32, 64)?],
            up: [ConvTranspose2d::new(device, 64, 32, [2; 2], twice, true)?, ConvTranspose2d::new(device, 32, 16, [2; 2], twice, true)?],
            join: [double(device, 64, 32)?, double(device, 32, 16)?],
            last: conv(device, 16, CLASSES, 1, true)?,
        })
    }
}

impl Module for UNet {
    /// `[N, 1, H, W]` to a logit for each class and pixel, `[N, 11, H, W]`.
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        let fine = ctx.call("down.0", &self.down[0], x)?;
        let middle = ctx.call("down.1", &self.down[1], &fine.max_pool2d(Pool2dOptions::new(2))?)?;
        let coarse = ctx.call("down.2", &self.down[2], &middle.max_pool2d(Pool2dOptions::new(2))?)?;
        let up = ctx.call("up.0", &self.up[0], &coarse)?;
        let y = ctx.call("join.0", &self.join[0], &Tensor::concat(&[&up, &middle], 1)?)?;
        let up = ctx.call("up.1", &self.up[1], &y)?;
        let y = ctx.call("join.1", &self.join[1], &Tensor::concat(&[&up, &fine], 1)?)?;
        ctx.call("last", &self.last, &y)
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        self.down.iter().enumerate().for_each(|(i, block)| block.visit(&join(path, &format!("down.{i}")), visitor));
        self.up.iter().enumerate().for_each(|(i, layer)| layer.visit(&join(path, &format!("up.{i}")), visitor));
        self.join.iter().enumerate().for_each(|(i, block)| block.visit(&join(path, &format!("join.{i}")), visitor));
        self.last.visit(&join(path, "last"), visitor);
    }
}

/// The class of each pixel.
fn segment(network: &UNet, device: &Device, scenes: &[Scene]) -> Result<Vec<i32>> {
    let _guard = autodiff::no_grad();
    let mut all = Vec::new();
    for some in scenes.chunks(50) {
        let logits = network.forward(&mut Context::eval(), &images(device, some)?)?;
        all.extend(logits.argmax(1)?.cast(mappa::DType::I32)?.to_vec_blocking::<i32>()?);
    }
    Ok(all)
}

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    let quick = std::env::var("MAPPA_QUICK").is_ok();
    let steps = if quick { 40 } else { 2500 };
    let data = digits()?;
    let Some(test) = &data.test else { return Ok(()) };
    let (train, test) = (Digits::new(&data.train)?, Digits::new(test)?);
    let network = UNet::new(&device)?;
    initialize(&network, 1)?;
    let mut optimizer = Optimizer::new(OptimizerConfig::adamw(RATE), vec![ParamGroup::new(named_parameters(&network))])?;
    let mut losses = Vec::new();
    for step in 0..steps {
        // Every step sees scenes that were never there before.
        let scenes: Vec<Scene> = (0..BATCH as u64).map(|i| compose(&train, 1, step * BATCH as u64 + i)).collect();
        let labels: Vec<i32> = scenes.iter().flat_map(|scene| scene.labels.iter().copied()).collect();
        let target = Tensor::from_slice(&device, &[BATCH, SIDE, SIDE], &labels)?;
        optimizer.zero_grad();
        let logits = network.forward(&mut Context::train(1, step), &images(&device, &scenes)?)?;
        let loss = logits.cross_entropy(&target, None, Default::default(), mappa::tensor::ops::Reduction::Mean)?;
        loss.backward()?;
        // From the rate down to nothing.
        optimizer.step(RATE * (1.0 - step as f64 / steps as f64))?;
        if step % (steps / 5) == 0 || step + 1 == steps {
            losses.push(loss.item_blocking()?);
            println!("step {step:4}: loss {:.4}", losses[losses.len() - 1]);
        }
    }

    // Scenes of digits that other people wrote.
    let scenes: Vec<Scene> = (0..if quick { 50 } else { 500 }).map(|i| compose(&test, 2, i)).collect();
    let found = segment(&network, &device, &scenes)?;
    let [truth, answers] = [scenes.iter().flat_map(|scene| scene.labels.clone()).collect(), found.clone()]
        .map(|labels: Vec<i32>| labels.into_iter().map(|label| label as usize).collect::<Vec<_>>());
    let iou = Confusion::new(CLASSES, &truth, &answers)?.iou();
    let mean = iou.iter().sum::<f64>() / CLASSES as f64;
    println!("intersection over union: background {:.3}, digits {:.3?}, mean {mean:.3}", iou[0], &iou[1..]);
    let path = scenes::save("12_segmentation.png", 3, 8, |row, column, x, y| {
        let (scene, at) = (&scenes[column], y / 4 * SIDE + x / 4);
        let grey = [(255.0 * scene.image[at].clamp(0.0, 1.0)) as u8; 3];
        // The scene, the truth, the answer.
        match [0, scene.labels[at], found[column * SIDE * SIDE + at]][row] {
            0 if row == 0 => grey,
            0 => [40; 3],
            class => COLOURS[class as usize - 1],
        }
    })?;
    println!("picture {path}");
    assert!(losses[losses.len() - 1] < 0.7 * losses[0], "{losses:?}");
    assert!(quick || mean >= 0.85, "{mean}");
    Ok(())
}
