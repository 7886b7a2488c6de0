//! Recurrent nets: RNN, LSTM and GRU, stacked and in both directions, with PyTorch's weights and gate order.
//!
//! The inputs of all steps meet their weights in one matrix product. A step is then one product with the hidden state, and one operation for
//! all that is elementwise; an LSTM's steps are one operation together, unless a mask lets some of them out.

use super::{Context, Dropout, Init, Module, Owned, Parameter, init, join};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::op::{Comparison, Recurrent, Unary};
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

    /// The state after one more step, whose inputs met their weights already: `gates_x [N, G H]`. It stays as it is where `present [N, 1]` is 0.
    fn step(&self, gates_x: &Tensor, weights: &Weights, present: Option<&Tensor>) -> Result<State> {
        let gates_h = self.h()?.linear(&weights.hidden, weights.hidden_bias.as_ref())?;
        let values = match self.cell {
            Cell::RnnTanh => gates_x.add(&gates_h)?.tanh()?,
            Cell::RnnRelu => gates_x.add(&gates_h)?.unary(Unary::Relu)?,
            Cell::Lstm => Tensor::apply(Recurrent::Lstm, &[gates_x, &gates_h, &self.values])?.swap_remove(0),
            Cell::Gru => Tensor::apply(Recurrent::Gru, &[gates_x, &gates_h, &self.values])?.swap_remove(0),
        };
        let values = present.map_or_else(|| Ok(values.clone()), |present| values.where_(present, &self.values))?;
        Ok(State { cell: self.cell, values })
    }
}

/// One step, PyTorch's `RNNCell`, `LSTMCell`, `GRUCell`: from `x [N, I]` to the next state.
///
/// # Errors
/// [`Error::Shape`] when sizes do not fit.
pub fn step(x: &Tensor, state: &State, weights: &Weights) -> Result<State> {
    state.step(&x.linear(&weights.input, weights.input_bias.as_ref())?, weights, None)
}

/// What a net may be given besides its inputs.
#[derive(Debug, Default, Clone, Copy)]
pub struct Given<'a> {
    /// Hidden values to begin with, `[layers D, N, H]`; absent ones are 0.
    pub h0: Option<&'a Tensor>,
    /// An LSTM's cell values to begin with, as `h0`.
    pub c0: Option<&'a Tensor>,
    /// Which steps each sequence has, u32 `[T, N]`: 0 where it is over. A state passes such steps as it is, and their outputs are 0, as in PyTorch's packed
    /// sequences. See [`mask`].
    pub mask: Option<&'a Tensor>,
}

/// The mask `[T, N]` of N sequences of some lengths in a batch of T steps.
///
/// # Errors
/// [`Error::Shape`] naming a sequence that is empty or longer than T.
pub fn mask(device: &Device, steps: usize, lengths: &[usize]) -> Result<Tensor> {
    if let Some((i, length)) = lengths.iter().enumerate().find(|(_, length)| !(1..=steps).contains(*length)) {
        return Err(Error::Shape(format!("sequence {i} has length {length}; lengths are 1 to {steps}, the steps of the batch")));
    }
    let present: Vec<u32> = (0..steps).flat_map(|t| lengths.iter().map(move |&length| (t < length) as u32)).collect();
    Tensor::from_slice(device, &[steps, lengths.len()], &present)
}

/// What [`sequence`] gives.
#[derive(Debug)]
pub struct Sequences {
    /// `[T, N, D H]` of the last layer, D directions.
    pub output: Tensor,
    /// `[layers D, N, H]` after the last step.
    pub h_n: Tensor,
    /// An LSTM's cell values, as `h_n`.
    pub c_n: Option<Tensor>,
}

impl Sequences {
    /// The last states without their history, to go on with in the next piece of a long sequence: gradients stop there (truncated backpropagation through
    /// time, Williams and Peng 1990).
    pub fn detached(&self) -> (Tensor, Option<Tensor>) {
        (self.h_n.detach(), self.c_n.as_ref().map(Tensor::detach))
    }
}

/// Runs `x [T, N, I]` through layers, whose weights are listed layer by layer and, if `bidirectional`, forward before backward. `between` changes what
/// goes from a layer to the next: dropout.
///
/// # Errors
/// [`Error::Shape`] when sizes do not fit, or there are no steps.
pub fn sequence(
    cell: Cell,
    x: &Tensor,
    weights: &[Weights],
    bidirectional: bool,
    given: Given,
    between: &mut dyn FnMut(Tensor) -> Result<Tensor>,
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
    let size = weights[0].hidden.shape().get(1).copied().unwrap_or(0);
    for (name, state) in [("h0", given.h0), ("c0", given.c0)] {
        if let Some(state) = state.filter(|state| state.shape()[..] != [weights.len(), n, size]) {
            let want = [weights.len(), n, size];
            return Err(Error::Shape(format!(
                "{name} is [layers, N, H] = {want:?} (a layer in two directions counts twice), got {}",
                state.shape()
            )));
        }
    }
    if given.c0.is_some() && cell != Cell::Lstm {
        return Err(Error::Shape(format!("c0: {cell:?} has no cell values")));
    }
    if let Some(mask) = given.mask.filter(|mask| mask.shape()[..] != [steps, n]) {
        return Err(Error::Shape(format!("the mask is [T, N] = [{steps}, {n}], got {}", mask.shape())));
    }
    let present = |t: usize| given.mask.map(|mask| mask.narrow(0, t, 1)?.reshape(&[n, 1])).transpose();
    let (mut x, mut last) = (x.clone(), Vec::new());
    let layers = weights.len() / directions;
    for (layer, weights) in weights.chunks(directions).enumerate() {
        let mut outputs = Vec::new();
        for (direction, weights) in weights.iter().enumerate() {
            let h = weights.hidden.shape().get(1).copied().unwrap_or(0);
            let part = |given: Option<&Tensor>| given.map(|t| t.narrow(0, layer * directions + direction, 1)).transpose();
            let mut state = State::new(cell, &x, [n, h], part(given.h0)?.as_ref(), part(given.c0)?.as_ref())?;
            if cell == Cell::Lstm && given.mask.is_none() {
                let (output, end) = lstm_layer(&x, weights, &state, direction == 1)?;
                outputs.push(output);
                last.push(end);
                continue;
            }
            let gates = x.linear(&weights.input, weights.input_bias.as_ref())?;
            let mut hidden = vec![None; steps];
            for i in 0..steps {
                let t = if direction == 0 { i } else { steps - 1 - i };
                state = state.step(&gates.narrow(0, t, 1)?.reshape(&[n, cell.gates() * h])?, weights, present(t)?.as_ref())?;
                hidden[t] = Some(state.h()?.reshape(&[1, n, h])?);
            }
            outputs.push(Tensor::concat(&hidden.iter().flatten().collect::<Vec<_>>(), 0)?);
            last.push(state);
        }
        x = if outputs.len() == 1 { outputs.swap_remove(0) } else { Tensor::concat(&outputs.iter().collect::<Vec<_>>(), 2)? };
        if let Some(mask) = given.mask {
            let zero = Tensor::full(x.device(), &[1], x.dtype(), 0.0)?;
            x = x.where_(&mask.reshape(&[steps, n, 1])?, &zero)?;
        }
        if layer + 1 < layers {
            x = between(x)?;
        }
    }
    let stacked = |of: &dyn Fn(&State) -> Result<Tensor>| -> Result<Tensor> {
        Tensor::stack(&last.iter().map(of).collect::<Result<Vec<_>>>()?.iter().collect::<Vec<_>>(), 0)
    };
    let c_n = if cell == Cell::Lstm { Some(stacked(&State::c)?) } else { None };
    Ok(Sequences { output: x, h_n: stacked(&State::h)?, c_n })
}

/// All steps of an LSTM in one operation: its outputs `[T, N, H]`, and its last state.
fn lstm_layer(x: &Tensor, weights: &Weights, first: &State, reverse: bool) -> Result<(Tensor, State)> {
    // Both biases are added to the same sums.
    let bias = match (&weights.input_bias, &weights.hidden_bias) {
        (Some(a), Some(b)) => Some(a.add(b)?),
        (a, b) => a.clone().or_else(|| b.clone()),
    };
    let gates = x.linear(&weights.input, bias.as_ref())?;
    let states = Tensor::apply(Recurrent::LstmLayer { reverse }, &[&gates, &weights.hidden, &first.values])?.swap_remove(0);
    let &[steps, _, n, h] = &states.shape()[..] else {
        return Err(Error::Shape(format!("states are [T, 2, N, H], got {}", states.shape())));
    };
    let output = states.slice(&[0, 0, 0, 0], &[steps as i64, 1, n as i64, h as i64], &[1; 4])?.reshape(&[steps, n, h])?;
    let end = states.narrow(0, if reverse { 0 } else { steps - 1 }, 1)?.reshape(&[2, n, h])?;
    Ok((output, State { cell: Cell::Lstm, values: end }))
}

/// Sizes of a [`RecurrentNet`], with PyTorch's names and defaults.
#[derive(Debug, Clone, Copy, PartialEq)]
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
    /// The probability that an output of a layer, but for the last, is dropped in training.
    pub dropout: f64,
}

impl RecurrentOptions {
    /// One layer with biases, `[T, N, ..]`, forward, without dropout.
    pub fn new(input_size: usize, hidden_size: usize) -> Self {
        RecurrentOptions { input_size, hidden_size, num_layers: 1, bias: true, batch_first: false, bidirectional: false, dropout: 0.0 }
    }
}

/// PyTorch's `RNN`, `LSTM` and `GRU`. As a module it gives the outputs `[T, N, D H]`, from a state of zeros.
#[derive(Debug)]
pub struct RecurrentNet {
    cell: Cell,
    options: RecurrentOptions,
    /// Layer by layer, forward before backward: `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`.
    parameters: Vec<Vec<Parameter>>,
    dropout: Dropout,
}

impl RecurrentNet {
    /// A net with PyTorch's initial values, `U(-1 / sqrt(H), 1 / sqrt(H))`.
    ///
    /// # Errors
    /// [`Error::Shape`] for impossible sizes, [`Error::Config`] for an impossible `dropout`; out of memory.
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
        Ok(RecurrentNet { cell, options, parameters, dropout: Dropout::new(options.dropout)? })
    }

    /// Outputs and last states.
    ///
    /// # Errors
    /// [`Error::Shape`] when sizes do not fit.
    pub fn run(&self, ctx: &mut Context, x: &Tensor, given: Given) -> Result<Sequences> {
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
        let mut between = |x: Tensor| self.dropout.forward(ctx, &x);
        let result = sequence(self.cell, &swap(x)?, &weights, self.options.bidirectional, given, &mut between)?;
        Ok(Sequences { output: swap(&result.output)?, ..result })
    }
}

impl Module for RecurrentNet {
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        Ok(self.run(ctx, x, Given::default())?.output)
    }

    fn draws(&self) -> bool {
        self.options.dropout > 0.0 && self.options.num_layers > 1
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
        let RecurrentOptions { input_size, hidden_size, num_layers, bidirectional, dropout, .. } = self.options;
        let several = if num_layers > 1 { format!(", {num_layers} layers") } else { String::new() };
        let both = if bidirectional { ", both directions" } else { "" };
        let dropout = if self.draws() { format!(", dropout {dropout}") } else { String::new() };
        format!("{:?} {input_size} -> {hidden_size}{several}{both}{dropout}", self.cell)
    }
}

/// Reads images `[N, C, H, W]` row by row, a row being `C W` values, and gives the last layer's state after the last one, `[N, D H]`.
///
/// With `masked` the first value of a row of the first channel says whether there is such a row: 0 for what only fills a batch.
#[derive(Debug)]
pub struct RowReader {
    net: RecurrentNet,
    masked: bool,
}

impl RowReader {
    /// A net for images `[C, H, W]`; `input_size` and `batch_first` of the options are not used.
    ///
    /// # Errors
    /// As [`RecurrentNet::new`]; [`Error::Shape`] when masked rows have one value.
    pub fn new(device: &Device, cell: Cell, [c, _, w]: [usize; 3], options: RecurrentOptions, masked: bool) -> Result<Self> {
        if masked && (c != 1 || w < 2) {
            return Err(Error::Shape(format!("masked rows have one channel and at least two values, got {c} and {w}")));
        }
        let input_size = c * w - masked as usize;
        Ok(RowReader { net: RecurrentNet::new(device, cell, RecurrentOptions { input_size, batch_first: false, ..options })?, masked })
    }
}

impl Module for RowReader {
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        let [n, c, h, w] = x.shape().nchw("a reader of rows")?;
        let rows = x.permute(&[2, 0, 1, 3])?.reshape(&[h, n, c * w])?;
        let (rows, mask) = if self.masked {
            let half = Tensor::full(x.device(), &[1], x.dtype(), 0.5)?;
            let mask = rows.narrow(2, 0, 1)?.reshape(&[h, n])?.compare(Comparison::Gt, &half)?;
            (rows.narrow(2, 1, w - 1)?, Some(mask))
        } else {
            (rows, None)
        };
        let h_n = self.net.run(ctx, &rows, Given { mask: mask.as_ref(), ..Given::default() })?.h_n;
        let RecurrentOptions { hidden_size, num_layers, bidirectional, .. } = self.net.options;
        let directions = 1 + bidirectional as usize;
        let last = h_n.narrow(0, (num_layers - 1) * directions, directions)?;
        last.permute(&[1, 0, 2])?.reshape(&[n, directions * hidden_size])
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        self.net.visit(path, visitor);
    }

    fn draws(&self) -> bool {
        self.net.draws()
    }

    fn describe(&self) -> String {
        format!("{}, row by row", self.net.describe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{initialize, named_parameters};
    use crate::rng::Stream;

    fn net(device: &Device, cell: Cell, options: RecurrentOptions) -> RecurrentNet {
        let net = RecurrentNet::new(device, cell, options).unwrap();
        initialize(&net, 3).unwrap();
        net
    }

    fn noise(device: &Device, shape: &[usize]) -> Tensor {
        Tensor::normal(device, shape, 0.0, 1.0, Stream::new(1, "x", 0, 0)).unwrap()
    }

    #[test]
    fn a_masked_batch_is_its_sequences_one_by_one() {
        let device = Device::cpu(1).unwrap();
        for cell in [Cell::RnnTanh, Cell::Gru, Cell::Lstm] {
            for (num_layers, bidirectional) in [(1, false), (2, true)] {
                let net = net(&device, cell, RecurrentOptions { num_layers, bidirectional, ..RecurrentOptions::new(3, 4) });
                let (x, lengths) = (noise(&device, &[5, 3, 3]).requires_grad(), [2, 5, 1]);
                let mask = mask(x.device(), 5, &lengths).unwrap();
                let all = net.run(&mut Context::eval(), &x, Given { mask: Some(&mask), ..Given::default() }).unwrap();
                let weights = named_parameters(&net);
                let gradient = |result: &Sequences| {
                    weights.iter().for_each(|(_, p)| p.clear_grad());
                    result.output.unary(Unary::Square).unwrap().sum(None, false).unwrap().backward().unwrap();
                    weights.iter().flat_map(|(_, p)| p.grad().unwrap().to_vec_blocking::<f32>().unwrap()).collect::<Vec<f32>>()
                };
                let whole = gradient(&all);
                let mut sum = vec![0.0; whole.len()];
                for (i, &length) in lengths.iter().enumerate() {
                    let own = x.detach().narrow(1, i, 1).unwrap().narrow(0, 0, length).unwrap();
                    let alone = net.run(&mut Context::eval(), &own, Given::default()).unwrap();
                    let pick = |t: &Tensor, steps: usize| {
                        t.narrow(1, i, 1).unwrap().narrow(0, 0, steps).unwrap().to_vec_blocking::<f32>().unwrap()
                    };
                    let directions = 1 + bidirectional as usize;
                    // An LSTM without a mask adds its sums in another order: a few roundings of values below 1.
                    let near = |a: Vec<f32>, b: &Tensor| {
                        let b = b.to_vec_blocking::<f32>().unwrap();
                        assert!(a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6), "{cell:?}: {a:?} beside {b:?}");
                    };
                    near(pick(&all.output, length), &alone.output);
                    near(pick(&all.h_n, num_layers * directions), &alone.h_n);
                    // What follows the end is 0.
                    let padded = all.output.narrow(1, i, 1).unwrap().narrow(0, length, 5 - length).unwrap();
                    assert!(padded.to_vec_blocking::<f32>().unwrap().iter().all(|&v| v == 0.0));
                    gradient(&alone).iter().zip(&mut sum).for_each(|(g, sum)| *sum += g);
                }
                for (a, b) in whole.iter().zip(&sum) {
                    // Sums of at most 15 products in another order.
                    assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{cell:?}: {a} beside {b}");
                }
            }
        }
    }

    #[test]
    fn pieces_with_detached_states_give_the_whole_and_their_own_gradients() {
        let device = Device::cpu(1).unwrap();
        let net = net(&device, Cell::Lstm, RecurrentOptions { num_layers: 2, ..RecurrentOptions::new(3, 4) });
        let x = noise(&device, &[6, 2, 3]);
        let whole = net.run(&mut Context::eval(), &x, Given::default()).unwrap();
        let first = net.run(&mut Context::eval(), &x.narrow(0, 0, 4).unwrap(), Given::default()).unwrap();
        let (h, c) = first.detached();
        let second = x.narrow(0, 4, 2).unwrap().requires_grad();
        let second_run = net.run(&mut Context::eval(), &second, Given { h0: Some(&h), c0: c.as_ref(), mask: None }).unwrap();
        assert_eq!(
            second_run.output.to_vec_blocking::<f32>().unwrap(),
            whole.output.narrow(0, 4, 2).unwrap().to_vec_blocking::<f32>().unwrap()
        );
        second_run.output.sum(None, false).unwrap().backward().unwrap();
        assert!(second.grad().is_some() && h.grad().is_none());
    }

    #[test]
    fn dropout_is_between_layers_in_training_alone() {
        let device = Device::cpu(1).unwrap();
        let x = noise(&device, &[4, 2, 3]);
        let out = |ctx: &mut Context, num_layers: usize, dropout: f64| {
            let net = net(&device, Cell::Gru, RecurrentOptions { num_layers, dropout, ..RecurrentOptions::new(3, 8) });
            net.run(ctx, &x, Given::default()).unwrap().output.to_vec_blocking::<f32>().unwrap()
        };
        assert_eq!(out(&mut Context::train(1, 2), 1, 0.5), out(&mut Context::eval(), 1, 0.0));
        assert_eq!(out(&mut Context::eval(), 2, 0.5), out(&mut Context::eval(), 2, 0.0));
        let own = out(&mut Context::train(1, 2), 2, 0.5);
        assert_eq!(own, out(&mut Context::train(1, 2), 2, 0.5));
        assert_ne!(own, out(&mut Context::train(1, 3), 2, 0.5));
        assert_ne!(own, out(&mut Context::eval(), 2, 0.5));
        let error = RecurrentNet::new(&device, Cell::Gru, RecurrentOptions { dropout: 1.0, ..RecurrentOptions::new(3, 8) }).unwrap_err();
        assert!(error.to_string().contains("p = 1"), "{error}");
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let device = Device::cpu(1).unwrap();
        let net = net(&device, Cell::Gru, RecurrentOptions { num_layers: 2, ..RecurrentOptions::new(3, 4) });
        let x = noise(&device, &[5, 2, 3]);
        let error = |x: &Tensor, given: Given| net.run(&mut Context::eval(), x, given).unwrap_err().to_string();
        let (h, short) = (noise(&device, &[2, 3, 4]), noise(&device, &[4, 2]));
        assert!(error(&x, Given { h0: Some(&h), ..Given::default() }).contains("h0 is [layers, N, H] = [2, 2, 4]"));
        let good = noise(&device, &[2, 2, 4]);
        assert!(error(&x, Given { c0: Some(&good), ..Given::default() }).contains("Gru has no cell values"));
        assert!(error(&x, Given { mask: Some(&short), ..Given::default() }).contains("the mask is [T, N] = [5, 2], got [4, 2]"));
        assert!(error(&noise(&device, &[0, 2, 3]), Given::default()).contains("at least one step"));
        assert!(error(&noise(&device, &[5, 2, 4]), Given::default()).contains("expects [T, N, 3]"));
        for lengths in [[0, 2], [6, 2]] {
            assert!(mask(x.device(), 5, &lengths).unwrap_err().to_string().contains("sequence 0 has length"), "{lengths:?}");
        }
    }
}
