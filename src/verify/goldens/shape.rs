//! `shape`: what moves elements.

use super::golden::{Golden, Operator, Outcome, Output, malformed, unsupported};
use crate::tensor::Tensor;

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
];

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
    if mode != "constant" {
        return unsupported(format!("mode {mode}"));
    }
    g.differentiate(&g.input("input")?.pad(&g.attribute::<Vec<i64>>("pad")?, g.attribute("value")?)?)
}

fn index_select(g: &Golden) -> Outcome<Vec<Output>> {
    g.differentiate(&g.input("input")?.index_select(g.attribute("dim")?, g.input("index")?)?)
}
