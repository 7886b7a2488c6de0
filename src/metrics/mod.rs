//! Scores of classifiers, computed on the host in f64. Conventions are scikit-learn's: 0 where a denominator is 0.

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
    /// Mean over the classes of the one-against-rest area under the ROC curve; `None` when a class is missing or alone.
    pub auc: Option<f64>,
    /// Rows are true classes, columns predictions.
    pub confusion_matrix: Vec<Vec<u64>>,
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
        let mut matrix = vec![vec![0u64; self.classes]; self.classes];
        for (&target, &class) in self.targets.iter().zip(&predicted) {
            if target < self.classes {
                matrix[target][class] += 1;
            }
        }
        let ratio = |a: u64, b: u64| if b == 0 { 0.0 } else { a as f64 / b as f64 };
        let row = |c: usize| matrix[c].iter().sum::<u64>();
        let column = |c: usize| matrix.iter().map(|r| r[c]).sum::<u64>();
        let each = |f: &dyn Fn(usize) -> f64| (0..self.classes).map(f).collect::<Vec<f64>>();
        let correct: u64 = (0..self.classes).map(|c| matrix[c][c]).sum();
        Scores {
            accuracy: ratio(correct, n as u64),
            loss: if n == 0 { 0.0 } else { self.loss_sum / n as f64 },
            precision: each(&|c| ratio(matrix[c][c], column(c))),
            recall: each(&|c| ratio(matrix[c][c], row(c))),
            f1: each(&|c| ratio(2 * matrix[c][c], row(c) + column(c))),
            auc: self.auc(),
            confusion_matrix: matrix,
        }
    }

    /// Macro mean of the one-against-rest areas: the share of (positive, negative) pairs in the right order, ties counting half.
    fn auc(&self) -> Option<f64> {
        let mut total = 0.0;
        for c in 0..self.classes {
            let mut scored: Vec<(f64, bool)> =
                self.targets.iter().enumerate().map(|(i, &t)| (self.probabilities[i * self.classes + c], t == c)).collect();
            scored.sort_by(|a, b| a.0.total_cmp(&b.0));
            let positives = scored.iter().filter(|s| s.1).count() as f64;
            let negatives = scored.len() as f64 - positives;
            if positives == 0.0 || negatives == 0.0 {
                return None;
            }
            let (mut pairs, mut below) = (0.0, 0.0);
            for tied in scored.chunk_by(|a, b| a.0 == b.0) {
                let positive = tied.iter().filter(|s| s.1).count() as f64;
                let negative = tied.len() as f64 - positive;
                pairs += positive * (below + negative / 2.0);
                below += negative;
            }
            total += pairs / (positives * negatives);
        }
        (self.classes > 0).then(|| total / self.classes as f64)
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
