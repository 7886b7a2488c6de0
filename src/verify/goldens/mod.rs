//! Golden cases: folders of inputs and of results that another implementation computed, `manifest.json` and `<family>.safetensors`.
//!
//! One file a family, or a few small ones: the operators it can compute, through the same functions that a user calls.

mod architecture;
mod conv;
mod elementwise;
mod golden;
mod loss;
mod manifest;
mod matmul;
mod metric;
mod model;
mod optimizer;
mod recurrent;
mod reduce;
mod rule;
mod schedule;
mod shape;
mod softmax;

use super::report::{Row, Summary, Verdict, verdict_of};
use crate::device::Device;
use crate::error::{Error, Result};
use golden::{Golden, Operator, Outcome, Output, Stop, unsupported};
use manifest::{Case, Manifest};
use rule::{Finding, judge, tolerance};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::path::Path;

/// Every operator that can be computed.
const OPERATORS: [&[Operator]; 12] = [
    elementwise::OPERATORS,
    softmax::OPERATORS,
    loss::OPERATORS,
    reduce::OPERATORS,
    shape::OPERATORS,
    matmul::OPERATORS,
    conv::OPERATORS,
    optimizer::OPERATORS,
    schedule::OPERATORS,
    recurrent::OPERATORS,
    metric::OPERATORS,
    model::OPERATORS,
];

/// Computes every case of a folder on `device`, compares it by the folder's own rule, and shows each outcome to `on_row`.
///
/// The folder holds `manifest.json` (format 1) and the files it names. On any device but the CPU the rule's wider bound for transcendental
/// functions applies. What the crate cannot compute is [`Verdict::Unsupported`], never approximated.
///
/// # Errors
/// [`Error::Data`] that names the file and the case when the folder is missing, incomplete or contradicts itself.
pub fn goldens(dir: &Path, device: &Device, on_row: &mut dyn FnMut(&Row)) -> Result<Summary> {
    let path = dir.join("manifest.json");
    let manifest = Manifest::load(&path)?;
    let mut files = BTreeMap::new();
    for case in &manifest.cases {
        if !files.contains_key(case.family.as_str()) {
            let file = dir.join(format!("{}.safetensors", case.family));
            let bytes = manifest::read(&file)?;
            files.insert(case.family.as_str(), (file, bytes));
        }
    }
    let mut shards = BTreeMap::new();
    for (family, (file, bytes)) in &files {
        let shard =
            SafeTensors::deserialize(bytes).map_err(|error| Error::data(file, format!("not a complete safetensors file: {error}")))?;
        shards.insert(*family, (file, shard));
    }
    // Everything is checked before anything runs.
    let mut work = Vec::new();
    for case in &manifest.cases {
        if let Some((file, shard)) = shards.get(case.family.as_str()) {
            case.check(file, shard)?;
            work.push((case, shard));
        }
    }

    let gpu = device.capabilities().kind != "cpu";
    let mut summary = Summary::default();
    for (case, shard) in work {
        let mut row = Row {
            family: case.family.clone(),
            name: case.name.clone(),
            device: device.name().into(),
            op: case.op.clone(),
            variant: "f32 base".into(),
            dtype: "f32".into(),
            error: None,
            tolerance: None,
            verdict: Verdict::Pass,
            detail: None,
        };
        let wide = gpu && manifest.transcendental_ops.contains(&case.op);
        match run(case, shard, device).and_then(|outputs| check(case, shard, &outputs, &manifest, wide)) {
            Ok(finding) => {
                (row.error, row.tolerance) = (Some(finding.error), Some(finding.tolerance));
                if finding.failure.is_some() {
                    (row.verdict, row.detail) = (Verdict::Fail, finding.failure);
                }
            }
            Err(Stop::Unsupported(detail)) => (row.verdict, row.detail) = (Verdict::Unsupported, Some(detail)),
            Err(Stop::Malformed(message)) => return Err(Error::data(path, format!("case {}: {message}", case.name))),
            Err(Stop::Failed(error)) => (row.verdict, row.detail) = verdict_of(&error),
        }
        summary.count(&row);
        on_row(&row);
    }
    Ok(summary)
}

/// Computes all outputs of a case.
fn run(case: &Case, shard: &SafeTensors, device: &Device) -> Outcome<Vec<Output>> {
    let Some(operator) = OPERATORS.into_iter().flatten().find(|operator| operator.name == case.op) else {
        return unsupported(format!("there is no {}", case.op));
    };
    let golden = Golden::new(case, shard, device)?;
    golden.attributes().only(operator.attributes)?;
    (operator.run)(&golden)
}

/// Compares all outputs of a case and returns the worst.
fn check(case: &Case, shard: &SafeTensors, outputs: &[Output], manifest: &Manifest, wide: bool) -> Outcome<Finding> {
    let mut worst: Option<Finding> = None;
    for (name, spec) in &case.outputs {
        let Some(output) = outputs.iter().find(|output| output.name == *name) else {
            return unsupported(format!("output {name}"));
        };
        let mut finding = judge(output, &golden::values(shard, spec)?, spec, tolerance(&manifest.factors, spec, wide));
        finding.failure = finding.failure.map(|why| format!("output {name}: {why}"));
        worst = Some(match worst {
            Some(worst) => worst.worse(finding),
            None => finding,
        });
    }
    worst.ok_or_else(|| Stop::Malformed("there are no outputs to compare".into()))
}
