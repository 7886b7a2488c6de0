//! `softmax`, and the cross-entropy of `loss`.

use super::golden::{Golden, Operator, Outcome, Output, malformed};
use crate::dtype::DType;
use crate::nn::loss::soft_cross_entropy;
use crate::op::CrossEntropyOptions;
use crate::tensor::ops::Reduction;

pub(super) const OPERATORS: &[Operator] = &[
    Operator { name: "softmax", attributes: &["dim"], run: |g| g.differentiate(&g.input("input")?.softmax(g.attribute("dim")?)?) },
    Operator { name: "log_softmax", attributes: &["dim"], run: |g| g.differentiate(&g.input("input")?.log_softmax(g.attribute("dim")?)?) },
    Operator {
        name: "logsumexp",
        attributes: &["dim", "keepdim"],
        run: |g| g.differentiate(&g.input("input")?.logsumexp(&g.attribute::<Vec<i64>>("dim")?, g.attribute("keepdim")?)?),
    },
    Operator { name: "cross_entropy", attributes: &["ignore_index", "reduction", "label_smoothing"], run: cross_entropy },
];

pub(super) fn reduction(g: &Golden) -> Outcome<Reduction> {
    match g.attribute::<String>("reduction")?.as_str() {
        "none" => Ok(Reduction::None),
        "sum" => Ok(Reduction::Sum),
        "mean" => Ok(Reduction::Mean),
        other => malformed(format!("reduction '{other}' is not none, sum or mean")),
    }
}

fn cross_entropy(g: &Golden) -> Outcome<Vec<Output>> {
    let (ignore_index, label_smoothing) = (g.attribute("ignore_index")?, g.attribute("label_smoothing")?);
    let (input, target, weight) = (g.input("input")?, g.input("target")?, g.optional("weight"));
    // Floats are probabilities, and then nothing is ignored.
    if target.dtype() == DType::F32 {
        return g.differentiate(&soft_cross_entropy(input, target, weight, label_smoothing, reduction(g)?)?);
    }
    let options = CrossEntropyOptions { ignore_index, label_smoothing, weight: weight.is_some() };
    g.differentiate(&input.cross_entropy(target, weight, options, reduction(g)?)?)
}
