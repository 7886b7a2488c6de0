//! Weights as [safetensors](https://github.com/huggingface/safetensors) files: f32, PyTorch's names and layouts.

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nn::{Module, NamedArray, misfits, state_dict, write_arrays};
use crate::shape::Shape;
use crate::tensor::Tensor;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// PyTorch counts the batches a normalisation layer has seen; nothing here depends on it.
const IGNORED_SUFFIX: &str = "num_batches_tracked";

/// The bytes of a file with these tensors in the order of their names. Equal tensors and metadata give equal bytes.
///
/// # Errors
/// [`Error::DType`] for tensors of another type than f32, [`Error::Config`] when a name occurs twice; errors of the device.
pub async fn encode(tensors: &[(String, Tensor)], metadata: Option<(&str, &str)>) -> Result<Vec<u8>> {
    let mut names = HashSet::new();
    let mut contents: Vec<(&str, &Tensor, Vec<u8>)> = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        if tensor.dtype() != DType::F32 {
            return Err(Error::DType(format!("{name} is {}; only f32 tensors are saved", tensor.dtype())));
        }
        if !names.insert(name) || name == "__metadata__" {
            return Err(Error::Config(format!("a safetensors file cannot hold two tensors named {name}")));
        }
        // The format is little-endian whatever the machine is.
        let bytes = tensor.to_vec::<f32>().await?.iter().flat_map(|v| v.to_le_bytes()).collect();
        contents.push((name, tensor, bytes));
    }
    let views = contents
        .iter()
        .map(|(name, tensor, bytes)| Ok((*name, TensorView::new(Dtype::F32, tensor.shape().to_vec(), bytes)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>();
    // One entry at most, as the order of several would be random.
    let metadata = metadata.map(|(key, value)| HashMap::from([(key.to_owned(), value.to_owned())]));
    views
        .and_then(|views| safetensors::serialize(views, metadata))
        .map_err(|error| Error::Config(format!("these tensors cannot be saved: {error}")))
}

/// The tensors of a file's bytes in the order of their names. f64 is rounded to f32; `num_batches_tracked` is left out.
///
/// # Errors
/// [`Error::Data`] with `path` when the bytes are truncated or corrupt, or hold other types.
pub fn decode(path: &Path, bytes: &[u8]) -> Result<Vec<NamedArray>> {
    let corrupt = |error| Error::data(path, format!("not a complete safetensors file: {error}"));
    let mut tensors = SafeTensors::deserialize(bytes).map_err(corrupt)?.tensors();
    tensors.retain(|(name, _)| name.rsplit('.').next() != Some(IGNORED_SUFFIX));
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let array = |(name, view): (String, TensorView)| {
        let shape = Shape::new(view.shape()).map_err(|error| Error::data(path, format!("tensor {name}: {error}")))?;
        let values = match view.dtype() {
            Dtype::F32 => view.data().as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::F64 => view.data().as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
            other => return Err(Error::data(path, format!("tensor {name} is of type {other:?}; convert it to F32"))),
        };
        Ok(NamedArray { name, shape, values })
    };
    tensors.into_iter().map(array).collect()
}

/// Writes tensors to a file, complete or not at all (see [`atomic::write`](super::atomic::write)). Waits for the device.
///
/// # Errors
/// [`Error::Io`] when writing fails; those of [`encode`].
#[cfg(not(target_arch = "wasm32"))]
pub fn save(path: impl AsRef<Path>, tensors: &[(String, Tensor)], metadata: Option<(&str, &str)>) -> Result<()> {
    super::atomic::write(path, &pollster::block_on(encode(tensors, metadata))?)
}

/// Reads the tensors of a file, in the order of their names.
///
/// # Errors
/// [`Error::Data`] when the file is missing, truncated or corrupt, [`Error::Io`] when it cannot be read.
pub fn load(path: impl AsRef<Path>) -> Result<Vec<NamedArray>> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::data(path, "there is no such file"),
        _ => Error::io(path, error),
    })?;
    decode(path, &bytes)
}

/// Overwrites all parameters and buffers of a module from a file. Nothing is changed unless all names and shapes fit.
///
/// # Errors
/// Those of [`load`]; [`Error::Data`] that lists the missing, the unexpected and the misshapen names.
pub fn load_into(module: &dyn Module, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let (arrays, state) = (load(path)?, state_dict(module));
    if let Some(message) = misfits(&state, &arrays) {
        return Err(Error::data(path, format!("the weights do not fit the model: {message}")));
    }
    write_arrays(&state, &arrays)
}
