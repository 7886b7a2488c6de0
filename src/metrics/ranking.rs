//! Scores of an order: how well positives stand above negatives. Equal scores are one threshold.

use super::paired;
use crate::error::Result;

/// A curve over falling thresholds.
#[derive(Debug, Clone, PartialEq)]
pub struct Roc {
    /// False-positive rates, from 0 to 1.
    pub fpr: Vec<f64>,
    /// True-positive rates, from 0 to 1.
    pub tpr: Vec<f64>,
    /// A sample is positive from this score on; the first is infinite.
    pub thresholds: Vec<f64>,
}

/// Precision and recall over rising thresholds; the last point is (1, 0) and has none.
#[derive(Debug, Clone, PartialEq)]
pub struct PrecisionRecall {
    /// Share of positives among the samples from the threshold on.
    pub precision: Vec<f64>,
    /// Share of the positives that are from the threshold on.
    pub recall: Vec<f64>,
    /// Every distinct score.
    pub thresholds: Vec<f64>,
}

/// For each distinct score, falling: the score, and the positives and negatives so far.
fn steps(scores: &[f64], positive: &[bool]) -> Result<Vec<(f64, f64, f64)>> {
    paired("ranking", scores.len(), positive.len())?;
    let mut sorted: Vec<(f64, bool)> = scores.iter().copied().zip(positive.iter().copied()).collect();
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut yes, mut no) = (0.0, 0.0);
    Ok(sorted
        .chunk_by(|a, b| a.0 == b.0)
        .map(|tied| {
            yes += tied.iter().filter(|s| s.1).count() as f64;
            no += tied.iter().filter(|s| !s.1).count() as f64;
            (tied[0].0, yes, no)
        })
        .collect())
}

/// The receiver operating characteristic, all its points. A rate without samples to divide by is 0.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the lists differ in length.
pub fn roc_curve(scores: &[f64], positive: &[bool]) -> Result<Roc> {
    let steps = steps(scores, positive)?;
    let (all_yes, all_no) = steps.last().map_or((0.0, 0.0), |s| (s.1, s.2));
    let mut roc = Roc { fpr: vec![0.0], tpr: vec![0.0], thresholds: vec![f64::INFINITY] };
    for (score, yes, no) in steps {
        roc.fpr.push(if all_no == 0.0 { 0.0 } else { no / all_no });
        roc.tpr.push(if all_yes == 0.0 { 0.0 } else { yes / all_yes });
        roc.thresholds.push(score);
    }
    Ok(roc)
}

/// The area under [`roc_curve`]: the share of pairs of a positive and a negative that are in the right order, equal ones counting half. `None`
/// where one of the two kinds is missing.
///
/// # Errors
/// As [`roc_curve`].
pub fn roc_auc(scores: &[f64], positive: &[bool]) -> Result<Option<f64>> {
    let roc = roc_curve(scores, positive)?;
    let area = |i: usize| (roc.fpr[i] - roc.fpr[i - 1]) * (roc.tpr[i] + roc.tpr[i - 1]) / 2.0;
    let both = roc.fpr.last() == Some(&1.0) && roc.tpr.last() == Some(&1.0);
    Ok(both.then(|| (1..roc.fpr.len()).map(area).sum()))
}

/// Precision and recall at every threshold. Without positives the recall is 1.
///
/// # Errors
/// As [`roc_curve`].
pub fn precision_recall_curve(scores: &[f64], positive: &[bool]) -> Result<PrecisionRecall> {
    let steps = steps(scores, positive)?;
    let all = steps.last().map_or(0.0, |s| s.1);
    let mut curve = PrecisionRecall { precision: Vec::new(), recall: Vec::new(), thresholds: Vec::new() };
    for (score, yes, no) in steps.into_iter().rev() {
        curve.precision.push(yes / (yes + no));
        curve.recall.push(if all == 0.0 { 1.0 } else { yes / all });
        curve.thresholds.push(score);
    }
    curve.precision.push(1.0);
    curve.recall.push(0.0);
    Ok(curve)
}

/// `sum (recall_n - recall_(n-1)) precision_n` over falling thresholds: a sum of steps, not of trapezoids. 0 without positives.
///
/// # Errors
/// As [`roc_curve`].
pub fn average_precision(scores: &[f64], positive: &[bool]) -> Result<f64> {
    let curve = precision_recall_curve(scores, positive)?;
    if !positive.contains(&true) {
        return Ok(0.0);
    }
    Ok((1..curve.recall.len()).map(|i| (curve.recall[i - 1] - curve.recall[i]) * curve.precision[i - 1]).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked by hand: scores 3 2 2 1, the first and one of the equals positive.
    #[test]
    fn curves_follow_their_definitions() {
        let (scores, positive) = ([2.0, 3.0, 1.0, 2.0], [true, true, false, false]);
        let roc = roc_curve(&scores, &positive).unwrap();
        assert_eq!((&roc.fpr[..], &roc.tpr[..]), (&[0.0, 0.0, 0.5, 1.0][..], &[0.0, 0.5, 1.0, 1.0][..]));
        assert_eq!(roc.thresholds, [f64::INFINITY, 3.0, 2.0, 1.0]);
        // Of 4 pairs 3 are right, one is equal.
        assert_eq!(roc_auc(&scores, &positive).unwrap(), Some(3.5 / 4.0));
        let curve = precision_recall_curve(&scores, &positive).unwrap();
        assert_eq!((&curve.precision[..], &curve.recall[..]), (&[0.5, 2.0 / 3.0, 1.0, 1.0][..], &[1.0, 1.0, 0.5, 0.0][..]));
        assert_eq!(average_precision(&scores, &positive).unwrap(), 0.5 * 1.0 + 0.5 * 2.0 / 3.0);
    }

    #[test]
    fn one_kind_alone_has_no_area() {
        assert_eq!(roc_auc(&[1.0, 2.0], &[true, true]).unwrap(), None);
        assert_eq!((roc_auc(&[], &[]).unwrap(), average_precision(&[1.0], &[false]).unwrap()), (None, 0.0));
        assert!(roc_curve(&[1.0], &[]).is_err());
    }
}
