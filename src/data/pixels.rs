//! Where the values of samples are: in memory, on disk when they are many, or as features of a network in the place of pixels.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};

/// Samples with their labels: one part (train, validation or test) of a [`Dataset`](super::Dataset), which knows their shape.
#[derive(Clone)]
pub struct Part {
    samples: Arc<Samples>,
    /// Which of the samples, in order; parts of one split share the samples.
    rows: Vec<u32>,
    /// The class of each sample, an index into [`Dataset::classes`](super::Dataset::classes).
    pub labels: Vec<u32>,
    /// The number of each sample, standardised, where numbers are predicted; else none.
    pub numbers: Vec<f32>,
}

struct Samples {
    count: usize,
    /// Values of all samples together.
    len: u64,
    store: Store,
}

enum Store {
    Memory(Vec<u8>),
    /// An unnamed file, which the system removes with its last handle.
    Disk(Mutex<File>),
    Features(Vec<f32>),
}

/// The values of one sample.
pub(super) enum Values<'a> {
    Pixels(&'a [u8]),
    Features(&'a [f32]),
}

impl Part {
    /// Pixels as stored, `[N, C, H, W]`, and the class of each sample.
    pub fn new(pixels: Vec<u8>, labels: Vec<u32>) -> Self {
        let samples = Samples { count: labels.len(), len: pixels.len() as u64, store: Store::Memory(pixels) };
        Part { samples: Arc::new(samples), rows: (0..labels.len() as u32).collect(), labels, numbers: Vec::new() }
    }

    /// What a network made of each sample of another part, `[N, ..]`, in the place of pixels: it is not preprocessed again.
    pub fn features(values: Vec<f32>, labels: Vec<u32>) -> Self {
        Part::numbers(values, labels, Vec::new())
    }

    /// Values `[N, ..]` that are no pixels and are not preprocessed, with classes and perhaps numbers to predict.
    pub(super) fn numbers(values: Vec<f32>, labels: Vec<u32>, numbers: Vec<f32>) -> Self {
        let samples = Samples { count: labels.len(), len: values.len() as u64, store: Store::Features(values) };
        Part { samples: Arc::new(samples), rows: (0..labels.len() as u32).collect(), labels, numbers }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Some of the samples, in the order of `rows`. Their values are shared, not copied.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn select(&self, rows: &[usize]) -> Part {
        Part {
            samples: Arc::clone(&self.samples),
            rows: rows.iter().map(|&row| self.rows[row]).collect(),
            labels: rows.iter().map(|&row| self.labels[row]).collect(),
            numbers: if self.numbers.is_empty() { Vec::new() } else { rows.iter().map(|&row| self.numbers[row]).collect() },
        }
    }

    /// Values and samples that are stored, of which the part may be a selection.
    pub(super) fn stored(&self) -> (u64, usize) {
        (self.samples.len, self.samples.count)
    }

    /// The values of sample `row`, of which there are `len`; `scratch` is for those that come from disk.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk fails.
    pub(super) fn read<'a>(&'a self, row: usize, len: usize, scratch: &'a mut Vec<u8>) -> Result<Values<'a>> {
        let start = self.rows[row] as usize * len;
        Ok(match &self.samples.store {
            Store::Memory(pixels) => Values::Pixels(&pixels[start..start + len]),
            Store::Features(values) => Values::Features(&values[start..start + len]),
            Store::Disk(file) => {
                scratch.resize(len, 0);
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                let read = file.seek(SeekFrom::Start(start as u64)).and_then(|_| file.read_exact(scratch));
                read.map_err(|e| Error::io("the cache of pictures in the folder for temporary files", e))?;
                Values::Pixels(scratch)
            }
        })
    }

    /// The pixels of all samples, for small parts. Features have none.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk fails.
    pub fn pixels(&self) -> Result<Vec<u8>> {
        let len = self.samples.len as usize / self.samples.count.max(1);
        let (mut all, mut scratch) = (Vec::with_capacity(len * self.len()), Vec::new());
        for row in 0..self.len() {
            if let Values::Pixels(pixels) = self.read(row, len, &mut scratch)? {
                all.extend_from_slice(pixels);
            }
        }
        Ok(all)
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = match &self.samples.store {
            Store::Memory(_) => "in memory",
            Store::Disk(_) => "on disk",
            Store::Features(_) => "as features",
        };
        write!(f, "Part({} samples {place})", self.len())
    }
}

/// Bytes of a part's pixels that stay in memory; more go to a file.
pub(super) const MAX_MEMORY: usize = 2 << 30;

/// Collects the pixels of samples one by one: in memory up to a limit, then all of them on disk.
pub(super) struct Builder {
    limit: usize,
    memory: Vec<u8>,
    disk: Option<File>,
    len: u64,
}

impl Builder {
    /// Up to `limit` bytes stay in memory.
    pub(super) fn new(limit: usize) -> Self {
        Builder { limit, memory: Vec::new(), disk: None, len: 0 }
    }

    /// Adds a sample.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no room on disk.
    pub(super) fn push(&mut self, pixels: &[u8]) -> Result<()> {
        let folder = std::env::temp_dir();
        let full = |e| Error::io(folder.join("(pictures that do not fit memory; TMPDIR names another folder)"), e);
        self.len += pixels.len() as u64;
        if self.disk.is_none() && self.len > self.limit as u64 {
            let mut file = tempfile::tempfile().map_err(full)?;
            file.write_all(&std::mem::take(&mut self.memory)).map_err(full)?;
            self.disk = Some(file);
        }
        match &mut self.disk {
            Some(file) => file.write_all(pixels).map_err(full)?,
            None => self.memory.extend_from_slice(pixels),
        }
        Ok(())
    }

    /// The part, with a label for each sample.
    pub(super) fn finish(self, labels: Vec<u32>) -> Part {
        let store = match self.disk {
            Some(file) => Store::Disk(Mutex::new(file)),
            None => Store::Memory(self.memory),
        };
        let samples = Samples { count: labels.len(), len: self.len, store };
        Part { samples: Arc::new(samples), rows: (0..labels.len() as u32).collect(), labels, numbers: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_disk_hold_the_same() {
        let samples: Vec<[u8; 6]> = (0..9).map(|i| [i; 6]).collect();
        let build = |limit| {
            let mut builder = Builder::new(limit);
            samples.iter().for_each(|sample| builder.push(sample).unwrap());
            builder.finish((0..9).collect())
        };
        for (limit, place) in [(1000, "in memory"), (54, "in memory"), (53, "on disk"), (0, "on disk")] {
            let part = build(limit);
            assert_eq!(format!("{part:?}"), format!("Part(9 samples {place})"));
            assert_eq!(part.pixels().unwrap(), samples.concat());
            let some = part.select(&[7, 2, 3]).select(&[2, 0]);
            assert_eq!((some.labels.clone(), some.pixels().unwrap()), (vec![3, 7], [[3; 6], [7; 6]].concat()));
        }
    }
}
