//! `metric`: scores, computed on the host in f64.

use super::golden::{Golden, Operator, Outcome, Output, malformed, unsupported};
use crate::error::Result;
use crate::metrics::{self, Average, Confusion, KappaWeights};

/// Attributes that only describe the convention, of which one is understood.
const CONVENTIONS: &[(&str, &str)] = &[
    ("ties", "the first index of the largest logit is the prediction"),
    ("absent classes", "left out of the mean"),
    ("rows", "targets"),
    ("columns", "predictions"),
    ("first threshold", "infinity"),
    ("order", "thresholds ascending; last point precision 1, recall 0"),
    ("input", "logits; probabilities = softmax(logits)"),
    ("zero denominator", "0"),
    ("outputs", "mean over all values; r2: mean over columns"),
    ("constant target", "r2 = 0 unless exact"),
];

pub(super) const OPERATORS: &[Operator] = &[
    Operator { name: "accuracy", attributes: &["ties"], run: |g| top_k(g, 1) },
    Operator { name: "top_k_accuracy", attributes: &["k"], run: |g| top_k(g, g.attribute("k")?) },
    Operator { name: "balanced_accuracy", attributes: &["absent classes"], run: balanced_accuracy },
    Operator { name: "confusion_matrix", attributes: &["num_classes", "rows", "columns"], run: confusion_matrix },
    Operator { name: "precision_recall_f1", attributes: &["num_classes", "zero_division"], run: precision_recall_f1 },
    Operator { name: "roc_curve", attributes: &["drop_intermediate", "first threshold"], run: roc_curve },
    Operator { name: "roc_auc", attributes: &[], run: |g| ranked(g, "auc", |s, p| Ok(metrics::roc_auc(s, p)?.unwrap_or(f64::NAN))) },
    Operator { name: "average_precision", attributes: &[], run: |g| ranked(g, "average_precision", metrics::average_precision) },
    Operator { name: "precision_recall_curve", attributes: &["drop_intermediate", "order"], run: precision_recall_curve },
    Operator {
        name: "roc_auc_ovr",
        attributes: &["average", "num_classes"],
        run: |g| one_against_rest(g, "auc", |s, p| Ok(metrics::roc_auc(s, p)?.unwrap_or(f64::NAN))),
    },
    Operator {
        name: "average_precision_ovr",
        attributes: &["average", "num_classes"],
        run: |g| one_against_rest(g, "average_precision", metrics::average_precision),
    },
    Operator { name: "log_loss", attributes: &["input"], run: |g| probable(g, "log_loss", metrics::log_loss) },
    Operator { name: "log_loss_binary", attributes: &["input"], run: |g| binary(g, "log_loss", 1.0, metrics::log_loss) },
    // One of two probabilities: the other one's term is the same.
    Operator { name: "brier_binary", attributes: &["input"], run: |g| binary(g, "brier", 0.5, metrics::brier) },
    Operator { name: "brier_multiclass", attributes: &["reference"], run: |g| probable(g, "brier", metrics::brier) },
    Operator { name: "expected_calibration_error", attributes: &["bins", "reference"], run: calibration },
    Operator { name: "matthews_corrcoef", attributes: &["num_classes", "zero denominator"], run: |g| value(g, |c| Ok(c.matthews())) },
    Operator { name: "cohen_kappa", attributes: &["num_classes", "weights"], run: kappa },
    Operator { name: "regression", attributes: &["outputs", "constant target"], run: regression },
];

/// Refuses a convention in other words than those understood.
fn conventions(g: &Golden) -> Outcome<()> {
    for (key, understood) in CONVENTIONS {
        // A score of one probability says so in words of its own.
        let understood = if *key == "input" && g.case.inputs.contains_key("score") { "probability of class 1" } else { understood };
        if let Some(text) = g.attribute::<Option<String>>(key)?
            && text != understood
        {
            return unsupported(format!("{key} '{text}'"));
        }
    }
    if g.attribute::<Option<bool>>("drop_intermediate")?.unwrap_or(false) {
        return unsupported("drop_intermediate");
    }
    match g.attribute::<Option<f64>>("zero_division")? {
        None | Some(0.0) => Ok(()),
        Some(other) => unsupported(format!("zero_division {other}")),
    }
}

fn floats(g: &Golden, name: &str) -> Outcome<Vec<f64>> {
    Ok(g.input(name)?.to_vec_blocking::<f32>()?.into_iter().map(f64::from).collect())
}

fn classes(g: &Golden, name: &str) -> Outcome<Vec<usize>> {
    let class = |v: i32| usize::try_from(v).or_else(|_| malformed(format!("{name} holds class {v}")));
    g.input(name)?.to_vec_blocking::<i32>()?.into_iter().map(class).collect()
}

fn scalar(name: &str, value: f64) -> Output {
    Output::floats(name, &[], vec![value])
}

fn list(name: &str, values: Vec<f64>) -> Output {
    Output::floats(name, &[values.len()], values)
}

/// Columns of a matrix input.
fn columns(g: &Golden, name: &str) -> Outcome<usize> {
    match g.input(name)?.shape()[..] {
        [_, c] => Ok(c),
        _ => malformed(format!("{name} is no matrix")),
    }
}

/// Softmax of the logits in f64.
fn probabilities(g: &Golden) -> Outcome<(Vec<f64>, usize)> {
    let (mut p, c) = (floats(g, "logits")?, columns(g, "logits")?);
    for row in p.chunks_mut(c.max(1)) {
        let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        row.iter_mut().for_each(|v| *v = (*v - max).exp());
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|v| *v /= sum);
    }
    Ok((p, c))
}

/// The order of the logits is that of the probabilities, and keeps what f64 would round together.
fn top_k(g: &Golden, k: usize) -> Outcome<Vec<Output>> {
    conventions(g)?;
    let accuracy = metrics::top_k_accuracy(&floats(g, "logits")?, columns(g, "logits")?, &classes(g, "target")?, k)?;
    Ok(vec![scalar("accuracy", accuracy)])
}

fn balanced_accuracy(g: &Golden) -> Outcome<Vec<Output>> {
    conventions(g)?;
    let (logits, c) = (floats(g, "logits")?, columns(g, "logits")?);
    let best = |row: &[f64]| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best });
    let predictions: Vec<usize> = logits.chunks(c.max(1)).map(best).collect();
    Ok(vec![scalar("balanced_accuracy", Confusion::new(c, &classes(g, "target")?, &predictions)?.balanced_accuracy())])
}

fn confusion(g: &Golden) -> Outcome<Confusion> {
    conventions(g)?;
    Ok(Confusion::new(g.attribute("num_classes")?, &classes(g, "target")?, &classes(g, "prediction")?)?)
}

fn confusion_matrix(g: &Golden) -> Outcome<Vec<Output>> {
    let confusion = confusion(g)?;
    let shape = [confusion.matrix.len(); 2];
    let counts = confusion.matrix.iter().flatten().map(|&n| n as f64).collect();
    Ok(vec![Output::integers("matrix", &shape, counts), Output::floats("row_normalized", &shape, confusion.row_normalized().concat())])
}

fn precision_recall_f1(g: &Golden) -> Outcome<Vec<Output>> {
    let confusion = confusion(g)?;
    let support = confusion.support();
    let mut outputs = vec![Output::integers("support", &[support.len()], support.iter().map(|&n| n as f64).collect())];
    for (name, scores) in [("precision", confusion.precision()), ("recall", confusion.recall()), ("f1", confusion.f1())] {
        for (average, kind) in [("macro", Average::Macro), ("micro", Average::Micro), ("weighted", Average::Weighted)] {
            outputs.push(scalar(&format!("{name}.{average}"), confusion.average(&scores, kind)));
        }
        outputs.push(list(&format!("{name}.per_class"), scores));
    }
    Ok(outputs)
}

fn value(g: &Golden, f: fn(&Confusion) -> Outcome<f64>) -> Outcome<Vec<Output>> {
    Ok(vec![scalar("value", f(&confusion(g)?)?)])
}

fn kappa(g: &Golden) -> Outcome<Vec<Output>> {
    let weights = match g.attribute::<String>("weights")?.as_str() {
        "none" => KappaWeights::None,
        "linear" => KappaWeights::Linear,
        "quadratic" => KappaWeights::Quadratic,
        other => return unsupported(format!("weights {other}")),
    };
    Ok(vec![scalar("value", confusion(g)?.kappa(weights))])
}

/// Which samples are of class 1.
fn positive(g: &Golden) -> Outcome<Vec<bool>> {
    Ok(classes(g, "target")?.into_iter().map(|t| t == 1).collect())
}

fn ranked(g: &Golden, name: &str, f: fn(&[f64], &[bool]) -> Result<f64>) -> Outcome<Vec<Output>> {
    Ok(vec![scalar(name, f(&floats(g, "score")?, &positive(g)?)?)])
}

fn roc_curve(g: &Golden) -> Outcome<Vec<Output>> {
    conventions(g)?;
    let (scores, positive) = (floats(g, "score")?, positive(g)?);
    let roc = metrics::roc_curve(&scores, &positive)?;
    let auc = metrics::roc_auc(&scores, &positive)?.unwrap_or(f64::NAN);
    Ok(vec![list("fpr", roc.fpr), list("tpr", roc.tpr), list("thresholds", roc.thresholds), scalar("auc", auc)])
}

fn precision_recall_curve(g: &Golden) -> Outcome<Vec<Output>> {
    conventions(g)?;
    let curve = metrics::precision_recall_curve(&floats(g, "score")?, &positive(g)?)?;
    Ok(vec![list("precision", curve.precision), list("recall", curve.recall), list("thresholds", curve.thresholds)])
}

fn one_against_rest(g: &Golden, name: &str, f: fn(&[f64], &[bool]) -> Result<f64>) -> Outcome<Vec<Output>> {
    let (scores, targets, c) = (floats(g, "score")?, classes(g, "target")?, g.attribute::<usize>("num_classes")?);
    if columns(g, "score")? != c {
        return malformed(format!("scores of {} classes, not {c}", columns(g, "score")?));
    }
    let of = |class: usize| {
        let own: Vec<f64> = scores.iter().skip(class).step_by(c).copied().collect();
        f(&own, &targets.iter().map(|&t| t == class).collect::<Vec<_>>())
    };
    let each = (0..c).map(of).collect::<Result<Vec<f64>>>()?;
    let count = |class: usize| targets.iter().filter(|&&t| t == class).count() as f64;
    let mean = match g.attribute::<String>("average")?.as_str() {
        "macro" => each.iter().sum::<f64>() / c as f64,
        "weighted" => each.iter().enumerate().map(|(class, v)| v * count(class)).sum::<f64>() / targets.len() as f64,
        other => return unsupported(format!("average {other}")),
    };
    Ok(vec![scalar(name, mean), list(&format!("{name}.per_class"), each)])
}

fn probable(g: &Golden, name: &str, f: fn(&[f64], usize, &[usize]) -> Result<f64>) -> Outcome<Vec<Output>> {
    conventions(g)?;
    let (p, c) = probabilities(g)?;
    Ok(vec![scalar(name, f(&p, c, &classes(g, "target")?)?)])
}

fn binary(g: &Golden, name: &str, factor: f64, f: fn(&[f64], usize, &[usize]) -> Result<f64>) -> Outcome<Vec<Output>> {
    conventions(g)?;
    let both: Vec<f64> = floats(g, "score")?.into_iter().flat_map(|p| [1.0 - p, p]).collect();
    Ok(vec![scalar(name, factor * f(&both, 2, &classes(g, "target")?)?)])
}

fn calibration(g: &Golden) -> Outcome<Vec<Output>> {
    let (p, c) = probabilities(g)?;
    Ok(vec![scalar("ece", metrics::expected_calibration_error(&p, c, &classes(g, "target")?, g.attribute("bins")?)?)])
}

fn regression(g: &Golden) -> Outcome<Vec<Output>> {
    conventions(g)?;
    let columns = g.input("target")?.shape().get(1).copied().unwrap_or(1);
    let r = metrics::regression(&floats(g, "prediction")?, &floats(g, "target")?, columns)?;
    Ok(vec![scalar("mse", r.mse), scalar("mae", r.mae), scalar("rmse", r.rmse), scalar("r2", r.r2)])
}
