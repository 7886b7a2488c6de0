//! `activation` and `elementwise`: functions of one or two elements.

use super::golden::{Golden, Operator, Outcome, Output};
use crate::op::{Binary, Unary};

pub(super) const OPERATORS: &[Operator] = &[
    Operator { name: "relu", attributes: &[], run: |g| unary(g, Unary::Relu) },
    Operator { name: "leaky_relu", attributes: &["negative_slope"], run: leaky_relu },
    Operator { name: "sigmoid", attributes: &[], run: |g| unary(g, Unary::Sigmoid) },
    Operator { name: "tanh", attributes: &[], run: |g| unary(g, Unary::Tanh) },
    Operator { name: "exp", attributes: &[], run: |g| unary(g, Unary::Exp) },
    Operator { name: "log", attributes: &[], run: |g| unary(g, Unary::Log) },
    Operator { name: "sqrt", attributes: &[], run: |g| unary(g, Unary::Sqrt) },
    Operator { name: "abs", attributes: &[], run: |g| unary(g, Unary::Abs) },
    Operator { name: "neg", attributes: &[], run: |g| unary(g, Unary::Neg) },
    Operator { name: "reciprocal", attributes: &[], run: |g| unary(g, Unary::Reciprocal) },
    Operator { name: "square", attributes: &[], run: |g| unary(g, Unary::Square) },
    Operator { name: "add", attributes: &[], run: |g| binary(g, Binary::Add) },
    Operator { name: "sub", attributes: &[], run: |g| binary(g, Binary::Sub) },
    Operator { name: "mul", attributes: &[], run: |g| binary(g, Binary::Mul) },
    Operator { name: "div", attributes: &[], run: |g| binary(g, Binary::Div) },
];

fn unary(g: &Golden, f: Unary) -> Outcome<Vec<Output>> {
    g.differentiate(&g.input("input")?.unary(f)?)
}

fn leaky_relu(g: &Golden) -> Outcome<Vec<Output>> {
    unary(g, Unary::LeakyRelu { negative_slope: g.attribute("negative_slope")? })
}

fn binary(g: &Golden, f: Binary) -> Outcome<Vec<Output>> {
    g.differentiate(&g.input("input")?.binary(f, g.input("other")?)?)
}
