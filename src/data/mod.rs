//! Data sets: where samples come from, how they are split, and how they reach a model in batches. File formats live in `io`.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};

mod description;
mod digits;
#[cfg(feature = "image")]
mod folder;
mod idx;
mod loader;
mod preprocessing;
mod split;

pub use description::Sidecar;
pub use digits::digits;
pub use loader::{Batch, Loader, LoaderOptions};
pub use preprocessing::Preprocessing;

/// Samples with their labels: one part (train, validation or test) of a [`Dataset`], which knows their shape.
#[derive(Clone, PartialEq, Eq)]
pub struct Part {
    /// Pixels as stored, `[N, C, H, W]`.
    pub images: Vec<u8>,
    /// The class of each sample, an index into [`Dataset::classes`].
    pub labels: Vec<u32>,
}

impl Part {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Part({} samples)", self.len())
    }
}

/// Labelled images of one size, in memory, in up to three parts.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// A short name, fit for a file name.
    pub name: String,
    /// The name of each class; labels index it.
    pub classes: Vec<String>,
    /// Channels of an image, C.
    pub channels: usize,
    /// Rows of an image, H.
    pub height: usize,
    /// Columns of an image, W.
    pub width: usize,
    /// How pixels become a model's input.
    pub preprocessing: Preprocessing,
    /// What a model learns from.
    pub train: Arc<Part>,
    /// What choices (best checkpoint, early stopping) are made on, if there is any.
    pub val: Option<Arc<Part>>,
    /// What the result is reported on, once, if there is any.
    pub test: Option<Arc<Part>>,
    /// What could not be read and was left out, each with its file.
    pub skipped: Vec<String>,
}

impl Dataset {
    /// Pixels of one sample, C H W, after a check that `part` fits: its sizes, and labels that name a class.
    ///
    /// # Errors
    /// [`Error::Shape`] for images of another size, [`Error::Data`] for a label outside the classes.
    fn sample_len(&self, part: &Part) -> Result<usize> {
        let shape = [part.len(), self.channels, self.height, self.width];
        let sample_len = shape[1..].iter().try_fold(1usize, |n, &size| n.checked_mul(size)).filter(|&n| n > 0);
        let sample_len = sample_len.filter(|n| n.checked_mul(part.len()) == Some(part.images.len()) && u32::try_from(part.len()).is_ok());
        let Some(sample_len) = sample_len else {
            return Err(Error::Shape(format!(
                "data set {}: {} pixels are not {} images of shape {:?}",
                self.name,
                part.images.len(),
                shape[0],
                &shape[1..]
            )));
        };
        let classes = self.classes.len().min(i32::MAX as usize);
        match part.labels.iter().position(|&label| label as usize >= classes) {
            Some(row) => {
                Err(Error::data(&self.name, format!("sample {row} has label {}, but there are {classes} classes", part.labels[row])))
            }
            None => Ok(sample_len),
        }
    }
}

/// The side of pictures, in pixels, unless a size is given.
pub const DEFAULT_SIZE: usize = 64;

/// The data set `source`: `digits`, which is embedded, or the path of a folder of pictures or of IDX files.
///
/// Pictures (PNG, JPEG, WebP, GIF, BMP, TIFF) lie in one folder a class, whose name is the class's; above them there may be the folders `train`, `val` and
/// `test`. The square in their middle is resized to `size` x `size` RGB pixels (4 to 1024), and each channel standardised by the training pictures' mean and standard deviation. Pictures
/// that cannot be read are listed in [`Dataset::skipped`]; more than 5 % of them are an error.
///
/// A folder of IDX files holds `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, may hold `t10k-images-idx3-ubyte` and
/// `t10k-labels-idx1-ubyte` (the test part), each also with the ending `.gz`, and may hold a `dataset.toml` with any of the keys
/// `name`, `classes`, `input`, `scale`, `mean` and `std`; its images keep their size. A folder that is itself called "digits" is `./digits`.
///
/// # Errors
/// [`Error::Config`] for another `size` of pictures; [`Error::Data`] naming the file that is missing, truncated, corrupt or at odds with the others;
/// [`Error::Io`] when reading fails.
#[cfg_attr(not(feature = "image"), expect(unused_variables))] // only pictures are resized
pub fn load(source: &str, size: usize) -> Result<Dataset> {
    let path = Path::new(source);
    match source {
        "digits" => digits(),
        #[cfg(feature = "image")]
        _ if path.is_dir() && !idx::fits(path) && folder::fits(path) => {
            if !(4..=1024).contains(&size) {
                return Err(Error::Config(format!("size {size}: pictures can be resized to 4 to 1024 pixels")));
            }
            folder::load(path, size)
        }
        _ if path.is_dir() => idx::load(path),
        _ => Err(nothing(path)),
    }
}

/// The error of a path that is no folder.
fn nothing(path: &Path) -> Error {
    let what = if path.exists() { "is not a folder" } else { "no such folder" };
    Error::data(
        path,
        format!(
            "{what}; give \"digits\", a folder with one folder of pictures a class, or one with train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz]"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Images of one channel whose pixels count up, so that samples differ.
    pub(super) fn dataset(labels: &[u32], classes: usize, height: usize, width: usize) -> Dataset {
        let images = (0..labels.len() * height * width).map(|i| (i % 255) as u8 + 1).collect();
        Dataset {
            name: "test".into(),
            classes: (0..classes).map(|c| c.to_string()).collect(),
            channels: 1,
            height,
            width,
            preprocessing: Preprocessing::new(1),
            train: Arc::new(Part { images, labels: labels.to_vec() }),
            val: None,
            test: None,
            skipped: Vec::new(),
        }
    }

    #[test]
    fn a_source_that_is_no_folder_is_told_what_to_give() {
        let hint = "give \"digits\", a folder with one folder of pictures a class, or one with train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz]";
        let missing = load("no/such/folder", DEFAULT_SIZE).unwrap_err();
        assert!(missing.is_bad_input());
        assert_eq!(missing.to_string(), format!("no/such/folder: no such folder; {hint}"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        assert_eq!(load(&path, DEFAULT_SIZE).unwrap_err().to_string(), format!("{path}: is not a folder; {hint}"));
        assert_eq!(load("digits", DEFAULT_SIZE).unwrap().name, "digits");
    }

    #[test]
    fn a_part_must_fit_its_data_set() {
        let mut set = dataset(&[0, 1, 2], 2, 2, 3);
        let label = set.sample_len(&set.train).unwrap_err().to_string();
        assert_eq!(label, "test: sample 2 has label 2, but there are 2 classes");
        set.classes.push("2".into());
        assert_eq!(set.sample_len(&set.train).unwrap(), 6);
        set.width = 4;
        let size = set.sample_len(&set.train).unwrap_err().to_string();
        assert_eq!(size, "data set test: 18 pixels are not 3 images of shape [1, 2, 4]");
        set.height = usize::MAX;
        assert!(set.sample_len(&set.train).is_err());
        set.height = 0;
        assert!(set.sample_len(&Part { images: vec![], labels: vec![0] }).is_err());
    }
}
