//! A language model of characters: an LSTM reads mappa's own documentation and learns to say what comes next.
//!
//! `cargo run --release --example 09_characters`; the mathematics: docs/tour/09_characters.md

use mappa::chart::Chart;
use mappa::nn::recurrent::{Cell, Given, RecurrentNet, RecurrentOptions};
use mappa::nn::{Context, Dropout, Embedding, Linear, Module, Owned, initialize, join, named_parameters};
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::rng::Stream;
use mappa::{Device, Result, Tensor, autodiff};

const TEXTS: [&str; 16] = [
    include_str!("../README.md"),
    include_str!("../CONTRIBUTING.md"),
    include_str!("../docs/architecture.md"),
    include_str!("../docs/adding-a-kernel.md"),
    include_str!("../docs/adding-an-op.md"),
    include_str!("../docs/performance.md"),
    include_str!("../docs/testing.md"),
    include_str!("../docs/tour/01_linear_regression.md"),
    include_str!("../docs/tour/02_neural_network.md"),
    include_str!("../docs/tour/03_activations.md"),
    include_str!("../docs/tour/04_digits_cnn.md"),
    include_str!("../docs/tour/05_convolution.md"),
    include_str!("../docs/tour/07_metrics.md"),
    include_str!("../docs/tour/08_transfer.md"),
    include_str!("../docs/tour/10_gradient_flow.md"),
    include_str!("../docs/tour/06_regularisation.md"),
];
const HIDDEN: usize = 128;
const LAYERS: usize = 2;
/// Places of the text that are read at once.
const BATCH: usize = 16;
/// Characters that a gradient reaches back over.
const STEPS: usize = 32;
const RATE: f64 = 0.004;

/// A vector for each character, two layers of LSTM, and a logit for each character that may come next.
struct Reader {
    table: Embedding,
    net: RecurrentNet,
    dropout: Dropout,
    last: Linear,
}

/// What an LSTM remembers between pieces of text.
type Memory = Option<(Tensor, Option<Tensor>)>;

impl Reader {
    fn new(device: &Device, characters: usize) -> Result<Self> {
        let options = RecurrentOptions { num_layers: LAYERS, dropout: 0.1, ..RecurrentOptions::new(32, HIDDEN) };
        Ok(Reader {
            table: Embedding::new(device, characters, 32)?,
            net: RecurrentNet::new(device, Cell::Lstm, options)?,
            dropout: Dropout::new(0.1)?,
            last: Linear::new(device, HIDDEN, characters, true)?,
        })
    }

    /// Characters `[T, N]` (u32) to logits `[T N, characters]` of the ones after them, and what is remembered.
    fn read(&self, ctx: &mut Context, x: &Tensor, memory: &Memory) -> Result<(Tensor, Memory)> {
        let vectors = ctx.call("table", &self.table, x)?;
        let given = Given { h0: memory.as_ref().map(|m| &m.0), c0: memory.as_ref().and_then(|m| m.1.as_ref()), mask: None };
        let sequences = ctx.scope("net", |ctx| self.net.run(ctx, &vectors, given))?;
        let rows = sequences.output.reshape(&[x.shape().len(), HIDDEN])?;
        let rows = ctx.call("dropout", &self.dropout, &rows)?;
        // Detached: the state goes on, its gradient does not. That is truncated backpropagation through time.
        Ok((ctx.call("last", &self.last, &rows)?, Some(sequences.detached())))
    }
}

impl Module for Reader {
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        Ok(self.read(ctx, x, &None)?.0)
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        self.table.visit(&join(path, "table"), visitor);
        self.net.visit(&join(path, "net"), visitor);
        self.last.visit(&join(path, "last"), visitor);
    }
}

/// Piece `t` of a text that is read at `BATCH` places at once: characters `[STEPS, BATCH]`, and those after them.
fn piece(device: &Device, text: &[u32], t: usize) -> Result<(Tensor, Tensor)> {
    let lane = (text.len() - 1) / BATCH;
    let at = |step: usize, place: usize| place * lane + t * STEPS + step;
    let all = |shift: usize| (0..STEPS).flat_map(move |step| (0..BATCH).map(move |place| text[at(step, place) + shift]));
    let next: Vec<i32> = all(1).map(|c| c as i32).collect();
    Ok((Tensor::from_slice(device, &[STEPS, BATCH], &all(0).collect::<Vec<u32>>())?, Tensor::from_slice(device, &[STEPS * BATCH], &next)?))
}

/// Pieces of a text.
fn pieces(text: &[u32]) -> usize {
    (text.len() - 1) / BATCH / STEPS
}

/// The mean of `-log2 p` of the characters of a text that was never learned from.
fn bits(reader: &Reader, device: &Device, text: &[u32]) -> Result<f64> {
    let _guard = autodiff::no_grad();
    let (mut memory, mut sum) = (None, 0.0);
    for t in 0..pieces(text) {
        let (x, next) = piece(device, text, t)?;
        let (logits, remembered) = reader.read(&mut Context::eval(), &x, &memory)?;
        sum += f64::from(logits.cross_entropy_mean(&next)?.item_blocking()?) / std::f64::consts::LN_2;
        memory = remembered;
    }
    Ok(sum / pieces(text) as f64)
}

/// Lets it write on, a character drawn from its probabilities at a time, sharpened by a temperature.
fn write(reader: &Reader, device: &Device, known: &[char], begin: &str, length: usize) -> Result<String> {
    let _guard = autodiff::no_grad();
    let (mut text, mut memory) = (begin.to_owned(), None);
    let mut waiting: Vec<char> = begin.chars().collect();
    let stream = Stream::new(1, "write", 0, 0);
    for i in 0..length as u64 {
        let places: Vec<u32> = waiting.iter().map(|c| known.iter().position(|k| k == c).unwrap_or(0) as u32).collect();
        let x = Tensor::from_slice(device, &[places.len(), 1], &places)?;
        let (logits, remembered) = reader.read(&mut Context::eval(), &x, &memory)?;
        let rows = logits.affine(1.0 / 0.6, 0.0)?.softmax(1)?.to_vec_blocking::<f32>()?;
        let mut left = stream.uniform(i);
        let last = &rows[rows.len() - known.len()..];
        let next = last.iter().position(|p| {
            left -= p;
            left < 0.0
        });
        waiting = vec![known[next.unwrap_or(0)]];
        text.push(waiting[0]);
        memory = remembered;
    }
    Ok(text)
}

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    let quick = std::env::var("MAPPA_QUICK").is_ok();
    let mut known: Vec<char> = TEXTS.concat().chars().collect();
    known.sort();
    known.dedup();
    let numbers = |text: &str| text.chars().map(|c| known.binary_search(&c).unwrap_or(0) as u32).collect::<Vec<u32>>();
    // The last page is kept for the test.
    let (train, test) = (numbers(&TEXTS[..15].concat()), numbers(TEXTS[15]));
    let mut counts = vec![1.0; known.len()];
    train.iter().for_each(|&c| counts[c as usize] += 1.0);
    let total: f64 = counts.iter().sum();
    let alone = test.iter().map(|&c| -(counts[c as usize] / total).log2()).sum::<f64>() / test.len() as f64;
    println!("{} characters of {} kinds; by their frequency alone {alone:.2} bits each", train.len(), known.len());

    let reader = Reader::new(&device, known.len())?;
    initialize(&reader, 1)?;
    let mut optimizer = Optimizer::new(OptimizerConfig::adamw(RATE), vec![ParamGroup::new(named_parameters(&reader))])?;
    let (epochs, per_epoch) = if quick { (1, 40.min(pieces(&train))) } else { (20, pieces(&train)) };
    let (mut points, mut step) = (vec![(0.0, bits(&reader, &device, &test)?)], 0);
    for epoch in 1..=epochs {
        let mut memory = None;
        for t in 0..per_epoch {
            let (x, next) = piece(&device, &train, t)?;
            optimizer.zero_grad();
            let (logits, remembered) = reader.read(&mut Context::train(1, step), &x, &memory)?;
            logits.cross_entropy_mean(&next)?.backward()?;
            optimizer.clip_grad_norm(1.0)?;
            // From the rate down to nothing.
            optimizer.step(RATE * (1.0 - step as f64 / (epochs * per_epoch) as f64))?;
            (memory, step) = (remembered, step + 1);
        }
        points.push((epoch as f64, bits(&reader, &device, &test)?));
        println!("epoch {epoch:2}: {:.2} bits a character of a page that was not learned from", points[epoch].1);
    }
    println!("\n{}\n", write(&reader, &device, &known, "# The ", if quick { 40 } else { 400 })?);
    let reached = points[points.len() - 1].1;
    let mut chart = Chart::new("Bits a character, of a page not learned from", "epoch", (0.0, epochs as f64), (0.0, 8.0));
    chart.line("LSTM", 0, &points);
    chart.line("frequency of characters", 1, &[(0.0, alone), (epochs as f64, alone)]);
    chart.save("target/tour/09_characters.svg")?;
    println!("picture target/tour/09_characters.svg");
    assert!(reached < if quick { points[0].1 - 1.5 } else { 0.65 * alone }, "{reached}");
    Ok(())
}
