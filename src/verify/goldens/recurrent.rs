//! `recurrent`: nets over sequences, and single steps.

use super::golden::{Golden, Operator, Outcome, Output, unsupported};
use crate::nn::recurrent::{self, Cell, Given, State, Weights};
use crate::tensor::Tensor;

const NET: &[&str] = &["input_size", "hidden_size", "num_layers", "bidirectional", "batch_first", "bias"];
const RNN: &[&str] = &["input_size", "hidden_size", "num_layers", "bidirectional", "batch_first", "bias", "nonlinearity"];
const CELL: &[&str] = &["input_size", "hidden_size", "bias"];
const RNN_CELL: &[&str] = &["input_size", "hidden_size", "bias", "nonlinearity"];

pub(super) const OPERATORS: &[Operator] = &[
    Operator { name: "rnn", attributes: RNN, run: |g| net(g, nonlinearity(g)?) },
    Operator { name: "lstm", attributes: NET, run: |g| net(g, Cell::Lstm) },
    Operator { name: "gru", attributes: NET, run: |g| net(g, Cell::Gru) },
    Operator { name: "rnn_cell", attributes: RNN_CELL, run: |g| step(g, nonlinearity(g)?) },
    Operator { name: "lstm_cell", attributes: CELL, run: |g| step(g, Cell::Lstm) },
    Operator { name: "gru_cell", attributes: CELL, run: |g| step(g, Cell::Gru) },
];

fn nonlinearity(g: &Golden) -> Outcome<Cell> {
    match g.attribute::<String>("nonlinearity")?.as_str() {
        "tanh" => Ok(Cell::RnnTanh),
        "relu" => Ok(Cell::RnnRelu),
        other => unsupported(format!("nonlinearity {other}")),
    }
}

fn weights(g: &Golden, suffix: &str) -> Outcome<Weights> {
    Ok(Weights {
        input: g.input(&format!("weight_ih{suffix}"))?.clone(),
        hidden: g.input(&format!("weight_hh{suffix}"))?.clone(),
        input_bias: g.optional(&format!("bias_ih{suffix}")).cloned(),
        hidden_bias: g.optional(&format!("bias_hh{suffix}")).cloned(),
    })
}

fn net(g: &Golden, cell: Cell) -> Outcome<Vec<Output>> {
    let (layers, bidirectional, batch_first) =
        (g.attribute::<usize>("num_layers")?, g.attribute("bidirectional")?, g.attribute("batch_first")?);
    let mut all = Vec::new();
    for layer in 0..layers {
        all.push(weights(g, &format!("_l{layer}"))?);
        if bidirectional {
            all.push(weights(g, &format!("_l{layer}_reverse"))?);
        }
    }
    let swap = |t: &Tensor| if batch_first { t.permute(&[1, 0, 2]) } else { Ok(t.clone()) };
    let given = Given { h0: g.optional("h0"), c0: g.optional("c0"), mask: None };
    let result = recurrent::sequence(cell, &swap(g.input("input")?)?, &all, bidirectional, given, &mut Ok)?;
    let mut outputs = vec![("output", swap(&result.output)?), ("h_n", result.h_n)];
    outputs.extend(result.c_n.map(|c| ("c_n", c)));
    g.differentiate_all(&outputs)
}

fn step(g: &Golden, cell: Cell) -> Outcome<Vec<Output>> {
    let (x, h) = (g.input("input")?, g.input("h")?);
    let size = [h.shape()[0], h.shape()[1]];
    let next = recurrent::step(x, &State::new(cell, x, size, Some(h), g.optional("c"))?, &weights(g, "")?)?;
    let mut outputs = vec![("h", next.h()?)];
    if cell == Cell::Lstm {
        outputs.push(("c", next.c()?));
    }
    g.differentiate_all(&outputs)
}
