//! What a run of `verify` found: a row a case, and their sums.

use crate::error::Error;
use serde::Serialize;

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Every result is within its tolerance.
    Pass,
    /// A result is not, or the device reported an error.
    Fail,
    /// The device or this crate cannot compute the case.
    Unsupported,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Unsupported => "unsupported",
        })
    }
}

/// One case. As JSON it has the keys that `mappa verify --json` promises; a missing value or NaN is null.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename = "case")]
pub struct Row {
    /// The family's stem, as in the names of files.
    pub family: String,
    /// The case, unique in its list.
    pub name: String,
    /// The adapter's or processor's name.
    pub device: String,
    /// The operation's name.
    pub op: String,
    /// Type and kernel: `f32 base`, or `f32 lanes` for products on subgroups of eight lanes.
    pub variant: String,
    /// The element type.
    pub dtype: String,
    /// Largest absolute difference of the worst result; NaN when a value differs in kind.
    pub error: Option<f64>,
    /// What was allowed there.
    pub tolerance: Option<f64>,
    /// How it ended.
    pub verdict: Verdict,
    /// Why it did not pass, for people.
    #[serde(skip)]
    pub detail: Option<String>,
}

impl Row {
    /// Error as a share of the tolerance; NaN when a value differs in kind.
    pub fn share(&self) -> Option<f64> {
        Some(share(self.error?, self.tolerance?))
    }
}

/// Error as a share of the tolerance: no error is 0, also where equality is asked for.
pub(super) fn share(error: f64, tolerance: f64) -> f64 {
    if error == 0.0 { 0.0 } else { error / tolerance }
}

/// Whether a share is worse than another; NaN is worse than any number.
pub(super) fn is_worse(share: f64, than: f64) -> bool {
    !than.is_nan() && (share.is_nan() || share > than)
}

/// The verdict of a case that ended with an error.
pub(super) fn verdict_of(error: &Error) -> (Verdict, Option<String>) {
    let verdict = if let Error::Unsupported { .. } = error { Verdict::Unsupported } else { Verdict::Fail };
    (verdict, Some(error.to_string()))
}

/// The cases of one operation, variant and type.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The operation's name.
    pub op: String,
    /// Type and kernel.
    pub variant: String,
    /// The element type.
    pub dtype: String,
    /// Number of cases, whatever their verdict.
    pub cases: usize,
    /// Those that failed.
    pub failed: usize,
    /// Those that the device or this crate cannot compute.
    pub unsupported: usize,
    /// Error, tolerance and their ratio of the case that used the largest share of its tolerance.
    pub worst: Option<(f64, f64, f64)>,
}

impl Group {
    /// Fail if any case failed, pass if any passed, else unsupported.
    pub fn verdict(&self) -> Verdict {
        match self {
            Group { failed: 1.., .. } => Verdict::Fail,
            Group { cases, unsupported, .. } if cases == unsupported => Verdict::Unsupported,
            _ => Verdict::Pass,
        }
    }
}

/// The sums of a run. As JSON it is the last line of `mappa verify --json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(tag = "event", rename = "summary")]
pub struct Summary {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that failed.
    pub failed: usize,
    /// Cases that the device or this crate cannot compute.
    pub unsupported: usize,
    /// The first case that failed.
    #[serde(skip)]
    pub first_failure: Option<Row>,
    /// Name of the failed case with the fewest elements, and their number: what reproduces the failure cheapest.
    #[serde(skip)]
    pub smallest_failure: Option<(String, usize)>,
    /// In the order in which they first occurred.
    #[serde(skip)]
    pub groups: Vec<Group>,
}

impl Summary {
    pub(super) fn count(&mut self, row: &Row) {
        if row.verdict == Verdict::Fail && self.first_failure.is_none() {
            self.first_failure = Some(row.clone());
        }
        let same = |group: &Group| group.op == row.op && group.variant == row.variant && group.dtype == row.dtype;
        let at = self.groups.iter().position(same).unwrap_or_else(|| {
            let (op, variant, dtype) = (row.op.clone(), row.variant.clone(), row.dtype.clone());
            self.groups.push(Group { op, variant, dtype, cases: 0, failed: 0, unsupported: 0, worst: None });
            self.groups.len() - 1
        });
        let group = &mut self.groups[at];
        group.cases += 1;
        match row.verdict {
            Verdict::Pass => self.passed += 1,
            Verdict::Fail => (self.failed, group.failed) = (self.failed + 1, group.failed + 1),
            Verdict::Unsupported => (self.unsupported, group.unsupported) = (self.unsupported + 1, group.unsupported + 1),
        }
        if let (Some(error), Some(tolerance), Some(share)) = (row.error, row.tolerance, row.share())
            && group.worst.is_none_or(|(.., worst)| is_worse(share, worst))
        {
            group.worst = Some((error, tolerance, share));
        }
    }

    /// True when no case failed.
    pub fn is_ok(&self) -> bool {
        self.failed == 0
    }

    /// A line for each operation, variant and type: cases, the worst error with its tolerance and share, and the verdict.
    pub fn table(&self) -> String {
        let head = ["operation", "variant", "dtype", "cases", "worst error", "tolerance", "share", "verdict"].map(str::to_owned);
        let rows = self.groups.iter().map(|group| {
            let [error, tolerance, share] = match group.worst {
                Some((error, tolerance, share)) => [format!("{error:.2e}"), format!("{tolerance:.2e}"), format!("{:.1}%", 100.0 * share)],
                None => ["-"; 3].map(str::to_owned),
            };
            let verdict = match group.verdict() {
                Verdict::Fail => format!("FAIL ({} of {})", group.failed, group.cases),
                Verdict::Pass if group.unsupported > 0 => format!("pass ({} unsupported)", group.unsupported),
                verdict => verdict.to_string(),
            };
            [group.op.clone(), group.variant.clone(), group.dtype.clone(), group.cases.to_string(), error, tolerance, share, verdict]
        });
        let rows: Vec<[String; 8]> = std::iter::once(head).chain(rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 8] = std::array::from_fn(width);
        let mut table = String::new();
        for row in &rows {
            let mut line = String::new();
            for (column, (text, width)) in row.iter().zip(widths).enumerate() {
                // Numbers to the right, words to the left.
                line += &if (3..7).contains(&column) { format!("{text:>width$}  ") } else { format!("{text:<width$}  ") };
            }
            table += line.trim_end();
            table.push('\n');
        }
        table + &format!("{} passed, {} failed, {} unsupported\n", self.passed, self.failed, self.unsupported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(verdict: Verdict, error: Option<f64>, tolerance: Option<f64>) -> Row {
        let text = |s: &str| s.to_owned();
        Row {
            family: text("conv"),
            name: text("n"),
            device: text("d"),
            op: text("conv2d"),
            variant: text("f32 base"),
            dtype: text("f32"),
            error,
            tolerance,
            verdict,
            detail: Some(text("why")),
        }
    }

    #[test]
    fn json_has_the_promised_keys_and_nan_is_null() {
        let json = |row: &Row| serde_json::to_string(row).unwrap();
        assert_eq!(
            json(&row(Verdict::Pass, Some(0.5), Some(1.0))),
            r#"{"event":"case","family":"conv","name":"n","device":"d","op":"conv2d","variant":"f32 base","dtype":"f32","error":0.5,"tolerance":1.0,"verdict":"pass"}"#
        );
        assert!(json(&row(Verdict::Fail, Some(f64::NAN), Some(1.0))).contains(r#""error":null,"tolerance":1.0,"verdict":"fail""#));
        assert!(json(&row(Verdict::Unsupported, None, None)).contains(r#""error":null,"tolerance":null,"verdict":"unsupported""#));
        let mut summary = Summary::default();
        summary.count(&row(Verdict::Pass, Some(0.0), Some(0.0)));
        assert_eq!(serde_json::to_string(&summary).unwrap(), r#"{"event":"summary","passed":1,"failed":0,"unsupported":0}"#);
    }

    #[test]
    fn the_table_shows_the_worst_case_of_a_group() {
        let mut summary = Summary::default();
        for row in [
            row(Verdict::Pass, Some(0.0), Some(0.0)),
            row(Verdict::Pass, Some(0.5), Some(2.0)),
            row(Verdict::Pass, Some(0.1), Some(1.0)),
            row(Verdict::Unsupported, None, None),
        ] {
            summary.count(&row);
        }
        let expected = "operation  variant   dtype  cases  worst error  tolerance  share  verdict\n\
                        conv2d     f32 base  f32        4      5.00e-1     2.00e0  25.0%  pass (1 unsupported)\n\
                        3 passed, 0 failed, 1 unsupported\n";
        assert_eq!(summary.table(), expected);
        summary.count(&row(Verdict::Fail, Some(f64::NAN), Some(1.0)));
        summary.count(&row(Verdict::Fail, Some(9.0), Some(1.0)));
        assert!(summary.groups[0].worst.unwrap().2.is_nan() && !summary.is_ok());
        assert!(summary.table().contains("FAIL (2 of 6)"), "{}", summary.table());
    }
}
