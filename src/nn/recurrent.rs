//! Recurrent nets: RNN, LSTM and GRU, stacked and in both directions, with PyTorch's weights and gate order.
//!
//! The inputs of all steps meet their weights in one matrix product. A step is then one product with the hidden state, and one operation for
//! all that is elementwise.

use super::{Context, Init, Module, Owned, Parameter, init, join};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::op::{Recurrent, Unary};
use crate::tensor::Tensor;

/// Which net.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// `h' = tanh(x + h)`, both after their weights.
    RnnTanh,
    /// `h' = relu(x + h)`.
    RnnRelu,
    /// See [`Recurrent::Lstm`].
    Lstm,
    /// See [`Recurrent::Gru`].
    Gru,
}

impl Cell {
    /// Sums that a step needs for each hidden value.
    pub fn gates(self) -> usize {
        match self {
            Cell::RnnTanh | Cell::RnnRelu => 1,
            Cell::Gru => 3,
            Cell::Lstm => 4,
        }
    }
}

/// Weights of one layer in one direction, G gates of H values.
#[derive(Debug, Clone)]
pub struct Weights {
    /// `weight_ih`, `[G H, I]`.
    pub input: Tensor,
    /// `weight_hh`, `[G H, H]`.
    pub hidden: Tensor,
    /// `bias_ih`, `[G H]`.
    pub input_bias: Option<Tensor>,
    /// `bias_hh`, `[G H]`.
    pub hidden_bias: Option<Tensor>,
}

/// The state between steps: hidden values `h [N, H]`, and for an LSTM `c [N, H]` with them as `[2, N, H]`.
#[derive(Clone)]
pub struct State {
    cell: Cell,
    values: Tensor,
}

impl State {
    /// From hidden values and, for an LSTM, cell values; what is absent is 0.
    ///
    /// # Errors
    /// [`Error::Shape`] when their shapes differ.
    pub fn new(cell: Cell, like: &Tensor, size: [usize; 2], h: Option<&Tensor>, c: Option<&Tensor>) -> Result<Self> {
        let zeros = || Tensor::full(like.device(), &size, like.dtype(), 0.0);
        let of = |given: Option<&Tensor>| given.map_or_else(zeros, |t| t.reshape(&size));
        let values = if cell == Cell::Lstm { Tensor::stack(&[&of(h)?, &of(c)?], 0)? } else { of(h)? };
        Ok(State { cell, values })
    }

    /// Hidden values `[N, H]`.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn h(&self) -> Result<Tensor> {
        if self.cell == Cell::Lstm { self.half(0) } else { Ok(self.values.clone()) }
    }

    /// An LSTM's cell values `[N, H]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for another net.
    pub fn c(&self) -> Result<Tensor> {
        if self.cell == Cell::Lstm { self.half(1) } else { Err(Error::Shape(format!("{:?} has no cell values", self.cell))) }
    }

    fn half(&self, i: usize) -> Result<Tensor> {
        self.values.narrow(0, i, 1)?.reshape(&self.values.shape()[1..])
    }

    /// The state after one more step, whose inputs met their weights already: `gates_x [N, G H]`.
    fn step(&self, gates_x: &Tensor, weights: &Weights) -> Result<State> {
        let gates_h = self.h()?.linear(&weights.hidden, weights.hidden_bias.as_ref())?;
        let values = match self.cell {
            Cell::RnnTanh => gates_x.add(&gates_h)?.tanh()?,
            Cell::RnnRelu => gates_x.add(&gates_h)?.unary(Unary::Relu)?,
            Cell::Lstm => Tensor::apply(Recurrent::Lstm, &[gates_x, &gates_h, &self.values])?.swap_remove(0),
            Cell::Gru => Tensor::apply(Recurrent::Gru, &[gates_x, &gates_h, &self.values])?.swap_remove(0),
        };
        Ok(State { cell: self.cell, values })
    }
}

/// One step, PyTorch's `RNNCell`, `LSTMCell`, `GRUCell`: from `x [N, I]` to the next state.
///
/// # Errors
/// [`Error::Shape`] when sizes do not fit.
pub fn step(x: &Tensor, state: &State, weights: &Weights) -> Result<State> {
    state.step(&x.linear(&weights.input, weights.input_bias.as_ref())?, weights)
}

/// What [`sequence`] gives.
pub struct Sequences {
    /// `[T, N, D H]` of the last layer, D directions.
    pub output: Tensor,
    /// `[layers D, N, H]` after the last step.
    pub h_n: Tensor,
    /// An LSTM's cell values, as `h_n`.
    pub c_n: Option<Tensor>,
}

/// Runs `x [T, N, I]` through layers, whose weights are listed layer by layer and, if `bidirectional`, forward before backward.
///
/// `h0` and `c0` are `[layers D, N, H]`, absent ones 0.
///
/// # Errors
/// [`Error::Shape`] when sizes do not fit, or there are no steps.
pub fn sequence(
    cell: Cell,
    x: &Tensor,
    weights: &[Weights],
    bidirectional: bool,
    h0: Option<&Tensor>,
    c0: Option<&Tensor>,
) -> Result<Sequences> {
    let &[steps, n, _] = &x.shape()[..] else {
        return Err(Error::Shape(format!("a recurrent net expects [T, N, I], got {}", x.shape())));
    };
    let directions = 1 + bidirectional as usize;
    if steps == 0 || weights.is_empty() || !weights.len().is_multiple_of(directions) {
        return Err(Error::Shape(format!(
            "a recurrent net needs at least one step and one layer, got {} and {} weights",
            x.shape(),
            weights.len()
        )));
    }
    let (mut x, mut last) = (x.clone(), Vec::new());
    for (layer, weights) in weights.chunks(directions).enumerate() {
        let mut outputs = Vec::new();
        for (direction, weights) in weights.iter().enumerate() {
            let h = weights.hidden.shape().get(1).copied().unwrap_or(0);
            let part = |given: Option<&Tensor>| given.map(|t| t.narrow(0, layer * directions + direction, 1)).transpose();
            let mut state = State::new(cell, &x, [n, h], part(h0)?.as_ref(), part(c0)?.as_ref())?;
            let gates = x.linear(&weights.input, weights.input_bias.as_ref())?;
            let mut hidden = vec![None; steps];
            for i in 0..steps {
                let t = if direction == 0 { i } else { steps - 1 - i };
                state = state.step(&gates.narrow(0, t, 1)?.reshape(&[n, cell.gates() * h])?, weights)?;
                hidden[t] = Some(state.h()?.reshape(&[1, n, h])?);
            }
            outputs.push(Tensor::concat(&hidden.iter().flatten().collect::<Vec<_>>(), 0)?);
            last.push(state);
        }
        x = if outputs.len() == 1 { outputs.swap_remove(0) } else { Tensor::concat(&outputs.iter().collect::<Vec<_>>(), 2)? };
    }
    let stacked = |of: &dyn Fn(&State) -> Result<Tensor>| -> Result<Tensor> {
        Tensor::stack(&last.iter().map(of).collect::<Result<Vec<_>>>()?.iter().collect::<Vec<_>>(), 0)
    };
    let c_n = if cell == Cell::Lstm { Some(stacked(&State::c)?) } else { None };
    Ok(Sequences { output: x, h_n: stacked(&State::h)?, c_n })
}

/// Sizes of a [`RecurrentNet`], with PyTorch's names and defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecurrentOptions {
    /// Values of an input.
    pub input_size: usize,
    /// Hidden values.
    pub hidden_size: usize,
    /// Layers, each on the outputs of the one before.
    pub num_layers: usize,
    /// Whether the gates have biases.
    pub bias: bool,
    /// Inputs and outputs are `[N, T, ..]`, not `[T, N, ..]`.
    pub batch_first: bool,
    /// A second net reads backwards, and its outputs are appended.
    pub bidirectional: bool,
}

impl RecurrentOptions {
    /// One layer with biases, `[T, N, ..]`, forward.
    pub fn new(input_size: usize, hidden_size: usize) -> Self {
        RecurrentOptions { input_size, hidden_size, num_layers: 1, bias: true, batch_first: false, bidirectional: false }
    }
}

/// PyTorch's `RNN`, `LSTM` and `GRU`. As a module it gives the outputs `[T, N, D H]`, from a state of zeros.
#[derive(Debug)]
pub struct RecurrentNet {
    cell: Cell,
    options: RecurrentOptions,
    /// Layer by layer, forward before backward: `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`.
    parameters: Vec<Vec<Parameter>>,
}

impl RecurrentNet {
    /// A net with PyTorch's initial values, `U(-1 / sqrt(H), 1 / sqrt(H))`.
    ///
    /// # Errors
    /// [`Error::Shape`] for impossible sizes; out of memory.
    pub fn new(device: &Device, cell: Cell, options: RecurrentOptions) -> Result<Self> {
        let RecurrentOptions { input_size, hidden_size: h, num_layers, bias, bidirectional, .. } = options;
        if num_layers == 0 || h == 0 {
            return Err(Error::Shape(format!("{cell:?}: num_layers {num_layers} and hidden_size {h} must be at least 1")));
        }
        let (directions, rows, init) = (1 + bidirectional as usize, cell.gates() * h, Init::Uniform { bound: init::default_bound(h) });
        let mut parameters = Vec::new();
        for i in 0..num_layers * directions {
            let inputs = if i < directions { input_size } else { directions * h };
            let mut shapes = vec![vec![rows, inputs], vec![rows, h]];
            if bias {
                shapes.extend([vec![rows], vec![rows]]);
            }
            parameters.push(shapes.iter().map(|shape| Parameter::new(device, shape, init)).collect::<Result<_>>()?);
        }
        Ok(RecurrentNet { cell, options, parameters })
    }

    /// Outputs and last states, from `h0` and (LSTM) `c0`, `[layers D, N, H]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when sizes do not fit.
    pub fn run(&self, x: &Tensor, h0: Option<&Tensor>, c0: Option<&Tensor>) -> Result<Sequences> {
        let swap = |t: &Tensor| if self.options.batch_first { t.permute(&[1, 0, 2]) } else { Ok(t.clone()) };
        if x.shape().rank() != 3 || x.shape()[2] != self.options.input_size {
            let order = if self.options.batch_first { "[N, T, " } else { "[T, N, " };
            return Err(Error::Shape(format!("{:?} expects {order}{}], got {}", self.cell, self.options.input_size, x.shape())));
        }
        let weights = |p: &Vec<Parameter>| -> Result<Weights> {
            Ok(Weights {
                input: p[0].tensor_for(x)?,
                hidden: p[1].tensor_for(x)?,
                input_bias: p.get(2).map(|bias| bias.tensor_for(x)).transpose()?,
                hidden_bias: p.get(3).map(|bias| bias.tensor_for(x)).transpose()?,
            })
        };
        let weights = self.parameters.iter().map(weights).collect::<Result<Vec<_>>>()?;
        let result = sequence(self.cell, &swap(x)?, &weights, self.options.bidirectional, h0, c0)?;
        Ok(Sequences { output: swap(&result.output)?, ..result })
    }
}

impl Module for RecurrentNet {
    fn forward(&self, _: &mut Context, x: &Tensor) -> Result<Tensor> {
        Ok(self.run(x, None, None)?.output)
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        let directions = 1 + self.options.bidirectional as usize;
        for (i, parameters) in self.parameters.iter().enumerate() {
            let suffix = if i % directions == 1 { "_reverse" } else { "" };
            for (name, parameter) in ["weight_ih", "weight_hh", "bias_ih", "bias_hh"].iter().zip(parameters) {
                visitor(join(path, &format!("{name}_l{}{suffix}", i / directions)), Owned::Parameter(parameter));
            }
        }
    }

    fn describe(&self) -> String {
        format!("{:?} {} -> {}", self.cell, self.options.input_size, self.options.hidden_size)
    }
}
