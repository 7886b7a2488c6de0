//! The folder's pass rule.

use super::golden::{Output, Values};
use super::manifest::{Factors, TensorSpec};
use crate::cases::compare;
use crate::verify::report::{is_worse, share};

/// What the comparison of one output found.
#[derive(Debug, Clone)]
pub(super) struct Finding {
    pub error: f64,
    pub tolerance: f64,
    pub failure: Option<String>,
}

impl Finding {
    /// The one that used more of its tolerance; NaN is the most.
    pub fn worse(self, other: Finding) -> Finding {
        let (own, others) = (share(self.error, self.tolerance), share(other.error, other.tolerance));
        let is_worse = match (&self.failure, &other.failure) {
            (None, Some(_)) => true,
            (Some(_), None) => false,
            _ => is_worse(others, own),
        };
        if is_worse { other } else { self }
    }
}

/// The largest allowed error of an output: `f32_err factor + max_abs factor`, and for transcendental functions on a GPU their wider bound.
pub(super) fn tolerance(factors: &Factors, spec: &TensorSpec, wide: bool) -> f64 {
    let (relative, absolute) =
        if wide { (factors.max_abs_transcendental_gpu, factors.abs_transcendental_gpu) } else { (factors.max_abs, 0.0) };
    factors.f32_err * spec.f32_err.unwrap_or(0.0) + relative * spec.max_abs.unwrap_or(0.0) + absolute
}

/// Compares an output: shapes and integers are equal, floats within `tolerance`, NaN and infinities where they are expected.
pub(super) fn judge(got: &Output, want: &Values, spec: &TensorSpec, tolerance: f64) -> Finding {
    let different = |why: String| Finding { error: f64::NAN, tolerance, failure: Some(why) };
    if got.shape != spec.shape {
        return different(format!("the shape is {:?}, expected {:?}", got.shape, spec.shape));
    }
    let (got_values, want, tolerance) = match (&got.values, want) {
        (Values::Floats(got), Values::Floats(want)) => (got, want, tolerance),
        (Values::Integers(got), Values::Integers(want)) => (got, want, 0.0),
        (Values::Floats(_), Values::Integers(_)) => return different("the values are floats, expected integers".into()),
        (Values::Integers(_), Values::Floats(_)) => return different("the values are integers, expected floats".into()),
    };
    let finding = |got: &[f64], want: &[f64], tolerance: f64| {
        let comparison = compare(got, want);
        Finding { error: comparison.error, tolerance, failure: comparison.failure(tolerance) }
    };
    let mut worst = finding(got_values, want, tolerance);
    if let Some(limits) = &got.row_limits {
        let row_len = got_values.len() / limits.len().max(1);
        let rows = got_values.chunks(row_len.max(1)).zip(want.chunks(row_len.max(1)));
        for (row, ((got, want), &limit)) in rows.zip(limits).enumerate() {
            let mut finding = finding(got, want, limit);
            finding.failure = finding.failure.map(|why| format!("row {row}: {why}"));
            worst = worst.worse(finding);
        }
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Kind;
    use super::*;
    use std::f64::consts::PI;

    const FACTORS: Factors = Factors { f32_err: 8.0, max_abs: 2e-6, max_abs_transcendental_gpu: 2e-5, abs_transcendental_gpu: 2e-7 };

    fn spec(shape: &[usize]) -> TensorSpec {
        TensorSpec { tensor: "t".into(), shape: shape.to_vec(), dtype: Kind::F32, max_abs: Some(PI), f32_err: Some(1e-7) }
    }

    fn failure(got: &[f64], want: &[f64]) -> Option<String> {
        let spec = spec(&[want.len()]);
        let output = Output::floats("out", &[got.len()], got.to_vec());
        judge(&output, &Values::Floats(want.to_vec()), &spec, tolerance(&FACTORS, &spec, false)).failure
    }

    #[test]
    fn the_tolerance_is_the_folders() {
        assert_eq!(tolerance(&FACTORS, &spec(&[1]), false), 8e-7 + 2e-6 * PI);
        assert_eq!(tolerance(&FACTORS, &spec(&[1]), true), 8e-7 + 2e-5 * PI + 2e-7);
    }

    #[test]
    fn planted_errors_fail_and_what_is_right_passes() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let allowed = 8e-7 + 2e-6 * PI;
        assert_eq!(failure(&[1.0, PI], &[1.0, PI]), None);
        assert_eq!(failure(&[1.0, PI + 0.9 * allowed], &[1.0, PI]), None);
        assert_eq!(failure(&[nan, inf, -inf], &[nan, inf, -inf]), None);
        assert_eq!(failure(&[], &[]), None);
        for (got, want) in [
            (&[1.0, PI + 2.0 * allowed][..], &[1.0, PI][..]),
            (&[1.0, PI - 2.0 * allowed], &[1.0, PI]),
            (&[1.0, nan], &[1.0, PI]),
            (&[1.0, inf], &[1.0, PI]),
            (&[1.0, PI], &[1.0, nan]),
            (&[1.0, inf], &[1.0, nan]),
            (&[1.0, -inf], &[1.0, inf]),
            (&[1.0, f64::MAX], &[1.0, inf]),
            (&[1.0], &[1.0, PI]),
            (&[], &[1.0]),
        ] {
            assert!(failure(got, want).is_some(), "{got:?} passed for {want:?}");
        }
    }

    #[test]
    fn shapes_and_types_must_be_equal_and_integers_exact() {
        let judge = |values: Values, shape: &[usize], want: Values, shape_wanted: &[usize]| {
            let output = Output { name: "out".into(), shape: shape.to_vec(), values, row_limits: None };
            judge(&output, &want, &spec(shape_wanted), 10.0).failure
        };
        let (floats, integers) = (|v: &[f64]| Values::Floats(v.to_vec()), |v: &[f64]| Values::Integers(v.to_vec()));
        assert_eq!(judge(floats(&[1.0; 6]), &[2, 3], floats(&[1.0; 6]), &[2, 3]), None);
        assert_eq!(judge(floats(&[1.0; 6]), &[3, 2], floats(&[1.0; 6]), &[2, 3]).unwrap(), "the shape is [3, 2], expected [2, 3]");
        assert!(judge(floats(&[1.0]), &[1], floats(&[1.0]), &[]).is_some(), "[1] is not a scalar");
        assert!(judge(floats(&[]), &[0, 3], floats(&[]), &[0, 4]).is_some(), "shapes without elements differ too");
        assert_eq!(judge(integers(&[1.0, -2.0]), &[2], integers(&[1.0, -2.0]), &[2]), None);
        assert!(judge(integers(&[1.0, -2.0]), &[2], integers(&[1.0, -3.0]), &[2]).is_some(), "the tolerance is not for integers");
        assert!(judge(floats(&[1.0]), &[1], integers(&[1.0]), &[1]).is_some());
        assert!(judge(integers(&[1.0]), &[1], floats(&[1.0]), &[1]).is_some());
    }

    #[test]
    fn a_row_is_held_to_its_own_limit() {
        let output =
            |limits: &[f64]| Output { row_limits: Some(limits.to_vec()), ..Output::floats("out", &[2, 2], vec![1.0, 2.0, 3.0, 4.5]) };
        let want = Values::Floats(vec![1.0, 2.0, 3.0, 4.0]);
        let judge = |limits: &[f64]| judge(&output(limits), &want, &spec(&[2, 2]), 1.0);
        assert_eq!(judge(&[0.0, 0.6]).failure, None);
        assert_eq!((judge(&[0.0, 0.6]).error, judge(&[0.0, 0.6]).tolerance), (0.5, 0.6));
        assert!(judge(&[0.6, 0.4]).failure.unwrap().starts_with("row 1: element 1"));
    }
}
