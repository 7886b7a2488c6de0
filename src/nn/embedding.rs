//! A table of vectors, one for each of a set of things.

use super::{Context, Init, Module, Owned, Parameter, join};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// PyTorch's `Embedding`: `weight [V, D]` from `N(0, 1)`, of which an index of u32 or i32 takes a row.
#[derive(Debug)]
pub struct Embedding {
    weight: Parameter,
}

impl Embedding {
    /// A table for `num_embeddings` things.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are none, or a row has no values; out of memory.
    pub fn new(device: &Device, num_embeddings: usize, embedding_dim: usize) -> Result<Self> {
        if num_embeddings == 0 || embedding_dim == 0 {
            return Err(Error::Shape(format!("Embedding: [{num_embeddings}, {embedding_dim}] must be at least 1 each")));
        }
        Ok(Embedding { weight: Parameter::new(device, &[num_embeddings, embedding_dim], Init::Normal { std: 1.0 })? })
    }

    /// `[V, D]`.
    pub fn weight(&self) -> &Parameter {
        &self.weight
    }
}

impl Module for Embedding {
    /// Indices `[..]` of u32 or i32 to rows `[.., D]`. An index outside the table gives zeros.
    fn forward(&self, _: &mut Context, index: &Tensor) -> Result<Tensor> {
        self.weight.tensor().embedding(index)
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        visitor(join(path, "weight"), Owned::Parameter(&self.weight));
    }

    fn describe(&self) -> String {
        let shape = self.weight.shape();
        format!("Embedding {} x {}", shape[0], shape[1])
    }
}
