//! Data sets: where samples come from, how they are split, and how they reach a model in batches. File formats live in `io`.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};

mod arrays;
pub mod augment;
#[cfg(feature = "image")]
pub mod check;
mod cifar;
mod description;
mod digits;
#[cfg(feature = "image")]
mod folder;
mod idx;
mod loader;
mod pixels;
mod preprocessing;
mod split;
mod table;
#[cfg(feature = "image")]
mod tree;

pub use description::Sidecar;
pub use digits::digits;
pub use loader::{Batch, Loader, LoaderOptions};
pub use pixels::Part;
pub use preprocessing::Preprocessing;
pub use table::{Column, MISSING, Samples, TASKS, Table, TableOptions, is_table, load_table};

/// Labelled images of one size, in up to three parts.
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
    /// How a table of numbers and words was read, whose rows are the samples in the place of images.
    pub table: Option<Arc<Table>>,
}

impl Dataset {
    /// The same samples as what a network made of them, `[C, H, W]` each.
    pub(crate) fn with_features(
        &self,
        [channels, height, width]: [usize; 3],
        mut part: impl FnMut(&Arc<Part>) -> Result<Part>,
    ) -> Result<Dataset> {
        let mut optional = |own: &Option<Arc<Part>>| own.as_ref().map(|own| part(own).map(Arc::new)).transpose();
        let (val, test) = (optional(&self.val)?, optional(&self.test)?);
        let train = Arc::new(part(&self.train)?);
        Ok(Dataset { channels, height, width, preprocessing: Preprocessing::new(channels), train, val, test, ..self.clone() })
    }

    /// Pixels of one sample, C H W, after a check that `part` fits: its sizes, and labels that name a class.
    ///
    /// # Errors
    /// [`Error::Shape`] for images of another size, [`Error::Data`] for a label outside the classes.
    fn sample_len(&self, part: &Part) -> Result<usize> {
        let shape = [self.channels, self.height, self.width];
        let (len, count) = part.stored();
        let sample_len = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size)).filter(|&n| n > 0);
        let sample_len = sample_len.filter(|&n| (n as u64).checked_mul(count as u64) == Some(len) && u32::try_from(count).is_ok());
        let Some(sample_len) = sample_len else {
            return Err(Error::Shape(format!("data set {}: {len} pixels are not {count} images of shape {shape:?}", self.name,)));
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

/// The data set `source`: `digits`, which is embedded, or the path of one of these:
///
/// - a folder of pictures (PNG, JPEG, WebP, GIF, BMP, TIFF) in one folder a class, whose name is the class's; above them there may be the folders `train`,
///   `val` and `test`;
/// - a `.tar`, `.tar.gz` or `.tgz` archive of such a folder;
/// - a `.csv` file with rows of a picture's path, its label and perhaps its part; another one is a table of numbers and words, see [`load_table`];
/// - a folder of IDX files: `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`, perhaps `t10k-images-idx3-ubyte` and `t10k-labels-idx1-ubyte` (the test
///   part), each also with the ending `.gz`;
/// - a folder of CIFAR-10's or CIFAR-100's binary files, each also with the ending `.gz`;
/// - an `.npz` archive, or a folder of `.npy` files, of NumPy's arrays: `x_train` (whole numbers from 0 to 255; N x H x W, N x H x W x C or N x C x H x W) and
///   `y_train` (class numbers), perhaps `x_val`, `y_val`, `x_test` and `y_test`; or `train_images`, `train_labels`, `val_images` and so on.
///
/// The square in the middle of pictures is resized to `size` x `size` RGB pixels (4 to 1024), and each channel standardised by the training pictures' mean
/// and standard deviation. Pictures that cannot be read are listed in [`Dataset::skipped`]; more than 5 % of them are an error. Other images keep their size.
///
/// A `dataset.toml` in the folder, or the file with the ending `.toml` beside an archive or table, may have any of the keys `name`, `classes`, `input`,
/// `scale`, `mean` and `std`. A folder that is itself called "digits" is `./digits`.
///
/// # Errors
/// [`Error::Config`] for another `size` of pictures; [`Error::Data`] naming the file that is missing, truncated, corrupt or at odds with the others;
/// [`Error::Io`] when reading fails.
#[cfg_attr(not(feature = "image"), expect(unused_variables))] // only pictures are resized
pub fn load(source: &str, size: usize) -> Result<Dataset> {
    let path = Path::new(source);
    match source {
        "digits" => digits(),
        _ if is_table(path) => load_table(path, &TableOptions::default()),
        _ if path.is_dir() && idx::fits(path) => idx::load(path),
        _ if path.is_dir() && cifar::fits(path) => cifar::load(path),
        _ if path.exists() && arrays::fits(path) => arrays::load(path),
        #[cfg(feature = "image")]
        _ => match pictures_of(path) {
            Some(_) if !(4..=1024).contains(&size) => {
                Err(Error::Config(format!("size {size}: pictures can be resized to 4 to 1024 pixels")))
            }
            Some(tree) => folder::load(path, tree?, size),
            None => Err(nothing(path)),
        },
        #[cfg(not(feature = "image"))]
        _ => Err(nothing(path)),
    }
}

/// The pictures of a folder, an archive or a table; `None` for what is none of these.
#[cfg(feature = "image")]
fn pictures_of(path: &Path) -> Option<Result<tree::Tree>> {
    let name = path.to_string_lossy().to_lowercase();
    let arrays = idx::fits(path) || cifar::fits(path) || arrays::fits(path);
    match name.as_str() {
        "digits" => None,
        _ if path.is_dir() => (!arrays && folder::fits(path)).then(|| tree::Tree::directory(path)),
        _ if !path.is_file() || is_table(path) => None,
        _ if [".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end)) => Some(tree::Tree::tar(path)),
        _ => name.ends_with(".csv").then(|| tree::Tree::table(path)),
    }
}

/// Pictures by name: files as they are, the pictures in and below folders, and for `-` the names on stdin, one a line.
///
/// # Errors
/// [`Error::Data`] naming what is not there, or a folder without pictures; [`Error::Io`] when stdin cannot be read.
#[cfg(feature = "image")]
pub fn files(names: &[std::path::PathBuf]) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for name in names {
        if name.as_os_str() == "-" {
            for line in std::io::stdin().lines() {
                let line = line.map_err(|e| Error::io("stdin", e))?;
                found.extend((!line.is_empty()).then(|| line.into()));
            }
        } else if name.is_dir() {
            let tree = tree::Tree::directory(name)?;
            let before = found.len();
            found.extend(tree.all().into_iter().filter_map(tree::Source::path).map(Path::to_owned));
            if found.len() == before {
                return Err(Error::data(name, "this folder holds no picture"));
            }
        } else {
            found.push(name.clone());
        }
    }
    Ok(found)
}

/// The error of a path that holds no data set.
fn nothing(path: &Path) -> Error {
    let what = match (path.is_dir(), path.exists()) {
        (true, _) => "holds no data set",
        (_, true) => "is no data set",
        _ => "no such file or folder",
    };
    Error::data(
        path,
        format!(
            "{what}; give \"digits\", a folder (or .tar) with one folder of pictures a class, a .csv of path,label or of numbers and words, or a folder with train-images-idx3-ubyte[.gz] and train-labels-idx1-ubyte[.gz] with CIFAR's data_batch_1.bin[.gz], or with NumPy's x_train.npy and y_train.npy (also as an .npz)"
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
            train: Arc::new(Part::new(images, labels.to_vec())),
            val: None,
            test: None,
            skipped: Vec::new(),
            table: None,
        }
    }

    #[test]
    fn a_source_that_is_no_folder_is_told_what_to_give() {
        let hint = "give \"digits\", a folder (or .tar) with one folder of pictures a class";
        let missing = load("no/such/folder", DEFAULT_SIZE).unwrap_err();
        assert!(missing.is_bad_input());
        assert!(missing.to_string().starts_with(&format!("no/such/folder: no such file or folder; {hint}")));
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display().to_string();
        assert!(load(&path, DEFAULT_SIZE).unwrap_err().to_string().starts_with(&format!("{path}: is no data set; {hint}")));
        let empty = tempfile::tempdir().unwrap();
        let message = load(empty.path().to_str().unwrap(), DEFAULT_SIZE).unwrap_err().to_string();
        assert!(message.contains("holds no data set"), "{message}");
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
        assert!(set.sample_len(&Part::new(vec![], vec![0])).is_err());
    }
}
