//! `activation` and `elementwise`: functions of one or more elements.

use super::golden::{Golden, Operator, Outcome, Output};
use crate::dtype::DType;
use crate::op::{Binary, Comparison, Unary};

pub(super) const OPERATORS: &[Operator] = &[
    plain("relu", |g| unary(g, Unary::Relu)),
    Operator {
        name: "leaky_relu",
        attributes: &["negative_slope"],
        run: |g| unary(g, Unary::LeakyRelu { negative_slope: g.attribute("negative_slope")? }),
    },
    plain("prelu", |g| g.differentiate(&g.input("input")?.prelu(g.input("weight")?)?)),
    Operator { name: "elu", attributes: &["alpha"], run: |g| unary(g, Unary::Elu { alpha: g.attribute("alpha")? }) },
    plain("selu", |g| unary(g, Unary::Selu)),
    Operator { name: "celu", attributes: &["alpha"], run: |g| unary(g, Unary::Celu { alpha: g.attribute("alpha")? }) },
    Operator { name: "gelu", attributes: &["approximate"], run: gelu },
    plain("silu", |g| unary(g, Unary::Silu)),
    plain("mish", |g| unary(g, Unary::Mish)),
    plain("hardswish", |g| unary(g, Unary::Hardswish)),
    plain("hardsigmoid", |g| unary(g, Unary::Hardsigmoid)),
    Operator { name: "hardtanh", attributes: &["min_val", "max_val"], run: |g| clamp(g, g.attribute("min_val")?, g.attribute("max_val")?) },
    plain("relu6", |g| clamp(g, Some(0.0), Some(6.0))),
    plain("sigmoid", |g| unary(g, Unary::Sigmoid)),
    plain("logsigmoid", |g| unary(g, Unary::LogSigmoid)),
    plain("tanh", |g| unary(g, Unary::Tanh)),
    Operator {
        name: "softplus",
        attributes: &["beta", "threshold"],
        run: |g| unary(g, Unary::Softplus { beta: g.attribute("beta")?, threshold: g.attribute("threshold")? }),
    },
    plain("softsign", |g| unary(g, Unary::Softsign)),
    plain("exp", |g| unary(g, Unary::Exp)),
    plain("log", |g| unary(g, Unary::Log)),
    plain("sqrt", |g| unary(g, Unary::Sqrt)),
    plain("rsqrt", |g| unary(g, Unary::Rsqrt)),
    plain("abs", |g| unary(g, Unary::Abs)),
    plain("neg", |g| unary(g, Unary::Neg)),
    plain("reciprocal", |g| unary(g, Unary::Reciprocal)),
    plain("square", |g| unary(g, Unary::Square)),
    plain("sin", |g| unary(g, Unary::Sin)),
    plain("cos", |g| unary(g, Unary::Cos)),
    plain("erf", |g| unary(g, Unary::Erf)),
    plain("sign", |g| unary(g, Unary::Sign)),
    Operator { name: "pow", attributes: &["exponent"], run: pow },
    Operator { name: "clamp", attributes: &["min", "max"], run: |g| clamp(g, g.attribute("min")?, g.attribute("max")?) },
    plain("add", |g| binary(g, Binary::Add)),
    plain("sub", |g| binary(g, Binary::Sub)),
    plain("mul", |g| binary(g, Binary::Mul)),
    plain("div", |g| binary(g, Binary::Div)),
    plain("maximum", |g| binary(g, Binary::Maximum)),
    plain("minimum", |g| binary(g, Binary::Minimum)),
    plain("where", |g| g.differentiate(&g.input("input")?.where_(&g.input("condition")?.cast(DType::U32)?, g.input("other")?)?)),
    plain("eq", |g| compare(g, Comparison::Eq)),
    plain("ne", |g| compare(g, Comparison::Ne)),
    plain("lt", |g| compare(g, Comparison::Lt)),
    plain("le", |g| compare(g, Comparison::Le)),
    plain("gt", |g| compare(g, Comparison::Gt)),
    plain("ge", |g| compare(g, Comparison::Ge)),
    plain("isnan", |g| g.differentiate(&g.input("input")?.isnan()?)),
    plain("isinf", |g| g.differentiate(&g.input("input")?.isinf()?)),
];

/// An operator without attributes.
const fn plain(name: &'static str, run: fn(&Golden) -> Outcome<Vec<Output>>) -> Operator {
    Operator { name, attributes: &[], run }
}

fn unary(g: &Golden, f: Unary) -> Outcome<Vec<Output>> {
    g.differentiate(&g.input("input")?.unary(f)?)
}

fn clamp(g: &Golden, min: Option<f64>, max: Option<f64>) -> Outcome<Vec<Output>> {
    g.differentiate(&g.input("input")?.clamp(min, max)?)
}

fn gelu(g: &Golden) -> Outcome<Vec<Output>> {
    match g.attribute::<String>("approximate")?.as_str() {
        "none" => unary(g, Unary::Gelu),
        "tanh" => unary(g, Unary::GeluTanh),
        other => super::unsupported(format!("approximate {other}")),
    }
}

fn pow(g: &Golden) -> Outcome<Vec<Output>> {
    match g.optional("exponent") {
        Some(exponent) => g.differentiate(&g.input("input")?.pow(exponent)?),
        None => unary(g, Unary::Pow { exponent: g.attribute("exponent")? }),
    }
}

fn binary(g: &Golden, f: Binary) -> Outcome<Vec<Output>> {
    g.differentiate(&g.input("input")?.binary(f, g.input("other")?)?)
}

fn compare(g: &Golden, f: Comparison) -> Outcome<Vec<Output>> {
    g.differentiate(&g.input("input")?.compare(f, g.input("other")?)?)
}
