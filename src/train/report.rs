//! `report.html`: what a run learned, in one file that needs nothing else. Charts are SVG whose colours are CSS variables, light or dark as the reader likes.

use std::fmt::Write;
use std::path::Path;

use super::{Config, Event};
use crate::data::{Dataset, Part};
use crate::error::Result;
use crate::io::atomic;
use crate::metrics::{Predictions, Scores, expected_calibration_error, precision_recall_curve, roc_auc, roc_curve};
use crate::models;

/// Classes up to which every one has its row, column and curve; of more, those that are confused most.
const ALL_CLASSES: usize = 30;
/// Curves of one chart.
const CURVES: usize = 10;
/// Points of a curve; more cannot be told apart.
const POINTS: usize = 300;
/// Pictures of mistakes.
const MISTAKES: usize = 12;
/// The colour of what should be, dashed.
const IDEAL: usize = 10;
/// Bins of the reliability diagram.
const BINS: usize = 10;

/// What a report is made of.
pub(super) struct Report<'a> {
    pub(super) config: &'a Config,
    pub(super) run: &'a Path,
    pub(super) device: &'a str,
    pub(super) epochs: &'a [Event],
    pub(super) steps: u64,
    pub(super) seconds: f64,
    /// None where nothing was held back.
    pub(super) judged: Option<Judged<'a>>,
    pub(super) verdict: &'a [String],
}

/// The part that is reported: its name, what was answered, and what was asked.
pub(super) struct Judged<'a> {
    pub(super) part: &'a str,
    pub(super) answers: &'a Predictions,
    pub(super) scores: &'a Scores,
    pub(super) data: &'a Dataset,
    pub(super) images: &'a Part,
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
                "too sure of itself: its mean confidence is {points:.0} points above its accuracy; --label-smoothing 0.1 or more images"
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
    // Blended images and erased parts keep the training loss high by themselves.
    let mixed = config.augmentation.mixup > 0.0 || config.augmentation.cutmix > 0.0;
    let hint = if train_loss > 0.3 && !mixed {
        "the training loss is still high (underfitting): more --epochs, a larger --model or another --lr"
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

/// Writes the report, complete or not at all.
pub(super) fn write(path: &Path, report: &Report) -> Result<()> {
    atomic::write(path, html(report)?.as_bytes())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn percent(x: f64) -> String {
    format!("{:.2} %", 100.0 * x)
}

fn html(report: &Report) -> Result<String> {
    let config = report.config;
    let name = report.run.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned());
    let mut body = String::new();
    // Writing to a string cannot fail.
    let _ = write!(body, "<h1>{}</h1>", escape(&name));
    match &report.judged {
        Some(Judged { part, answers: predictions, scores, .. }) => {
            let error = expected_calibration_error(&predictions.probabilities, predictions.classes, &predictions.targets, BINS)?;
            let macro_f1 = scores.f1.iter().sum::<f64>() / scores.f1.len().max(1) as f64;
            body.push_str("<div class=tiles>");
            let auc = scores.auc.map_or("-".into(), |auc| format!("{auc:.4}"));
            for (value, what) in [
                (percent(scores.accuracy), format!("{part} accuracy of {} images", predictions.targets.len())),
                (format!("{macro_f1:.4}"), "macro F1".into()),
                (auc, "mean AUC".into()),
                (format!("{:.4}", scores.loss), "cross-entropy".into()),
                (percent(error), "calibration error".into()),
            ] {
                let _ = write!(body, "<div><b>{value}</b><span>{}</span></div>", escape(&what));
            }
            body.push_str("</div>");
        }
        None => body.push_str("<p>No images were held back: there is no accuracy to report.</p>"),
    }
    if !report.verdict.is_empty() {
        body.push_str("<ul class=verdict>");
        report.verdict.iter().for_each(|line| {
            let _ = write!(body, "<li>{}</li>", escape(line));
        });
        body.push_str("</ul>");
    }
    curves(&mut body, report)?;
    if let Some(Judged { answers: predictions, scores, data, images, .. }) = &report.judged {
        confusion(&mut body, config, scores);
        classes(&mut body, config, scores);
        body.push_str("<section><h2>Thresholds and confidence</h2><div class=charts>");
        thresholds(&mut body, config, predictions)?;
        reliability(&mut body, predictions);
        body.push_str("</div></section>");
        mistakes(&mut body, config, predictions, data, images)?;
    }
    about(&mut body, report)?;
    Ok(format!(
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=viewport content=\"width=device-width, initial-scale=1\">\
         <title>{}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n",
        escape(&name)
    ))
}

fn curves(body: &mut String, report: &Report) -> Result<()> {
    let (config, epochs) = (report.config, report.epochs);
    if epochs.is_empty() {
        return Ok(());
    }
    body.push_str("<section><h2>Learning curves</h2><div class=charts>");
    let of = |value: fn(&Event) -> Option<f64>| -> Vec<(f64, f64)> {
        epochs.iter().filter_map(|event| Some((event.epoch as f64, value(event)?))).filter(|point| point.1.is_finite()).collect()
    };
    let (train, val) = (of(|e| e.train_loss), of(|e| e.val_loss));
    let top = train.iter().chain(&val).map(|point| point.1).fold(0.0, f64::max);
    let last = epochs.iter().map(|event| event.epoch).max().unwrap_or(1) as f64;
    let x = (1.0, last.max(2.0));
    let mut chart = Chart::new("Loss", "epoch", x, (0.0, top.max(1e-9)));
    chart.line("training", 0, &train);
    chart.line("validation", 1, &val);
    body.push_str(&chart.figure());
    let accuracy = of(|e| e.val_accuracy);
    if !accuracy.is_empty() {
        let low = accuracy.iter().map(|point| point.1).fold(1.0, f64::min);
        let mut chart = Chart::new("Validation accuracy", "epoch", x, ((low * 10.0).floor() / 10.0, 1.0));
        chart.line("validation", 1, &accuracy);
        body.push_str(&chart.figure());
    }
    let schedule = config.schedule()?;
    let steps = report.steps.max(1);
    let rates: Vec<(f64, f64)> = (0..=POINTS as u64)
        .map(|i| i * (steps - 1) / POINTS as u64)
        .map(|step| (step as f64 + 1.0, schedule.lr(config.lr, step, steps)))
        .collect();
    let top = rates.iter().map(|point| point.1).fold(0.0, f64::max);
    let mut chart = Chart::new("Learning rate", "step", (1.0, (steps as f64).max(2.0)), (0.0, top));
    chart.line("learning rate", 2, &rates);
    body.push_str(&chart.figure());
    body.push_str("</div>");
    if config.label_smoothing > 0.0 || !config.augmentation.is_none() {
        body.push_str(
            "<p class=note>The training loss counts smoothed targets, changed images and dropout; the validation loss does not.</p>",
        );
    }
    body.push_str("</section>");
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
    for (p, &target) in predictions.probabilities.chunks_exact(predictions.classes.max(1)).zip(&predictions.targets) {
        let best = (0..p.len()).fold(0, |best, c| if p[c] > p[best] { c } else { best });
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

/// The pictures that were answered wrongly with the most confidence.
fn mistakes(body: &mut String, config: &Config, predictions: &Predictions, data: &Dataset, part: &Part) -> Result<()> {
    let mut wrong: Vec<(f64, usize, usize)> = Vec::new();
    for (sample, (p, &target)) in predictions.probabilities.chunks_exact(predictions.classes.max(1)).zip(&predictions.targets).enumerate() {
        let best = (0..p.len()).fold(0, |best, c| if p[c] > p[best] { c } else { best });
        if best != target {
            wrong.push((p[best], sample, best));
        }
    }
    wrong.sort_by(|a, b| b.0.total_cmp(&a.0));
    wrong.truncate(MISTAKES);
    if wrong.is_empty() {
        return Ok(());
    }
    body.push_str("<section><h2>The most confident mistakes</h2><div class=pictures>");
    let samples: Vec<usize> = wrong.iter().map(|w| w.1).collect();
    let pixels = part.select(&samples).pixels()?;
    let len = (pixels.len() / samples.len()).max(1);
    for ((p, sample, best), image) in wrong.iter().zip(pixels.chunks_exact(len)) {
        let (truth, answer) = (&config.classes[predictions.targets[*sample]], &config.classes[*best]);
        let picture = picture(image, data).map_or(String::new(), |url| format!("<img alt=\"{}\" src=\"{url}\">", escape(truth)));
        let _ = write!(
            body,
            "<figure>{picture}<figcaption><b>{}</b> taken for <b>{}</b>, {:.0} %</figcaption></figure>",
            escape(truth),
            escape(answer),
            100.0 * p
        );
    }
    body.push_str("</div></section>");
    Ok(())
}

/// An image as a `data:` address.
#[cfg(feature = "image")]
fn picture(pixels: &[u8], data: &Dataset) -> Option<String> {
    use base64::Engine;
    let (area, width, height) = (data.height * data.width, data.width as u32, data.height as u32);
    let white = data.preprocessing.white();
    let at = |c: usize, x: u32, y: u32| {
        let pixel = pixels[c.min(data.channels - 1) * area + (y * width + x) as usize];
        (pixel as f32 * white).round().min(255.0) as u8
    };
    let image = image::RgbImage::from_fn(width, height, |x, y| image::Rgb([0, 1, 2].map(|c| at(c, x, y))));
    let mut png = std::io::Cursor::new(Vec::new());
    image.write_to(&mut png, image::ImageFormat::Png).ok()?;
    Some(format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png.into_inner())))
}

#[cfg(not(feature = "image"))]
fn picture(_: &[u8], _: &Dataset) -> Option<String> {
    None
}

fn about(body: &mut String, report: &Report) -> Result<()> {
    let config = report.config;
    let run = report.run.display().to_string();
    let _ = write!(
        body,
        "<section><h2>How it was made</h2><p>{} on {}, {} steps, the last part of it in {:.1} s by mappa {} on {}.</p>\
         <pre>mappa train --resume {run} --epochs {epochs}\nmappa eval {run}\nmappa predict {run} FILE...</pre>",
        escape(&models::title(&config.model)),
        escape(&config.data),
        report.steps,
        report.seconds,
        env!("CARGO_PKG_VERSION"),
        escape(report.device),
        run = escape(&run),
        epochs = 2 * config.epochs
    );
    let _ = write!(body, "<details><summary>config.toml</summary><pre>{}</pre></details></section>", escape(&config.to_toml()?));
    Ok(())
}

/// A chart with two axes.
struct Chart {
    title: String,
    label: String,
    x: (f64, f64),
    y: (f64, f64),
    marks: String,
    legend: Vec<(String, usize)>,
}

/// Size of a chart, and room for its axes: left, right, top, bottom.
const SIZE: (f64, f64) = (420.0, 260.0);
const ROOM: (f64, f64, f64, f64) = (48.0, 12.0, 10.0, 34.0);

impl Chart {
    fn new(title: &str, label: &str, x: (f64, f64), y: (f64, f64)) -> Self {
        Chart { title: title.into(), label: label.into(), x, y, marks: String::new(), legend: Vec::new() }
    }

    fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let share = |v: f64, (low, high): (f64, f64)| (v - low) / (high - low).max(1e-12);
        let (wide, tall) = (SIZE.0 - ROOM.0 - ROOM.1, SIZE.1 - ROOM.2 - ROOM.3);
        (ROOM.0 + wide * share(x, self.x), ROOM.2 + tall * (1.0 - share(y, self.y)))
    }

    fn line(&mut self, name: &str, colour: usize, points: &[(f64, f64)]) {
        if points.is_empty() {
            return;
        }
        let mut text = String::new();
        for &point in points {
            let (x, y) = self.at(point);
            let _ = write!(text, "{x:.1},{y:.1} ");
        }
        if points.len() == 1 {
            let (x, y) = self.at(points[0]);
            let _ = write!(self.marks, "<circle class=\"c{colour} dot\" cx={x:.1} cy={y:.1} r=3 />");
        }
        let _ = write!(self.marks, "<polyline class=c{colour} points=\"{}\"><title>{}</title></polyline>", text.trim_end(), escape(name));
        self.legend.push((name.to_owned(), colour));
    }

    fn bar(&mut self, (from, to): (f64, f64), value: f64, title: &str) {
        let ((left, top), (right, bottom)) = (self.at((from, value)), self.at((to, self.y.0)));
        let _ = write!(
            self.marks,
            "<rect class=bin x={:.1} y={top:.1} width={:.1} height={:.1}><title>{}</title></rect>",
            left + 1.0,
            (right - left - 2.0).max(0.5),
            (bottom - top).max(0.5),
            escape(title)
        );
    }

    fn figure(&self) -> String {
        let mut text = String::new();
        for tick in ticks(self.x) {
            let (x, y) = self.at((tick, self.y.0));
            let _ = write!(
                text,
                "<line class=grid x1={x:.1} x2={x:.1} y1={:.1} y2={y:.1} /><text x={x:.1} y={:.1} class=mid>{}</text>",
                ROOM.2,
                y + 14.0,
                number(tick)
            );
        }
        for tick in ticks(self.y) {
            let (x, y) = self.at((self.x.0, tick));
            let _ = write!(
                text,
                "<line class=grid x1={x:.1} x2={:.1} y1={y:.1} y2={y:.1} /><text x={:.1} y={:.1} class=end>{}</text>",
                SIZE.0 - ROOM.1,
                x - 5.0,
                y + 4.0,
                number(tick)
            );
        }
        let middle = (ROOM.0 + SIZE.0 - ROOM.1) / 2.0;
        let _ = write!(text, "<text x={middle:.1} y={:.1} class=mid>{}</text>", SIZE.1 - 4.0, escape(&self.label));
        let mut legend = String::new();
        for (name, colour) in &self.legend {
            let _ = write!(legend, "<span class=key><i class=k{colour}></i>{}</span>", escape(name));
        }
        format!(
            "<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {} {}\" role=img aria-label=\"{title}\">{text}{}</svg><div class=legend>{legend}</div></figure>",
            SIZE.0,
            SIZE.1,
            self.marks,
            title = escape(&self.title)
        )
    }
}

/// Three to seven round numbers in a range.
fn ticks((low, high): (f64, f64)) -> Vec<f64> {
    let rough = (high - low).max(1e-12) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| *step >= rough).unwrap_or(10.0 * power);
    let first = (low / step).ceil() as i64;
    (first..).map(|i| i as f64 * step).take_while(|tick| *tick <= high + 1e-9 * step).take(12).collect()
}

fn number(x: f64) -> String {
    if x != 0.0 && x.abs() < 1e-3 {
        return format!("{x:.0e}");
    }
    let text = format!("{x:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.to_owned() }
}

const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c1f24;--soft:#5d6570;--ground:#fff;--card:#f5f6f8;--line:#dfe2e7;--right:46,125,50;--wrong:198,40,40;
--c0:#2563eb;--c1:#d97706;--c2:#059669;--c3:#dc2626;--c4:#7c3aed;--c5:#db2777;--c6:#0891b2;--c7:#65a30d;--c8:#b45309;--c9:#475569}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa3ae;--ground:#14171b;--card:#1e2228;--line:#343a43;--right:102,187,106;--wrong:239,83,80;
--c0:#60a5fa;--c1:#fbbf24;--c2:#34d399;--c3:#f87171;--c4:#a78bfa;--c5:#f472b6;--c6:#22d3ee;--c7:#a3e635;--c8:#fb923c;--c9:#94a3b8}}
*{box-sizing:border-box}body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1000px;margin:0 auto;padding:24px 20px 60px}h1{font-size:26px;margin:0 0 16px}h2{font-size:18px;margin:36px 0 10px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px}.tiles div{background:var(--card);border-radius:8px;padding:12px 14px}
.tiles b{display:block;font-size:22px}.tiles span{color:var(--soft);font-size:13px}.verdict{margin:18px 0;padding-left:20px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:18px}figure{margin:0}.charts figure{background:var(--card);border-radius:8px;padding:10px 12px}
figcaption{font-size:14px;margin-bottom:4px}svg{width:100%;height:auto;display:block}svg text{font-size:11px;fill:var(--soft)}.mid{text-anchor:middle}.end{text-anchor:end}
.grid{stroke:var(--line);stroke-width:1}polyline{fill:none;stroke-width:2;stroke-linejoin:round}.bin{fill:var(--c0);opacity:.55}
.legend{display:flex;flex-wrap:wrap;gap:2px 12px;font-size:12px;color:var(--soft)}.key i{display:inline-block;width:12px;height:3px;margin-right:5px;vertical-align:middle}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}.c4{stroke:var(--c4)}.c5{stroke:var(--c5)}.c6{stroke:var(--c6)}.c7{stroke:var(--c7)}.c8{stroke:var(--c8)}.c9{stroke:var(--c9)}.c10{stroke:var(--soft);stroke-dasharray:5 4}
.k0{background:var(--c0)}.k1{background:var(--c1)}.k2{background:var(--c2)}.k3{background:var(--c3)}.k4{background:var(--c4)}.k5{background:var(--c5)}.k6{background:var(--c6)}.k7{background:var(--c7)}.k8{background:var(--c8)}.k9{background:var(--c9)}.k10{background:var(--soft)}
.dot{fill:currentColor}.note{color:var(--soft);font-size:13px}table{border-collapse:collapse;font-size:14px}th,td{padding:4px 10px;text-align:left;border-bottom:1px solid var(--line)}th{font-weight:600}.n{text-align:right;font-variant-numeric:tabular-nums}
.bar{display:inline-block;height:8px;width:calc(var(--share)*70px);background:var(--c0);opacity:.6;border-radius:2px;margin-right:8px}
.wide{overflow-x:auto}.matrix td,.matrix th{border:0;padding:4px 6px}.cell{text-align:center;min-width:34px;border-radius:3px;font-variant-numeric:tabular-nums}
.right{background:rgba(var(--right),calc(var(--share)*.75))}.wrong{background:rgba(var(--wrong),calc(var(--share)*2))}
.turned{vertical-align:bottom}.turned span{writing-mode:vertical-rl;transform:rotate(180deg)}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(130px,1fr));gap:14px}.pictures img{width:100%;image-rendering:pixelated;border-radius:6px;display:block;margin-bottom:4px}
.pictures figcaption{font-size:12px;color:var(--soft)}pre{background:var(--card);border-radius:8px;padding:12px;overflow-x:auto;font-size:13px}summary{cursor:pointer}
@media print{main{max-width:none;padding:0}section{break-inside:avoid}details{display:none}}
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks((0.0, 1.0)), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks((1.0, 30.0)), [10.0, 20.0, 30.0]);
        for range in [(0.0, 0.0), (1.0, 2.0), (-3.0, 1e6), (0.9, 1.0)] {
            assert!(ticks(range).len() <= 12 && ticks(range).iter().all(|t| *t >= range.0 - 1e-9 && *t <= range.1 + 1e-6), "{range:?}");
        }
        assert_eq!([0.6000000000000001, 20.0, -0.0, 5e-4].map(number), ["0.6", "20", "0", "5e-4"]);
    }

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(escape("<script>\"&"), "&lt;script&gt;&quot;&amp;");
        let mut chart = Chart::new("<b>", "x", (0.0, 1.0), (0.0, 1.0));
        chart.line("<i>", 0, &[(0.0, 0.5), (1.0, 0.5)]);
        let text = chart.figure();
        assert!(!text.contains("<b>") && !text.contains("<i>") && text.contains("points=\"48.0,118.0 408.0,118.0\""), "{text}");
    }
}
