//! A trained network with all that belongs to it.

use std::path::{Path, PathBuf};

use super::{Config, Run};
use crate::autodiff::no_grad;
use crate::data::{Preprocessing, Sidecar, Table};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::metrics::Predictions;
use crate::models;
use crate::nn::{Context, Folded, Module, Sequential};
use crate::tensor::Tensor;

/// Rows that are computed at a time.
const ROWS: usize = 1024;

/// Where trained weights are, and what belongs to them.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// The safetensors file.
    pub weights: PathBuf,
    /// Network, classes, input and preprocessing.
    pub about: Sidecar,
    /// What the run was made with that trained them.
    pub config: Option<Config>,
}

impl Trained {
    /// Those of a run's folder, or of a file of weights with its sidecar; `None` for a file without one.
    ///
    /// # Errors
    /// [`Error::Data`] when there is no such run or file, or when it is not complete.
    pub fn find(path: &Path) -> Result<Option<Self>> {
        if !path.exists() {
            return Err(Error::data(path, "no such run or file of weights"));
        }
        if !path.is_dir() {
            return Ok(Sidecar::beside(path)?.map(|about| Trained { weights: path.to_owned(), about, config: None }));
        }
        let (run, config) = Run::open(path)?;
        if !run.weights().exists() {
            return Err(Error::data(path, "this run has no model.safetensors yet; let it train for an epoch"));
        }
        let Config { model, classes, input, preprocessing, table, .. } = config.clone();
        Ok(Some(Trained { weights: run.weights(), about: Sidecar { model, classes, input, preprocessing, table }, config: Some(config) }))
    }

    /// The network with its weights.
    ///
    /// # Errors
    /// [`Error::Data`] when the weights do not fit; errors of the device.
    pub fn load(&self, device: &Device) -> Result<Sequential> {
        let module = models::build(&self.about.model, self.about.input, self.about.classes.len(), device, 0)?;
        models::load(&module, &self.weights)?;
        Ok(module)
    }
}

/// What a network answers to a row of a table, or to some that belong together.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer<'a> {
    /// Classes with their probabilities, the most probable first.
    Classes(Vec<(&'a str, f64)>),
    /// A number in the units of the column that was learned.
    Number(f64),
}

/// A trained network, ready for pictures, or for tables.
///
/// ```no_run
/// # fn main() -> mappa::Result<()> {
/// let classifier = mappa::train::Classifier::load("runs/photos-cnn-1".as_ref(), &mappa::Device::cpu(0)?)?;
/// let answer = &classifier.classify(&["holiday/1.jpg".as_ref()])?[0];
/// println!("{} ({:.1} %)", answer[0].0, 100.0 * answer[0].1);
/// # Ok(()) }
/// ```
pub struct Classifier {
    module: Sequential,
    folded: Folded,
    about: Sidecar,
    tables: Vec<[f32; 256]>,
    /// From the range of the data that it was trained on to 0 to 255.
    #[cfg(feature = "image")]
    white: f32,
    device: Device,
}

impl Classifier {
    /// Of a run's folder, or of a file of weights with its sidecar.
    ///
    /// # Errors
    /// [`Error::Data`] naming what is missing or does not fit; errors of the device.
    pub fn load(path: &Path, device: &Device) -> Result<Self> {
        let Some(trained) = Trained::find(path)? else {
            return Err(Error::data(
                path.with_extension("toml"),
                "weights need this sidecar, with model, input, classes, scale, mean and std; or give the run's folder",
            ));
        };
        // A picture's pixels are 0..255, and so are those that a sidecar means. A run's own data had its range as the scale (0..16: 16), unless that
        // is 1: pixels as they are.
        let own = &trained.about.preprocessing;
        let scale = if trained.config.is_some() && own.scale != 1.0 { 255.0 } else { own.scale };
        let tables = Preprocessing { scale, ..own.clone() }.tables(trained.about.input[0])?;
        Ok(Classifier {
            #[cfg(feature = "image")]
            white: if trained.config.is_some() { own.white() } else { 1.0 },
            module: trained.load(device)?,
            folded: Folded::default(),
            about: trained.about,
            tables,
            device: device.clone(),
        })
    }

    /// Class names, in the order of the outputs.
    pub fn classes(&self) -> &[String] {
        &self.about.classes
    }

    /// `[C, H, W]` of an input.
    pub fn input(&self) -> [usize; 3] {
        self.about.input
    }

    /// How the network reads tables, if it does.
    pub fn table(&self) -> Option<&Table> {
        self.about.table.as_ref()
    }

    /// What the network answers to the rows of a CSV file, to its sequences, or to the end of its series; each with its name: `line 2`.
    ///
    /// # Errors
    /// [`Error::Data`] naming file, line and column of what does not fit, or a network for pictures; errors of the device.
    pub fn answer(&self, file: &Path) -> Result<Vec<(String, Answer<'_>)>> {
        let Some(table) = self.table() else {
            return Err(Error::data(file, "this network classifies pictures, not the rows of tables"));
        };
        let samples = table.read(file)?;
        let (_guard, [c, h, w], len) = (no_grad(), self.about.input, self.about.input.iter().product::<usize>());
        let mut answers = Vec::new();
        for (values, names) in samples.values.chunks(ROWS * len).zip(samples.names.chunks(ROWS)) {
            let x = Tensor::from_slice(&self.device, &[names.len(), c, h, w], values)?;
            let outputs = self.module.forward(&mut Context::eval().folding(&self.folded), &x)?.to_vec_blocking::<f32>()?;
            if table.regression {
                answers.extend(outputs.iter().map(|&v| Answer::Number(table.number(v as f64))));
            } else {
                answers.extend(self.ranked(&outputs).into_iter().map(Answer::Classes));
            }
        }
        Ok(samples.names.into_iter().zip(answers).collect())
    }

    /// The classes of logits `[N, classes]` with their probabilities, the most probable first.
    fn ranked(&self, logits: &[f32]) -> Vec<Vec<(&str, f64)>> {
        let classes = self.about.classes.len();
        let mut predictions = Predictions::new(classes);
        predictions.add(logits, &vec![0; logits.len() / classes]);
        let ranked = |p: &[f64]| {
            let mut all: Vec<(&str, f64)> = self.about.classes.iter().map(String::as_str).zip(p.iter().copied()).collect();
            all.sort_by(|a, b| b.1.total_cmp(&a.1));
            all
        };
        predictions.probabilities.chunks_exact(classes).map(ranked).collect()
    }

    /// The pixels `[C, H, W]`, 0 to 255, of a picture's file, or of image N (from 0) of a file of IDX images, which is called `FILE:N`.
    ///
    /// # Errors
    /// [`Error::Data`] naming a file that is no picture, or an image that is not there or of another size.
    #[cfg(feature = "image")]
    pub fn read(&self, path: &Path) -> Result<Vec<u8>> {
        if self.table().is_some() {
            return Err(Error::data(path, "this network reads tables of numbers and words (.csv), not pictures"));
        }
        let [c, h, w] = self.about.input;
        let numbered =
            path.to_str().and_then(|name| name.rsplit_once(':')).and_then(|(file, n)| Some((Path::new(file), n.parse::<usize>().ok()?)));
        match numbered {
            Some((file, n)) if !path.exists() && file.is_file() => {
                let images = crate::io::idx::read_images(file)?;
                if n >= images.count {
                    return Err(Error::data(path, format!("there are {} images, numbered from 0", images.count)));
                }
                if [1, images.height, images.width] != [c, h, w] {
                    let [height, width] = [images.height, images.width];
                    return Err(Error::data(file, format!("holds images of 1 x {height} x {width}; this network takes {c} x {h} x {w}")));
                }
                let white = |&pixel: &u8| (pixel as f32 * self.white).round().min(255.0) as u8;
                Ok(images.pixels[n * h * w..(n + 1) * h * w].iter().map(white).collect())
            }
            _ => crate::io::picture::read(path, c, h, w),
        }
    }

    /// The classes of pictures in files with their probabilities, the most probable first. All are computed at once.
    ///
    /// # Errors
    /// [`Error::Data`] naming a file that is no picture; errors of the device.
    #[cfg(feature = "image")]
    pub fn classify(&self, files: &[&Path]) -> Result<Vec<Vec<(&str, f64)>>> {
        let pixels = files.iter().map(|path| self.read(path)).collect::<Result<Vec<_>>>()?;
        self.classify_pixels(&pixels.concat())
    }

    /// The classes of images `[N, C, H, W]` of u8 pixels, 0 to 255, with their probabilities, the most probable first.
    ///
    /// # Errors
    /// [`Error::Shape`] unless `pixels` are whole images; errors of the device.
    pub fn classify_pixels(&self, pixels: &[u8]) -> Result<Vec<Vec<(&str, f64)>>> {
        let [c, h, w] = self.about.input;
        let n = pixels.len() / (c * h * w).max(1);
        if n * c * h * w != pixels.len() {
            return Err(Error::Shape(format!("{} pixels are not images of shape {:?}", pixels.len(), self.about.input)));
        }
        if n == 0 {
            return Ok(Vec::new());
        }
        let _guard = no_grad();
        let input: Vec<f32> = pixels.iter().enumerate().map(|(i, &pixel)| self.tables[i / (h * w) % c][pixel as usize]).collect();
        let x = Tensor::from_slice(&self.device, &[n, c, h, w], &input)?;
        Ok(self.ranked(&self.module.forward(&mut Context::eval().folding(&self.folded), &x)?.to_vec_blocking::<f32>()?))
    }
}
