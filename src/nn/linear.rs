//! Fully connected layer.

use super::{Context, Init, Module, Owned, Parameter, Then, init, join};
use crate::device::Device;
use crate::error::Result;
use crate::tensor::Tensor;

/// `x W^T + b`: `[.., in_features] -> [.., out_features]`, PyTorch's `Linear`.
#[derive(Debug)]
pub struct Linear {
    weight: Parameter,
    bias: Option<Parameter>,
}

impl Linear {
    /// A layer with weight `[out_features, in_features]` and, if asked for, bias `[out_features]`.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
    pub fn new(device: &Device, in_features: usize, out_features: usize, bias: bool) -> Result<Self> {
        let weight = Parameter::new(device, &[out_features, in_features], Init::Default)?;
        let bias_init = Init::Uniform { bound: init::default_bound(in_features) };
        let bias = bias.then(|| Parameter::new(device, &[out_features], bias_init)).transpose()?;
        Ok(Linear { weight, bias })
    }

    /// `[out_features, in_features]`.
    pub fn weight(&self) -> &Parameter {
        &self.weight
    }

    /// `[out_features]`.
    pub fn bias(&self) -> Option<&Parameter> {
        self.bias.as_ref()
    }
}

impl Linear {
    fn multiply(&self, x: &Tensor, relu: bool) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| bias.tensor_for(x)).transpose()?;
        x.linear_with(&self.weight.tensor_for(x)?, bias.as_ref(), relu)
    }
}

impl Module for Linear {
    fn forward(&self, _: &mut Context, x: &Tensor) -> Result<Tensor> {
        self.multiply(x, false)
    }

    fn forward_then(&self, _: &mut Context, x: &Tensor, then: Then) -> Result<Tensor> {
        match then {
            Then::Relu { ceiling: f64::INFINITY } => self.multiply(x, true),
            then => then.apply(&self.multiply(x, false)?),
        }
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        visitor(join(path, "weight"), Owned::Parameter(&self.weight));
        if let Some(bias) = &self.bias {
            visitor(join(path, "bias"), Owned::Parameter(bias));
        }
    }

    fn describe(&self) -> String {
        let shape = self.weight.shape();
        format!("Linear {} -> {}{}", shape[1], shape[0], if self.bias.is_some() { "" } else { ", no bias" })
    }
}
