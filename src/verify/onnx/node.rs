//! What the code of an operator sees of a node: inputs, attributes, and how to hand in outputs.

use crate::device::Device;
use crate::error::Error;
use crate::tensor::Tensor;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

/// Why a node has no results.
pub(super) enum Stop {
    /// The crate lacks something that the node asks for, in general words: they become the reason in the coverage table.
    Unsupported(String),
    /// The case contradicts itself.
    Malformed(String),
    /// An operation returned an error.
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

pub(super) type Outcome<T> = Result<T, Stop>;

pub(super) fn unsupported<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(Stop::Unsupported(reason.into()))
}

pub(super) fn malformed<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Stop::Malformed(message.into()))
}

/// A value on the host, as the files hold it.
#[derive(Debug, Clone)]
pub(super) struct Host {
    pub shape: Vec<usize>,
    /// Whether it holds floats, not integers or booleans.
    pub float: bool,
    /// f64 holds every f32, and every integer that occurs in shapes, axes and indices.
    pub values: Vec<f64>,
}

/// A computed output.
pub(super) enum Output {
    Tensor(Tensor),
    /// Integers that were computed on the host: shapes.
    Integers(Vec<usize>, Vec<i64>),
}

impl From<Tensor> for Output {
    fn from(tensor: Tensor) -> Output {
        Output::Tensor(tensor)
    }
}

/// An operator that can be computed.
pub(super) struct Operator {
    pub name: &'static str,
    /// The attributes that `run` understands. A case with any other is unsupported.
    pub attributes: &'static [&'static str],
    pub run: fn(&Node) -> Outcome<Vec<Output>>,
}

/// A node with its inputs.
pub(super) struct Node<'a> {
    pub device: &'a Device,
    pub attributes: &'a Map<String, Json>,
    pub inputs: Vec<Option<Host>>,
    /// How many outputs the case asks for, absent ones in front of others counted.
    pub outputs: usize,
}

impl Node<'_> {
    /// Input `i` on the host, if it is given.
    pub fn host(&self, i: usize) -> Option<&Host> {
        self.inputs.get(i)?.as_ref()
    }

    /// Input `i` on the device, if it is given: floats as f32, everything else as i32.
    pub fn optional(&self, i: usize) -> Outcome<Option<Tensor>> {
        let Some(host) = self.host(i) else { return Ok(None) };
        Ok(Some(if host.float {
            Tensor::from_slice(self.device, &host.shape, &host.values.iter().map(|&v| v as f32).collect::<Vec<f32>>())?
        } else {
            Tensor::from_slice(self.device, &host.shape, &host.values.iter().map(|&v| v as i32).collect::<Vec<i32>>())?
        }))
    }

    /// Input `i` on the device.
    pub fn input(&self, i: usize) -> Outcome<Tensor> {
        match self.optional(i)? {
            Some(tensor) => Ok(tensor),
            None => malformed(format!("there is no input {i}")),
        }
    }

    /// All inputs on the device.
    pub fn all(&self) -> Outcome<Vec<Tensor>> {
        (0..self.inputs.len()).map(|i| self.input(i)).collect()
    }

    /// The integers of input `i`, if it is given: axes, sizes.
    pub fn integers(&self, i: usize) -> Option<Vec<i64>> {
        Some(self.host(i)?.values.iter().map(|&v| v as i64).collect())
    }

    /// The integers of input `i`.
    pub fn list(&self, i: usize) -> Outcome<Vec<i64>> {
        self.integers(i).map_or_else(|| malformed(format!("there is no input {i}")), Ok)
    }

    /// The one number of input `i`, if it is given.
    pub fn number(&self, i: usize) -> Option<f64> {
        self.host(i)?.values.first().copied()
    }

    /// Attribute `key`, if it is given.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Outcome<Option<T>> {
        match self.attributes.get(key) {
            None => Ok(None),
            Some(value) => serde_json::from_value(value.clone()).map(Some).or_else(|e| malformed(format!("attribute {key}: {e}"))),
        }
    }

    /// Attribute `key`, or its default.
    pub fn attribute<T: DeserializeOwned>(&self, key: &str, default: T) -> Outcome<T> {
        Ok(self.get(key)?.unwrap_or(default))
    }

    /// A flag, which ONNX writes as 0 or 1.
    pub fn flag(&self, key: &str, default: bool) -> Outcome<bool> {
        Ok(self.attribute::<i64>(key, default as i64)? != 0)
    }
}

/// A dimension, negative from the end.
pub(super) fn axis(axis: i64, rank: usize) -> Outcome<usize> {
    let from_start = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(from_start) {
        Ok(d) if d < rank.max(1) => Ok(d),
        _ => malformed(format!("axis {axis} of {rank} dimensions")),
    }
}

/// One output.
pub(super) fn one(tensor: Tensor) -> Outcome<Vec<Output>> {
    Ok(vec![tensor.into()])
}

/// Sizes from integers.
pub(super) fn sizes(values: &[i64]) -> Outcome<Vec<usize>> {
    values.iter().map(|&v| usize::try_from(v).or_else(|_| malformed(format!("a size of {v}")))).collect()
}
