//! `mappa data check`: what is wrong with a data set, as text, as JSON and as a page with the pictures.

use super::{CheckArgs, note, open_device, say};
use mappa::Result;
use mappa::data::check::{self, Check, PARTS};
use mappa::io::atomic;
use mappa::train::{self, Classifier, Suspect};
use serde_json::json;
use std::process::ExitCode;

/// Lines of a kind that are shown.
const SHOWN: usize = 10;

pub fn check(args: &CheckArgs) -> Result<ExitCode> {
    // What is wrong with the run is said before the pictures are read.
    let classifier = match &args.run {
        Some(run) => {
            let (device, line) = open_device(&args.device)?;
            note(format!("device  {line}"));
            Some(Classifier::load(run, &device)?)
        }
        None => None,
    };
    let found = check::check(&args.source)?;
    let suspects = match &classifier {
        Some(classifier) => train::suspects(classifier, &found, args.suspects)?,
        None => Vec::new(),
    };
    let leaks = found.duplicates.iter().filter(|d| found.is_leak(d)).count();
    if let Some(path) = &args.html {
        atomic::write(path, train::audit(&found, &suspects).as_bytes())?;
    }
    if args.device.json {
        lines(&found, &suspects, leaks);
    } else {
        text(&found, &suspects, leaks);
        if let Some(path) = &args.html {
            say(format!("page {}", path.display()));
        }
        if classifier.is_none() {
            say("after a training, --run RUN names pictures that may be labelled wrongly");
        }
    }
    Ok(if leaks == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn lines(found: &Check, suspects: &[Suspect], leaks: usize) {
    found.unreadable.iter().for_each(|line| say(json!({ "event": "unreadable", "what": line })));
    for d in &found.duplicates {
        let [a, b] = d.items.map(|i| &found.items[i]);
        say(json!({ "event": "duplicate", "kind": d.kind, "leak": found.is_leak(d), "correlation": d.correlation,
            "items": [a.name, b.name], "parts": [PARTS[a.part], PARTS[b.part]], "classes": [found.classes[a.class as usize], found.classes[b.class as usize]] }));
    }
    for s in suspects {
        let item = &found.items[s.item];
        say(json!({ "event": "suspect", "item": item.name, "class": found.classes[item.class as usize], "answer": found.classes[s.answer],
            "probability": s.probability, "of_class": s.of_class }));
    }
    let counts: Vec<_> = PARTS.iter().zip(found.counts()).filter(|(_, counts)| counts.iter().any(|&n| n > 0)).collect();
    say(json!({ "event": "summary", "name": found.name, "classes": found.classes, "counts": counts, "unreadable": found.unreadable.len(),
        "duplicates": found.duplicates.len(), "leaks": leaks, "mean": found.mean, "std": found.std, "warnings": found.warnings() }));
}

fn text(found: &Check, suspects: &[Suspect], leaks: usize) {
    let counts = found.counts();
    say(format!("{}: {} images of {} classes", found.name, found.items.len(), found.classes.len()));
    let parts: Vec<usize> = (0..3).filter(|&part| counts[part].iter().any(|&n| n > 0)).collect();
    let width = found.classes.iter().map(|class| class.chars().count()).max().unwrap_or(5).max(5);
    say(format!("{:width$}{}", "class", parts.iter().map(|&part| format!("  {:>7}", PARTS[part])).collect::<String>()));
    for (c, class) in found.classes.iter().enumerate().take(3 * SHOWN) {
        say(format!("{class:width$}{}", parts.iter().map(|&part| format!("  {:7}", counts[part][c])).collect::<String>()));
    }
    if found.classes.len() > 3 * SHOWN {
        say(format!("... {} classes more", found.classes.len() - 3 * SHOWN));
    }
    let mut sides: Vec<u32> = found.items.iter().map(|item| item.size[0].min(item.size[1])).collect();
    sides.sort();
    if let (Some(least), Some(most)) = (sides.first(), sides.last()) {
        say(format!("shorter sides {least} to {most} pixels, half of them {} or more", sides[sides.len() / 2]));
    }
    let numbers = |values: &[f64]| values.iter().map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(", ");
    say(format!("channels: mean {}, standard deviation {}", numbers(&found.mean), numbers(&found.std)));
    some("cannot be read", found.unreadable.len(), found.unreadable.iter().cloned());
    let pair = |d: &check::Duplicate| {
        let [a, b] = d.items.map(|i| &found.items[i]);
        let kind = match d.kind {
            check::Kind::Exact => "the same file",
            check::Kind::Near => "the same picture",
            check::Kind::Mirrored => "mirrored",
        };
        format!("{} ({}) and {} ({}): {kind}, {:.3}", a.name, PARTS[a.part], b.name, PARTS[b.part], d.correlation)
    };
    some("lie in two parts: what is learned is tested on itself", leaks, found.duplicates[..leaks].iter().map(pair));
    some("duplicates within a part", found.duplicates.len() - leaks, found.duplicates[leaks..].iter().map(pair));
    let suspect = |s: &Suspect| {
        let item = &found.items[s.item];
        let (class, answer) = (&found.classes[item.class as usize], &found.classes[s.answer]);
        format!("{}: labelled {class} ({:.1} %), looks like {answer} ({:.1} %)", item.name, 100.0 * s.of_class, 100.0 * s.probability)
    };
    some("may be labelled wrongly, the likeliest first", suspects.len(), suspects.iter().map(suspect));
    found.warnings().iter().for_each(say);
}

/// The number of some things and the first of them.
fn some(what: &str, count: usize, things: impl Iterator<Item = String>) {
    if count == 0 {
        return;
    }
    say(format!("{count} {what}"));
    things.take(SHOWN).for_each(|line| say(format!("  {line}")));
    if count > SHOWN {
        say(format!("  ... {} more; --json shows all", count - SHOWN));
    }
}
