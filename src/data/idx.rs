//! A folder of IDX files under MNIST's names, perhaps with a `dataset.toml`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::description::Description;
use super::{Dataset, Part};
use crate::error::{Error, Result};
use crate::io::idx::{self, IdxImages};

/// Images and their labels, each with the file that it came from.
pub(super) struct Pair {
    pub(super) images: (PathBuf, IdxImages),
    pub(super) labels: (PathBuf, Vec<u8>),
}

/// Whether `folder` holds a file of training images or labels.
pub(super) fn fits(folder: &Path) -> bool {
    ["images-idx3-ubyte", "labels-idx1-ubyte"]
        .iter()
        .any(|rest| ["", ".gz"].iter().any(|end| folder.join(format!("train-{rest}{end}")).is_file()))
}

/// Loads the data set in `folder`, as [`super::load`] describes it.
pub(super) fn load(folder: &Path) -> Result<Dataset> {
    let Some(train) = pair(folder, "train")? else {
        return Err(Error::data(
            folder,
            "holds neither train-images-idx3-ubyte[.gz] nor train-labels-idx1-ubyte[.gz]; give \"digits\" or a folder that holds both",
        ));
    };
    let test = pair(folder, "t10k")?;
    let path = folder.join("dataset.toml");
    let description = Description::read(&path)?;
    // The folder may have been given as "." or with a trailing "..".
    let full = folder.canonicalize().map_err(|e| Error::io(folder, e))?;
    let name = full.file_name().map_or("data".into(), |name| name.to_string_lossy().into_owned());
    assemble(name, (&path, description), train, test)
}

/// The files whose names begin with `stem`, or `None` where there are none.
fn pair(folder: &Path, stem: &str) -> Result<Option<Pair>> {
    let find = |rest: &str| {
        let plain = format!("{stem}-{rest}");
        [folder.join(&plain), folder.join(format!("{plain}.gz"))].into_iter().find(|path| path.is_file())
    };
    match (find("images-idx3-ubyte"), find("labels-idx1-ubyte")) {
        (Some(images), Some(labels)) => {
            let pixels = idx::read_images(&images)?;
            let classes = idx::read_labels(&labels)?;
            Ok(Some(Pair { images: (images, pixels), labels: (labels, classes) }))
        }
        (Some(images), None) => Err(Error::data(images, format!("there is no {stem}-labels-idx1-ubyte[.gz] beside it"))),
        (None, Some(labels)) => Err(Error::data(labels, format!("there is no {stem}-images-idx3-ubyte[.gz] beside it"))),
        (None, None) => Ok(None),
    }
}

/// A data set from what its files hold, after checking that they fit together. `name` holds where the description has none.
pub(super) fn assemble(name: String, description: (&Path, Description), train: Pair, test: Option<Pair>) -> Result<Dataset> {
    let (path, description) = description;
    let (height, width) = (train.images.1.height, train.images.1.width);
    for pair in [&train].into_iter().chain(&test) {
        let (file, images) = &pair.images;
        let (labels_file, labels) = &pair.labels;
        if images.count != labels.len() {
            return Err(Error::data(
                file,
                format!("holds {} images, but {} holds {} labels", images.count, labels_file.display(), labels.len()),
            ));
        }
        if images.count == 0 {
            return Err(Error::data(file, "holds no images"));
        }
        if (images.height, images.width) != (height, width) {
            let train_file = train.images.0.display();
            return Err(Error::data(
                file,
                format!("images are {} x {}, but those of {train_file} are {height} x {width}", images.height, images.width),
            ));
        }
    }
    if let Some(input) = description.input.filter(|&input| input != [1, height, width]) {
        return Err(Error::data(
            path,
            format!("input says {input:?}, but {} holds images [1, {height}, {width}]", train.images.0.display()),
        ));
    }
    let preprocessing = description.preprocessing(path, 1)?;

    let (classes, origin) = match description.classes {
        Some(classes) => (classes, format!("that {} names", path.display())),
        None => {
            let count = train.labels.1.iter().max().map_or(0, |&label| label as usize + 1);
            let origin = format!("that {} shows; name all classes in a dataset.toml", train.labels.0.display());
            ((0..count).map(|label| label.to_string()).collect(), origin)
        }
    };
    let part = |pair: Pair| {
        let (file, labels) = pair.labels;
        if let Some(row) = labels.iter().position(|&label| label as usize >= classes.len()) {
            return Err(Error::data(
                file,
                format!("row {row} (from 0) has label {}, outside the {} classes {origin}", labels[row], classes.len()),
            ));
        }
        Ok(Arc::new(Part::new(pair.images.1.pixels, labels.into_iter().map(u32::from).collect())))
    };
    let (train, test) = (part(train)?, test.map(part).transpose()?);
    Ok(Dataset {
        name: description.name.unwrap_or(name),
        classes,
        channels: 1,
        height,
        width,
        preprocessing,
        train,
        val: None,
        test,
        skipped: Vec::new(),
        table: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Preprocessing;
    use std::fs::write;
    use tempfile::TempDir;

    fn idx_file(folder: &Path, name: &str, magic: u32, sizes: &[u32], body: &[u8]) {
        let mut bytes: Vec<u8> = [magic].iter().chain(sizes).flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend(body);
        write(folder.join(name), bytes).unwrap();
    }

    fn images(folder: &TempDir, stem: &str, sizes: [u32; 3]) {
        let len = sizes.iter().product::<u32>();
        idx_file(folder.path(), &format!("{stem}-images-idx3-ubyte"), 0x803, &sizes, &vec![7; len as usize]);
    }

    fn labels(folder: &TempDir, stem: &str, labels: &[u8]) {
        idx_file(folder.path(), &format!("{stem}-labels-idx1-ubyte"), 0x801, &[labels.len() as u32], labels);
    }

    /// Three images 2 x 4 of the labels 0, 2, 1.
    fn folder() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        images(&folder, "train", [3, 2, 4]);
        labels(&folder, "train", &[0, 2, 1]);
        folder
    }

    /// The error, with the folder's path taken out.
    fn error(folder: &TempDir) -> String {
        let error = load(folder.path()).unwrap_err();
        assert!(error.is_bad_input(), "{error:?}");
        error.to_string().replace(&format!("{}/", folder.path().display()), "").replace(&folder.path().display().to_string(), "DIR")
    }

    #[test]
    fn a_folder_without_toml_or_test_part_loads_with_defaults() {
        let folder = folder();
        let set = load(folder.path()).unwrap();
        assert_eq!(set.name, folder.path().file_name().unwrap().to_string_lossy());
        assert_eq!(set.classes, ["0", "1", "2"]);
        assert_eq!((set.channels, set.height, set.width), (1, 2, 4));
        assert_eq!(set.preprocessing, Preprocessing::new(1));
        assert_eq!((set.train.pixels().unwrap(), set.train.labels.clone()), (vec![7; 24], vec![0, 2, 1]));
        assert!(set.val.is_none() && set.test.is_none());
    }

    #[test]
    fn a_toml_names_classes_and_a_test_part_is_found() {
        let folder = folder();
        write(folder.path().join("dataset.toml"), "name = 'pets'\nclasses = ['cat', 'dog', 'cow', 'hen']\ninput = [1, 2, 4]\nscale = 7")
            .unwrap();
        images(&folder, "t10k", [1, 2, 4]);
        labels(&folder, "t10k", &[3]);
        let set = load(folder.path()).unwrap();
        assert_eq!((set.name.as_str(), set.classes.len(), set.preprocessing.scale), ("pets", 4, 7.0));
        assert_eq!(set.test.unwrap().labels, [3]);
    }

    #[test]
    fn missing_files_are_named() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(
            error(&empty),
            "DIR: holds neither train-images-idx3-ubyte[.gz] nor train-labels-idx1-ubyte[.gz]; give \"digits\" or a folder that holds both"
        );
        images(&empty, "train", [1, 2, 4]);
        assert_eq!(error(&empty), "train-images-idx3-ubyte: there is no train-labels-idx1-ubyte[.gz] beside it");
        let folder = folder();
        labels(&folder, "t10k", &[0]);
        assert_eq!(error(&folder), "t10k-labels-idx1-ubyte: there is no t10k-images-idx3-ubyte[.gz] beside it");
    }

    #[test]
    fn counts_that_differ_are_named_with_both_files() {
        let folder = folder();
        labels(&folder, "train", &[0, 1]);
        assert_eq!(error(&folder), "train-images-idx3-ubyte: holds 3 images, but train-labels-idx1-ubyte holds 2 labels");
    }

    #[test]
    fn empty_sets_are_refused() {
        let folder = folder();
        images(&folder, "t10k", [0, 2, 4]);
        labels(&folder, "t10k", &[]);
        assert_eq!(error(&folder), "t10k-images-idx3-ubyte: holds no images");
        images(&folder, "train", [0, 2, 4]);
        labels(&folder, "train", &[]);
        assert_eq!(error(&folder), "train-images-idx3-ubyte: holds no images");
    }

    #[test]
    fn images_of_another_size_are_refused() {
        let folder = folder();
        images(&folder, "t10k", [1, 4, 2]);
        labels(&folder, "t10k", &[0]);
        assert_eq!(error(&folder), "t10k-images-idx3-ubyte: images are 4 x 2, but those of train-images-idx3-ubyte are 2 x 4");
        write(folder.path().join("dataset.toml"), "input = [3, 2, 4]").unwrap();
        images(&folder, "t10k", [1, 2, 4]);
        assert_eq!(error(&folder), "dataset.toml: input says [3, 2, 4], but train-images-idx3-ubyte holds images [1, 2, 4]");
    }

    #[test]
    fn labels_outside_the_classes_are_named_with_file_and_row() {
        let folder = folder();
        images(&folder, "t10k", [2, 2, 4]);
        labels(&folder, "t10k", &[0, 3]);
        assert_eq!(
            error(&folder),
            "t10k-labels-idx1-ubyte: row 1 (from 0) has label 3, outside the 3 classes that train-labels-idx1-ubyte shows; name all classes in a dataset.toml"
        );
        write(folder.path().join("dataset.toml"), "classes = ['cat', 'dog']").unwrap();
        assert_eq!(error(&folder), "train-labels-idx1-ubyte: row 1 (from 0) has label 2, outside the 2 classes that dataset.toml names");
    }

    #[test]
    fn faults_of_the_files_come_through() {
        let folder = folder();
        idx_file(folder.path(), "train-images-idx3-ubyte", 0x803, &[3, 2, 4], &[0; 23]);
        assert_eq!(error(&folder), "train-images-idx3-ubyte: truncated: got 23 of the 24 bytes that the header announces (3 x 2 x 4)");
        images(&folder, "train", [3, 2, 4]);
        write(folder.path().join("dataset.toml"), "mean = [0.1, 0.2]").unwrap();
        assert_eq!(error(&folder), "dataset.toml: mean has 2 values, but images have 1 channels; give one value a channel");
    }
}
