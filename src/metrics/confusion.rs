//! Counts of true against predicted classes, and the scores that follow from them.

use super::paired;
use crate::error::{Error, Result};

/// How the scores of the classes become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Average {
    /// Their mean.
    Macro,
    /// Of all samples together: the accuracy, where every sample has one class.
    Micro,
    /// Their mean weighted by the number of samples of each class.
    Weighted,
}

/// What a confusion of two classes costs in [`Confusion::kappa`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KappaWeights {
    /// 1.
    None,
    /// The distance of the classes.
    Linear,
    /// Its square.
    Quadratic,
}

/// A confusion matrix: rows are true classes, columns predictions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    /// Samples of class `row` that were taken for class `column`.
    pub matrix: Vec<Vec<u64>>,
}

fn ratio(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

impl Confusion {
    /// Counts pairs of true and predicted classes.
    ///
    /// # Errors
    /// [`Error::Shape`] when the lists differ in length or a class is not below `classes`.
    pub fn new(classes: usize, targets: &[usize], predictions: &[usize]) -> Result<Self> {
        paired("confusion matrix", targets.len(), predictions.len())?;
        let mut matrix = vec![vec![0; classes]; classes];
        for (&target, &prediction) in targets.iter().zip(predictions) {
            match matrix.get_mut(target).and_then(|row| row.get_mut(prediction)) {
                Some(count) => *count += 1,
                None => return Err(Error::Shape(format!("confusion matrix: class {} of {classes}", target.max(prediction)))),
            }
        }
        Ok(Confusion { matrix })
    }

    fn each(&self, f: impl Fn(usize) -> f64) -> Vec<f64> {
        (0..self.matrix.len()).map(f).collect()
    }

    fn hits(&self, class: usize) -> f64 {
        self.matrix[class][class] as f64
    }

    fn predicted(&self, class: usize) -> f64 {
        self.matrix.iter().map(|row| row[class]).sum::<u64>() as f64
    }

    fn total(&self) -> f64 {
        self.support().iter().sum::<u64>() as f64
    }

    /// Samples of each class.
    pub fn support(&self) -> Vec<u64> {
        self.matrix.iter().map(|row| row.iter().sum()).collect()
    }

    /// Each row divided by its sum: the share of a class that was taken for each other; 0 for a class without samples.
    pub fn row_normalized(&self) -> Vec<Vec<f64>> {
        let row = |row: &Vec<u64>| row.iter().map(|&n| ratio(n as f64, row.iter().sum::<u64>() as f64)).collect();
        self.matrix.iter().map(row).collect()
    }

    /// Share of right predictions among those of each class; 0 where there are none.
    pub fn precision(&self) -> Vec<f64> {
        self.each(|c| ratio(self.hits(c), self.predicted(c)))
    }

    /// Share of right predictions among the samples of each class; 0 where there are none.
    pub fn recall(&self) -> Vec<f64> {
        let support = self.support();
        self.each(|c| ratio(self.hits(c), support[c] as f64))
    }

    /// Harmonic mean of precision and recall of each class; 0 where both are.
    pub fn f1(&self) -> Vec<f64> {
        let support = self.support();
        self.each(|c| ratio(2.0 * self.hits(c), support[c] as f64 + self.predicted(c)))
    }

    /// Intersection over union of each class (Jaccard 1901): hits over all that are of the class or taken for it; 0 where there are none.
    pub fn iou(&self) -> Vec<f64> {
        let support = self.support();
        self.each(|c| ratio(self.hits(c), support[c] as f64 + self.predicted(c) - self.hits(c)))
    }

    /// One score from those of the classes.
    pub fn average(&self, scores: &[f64], average: Average) -> f64 {
        match average {
            Average::Micro => self.accuracy(),
            Average::Macro => ratio(scores.iter().sum(), scores.len() as f64),
            Average::Weighted => ratio(scores.iter().zip(self.support()).map(|(score, n)| score * n as f64).sum(), self.total()),
        }
    }

    /// Share of right predictions.
    pub fn accuracy(&self) -> f64 {
        ratio((0..self.matrix.len()).map(|c| self.hits(c)).sum(), self.total())
    }

    /// Mean recall of the classes that occur.
    pub fn balanced_accuracy(&self) -> f64 {
        let support = self.support();
        let occur: Vec<f64> = self.recall().into_iter().zip(support).filter(|(_, n)| *n > 0).map(|(r, _)| r).collect();
        ratio(occur.iter().sum(), occur.len() as f64)
    }

    /// The correlation of Matthews 1975 for any number of classes (Gorodkin 2004); 0 where a denominator is 0.
    pub fn matthews(&self) -> f64 {
        let (n, support) = (self.total(), self.support());
        let hits: f64 = (0..self.matrix.len()).map(|c| self.hits(c)).sum();
        let sums = |f: &dyn Fn(f64, f64) -> f64| self.each(|c| f(self.predicted(c), support[c] as f64)).iter().sum::<f64>();
        let (both, predicted, own) = (sums(&|p, t| p * t), sums(&|p, _| p * p), sums(&|_, t| t * t));
        ratio(hits * n - both, ((n * n - predicted) * (n * n - own)).sqrt())
    }

    /// Cohen's kappa (Cohen 1960, 1968): 1 less the cost of the confusions over their cost by chance; 0 where that is 0.
    pub fn kappa(&self, weights: KappaWeights) -> f64 {
        let (n, support) = (self.total(), self.support());
        let (mut found, mut expected) = (0.0, 0.0);
        for (t, row) in self.matrix.iter().enumerate() {
            for (p, &count) in row.iter().enumerate() {
                let distance = t.abs_diff(p) as f64;
                let cost = match weights {
                    KappaWeights::None => (distance > 0.0) as u32 as f64,
                    KappaWeights::Linear => distance,
                    KappaWeights::Quadratic => distance * distance,
                };
                found += cost * count as f64;
                expected += cost * ratio(support[t] as f64 * self.predicted(p), n);
            }
        }
        if expected == 0.0 { 0.0 } else { 1.0 - found / expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked by hand: three classes, one of which never occurs.
    #[test]
    fn scores_follow_their_definitions() {
        let c = Confusion::new(3, &[0, 0, 0, 1], &[0, 1, 0, 1]).unwrap();
        assert_eq!(c.matrix, [[2, 1, 0], [0, 1, 0], [0, 0, 0]]);
        assert_eq!((c.accuracy(), c.balanced_accuracy()), (0.75, (2.0 / 3.0 + 1.0) / 2.0));
        assert_eq!((c.precision(), c.recall()), (vec![1.0, 0.5, 0.0], vec![2.0 / 3.0, 1.0, 0.0]));
        assert_eq!(c.average(&c.precision(), Average::Weighted), (3.0 + 0.5) / 4.0);
        assert_eq!(c.average(&c.precision(), Average::Macro), 0.5);
        // 3 hits of 4; by chance (3 * 2 + 1 * 2) / 4 = 2 hits.
        assert!((c.kappa(KappaWeights::None) - 0.5).abs() < 1e-12);
        // (3 * 4 - 8) / sqrt((16 - 8) (16 - 10)).
        assert!((c.matthews() - 4.0 / 48f64.sqrt()).abs() < 1e-12);
        assert_eq!(c.iou(), [2.0 / 3.0, 0.5, 0.0]);
        assert_eq!(c.row_normalized()[2], [0.0; 3]);
    }

    #[test]
    fn nothing_divides_by_zero_and_bad_lists_are_named() {
        let none = Confusion::new(2, &[], &[]).unwrap();
        let all = [
            none.accuracy(),
            none.balanced_accuracy(),
            none.matthews(),
            none.kappa(KappaWeights::Linear),
            none.average(&[], Average::Macro),
        ];
        assert_eq!(all, [0.0; 5]);
        assert!(Confusion::new(2, &[0], &[0, 1]).unwrap_err().to_string().contains("1 and 2"));
        assert!(Confusion::new(2, &[0], &[2]).unwrap_err().to_string().contains("class 2 of 2"));
    }
}
