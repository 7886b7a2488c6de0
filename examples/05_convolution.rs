//! What a convolution sees: filters by hand and learned ones, the maps that they make of a digit, and what pooling leaves.
//!
//! `cargo run --release --example 05_convolution`; the mathematics: docs/tour/05_convolution.md

use mappa::data::{Loader, LoaderOptions, digits};
use mappa::nn::{Activation, Context, Conv2d, Flatten, Linear, MaxPool2d, Module, Sequential, initialize, named_parameters};
use mappa::op::{Conv2dOptions, Pool2dOptions};
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::{Device, Error, Result, Tensor, autodiff};
use std::path::Path;

const FILTERS: usize = 12;

/// One output of a 3 x 3 filter on an 8 x 8 image, zeros around it.
fn by_hand(image: &[f32], filter: &[f32], row: usize, column: usize) -> f32 {
    let mut sum = 0.0;
    for u in 0..3 {
        for v in 0..3 {
            let (i, j) = (row + u, column + v);
            if (1..=8).contains(&i) && (1..=8).contains(&j) {
                sum += filter[u * 3 + v] * image[(i - 1) * 8 + j - 1];
            }
        }
    }
    sum
}

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    let data = digits()?;
    let same = Conv2dOptions { padding: [1, 1], ..Default::default() };
    let mut batches = Loader::new(&data, &data.train, LoaderOptions { batch_size: 8, ..Default::default() })?;
    let Some(first) = batches.next().transpose()? else { return Ok(()) };
    let image = &first.images[7 * 64..8 * 64];
    let x = Tensor::from_slice(&device, &[1, 1, 8, 8], image)?;

    // Filters by hand: where does it get brighter downwards, and to the right?
    let sobel = [1.0, 2.0, 1.0, 0.0, 0.0, 0.0, -1.0, -2.0, -1.0, 1.0, 0.0, -1.0, 2.0, 0.0, -2.0, 1.0, 0.0, -1.0f32];
    let edges = x.conv2d(&Tensor::from_slice(&device, &[2, 1, 3, 3], &sobel)?, None, same)?.to_vec_blocking::<f32>()?;
    let worst = (0..128).map(|i| (edges[i] - by_hand(image, &sobel[i / 64 * 9..], i % 64 / 8, i % 8)).abs()).fold(0.0, f32::max);
    println!("two filters by loops and by the library differ by at most {worst:.1e}");
    assert!(worst < 1e-5);

    // The same weights everywhere: what moves in the image moves in the map, and is found as well.
    let roll = |v: &[f32]| (0..64).map(|i| if i % 8 == 0 { 0.0 } else { v[i - 1] }).collect::<Vec<f32>>();
    let moved = Tensor::from_slice(&device, &[1, 1, 8, 8], &roll(image))?;
    let moved = moved.conv2d(&Tensor::from_slice(&device, &[2, 1, 3, 3], &sobel)?, None, same)?.to_vec_blocking::<f32>()?;
    let inside = (0..64).filter(|i| (2..7).contains(&(i % 8)));
    let shifted = inside.map(|i| (moved[i] - edges[i - 1]).abs()).fold(0.0, f32::max);
    println!("an image moved by a pixel has a map moved by a pixel: {shifted:.1e}");
    assert!(shifted < 1e-5);

    // Learned filters: a small network, trained on the digits.
    let conv = Sequential::new().then(Conv2d::new(&device, 1, FILTERS, [3, 3], same, true)?).then(Activation::Relu);
    let rest = Sequential::new().then(MaxPool2d::new(2)).then(Flatten).then(Linear::new(&device, FILTERS * 16, 10, true)?);
    let network = Sequential::new().named("conv", conv).named("rest", rest);
    initialize(&network, 1)?;
    let mut optimizer = Optimizer::new(OptimizerConfig::adamw(0.005), vec![ParamGroup::new(named_parameters(&network))])?;
    for epoch in 0..if std::env::var("MAPPA_QUICK").is_ok() { 3 } else { 20 } {
        for batch in Loader::new(&data, &data.train, LoaderOptions { shuffle: true, seed: 1, epoch, ..Default::default() })? {
            let batch = batch?;
            let images = Tensor::from_slice(&device, &[batch.len(), 1, 8, 8], &batch.images)?;
            optimizer.zero_grad();
            let target = Tensor::from_slice(&device, &[batch.len()], &batch.targets)?;
            network.forward(&mut Context::train(1, epoch), &images)?.cross_entropy_mean(&target)?.backward()?;
            optimizer.step(0.005)?;
        }
    }
    let _guard = autodiff::no_grad();
    let maps = network.forward_range(&mut Context::eval(), 0..1, &x)?;
    let pooled = maps.max_pool2d(Pool2dOptions::new(2))?.to_vec_blocking::<f32>()?;
    let (maps, weights) = (maps.to_vec_blocking::<f32>()?, named_parameters(&network)[0].1.data().to_vec_blocking::<f32>()?);
    // A pool keeps the largest of four, wherever it was.
    let largest = |c: usize, r: usize, s: usize| [0, 1, 8, 9].iter().map(|o| maps[c * 64 + 16 * r + 2 * s + o]).fold(f32::MIN, f32::max);
    assert!((0..FILTERS * 16).all(|i| pooled[i] == largest(i / 16, i % 16 / 4, i % 4)));

    // Rows of the picture: the digit with its edges, the filters, their maps, the maps pooled.
    let edge = |i: usize| edges[i * 64..][..64].iter().map(|v| v.abs()).collect::<Vec<f32>>();
    let rows = [
        vec![(8, image.to_vec()), (8, edge(0)), (8, edge(1))],
        weights.chunks(9).map(|filter| (3, filter.to_vec())).collect(),
        maps.chunks(64).map(|map| (8, map.to_vec())).collect(),
        pooled.chunks(16).map(|map| (4, map.to_vec())).collect::<Vec<(usize, Vec<f32>)>>(),
    ];
    println!("picture {}", save(&rows)?);
    Ok(())
}

/// Squares of values, each from its least to its greatest, enlarged to 48 pixels.
fn save(rows: &[Vec<(usize, Vec<f32>)>]) -> Result<String> {
    const CELL: u32 = 56;
    let mut picture = image::GrayImage::from_pixel(CELL * FILTERS as u32, CELL * rows.len() as u32, image::Luma([128]));
    for (r, row) in rows.iter().enumerate() {
        for (c, (side, values)) in row.iter().enumerate() {
            let (low, high) = values.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
            for y in 0..48 {
                for x in 0..48 {
                    let value = values[y * side / 48 * side + x * side / 48];
                    let grey = (255.0 * (value - low) / (high - low).max(1e-9)) as u8;
                    picture.put_pixel(c as u32 * CELL + 4 + x as u32, r as u32 * CELL + 4 + y as u32, image::Luma([grey]));
                }
            }
        }
    }
    let path = Path::new("target/tour/05_convolution.png");
    std::fs::create_dir_all("target/tour").map_err(|e| Error::io("target/tour", e))?;
    picture.save(path).map_err(|e| Error::data(path, e.to_string()))?;
    Ok(path.display().to_string())
}
