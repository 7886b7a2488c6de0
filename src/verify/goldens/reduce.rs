//! `reduce`.

use super::golden::{Golden, Operator, Outcome, Output};
use crate::op::ReduceKind;
use serde::Deserialize;

pub(super) const OPERATORS: &[Operator] = &[
    Operator { name: "sum", attributes: &["dim", "keepdim"], run: |g| reduce(g, ReduceKind::Sum) },
    Operator { name: "mean", attributes: &["dim", "keepdim"], run: |g| reduce(g, ReduceKind::Mean) },
    Operator { name: "amax", attributes: &["dim", "keepdim"], run: |g| reduce(g, ReduceKind::Max) },
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

fn reduce(g: &Golden, kind: ReduceKind) -> Outcome<Vec<Output>> {
    let dims = match g.attribute("dim")? {
        Some(Dims::One(dim)) => Some(vec![dim]),
        Some(Dims::Many(dims)) => Some(dims),
        None => None,
    };
    g.differentiate(&g.input("input")?.reduce(kind, dims.as_deref(), g.attribute("keepdim")?)?)
}

fn var(g: &Golden) -> Outcome<Vec<Output>> {
    reduce(g, ReduceKind::Var { correction: g.attribute("correction")? })
}
