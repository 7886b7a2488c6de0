//! `loss`, but for cross-entropy, which stands with the softmax.

use super::golden::{Golden, Operator, Outcome, Output, malformed};
use super::softmax::reduction;
use crate::nn::loss::{self, KlReduction};
use crate::tensor::Tensor;
use crate::tensor::ops::Reduction;

const REDUCTION: &[&str] = &["reduction"];

pub(super) const OPERATORS: &[Operator] = &[
    Operator { name: "nll_loss", attributes: &["ignore_index", "reduction"], run: nll },
    Operator { name: "mse_loss", attributes: REDUCTION, run: |g| simple(g, loss::mse) },
    Operator { name: "l1_loss", attributes: REDUCTION, run: |g| simple(g, loss::l1) },
    Operator { name: "soft_margin_loss", attributes: REDUCTION, run: |g| simple(g, loss::soft_margin) },
    Operator { name: "smooth_l1_loss", attributes: &["reduction", "beta"], run: |g| bent(g, "beta", loss::smooth_l1) },
    Operator { name: "huber_loss", attributes: &["reduction", "delta"], run: |g| bent(g, "delta", loss::huber) },
    Operator { name: "hinge_embedding_loss", attributes: &["reduction", "margin"], run: |g| bent(g, "margin", loss::hinge_embedding) },
    Operator { name: "binary_cross_entropy", attributes: REDUCTION, run: binary_cross_entropy },
    Operator { name: "binary_cross_entropy_with_logits", attributes: REDUCTION, run: with_logits },
    Operator { name: "kl_div", attributes: &["reduction", "log_target"], run: kl_div },
];

fn simple(g: &Golden, f: fn(&Tensor, &Tensor, Reduction) -> crate::Result<Tensor>) -> Outcome<Vec<Output>> {
    g.differentiate(&f(g.input("input")?, g.input("target")?, reduction(g)?)?)
}

fn bent(g: &Golden, key: &str, f: fn(&Tensor, &Tensor, f64, Reduction) -> crate::Result<Tensor>) -> Outcome<Vec<Output>> {
    g.differentiate(&f(g.input("input")?, g.input("target")?, g.attribute(key)?, reduction(g)?)?)
}

fn nll(g: &Golden) -> Outcome<Vec<Output>> {
    g.differentiate(&loss::nll(g.input("input")?, g.input("target")?, g.optional("weight"), g.attribute("ignore_index")?, reduction(g)?)?)
}

fn binary_cross_entropy(g: &Golden) -> Outcome<Vec<Output>> {
    g.differentiate(&loss::binary_cross_entropy(g.input("input")?, g.input("target")?, g.optional("weight"), reduction(g)?)?)
}

fn with_logits(g: &Golden) -> Outcome<Vec<Output>> {
    let (weight, pos_weight) = (g.optional("weight"), g.optional("pos_weight"));
    g.differentiate(&loss::binary_cross_entropy_with_logits(g.input("input")?, g.input("target")?, weight, pos_weight, reduction(g)?)?)
}

fn kl_div(g: &Golden) -> Outcome<Vec<Output>> {
    let reduction = match g.attribute::<String>("reduction")?.as_str() {
        "batchmean" => KlReduction::BatchMean,
        "mean" => KlReduction::Elements(Reduction::Mean),
        "sum" => KlReduction::Elements(Reduction::Sum),
        "none" => KlReduction::Elements(Reduction::None),
        other => return malformed(format!("reduction {other}")),
    };
    g.differentiate(&loss::kl_div(g.input("input")?, g.input("target")?, g.attribute("log_target")?, reduction)?)
}
