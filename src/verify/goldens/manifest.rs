//! The folder's list of cases, checked as a whole before anything runs.

use crate::error::{Error, Result};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde::de::Error as _;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The format of `manifest.json` that is understood.
const FORMAT: u64 = 1;

/// `manifest.json`.
#[derive(Debug)]
pub(super) struct Manifest {
    pub factors: Factors,
    pub transcendental_ops: BTreeSet<String>,
    pub cases: Vec<Case>,
}

/// The file as it is, its cases not yet looked at.
#[derive(Deserialize)]
struct Raw {
    format: u64,
    tolerance: Factors,
    transcendental_ops: BTreeSet<String>,
    cases: Vec<Value>,
}

/// Factors of the pass rule.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(super) struct Factors {
    pub f32_err: f64,
    pub max_abs: f64,
    pub max_abs_transcendental_gpu: f64,
    pub abs_transcendental_gpu: f64,
}

/// One computation.
#[derive(Debug, Deserialize)]
pub(super) struct Case {
    pub name: String,
    pub family: String,
    pub op: String,
    pub attrs: Map<String, Value>,
    /// Without the optional ones that are absent.
    #[serde(deserialize_with = "given")]
    pub inputs: BTreeMap<String, TensorSpec>,
    pub outputs: BTreeMap<String, TensorSpec>,
}

/// A tensor of the family's file.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TensorSpec {
    pub tensor: String,
    pub shape: Vec<usize>,
    pub dtype: Kind,
    /// Largest finite magnitude of the truth; float outputs only.
    pub max_abs: Option<f64>,
    /// The error of an f32 implementation; float outputs only.
    pub f32_err: Option<f64>,
}

/// Element types of the format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    F32,
    I32,
    /// Stored as bytes 0 and 1.
    Bool,
}

/// The inputs but those whose `tensor` is null.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, TensorSpec>, D::Error> {
    let mut inputs = BTreeMap::<String, Value>::deserialize(deserializer)?;
    inputs.retain(|_, spec| spec.get("tensor") != Some(&Value::Null));
    let parse = |(name, spec)| match serde_json::from_value(spec) {
        Ok(spec) => Ok((name, spec)),
        Err(error) => Err(D::Error::custom(format!("input {name}: {error}"))),
    };
    inputs.into_iter().map(parse).collect()
}

/// The bytes of a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::data(path, "there is no such file; a folder of golden cases holds manifest.json and <family>.safetensors")
        }
        _ => Error::io(path, error),
    })
}

impl Manifest {
    /// Reads the list and checks all that does not need the tensors.
    pub fn load(path: &Path) -> Result<Manifest> {
        let raw: Raw =
            serde_json::from_slice(&read(path)?).map_err(|error| Error::data(path, format!("not a manifest of golden cases: {error}")))?;
        if raw.format != FORMAT {
            return Err(Error::data(path, format!("the format is {}, expected {FORMAT}", raw.format)));
        }
        let mut names = BTreeSet::new();
        let mut cases = Vec::with_capacity(raw.cases.len());
        for (i, value) in raw.cases.into_iter().enumerate() {
            let name = value["name"].as_str().map_or_else(|| format!("number {i}"), str::to_owned);
            let wrong = |message: &dyn std::fmt::Display| Error::data(path, format!("case {name}: {message}"));
            let case: Case = serde_json::from_value(value).map_err(|error| wrong(&error))?;
            // The family becomes a file's name.
            if case.family.is_empty() || !case.family.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
                return Err(wrong(&format!("family '{}' must consist of letters, digits, _ and -", case.family)));
            }
            for (output, spec) in &case.outputs {
                if spec.dtype == Kind::F32 && (spec.max_abs.is_none() || spec.f32_err.is_none()) {
                    return Err(wrong(&format!("output {output} needs max_abs and f32_err, as it holds floats")));
                }
            }
            if !names.insert(case.name.clone()) {
                return Err(wrong(&"another case has the same name"));
            }
            cases.push(case);
        }
        Ok(Manifest { factors: raw.tolerance, transcendental_ops: raw.transcendental_ops, cases })
    }
}

impl Case {
    /// Checks that the family's file holds every tensor of the case with the type and shape that the manifest gives.
    pub fn check(&self, path: &Path, shard: &SafeTensors) -> Result<()> {
        let inputs = self.inputs.iter().map(|(name, spec)| ("input", name, spec));
        let outputs = self.outputs.iter().map(|(name, spec)| ("output", name, spec));
        for (role, name, spec) in inputs.chain(outputs) {
            let wrong = |message: String| Error::data(path, format!("case {}: {role} {name}: {message}", self.name));
            let view = shard.tensor(&spec.tensor).map_err(|_| wrong(format!("there is no tensor {}", spec.tensor)))?;
            let dtype = match spec.dtype {
                Kind::F32 => Dtype::F32,
                Kind::I32 => Dtype::I32,
                Kind::Bool => Dtype::U8,
            };
            if view.dtype() != dtype || view.shape() != spec.shape {
                return Err(wrong(format!(
                    "tensor {} is {:?} {:?}, the manifest says {dtype:?} {:?}",
                    spec.tensor,
                    view.dtype(),
                    view.shape(),
                    spec.shape
                )));
            }
        }
        Ok(())
    }
}
