//! Why plain recurrent nets forget: the gradient of the last state with respect to each earlier input vanishes or explodes with the distance; gates keep it.
//!
//! `cargo run --release --example 10_gradient_flow`; the mathematics: docs/tour/10_gradient_flow.md

use mappa::chart::Chart;
use mappa::nn::recurrent::{Cell, RecurrentNet, RecurrentOptions};
use mappa::nn::{Context, Module, Owned};
use mappa::rng::Stream;
use mappa::{Device, Result, Tensor};

const STEPS: usize = 60;
const HIDDEN: usize = 32;

/// Of a sequence, the norm of dL/dx_t for each t, where L is the sum of the last hidden state; by distance from the end.
fn flow(device: &Device, cell: Cell, layers: usize, weight: f64, forget: f32) -> Result<Vec<f64>> {
    let net = RecurrentNet::new(device, cell, RecurrentOptions { num_layers: layers, ..RecurrentOptions::new(8, HIDDEN) })?;
    let mut fill = Ok(());
    net.visit("", &mut |name, owned| {
        let Owned::Parameter(parameter) = owned else { return };
        let n = parameter.shape().len();
        // Recurrent weights of standard deviation `weight` / sqrt(H) have about `weight` as their largest stretch in a random direction.
        let size = if name.contains("weight_hh") { weight / (HIDDEN as f64).sqrt() } else { 0.3 };
        let drawn = Tensor::normal(device, &[n], 0.0, size, Stream::new(5, &name, 0, 0)).and_then(|values| values.to_vec_blocking::<f32>());
        fill = drawn.and_then(|mut values| {
            if name.contains("bias") {
                values.fill(0.0);
                // PyTorch's order of an LSTM's gates: input, forget, cell, output.
                if cell == Cell::Lstm && name.contains("bias_ih") {
                    values[HIDDEN..2 * HIDDEN].fill(forget);
                }
                // And of a GRU's: reset, update, new. A high update gate keeps the state.
                if cell == Cell::Gru && name.contains("bias_ih") {
                    values[HIDDEN..2 * HIDDEN].fill(forget);
                }
            }
            parameter.write(&values)
        });
    });
    fill?;
    let x = Tensor::normal(device, &[STEPS, 4, 8], 0.0, 0.3, Stream::new(6, "x", 0, 0))?.requires_grad();
    net.forward(&mut Context::eval(), &x)?.narrow(0, STEPS - 1, 1)?.sum(None, false)?.backward()?;
    let gradient = x.grad().map_or(Ok(Vec::new()), |g| g.to_vec_blocking::<f32>())?;
    let norm = |step: &[f32]| step.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
    Ok(gradient.chunks_exact(4 * 8).rev().map(norm).collect())
}

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    let mut chart =
        Chart::new("Gradient by distance from the last step", "steps back", (0.0, STEPS as f64 - 1.0), (-16.0, 12.0)).logarithmic();
    let mut ratios = Vec::new();
    for (colour, (name, cell, layers, weight, forget)) in [
        ("RNN, weights 0.5", Cell::RnnTanh, 1, 0.5, 0.0),
        ("RNN, weights 1", Cell::RnnTanh, 1, 1.0, 0.0),
        ("RNN relu, weights 2", Cell::RnnRelu, 1, 2.0, 0.0),
        ("LSTM", Cell::Lstm, 1, 0.5, 4.0),
        ("GRU", Cell::Gru, 1, 0.5, 4.0),
        ("LSTM, two layers", Cell::Lstm, 2, 0.5, 4.0),
    ]
    .into_iter()
    .enumerate()
    {
        let norms = flow(&device, cell, layers, weight, forget)?;
        let ratio = norms[STEPS - 1] / norms[0];
        println!("{name:20} the first input counts {ratio:8.1e} times as much as the last");
        ratios.push(ratio);
        let points: Vec<(f64, f64)> = norms.iter().enumerate().map(|(i, n)| (i as f64, n.max(1e-16).log10())).collect();
        chart.line(name, colour, &points);
    }
    // Vanished, exploded, kept.
    assert!(ratios[0] < 1e-8, "{ratios:?}");
    assert!(ratios[2] > 1e3, "{ratios:?}");
    assert!(ratios[3..].iter().all(|ratio| (1e-3..1e3).contains(ratio)), "{ratios:?}");

    // Clipping: an exploding gradient keeps its direction and gets a length that a step can bear.
    let exploded = flow(&device, Cell::RnnRelu, 1, 2.0, 0.0)?;
    let norm = exploded.iter().map(|n| n * n).sum::<f64>().sqrt();
    println!("clipped to 1, the exploding gradient of norm {norm:.1e} is multiplied by {:.1e}", 1.0 / norm);
    chart.save("target/tour/10_gradient_flow.svg")?;
    println!("picture target/tour/10_gradient_flow.svg");
    Ok(())
}
