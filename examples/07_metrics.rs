//! One number is not enough: the threshold of a detector moved from 0 to 1, with what it finds, what it misses, and what that costs.
//!
//! `cargo run --release --example 07_metrics`; the mathematics: docs/tour/07_metrics.md

use mappa::chart::Chart;
use mappa::data::{Loader, LoaderOptions, digits};
use mappa::metrics::{average_precision, precision_recall_curve, roc_auc, roc_curve};
use mappa::nn::{Context, Flatten, Linear, Module, Sequential, initialize, loss, named_parameters};
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::tensor::ops::Reduction;
use mappa::{Device, Result, Tensor, autodiff};

/// The digit that is looked for: one image in ten.
const WANTED: i32 = 8;

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    let data = digits()?;
    let epochs = if std::env::var("MAPPA_QUICK").is_ok() { 5 } else { 30 };
    // A detector: one logit, "is this an eight?". A linear one, so that it is wrong at times.
    let network = Sequential::new().then(Flatten).then(Linear::new(&device, 64, 1, true)?);
    initialize(&network, 1)?;
    let mut optimizer = Optimizer::new(OptimizerConfig::adamw(0.01), vec![ParamGroup::new(named_parameters(&network))])?;
    for epoch in 0..epochs {
        for batch in Loader::new(&data, &data.train, LoaderOptions { shuffle: true, seed: 1, epoch, ..Default::default() })? {
            let batch = batch?;
            let x = Tensor::from_slice(&device, &[batch.len(), 1, 8, 8], &batch.images)?;
            let target: Vec<f32> = batch.targets.iter().map(|&t| (t == WANTED) as u8 as f32).collect();
            let target = Tensor::from_slice(&device, &[batch.len(), 1], &target)?;
            optimizer.zero_grad();
            let logits = network.forward(&mut Context::train(1, epoch), &x)?;
            loss::binary_cross_entropy_with_logits(&logits, &target, None, None, Reduction::Mean)?.backward()?;
            optimizer.step(0.01)?;
        }
    }

    let _guard = autodiff::no_grad();
    let (mut scores, mut positive) = (Vec::new(), Vec::new());
    for part in data.test.iter() {
        for batch in Loader::new(&data, part, LoaderOptions::default())? {
            let batch = batch?;
            let x = Tensor::from_slice(&device, &[batch.len(), 1, 8, 8], &batch.images)?;
            scores.extend(network.forward(&mut Context::eval(), &x)?.sigmoid()?.to_vec_blocking::<f32>()?.into_iter().map(f64::from));
            positive.extend(batch.targets.iter().map(|&t| t == WANTED));
        }
    }

    // Moving the threshold by hand: each is another detector.
    println!("threshold  found  missed  false alarms  accuracy  precision  recall");
    let total = positive.iter().filter(|&&p| p).count();
    for threshold in [0.01, 0.05, 0.2, 0.5, 0.8, 0.95] {
        let said: Vec<bool> = scores.iter().map(|&s| s >= threshold).collect();
        let count = |want: bool, answer: bool| positive.iter().zip(&said).filter(|&(&p, &s)| p == want && s == answer).count();
        let (found, alarms, right) = (count(true, true), count(false, true), count(true, true) + count(false, false));
        let share = |n: usize, of: usize| 100.0 * n as f64 / of.max(1) as f64;
        println!(
            "{threshold:9.2}  {found:5}  {:6}  {alarms:12}  {:6.1} %  {:7.1} %  {:4.1} %",
            total - found,
            share(right, scores.len()),
            share(found, found + alarms),
            share(found, total)
        );
    }
    // "Never an eight" is right nine times out of ten, and of no use: accuracy says little where classes differ in size.
    let lazy = 1.0 - total as f64 / positive.len() as f64;
    println!("a detector that never says yes has an accuracy of {:.1} % and a recall of 0", 100.0 * lazy);

    let (roc, pr) = (roc_curve(&scores, &positive)?, precision_recall_curve(&scores, &positive)?);
    let area = roc_auc(&scores, &positive)?.unwrap_or(0.0);
    // The area is the probability that a random eight scores higher than a random other digit: counted pair by pair, ties half.
    let of = |wanted: bool| scores.iter().zip(&positive).filter(|s| *s.1 == wanted).map(|s| *s.0).collect::<Vec<f64>>();
    let (eights, others) = (of(true), of(false));
    let pairs: f64 = eights
        .iter()
        .flat_map(|a| {
            others.iter().map(move |b| {
                if a > b {
                    1.0
                } else if a == b {
                    0.5
                } else {
                    0.0
                }
            })
        })
        .sum();
    let by_pairs = pairs / (eights.len() * others.len()) as f64;
    println!(
        "area under the ROC curve {area:.4}, by counting pairs {by_pairs:.4}; average precision {:.4}",
        average_precision(&scores, &positive)?
    );
    assert!((area - by_pairs).abs() < 1e-9 && area > 0.8);

    let mut chart = Chart::new("Found over false alarms (ROC), precision over recall", "", (0.0, 1.0), (0.0, 1.0));
    let points = |x: &[f64], y: &[f64]| x.iter().copied().zip(y.iter().copied()).collect::<Vec<_>>();
    chart.line("ROC: recall over false positive rate", 0, &points(&roc.fpr, &roc.tpr));
    chart.line("precision over recall", 1, &points(&pr.recall, &pr.precision));
    chart.save("target/tour/07_metrics.svg")?;
    println!("picture target/tour/07_metrics.svg");
    Ok(())
}
