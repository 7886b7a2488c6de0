//! `matmul`: products of matrices.

use super::golden::{Golden, Operator, Outcome, Output};

pub(super) const OPERATORS: &[Operator] = &[
    Operator { name: "matmul", attributes: &["transpose_a", "transpose_b"], run: matmul },
    Operator {
        name: "linear",
        attributes: &[],
        run: |g| g.differentiate(&g.input("input")?.linear(g.input("weight")?, g.optional("bias"))?),
    },
];

fn matmul(g: &Golden) -> Outcome<Vec<Output>> {
    let (transpose_a, transpose_b) = (g.attribute("transpose_a")?, g.attribute("transpose_b")?);
    g.differentiate(&g.input("input")?.matmul_with(g.input("other")?, transpose_a, transpose_b)?)
}
