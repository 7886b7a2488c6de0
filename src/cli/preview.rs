//! `mappa data preview`: what a network sees of the training images, as a contact sheet.

use super::{PreviewArgs, note, say};
use image::{GrayImage, RgbImage};
use mappa::data::augment::Augment;
use mappa::data::{self, Dataset, Loader, LoaderOptions};
use mappa::train::Settings;
use mappa::{Error, Result};
use std::process::ExitCode;

/// Pixels between images.
const GAP: usize = 2;
/// Images are enlarged by a whole number to at least this size.
const SMALLEST: usize = 64;

pub fn preview(args: &PreviewArgs) -> Result<ExitCode> {
    if args.rows == 0 || args.columns == 0 || args.rows > 100 || args.columns > 100 {
        return Err(Error::Config("--rows and --columns: give 1 to 100".into()));
    }
    let mut settings = Settings::default();
    for assignment in &args.set {
        settings.set(assignment)?;
    }
    settings.overlay(Settings { augment: args.augment.clone(), size: args.size, seed: args.seed, ..Settings::default() })?;
    if data::is_table(args.source.as_ref()) {
        return Err(Error::data(&args.source, "is a table of numbers and words; here images are drawn"));
    }
    let data = data::load(&args.source, settings.size.unwrap_or(data::DEFAULT_SIZE))?;
    let config = settings.resolve(&data, None)?;
    let samples = spread(&data, args.rows);
    // The first column is the image as it is, each other one an epoch.
    let mut columns = vec![images(&data, &samples, Augment::default(), config.seed, 0)?];
    for epoch in 1..args.columns as u64 {
        columns.push(images(&data, &samples, config.augmentation, config.seed, epoch)?);
    }
    let scale = SMALLEST.div_ceil(data.height.max(data.width)).max(1);
    let (tall, wide) = (scale * data.height + GAP, scale * data.width + GAP);
    let size = [(columns.len() * wide + GAP) as u32, (samples.len() * tall + GAP) as u32];
    let mut sheet = RgbImage::from_pixel(size[0], size[1], image::Rgb([255; 3]));
    let area = data.height * data.width;
    for (x, column) in columns.iter().enumerate() {
        for (y, pixels) in column.iter().enumerate() {
            for (row, line) in (0..scale * data.height).map(|row| (row, row / scale)) {
                for (col, place) in (0..scale * data.width).map(|col| (col, col / scale)) {
                    let at = |c: usize| pixels[c.min(data.channels - 1) * area + line * data.width + place];
                    sheet.put_pixel((x * wide + GAP + col) as u32, (y * tall + GAP + row) as u32, image::Rgb([at(0), at(1), at(2)]));
                }
            }
        }
    }
    let saved = if data.channels == 1 {
        let grey = GrayImage::from_fn(size[0], size[1], |x, y| image::Luma([sheet.get_pixel(x, y)[0]]));
        grey.save(&args.out)
    } else {
        sheet.save(&args.out)
    };
    saved.map_err(|e| match e {
        image::ImageError::IoError(e) => Error::io(&args.out, e),
        e => Error::Config(format!("--out {}: {e}; give a name that ends in .png", args.out.display())),
    })?;
    for (row, &sample) in samples.iter().enumerate() {
        note(format!("row {:2}  {}", row + 1, data.classes[data.train.labels[sample] as usize]));
    }
    say(format!(
        "{}: {} images as they are, then {} times with augmentation {}",
        args.out.display(),
        samples.len(),
        args.columns - 1,
        config.augment
    ));
    Ok(ExitCode::SUCCESS)
}

/// Samples of as many classes as can be, spread over the training part.
fn spread(data: &Dataset, count: usize) -> Vec<usize> {
    let mut chosen: Vec<usize> = Vec::new();
    for round in 0.. {
        let before = chosen.len();
        for class in 0..data.classes.len() {
            let own = data.train.labels.iter().enumerate().filter(|&(_, &label)| label as usize == class).map(|(sample, _)| sample);
            if let Some(sample) = own.skip(round).take(1).next()
                && chosen.len() < count
            {
                chosen.push(sample);
            }
        }
        if chosen.len() == count || chosen.len() == before {
            break;
        }
    }
    chosen
}

/// The pixels of samples as a network gets them, without its preprocessing.
fn images(data: &Dataset, samples: &[usize], augment: Augment, seed: u64, epoch: u64) -> Result<Vec<Vec<u8>>> {
    let part = std::sync::Arc::new(data.train.select(samples));
    let options = LoaderOptions { batch_size: samples.len(), augment, seed, epoch, ..LoaderOptions::default() };
    let white = data.preprocessing.white();
    let mut all = Vec::new();
    for batch in Loader::new(data, &part, options)? {
        for image in batch?.images.chunks_exact(data.channels * data.height * data.width) {
            let pixels = data.preprocessing.pixels(image);
            all.push(pixels.iter().map(|&pixel| (pixel as f32 * white).round().min(255.0) as u8).collect());
        }
    }
    Ok(all)
}
