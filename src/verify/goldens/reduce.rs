//! `reduce`.

use super::golden::{Golden, Operator, Outcome, Output, unsupported};
use crate::op::ReduceKind;
use serde::Deserialize;

pub(super) const OPERATORS: &[Operator] = &[
    Operator { name: "sum", attributes: &["dim", "keepdim"], run: |g| reduce(g, ReduceKind::Sum) },
    Operator { name: "mean", attributes: &["dim", "keepdim"], run: |g| reduce(g, ReduceKind::Mean) },
    Operator { name: "amax", attributes: &["dim", "keepdim"], run: |g| reduce(g, ReduceKind::Max) },
    Operator { name: "amin", attributes: &["dim", "keepdim"], run: |g| reduce(g, ReduceKind::Min) },
    Operator { name: "prod", attributes: &["dim", "keepdim"], run: |g| reduce(g, ReduceKind::Prod) },
    Operator { name: "argmin", attributes: &["dim", "keepdim"], run: |g| reduce(g, ReduceKind::ArgMin) },
    Operator { name: "std", attributes: &["dim", "correction", "keepdim"], run: std },
    Operator { name: "norm", attributes: &["p", "dim", "keepdim"], run: norm },
    Operator { name: "cumsum", attributes: &["dim"], run: |g| g.differentiate(&g.input("input")?.cumsum(g.attribute("dim")?)?) },
    Operator { name: "topk", attributes: &["k", "dim", "largest", "sorted"], run: topk },
    Operator { name: "argmax", attributes: &["dim", "keepdim"], run: |g| reduce(g, ReduceKind::ArgMax) },
    Operator { name: "var", attributes: &["dim", "correction", "keepdim"], run: var },
];

/// `dim` is a list or one dimension.
#[derive(Deserialize)]
#[serde(untagged)]
enum Dims {
    One(i64),
    Many(Vec<i64>),
}

fn dims(g: &Golden) -> Outcome<Option<Vec<i64>>> {
    Ok(match g.attribute("dim")? {
        Some(Dims::One(dim)) => Some(vec![dim]),
        Some(Dims::Many(dims)) => Some(dims),
        None => None,
    })
}

fn reduce(g: &Golden, kind: ReduceKind) -> Outcome<Vec<Output>> {
    g.differentiate(&g.input("input")?.reduce(kind, dims(g)?.as_deref(), g.attribute("keepdim")?)?)
}

fn var(g: &Golden) -> Outcome<Vec<Output>> {
    reduce(g, ReduceKind::Var { correction: g.attribute("correction")? })
}

fn std(g: &Golden) -> Outcome<Vec<Output>> {
    g.differentiate(&g.input("input")?.std(dims(g)?.as_deref(), g.attribute("correction")?, g.attribute("keepdim")?)?)
}

fn norm(g: &Golden) -> Outcome<Vec<Output>> {
    let p: serde_json::Value = g.attribute("p")?;
    let p = match (p.as_f64(), p.as_str()) {
        (Some(p), _) => p,
        (_, Some("inf")) => f64::INFINITY,
        _ => return unsupported(format!("p = {p}")),
    };
    g.differentiate(&g.input("input")?.norm(p, dims(g)?.as_deref(), g.attribute("keepdim")?)?)
}

/// Sorted order is one of the orders that `sorted = false` allows.
fn topk(g: &Golden) -> Outcome<Vec<Output>> {
    let (values, indices) = g.input("input")?.topk(g.attribute("k")?, g.attribute("dim")?, g.attribute("largest")?)?;
    let mut outputs = g.differentiate_as("values", &values)?;
    outputs.push(Output::of("indices", &indices)?);
    Ok(outputs)
}
