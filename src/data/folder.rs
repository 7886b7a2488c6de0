//! A folder of pictures, one folder a class: `photos/cat/1.jpg`, or `photos/train/cat/1.jpg` beside `photos/val` and `photos/test`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::description::Description;
use super::{Dataset, Part, Preprocessing};
use crate::error::{Error, Result};
use crate::io::picture::{self, ENDINGS};

/// The largest share of pictures that may be unreadable.
const MAX_UNREADABLE: f64 = 0.05;
/// Pictures are RGB.
const CHANNELS: usize = 3;

/// The names that the parts' folders may have.
const TRAIN: &str = "train";
const VAL: [&str; 3] = ["val", "valid", "validation"];
const TEST: &str = "test";

/// Whether `folder` holds folders: classes, or parts.
pub(super) fn fits(folder: &Path) -> bool {
    folders(folder).is_ok_and(|folders| !folders.is_empty())
}

/// Loads all pictures, resized to `size` x `size`.
pub(super) fn load(folder: &Path, size: usize) -> Result<Dataset> {
    let path = folder.join("dataset.toml");
    let description = Description::read(&path)?;
    let full = folder.canonicalize().map_err(|e| Error::io(folder, e))?;
    let name = full.file_name().map_or("data".into(), |name| name.to_string_lossy().into_owned());
    // A folder of pictures called "train" is a class.
    let parts = fits(&folder.join(TRAIN));
    let train_root = if parts { folder.join(TRAIN) } else { folder.to_owned() };
    let classes = classes(&train_root, &path, description.classes.clone())?;
    let mut skipped = Vec::new();
    let mut part = |root: &Path| read_part(root, &classes, size, &mut skipped);
    let train = part(&train_root)?;
    let optional = |names: &[&str]| names.iter().map(|name| folder.join(name)).find(|root| parts && root.is_dir());
    let (val, test) = (optional(&VAL), optional(&[TEST]));
    let val = val.map(|root| part(&root)).transpose()?.map(Arc::new);
    let test = test.map(|root| part(&root)).transpose()?.map(Arc::new);
    let preprocessing = description.preprocessing(&path, CHANNELS)?;
    // Unless the description says otherwise, each channel of the training pictures gets mean 0 and standard deviation 1.
    let preprocessing = if preprocessing == Preprocessing::new(CHANNELS) { standardizing(&train, size * size) } else { preprocessing };
    Ok(Dataset {
        name: description.name.unwrap_or(name),
        classes,
        channels: CHANNELS,
        height: size,
        width: size,
        preprocessing,
        train: Arc::new(train),
        val,
        test,
        skipped,
    })
}

/// The entries of a folder, in the order of their names' bytes, without hidden ones.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = |e: std::io::Error| Error::data(folder, format!("cannot be read: {e}"));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(folder)?.into_iter().filter(|path| path.is_dir() && !is_picture(path)).collect())
}

fn is_picture(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

fn class_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The classes of the training pictures: the folders' names, in the order that `named` gives, if it does.
fn classes(root: &Path, description: &Path, named: Option<Vec<String>>) -> Result<Vec<String>> {
    let found: Vec<String> = folders(root)?.iter().map(|folder| class_of(folder)).collect();
    if found.len() < 2 {
        return Err(Error::data(
            root,
            format!("holds {} folder(s) of pictures; a classifier needs at least two, one for each class", found.len()),
        ));
    }
    let Some(named) = named else { return Ok(found) };
    let (a, b): (BTreeSet<&String>, BTreeSet<&String>) = (found.iter().collect(), named.iter().collect());
    match a.symmetric_difference(&b).next() {
        Some(class) if a.contains(class) => {
            Err(Error::data(description, format!("classes does not name {class:?}, a folder of {}", root.display())))
        }
        Some(class) => Err(Error::data(description, format!("classes names {class:?}, but {} has no such folder", root.display()))),
        None => Ok(named),
    }
}

/// The pictures below `root`. Those that cannot be read are left out and described in `skipped`, unless there are too many.
fn read_part(root: &Path, classes: &[String], size: usize, skipped: &mut Vec<String>) -> Result<Part> {
    let mut files: Vec<(PathBuf, u32)> = Vec::new();
    for folder in folders(root)? {
        let class = class_of(&folder);
        let Some(label) = classes.iter().position(|known| *known == class) else {
            return Err(Error::data(folder, format!("there is no class {class:?} among the training pictures: {}", classes.join(", "))));
        };
        let before = files.len();
        files.extend(entries(&folder)?.into_iter().filter(|path| is_picture(path)).map(|path| (path, label as u32)));
        if files.len() == before {
            return Err(Error::data(folder, format!("holds no picture; mappa reads {}", ENDINGS.join(", "))));
        }
    }
    let read: Vec<Result<Vec<u8>>> = files.par_iter().map(|(path, _)| picture::read(path, CHANNELS, size, size)).collect();
    let mut part = Part { images: Vec::with_capacity(files.len() * CHANNELS * size * size), labels: Vec::new() };
    let before = skipped.len();
    for (pixels, (_, label)) in read.into_iter().zip(&files) {
        match pixels {
            Ok(pixels) => {
                part.images.extend(pixels);
                part.labels.push(*label);
            }
            Err(error) => skipped.push(error.to_string()),
        }
    }
    let bad = &skipped[before..];
    if bad.len() as f64 > MAX_UNREADABLE * files.len() as f64 {
        let some: Vec<&str> = bad.iter().take(3).map(String::as_str).collect();
        return Err(Error::data(
            root,
            format!(
                "{} of {} pictures cannot be read, more than {} %: {} ...",
                bad.len(),
                files.len(),
                100.0 * MAX_UNREADABLE,
                some.join("; ")
            ),
        ));
    }
    Ok(part)
}

/// Mean and standard deviation of each channel, rounded to four digits, as people write them down.
fn standardizing(part: &Part, area: usize) -> Preprocessing {
    let mut own = Preprocessing::new(CHANNELS);
    for c in 0..CHANNELS {
        let mut counts = [0u64; 256];
        part.images.chunks_exact(area).skip(c).step_by(CHANNELS).flatten().for_each(|&pixel| counts[pixel as usize] += 1);
        let n = counts.iter().sum::<u64>().max(1) as f64;
        let moment =
            |power: i32| counts.iter().enumerate().map(|(v, &count)| count as f64 * (v as f64 / 255.0).powi(power)).sum::<f64>() / n;
        let (mean, square) = (moment(1), moment(2));
        let rounded = |v: f64| ((v * 1e4).round() / 1e4) as f32;
        own.mean[c] = rounded(mean);
        // Pictures of one colour have no deviation to divide by.
        own.std[c] = rounded((square - mean * mean).max(0.0).sqrt()).max(0.01);
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn save(path: PathBuf, colour: [u8; 3]) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(9, 6, image::Rgb(colour)).save(path).unwrap();
    }

    #[test]
    fn class_folders_become_a_data_set() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..4 {
            save(dir.path().join(format!("red/{i}.png")), [250, 0, 0]);
            save(dir.path().join(format!("blue/{i}.JPG")), [0, 0, 250]);
        }
        std::fs::write(dir.path().join("red/notes.txt"), "no picture").unwrap();
        std::fs::create_dir(dir.path().join(".git")).unwrap();
        let set = load(dir.path(), 8).unwrap();
        assert_eq!((set.classes.clone(), set.train.labels.clone()), (vec!["blue".into(), "red".into()], vec![0, 0, 0, 0, 1, 1, 1, 1]));
        assert_eq!((set.train.images.len(), set.height, set.val.is_none(), set.skipped.len()), (8 * 3 * 64, 8, true, 0));
        // Half of the pictures have red 250, half 0.
        assert!((set.preprocessing.mean[0] - 0.4902).abs() < 0.002 && (set.preprocessing.std[0] - 0.4902).abs() < 0.002);
        std::fs::write(dir.path().join("dataset.toml"), "classes = ['red', 'blue']\nmean = [0.5, 0.5, 0.5]").unwrap();
        let set = load(dir.path(), 8).unwrap();
        assert_eq!((set.train.labels[0], set.preprocessing.mean[0]), (1, 0.5));
        std::fs::write(dir.path().join("dataset.toml"), "classes = ['red', 'green']").unwrap();
        assert!(load(dir.path(), 8).unwrap_err().to_string().contains("classes does not name \"blue\""));
    }

    #[test]
    fn parts_are_taken_as_they_are_and_their_classes_must_be_known() {
        let dir = tempfile::tempdir().unwrap();
        for (part, class) in [("train", "a"), ("train", "b"), ("val", "a"), ("test", "b")] {
            save(dir.path().join(part).join(class).join("1.png"), [1, 2, 3]);
        }
        let set = load(dir.path(), 8).unwrap();
        assert_eq!((set.train.len(), set.val.unwrap().labels.clone(), set.test.unwrap().labels.clone()), (2, vec![0], vec![1]));
        save(dir.path().join("val/c/1.png"), [1, 2, 3]);
        assert!(load(dir.path(), 8).unwrap_err().to_string().contains("no class \"c\""));
    }

    #[test]
    fn a_class_may_be_called_as_a_part_is() {
        let dir = tempfile::tempdir().unwrap();
        for class in ["car", "test", "train"] {
            save(dir.path().join(class).join("1.png"), [1, 2, 3]);
        }
        let set = load(dir.path(), 8).unwrap();
        assert_eq!((set.classes, set.train.labels.len(), set.test), (vec!["car".into(), "test".into(), "train".into()], 3, None));
    }

    #[test]
    fn a_few_unreadable_pictures_are_named_and_many_stop() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..30 {
            save(dir.path().join(format!("a/{i}.png")), [i, 0, 0]);
            save(dir.path().join(format!("b/{i}.png")), [0, i, 0]);
        }
        std::fs::write(dir.path().join("a/7.png"), "").unwrap();
        std::fs::create_dir(dir.path().join("a/x.jpg")).unwrap();
        let set = load(dir.path(), 8).unwrap();
        assert_eq!((set.train.len(), set.skipped.len()), (59, 2));
        assert!(set.skipped.iter().any(|s| s.contains("7.png")) && set.skipped.iter().any(|s| s.contains("x.jpg")), "{:?}", set.skipped);
        for i in 0..5 {
            std::fs::write(dir.path().join(format!("b/{i}.png")), "broken").unwrap();
        }
        let error = load(dir.path(), 8).unwrap_err().to_string();
        assert!(error.contains("7 of 61 pictures cannot be read, more than 5 %") && error.contains(".png"), "{error}");
    }

    #[test]
    fn what_is_no_set_of_classes_is_told_what_to_give() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path().join("only/1.png"), [1, 2, 3]);
        assert!(load(dir.path(), 8).unwrap_err().to_string().contains("at least two, one for each class"));
        std::fs::create_dir(dir.path().join("empty")).unwrap();
        assert!(load(dir.path(), 8).unwrap_err().to_string().contains("empty: holds no picture"));
    }
}
