//! TensorBoard's event files: records with checksums, each a protocol buffer `Event` (tensorflow/core/util/event.proto), of which scalars and
//! histograms are written.

use crate::error::{Error, Result};
use prost::Message;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// `Event`, as far as it is written.
#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

/// `Summary.Value`. The number is optional so that 0 is written, too.
#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
    #[prost(message, optional, tag = "5")]
    histo: Option<Histogram>,
}

/// `HistogramProto`.
#[derive(Clone, PartialEq, Message)]
struct Histogram {
    #[prost(double, tag = "1")]
    min: f64,
    #[prost(double, tag = "2")]
    max: f64,
    #[prost(double, tag = "3")]
    num: f64,
    #[prost(double, tag = "4")]
    sum: f64,
    #[prost(double, tag = "5")]
    sum_squares: f64,
    #[prost(double, repeated, tag = "6")]
    bucket_limit: Vec<f64>,
    #[prost(double, repeated, tag = "7")]
    bucket: Vec<f64>,
}

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
        own.write(&Event { wall_time: now, file_version: Some("brain.Event:2".into()), ..Event::default() })?;
        Ok(own)
    }

    /// Adds scalars of one step.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk is full.
    pub fn scalars(&mut self, step: u64, scalars: &[(&str, f64)]) -> Result<()> {
        let value = scalars.iter().map(|&(tag, value)| Value { tag: tag.into(), simple_value: Some(value as f32), histo: None });
        self.summary(step, value.collect())
    }

    /// Adds counts of values of one step; `counts[i]` are those between `limits[i]` and `limits[i + 1]`.
    ///
    /// # Errors
    /// [`Error::Io`] when the disk is full.
    pub fn histogram(&mut self, step: u64, tag: &str, limits: &[f64], counts: &[u64]) -> Result<()> {
        let middles = || limits.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0).zip(counts.iter().map(|&count| count as f64));
        let histogram = Histogram {
            min: limits.first().copied().unwrap_or(0.0),
            max: limits.last().copied().unwrap_or(0.0),
            num: counts.iter().sum::<u64>() as f64,
            sum: middles().map(|(x, n)| x * n).sum(),
            sum_squares: middles().map(|(x, n)| x * x * n).sum(),
            bucket_limit: limits.get(1..).unwrap_or_default().to_vec(),
            bucket: counts.iter().map(|&count| count as f64).collect(),
        };
        self.summary(step, vec![Value { tag: tag.into(), simple_value: None, histo: Some(histogram) }])
    }

    fn summary(&mut self, step: u64, value: Vec<Value>) -> Result<()> {
        self.write(&Event { wall_time: seconds(), step: step as i64, summary: Some(Summary { value }), ..Event::default() })
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        self.file.write_all(&record(&event.encode_to_vec())).map_err(|e| Error::io(&self.path, e))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What TensorBoard 2.21's own writer makes of the same two events.
    #[test]
    fn records_are_tensorboards() {
        let version = Event { wall_time: 1.5, file_version: Some("brain.Event:2".into()), ..Event::default() };
        let scalar = Value { tag: "loss/train".into(), simple_value: Some(0.5), histo: None };
        let value = Event { wall_time: 2.25, step: 300, summary: Some(Summary { value: vec![scalar] }), ..Event::default() };
        let [version, value] = [version, value].map(|event| record(&event.encode_to_vec()));
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
        let second = len(&file);
        file.histogram(2, "g", &[-1.0, 0.0, 1.0], &[3, 4]).unwrap();
        assert!(len(&file) > second + 2 * 2 * 8);
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert!(EventFile::create(&folder.path().join("file")).err().unwrap().to_string().contains("file"));
    }
}
