//! What files of numbers cannot say of themselves: class names and preprocessing, in a `dataset.toml` beside data, in a sidecar beside weights.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Preprocessing, Table};
use crate::error::{Error, Result};

/// The content of a `dataset.toml` or of a sidecar; every key may be left out.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Description {
    /// The data set's name, fit for a file name.
    pub(super) name: Option<String>,
    /// Class names, in the order of the labels.
    pub(super) classes: Option<Vec<String>>,
    /// Their number, where they have no names; a sidecar's key.
    num_classes: Option<usize>,
    /// The architecture, a sidecar's key.
    model: Option<String>,
    /// The shape `[C, H, W]` of an image.
    pub(super) input: Option<[usize; 3]>,
    scale: Option<f32>,
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    /// Of a network for tables, a sidecar's key.
    table: Option<Table>,
}

impl Description {
    /// Reads the file; one without any key where there is no file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Description::parse(path, &text),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Description::default()),
            Err(e) => Err(Error::data(path, format!("cannot be read: {e}"))),
        }
    }

    /// Reads the text of the file; `path` stands for it in errors.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self> {
        let own: Description = toml::from_str(text).map_err(|e| {
            let start = e.span().map(|span| span.start).unwrap_or_default();
            let line = 1 + text.bytes().take(start).filter(|&b| b == b'\n').count();
            Error::data(path, format!("line {line}: {}", e.message()))
        })?;
        if let Some(name) = &own.name {
            let fits = Path::new(name).file_name().is_some_and(|file| file == name.as_str())
                && !name.contains(|c: char| c == '\\' || c.is_control());
            if !fits {
                return Err(Error::data(
                    path,
                    format!("name {name:?} cannot be part of a file name; leave out slashes and control characters"),
                ));
            }
        }
        if let Some(classes) = &own.classes {
            if classes.is_empty() {
                return Err(Error::data(path, "classes is empty; name the classes, or leave the key out"));
            }
            let mut seen = BTreeSet::new();
            if let Some(class) = classes.iter().find(|class| !seen.insert(*class)) {
                return Err(Error::data(path, format!("classes names {class:?} twice")));
            }
        }
        Ok(own)
    }

    /// How pixels of images with `channels` channels become a model's input.
    pub(super) fn preprocessing(&self, path: &Path, channels: usize) -> Result<Preprocessing> {
        let default = Preprocessing::new(channels);
        let own = Preprocessing {
            scale: self.scale.unwrap_or(default.scale),
            mean: self.mean.clone().unwrap_or(default.mean),
            std: self.std.clone().unwrap_or(default.std),
        };
        match own.tables(channels) {
            Ok(_) => Ok(own),
            Err(e) => Err(Error::data(path, e.to_string())),
        }
    }
}

/// What belongs to a file of weights: the TOML file of the same stem beside it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sidecar {
    /// The architecture, a name of [`models::NAMES`](crate::models::NAMES).
    pub model: String,
    /// Class names in the order of the outputs; numbers where the file gives only `num_classes`.
    pub classes: Vec<String>,
    /// `[C, H, W]` of an input.
    pub input: [usize; 3],
    /// From pixels to inputs.
    pub preprocessing: Preprocessing,
    /// From the rows of a table to inputs, where the network takes these.
    pub table: Option<Table>,
}

impl Sidecar {
    /// The text of the file.
    ///
    /// # Errors
    /// [`Error::Config`] when a number does not fit TOML.
    pub fn to_toml(&self) -> Result<String> {
        let Preprocessing { scale, mean, std } = self.preprocessing.clone();
        let own = Description {
            model: Some(self.model.clone()),
            classes: Some(self.classes.clone()),
            input: Some(self.input),
            scale: Some(scale),
            mean: Some(mean),
            std: Some(std),
            table: self.table.clone(),
            ..Description::default()
        };
        toml::to_string(&own).map_err(|e| Error::Config(format!("the sidecar cannot be written: {e}")))
    }

    /// Reads the sidecar of `weights`; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Data`] when it cannot be read, or lacks `model`, `input` or the classes.
    pub fn beside(weights: &Path) -> Result<Option<Self>> {
        let path = weights.with_extension("toml");
        if !path.exists() {
            return Ok(None);
        }
        let own = Description::read(&path)?;
        let lacks = |key: &str| Error::data(&path, format!("the sidecar of {} lacks the key {key}", weights.display()));
        let input = own.input.ok_or_else(|| lacks("input, such as [3, 32, 32]"))?;
        let preprocessing = own.preprocessing(&path, input[0])?;
        let classes = match (own.classes, own.num_classes) {
            (Some(classes), Some(n)) if n != classes.len() => {
                return Err(Error::data(&path, format!("num_classes = {n}, but classes names {}", classes.len())));
            }
            (Some(classes), _) => classes,
            (None, Some(n)) => (0..n).map(|class| class.to_string()).collect(),
            (None, None) => return Err(lacks("classes, a list of names, or num_classes")),
        };
        let model = own.model.ok_or_else(|| lacks("model, such as \"lenet5\""))?;
        Ok(Some(Sidecar { model, classes, input, preprocessing, table: own.table }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let path = Path::new("dataset.toml");
        let outcome = Description::parse(path, text).and_then(|d| d.preprocessing(path, 3));
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn keys_that_are_left_out_have_defaults() {
        let path = Path::new("dataset.toml");
        assert_eq!(Description::default().preprocessing(path, 3).unwrap(), Preprocessing::new(3));
        // An integer will do for a number.
        let own = Description::parse(path, "scale = 16\nclasses = ['cat', 'dog']").unwrap();
        assert_eq!(own.preprocessing(path, 1).unwrap(), Preprocessing { scale: 16.0, ..Preprocessing::new(1) });
        assert_eq!(own.classes.unwrap(), ["cat", "dog"]);
        let dir = tempfile::tempdir().unwrap();
        assert!(Description::read(&dir.path().join("dataset.toml")).unwrap().classes.is_none());
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_named_with_their_line() {
        assert_eq!(
            error("scale = 255.0\nstdev = [1.0]"),
            "dataset.toml: line 2: unknown field `stdev`, expected one of `name`, `classes`, `num_classes`, `model`, `input`, `scale`, `mean`, `std`, `table`"
        );
        assert_eq!(error("\n\nmean = 'grey'"), "dataset.toml: line 3: invalid type: string \"grey\", expected a sequence");
        assert!(error("scale = ").starts_with("dataset.toml: line 1: "));
    }

    #[test]
    fn a_sidecar_says_all_or_what_it_lacks() {
        let dir = tempfile::tempdir().unwrap();
        let weights = dir.path().join("net.v1.safetensors");
        assert_eq!(Sidecar::beside(&weights).unwrap(), None);
        let write = |text: &str| std::fs::write(dir.path().join("net.v1.toml"), text).unwrap();
        let message = || Sidecar::beside(&weights).unwrap_err().to_string();
        let mut text = String::new();
        for (lacks, line) in
            [("key input", "input = [1, 8, 8]\n"), ("key classes", "num_classes = 2\n"), ("key model", "model = \"mlp\"\n")]
        {
            write(&text);
            assert!(message().contains(lacks), "{}", message());
            text += line;
        }
        write(&text);
        let want = Sidecar {
            model: "mlp".into(),
            classes: vec!["0".into(), "1".into()],
            input: [1, 8, 8],
            preprocessing: Preprocessing::new(1),
            table: None,
        };
        assert_eq!(Sidecar::beside(&weights).unwrap(), Some(want.clone()));
        std::fs::write(dir.path().join("written.toml"), want.to_toml().unwrap()).unwrap();
        assert_eq!(Sidecar::beside(&dir.path().join("written.safetensors")).unwrap(), Some(want));
        write(&(text + "classes = [\"a\"]"));
        assert!(message().contains("num_classes = 2, but classes names 1"), "{}", message());
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        assert_eq!(error("mean = [0.5]"), "dataset.toml: mean has 1 values, but images have 3 channels; give one value a channel");
        assert_eq!(error("std = [1.0, 0.0, 1.0]"), "dataset.toml: std must hold finite numbers above 0, got 0");
        assert_eq!(error("std = [1.0, nan, 1.0]"), "dataset.toml: std must hold finite numbers above 0, got NaN");
        assert!(error("scale = 1e300").ends_with("a number of at least 1 such as 255, got inf"));
        assert_eq!(error("classes = []"), "dataset.toml: classes is empty; name the classes, or leave the key out");
        assert_eq!(error("classes = ['a', 'b', 'a']"), "dataset.toml: classes names \"a\" twice");
        for name in ["", "..", "/etc", "a/b", "a/", "a\\\\b", "a\\nb"] {
            assert!(error(&format!("name = \"{name}\"")).contains("cannot be part of a file name"), "{name}");
        }
    }
}
