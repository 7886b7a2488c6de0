//! What the code of an operator sees of a case: inputs on the device, attributes, and how to hand in results.

use super::manifest::{Case, Kind, TensorSpec};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::Error;
use crate::tensor::Tensor;
use safetensors::SafeTensors;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// An operator that can be computed.
pub(super) struct Operator {
    /// As the manifest writes it.
    pub name: &'static str,
    /// The attributes that `run` understands. A case with any other is unsupported.
    pub attributes: &'static [&'static str],
    /// Computes all outputs of a case.
    pub run: fn(&Golden) -> Outcome<Vec<Output>>,
}

/// Why a case has no results.
pub(super) enum Stop {
    /// The crate lacks something that the case asks for.
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

/// Shorthand for [`Stop::Unsupported`].
pub(super) fn unsupported<T>(detail: impl Into<String>) -> Outcome<T> {
    Err(Stop::Unsupported(detail.into()))
}

/// Shorthand for [`Stop::Malformed`].
pub(super) fn malformed<T>(message: impl Into<String>) -> Outcome<T> {
    Err(Stop::Malformed(message.into()))
}

/// Values on the host. f64 holds every f32 and i32.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    Floats(Vec<f64>),
    Integers(Vec<f64>),
}

/// A computed output.
#[derive(Debug, Clone)]
pub(super) struct Output {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Values,
    /// Beside the rule of the folder: the largest allowed error of each row (index of the first dimension).
    pub row_limits: Option<Vec<f64>>,
}

impl Output {
    /// Reads a tensor back.
    pub fn of(name: impl Into<String>, tensor: &Tensor) -> Outcome<Output> {
        let values = match tensor.dtype() {
            DType::F32 => Values::Floats(tensor.to_vec_blocking::<f32>()?.into_iter().map(f64::from).collect()),
            DType::F16 => Values::Floats(tensor.to_vec_blocking::<half::f16>()?.into_iter().map(f64::from).collect()),
            DType::F64 => Values::Floats(tensor.to_vec_blocking::<f64>()?),
            DType::U32 => Values::Integers(tensor.to_vec_blocking::<u32>()?.into_iter().map(f64::from).collect()),
            DType::I32 => Values::Integers(tensor.to_vec_blocking::<i32>()?.into_iter().map(f64::from).collect()),
        };
        Ok(Output { name: name.into(), shape: tensor.shape().to_vec(), values, row_limits: None })
    }

    /// Integers that were counted on the host.
    pub fn integers(name: &str, shape: &[usize], values: Vec<f64>) -> Output {
        Output { name: name.into(), shape: shape.to_vec(), values: Values::Integers(values), row_limits: None }
    }

    /// Floats that were computed on the host.
    pub fn floats(name: &str, shape: &[usize], values: Vec<f64>) -> Output {
        Output { name: name.into(), shape: shape.to_vec(), values: Values::Floats(values), row_limits: None }
    }
}

/// The values of a tensor of the file, little-endian whatever the machine is.
pub(super) fn values(shard: &SafeTensors, spec: &TensorSpec) -> Outcome<Values> {
    let Ok(view) = shard.tensor(&spec.tensor) else { return malformed(format!("there is no tensor {}", spec.tensor)) };
    Ok(match spec.dtype {
        Kind::F32 => Values::Floats(view.data().as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect()),
        Kind::I32 => Values::Integers(view.data().as_chunks().0.iter().map(|&b| f64::from(i32::from_le_bytes(b))).collect()),
        Kind::Bool => Values::Integers(view.data().iter().map(|&b| f64::from(b)).collect()),
    })
}

/// A case with its inputs on a device. Inputs whose gradient is asked for are leaves of the tape.
pub(super) struct Golden<'a> {
    pub case: &'a Case,
    pub device: &'a Device,
    inputs: BTreeMap<&'a str, Tensor>,
}

impl<'a> Golden<'a> {
    /// Moves the inputs to the device.
    pub fn new(case: &'a Case, shard: &SafeTensors, device: &'a Device) -> Outcome<Self> {
        let mut inputs = BTreeMap::new();
        for (name, spec) in &case.inputs {
            let tensor = match values(shard, spec)? {
                Values::Floats(v) => Tensor::from_slice(device, &spec.shape, &v.into_iter().map(|v| v as f32).collect::<Vec<_>>())?,
                Values::Integers(v) => Tensor::from_slice(device, &spec.shape, &v.into_iter().map(|v| v as i32).collect::<Vec<_>>())?,
            };
            let leaf = case.outputs.contains_key(&format!("grad.{name}"));
            inputs.insert(name.as_str(), if leaf { tensor.requires_grad() } else { tensor });
        }
        Ok(Golden { case, device, inputs })
    }

    /// An input that must be there.
    pub fn input(&self, name: &str) -> Outcome<&Tensor> {
        self.inputs.get(name).ok_or_else(|| Stop::Malformed(format!("there is no input {name}")))
    }

    /// An input that may be absent.
    pub fn optional(&self, name: &str) -> Option<&Tensor> {
        self.inputs.get(name)
    }

    /// The inputs `<stem>0`, `<stem>1` ... as far as they go; at least one.
    pub fn numbered(&self, stem: &str) -> Outcome<Vec<&Tensor>> {
        let tensors: Vec<&Tensor> = (0..).map_while(|i| self.optional(&format!("{stem}{i}"))).collect();
        if tensors.is_empty() { malformed(format!("there is no input {stem}0")) } else { Ok(tensors) }
    }

    /// The case's attributes.
    pub fn attributes(&self) -> Attributes<'_> {
        Attributes(&self.case.attrs)
    }

    /// Attribute `key`, see [`Attributes::get`].
    pub fn attribute<T: DeserializeOwned>(&self, key: &str) -> Outcome<T> {
        self.attributes().get(key)
    }

    /// The output `out`, and the gradients of `sum(out * grad_output)` that the case asks for.
    pub fn differentiate(&self, out: &Tensor) -> Outcome<Vec<Output>> {
        self.differentiate_as("out", out)
    }

    /// As [`Golden::differentiate`], for an output of another name.
    pub fn differentiate_as(&self, name: &str, out: &Tensor) -> Outcome<Vec<Output>> {
        if self.asked().next().is_some() {
            out.backward_with(self.input("grad_output")?)?;
        }
        let mut outputs = vec![Output::of(name, out)?];
        outputs.extend(self.gradients()?);
        Ok(outputs)
    }

    /// Several outputs, and the gradients of the sum of `out * grad_output.<name>` over them; of one alone, `grad_output`.
    pub fn differentiate_all(&self, outs: &[(&str, Tensor)]) -> Outcome<Vec<Output>> {
        let mut outputs = outs.iter().map(|(name, out)| Output::of(*name, out)).collect::<Outcome<Vec<_>>>()?;
        if self.asked().next().is_some() {
            // One walk: the outputs share the tape.
            let mut total: Option<Tensor> = None;
            for (name, out) in outs {
                let upstream = match (self.optional("grad_output"), outs) {
                    (Some(upstream), [_]) => upstream,
                    _ => self.input(&format!("grad_output.{name}"))?,
                };
                let term = out.mul(upstream)?.sum(None, false)?;
                total = Some(match total {
                    Some(sum) => sum.add(&term)?,
                    None => term,
                });
            }
            if let Some(total) = total {
                total.backward()?;
            }
        }
        outputs.extend(self.gradients()?);
        Ok(outputs)
    }

    /// Outputs that are gradients, and of what.
    fn asked(&self) -> impl Iterator<Item = (&String, &str)> {
        self.case.outputs.keys().filter_map(|name| Some((name, name.strip_prefix("grad.")?)))
    }

    /// The gradients that have reached the inputs.
    fn gradients(&self) -> Outcome<Vec<Output>> {
        let mut outputs = Vec::new();
        for (output, input) in self.asked() {
            let Some(grad) = self.input(input)?.grad() else {
                return Err(Error::Autodiff(format!("no gradient reached input {input}")).into());
            };
            outputs.push(Output::of(output, &grad)?);
        }
        Ok(outputs)
    }
}

/// Attributes of a case, or of a part of it.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a>(pub &'a Map<String, Value>);

impl Attributes<'_> {
    /// The value of `key`; a key that is not there counts as null, which is `None` for an `Option`.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Outcome<T> {
        let value = self.0.get(key).cloned().unwrap_or(Value::Null);
        serde_json::from_value(value).map_err(|error| Stop::Malformed(format!("attribute {key}: {error}")))
    }

    /// Refuses attributes that the caller does not know: ignoring one could give another result than it asks for.
    pub fn only(&self, known: &[&str]) -> Outcome<()> {
        match self.0.keys().find(|key| !known.contains(&key.as_str())) {
            Some(key) => unsupported(format!("attribute {key}")),
            None => Ok(()),
        }
    }
}
