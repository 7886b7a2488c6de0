//! Is this device right? Every kernel against the CPU reference, and the whole library against values that others computed.
//!
//! What compares belongs here; what is compared is in [`mod@cases`] and in folders of golden cases.

mod diff;
mod goldens;
mod onnx;
mod report;

pub use diff::{Difference, Report, Step, diff};
pub use goldens::goldens;
pub use onnx::{coverage, onnx_node};
pub use report::{Group, Row, Summary, Verdict};

use crate::backend::Product;
use crate::backend::cpu::Cpu;
use crate::cases::{self, Case, run_case};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::models::nearest;
use crate::shape::Spec;
use std::collections::BTreeSet;

/// Runs the cases of [`cases::all`], and of [`cases::half`] where the device has f16, on `device` and on the CPU reference, and shows each outcome to `on_row`.
///
/// `ops` restricts the run to names of operations (`conv2d`), families (`conv`) or single cases (a [`Row::name`]); empty is all. `quick` takes
/// those of [`Device::auto`]'s self-test ([`cases::quick`]), or one of each operation in `ops`.
///
/// # Errors
/// [`Error::Config`] when nothing has one of the names. What goes wrong in a case is its verdict, not an error.
pub fn cases(device: &Device, ops: &[String], quick: bool, on_row: &mut dyn FnMut(&Row)) -> Result<Summary> {
    let mut rows = cases::all();
    if device.capabilities().f16 {
        rows.extend(cases::half());
    }
    let all: Vec<(Case, String)> = rows.into_iter().map(|case| (case.op.name(), case)).map(|(op, case)| (case, op)).collect();
    let wanted = |case: &Case, op: &str| ops.iter().any(|name| name == op || name == case.op.family() || *name == case.to_string());
    for name in ops {
        if !all.iter().any(|(case, op)| name == op || name == case.op.family() || *name == case.to_string()) {
            return Err(unknown(name, &all));
        }
    }
    let reference = Cpu::reference()?;
    let mut summary = Summary::default();
    let chosen = match (quick, ops.is_empty()) {
        (true, true) => cases::quick(),
        (_, true) => all.into_iter().map(|(case, _)| case).collect(),
        (quick, false) => {
            let named = all.into_iter().filter(|(case, op)| wanted(case, op)).map(|(case, _)| case).collect();
            if quick { cases::first_of_each(named) } else { named }
        }
    };
    for case in chosen {
        let op = case.op.name();
        let dtype = dtype(&case);
        let mut row = Row {
            family: case.op.family().into(),
            name: case.to_string(),
            device: device.name().into(),
            op,
            variant: format!("{dtype} {}", kernel(&case, device)),
            dtype: dtype.name().into(),
            error: None,
            tolerance: None,
            verdict: Verdict::Pass,
            detail: None,
        };
        match run_case(&case, &reference, &**device) {
            Ok(outcome) => {
                (row.error, row.tolerance) = (Some(outcome.error), Some(outcome.tolerance));
                if outcome.failure.is_some() {
                    (row.verdict, row.detail) = (Verdict::Fail, outcome.failure);
                }
            }
            Err(error) => (row.verdict, row.detail) = report::verdict_of(&error),
        }
        if row.verdict == Verdict::Fail {
            let elements = case.inputs.iter().map(|input| input.shape().iter().product::<usize>()).sum();
            if summary.smallest_failure.as_ref().is_none_or(|&(_, least)| elements < least) {
                summary.smallest_failure = Some((row.name.clone(), elements));
            }
        }
        summary.count(&row);
        on_row(&row);
    }
    Ok(summary)
}

/// Which of a family's kernels a case runs where it is a product. `--kernels "product=tile matrices=0"` takes `base` everywhere.
fn kernel(case: &Case, device: &Device) -> &'static str {
    match (case.op.family(), device.capabilities().kernels.product_of(dtype(case))) {
        ("matmul" | "conv", Product::Matrices) => "matrices",
        ("matmul" | "conv", Product::Lanes) => "lanes",
        _ => "base",
    }
}

/// The type of a case: its first input's, or its first result's where there is no input.
fn dtype(case: &Case) -> DType {
    let specs: Vec<Spec> = case.inputs.iter().filter_map(|input| input.spec().ok()).collect();
    let first = specs.first().copied().or_else(|| case.op.infer(&specs).ok()?.first().copied());
    let second = case.inputs.get(1).and_then(|input| input.spec().ok());
    // What is chosen by flags has the type of what is chosen from.
    let typed = if case.op.name() == "where" { second } else { first };
    typed.map_or(DType::F32, |spec| spec.dtype)
}

/// The error of a name that nothing has.
fn unknown(name: &str, all: &[(Case, String)]) -> Error {
    let ops: BTreeSet<&str> = all.iter().map(|(_, op)| op.as_str()).collect();
    let families: BTreeSet<&str> = all.iter().map(|(case, _)| case.op.family()).collect();
    let names: Vec<&str> = ops.union(&families).copied().collect();
    let hint = nearest(name, &names).map_or_else(|| ".".to_owned(), |near| format!("; did you mean {near}?"));
    let list = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(", ");
    Error::Config(format!(
        "verify: there is no operation or family '{name}'{hint} Families: {}. Operations: {}",
        list(&families),
        list(&ops)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(ops: &[&str], quick: bool) -> (Vec<Row>, Summary) {
        let device = Device::cpu(1).unwrap();
        let ops: Vec<String> = ops.iter().map(|s| s.to_string()).collect();
        let mut rows = Vec::new();
        let summary = cases(&device, &ops, quick, &mut |row| rows.push(row.clone())).unwrap();
        (rows, summary)
    }

    #[test]
    fn names_of_cases_are_unique() {
        let mut names: Vec<String> = cases::all().iter().chain(&cases::half()).map(Case::to_string).collect();
        names.sort();
        let twice: Vec<&[String]> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(twice.is_empty(), "{twice:?}");
    }

    #[test]
    fn a_filter_takes_operations_families_and_single_cases() {
        let (softmax, _) = rows(&["log_softmax", "clip_factor"], false);
        assert!(softmax.iter().all(|row| row.op == "log_softmax" || row.op == "clip_factor") && softmax.len() > 6);
        let (optimizer, summary) = rows(&["optimizer"], true);
        assert_eq!((optimizer.len(), summary.passed, summary.failed), (4, 4, 0), "a case of sgd, adam, loss_scale and clip_factor");
        let (one, _) = rows(&[&optimizer[1].name], false);
        assert_eq!((one.len(), &one[0].name), (1, &optimizer[1].name));
    }

    #[test]
    fn an_unknown_operation_is_answered_with_the_nearest() {
        let device = Device::cpu(1).unwrap();
        let error = cases(&device, &["conv2".into()], false, &mut |_| {}).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, Error::Config(_)) && text.contains("'conv2'; did you mean conv") && text.contains("batch_norm_eval"),
            "{text}"
        );
    }

    #[test]
    fn a_device_that_computes_nothing_fails() {
        let (device, _) = Device::null();
        let summary = cases(&device, &["gelu".into()], false, &mut |row| assert_eq!(row.verdict, Verdict::Fail, "{row:?}")).unwrap();
        assert!(summary.passed == 0 && summary.failed > 1 && summary.unsupported == 0);
        let (first, (smallest, elements)) = (summary.first_failure.unwrap(), summary.smallest_failure.unwrap());
        // Even the empty case fails: the bytes behind it are not kept.
        assert_eq!((first.op.as_str(), elements), ("gelu", 0));
        let (again, _) = rows(&[&smallest], false);
        assert_eq!((again.len(), &again[0].name), (1, &smallest), "the name alone runs the case again");
    }
}
