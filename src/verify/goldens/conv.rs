//! `conv`, `pool` and `norm`: the layers of a CNN.

use super::golden::{Golden, Operator, Outcome, Output};
use crate::op::{AvgPool2dOptions, Conv1dOptions, Conv2dOptions, ConvTranspose2dOptions, Pool1dOptions, Pool2dOptions};
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
    Operator {
        name: "adaptive_avg_pool2d",
        attributes: &["output_size"],
        run: |g| g.differentiate(&g.input("input")?.adaptive_avg_pool2d(g.attribute("output_size")?)?),
    },
    Operator {
        name: "adaptive_max_pool2d",
        attributes: &["output_size"],
        run: |g| g.differentiate(&g.input("input")?.adaptive_max_pool2d(g.attribute("output_size")?)?),
    },
    Operator { name: "lp_pool2d", attributes: &["norm_type", "kernel_size", "stride", "ceil_mode"], run: lp_pool2d },
    Operator { name: "max_pool1d", attributes: &["kernel_size", "stride", "padding", "dilation", "ceil_mode"], run: max_pool1d },
    Operator { name: "avg_pool1d", attributes: &["kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"], run: avg_pool1d },
    Operator { name: "conv1d", attributes: &["stride", "padding", "dilation", "groups"], run: conv1d },
    Operator {
        name: "conv_transpose2d",
        attributes: &["stride", "padding", "output_padding", "dilation", "groups"],
        run: conv_transpose2d,
    },
    Operator { name: "layer_norm", attributes: &["normalized_shape", "eps"], run: layer_norm },
    Operator { name: "rms_norm", attributes: &["normalized_shape", "eps"], run: rms_norm },
    Operator { name: "group_norm", attributes: &["num_groups", "eps"], run: group_norm },
    Operator { name: "instance_norm", attributes: &["eps"], run: instance_norm },
    Operator { name: "local_response_norm", attributes: &["size", "alpha", "beta", "k"], run: local_response_norm },
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

fn lp_pool2d(g: &Golden) -> Outcome<Vec<Output>> {
    let window = Pool2dOptions {
        kernel_size: g.attribute("kernel_size")?,
        stride: g.attribute("stride")?,
        ceil_mode: g.attribute("ceil_mode")?,
        ..Pool2dOptions::new(1)
    };
    g.differentiate(&g.input("input")?.lp_pool2d(g.attribute("norm_type")?, window)?)
}

/// As [`window`], of lists with one entry.
fn window1d(g: &Golden, dilation: usize) -> Outcome<Pool1dOptions> {
    let one = |key: &str| -> Outcome<usize> { Ok(g.attribute::<[usize; 1]>(key)?[0]) };
    Ok(Pool1dOptions {
        kernel_size: one("kernel_size")?,
        stride: one("stride")?,
        padding: one("padding")?,
        dilation,
        ceil_mode: g.attribute("ceil_mode")?,
    })
}

fn max_pool1d(g: &Golden) -> Outcome<Vec<Output>> {
    g.differentiate(&g.input("input")?.max_pool1d(window1d(g, g.attribute::<[usize; 1]>("dilation")?[0])?)?)
}

fn avg_pool1d(g: &Golden) -> Outcome<Vec<Output>> {
    g.differentiate(&g.input("input")?.avg_pool1d(window1d(g, 1)?, g.attribute("count_include_pad")?)?)
}

fn conv1d(g: &Golden) -> Outcome<Vec<Output>> {
    let one = |key: &str| -> Outcome<usize> { Ok(g.attribute::<[usize; 1]>(key)?[0]) };
    let options =
        Conv1dOptions { stride: one("stride")?, padding: one("padding")?, dilation: one("dilation")?, groups: g.attribute("groups")? };
    g.differentiate(&g.input("input")?.conv1d(g.input("weight")?, g.optional("bias"), options)?)
}

fn conv_transpose2d(g: &Golden) -> Outcome<Vec<Output>> {
    let conv = Conv2dOptions {
        stride: g.attribute("stride")?,
        padding: g.attribute("padding")?,
        dilation: g.attribute("dilation")?,
        groups: g.attribute("groups")?,
    };
    let options = ConvTranspose2dOptions { conv, output_padding: g.attribute("output_padding")? };
    g.differentiate(&g.input("input")?.conv_transpose2d(g.input("weight")?, g.optional("bias"), options)?)
}

fn layer_norm(g: &Golden) -> Outcome<Vec<Output>> {
    let shape: Vec<usize> = g.attribute("normalized_shape")?;
    g.differentiate(&g.input("input")?.layer_norm(&shape, g.optional("weight"), g.optional("bias"), g.attribute("eps")?)?)
}

fn rms_norm(g: &Golden) -> Outcome<Vec<Output>> {
    let shape: Vec<usize> = g.attribute("normalized_shape")?;
    g.differentiate(&g.input("input")?.rms_norm(&shape, g.optional("weight"), g.attribute("eps")?)?)
}

fn group_norm(g: &Golden) -> Outcome<Vec<Output>> {
    g.differentiate(&g.input("input")?.group_norm(
        g.attribute("num_groups")?,
        g.optional("weight"),
        g.optional("bias"),
        g.attribute("eps")?,
    )?)
}

fn instance_norm(g: &Golden) -> Outcome<Vec<Output>> {
    g.differentiate(&g.input("input")?.instance_norm(g.optional("weight"), g.optional("bias"), g.attribute("eps")?)?)
}

fn local_response_norm(g: &Golden) -> Outcome<Vec<Output>> {
    let (size, alpha, beta, k) = (g.attribute("size")?, g.attribute("alpha")?, g.attribute("beta")?, g.attribute("k")?);
    g.differentiate(&g.input("input")?.local_response_norm(size, alpha, beta, k)?)
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
