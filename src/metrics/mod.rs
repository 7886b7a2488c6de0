//! Scores of predictions, computed on the host in f64. Conventions are scikit-learn's: 0 where a denominator is 0.

mod confusion;
pub mod detection;
mod probability;
mod ranking;
mod regression;

pub use confusion::{Average, Confusion, KappaWeights};
pub use probability::{brier, expected_calibration_error, log_loss, top_k_accuracy};
pub use ranking::{PrecisionRecall, Roc, average_precision, precision_recall_curve, roc_auc, roc_curve};
pub use regression::{Regression, regression};

use crate::error::{Error, Result};

/// Two lists that belong together have one length.
fn paired(name: &str, a: usize, b: usize) -> Result<()> {
    if a == b { Ok(()) } else { Err(Error::Shape(format!("{name}: lists of {a} and {b} values do not belong together"))) }
}

/// What a classifier answered on a labelled set.
#[derive(Debug, Clone, Default)]
pub struct Predictions {
    /// Number of classes.
    pub classes: usize,
    /// Softmax probabilities `[N, classes]`.
    pub probabilities: Vec<f64>,
    /// True classes `[N]`.
    pub targets: Vec<usize>,
    /// Sum of the cross-entropies.
    loss_sum: f64,
}

/// The scores of [`Predictions`].
#[derive(Debug, Clone, serde::Serialize)]
pub struct Scores {
    /// Share of samples whose largest probability (the first of equals) is the target's.
    pub accuracy: f64,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Precision of each class.
    pub precision: Vec<f64>,
    /// Recall of each class.
    pub recall: Vec<f64>,
    /// Harmonic mean of the two, of each class.
    pub f1: Vec<f64>,
    /// Mean over the classes of the one-against-rest area under the ROC curve; `None` when a class is missing or alone,
    /// or for more than 1,000 classes, which would take longer than an epoch.
    pub auc: Option<f64>,
    /// Rows are true classes, columns predictions.
    pub confusion_matrix: Vec<Vec<u64>>,
}

/// What a network answered where numbers were asked for, both in their own units.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// Answers `[N]`.
    pub answers: Vec<f64>,
    /// What they should be `[N]`.
    pub targets: Vec<f64>,
    /// The standard deviation that losses are measured in.
    pub scale: f64,
}

/// How good answers are.
#[derive(Debug, Clone)]
pub enum Measured {
    /// Of classes.
    Classes(Scores),
    /// Of numbers.
    Numbers {
        /// Their errors.
        errors: Regression,
        /// The mean square of the errors in standard deviations of the training targets.
        loss: f64,
        /// How many.
        count: usize,
    },
}

impl Numbers {
    /// Their errors.
    ///
    /// # Errors
    /// [`Error::Shape`] when the lists differ in length.
    pub fn measure(&self) -> Result<Measured> {
        let errors = regression(&self.answers, &self.targets, 1)?;
        Ok(Measured::Numbers { errors, loss: errors.mse / (self.scale * self.scale).max(f64::MIN_POSITIVE), count: self.targets.len() })
    }
}

impl Measured {
    /// Of classes the mean cross-entropy, of numbers the mean square in standard deviations.
    pub fn loss(&self) -> f64 {
        match self {
            Measured::Classes(scores) => scores.loss,
            Measured::Numbers { loss, .. } => *loss,
        }
    }

    /// The share of right classes.
    pub fn accuracy(&self) -> Option<f64> {
        match self {
            Measured::Classes(scores) => Some(scores.accuracy),
            Measured::Numbers { .. } => None,
        }
    }

    /// The root of the mean squared error of numbers, in their units.
    pub fn rmse(&self) -> Option<f64> {
        match self {
            Measured::Classes(_) => None,
            Measured::Numbers { errors, .. } => Some(errors.rmse),
        }
    }

    /// Samples that were answered.
    pub fn count(&self) -> usize {
        match self {
            Measured::Classes(scores) => scores.confusion_matrix.iter().flatten().sum::<u64>() as usize,
            Measured::Numbers { count, .. } => *count,
        }
    }

    /// The figure that matters most, in words.
    pub fn headline(&self) -> String {
        match self {
            Measured::Classes(scores) => format!("accuracy {:.2} %", 100.0 * scores.accuracy),
            Measured::Numbers { errors, .. } => format!("error (RMSE) {:.4}, R2 {:.4}", errors.rmse, errors.r2),
        }
    }
}

impl Predictions {
    /// None yet.
    pub fn new(classes: usize) -> Self {
        Predictions { classes, ..Default::default() }
    }

    /// Adds a batch of logits `[n, classes]` and its targets. A target outside the classes counts as a wrong answer of infinite loss.
    pub fn add(&mut self, logits: &[f32], targets: &[i32]) {
        for (row, &target) in logits.chunks_exact(self.classes.max(1)).zip(targets) {
            let max = row.iter().fold(f64::NEG_INFINITY, |m, &v| m.max(v as f64));
            let sum: f64 = row.iter().map(|&v| (v as f64 - max).exp()).sum();
            self.probabilities.extend(row.iter().map(|&v| (v as f64 - max).exp() / sum));
            let target = usize::try_from(target).unwrap_or(usize::MAX);
            self.loss_sum += row.get(target).map_or(f64::INFINITY, |&v| max + sum.ln() - v as f64);
            self.targets.push(target);
        }
    }

    /// The predicted class of each sample.
    pub fn classes_predicted(&self) -> Vec<usize> {
        self.probabilities
            .chunks_exact(self.classes.max(1))
            .map(|row| (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best }))
            .collect()
    }

    /// All scores; of no samples, zeros.
    pub fn scores(&self) -> Scores {
        let (n, predicted) = (self.targets.len(), self.classes_predicted());
        // A target outside the classes is a wrong answer, but of no class.
        let mut confusion = Confusion { matrix: vec![vec![0; self.classes]; self.classes] };
        for (&target, &class) in self.targets.iter().zip(&predicted) {
            if target < self.classes {
                confusion.matrix[target][class] += 1;
            }
        }
        let correct: u64 = (0..self.classes).map(|c| confusion.matrix[c][c]).sum();
        let share = |a: f64| if n == 0 { 0.0 } else { a / n as f64 };
        Scores {
            accuracy: share(correct as f64),
            loss: share(self.loss_sum),
            precision: confusion.precision(),
            recall: confusion.recall(),
            f1: confusion.f1(),
            auc: self.auc(),
            confusion_matrix: confusion.matrix,
        }
    }

    /// Macro mean of the one-against-rest areas.
    fn auc(&self) -> Option<f64> {
        if self.classes > 1000 {
            return None;
        }
        let area = |c: usize| {
            let scores: Vec<f64> = self.probabilities.iter().skip(c).step_by(self.classes).copied().collect();
            roc_auc(&scores, &self.targets.iter().map(|&t| t == c).collect::<Vec<_>>()).ok().flatten()
        };
        let areas = (0..self.classes).map(area).collect::<Option<Vec<f64>>>()?;
        (self.classes > 0).then(|| areas.iter().sum::<f64>() / self.classes as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked by hand: three classes, five samples, one tie that goes to the first class.
    #[test]
    fn scores_follow_their_definitions() {
        let mut p = Predictions::new(3);
        p.add(&[2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 3.0, 3.0, 0.0, 0.0], &[0, 1, 1, 2, 2]);
        let s = p.scores();
        assert_eq!(p.classes_predicted(), [0, 1, 0, 2, 0]);
        assert_eq!(s.confusion_matrix, [[1, 0, 0], [1, 1, 0], [1, 0, 1]]);
        assert_eq!((s.accuracy, s.precision[0], s.recall[1]), (0.6, 1.0 / 3.0, 0.5));
        assert!((s.f1[0] - 0.5).abs() < 1e-12 && (s.f1[2] - 2.0 / 3.0).abs() < 1e-12);
        // Class 0: scores .79 (pos), .11, .42, .045, .91 -> 3 of 4 pairs; class 1: 6 of 6; class 2: p = .91 and .045 against .11 .11 .155 -> 3 of 6.
        assert!((s.auc.unwrap() - (0.75 + 1.0 + 0.5) / 3.0).abs() < 1e-12, "{:?}", s.auc);
    }
}
