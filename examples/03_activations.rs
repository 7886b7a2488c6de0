//! What lies between layers: activation functions and their slopes, by autodiff, each checked against a finite difference.
//!
//! `cargo run --release --example 03_activations`; the mathematics: docs/tour/03_activations.md

use mappa::chart::Chart;
use mappa::nn::Activation;
use mappa::{Device, Result, Tensor};

const POINTS: usize = 241;

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    let at: Vec<f32> = (0..POINTS).map(|i| i as f32 / 30.0 - 4.0).collect();
    let mut values = Chart::new("Activation functions", "x", (-4.0, 4.0), (-1.5, 4.0));
    let mut slopes = Chart::new("Their slopes", "x", (-4.0, 4.0), (-0.25, 1.25));
    let functions = [
        ("sigmoid", Activation::Sigmoid),
        ("tanh", Activation::Tanh),
        ("ReLU", Activation::Relu),
        ("LeakyReLU", Activation::LeakyRelu { negative_slope: 0.1 }),
        ("GELU", Activation::Gelu),
        ("SiLU", Activation::Silu),
    ];
    for (colour, (name, function)) in functions.into_iter().enumerate() {
        let x = Tensor::from_slice(&device, &[POINTS], &at)?.requires_grad();
        let y = x.unary(function)?;
        y.sum(None, false)?.backward()?;
        let y = y.to_vec_blocking::<f32>()?;
        let dy = x.grad().map_or(Ok(Vec::new()), |slope| slope.to_vec_blocking::<f32>())?;
        // The slope between two neighbours lies between their slopes, or near them where it bends.
        let step = f64::from(at[1] - at[0]);
        let mut worst = 0f64;
        for i in (1..POINTS - 1).filter(|&i| at[i].abs() > 0.05) {
            worst = worst.max((f64::from(y[i + 1] - y[i - 1]) / (2.0 * step) - f64::from(dy[i])).abs());
        }
        let (low, high) = dy.iter().fold((f32::MAX, f32::MIN), |(low, high), &d| (low.min(d), high.max(d)));
        println!("{name:10} slopes from {low:6.3} to {high:.3}; finite differences agree within {worst:.1e}");
        // A central difference errs by step^2 / 6 times the third derivative, which is below 2 for all of these.
        assert!(worst < step * step / 3.0 + 1e-4, "{name}: {worst}");
        assert!(name != "sigmoid" || high <= 0.25);
        let points = |v: &[f32]| at.iter().zip(v).map(|(&x, &y)| (f64::from(x), f64::from(y))).collect::<Vec<_>>();
        values.line(name, colour, &points(&y));
        slopes.line(name, colour, &points(&dy));
    }
    values.save("target/tour/03_activations.svg")?;
    println!("picture target/tour/03_activations.svg");
    slopes.save("target/tour/03_activations_slopes.svg")?;
    println!("picture target/tour/03_activations_slopes.svg");
    Ok(())
}
