//! `report.html`: what a run learned, in one file that needs nothing else. Charts are SVG whose colours are CSS variables, light or dark as the reader likes.

mod pictures;

use std::fmt::Write;
use std::path::PathBuf;

use super::{Answers, Config, Event, Run};
use crate::chart::{Chart, IDEAL, escape};
use crate::data::{Dataset, Part};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::atomic;
use crate::metrics::{
    Measured, Numbers, Predictions, Regression, Scores, expected_calibration_error, precision_recall_curve, roc_auc, roc_curve,
};
use crate::models;
use crate::nn::Sequential;
#[cfg(feature = "image")]
pub use pictures::audit;
use serde::{Deserialize, Serialize};

/// Classes up to which every one has its row, column and curve; of more, those that are confused most.
const ALL_CLASSES: usize = 30;
/// Curves of one chart.
const CURVES: usize = 10;
/// Points of a curve; more cannot be told apart.
const POINTS: usize = 300;
/// Bins of the reliability diagram.
const BINS: usize = 10;

/// How long the last process of a run took; `timing.json` in its folder, as `metrics.jsonl` holds what the same seed gives again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Timing {
    pub(super) device: String,
    pub(super) steps: u64,
    pub(super) seconds: f64,
    pub(super) images_per_s: f64,
    /// Seconds of waiting for batches.
    pub(super) waited: f64,
    /// The most that tensors held.
    pub(super) peak_bytes: u64,
}

impl Timing {
    fn path(run: &Run) -> PathBuf {
        run.path().join("timing.json")
    }

    pub(super) fn save(&self, run: &Run) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::Config(e.to_string()))?;
        atomic::write(Timing::path(run), text.as_bytes())
    }

    /// That of a run, where it is known.
    pub(super) fn read(run: &Run) -> Option<Self> {
        serde_json::from_str(&std::fs::read_to_string(Timing::path(run)).ok()?).ok()
    }
}

/// What a report is made of.
pub(super) struct Report<'a> {
    pub(super) config: &'a Config,
    pub(super) run: &'a Run,
    /// The images themselves.
    pub(super) data: &'a Dataset,
    pub(super) device: &'a Device,
    /// With the weights that were kept.
    pub(super) module: &'a Sequential,
    /// What it answers on the validation and on the test part.
    pub(super) answers: [Option<Answers>; 2],
    pub(super) steps: u64,
    pub(super) train_loss: f64,
    pub(super) timing: Option<Timing>,
}

/// What a run comes to.
pub(super) struct Conclusion {
    pub(super) measured: [Option<Measured>; 2],
    pub(super) verdict: Vec<String>,
    pub(super) path: PathBuf,
}

/// The part that is reported: its name, what was answered, and what was asked.
struct Judged<'a> {
    part: &'a str,
    answers: &'a Predictions,
    scores: &'a Scores,
    data: &'a Dataset,
    images: &'a Part,
}

impl Report<'_> {
    /// Judges the run and writes its `report.html`, complete or not at all.
    pub(super) fn conclude(&self) -> Result<Conclusion> {
        let measure = |answers: &Option<Answers>| answers.as_ref().map(Answers::measure).transpose();
        let measured = [measure(&self.answers[0])?, measure(&self.answers[1])?];
        let parts = [("validation", &self.data.val), ("test", &self.data.test)];
        // The headline is the test part's, where there is one.
        let last = (0..2).rev().find(|&i| measured[i].is_some());
        let path = self.run.path().join("report.html");
        if let Some((i, Answers::Numbers(numbers), Some(Measured::Numbers { errors, loss, .. }))) =
            last.and_then(|i| Some((i, self.answers[i].as_ref()?, measured[i].as_ref())))
        {
            let verdict = numbers_verdict(self.config, self.train_loss, *loss, errors);
            let mut tiles = String::new();
            numbers_headline(&mut tiles, parts[i].0, self.config, numbers, errors, *loss);
            atomic::write(&path, self.html(None, &tiles, &verdict, &numbers_charts(self.config, numbers))?.as_bytes())?;
            return Ok(Conclusion { measured, verdict, path });
        }
        let judged = last.and_then(|i| match (&self.answers[i], &measured[i]) {
            (Some(Answers::Classes(answers)), Some(Measured::Classes(scores))) => {
                Some(Judged { part: parts[i].0, answers, scores, data: self.data, images: parts[i].1.as_ref()? })
            }
            _ => None,
        });
        let verdict = verdict(self.config, judged.as_ref().map(|j| (j.answers, j.scores)), self.train_loss);
        let mut body = String::new();
        match &judged {
            Some(judged) => headline(&mut body, self.config, judged)?,
            None => body.push_str("<p>Nothing was held back: there is no accuracy to report.</p>"),
        }
        atomic::write(&path, self.html(judged.as_ref(), &body, &verdict, "")?.as_bytes())?;
        Ok(Conclusion { measured, verdict, path })
    }
}

/// What is seen of a run in plain words: confused classes, under- or overfitting, calibration, what to try next.
pub(super) fn verdict(config: &Config, judged: Option<(&Predictions, &Scores)>, train_loss: f64) -> Vec<String> {
    let Some((predictions, scores)) = judged else { return Vec::new() };
    let mut lines = Vec::new();
    if let Some(&(n, t, p)) = confusions(scores).first() {
        lines.push(format!("most confused: {n} of class {} taken for {}", config.classes[t], config.classes[p]));
    }
    if config.label_smoothing == 0.0 {
        let n = predictions.targets.len().max(1) as f64;
        let confidence =
            predictions.probabilities.chunks_exact(predictions.classes.max(1)).map(|p| p.iter().copied().fold(0.0, f64::max)).sum::<f64>()
                / n;
        if confidence - scores.accuracy > 0.05 {
            let points = 100.0 * (confidence - scores.accuracy);
            lines.push(format!(
                "too sure of itself: its mean confidence is {points:.0} points above its accuracy; --label-smoothing 0.1 or more {}",
                if config.table.is_some() { "rows" } else { "images" }
            ));
        }
    }
    if config.loss != "cross-entropy" {
        lines.push("to try next: --loss cross-entropy, whose losses in training and validation can be compared".into());
        return lines;
    }
    // What a network that fits smoothed targets perfectly is left with, in training and when it is judged by plain ones.
    let off = config.label_smoothing / config.classes.len() as f64;
    let on = 1.0 - config.label_smoothing + off;
    let entropy = |p: f64| if p > 0.0 { -p * p.ln() } else { 0.0 };
    let train_loss = train_loss - entropy(on) - (config.classes.len() - 1) as f64 * entropy(off);
    let loss = scores.loss + on.ln();
    // Blended images, erased parts and what is added to the loss keep the training loss high by themselves.
    let mixed = config.augmentation.mixup > 0.0 || config.augmentation.cutmix > 0.0 || config.l1 > 0.0 || config.class_weights != "none";
    let hint = if train_loss > 0.3 && !mixed {
        "the training loss is still high (underfitting): more --epochs, a larger --model or another --lr"
    } else if train_loss * 3.0 < loss && config.table.is_some() {
        "it fits the training rows much better than others (overfitting): more rows, --patience 20, --weight-decay 0.1 or --ema 0.99"
    } else if train_loss * 3.0 < loss && config.augment == "none" {
        "it fits the training images much better than others (overfitting): --augment standard, or more images"
    } else if train_loss * 3.0 < loss {
        "it fits the training images much better than others (overfitting): more images, --augment strong, or pretrained --weights"
    } else {
        "another --seed shows how much of this is luck"
    };
    lines.push(format!("to try next: {hint}"));
    lines
}

/// Wrong answers as (count, true class, predicted class), the most frequent first.
fn confusions(scores: &Scores) -> Vec<(u64, usize, usize)> {
    let mut all: Vec<(u64, usize, usize)> = Vec::new();
    for (t, row) in scores.confusion_matrix.iter().enumerate() {
        all.extend(row.iter().enumerate().filter(|&(p, &n)| p != t && n > 0).map(|(p, &n)| (n, t, p)));
    }
    all.sort_by_key(|c| std::cmp::Reverse(c.0));
    all
}

fn percent(x: f64) -> String {
    format!("{:.2} %", 100.0 * x)
}

impl Report<'_> {
    /// The page: the headline, the verdict, what is shown of numbers, then what every run has.
    fn html(&self, judged: Option<&Judged>, headline: &str, verdict: &[String], answers: &str) -> Result<String> {
        let config = self.config;
        let name = self.run.path().file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
        let mut body = String::new();
        // Writing to a string cannot fail.
        let _ = write!(body, "<h1>{}</h1>", escape(&name));
        body.push_str(headline);
        if !verdict.is_empty() {
            body.push_str("<ul class=verdict>");
            verdict.iter().for_each(|line| {
                let _ = write!(body, "<li>{}</li>", escape(line));
            });
            body.push_str("</ul>");
        }
        body.push_str(answers);
        self.curves(&mut body)?;
        if let Some(judged) = judged {
            confusion(&mut body, config, judged.scores);
            classes(&mut body, config, judged.scores);
            body.push_str("<section><h2>Thresholds and confidence</h2><div class=charts>");
            thresholds(&mut body, config, judged.answers)?;
            reliability(&mut body, judged.answers);
            body.push_str("</div></section>");
            if self.data.table.is_none() {
                pictures::mistakes(&mut body, config, judged)?;
                pictures::heats(&mut body, config, judged, self.module, self.device)?;
            }
        }
        if self.data.table.is_none() {
            pictures::filters(&mut body, self.module)?;
            pictures::changed(&mut body, config, self.data)?;
        }
        self.about(&mut body)?;
        Ok(page(&name, &body))
    }

    fn curves(&self, body: &mut String) -> Result<()> {
        let (config, epochs) = (self.config, self.run.epochs()?);
        if epochs.is_empty() {
            return Ok(());
        }
        body.push_str("<section><h2>Learning curves</h2><div class=charts>");
        let of = |value: &dyn Fn(&Event) -> Option<f64>| -> Vec<(f64, f64)> {
            epochs.iter().filter_map(|event| Some((event.epoch as f64, value(event)?))).filter(|point| point.1.is_finite()).collect()
        };
        let (train, val) = (of(&|e| e.train_loss), of(&|e| e.val_loss));
        let top = train.iter().chain(&val).map(|point| point.1).fold(0.0, f64::max);
        let last = epochs.iter().map(|event| event.epoch).max().unwrap_or(1) as f64;
        let x = (1.0, last.max(2.0));
        let mut chart = Chart::new("Loss", "epoch", x, (0.0, top.max(1e-9)));
        chart.line("training", 0, &train);
        chart.line("validation", 1, &val);
        body.push_str(&chart.figure());
        let accuracy = of(&|e| e.val_accuracy);
        if !accuracy.is_empty() {
            let low = accuracy.iter().map(|point| point.1).fold(1.0, f64::min);
            let mut chart = Chart::new("Validation accuracy", "epoch", x, ((low * 10.0).floor() / 10.0, 1.0));
            chart.line("validation", 1, &accuracy);
            body.push_str(&chart.figure());
        }
        let errors = of(&|e| e.val_rmse);
        if !errors.is_empty() {
            let top = errors.iter().map(|point| point.1).fold(0.0, f64::max);
            let mut chart = Chart::new(&format!("Validation error (RMSE) of {}", config.classes[0]), "epoch", x, (0.0, top.max(1e-9)));
            chart.line("validation", 1, &errors);
            body.push_str(&chart.figure());
        }
        let schedule = config.schedule()?;
        let steps = self.steps.max(1);
        let rates: Vec<(f64, f64)> = (0..=POINTS as u64)
            .map(|i| i * (steps - 1) / POINTS as u64)
            .map(|step| (step as f64 + 1.0, schedule.lr(config.lr, step, steps)))
            .collect();
        let top = rates.iter().map(|point| point.1).fold(0.0, f64::max);
        let mut chart = Chart::new("Learning rate", "step", (1.0, (steps as f64).max(2.0)), (0.0, top));
        chart.line("learning rate", 2, &rates);
        body.push_str(&chart.figure());
        // Of deep networks some layers, from the first to the last.
        let layers: Vec<&String> = epochs
            .iter()
            .filter_map(|e| e.gradient_norms.as_ref())
            .next()
            .map_or_else(Vec::new, |n| n.iter().map(|(name, _)| name).collect());
        let shown: Vec<&String> = match layers.len() {
            n if n > CURVES => (0..CURVES).map(|i| layers[i * (n - 1) / (CURVES - 1)]).collect(),
            _ => layers,
        };
        let norm = |event: &Event, layer: &String| {
            let norms = event.gradient_norms.as_ref()?;
            norms.iter().find(|(name, norm)| name == layer && *norm > 0.0).map(|(_, norm)| norm.log10())
        };
        let lines: Vec<(&String, Vec<(f64, f64)>)> = shown.into_iter().map(|layer| (layer, of(&|e| norm(e, layer)))).collect();
        let (low, high) = lines.iter().flat_map(|line| &line.1).fold((f64::MAX, f64::MIN), |(l, h), p| (l.min(p.1), h.max(p.1)));
        if low <= high {
            let mut chart =
                Chart::new("Gradient norms of the layers", "epoch", x, (low.floor(), high.ceil().max(low.floor() + 1.0))).logarithmic();
            lines.iter().enumerate().for_each(|(i, (layer, points))| chart.line(layer, i, points));
            body.push_str(&chart.figure());
        }
        gradients(body, &epochs);
        body.push_str("</div>");
        let plain = config.loss == "cross-entropy" || config.table.as_ref().is_some_and(|table| table.regression);
        if !plain || config.l1 > 0.0 || config.class_weights != "none" {
            let _ = write!(
                body,
                "<p class=note>The training loss is what is minimised ({}, L1 {}, class weights {}); the validation loss is the plain cross-entropy.</p>",
                config.loss, config.l1, config.class_weights
            );
        }
        if config.label_smoothing > 0.0 || !config.augmentation.is_none() {
            body.push_str(
                "<p class=note>The training loss counts smoothed targets, changed images and dropout; the validation loss does not.</p>",
            );
        }
        body.push_str("</section>");
        Ok(())
    }
}

/// How large the gradients of some layers were in the first and in the last epoch that has counted them.
fn gradients(body: &mut String, epochs: &[Event]) {
    let mut counted = epochs.iter().filter_map(|event| Some((event.epoch, event.gradient_histograms.as_ref()?)));
    let Some(first) = counted.next() else { return };
    let last = counted.next_back().filter(|last| last.0 != first.0);
    let lowest = f64::from(*super::GRADIENT_DECADES.start());
    for (epoch, layers) in [Some(first), last].into_iter().flatten() {
        let title = format!("Sizes of gradients, epoch {epoch}");
        let mut chart = Chart::new(
            &title,
            "log10 of the size",
            (lowest - 1.0, lowest + layers.first().map_or(1, |l| l.1.len()) as f64 - 1.0),
            (0.0, 1.0),
        );
        let shown = layers.len().min(CURVES);
        for i in 0..shown {
            let (layer, counts) = &layers[if shown > 1 { i * (layers.len() - 1) / (shown - 1) } else { 0 }];
            let all = counts.iter().sum::<u64>().max(1) as f64;
            let points = counts.iter().enumerate().map(|(bin, &n)| (lowest - 0.5 + bin as f64, n as f64 / all));
            chart.line(layer, i, &points.collect::<Vec<_>>());
        }
        body.push_str(&chart.figure());
    }
}

/// A page that needs nothing else, and asks for nothing: what it holds has no access to any network.
fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width, initial-scale=1\">\
         <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\
         <title>{}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n",
        escape(title)
    )
}

/// A page that compares runs: a table of named rows with a cell for each run, and their curves over each other.
///
/// # Errors
/// [`Error::Io`] when a run's metrics cannot be read.
pub fn comparison(runs: &[Run], rows: &[(String, Vec<String>)]) -> Result<String> {
    let names: Vec<String> = runs.iter().map(|run| run.path().display().to_string()).collect();
    let mut body = String::from("<h1>Comparison</h1><div class=wide><table><tr><th></th>");
    names.iter().for_each(|name| {
        let _ = write!(body, "<th>{}</th>", escape(name));
    });
    body.push_str("</tr>");
    for (what, cells) in rows {
        let _ = write!(body, "<tr><th>{}</th>", escape(what));
        cells.iter().for_each(|cell| {
            let _ = write!(body, "<td>{}</td>", escape(cell));
        });
        body.push_str("</tr>");
    }
    body.push_str("</table></div><section><h2>Learning curves</h2><div class=charts>");
    let epochs = runs.iter().map(Run::epochs).collect::<Result<Vec<_>>>()?;
    let last = epochs.iter().flatten().map(|event| event.epoch).max().unwrap_or(1) as f64;
    type Figure = fn(&Event) -> Option<f64>;
    let figures: [(&str, Figure); 3] =
        [("Validation accuracy", |e| e.val_accuracy), ("Validation loss", |e| e.val_loss), ("Training loss", |e| e.train_loss)];
    for (title, figure) in figures {
        let lines: Vec<Vec<(f64, f64)>> = epochs
            .iter()
            .map(|events| events.iter().filter_map(|e| Some((e.epoch as f64, figure(e)?))).filter(|p| p.1.is_finite()).collect())
            .collect();
        let top = lines.iter().flatten().map(|point| point.1).fold(0.0, f64::max);
        if top > 0.0 {
            let mut chart = Chart::new(title, "epoch", (1.0, last.max(2.0)), (0.0, top));
            lines.iter().enumerate().for_each(|(i, points)| chart.line(&names[i], i % CURVES, points));
            body.push_str(&chart.figure());
        }
    }
    body.push_str("</div></section>");
    Ok(page("Comparison of runs", &body))
}

/// What is seen of a run that predicts numbers.
fn numbers_verdict(config: &Config, train_loss: f64, loss: f64, errors: &Regression) -> Vec<String> {
    let mut lines = Vec::new();
    if errors.r2 <= 0.0 {
        lines.push("no better than always answering the mean".into());
    }
    let hint = match config.loss.as_str() {
        "mse" if train_loss * 3.0 < loss => {
            "it fits the training rows much better than others (overfitting): more rows, --weight-decay 0.1, fewer --epochs"
        }
        "mse" if train_loss > 0.3 => {
            "the training loss is still high (underfitting): more --epochs, a larger --model or another --lr; or the columns do not tell it"
        }
        _ => "another --seed shows how much of this is luck",
    };
    lines.push(format!("to try next: {hint}"));
    lines
}

/// The errors of numbers in large print, and for programs.
fn numbers_headline(body: &mut String, part: &str, config: &Config, numbers: &Numbers, errors: &Regression, loss: f64) {
    body.push_str("<div class=tiles>");
    for (value, what) in [
        (format!("{:.4}", errors.rmse), format!("{part} error (RMSE) of {}, {} rows", config.classes[0], numbers.targets.len())),
        (format!("{:.4}", errors.mae), "mean absolute error".into()),
        (format!("{:.4}", errors.r2), "R2, the share of the variance explained".into()),
        (format!("{loss:.4}"), "squared error in standard deviations".into()),
    ] {
        let _ = write!(body, "<div><b>{value}</b><span>{}</span></div>", escape(&what));
    }
    body.push_str("</div>");
    let scores = serde_json::json!({ "part": part, "rows": numbers.targets.len(), "target": config.classes[0], "loss": loss, "rmse": errors.rmse, "mae": errors.mae, "mse": errors.mse, "r2": errors.r2 });
    let _ = write!(body, "<script type=\"application/json\" id=scores>{}</script>", scores.to_string().replace('<', "\\u003c"));
}

/// Answers over what they should be, and how far off they are.
fn numbers_charts(config: &Config, numbers: &Numbers) -> String {
    let mut body = String::from("<section><h2>Answers</h2><div class=charts>");
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        if low < high { (low, high) } else { (low - 1.0, low + 1.0) }
    };
    let all = range(&mut numbers.targets.iter().chain(&numbers.answers).copied());
    let mut chart = Chart::new("Answers over what they should be", &config.classes[0], all, all);
    chart.line("as it should be", IDEAL, &[(all.0, all.0), (all.1, all.1)]);
    let pairs: Vec<(f64, f64)> = numbers.targets.iter().copied().zip(numbers.answers.iter().copied()).collect();
    chart.points("answers", 0, &thinned(&pairs));
    body.push_str(&chart.figure());
    let misses: Vec<f64> = pairs.iter().map(|(target, answer)| answer - target).collect();
    let span = range(&mut misses.iter().copied());
    let width = (span.1 - span.0) / (2 * BINS) as f64;
    let mut bins = [0u64; 2 * BINS];
    misses.iter().for_each(|miss| bins[(((miss - span.0) / width) as usize).min(2 * BINS - 1)] += 1);
    let mut chart =
        Chart::new("How far off, and how often", "answer less target", span, (0.0, bins.iter().copied().max().unwrap_or(1) as f64));
    for (i, &n) in bins.iter().enumerate().filter(|bin| *bin.1 > 0) {
        let from = span.0 + i as f64 * width;
        chart.bar((from, from + width), n as f64, &format!("{n} from {from:.4} to {:.4}", from + width));
    }
    body.push_str(&chart.figure());
    body.push_str("</div></section>");
    body
}

/// The scores in large print, and all of them for programs.
fn headline(body: &mut String, config: &Config, judged: &Judged) -> Result<()> {
    let (predictions, scores) = (judged.answers, judged.scores);
    let error = expected_calibration_error(&predictions.probabilities, predictions.classes, &predictions.targets, BINS)?;
    let macro_f1 = scores.f1.iter().sum::<f64>() / scores.f1.len().max(1) as f64;
    body.push_str("<div class=tiles>");
    let auc = scores.auc.map_or("-".into(), |auc| format!("{auc:.4}"));
    for (value, what) in [
        (percent(scores.accuracy), format!("{} accuracy of {} images", judged.part, predictions.targets.len())),
        (format!("{macro_f1:.4}"), "macro F1".into()),
        (auc, "mean AUC".into()),
        (format!("{:.4}", scores.loss), "cross-entropy".into()),
        (percent(error), "calibration error".into()),
    ] {
        let _ = write!(body, "<div><b>{value}</b><span>{}</span></div>", escape(&what));
    }
    body.push_str("</div>");
    let cells = |(t, row): (usize, &Vec<u64>)| row.iter().enumerate().filter(|c| *c.1 > 0).map(|(p, &n)| (t, p, n)).collect::<Vec<_>>();
    let all = serde_json::json!({
        "part": judged.part,
        "images": predictions.targets.len(),
        "classes": config.classes,
        "accuracy": scores.accuracy,
        "loss": scores.loss,
        "precision": scores.precision,
        "recall": scores.recall,
        "f1": scores.f1,
        "macro_f1": macro_f1,
        "auc": scores.auc,
        "calibration_error": error,
        // Its cells above 0: true class, answer, images.
        "confusion_matrix": scores.confusion_matrix.iter().enumerate().flat_map(cells).collect::<Vec<_>>(),
    });
    let _ = write!(body, "<script type=\"application/json\" id=scores>{}</script>", all.to_string().replace('<', "\\u003c"));
    Ok(())
}

fn confusion(body: &mut String, config: &Config, scores: &Scores) {
    body.push_str("<section><h2>Confusion matrix</h2>");
    if config.classes.len() > ALL_CLASSES {
        body.push_str("<p>The most frequent mistakes:</p><table><tr><th>true class<th>taken for<th>images</tr>");
        for (n, t, p) in confusions(scores).into_iter().take(ALL_CLASSES) {
            let _ = write!(body, "<tr><td>{}<td>{}<td class=n>{n}</tr>", escape(&config.classes[t]), escape(&config.classes[p]));
        }
        body.push_str("</table></section>");
        return;
    }
    body.push_str("<p>Rows are true classes, columns answers; a cell's shade is its share of the row.</p><div class=wide><table class=matrix><tr><th></th>");
    for class in &config.classes {
        let _ = write!(body, "<th class=turned><span>{}</span></th>", escape(class));
    }
    body.push_str("</tr>");
    for (t, row) in scores.confusion_matrix.iter().enumerate() {
        let _ = write!(body, "<tr><th>{}</th>", escape(&config.classes[t]));
        let sum = row.iter().sum::<u64>().max(1) as f64;
        for (p, &n) in row.iter().enumerate() {
            let (share, right) = (n as f64 / sum, if p == t { "right" } else { "wrong" });
            let title = format!("{} of {} answered {}", n, config.classes[t], config.classes[p]);
            let shown = if n == 0 { String::new() } else { n.to_string() };
            let _ = write!(body, "<td class=\"cell {right}\" style=\"--share:{share:.3}\" title=\"{}\">{shown}</td>", escape(&title));
        }
        body.push_str("</tr>");
    }
    body.push_str("</table></div></section>");
}

fn classes(body: &mut String, config: &Config, scores: &Scores) {
    body.push_str("<section><h2>Classes</h2><table><tr><th>class<th>images<th>precision<th>recall<th>F1</tr>");
    let mut order: Vec<usize> = (0..config.classes.len()).collect();
    if order.len() > ALL_CLASSES {
        order.sort_by(|&a, &b| scores.f1[a].total_cmp(&scores.f1[b]));
        order.truncate(ALL_CLASSES);
    }
    for c in order {
        let support: u64 = scores.confusion_matrix[c].iter().sum();
        let _ = write!(body, "<tr><td>{}<td class=n>{support}", escape(&config.classes[c]));
        for value in [scores.precision[c], scores.recall[c], scores.f1[c]] {
            let _ = write!(body, "<td class=n><i class=bar style=\"--share:{value:.3}\"></i>{value:.4}");
        }
        body.push_str("</tr>");
    }
    body.push_str("</table></section>");
}

/// ROC and precision-recall curves, one class against the rest; of many classes those with the smallest area.
fn thresholds(body: &mut String, config: &Config, predictions: &Predictions) -> Result<()> {
    let mut areas: Vec<(f64, usize)> = Vec::new();
    let one = |c: usize| -> (Vec<f64>, Vec<bool>) {
        let scores = predictions.probabilities.iter().skip(c).step_by(predictions.classes).copied().collect();
        (scores, predictions.targets.iter().map(|&target| target == c).collect())
    };
    for c in 0..predictions.classes {
        let (scores, positive) = one(c);
        areas.extend(roc_auc(&scores, &positive)?.map(|area| (area, c)));
    }
    areas.sort_by(|a, b| a.0.total_cmp(&b.0));
    let title =
        if areas.len() > CURVES { format!("ROC, the {CURVES} classes told worst") } else { "ROC, each class against the rest".into() };
    let mut roc = Chart::new(&title, "false positive rate", (0.0, 1.0), (0.0, 1.0));
    let mut pr = Chart::new("Precision over recall", "recall", (0.0, 1.0), (0.0, 1.0));
    for (i, &(area, c)) in areas.iter().take(CURVES).enumerate() {
        let (scores, positive) = one(c);
        let curve = roc_curve(&scores, &positive)?;
        let points: Vec<(f64, f64)> = curve.fpr.iter().copied().zip(curve.tpr.iter().copied()).collect();
        roc.line(&format!("{} {area:.4}", config.classes[c]), i, &thinned(&points));
        let curve = precision_recall_curve(&scores, &positive)?;
        let points: Vec<(f64, f64)> = curve.recall.iter().copied().zip(curve.precision.iter().copied()).collect();
        pr.line(&config.classes[c], i, &thinned(&points));
    }
    body.push_str(&roc.figure());
    body.push_str(&pr.figure());
    Ok(())
}

/// A part of the points, the first and the last among them.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    (0..POINTS).map(|i| points[i * (points.len() - 1) / (POINTS - 1)]).collect()
}

/// Of each bin of the confidence the share of right answers.
fn reliability(body: &mut String, predictions: &Predictions) {
    let mut bins = [(0u64, 0u64); BINS];
    let answers = predictions.probabilities.chunks_exact(predictions.classes.max(1)).zip(predictions.classes_predicted());
    for ((p, best), &target) in answers.zip(&predictions.targets) {
        let bin = ((p[best] * BINS as f64).ceil().max(1.0) as usize - 1).min(BINS - 1);
        bins[bin].0 += 1;
        bins[bin].1 += (best == target) as u64;
    }
    let mut chart = Chart::new("Reliability: right answers over confidence", "confidence", (0.0, 1.0), (0.0, 1.0));
    for (i, &(n, right)) in bins.iter().enumerate().filter(|(_, bin)| bin.0 > 0) {
        let from = i as f64 / BINS as f64;
        chart.bar((from, from + 1.0 / BINS as f64), right as f64 / n as f64, &format!("{right} of {n} right"));
    }
    chart.line("as it should be", IDEAL, &[(0.0, 0.0), (1.0, 1.0)]);
    body.push_str(&chart.figure());
}

impl Report<'_> {
    fn about(&self, body: &mut String) -> Result<()> {
        let config = self.config;
        let run = escape(&self.run.path().display().to_string());
        let _ = write!(
            body,
            "<section><h2>How it was made</h2><p>{} on {}, {} steps, by mappa {}.",
            escape(&models::title(&config.model)),
            escape(&config.data),
            self.steps,
            env!("CARGO_PKG_VERSION"),
        );
        if let Some(t) = &self.timing {
            let waited = 100.0 * t.waited / t.seconds.max(1e-9);
            let things = if config.table.is_some() { "rows" } else { "images" };
            let _ = write!(
                body,
                " The last {} steps took {:.1} s on {}: {:.0} {things}/s, {waited:.0} % of the time waiting for {things}, tensors of {:.1} MB at most.",
                t.steps,
                t.seconds,
                escape(&t.device),
                t.images_per_s,
                1e-6 * t.peak_bytes as f64
            );
        }
        let _ = write!(
            body,
            "</p><pre>mappa train --config {run}/config.toml    # the same again\nmappa train --resume {run} --epochs {epochs}\nmappa eval {run}\nmappa predict {run} FILE...</pre>\
             <details><summary>config.toml</summary><pre>{config}</pre></details></section>",
            epochs = 2 * config.epochs,
            config = escape(&config.to_toml()?)
        );
        Ok(())
    }
}

const STYLE: &str = concat!(include_str!("../../chart.css"), include_str!("style.css"));
