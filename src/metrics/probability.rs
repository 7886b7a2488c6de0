//! Scores of probabilities `[N, C]`, row by row, against true classes `[N]`.

use super::paired;
use crate::error::{Error, Result};

/// The rows of `probabilities`, each with its class.
fn rows<'a>(name: &str, probabilities: &'a [f64], classes: usize, targets: &'a [usize]) -> Result<Vec<(&'a [f64], usize)>> {
    paired(name, targets.len() * classes, probabilities.len())?;
    if let Some(class) = targets.iter().find(|&&t| t >= classes) {
        return Err(Error::Shape(format!("{name}: class {class} of {classes}")));
    }
    Ok(probabilities.chunks(classes.max(1)).zip(targets.iter().copied()).collect())
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len();
    if n == 0 { 0.0 } else { values.sum::<f64>() / n as f64 }
}

/// Mean of `-log p` of the true class; probabilities are kept 2.2e-16 away from 0 and 1, as in scikit-learn.
///
/// # Errors
/// [`Error::Shape`] when the lists do not fit together.
pub fn log_loss(probabilities: &[f64], classes: usize, targets: &[usize]) -> Result<f64> {
    let rows = rows("log_loss", probabilities, classes, targets)?;
    Ok(mean(rows.iter().map(|(p, t)| -p[*t].clamp(f64::EPSILON, 1.0 - f64::EPSILON).ln())))
}

/// Mean over the samples of `sum_c (p_c - [c is the true class])^2` (Brier 1950). Two classes given by one probability: half of this.
///
/// # Errors
/// As [`log_loss`].
pub fn brier(probabilities: &[f64], classes: usize, targets: &[usize]) -> Result<f64> {
    let rows = rows("brier", probabilities, classes, targets)?;
    let row = |(p, t): &(&[f64], usize)| p.iter().enumerate().map(|(c, p)| (p - (c == *t) as u32 as f64).powi(2)).sum();
    Ok(mean(rows.iter().map(row)))
}

/// Share of samples whose true class is among the `k` most probable; of equals the first class wins.
///
/// # Errors
/// As [`log_loss`].
pub fn top_k_accuracy(probabilities: &[f64], classes: usize, targets: &[usize], k: usize) -> Result<f64> {
    let rows = rows("top_k_accuracy", probabilities, classes, targets)?;
    let hit = |(p, t): &(&[f64], usize)| {
        let above = p.iter().enumerate().filter(|&(c, v)| *v > p[*t] || *v == p[*t] && c < *t).count();
        (above < k) as u32 as f64
    };
    Ok(mean(rows.iter().map(hit)))
}

/// `sum_k n_k / N |accuracy_k - confidence_k|` over `bins` equal bins of the confidence, the largest probability: bin k holds
/// `k / bins < confidence <= (k + 1) / bins` (Guo et al. 2017, arXiv:1706.04599).
///
/// # Errors
/// As [`log_loss`]; [`Error::Config`] without bins.
pub fn expected_calibration_error(probabilities: &[f64], classes: usize, targets: &[usize], bins: usize) -> Result<f64> {
    if bins == 0 {
        return Err(Error::Config("expected_calibration_error: bins must be at least 1".into()));
    }
    let rows = rows("expected_calibration_error", probabilities, classes, targets)?;
    // Of each bin the sum of hits less confidences: n_k (accuracy_k - confidence_k).
    let mut gaps = vec![0.0; bins];
    for (p, target) in &rows {
        let best = (0..p.len()).fold(0, |best, c| if p[c] > p[best] { c } else { best });
        let bin = (p[best] * bins as f64).ceil().max(1.0) as usize - 1;
        gaps[bin.min(bins - 1)] += (best == *target) as u32 as f64 - p[best];
    }
    let sum: f64 = gaps.iter().map(|gap| gap.abs()).sum();
    Ok(if rows.is_empty() { 0.0 } else { sum / rows.len() as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked by hand.
    #[test]
    fn scores_follow_their_definitions() {
        let (p, t) = ([0.5, 0.25, 0.25, 0.0, 0.5, 0.5], [1, 2]);
        assert_eq!(log_loss(&p, 3, &t).unwrap(), (4f64.ln() + 2f64.ln()) / 2.0);
        assert_eq!(brier(&p, 3, &t).unwrap(), (0.25 + 0.5625 + 0.0625 + 0.25 + 0.25) / 2.0);
        // In the first row class 1 is before its equal; in the second class 2 is behind.
        assert_eq!([1, 2].map(|k| top_k_accuracy(&p, 3, &t, k).unwrap()), [0.0, 1.0]);
        // Both have confidence 0.5, in one bin, and are wrong.
        assert_eq!(expected_calibration_error(&p, 3, &t, 15).unwrap(), 0.5);
        assert_eq!(log_loss(&[1.0, 0.0], 2, &[1]).unwrap(), -f64::EPSILON.ln());
    }

    #[test]
    fn nothing_is_zero_and_bad_lists_are_named() {
        assert_eq!((log_loss(&[], 3, &[]).unwrap(), expected_calibration_error(&[], 3, &[], 5).unwrap()), (0.0, 0.0));
        assert!(brier(&[1.0], 2, &[0]).is_err() && brier(&[1.0, 0.0], 2, &[2]).is_err());
    }
}
