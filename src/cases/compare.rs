//! Comparing a result with the expected one.

/// The outcome of a comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// Largest absolute difference; NaN when a value differs in kind (NaN, infinity, or a missing element).
    pub error: f64,
    /// Where: index, got, want.
    pub worst: (usize, f64, f64),
}

impl Comparison {
    /// A message when the difference exceeds `tolerance`.
    pub fn failure(&self, tolerance: f64) -> Option<String> {
        // `!(<=)`: NaN fails.
        if !(self.error <= tolerance) {
            let (index, got, want) = self.worst;
            return Some(format!(
                "element {index} is {got:e}, expected {want:e}; error {:.3e} exceeds the tolerance {tolerance:.3e}",
                self.error
            ));
        }
        None
    }
}

/// Compares element by element. NaN fails unless NaN is expected; infinities must match in sign.
pub fn compare(got: &[f64], want: &[f64]) -> Comparison {
    if got.len() != want.len() {
        return Comparison { error: f64::NAN, worst: (got.len().min(want.len()), f64::NAN, f64::NAN) };
    }
    let mut result = Comparison { error: 0.0, worst: (0, 0.0, 0.0) };
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        if g == w || g.is_nan() && w.is_nan() {
            continue;
        }
        let error = (g - w).abs();
        if !error.is_finite() {
            return Comparison { error: f64::NAN, worst: (i, g, w) };
        }
        if error > result.error {
            result = Comparison { error, worst: (i, g, w) };
        }
    }
    result
}
