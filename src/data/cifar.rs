//! A folder of CIFAR's binary files (Krizhevsky 2009), plain or compressed by gzip: rows of one label (CIFAR-100: a coarse and a fine one), then 32 x 32
//! pixels of red, of green and of blue.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::description::Description;
use super::pixels::{Builder, MAX_MEMORY};
use super::{Dataset, Part};
use crate::error::{Error, Result};

const PIXELS: usize = 3 * 32 * 32;

/// The files of one variant.
struct Variant {
    train: &'static [&'static str],
    test: &'static str,
    names: &'static str,
    /// Labels of a row; the last one counts.
    labels: usize,
    classes: usize,
}

const VARIANTS: [Variant; 2] = [
    Variant {
        train: &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
        test: "test_batch",
        names: "batches.meta.txt",
        labels: 1,
        classes: 10,
    },
    Variant { train: &["train"], test: "test", names: "fine_label_names.txt", labels: 2, classes: 100 },
];

/// `stem.bin` or `stem.bin.gz` in `folder`.
fn find(folder: &Path, stem: &str) -> Option<PathBuf> {
    ["bin", "bin.gz"].iter().map(|end| folder.join(format!("{stem}.{end}"))).find(|path| path.is_file())
}

fn variant(folder: &Path) -> Option<&'static Variant> {
    VARIANTS.iter().find(|v| find(folder, v.train[0]).is_some())
}

/// Whether `folder` holds a first file of training rows.
pub(super) fn fits(folder: &Path) -> bool {
    variant(folder).is_some()
}

/// Loads the data set in `folder`.
pub(super) fn load(folder: &Path) -> Result<Dataset> {
    let Some(v) = variant(folder) else {
        return Err(Error::data(folder, "holds neither data_batch_1.bin[.gz] nor train.bin[.gz]"));
    };
    let path = folder.join("dataset.toml");
    let description = Description::read(&path)?;
    let full = folder.canonicalize().map_err(|e| Error::io(folder, e))?;
    let name = full.file_name().map_or("cifar".into(), |name| name.to_string_lossy().into_owned());
    let own_names = || match std::fs::read_to_string(folder.join(v.names)) {
        Ok(text) => text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect(),
        Err(_) => (0..v.classes).map(|class| class.to_string()).collect(),
    };
    let classes: Vec<String> = description.classes.clone().unwrap_or_else(own_names);
    if classes.len() != v.classes {
        return Err(Error::data(folder, format!("names {} classes, but these files have {}", classes.len(), v.classes)));
    }
    let part = |stems: &[&str]| -> Result<Option<Arc<Part>>> {
        let (mut images, mut labels) = (Builder::new(MAX_MEMORY), Vec::new());
        for path in stems.iter().filter_map(|stem| find(folder, stem)) {
            read(&path, v, &mut images, &mut labels)?;
        }
        Ok((!labels.is_empty()).then(|| Arc::new(images.finish(labels))))
    };
    let train = part(v.train)?.ok_or_else(|| Error::data(folder, "the training files hold no rows"))?;
    let mut preprocessing = description.preprocessing(&path, 3)?;
    if preprocessing == super::Preprocessing::new(3) {
        preprocessing = super::Preprocessing::standardizing(&train, 32 * 32, 3)?;
    }
    Ok(Dataset {
        name: description.name.unwrap_or(name),
        classes,
        channels: 3,
        height: 32,
        width: 32,
        preprocessing,
        train,
        val: None,
        test: part(&[v.test])?,
        skipped: Vec::new(),
        table: None,
    })
}

/// Adds the rows of a file.
fn read(path: &Path, v: &Variant, images: &mut Builder, labels: &mut Vec<u32>) -> Result<()> {
    let cannot = |e: std::io::Error| Error::data(path, format!("cannot be read: {e}"));
    let file = File::open(path).map_err(cannot)?;
    let mut reader: Box<dyn Read> = match path.extension() {
        Some(end) if end == "gz" => Box::new(flate2::read::MultiGzDecoder::new(std::io::BufReader::new(file))),
        _ => Box::new(std::io::BufReader::new(file)),
    };
    let mut row = vec![0; v.labels + PIXELS];
    for n in 0.. {
        let mut filled = 0;
        // A file may end between rows only.
        while filled < row.len() {
            match reader.read(&mut row[filled..]).map_err(cannot)? {
                0 if filled == 0 => return Ok(()),
                0 => return Err(Error::data(path, format!("is truncated in row {n} (from 0): rows have {} bytes", row.len()))),
                count => filled += count,
            }
        }
        let label = row[v.labels - 1] as usize;
        if label >= v.classes {
            return Err(Error::data(path, format!("row {n} (from 0) has label {label}, outside the {} classes", v.classes)));
        }
        labels.push(label as u32);
        images.push(&row[v.labels..])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn rows(labels: &[&[u8]]) -> Vec<u8> {
        labels.iter().enumerate().flat_map(|(i, label)| [label, &[i as u8; PIXELS][..]].concat()).collect()
    }

    #[test]
    fn both_variants_are_read_plain_and_zipped() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("data_batch_1.bin"), rows(&[&[3], &[9]])).unwrap();
        std::fs::write(dir.path().join("data_batch_2.bin"), rows(&[&[0]])).unwrap();
        let mut gz = flate2::write::GzEncoder::new(File::create(dir.path().join("test_batch.bin.gz")).unwrap(), Default::default());
        gz.write_all(&rows(&[&[5]])).unwrap();
        gz.finish().unwrap();
        let set = load(dir.path()).unwrap();
        assert_eq!((set.train.labels.clone(), set.test.unwrap().labels.clone()), (vec![3, 9, 0], vec![5]));
        assert_eq!((set.classes.len(), &set.classes[3][..]), (10, "3"));
        assert_eq!(set.train.pixels().unwrap()[PIXELS], 1);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("train.bin"), rows(&[&[7, 99], &[3, 0]])).unwrap();
        assert_eq!(load(dir.path()).unwrap().train.labels, [99, 0]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_row() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data_batch_1.bin");
        let error = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            load(dir.path()).unwrap_err().to_string()
        };
        let good = rows(&[&[1], &[2]]);
        assert!(error(&good[..4000]).contains("data_batch_1.bin: is truncated in row 1 (from 0): rows have 3073 bytes"));
        assert!(error(&rows(&[&[1], &[10]])).contains("row 1 (from 0) has label 10, outside the 10 classes"));
        assert!(error(&[]).contains("the training files hold no rows"));
        std::fs::write(dir.path().join("batches.meta.txt"), "cat\ndog\n").unwrap();
        assert!(error(&good).contains("names 2 classes, but these files have 10"));
    }
}
