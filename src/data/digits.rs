//! The embedded data set: 1,797 handwritten digits of 8 x 8 pixels, 1,437 to train on and 360 to test on.
//!
//! E. Alpaydin, C. Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, CC BY 4.0;
//! `data/digits/README.md` says how the files were made.

use std::path::{Path, PathBuf};

use super::Dataset;
use super::description::Description;
use super::idx::{Pair, assemble};
use crate::error::Result;
use crate::io::idx;

const DESCRIPTION: &str = include_str!("../../data/digits/dataset.toml");
const TRAIN_IMAGES: &[u8] = include_bytes!("../../data/digits/train-images-idx3-ubyte.gz");
const TRAIN_LABELS: &[u8] = include_bytes!("../../data/digits/train-labels-idx1-ubyte.gz");
const TEST_IMAGES: &[u8] = include_bytes!("../../data/digits/t10k-images-idx3-ubyte.gz");
const TEST_LABELS: &[u8] = include_bytes!("../../data/digits/t10k-labels-idx1-ubyte.gz");

/// The digits, `[1, 8, 8]`, ten classes: a train part of 1,437 samples and a test part of 360.
///
/// # Errors
/// [`crate::Error::Data`] should the embedded files be corrupt.
pub fn digits() -> Result<Dataset> {
    let path = Path::new("digits/dataset.toml");
    let train = pair("train", TRAIN_IMAGES, TRAIN_LABELS)?;
    let test = pair("t10k", TEST_IMAGES, TEST_LABELS)?;
    assemble("digits".into(), (path, Description::parse(path, DESCRIPTION)?), train, Some(test))
}

fn pair(stem: &str, images: &[u8], labels: &[u8]) -> Result<Pair> {
    let images_path = PathBuf::from(format!("digits/{stem}-images-idx3-ubyte.gz"));
    let labels_path = PathBuf::from(format!("digits/{stem}-labels-idx1-ubyte.gz"));
    let (images, labels) = (idx::parse_images(&images_path, images)?, idx::parse_labels(&labels_path, labels)?);
    Ok(Pair { images: (images_path, images), labels: (labels_path, labels) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Part, Preprocessing};

    fn counts(part: &Part) -> Vec<usize> {
        (0..10).map(|class| part.labels.iter().filter(|&&label| label == class).count()).collect()
    }

    #[test]
    fn the_digits_are_all_there() {
        let set = digits().unwrap();
        let test = set.test.unwrap();
        assert_eq!(counts(&set.train), [143, 146, 142, 146, 144, 145, 144, 143, 141, 143]);
        assert_eq!(counts(&test), [35, 36, 35, 37, 37, 37, 37, 36, 33, 37]);
        assert_eq!((set.name.as_str(), set.channels, set.height, set.width), ("digits", 1, 8, 8));
        assert_eq!(set.classes, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
        assert_eq!((set.train.pixels().unwrap().len(), test.pixels().unwrap().len()), (1437 * 64, 360 * 64));
        assert!(set.val.is_none());
    }

    #[test]
    fn pixels_0_to_16_become_0_to_1() {
        let set = digits().unwrap();
        assert_eq!(set.preprocessing, Preprocessing { scale: 16.0, mean: vec![0.0], std: vec![1.0] });
        assert_eq!(set.train.pixels().unwrap().iter().max(), Some(&16));
        // The first two rows of the first image.
        assert_eq!(set.train.pixels().unwrap()[..16], [0, 0, 5, 13, 9, 1, 0, 0, 0, 0, 13, 15, 10, 15, 5, 0]);
        assert_eq!(set.preprocessing.tables(1).unwrap()[0][..17], std::array::from_fn::<f32, 17, _>(|pixel| pixel as f32 / 16.0));
    }
}
