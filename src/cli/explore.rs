//! Choosing settings: `mappa lr-find`, `mappa sweep`, `mappa compare`.

use super::commands::prepare;
use super::{CompareArgs, LrFindArgs, SweepArgs, note, open_device, say};
use mappa::io::atomic;
use mappa::rng::Stream;
use mappa::train::{self, BatchSize, Config, Options, Run, Settings};
use mappa::{Error, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Here runs are compared, which want one size.
fn no_auto(settings: &Settings) -> Result<()> {
    match settings.batch_size {
        Some(BatchSize::Auto(_)) => Err(Error::Config("--batch-size auto is for mappa train; give a number here".into())),
        _ => Ok(()),
    }
}

pub fn lr_find(args: &LrFindArgs) -> Result<ExitCode> {
    no_auto(&args.settings)?;
    if !(args.from > 0.0 && args.to > args.from && args.to.is_finite()) || args.steps < 10 {
        return Err(Error::Config("--from must be above 0 and below --to, and --steps at least 10".into()));
    }
    let (data, config) = prepare(args.settings.clone(), &mut None)?;
    let (device, line) = open_device(&args.device)?;
    if !args.device.json {
        note(format!("device  {line}"));
    }
    let mut on_note = |line: &str| note(line);
    let mut ignored = |_: &train::Event| {};
    let interrupt = Arc::new(AtomicBool::new(false));
    let mut options = Options {
        device: &device,
        workers: args.workers,
        interrupt,
        on_event: &mut ignored,
        on_note: &mut on_note,
        fallback: None,
        log_gradients: false,
    };
    let curve = train::lr_range(&config, &data, [args.from, args.to], args.steps, &mut options)?;
    let (low, high) = curve.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), &(_, loss)| (l.min(loss), h.max(loss)));
    let every = curve.len().div_ceil(30).max(1);
    for &(lr, loss) in curve.iter().step_by(every) {
        if args.device.json {
            say(json!({ "event": "lr", "lr": lr, "loss": loss }));
        } else {
            let bar = (40.0 * (loss - low) / (high - low).max(1e-12)).round() as usize;
            say(format!("{lr:9.2e}  {loss:8.4}  {}", "#".repeat(bar + 1)));
        }
    }
    let suggestion = train::suggest_lr(&curve);
    if args.device.json {
        say(json!({ "event": "summary", "lr": suggestion }));
    } else {
        match suggestion {
            Some(lr) => say(format!(
                "the loss falls fastest at a learning rate of about {lr:.1e}; try --lr {lr:.1e}, and up to three times as much with one-cycle"
            )),
            None => say("the loss falls nowhere; try a smaller --from, or look at the data with: mappa data preview"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A setting with the values that a sweep tries.
enum Axis {
    List(Vec<String>),
    /// Drawn between two numbers, on a logarithmic scale where both are above 0.
    Range(f64, f64),
}

fn axis(text: &str) -> Result<(String, Axis)> {
    let wrong = || Error::Config(format!("--try {text}: expected KEY=VALUE,VALUE,... or KEY=LOW..HIGH"));
    let (key, values) = text.split_once('=').ok_or_else(wrong)?;
    if let Some((low, high)) = values.split_once("..") {
        let (low, high): (f64, f64) = (low.trim().parse().map_err(|_| wrong())?, high.trim().parse().map_err(|_| wrong())?);
        if !(low < high && low.is_finite() && high.is_finite()) {
            return Err(wrong());
        }
        return Ok((key.trim().to_owned(), Axis::Range(low, high)));
    }
    let values: Vec<String> = values.split(',').map(|value| value.trim().to_owned()).collect();
    if key.trim().is_empty() || values.iter().any(String::is_empty) {
        return Err(wrong());
    }
    Ok((key.trim().to_owned(), Axis::List(values)))
}

/// The assignments of each run: all combinations of lists, or `random` draws.
fn points(axes: &[(String, Axis)], random: Option<usize>, seed: u64) -> Result<Vec<Vec<(String, String)>>> {
    if let Some(count) = random {
        let draw = |run: usize, (n, (key, axis)): (usize, &(String, Axis))| {
            let stream = Stream::new(seed, "sweep", run as u64, n as u64);
            let value = match axis {
                Axis::List(values) => values[stream.below(0, values.len())].clone(),
                Axis::Range(low, high) if *low > 0.0 => format!("{:.3e}", low * (high / low).powf(stream.uniform(0) as f64)),
                Axis::Range(low, high) => format!("{:.4}", low + (high - low) * stream.uniform(0) as f64),
            };
            (key.clone(), value)
        };
        return Ok((0..count).map(|run| axes.iter().enumerate().map(|axis| draw(run, axis)).collect()).collect());
    }
    let mut all = vec![Vec::new()];
    for (key, axis) in axes {
        let Axis::List(values) = axis else {
            return Err(Error::Config(format!("--try {key}: a range needs --random N, the number of runs")));
        };
        all = all.iter().flat_map(|point| values.iter().map(|value| [&point[..], &[(key.clone(), value.clone())]].concat())).collect();
    }
    Ok(all)
}

pub fn sweep(args: &SweepArgs) -> Result<ExitCode> {
    let axes = args.tries.iter().map(|text| axis(text)).collect::<Result<Vec<_>>>()?;
    let points = points(&axes, args.random, args.settings.seed.unwrap_or(1))?;
    // Every combination is checked before the first is trained.
    let (mut runs, mut loaded) = (Vec::new(), None);
    for point in &points {
        let mut settings = args.settings.clone();
        for (key, value) in point {
            settings.set(&format!("{key}={value}"))?;
        }
        no_auto(&settings)?;
        let (data, config) = prepare(settings, &mut loaded)?;
        runs.push((point, data, config));
    }
    if args.out.exists() {
        return Err(Error::Config(format!("--out {}: exists already; give another", args.out.display())));
    }
    let (device, line) = open_device(&args.device)?;
    let json = args.device.json;
    if !json {
        note(format!("device  {line}; {} runs in {}", runs.len(), args.out.display()));
    }
    let mut rows = Vec::new();
    for (n, (point, data, mut config)) in runs.into_iter().enumerate() {
        let run = Run::create(Some(&args.out.join(format!("{:03}", n + 1))), &mut config, &device)?;
        let (mut ignored, mut silent) = (|_: &train::Event| {}, |_: &str| {});
        let interrupt = Arc::new(AtomicBool::new(false));
        let mut options = Options {
            device: &device,
            workers: args.workers,
            interrupt,
            on_event: &mut ignored,
            on_note: &mut silent,
            fallback: None,
            log_gradients: false,
        };
        let what: Vec<String> = point.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let outcome = match train::train(&run, &config, &data, &mut options) {
            Ok(outcome) => outcome,
            // A learning rate that is too high is a result.
            Err(Error::Diverged(message)) => {
                note(format!("{}: {message}", what.join(" ")));
                continue;
            }
            Err(error) => return Err(error),
        };
        let accuracy = outcome.val.as_ref().and_then(|measured| measured.accuracy());
        let loss = outcome.val.as_ref().map(|measured| measured.loss());
        if json {
            let point: BTreeMap<&String, &String> = point.iter().map(|(key, value)| (key, value)).collect();
            say(
                json!({ "event": "run", "run": run.path().display().to_string(), "settings": point, "val_accuracy": accuracy, "val_loss": loss, "train_loss": outcome.train_loss, "seconds": outcome.seconds }),
            );
        } else {
            let reached = outcome.val.as_ref().map_or("-".into(), |measured| measured.headline());
            note(format!("{:3} of {}: {}: {reached} in {:.1} s", n + 1, points.len(), what.join(" "), outcome.seconds));
        }
        rows.push((accuracy, loss, outcome, run, what));
    }
    if !json {
        // By accuracy, numbers by their loss.
        let rank = |row: &(Option<f64>, Option<f64>, _, _, _)| row.0.unwrap_or(-row.1.unwrap_or(f64::INFINITY));
        rows.sort_by(|a, b| rank(b).total_cmp(&rank(a)));
        say(format!("{:>12} {:>9} {:>10} {:>9}  settings", "val accuracy", "val loss", "train loss", "seconds"));
        for (accuracy, loss, outcome, run, what) in &rows {
            let loss = loss.map_or("-".into(), |loss| format!("{loss:.4}"));
            let name = run.path().display();
            say(format!(
                "{:>12} {loss:>9} {:10.4} {:9.1}  {}  ({name})",
                accuracy.map_or("-".into(), |a| format!("{:.2} %", 100.0 * a)),
                outcome.train_loss,
                outcome.seconds,
                what.join(" ")
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What `compare` shows of a run.
struct Summary {
    settings: toml::Table,
    epochs: u64,
    done: Option<Value>,
    best: Option<f64>,
}

fn summary(path: &Path) -> Result<Summary> {
    let config = Config::read(path)?;
    let settings = toml::Table::try_from(&config).map_err(|e| Error::data(path, e.to_string()))?;
    let metrics = path.join("metrics.jsonl");
    let text = std::fs::read_to_string(&metrics).map_err(|e| Error::data(&metrics, format!("cannot be read: {e}")))?;
    let (mut epochs, mut done, mut best) = (0, None, None);
    for line in text.lines() {
        // A line that was being written when the machine stopped says nothing.
        let Ok(value) = serde_json::from_str::<Value>(line) else { continue };
        match value["event"].as_str() {
            Some("epoch") => {
                epochs = epochs.max(value["epoch"].as_u64().unwrap_or(0));
                let accuracy = value["val_accuracy"].as_f64();
                best = accuracy.map(|a| best.map_or(a, |b: f64| b.max(a))).or(best);
            }
            Some("done") => done = Some(value),
            _ => {}
        }
    }
    Ok(Summary { settings, epochs, done, best })
}

/// Characters of a cell that are shown.
const WIDEST: usize = 44;

/// The beginning of a text that is too long.
fn cut(text: &str) -> String {
    match text.chars().count() > WIDEST {
        true => text.chars().take(WIDEST - 3).chain("...".chars()).collect(),
        false => text.to_owned(),
    }
}

pub fn compare(args: &CompareArgs) -> Result<ExitCode> {
    let runs = args.runs.iter().map(|path| summary(path)).collect::<Result<Vec<_>>>()?;
    let names: Vec<String> = args.runs.iter().map(|path| path.display().to_string()).collect();
    let figure = |run: &Summary, key: &str| run.done.as_ref().and_then(|done| done[key].as_f64());
    let show = |value: Option<&toml::Value>| match value {
        Some(toml::Value::String(text)) => mappa::models::title(text),
        Some(value) => value.to_string(),
        None => "-".into(),
    };
    let keys: std::collections::BTreeSet<&String> = runs.iter().flat_map(|run| run.settings.keys()).collect();
    let differing: Vec<&String> =
        keys.into_iter().filter(|key| runs.iter().any(|run| run.settings.get(*key) != runs[0].settings.get(*key))).collect();
    if args.json {
        for (name, run) in names.iter().zip(&runs) {
            let settings: BTreeMap<&String, String> = differing.iter().map(|&key| (key, show(run.settings.get(key)))).collect();
            say(json!({ "event": "run", "run": name, "epochs": run.epochs, "finished": run.done.is_some(), "best_val_accuracy": run.best,
                "val_accuracy": figure(run, "val_accuracy"), "val_loss": figure(run, "val_loss"), "test_accuracy": figure(run, "test_accuracy"), "val_rmse": figure(run, "val_rmse"), "test_rmse": figure(run, "test_rmse"),
                "train_loss": figure(run, "train_loss"), "settings": settings }));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let percent = |value: Option<f64>| value.map_or("-".into(), |v| format!("{:.2} %", 100.0 * v));
    let number = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.4}"));
    let mut rows: Vec<(String, Vec<String>)> = vec![
        (
            "epochs".into(),
            runs.iter().map(|run| format!("{}{}", run.epochs, if run.done.is_some() { "" } else { ", not finished" })).collect(),
        ),
        ("test accuracy".into(), runs.iter().map(|run| percent(figure(run, "test_accuracy"))).collect()),
        ("val accuracy".into(), runs.iter().map(|run| percent(figure(run, "val_accuracy").or(run.best))).collect()),
        ("val error (RMSE)".into(), runs.iter().map(|run| number(figure(run, "val_rmse"))).collect()),
        ("test error (RMSE)".into(), runs.iter().map(|run| number(figure(run, "test_rmse"))).collect()),
        ("val loss".into(), runs.iter().map(|run| number(figure(run, "val_loss"))).collect()),
        ("train loss".into(), runs.iter().map(|run| number(figure(run, "train_loss"))).collect()),
    ];
    // What no run has is not shown.
    rows.retain(|(_, cells)| cells.iter().any(|cell| cell != "-"));
    rows.extend(differing.iter().map(|&key| (key.clone(), runs.iter().map(|run| show(run.settings.get(key))).collect())));
    if let Some(path) = &args.html {
        let opened = args.runs.iter().map(|path| Run::open(path).map(|(run, _)| run)).collect::<Result<Vec<_>>>()?;
        atomic::write(path, train::comparison(&opened, &rows)?.as_bytes())?;
    }
    let first = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..runs.len())
        .map(|i| rows.iter().map(|(_, cells)| cells[i].chars().count().min(WIDEST)).max().unwrap_or(0).max(names[i].len()))
        .collect();
    let row = |name: &str, cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cut(cell)).zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        say(format!("{name:first$}  {}", cells.join("  ")).trim_end())
    };
    row("", &names);
    rows.iter().for_each(|(name, cells)| row(name, cells));
    if differing.is_empty() && runs.len() > 1 {
        say("the settings are the same");
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sweep_tries_all_combinations_or_draws() {
        let axes: Vec<_> = ["lr=0.1, 0.2", "optimizer=sgd,adam"].iter().map(|text| axis(text).unwrap()).collect();
        let grid = points(&axes, None, 1).unwrap();
        let texts: Vec<String> =
            grid.iter().map(|point| point.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(texts, ["lr=0.1 optimizer=sgd", "lr=0.1 optimizer=adam", "lr=0.2 optimizer=sgd", "lr=0.2 optimizer=adam"]);
        let range = vec![axis("lr=1e-4..1e-1").unwrap()];
        assert!(points(&range, None, 1).unwrap_err().to_string().contains("--random N"));
        let draws = points(&range, Some(200), 1).unwrap();
        let logs: Vec<f64> = draws.iter().map(|point| point[0].1.parse::<f64>().unwrap().log10()).collect();
        let mean = logs.iter().sum::<f64>() / 200.0;
        // Uniform in -4..-1: -2.5 with a standard error of 0.06.
        assert!(logs.iter().all(|l| (-4.001..=-0.999).contains(l)) && (mean + 2.5).abs() < 0.3, "{mean}");
        for bad in ["lr", "lr=", "=3", "lr=2..1", "lr=a..b", "lr=1,,2"] {
            assert!(axis(bad).is_err(), "{bad}");
        }
    }
}
