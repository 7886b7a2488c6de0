//! Pictures in one folder a class: `photos/cat/1.jpg`, or `photos/train/cat/1.jpg` beside `photos/val` and `photos/test`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::description::Description;
use super::pixels::{Builder, MAX_MEMORY};
use super::tree::{Source, Tree};
use super::{Dataset, Part, Preprocessing};
use crate::error::{Error, Result};
use crate::io::picture::ENDINGS;

/// The largest share of pictures that may be unreadable.
const MAX_UNREADABLE: f64 = 0.05;
/// Pictures are RGB.
const CHANNELS: usize = 3;
/// Pictures decoded at a time, by all cores.
const AT_ONCE: usize = 256;

/// The names that the parts' folders may have.
const TRAIN: &str = "train";
const VAL: [&str; 3] = ["val", "valid", "validation"];
const TEST: &str = "test";

/// Whether `folder` holds folders: classes, or parts.
pub(super) fn fits(folder: &Path) -> bool {
    let is_folder = |entry: std::fs::DirEntry| !entry.file_name().as_encoded_bytes().starts_with(b".") && entry.path().is_dir();
    std::fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(is_folder))
}

/// The pictures of a data set by part and class, before any is read.
pub(super) struct Layout {
    /// The data set's name, where its description has none.
    pub(super) name: String,
    about: PathBuf,
    description: Description,
    pub(super) classes: Vec<String>,
    /// Of train, val and test, where there are these: the folder, and each picture with its class.
    pub(super) parts: [Option<(PathBuf, Vec<(Source, u32)>)>; 3],
}

/// Finds classes and parts. `source` is the folder or the file that the tree is of.
pub(super) fn layout(source: &Path, tree: Tree) -> Result<Layout> {
    // In a folder, but beside a file.
    let about = if source.is_dir() { source.join("dataset.toml") } else { source.with_extension("toml") };
    let description = Description::read(&about)?;
    let full = source.canonicalize().map_err(|e| Error::io(source, e))?;
    let name = if full.is_dir() { full.file_name() } else { full.file_name().map(stem) };
    let name = name.map_or("data".into(), |name| name.to_string_lossy().into_owned());
    let (tree, root) = tree.descend(source.to_owned());
    // A folder of pictures called "train" is a class.
    let find = |names: &[&str]| names.iter().find_map(|name| Some((root.join(name), tree.folders.get(OsStr::new(name))?)));
    let parts = find(&[TRAIN]).filter(|(_, train)| !train.folders.is_empty());
    let (val, test) = if parts.is_some() { (find(&VAL), find(&[TEST])) } else { (None, None) };
    let (train_root, train) = parts.unwrap_or((root.clone(), &tree));
    let classes = classes(&train_root, train, &about, description.classes.clone())?;
    let part = |(root, tree): (PathBuf, &Tree)| -> Result<(PathBuf, Vec<(Source, u32)>)> {
        let files = files(&root, tree, &classes)?;
        Ok((root, files))
    };
    let parts = [Some((train_root, train)), val, test].map(|own| own.map(part).transpose());
    let [train, val, test] = parts;
    let parts = [train?, val?, test?];
    Ok(Layout { name, about, description, classes, parts })
}

/// Loads all pictures of a tree, resized to `size` x `size`. `source` is the folder or the file that the tree is of.
pub(super) fn load(source: &Path, tree: Tree, size: usize) -> Result<Dataset> {
    let Layout { name, about, description, classes, parts } = layout(source, tree)?;
    let mut skipped = Vec::new();
    let mut read = |part: Option<(PathBuf, Vec<(Source, u32)>)>| -> Result<Option<Arc<Part>>> {
        part.map(|(root, files)| read_part(&root, &files, size, &mut skipped).map(Arc::new)).transpose()
    };
    let [train, val, test] = parts;
    let (train, val, test) = (read(train)?, read(val)?, read(test)?);
    let train = train.ok_or_else(|| Error::data(source, "holds no training pictures"))?;
    let preprocessing = description.preprocessing(&about, CHANNELS)?;
    // Unless the description says otherwise, each channel of the training pictures gets mean 0 and standard deviation 1.
    let preprocessing = if preprocessing == Preprocessing::new(CHANNELS) {
        Preprocessing::standardizing(&train, size * size, CHANNELS)?
    } else {
        preprocessing
    };
    let name = description.name.unwrap_or(name);
    Ok(Dataset { name, classes, channels: CHANNELS, height: size, width: size, preprocessing, train, val, test, skipped, table: None })
}

/// The name of a file up to its first dot: `set` of `set.tar.gz`.
fn stem(name: &OsStr) -> &OsStr {
    let first = Path::new(name).file_stem().unwrap_or(name);
    if Path::new(first).extension().is_some_and(|end| end == "tar") { Path::new(first).file_stem().unwrap_or(first) } else { first }
}

/// The classes of the training pictures: the folders' names, in the order that `named` gives, if it does.
fn classes(root: &Path, tree: &Tree, description: &Path, named: Option<Vec<String>>) -> Result<Vec<String>> {
    let found: Vec<String> = tree.folders.keys().map(|name| name.to_string_lossy().into_owned()).collect();
    if found.len() < 2 {
        return Err(Error::data(
            root,
            format!("holds {} folder(s) of pictures; a classifier needs at least two, one for each class", found.len()),
        ));
    }
    if let Some(pair) = found.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::data(root, format!("has two folders whose names look the same, {:?}; rename one", pair[0])));
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

/// The pictures below `root` with their classes.
fn files(root: &Path, tree: &Tree, classes: &[String]) -> Result<Vec<(Source, u32)>> {
    let labels: std::collections::HashMap<&str, u32> = classes.iter().zip(0..).map(|(class, label)| (class.as_str(), label)).collect();
    let mut files = Vec::new();
    for (name, folder) in &tree.folders {
        let class = name.to_string_lossy();
        let Some(&label) = labels.get(&*class) else {
            let known = classes.iter().take(20).map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Error::data(root.join(name), format!("there is no class {class:?} among the training pictures: {known}")));
        };
        let pictures = folder.all();
        if pictures.is_empty() {
            return Err(Error::data(root.join(name), format!("holds no picture; mappa reads {}", ENDINGS.join(", "))));
        }
        files.extend(pictures.into_iter().map(|source| (source.clone(), label)));
    }
    Ok(files)
}

/// The pixels of pictures. Those that cannot be read are left out and described in `skipped`, unless there are too many.
fn read_part(root: &Path, files: &[(Source, u32)], size: usize, skipped: &mut Vec<String>) -> Result<Part> {
    let (mut pixels, mut labels) = (Builder::new(MAX_MEMORY), Vec::with_capacity(files.len()));
    let before = skipped.len();
    for some in files.chunks(AT_ONCE) {
        let read: Vec<Result<Vec<u8>>> = some.par_iter().map(|(source, _)| source.read(CHANNELS, size, size)).collect();
        for (picture, &(_, label)) in read.into_iter().zip(some) {
            match picture {
                Ok(picture) => {
                    pixels.push(&picture)?;
                    labels.push(label);
                }
                Err(error) => skipped.push(error.to_string()),
            }
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
    Ok(pixels.finish(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(folder: &Path, size: usize) -> Result<Dataset> {
        super::load(folder, Tree::directory(folder)?, size)
    }

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
        assert_eq!((set.train.pixels().unwrap().len(), set.height, set.val.is_none(), set.skipped.len()), (8 * 3 * 64, 8, true, 0));
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
        assert_eq!((set.classes, set.train.labels.len(), set.test.is_none()), (vec!["car".into(), "test".into(), "train".into()], 3, true));
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
