//! Linear regression: a line through four points, once with gradients by hand, once by autodiff, checked against the exact solution.
//!
//! `cargo run --release --example 01_linear_regression`; the mathematics: docs/tour/01_linear_regression.md

use mappa::chart::Chart;
use mappa::{Device, Result, Tensor};

const X: [f32; 4] = [1.0, 2.0, 3.0, 4.0];
const Y: [f32; 4] = [1.5, 2.5, 3.5, 4.5];
const RATE: f32 = 0.1;

fn main() -> Result<()> {
    let steps = 300;

    // By hand. With the error e = w x + b - y of each point, L = mean(e^2) has the slopes dL/dw = mean(2 e x) and dL/db = mean(2 e).
    let (mut w, mut b) = (0f32, 0f32);
    let mut by_hand = Vec::new();
    for _ in 0..steps {
        let errors: Vec<f32> = X.iter().zip(&Y).map(|(x, y)| w * x + b - y).collect();
        by_hand.push(mean(errors.iter().map(|e| e * e)));
        let dw = mean(errors.iter().zip(&X).map(|(e, x)| 2.0 * e * x));
        let db = mean(errors.iter().map(|e| 2.0 * e));
        // Against the slope: the loss falls. With a plus it would climb.
        (w, b) = (w - RATE * dw, b - RATE * db);
    }

    // By autodiff: the loss is written down, its slopes follow.
    let device = Device::from_env_blocking()?;
    let (x, y) = (Tensor::from_slice(&device, &[4], &X)?, Tensor::from_slice(&device, &[4], &Y)?);
    let (mut slope, mut shift) = (Tensor::zeros(&device, &[1])?, Tensor::zeros(&device, &[1])?);
    let mut by_autodiff = Vec::new();
    for _ in 0..steps {
        let (leaf_w, leaf_b) = (slope.requires_grad(), shift.requires_grad());
        let error = x.mul(&leaf_w)?.add(&leaf_b)?.sub(&y)?;
        let loss = error.mul(&error)?.mean(None, false)?;
        loss.backward()?;
        by_autodiff.push(loss.item_blocking()?);
        let descend =
            |value: &Tensor, leaf: &Tensor| leaf.grad().map_or(Ok(value.clone()), |slope| value.sub(&slope.affine(RATE.into(), 0.0)?));
        (slope, shift) = (descend(&slope, &leaf_w)?, descend(&shift, &leaf_b)?);
    }
    let (auto_w, auto_b) = (slope.item_blocking()?, shift.item_blocking()?);

    // Exactly: w = cov(x, y) / var(x), b = mean(y) - w mean(x).
    let (mx, my) = (mean(X.iter().copied()), mean(Y.iter().copied()));
    let exact_w = mean(X.iter().zip(&Y).map(|(x, y)| (x - mx) * (y - my))) / mean(X.iter().map(|x| (x - mx).powi(2)));
    let exact_b = my - exact_w * mx;

    println!("by hand      y = {w:.5} x + {b:.5}");
    println!("by autodiff  y = {auto_w:.5} x + {auto_b:.5} on {}", device.name());
    println!("exactly      y = {exact_w:.5} x + {exact_b:.5}");
    println!("loss {:.4} -> {:.2e} in {steps} steps", by_hand[0], by_hand[steps - 1]);
    for (name, w, b) in [("by hand", w, b), ("by autodiff", auto_w, auto_b)] {
        assert!((w - exact_w).abs() < 1e-3 && (b - exact_b).abs() < 3e-3, "{name}: {w} {b}");
    }
    assert!(by_hand.windows(2).all(|pair| pair[1] <= pair[0] + 1e-6), "the loss climbed");
    assert!(by_hand.iter().zip(&by_autodiff).all(|(a, b)| (a - b).abs() < 1e-4), "the two differ");

    let mut chart = Chart::new("Loss of a line through four points", "step", (0.0, 60.0), (-5.0, 1.0)).logarithmic();
    let points =
        |losses: &[f32]| losses.iter().take(61).enumerate().map(|(i, l)| (i as f64, f64::from(l.max(1e-5)).log10())).collect::<Vec<_>>();
    chart.line("by hand", 0, &points(&by_hand));
    chart.line("by autodiff", 1, &points(&by_autodiff));
    chart.save("target/tour/01_linear_regression.svg")?;
    println!("picture target/tour/01_linear_regression.svg");
    Ok(())
}

fn mean(values: impl ExactSizeIterator<Item = f32>) -> f32 {
    let n = values.len() as f32;
    values.sum::<f32>() / n
}
