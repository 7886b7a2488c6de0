//! A network of two layers with sigmoids, forward and backward by hand; its gradients against autodiff's; then trained on what no line can do.
//!
//! `cargo run --release --example 02_neural_network`; the mathematics: docs/tour/02_neural_network.md

use mappa::chart::Chart;
use mappa::rng::Stream;
use mappa::{Device, Result, Tensor};

const HIDDEN: usize = 4;

/// `y = s(s(x W1 + b1) W2 + b2)` with `s(z) = 1 / (1 + e^-z)`; weights row by row.
#[derive(Clone)]
struct Network {
    inputs: usize,
    /// `[inputs, HIDDEN]`
    w1: Vec<f32>,
    b1: Vec<f32>,
    /// `[HIDDEN, 1]`
    w2: Vec<f32>,
    b2: Vec<f32>,
}

fn sigmoid(z: f32) -> f32 {
    1.0 / (1.0 + (-z).exp())
}

impl Network {
    fn new(inputs: usize) -> Self {
        let draw = |name: &str, n: usize| (0..n as u64).map(|i| 4.0 * Stream::new(3, name, 0, 0).uniform(i) - 2.0).collect();
        Network { inputs, w1: draw("w1", inputs * HIDDEN), b1: draw("b1", HIDDEN), w2: draw("w2", HIDDEN), b2: draw("b2", 1) }
    }

    /// Hidden values and output of one sample.
    fn forward(&self, x: &[f32]) -> (Vec<f32>, f32) {
        let hidden = |j: usize| sigmoid((0..self.inputs).map(|i| x[i] * self.w1[i * HIDDEN + j]).sum::<f32>() + self.b1[j]);
        let h: Vec<f32> = (0..HIDDEN).map(hidden).collect();
        let y = sigmoid(h.iter().zip(&self.w2).map(|(h, w)| h * w).sum::<f32>() + self.b2[0]);
        (h, y)
    }

    /// Mean squared error, and its gradient in the place of each weight: the chain rule from the loss back to the input, with s' = s (1 - s).
    fn backward(&self, xs: &[Vec<f32>], ts: &[f32]) -> (f32, Network) {
        let zero = |v: &Vec<f32>| vec![0.0; v.len()];
        let mut g = Network { inputs: self.inputs, w1: zero(&self.w1), b1: zero(&self.b1), w2: zero(&self.w2), b2: zero(&self.b2) };
        let (n, mut loss) = (xs.len() as f32, 0.0);
        for (x, t) in xs.iter().zip(ts) {
            let (h, y) = self.forward(x);
            loss += (y - t).powi(2) / n;
            let d2 = 2.0 / n * (y - t) * y * (1.0 - y);
            g.b2[0] += d2;
            for j in 0..HIDDEN {
                g.w2[j] += d2 * h[j];
                let d1 = d2 * self.w2[j] * h[j] * (1.0 - h[j]);
                g.b1[j] += d1;
                (0..self.inputs).for_each(|i| g.w1[i * HIDDEN + j] += d1 * x[i]);
            }
        }
        (loss, g)
    }

    fn step(&mut self, g: &Network, rate: f32) {
        for (own, slope) in [(&mut self.w1, &g.w1), (&mut self.b1, &g.b1), (&mut self.w2, &g.w2), (&mut self.b2, &g.b2)] {
            own.iter_mut().zip(slope).for_each(|(w, d)| *w -= rate * d);
        }
    }
}

/// The same gradients by autodiff, in the order W1, b1, W2, b2.
fn by_autodiff(network: &Network, xs: &[Vec<f32>], ts: &[f32], device: &Device) -> Result<Vec<f32>> {
    let leaf = |shape: &[usize], values: &[f32]| Ok(Tensor::from_slice(device, shape, values)?.requires_grad());
    let leaves: [Result<Tensor>; 4] = [
        leaf(&[network.inputs, HIDDEN], &network.w1),
        leaf(&[HIDDEN], &network.b1),
        leaf(&[HIDDEN, 1], &network.w2),
        leaf(&[1], &network.b2),
    ];
    let [w1, b1, w2, b2] = leaves;
    let (w1, b1, w2, b2) = (w1?, b1?, w2?, b2?);
    let x = Tensor::from_slice(device, &[xs.len(), network.inputs], &xs.concat())?;
    let t = Tensor::from_slice(device, &[ts.len(), 1], ts)?;
    let h = x.matmul(&w1)?.add(&b1)?.sigmoid()?;
    let error = h.matmul(&w2)?.add(&b2)?.sigmoid()?.sub(&t)?;
    error.mul(&error)?.mean(None, false)?.backward()?;
    let mut all = Vec::new();
    for leaf in [w1, b1, w2, b2] {
        all.extend(leaf.grad().map_or(Ok(Vec::new()), |gradient| gradient.to_vec_blocking::<f32>())?);
    }
    Ok(all)
}

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    let steps = 6000;
    let mut chart = Chart::new("Loss of the network", "step", (0.0, steps as f64), (-5.0, 0.0)).logarithmic();
    let bump = ("a bump: 1, 2, 3 -> 0, 1, 0", vec![vec![1.0], vec![2.0], vec![3.0]], vec![0.0, 1.0, 0.0]);
    let xor = ("exclusive or", vec![vec![0.0, 0.0], vec![0.0, 1.0], vec![1.0, 0.0], vec![1.0, 1.0]], vec![0.0, 1.0, 1.0, 0.0]);
    for (colour, (name, xs, ts)) in [bump, xor].into_iter().enumerate() {
        let mut network = Network::new(xs[0].len());
        let (_, g) = network.backward(&xs, &ts);
        let (hand, auto) = ([g.w1, g.b1, g.w2, g.b2].concat(), by_autodiff(&network, &xs, &ts, &device)?);
        let worst = hand.iter().zip(&auto).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        println!("{name}: {} gradients by hand and by autodiff differ by at most {worst:.1e}", hand.len());
        assert!(hand.len() == auto.len() && worst < 1e-6);
        let mut losses = Vec::new();
        for step in 0..steps {
            let (loss, gradient) = network.backward(&xs, &ts);
            network.step(&gradient, 5.0);
            if step % 20 == 0 {
                losses.push((step as f64, f64::from(loss.max(1e-5)).log10()));
            }
        }
        for (x, t) in xs.iter().zip(&ts) {
            let (_, y) = network.forward(x);
            println!("  {x:?} -> {y:.3}, wanted {t}");
            assert!((y - t).abs() < 0.1);
        }
        chart.line(name, colour, &losses);
    }
    chart.save("target/tour/02_neural_network.svg")?;
    println!("picture target/tour/02_neural_network.svg");
    Ok(())
}
