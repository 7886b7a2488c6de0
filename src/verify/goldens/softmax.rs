//! `softmax` and `loss`.

use super::golden::{Golden, Operator, Outcome, Output, malformed, unsupported};
use crate::dtype::DType;
use crate::op::CrossEntropyOptions;
use crate::tensor::ops::Reduction;

pub(super) const OPERATORS: &[Operator] = &[
    Operator {
        name: "softmax",
        attributes: &["dim"],
        run: |g| g.differentiate(&g.input("input")?.log_softmax(g.attribute("dim")?)?.exp()?),
    },
    Operator { name: "log_softmax", attributes: &["dim"], run: |g| g.differentiate(&g.input("input")?.log_softmax(g.attribute("dim")?)?) },
    Operator { name: "cross_entropy", attributes: &["ignore_index", "reduction", "label_smoothing"], run: cross_entropy },
];

fn cross_entropy(g: &Golden) -> Outcome<Vec<Output>> {
    let reduction = match g.attribute::<String>("reduction")?.as_str() {
        "none" => Reduction::None,
        "sum" => Reduction::Sum,
        "mean" => Reduction::Mean,
        other => return malformed(format!("reduction '{other}' is not none, sum or mean")),
    };
    let (ignore_index, label_smoothing) = (g.attribute("ignore_index")?, g.attribute("label_smoothing")?);
    let (input, target, weight) = (g.input("input")?, g.input("target")?, g.optional("weight"));
    // Floats are probabilities, and then nothing is ignored.
    if target.dtype() != DType::F32 {
        let options = CrossEntropyOptions { ignore_index, label_smoothing, weight: weight.is_some() };
        return g.differentiate(&input.cross_entropy(target, weight, options, reduction)?);
    }
    if weight.is_some() {
        return unsupported("class weights with target probabilities");
    }
    g.differentiate(&input.cross_entropy_soft(target, label_smoothing, reduction)?)
}
