//! TensorBoard's event files: records with checksums, each a protocol buffer `Event` (tensorflow/core/util/event.proto), of which scalars are written.

use crate::error::{Error, Result};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes scalars as they come; readers may follow the file as it grows.
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// A new file in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// [`Error::Io`] when it cannot be written.
    pub fn create(folder: &Path) -> Result<Self> {
        let now = seconds();
        // Readers take files of one folder in the order of their names.
        let path = folder.join(format!("events.out.tfevents.{:010}.{}.mappa", now as u64, std::process::id()));
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let file = File::create(&path).map_err(|e| Error::io(&path, e))?;
        let mut own = EventFile { path, file };
        own.write(&record(&event(now, None, &bytes(3, b"brain.Event:2"))))?;
        Ok(own)
    }

    /// Adds scalars of one step.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk is full.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<()> {
        let values: Vec<u8> =
            scalars.iter().flat_map(|(tag, value)| bytes(1, &[bytes(1, tag.as_bytes()), fixed32(2, *value as f32)].concat())).collect();
        self.write(&record(&event(seconds(), Some(step), &bytes(5, &values))))
    }

    fn write(&mut self, record: &[u8]) -> Result<()> {
        self.file.write_all(record).map_err(|e| Error::io(&self.path, e))
    }
}

fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Length and content, each with its checksum.
fn record(data: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}

/// Time, step and one more field.
fn event(time: f64, step: Option<u64>, what: &[u8]) -> Vec<u8> {
    let mut own = vec![1 << 3 | 1];
    own.extend(time.to_le_bytes());
    if let Some(step) = step {
        own.push(2 << 3);
        varint(&mut own, step);
    }
    own.extend(what);
    own
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    let mut own = vec![field << 3 | 2];
    varint(&mut own, content.len() as u64);
    own.extend(content);
    own
}

fn fixed32(field: u8, value: f32) -> Vec<u8> {
    [&[field << 3 | 5][..], &value.to_le_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What TensorBoard 2.21's own writer makes of the same two events.
    #[test]
    fn records_are_tensorboards() {
        let version = record(&event(1.5, None, &bytes(3, b"brain.Event:2")));
        let scalar = bytes(1, &[bytes(1, b"loss/train"), fixed32(2, 0.5)].concat());
        let value = record(&event(2.25, Some(300), &bytes(5, &scalar)));
        let hex: String = [version, value].concat().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            hex,
            "1800000000000000a37f4b2209000000000000f83f1a0d627261696e2e4576656e743a322a28646c\
             2100000000000000017becf609000000000000024010ac022a130a110a0a6c6f73732f747261696e150000003fbbfcef3e"
        );
    }

    #[test]
    fn a_file_grows_event_by_event_and_a_full_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = EventFile::create(&folder.path().join("tensorboard")).unwrap();
        let len = |file: &EventFile| std::fs::metadata(&file.path).unwrap().len();
        let first = len(&file);
        file.scalars(1, &[("a", 0.5), ("b", 1.0)]).unwrap();
        assert!(len(&file) > first);
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(EventFile::create(&folder.path().join("file")).err().unwrap().to_string().contains("file"));
    }
}
