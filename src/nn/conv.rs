//! Convolution layers.

use super::{Context, Init, Module, Owned, Parameter, Then, by, init, join};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Clip, Conv2dOptions, ConvTranspose2dOptions};
use crate::tensor::Tensor;

/// Weight and bias of a layer from and to some channels; the weight's `shape` follows from the number of groups.
fn parameters(
    device: &Device,
    layer: &str,
    [from, to]: [usize; 2],
    groups: usize,
    shape: impl Fn(usize) -> [usize; 4],
    bias: bool,
) -> Result<(Parameter, Option<Parameter>)> {
    if groups == 0 || !from.is_multiple_of(groups) || !to.is_multiple_of(groups) {
        return Err(Error::Shape(format!("{layer}: groups = {groups} must divide in_channels = {from} and out_channels = {to}")));
    }
    let shape = shape(groups);
    let bias_init = Init::Uniform { bound: init::default_bound(shape[1..].iter().product()) };
    let bias = bias.then(|| Parameter::new(device, &[to], bias_init)).transpose()?;
    Ok((Parameter::new(device, &shape, Init::Default)?, bias))
}

fn show(path: &str, weight: &Parameter, bias: &Option<Parameter>, visitor: &mut dyn FnMut(String, Owned)) {
    visitor(join(path, "weight"), Owned::Parameter(weight));
    if let Some(bias) = bias {
        visitor(join(path, "bias"), Owned::Parameter(bias));
    }
}

/// `[N, C, H, W] -> [N, K, oH, oW]`, PyTorch's `Conv2d`.
#[derive(Debug)]
pub struct Conv2d {
    weight: Parameter,
    bias: Option<Parameter>,
    options: Conv2dOptions,
}

impl Conv2d {
    /// A layer with weight `[out_channels, in_channels / groups, kH, kW]` and, if asked for, bias `[out_channels]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `groups` does not divide both numbers of channels; out of memory.
    pub fn new(
        device: &Device,
        in_channels: usize,
        out_channels: usize,
        kernel_size: [usize; 2],
        options: Conv2dOptions,
        bias: bool,
    ) -> Result<Self> {
        let shape = |groups: usize| [out_channels, in_channels / groups, kernel_size[0], kernel_size[1]];
        let (weight, bias) = parameters(device, "Conv2d", [in_channels, out_channels], options.groups, shape, bias)?;
        Ok(Conv2d { weight, bias, options })
    }

    /// `[out_channels, in_channels / groups, kH, kW]`.
    pub fn weight(&self) -> &Parameter {
        &self.weight
    }

    /// `[out_channels]`.
    pub fn bias(&self) -> Option<&Parameter> {
        self.bias.as_ref()
    }

    /// Stride, padding, dilation and groups.
    pub fn options(&self) -> Conv2dOptions {
        self.options
    }
}

impl Conv2d {
    fn convolve(&self, x: &Tensor, clip: Clip) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| bias.tensor_for(x)).transpose()?;
        x.conv2d_with(&self.weight.tensor_for(x)?, bias.as_ref(), self.options, clip)
    }
}

impl Module for Conv2d {
    fn forward(&self, _: &mut Context, x: &Tensor) -> Result<Tensor> {
        self.convolve(x, Clip::Nothing)
    }

    fn forward_then(&self, ctx: &mut Context, x: &Tensor, then: Then) -> Result<Tensor> {
        if let Some(clip) = then.clip() {
            return self.convolve(x, clip);
        }
        let folded = match then {
            Then::Norm(norm, None) => Some((norm, Clip::Nothing)),
            // What a norm computes in its pass and a convolution does not takes no pass less with the norm in the weights.
            Then::Norm(norm, Some(after)) => after.clip().map(|clip| (norm, clip)),
            _ => None,
        };
        let Some((norm, clip)) = folded.filter(|_| x.dtype() == DType::F32) else { return then.apply(&self.convolve(x, Clip::Nothing)?) };
        let bias = self.bias.as_ref().map(Parameter::data);
        let (weight, bias) = ctx.folded(|| norm.fold(&self.weight.data(), bias.as_ref()))?;
        x.conv2d_with(&weight, Some(&bias), self.options, clip)
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        show(path, &self.weight, &self.bias, visitor);
    }

    fn describe(&self) -> String {
        let (shape, o) = (self.weight.shape(), &self.options);
        let mut text = format!("Conv2d {} -> {}, {}", shape[1] * o.groups, shape[0], by([shape[2], shape[3]]));
        for (name, value, default) in [("stride", o.stride, 1), ("padding", o.padding, 0), ("dilation", o.dilation, 1)] {
            if value != [default; 2] {
                text += &format!(", {name} {}", by(value));
            }
        }
        if o.groups != 1 {
            text += &format!(", groups {}", o.groups);
        }
        if self.bias.is_none() {
            text += ", no bias";
        }
        text
    }
}

/// `[N, C, H, W] -> [N, K, oH, oW]`, PyTorch's `ConvTranspose2d`: with a stride of two an image becomes twice as large.
#[derive(Debug)]
pub struct ConvTranspose2d {
    weight: Parameter,
    bias: Option<Parameter>,
    options: ConvTranspose2dOptions,
}

impl ConvTranspose2d {
    /// A layer with weight `[in_channels, out_channels / groups, kH, kW]` and, if asked for, bias `[out_channels]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when `groups` does not divide both numbers of channels; out of memory.
    pub fn new(
        device: &Device,
        in_channels: usize,
        out_channels: usize,
        kernel_size: [usize; 2],
        options: ConvTranspose2dOptions,
        bias: bool,
    ) -> Result<Self> {
        let shape = |groups: usize| [in_channels, out_channels / groups, kernel_size[0], kernel_size[1]];
        let (weight, bias) = parameters(device, "ConvTranspose2d", [in_channels, out_channels], options.conv.groups, shape, bias)?;
        Ok(ConvTranspose2d { weight, bias, options })
    }

    /// `[in_channels, out_channels / groups, kH, kW]`.
    pub fn weight(&self) -> &Parameter {
        &self.weight
    }
}

impl Module for ConvTranspose2d {
    fn forward(&self, _: &mut Context, x: &Tensor) -> Result<Tensor> {
        let bias = self.bias.as_ref().map(|bias| bias.tensor_for(x)).transpose()?;
        x.conv_transpose2d(&self.weight.tensor_for(x)?, bias.as_ref(), self.options)
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        show(path, &self.weight, &self.bias, visitor);
    }

    fn describe(&self) -> String {
        let (shape, o) = (self.weight.shape(), &self.options.conv);
        let size = by([shape[2], shape[3]]);
        format!("ConvTranspose2d {} -> {}, {size}, stride {}", shape[0], shape[1] * o.groups, by(o.stride))
    }
}
