//! `shape`: what moves elements.

use super::golden::{Golden, Operator, Outcome, Output, malformed, unsupported};
use crate::nn::resize::{self, Interpolation};
use crate::tensor::Tensor;
use crate::tensor::ops::PadMode;

pub(super) const OPERATORS: &[Operator] = &[
    Operator {
        name: "permute",
        attributes: &["dims"],
        run: |g| g.differentiate(&g.input("input")?.permute(&g.attribute::<Vec<i64>>("dims")?)?),
    },
    Operator { name: "reshape", attributes: &["shape"], run: reshape },
    Operator { name: "slice", attributes: &["starts", "ends", "steps"], run: slice },
    Operator { name: "pad", attributes: &["pad", "mode", "value"], run: pad },
    Operator {
        name: "cat",
        attributes: &["dim"],
        run: |g| g.differentiate(&Tensor::concat(&g.numbered("tensors.")?, g.attribute("dim")?)?),
    },
    Operator { name: "index_select", attributes: &["dim"], run: index_select },
    Operator {
        name: "expand",
        attributes: &["size"],
        run: |g| g.differentiate(&g.input("input")?.expand(&g.attribute::<Vec<usize>>("size")?)?),
    },
    Operator {
        name: "stack",
        attributes: &["dim"],
        run: |g| g.differentiate(&Tensor::stack(&g.numbered("tensors.")?, g.attribute("dim")?)?),
    },
    Operator { name: "split", attributes: &["split_size_or_sections", "dim"], run: split },
    Operator {
        name: "gather",
        attributes: &["dim"],
        run: |g| g.differentiate(&g.input("input")?.gather(g.attribute("dim")?, g.input("index")?)?),
    },
    Operator {
        name: "scatter_add",
        attributes: &["dim"],
        run: |g| g.differentiate(&g.input("input")?.scatter_add(g.attribute("dim")?, g.input("index")?, g.input("src")?)?),
    },
    Operator { name: "flip", attributes: &["dims"], run: |g| g.differentiate(&g.input("input")?.flip(&g.attribute::<Vec<i64>>("dims")?)?) },
    Operator {
        name: "roll",
        attributes: &["shifts", "dims"],
        run: |g| g.differentiate(&g.input("input")?.roll(&g.attribute::<Vec<i64>>("shifts")?, &g.attribute::<Vec<i64>>("dims")?)?),
    },
    Operator {
        name: "one_hot",
        attributes: &["num_classes"],
        run: |g| g.differentiate(&g.input("input")?.one_hot(g.attribute("num_classes")?)?),
    },
    Operator { name: "embedding", attributes: &["padding_idx"], run: embedding },
    Operator { name: "interpolate", attributes: &["size", "scale_factor", "mode", "align_corners"], run: interpolate },
    Operator {
        name: "pixel_shuffle",
        attributes: &["upscale_factor"],
        run: |g| g.differentiate(&g.input("input")?.pixel_shuffle(g.attribute("upscale_factor")?)?),
    },
];

/// A size, the last part being what is left, or a list of sizes. The parts joined again carry all gradients at once.
fn split(g: &Golden) -> Outcome<Vec<Output>> {
    let (input, dim): (_, i64) = (g.input("input")?, g.attribute("dim")?);
    let size = input.shape()[input.shape().dim(dim, "split")?];
    let sizes = match g.attribute::<serde_json::Value>("split_size_or_sections")? {
        serde_json::Value::Number(n) => match n.as_u64() {
            Some(part) if part > 0 => (0..size).step_by(part as usize).map(|start| (part as usize).min(size - start)).collect(),
            _ => return malformed(format!("split_size_or_sections {n}")),
        },
        list => serde_json::from_value::<Vec<usize>>(list).or_else(|e| malformed(format!("split_size_or_sections: {e}")))?,
    };
    let parts = input.split(&sizes, dim)?;
    let mut outputs = parts.iter().enumerate().map(|(i, part)| Output::of(format!("out{i}"), part)).collect::<Outcome<Vec<_>>>()?;
    if g.case.outputs.contains_key("grad.input") {
        for (i, part) in parts.iter().enumerate() {
            part.backward_with(g.input(&format!("grad_output.out{i}"))?)?;
        }
        if let Some(grad) = input.grad() {
            outputs.push(Output::of("grad.input", &grad)?);
        }
    }
    Ok(outputs)
}

fn embedding(g: &Golden) -> Outcome<Vec<Output>> {
    let padding: Option<i64> = g.attribute("padding_idx")?;
    if let Some(row) = padding {
        return unsupported(format!("padding_idx {row}"));
    }
    g.differentiate(&g.input("weight")?.embedding(g.input("input")?)?)
}

/// One size may be -1: what is left.
fn reshape(g: &Golden) -> Outcome<Vec<Output>> {
    let (input, shape) = (g.input("input")?, g.attribute::<Vec<i64>>("shape")?);
    let known: i64 = shape.iter().filter(|&&size| size != -1).fold(1, |n, &size| n.saturating_mul(size));
    let mut sizes = Vec::new();
    for &size in &shape {
        sizes.push(match usize::try_from(size) {
            Ok(size) => size,
            Err(_) if size == -1 && known > 0 => input.shape().len() / known as usize,
            Err(_) => return malformed(format!("shape {shape:?} of {} cannot be resolved", input.shape())),
        });
    }
    g.differentiate(&input.reshape(&sizes)?)
}

fn slice(g: &Golden) -> Outcome<Vec<Output>> {
    let list = |key: &str| g.attribute::<Vec<i64>>(key);
    g.differentiate(&g.input("input")?.slice(&list("starts")?, &list("ends")?, &list("steps")?)?)
}

fn pad(g: &Golden) -> Outcome<Vec<Output>> {
    let mode: String = g.attribute("mode")?;
    let mirror = match mode.as_str() {
        "constant" => None,
        "reflect" => Some(PadMode::Reflect),
        "replicate" => Some(PadMode::Replicate),
        _ => return unsupported(format!("mode {mode}")),
    };
    if let Some(mirror) = mirror {
        return g.differentiate(&g.input("input")?.pad_with(&g.attribute::<Vec<i64>>("pad")?, mirror)?);
    }
    g.differentiate(&g.input("input")?.pad(&g.attribute::<Vec<i64>>("pad")?, g.attribute("value")?)?)
}

fn index_select(g: &Golden) -> Outcome<Vec<Output>> {
    g.differentiate(&g.input("input")?.index_select(g.attribute("dim")?, g.input("index")?)?)
}

fn interpolate(g: &Golden) -> Outcome<Vec<Output>> {
    let (input, mode) = (g.input("input")?, g.attribute::<String>("mode")?);
    let mode = match mode.as_str() {
        "nearest" => Interpolation::Nearest,
        "bilinear" => Interpolation::Bilinear,
        "bicubic" => Interpolation::Bicubic,
        _ => return unsupported(format!("mode {mode}")),
    };
    let factor: Option<[f64; 2]> = g.attribute("scale_factor")?;
    let [_, _, h, w] = input.shape().nchw("interpolate")?;
    let size = match (g.attribute::<Option<[usize; 2]>>("size")?, factor) {
        (Some(size), _) => size,
        (None, Some([by_h, by_w])) => [(h as f64 * by_h) as usize, (w as f64 * by_w) as usize],
        (None, None) => return malformed("interpolate needs size or scale_factor"),
    };
    g.differentiate(&resize::interpolate(input, size, factor, mode, g.attribute::<Option<bool>>("align_corners")?.unwrap_or(false))?)
}
