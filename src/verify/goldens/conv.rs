//! `conv`, `pool` and `norm`: the layers of a CNN.

use super::golden::{Golden, Operator, Outcome, Output, unsupported};
use crate::op::{AvgPool2dOptions, Conv2dOptions, Pool2dOptions};
use crate::shape::Shape;
use crate::tensor::Tensor;

pub(super) const OPERATORS: &[Operator] = &[
    Operator { name: "conv2d", attributes: &["stride", "padding", "dilation", "groups"], run: conv2d },
    Operator { name: "max_pool2d", attributes: &["kernel_size", "stride", "padding", "dilation", "ceil_mode"], run: max_pool2d },
    Operator {
        name: "avg_pool2d",
        attributes: &["kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"],
        run: avg_pool2d,
    },
    Operator { name: "adaptive_avg_pool2d", attributes: &["output_size"], run: adaptive_avg_pool2d },
    Operator { name: "batch_norm", attributes: &["training", "momentum", "eps"], run: batch_norm },
];

fn conv2d(g: &Golden) -> Outcome<Vec<Output>> {
    let options = Conv2dOptions {
        stride: g.attribute("stride")?,
        padding: g.attribute("padding")?,
        dilation: g.attribute("dilation")?,
        groups: g.attribute("groups")?,
    };
    g.differentiate(&g.input("input")?.conv2d(g.input("weight")?, g.optional("bias"), options)?)
}

/// The window's attributes but `dilation`, which average pooling does not have.
fn window(g: &Golden, dilation: [usize; 2]) -> Outcome<Pool2dOptions> {
    Ok(Pool2dOptions {
        kernel_size: g.attribute("kernel_size")?,
        stride: g.attribute("stride")?,
        padding: g.attribute("padding")?,
        dilation,
        ceil_mode: g.attribute("ceil_mode")?,
    })
}

fn max_pool2d(g: &Golden) -> Outcome<Vec<Output>> {
    g.differentiate(&g.input("input")?.max_pool2d(window(g, g.attribute("dilation")?)?)?)
}

fn avg_pool2d(g: &Golden) -> Outcome<Vec<Output>> {
    let options = AvgPool2dOptions {
        window: window(g, [1, 1])?,
        count_include_pad: g.attribute("count_include_pad")?,
        divisor_override: g.attribute("divisor_override")?,
    };
    g.differentiate(&g.input("input")?.avg_pool2d(options)?)
}

fn adaptive_avg_pool2d(g: &Golden) -> Outcome<Vec<Output>> {
    let output_size: [usize; 2] = g.attribute("output_size")?;
    if output_size != [1, 1] {
        return unsupported(format!("output_size {output_size:?}"));
    }
    g.differentiate(&g.input("input")?.global_avg_pool2d()?)
}

/// Without weight and bias the factor is 1 and the summand 0.
fn batch_norm(g: &Golden) -> Outcome<Vec<Output>> {
    let (momentum, eps) = (g.attribute("momentum")?, g.attribute("eps")?);
    let input = g.input("input")?;
    let channels = Shape::new(&[input.shape().get(1).copied().unwrap_or(0)])?;
    let weight = g.optional("weight").cloned().map_or_else(|| Tensor::ones(g.device, &channels), Ok)?;
    let bias = g.optional("bias").cloned().map_or_else(|| Tensor::zeros(g.device, &channels), Ok)?;
    let running = g.optional("running_mean").zip(g.optional("running_var"));
    let out = match (g.attribute("training")?, running) {
        (true, running) => input.batch_norm(&weight, &bias, running, momentum, eps)?,
        (false, Some((mean, var))) => input.batch_norm_eval(&weight, &bias, mean, var, eps)?,
        // PyTorch then normalises with the batch's statistics.
        (false, None) => input.batch_norm(&weight, &bias, None, momentum, eps)?,
    };
    let mut outputs = g.differentiate(&out)?;
    for name in ["running_mean", "running_var"] {
        if g.case.outputs.contains_key(name) {
            outputs.push(Output::of(name, g.input(name)?)?);
        }
    }
    Ok(outputs)
}
