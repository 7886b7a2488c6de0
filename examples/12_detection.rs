//! Where digits are, as boxes, and which digits: one look at a small scene answers for every cell of a grid.
//!
//! `cargo run --release --example 12_detection`; the mathematics: docs/tour/12_detection.md

mod scenes;

use mappa::data::digits;
use mappa::metrics::detection::{Thing, mean_average_precision, non_maximum_suppression};
use mappa::nn::{Activation, BatchNorm2d, Context, Conv2d, Module, Sequential, initialize, loss, named_parameters};
use mappa::op::{Conv2dOptions, CrossEntropyOptions};
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::tensor::ops::Reduction;
use mappa::{Device, Result, Tensor, autodiff};
use scenes::{COLOURS, Digits, SIDE, Scene, compose, images};

/// Cells a side, each of four pixels; a digit belongs to the cell that its middle lies in.
const GRID: usize = 8;
const CELL: f32 = (SIDE / GRID) as f32;
/// What sizes are measured by, in pixels.
const USUAL: f32 = 12.0;
/// Is there a digit, four numbers of its box, ten classes.
const OUTPUTS: usize = 15;
const BATCH: usize = 32;
const RATE: f64 = 0.004;

/// From `[N, 1, 32, 32]` to `[N, 15, 8, 8]`.
fn network(device: &Device) -> Result<Sequential> {
    let mut layers = Sequential::new();
    for (from, to, stride) in [(1, 16, 1), (16, 32, 2), (32, 64, 2), (64, 64, 1), (64, 64, 1)] {
        let options = Conv2dOptions { padding: [1; 2], stride: [stride; 2], ..Default::default() };
        layers = layers.then(Conv2d::new(device, from, to, [3; 2], options, false)?);
        layers = layers.then(BatchNorm2d::new(device, to)?).then(Activation::Relu);
    }
    layers = layers.then(Conv2d::new(device, 64, OUTPUTS, [1; 2], Conv2dOptions::default(), true)?);
    initialize(&layers, 1)?;
    Ok(layers)
}

/// What the network should answer: of each cell whether there is a digit `[N, 1, 8, 8]`, its box `[N, 4, 8, 8]` and its class `[N, 8, 8]`.
fn targets(device: &Device, scenes: &[Scene]) -> Result<[Tensor; 3]> {
    let (n, area) = (scenes.len(), GRID * GRID);
    let (mut there, mut boxes, mut classes) = (vec![0f32; n * area], vec![0f32; n * 4 * area], vec![-1i32; n * area]);
    for (i, scene) in scenes.iter().enumerate() {
        for digit in &scene.digits {
            let [left, top, right, bottom] = digit.bounds;
            let (x, y) = ((left + right) / (2.0 * CELL), (top + bottom) / (2.0 * CELL));
            let cell = y as usize * GRID + x as usize;
            there[i * area + cell] = 1.0;
            classes[i * area + cell] = digit.class as i32;
            // Where in its cell the middle is, and how much larger than usual.
            let numbers = [x.fract(), y.fract(), ((right - left) / USUAL).ln(), ((bottom - top) / USUAL).ln()];
            (0..4).for_each(|k| boxes[(i * 4 + k) * area + cell] = numbers[k]);
        }
    }
    Ok([
        Tensor::from_slice(device, &[n, 1, GRID, GRID], &there)?,
        Tensor::from_slice(device, &[n, 4, GRID, GRID], &boxes)?,
        Tensor::from_slice(device, &[n, GRID, GRID], &classes)?,
    ])
}

/// Three losses: is there a digit, in every cell; where there is one, how far off its box is, and which it is.
fn loss_of(answers: &Tensor, [there, boxes, classes]: &[Tensor; 3]) -> Result<Tensor> {
    let parts = answers.split(&[1, 4, 10], 1)?;
    let found = loss::binary_cross_entropy_with_logits(&parts[0], there, None, None, Reduction::Sum)?;
    let off = loss::smooth_l1(&parts[1], boxes, 0.1, Reduction::None)?.mul(there)?.sum(None, false)?;
    let options = CrossEntropyOptions { ignore_index: -1, ..Default::default() };
    let which = parts[2].cross_entropy(classes, None, options, Reduction::Sum)?;
    found.add(&off.affine(2.0, 0.0)?)?.add(&which)?.affine(1.0 / BATCH as f64, 0.0)
}

/// The digits that the network sees in scenes, the surest first.
fn detect(network: &Sequential, device: &Device, scenes: &[Scene]) -> Result<Vec<Vec<Thing>>> {
    let _guard = autodiff::no_grad();
    let mut all = Vec::new();
    for some in scenes.chunks(50) {
        let answers = network.forward(&mut Context::eval(), &images(device, some)?)?.to_vec_blocking::<f32>()?;
        for answers in answers.chunks(OUTPUTS * GRID * GRID) {
            let at = |k: usize, cell: usize| answers[k * GRID * GRID + cell];
            let thing = |cell: usize| {
                let class = (0..10).fold(0, |best, k| if at(5 + k, cell) > at(5 + best, cell) { k } else { best });
                let sum: f32 = (0..10).map(|k| (at(5 + k, cell) - at(5 + class, cell)).exp()).sum();
                let (x, y) = ((cell % GRID) as f32 + at(1, cell), (cell / GRID) as f32 + at(2, cell));
                let [wide, tall] = [3, 4].map(|k| USUAL * at(k, cell).clamp(-3.0, 3.0).exp() / 2.0);
                let bounds = [x * CELL - wide, y * CELL - tall, x * CELL + wide, y * CELL + tall];
                Thing { bounds, class, score: 1.0 / (1.0 + (-at(0, cell)).exp()) / sum }
            };
            let things = (0..GRID * GRID).map(thing).filter(|thing| thing.score > 0.02).collect();
            all.push(non_maximum_suppression(things, 0.4));
        }
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
    let network = network(&device)?;
    let mut optimizer = Optimizer::new(OptimizerConfig::adamw(RATE), vec![ParamGroup::new(named_parameters(&network))])?;
    let mut losses = Vec::new();
    for step in 0..steps {
        let scenes: Vec<Scene> = (0..BATCH as u64).map(|i| compose(&train, 1, step * BATCH as u64 + i)).collect();
        optimizer.zero_grad();
        let answers = network.forward(&mut Context::train(1, step), &images(&device, &scenes)?)?;
        let loss = loss_of(&answers, &targets(&device, &scenes)?)?;
        loss.backward()?;
        optimizer.step(RATE * (1.0 - step as f64 / steps as f64))?;
        if step % (steps / 5) == 0 || step + 1 == steps {
            losses.push(loss.item_blocking()?);
            println!("step {step:4}: loss {:.3}", losses[losses.len() - 1]);
        }
    }

    // Scenes of digits that other people wrote.
    let scenes: Vec<Scene> = (0..if quick { 50 } else { 500 }).map(|i| compose(&test, 2, i)).collect();
    let found = detect(&network, &device, &scenes)?;
    let truth: Vec<Vec<Thing>> = scenes.iter().map(|scene| scene.digits.clone()).collect();
    let map = mean_average_precision(&found, &truth, 0.5)?;
    println!("mean average precision at an overlap of 0.5: {map:.3}; at 0.75: {:.3}", mean_average_precision(&found, &truth, 0.75)?);
    let path = scenes::save("12_detection.png", 3, 8, |row, column, x, y| {
        let (scene, things) = (&scenes[row * 8 + column], &found[row * 8 + column]);
        // On the edge of a box, whose pixels are quarters of the scene's.
        let edge = |thing: &&Thing| {
            let [left, top, right, bottom] = thing.bounds.map(|edge| (4.0 * edge) as isize);
            let (x, y) = (x as isize, y as isize);
            let inside = |grow: isize| (left - grow..right + grow).contains(&x) && (top - grow..bottom + grow).contains(&y);
            inside(1) && !inside(-1)
        };
        let grey = (255.0 * scene.image[y / 4 * SIDE + x / 4].clamp(0.0, 1.0)) as u8;
        things.iter().filter(|thing| thing.score > 0.4).find(edge).map_or([grey; 3], |thing| COLOURS[thing.class])
    })?;
    println!("picture {path}");
    assert!(losses[losses.len() - 1] < 0.7 * losses[0], "{losses:?}");
    assert!(quick || map >= 0.8, "{map}");
    Ok(())
}
