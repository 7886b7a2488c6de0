//! Errors of numbers.

use super::paired;
use crate::error::Result;

/// Errors of predictions `[N, columns]`.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Regression {
    /// Mean of the squared errors.
    pub mse: f64,
    /// Mean of the absolute errors.
    pub mae: f64,
    /// Square root of `mse`.
    pub rmse: f64,
    /// `1 - sum (y - p)^2 / sum (y - mean y)^2`, the mean over the columns. A constant column has 1 where it is met exactly, else 0.
    pub r2: f64,
}

/// Errors of `predictions` against `targets`, both `[N, columns]`; of no values all are 0.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the lists differ in length, or do not divide into columns.
pub fn regression(predictions: &[f64], targets: &[f64], columns: usize) -> Result<Regression> {
    paired("regression", predictions.len(), targets.len())?;
    paired("regression", targets.len() % columns.max(1), 0)?;
    let n = targets.len().max(1) as f64;
    let errors = || predictions.iter().zip(targets).map(|(p, y)| p - y);
    let mse = errors().map(|e| e * e).sum::<f64>() / n;
    let column = |c: usize| {
        let values = || targets.iter().skip(c).step_by(columns);
        let mean = values().sum::<f64>() / values().count().max(1) as f64;
        let spread: f64 = values().map(|y| (y - mean).powi(2)).sum();
        let missed: f64 = errors().skip(c).step_by(columns).map(|e| e * e).sum();
        if spread == 0.0 { (missed == 0.0) as u32 as f64 } else { 1.0 - missed / spread }
    };
    let r2 = if targets.is_empty() { 0.0 } else { (0..columns).map(column).sum::<f64>() / columns as f64 };
    Ok(Regression { mse, mae: errors().map(f64::abs).sum::<f64>() / n, rmse: mse.sqrt(), r2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked by hand: two columns, the second constant.
    #[test]
    fn errors_follow_their_definitions() {
        let r = regression(&[1.0, 5.0, 2.0, 5.0], &[0.0, 5.0, 2.0, 5.0], 2).unwrap();
        assert_eq!((r.mse, r.mae, r.rmse, r.r2), (0.25, 0.25, 0.5, (0.5 + 1.0) / 2.0));
        assert!(regression(&[1.0], &[], 1).is_err() && regression(&[1.0], &[1.0], 2).is_err());
        assert_eq!(regression(&[], &[], 1).unwrap().r2, 0.0);
    }
}
