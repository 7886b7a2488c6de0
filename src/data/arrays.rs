//! Images and labels as NumPy's arrays: an `.npz` archive of them, or a folder of `.npy` files.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::description::Description;
use super::pixels::{Builder, MAX_MEMORY};
use super::{Dataset, Part, Preprocessing};
use crate::error::{Error, Result};
use crate::io::npy::Npy;

/// The names of images and labels of the train, validation and test parts: Keras's, and MedMNIST's.
const NAMES: [[[&str; 2]; 3]; 3] = [
    [["x_train", "y_train"], ["x_val", "y_val"], ["x_test", "y_test"]],
    [["train_images", "train_labels"], ["val_images", "val_labels"], ["test_images", "test_labels"]],
    [["images", "labels"], ["val_images", "val_labels"], ["test_images", "test_labels"]],
];

/// More classes than this are a column of other numbers.
const MAX_CLASSES: usize = 100_000;

/// The most that deflate can shrink anything: 1,032 to 1.
const MAX_RATIO: u64 = 1032;

/// Values read at a time.
const BLOCK: usize = 4096;

/// Where arrays are.
enum Arrays {
    Folder(PathBuf),
    /// With the length of the file.
    Archive(PathBuf, zip::ZipArchive<BufReader<File>>, u64),
}

type Array<'a> = Npy<Box<dyn Read + 'a>>;

impl Arrays {
    fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            return Ok(Arrays::Folder(path.to_owned()));
        }
        let file = File::open(path).map_err(|e| Error::data(path, format!("cannot be read: {e}")))?;
        let len = file.metadata().map_err(|e| Error::data(path, format!("cannot be read: {e}")))?.len();
        let archive = zip::ZipArchive::new(BufReader::new(file));
        Ok(Arrays::Archive(path.to_owned(), archive.map_err(|e| Error::data(path, format!("this is no complete .npz archive: {e}")))?, len))
    }

    fn path(&self, name: &str) -> PathBuf {
        let (Arrays::Folder(path) | Arrays::Archive(path, ..)) = self;
        path.join(format!("{name}.npy"))
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Arrays::Folder(_) => self.path(name).is_file(),
            Arrays::Archive(_, archive, _) => archive.index_for_name(&format!("{name}.npy")).is_some(),
        }
    }

    fn array(&mut self, name: &str) -> Result<Array<'_>> {
        let path = self.path(name);
        let cannot = |e: &dyn std::fmt::Display| Error::data(&path, format!("cannot be read: {e}"));
        match self {
            Arrays::Folder(_) => {
                let file = File::open(&path).map_err(|e| cannot(&e))?;
                let len = file.metadata().map_err(|e| cannot(&e))?.len();
                Npy::new(Box::new(BufReader::new(file)), len, &path)
            }
            Arrays::Archive(_, archive, whole) => {
                let file = archive.by_name(&format!("{name}.npy")).map_err(|e| cannot(&e))?;
                // What an archive says of itself is not more than there is.
                let (len, stored) = (file.size(), file.compressed_size().min(*whole));
                if len > stored.saturating_mul(MAX_RATIO).saturating_add(1 << 16) {
                    return Err(cannot(&format!("{stored} bytes cannot hold the {len} that the archive tells of")));
                }
                Npy::new(Box::new(file), len, &path)
            }
        }
    }
}

/// Whether `path` is an `.npz` file, or a folder with an array of training images.
pub(super) fn fits(path: &Path) -> bool {
    match path.is_dir() {
        true => NAMES.iter().any(|[[images, _], ..]| path.join(format!("{images}.npy")).is_file()),
        false => path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("npz")),
    }
}

/// `[C, H, W]` of images in an array `[N, ..]`, and whether channels come last.
fn layout(shape: &[usize], given: Option<[usize; 3]>) -> Option<([usize; 3], bool)> {
    // NumPy's people put channels last, PyTorch's first; there are up to four.
    let candidates = match *shape {
        [_, h, w] => vec![([1, h, w], false)],
        [_, a, b, c] => {
            let mut both = Vec::new();
            both.extend((c <= 4).then_some(([c, a, b], true)));
            both.extend((a <= 4).then_some(([a, b, c], false)));
            both
        }
        _ => Vec::new(),
    };
    candidates.into_iter().find(|(size, _)| given.is_none_or(|given| given == *size) && !size.contains(&0))
}

/// Loads the data set at `path`, as [`super::load`] describes it.
pub(super) fn load(path: &Path) -> Result<Dataset> {
    let mut arrays = Arrays::open(path)?;
    let Some([train, val, test]) = NAMES.into_iter().find(|[[images, _], ..]| arrays.has(images)) else {
        let names: Vec<String> = NAMES.iter().map(|[[images, labels], ..]| format!("{images} and {labels}")).collect();
        return Err(Error::data(path, format!("holds no training images; name the arrays {}", names.join(", or "))));
    };
    let about = if path.is_dir() { path.join("dataset.toml") } else { path.with_extension("toml") };
    let description = Description::read(&about)?;
    let (size, train) = part(&mut arrays, train, description.input)?;
    let mut optional = |names: [&str; 2]| -> Result<Option<Arc<Part>>> {
        if !arrays.has(names[0]) {
            return Ok(None);
        }
        let (other, part) = part(&mut arrays, names, Some(size))?;
        debug_assert_eq!(other, size);
        Ok(Some(part))
    };
    let (val, test) = (optional(val)?, optional(test)?);
    let last = [Some(&train), val.as_ref(), test.as_ref()].into_iter().flatten().flat_map(|part| part.labels.iter().max()).max();
    let classes = description.classes.clone().unwrap_or_else(|| (0..=last.copied().unwrap_or(0)).map(|label| label.to_string()).collect());
    if let Some(&label) = last.filter(|&&label| label as usize >= classes.len()) {
        return Err(Error::data(path, format!("has label {label}, outside the {} classes that {} names", classes.len(), about.display())));
    }
    let mut preprocessing = description.preprocessing(&about, size[0])?;
    if preprocessing == Preprocessing::new(size[0]) {
        preprocessing = Preprocessing::standardizing(&train, size[1] * size[2], size[0])?;
    }
    let full = path.canonicalize().map_err(|e| Error::io(path, e))?;
    let name = full.file_stem().map_or("arrays".into(), |name| name.to_string_lossy().into_owned());
    let [channels, height, width] = size;
    let name = description.name.unwrap_or(name);
    Ok(Dataset { name, classes, channels, height, width, preprocessing, train, val, test, skipped: Vec::new(), table: None })
}

/// Images and their labels; `given` is the size that they must have.
fn part(arrays: &mut Arrays, [images, labels]: [&str; 2], given: Option<[usize; 3]>) -> Result<([usize; 3], Arc<Part>)> {
    let (file, labels_file) = (arrays.path(images), arrays.path(labels));
    if !arrays.has(labels) {
        return Err(Error::data(file, format!("there is no {labels}.npy beside it")));
    }
    let labels = labels_of(arrays.array(labels)?, &labels_file)?;
    let mut array = arrays.array(images)?;
    let shape = array.shape.clone();
    let Some((size, channels_last)) = layout(&shape, given) else {
        let want = given.map_or("N x H x W, N x H x W x C or N x C x H x W".into(), |[c, h, w]| format!("N images of {c} x {h} x {w}"));
        return Err(Error::data(file, format!("has shape {shape:?}; expected {want}")));
    };
    if shape[0] != labels.len() || labels.is_empty() {
        return Err(Error::data(file, format!("holds {} images, but {} holds {} labels", shape[0], labels_file.display(), labels.len())));
    }
    let (channels, area) = (size[0], size[1] * size[2]);
    let (mut values, mut pixels) = ([0.0; BLOCK], vec![0; channels * area]);
    let mut builder = Builder::new(MAX_MEMORY);
    for row in 0..labels.len() {
        for start in (0..pixels.len()).step_by(BLOCK) {
            let values = &mut values[..BLOCK.min(channels * area - start)];
            array.read(values).map_err(|e| Error::data(&file, format!("cannot be read: image {row} (from 0): {e}")))?;
            for (i, &value) in (start..).zip(values.iter()) {
                if !(0.0..=255.0).contains(&value) || value.fract() != 0.0 {
                    let hint = "pixels must be whole numbers from 0 to 255; of numbers up to 1 save (255 * x).round().astype(numpy.uint8)";
                    return Err(Error::data(&file, format!("image {row} (from 0) has the value {value}; {hint}")));
                }
                let at = if channels_last { i % channels * area + i / channels } else { i };
                pixels[at] = value as u8;
            }
        }
        builder.push(&pixels)?;
    }
    Ok((size, Arc::new(builder.finish(labels))))
}

/// Class numbers, `[N]` or `[N, 1]`.
fn labels_of(mut array: Array, path: &Path) -> Result<Vec<u32>> {
    if !matches!(array.shape[..], [_] | [_, 1]) {
        return Err(Error::data(path, format!("has shape {:?}; expected one class number an image, [N]", array.shape)));
    }
    let (mut values, mut labels) = ([0.0; BLOCK], Vec::new());
    for start in (0..array.shape[0]).step_by(BLOCK) {
        let values = &mut values[..BLOCK.min(array.shape[0] - start)];
        array.read(values).map_err(|e| Error::data(path, format!("cannot be read: {e}")))?;
        for (row, &value) in (start..).zip(values.iter()) {
            if !(0.0..MAX_CLASSES as f64).contains(&value) || value.fract() != 0.0 {
                return Err(Error::data(path, format!("row {row} (from 0) has label {value}; classes are numbers from 0")));
            }
            labels.push(value as u32);
        }
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn npy(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat()
    }

    /// Two images of 2 x 3 pixels with channels last, and their labels.
    fn arrays() -> [(&'static str, Vec<u8>); 2] {
        let pixels: Vec<u8> = (0..2 * 2 * 3 * 3).collect();
        let labels: Vec<u8> = [1i64, 0].iter().flat_map(|label| label.to_le_bytes()).collect();
        [("x_train.npy", npy("|u1", "2, 2, 3, 3", &pixels)), ("y_train.npy", npy("<i8", "2, 1", &labels))]
    }

    fn archive(path: &Path, arrays: &[(&str, Vec<u8>)], method: zip::CompressionMethod) {
        let mut writer = zip::ZipWriter::new(File::create(path).unwrap());
        for (name, bytes) in arrays {
            writer.start_file(*name, zip::write::SimpleFileOptions::default().compression_method(method)).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap();
    }

    #[test]
    fn a_folder_and_an_archive_hold_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("folder");
        std::fs::create_dir(&folder).unwrap();
        arrays().iter().for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).unwrap());
        let [stored, deflated] = ["stored.npz", "deflated.npz"].map(|name| dir.path().join(name));
        archive(&stored, &arrays(), zip::CompressionMethod::Stored);
        archive(&deflated, &arrays(), zip::CompressionMethod::Deflated);
        for path in [folder, stored, deflated] {
            let data = crate::data::load(path.to_str().unwrap(), 64).unwrap();
            assert_eq!((data.channels, data.height, data.width, data.classes.len()), (3, 2, 3, 2));
            assert_eq!(data.train.labels, [1, 0]);
            assert_eq!(data.train.pixels().unwrap()[..7], [0, 3, 6, 9, 12, 15, 1]);
            assert_ne!(data.preprocessing, Preprocessing::new(3));
        }
    }

    #[test]
    fn channels_may_come_first_and_a_description_decides() {
        for (shape, given, want) in [
            (vec![5, 8, 9], None, Some(([1, 8, 9], false))),
            (vec![5, 3, 8, 9], None, Some(([3, 8, 9], false))),
            (vec![5, 3, 8, 4], None, Some(([4, 3, 8], true))),
            (vec![5, 3, 8, 4], Some([3, 8, 4]), Some(([3, 8, 4], false))),
            (vec![5, 8, 9], Some([1, 9, 8]), None),
            (vec![5, 8, 9, 7], None, None),
            (vec![5, 0, 9], None, None),
            (vec![5, 8], None, None),
        ] {
            assert_eq!(layout(&shape, given), want, "{shape:?}");
        }
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.npz");
        let error = |arrays: &[(&str, Vec<u8>)]| {
            archive(&path, arrays, zip::CompressionMethod::Stored);
            load(&path).unwrap_err().to_string()
        };
        let [images, labels] = arrays();
        assert!(error(&[("x.npy", images.1.clone())]).contains("name the arrays x_train and y_train, or train_images"));
        assert!(error(std::slice::from_ref(&images)).contains("set.npz/x_train.npy: there is no y_train.npy beside it"));
        let half = npy("<f4", "1, 1, 1", &0.5f32.to_le_bytes());
        let one = ("y_train.npy", npy("|u1", "1,", &[0]));
        assert!(error(&[("x_train.npy", half), one.clone()]).contains("image 0 (from 0) has the value 0.5; pixels must be whole numbers"));
        assert!(error(&[images.clone(), one.clone()]).contains("holds 2 images, but"));
        assert!(error(&[images.clone(), ("y_train.npy", npy("|i1", "2,", &[0, 255]))]).contains("row 1 (from 0) has label -1"));
        let test = [images, labels, ("x_test.npy", npy("|u1", "1, 3, 3", &[0; 9])), ("y_test.npy", one.1)];
        assert!(error(&test).contains("x_test.npy: has shape [1, 3, 3]; expected N images of 3 x 2 x 3"));
        std::fs::write(&path, b"PK\x03\x04").unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("no complete .npz archive"));
    }
}
