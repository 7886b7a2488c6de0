//! From pixels to a model's input.

use serde::{Deserialize, Serialize};

use super::Part;
use super::pixels::Values;
use crate::error::{Error, Result};

/// How pixels become a model's input: `x[c] = (pixel / scale - mean[c]) / std[c]`, with pixels 0..255 as stored, in f32.
///
/// The keys, and their meaning, are those of `dataset.toml` and of the sidecars of weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// What pixels are divided by: the largest pixel value, usually 255; at least 1.
    pub scale: f32,
    /// Subtracted from each channel after scaling, one value a channel.
    pub mean: Vec<f32>,
    /// What each channel is divided by at last, one value a channel.
    pub std: Vec<f32>,
}

impl Preprocessing {
    /// Pixels 0..255 to 0..1: scale 255, means 0, standard deviations 1.
    pub fn new(channels: usize) -> Self {
        Preprocessing { scale: 255.0, mean: vec![0.0; channels], std: vec![1.0; channels] }
    }

    /// The factor that makes the largest pixel, of a range of 0..16 for one, 255.
    pub fn white(&self) -> f32 {
        if self.scale > 1.0 { 255.0 / self.scale } else { 1.0 }
    }

    /// The pixels, as stored, that a model's input `[C, H, W]` came from.
    pub fn pixels(&self, input: &[f32]) -> Vec<u8> {
        let area = (input.len() / self.mean.len().max(1)).max(1);
        let pixel = |(i, &x): (usize, &f32)| ((x * self.std[i / area] + self.mean[i / area]) * self.scale).round().clamp(0.0, 255.0) as u8;
        input.iter().enumerate().map(pixel).collect()
    }

    /// Gives each channel of the samples `[C, area]` of a part mean 0 and standard deviation 1; rounded to four digits, as people write them down.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk that holds the samples fails.
    pub(super) fn standardizing(part: &Part, area: usize, channels: usize) -> Result<Self> {
        let mut counts = vec![[0u64; 256]; channels];
        let mut scratch = Vec::new();
        for row in 0..part.len() {
            if let Values::Pixels(pixels) = part.read(row, channels * area, &mut scratch)? {
                let planes = counts.iter_mut().zip(pixels.chunks_exact(area));
                planes.for_each(|(counts, plane)| plane.iter().for_each(|&pixel| counts[pixel as usize] += 1));
            }
        }
        let mut own = Preprocessing::new(channels);
        for (c, counts) in counts.iter().enumerate() {
            let n = counts.iter().sum::<u64>().max(1) as f64;
            let moment =
                |power: i32| counts.iter().enumerate().map(|(v, &count)| count as f64 * (v as f64 / 255.0).powi(power)).sum::<f64>() / n;
            let (mean, square) = (moment(1), moment(2));
            let rounded = |v: f64| ((v * 1e4).round() / 1e4) as f32;
            own.mean[c] = rounded(mean);
            // Pictures of one colour have no deviation to divide by.
            own.std[c] = rounded((square - mean * mean).max(0.0).sqrt()).max(0.01);
        }
        Ok(own)
    }

    /// The input for each of the 256 pixel values, a table a channel.
    ///
    /// # Errors
    /// [`Error::Config`] unless there is one mean and one standard deviation a channel, the scale is at least 1, the standard
    /// deviations are above 0, and every value of the tables is finite.
    pub fn tables(&self, channels: usize) -> Result<Vec<[f32; 256]>> {
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            if values.len() != channels {
                return Err(Error::Config(format!(
                    "{name} has {} values, but images have {channels} channels; give one value a channel",
                    values.len()
                )));
            }
        }
        // Below 1 it would be a factor (1/255) in the place of a divisor (255).
        if !(self.scale.is_finite() && self.scale >= 1.0) {
            return Err(Error::Config(format!(
                "scale is what pixels are divided by, a number of at least 1 such as 255, got {}",
                self.scale
            )));
        }
        if let Some(mean) = self.mean.iter().find(|m| !m.is_finite()) {
            return Err(Error::Config(format!("mean must hold finite numbers, got {mean}")));
        }
        if let Some(std) = self.std.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            return Err(Error::Config(format!("std must hold finite numbers above 0, got {std}")));
        }
        let table = |(mean, std): (&f32, &f32)| std::array::from_fn(|pixel| (pixel as f32 / self.scale - mean) / std);
        let tables: Vec<[f32; 256]> = self.mean.iter().zip(&self.std).map(table).collect();
        if !tables.iter().flatten().all(|x| x.is_finite()) {
            return Err(Error::Config(format!("mean {:?} and std {:?} make infinite inputs; std is too small", self.mean, self.std)));
        }
        Ok(tables)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(scale: f32, mean: &[f32], std: &[f32]) -> String {
        Preprocessing { scale, mean: mean.to_vec(), std: std.to_vec() }.tables(1).unwrap_err().to_string()
    }

    #[test]
    fn tables_follow_the_formula() {
        let tables = Preprocessing { scale: 1.0, mean: vec![127.0, 0.0], std: vec![128.0, 2.0] }.tables(2).unwrap();
        assert_eq!((tables[0][0], tables[0][255], tables[1][255]), (-127.0 / 128.0, 1.0, 127.5));
        let own = Preprocessing { scale: 255.0, mean: vec![0.5, 0.1], std: vec![0.25, 2.0] };
        let tables2 = own.tables(2).unwrap();
        let input: Vec<f32> = [0, 7, 200, 255].iter().flat_map(|&pixel| [tables2[0][pixel]]).chain([tables2[1][9]; 4]).collect();
        assert_eq!(own.pixels(&input), [0, 7, 200, 255, 9, 9, 9, 9]);
        let default = Preprocessing::new(3).tables(3).unwrap();
        assert_eq!((default.len(), default[2][0], default[2][51], default[2][255]), (3, 0.0, 0.2, 1.0));
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        assert_eq!(error(255.0, &[], &[1.0]), "mean has 0 values, but images have 1 channels; give one value a channel");
        assert_eq!(error(255.0, &[0.0], &[1.0; 3]), "std has 3 values, but images have 1 channels; give one value a channel");
        for std in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert_eq!(error(255.0, &[0.0], &[std]), format!("std must hold finite numbers above 0, got {std}"));
        }
        assert_eq!(error(255.0, &[f32::NAN], &[1.0]), "mean must hold finite numbers, got NaN");
        for scale in [1.0 / 255.0, 0.0, -255.0, f32::NAN, f32::INFINITY] {
            assert_eq!(
                error(scale, &[0.0], &[1.0]),
                format!("scale is what pixels are divided by, a number of at least 1 such as 255, got {scale}")
            );
        }
        assert!(error(1.0, &[0.0], &[1e-45]).ends_with("make infinite inputs; std is too small"));
    }

    #[test]
    fn it_survives_toml() {
        let own = Preprocessing { scale: 16.0, mean: vec![0.485], std: vec![0.229] };
        let text = toml::to_string(&own).unwrap();
        assert_eq!(toml::from_str::<Preprocessing>(&text).unwrap(), own);
        assert!(toml::from_str::<Preprocessing>(&format!("{text}\nmaen = [1.0]")).is_err());
    }
}
