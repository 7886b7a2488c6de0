//! Running a case on a device and on the reference.

use super::case::{Case, operand};
use super::compare::compare;
use crate::backend::checked::{largest, values};
use crate::backend::cpu::Cpu;
use crate::backend::{Backend, Operand};
use crate::error::Result;
use crate::op::Magnitudes;
use crate::shape::Spec;

/// What a comparison of one case found: the figures of its worst output.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Largest absolute difference; NaN when values differ in kind.
    pub error: f64,
    /// What was allowed.
    pub tolerance: f64,
    /// Why it failed, if it did.
    pub failure: Option<String>,
}

/// Bytes behind every output that no kernel may touch, and the byte they hold.
const SENTINEL: (usize, u8) = (64, 0xA5);

/// Runs `case` on both devices and compares every output, every operand updated in place, and the bytes behind them.
///
/// # Errors
/// Errors of the devices; a difference is not an error but an [`Outcome::failure`].
pub fn run_case(case: &Case, reference: &Cpu, device: &dyn Backend) -> Result<Outcome> {
    let data = case.inputs.iter().enumerate().map(|(i, d)| d.bytes(reference, i as u64 + 1)).collect::<Result<Vec<_>>>()?;
    let specs = case.inputs.iter().map(|d| d.spec()).collect::<Result<Vec<Spec>>>()?;
    let out_specs = case.op.infer(&specs)?;
    let on = |backend: &dyn Backend| -> Result<(Vec<Operand>, Vec<Operand>)> {
        let guarded = |spec: Spec, bytes: &[u8]| -> Result<Operand> {
            let mut all = bytes.to_vec();
            all.resize(spec.len_bytes() + SENTINEL.0, SENTINEL.1);
            operand(backend, spec, &all)
        };
        let inputs = specs.iter().zip(&data).map(|(s, bytes)| guarded(*s, bytes)).collect::<Result<Vec<_>>>()?;
        // 0xFF: NaN for floats, so that an element nobody wrote cannot pass.
        let outputs = out_specs.iter().map(|s| guarded(*s, &vec![0xFF; s.len_bytes()])).collect::<Result<Vec<_>>>()?;
        backend.run(&case.op, &inputs, &outputs)?;
        let updated = case.op.in_place().iter().map(|&i| inputs[i].clone());
        Ok((inputs.clone(), outputs.into_iter().chain(updated).collect()))
    };
    let (ref_inputs, want) = on(reference)?;
    let (_, got) = on(device)?;
    let before = ref_inputs.iter().map(|o| Ok(largest(&values(reference, o)?))).collect::<Result<Vec<f64>>>()?;
    let mut outcome = Outcome { error: 0.0, tolerance: 0.0, failure: None };
    let mut worst_share = -1.0;
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        let tail = got.range().end..got.range().end + SENTINEL.0;
        let tail = pollster::block_on(device.read(&got.buffer, tail))?;
        if tail.iter().any(|&b| b != SENTINEL.1) {
            outcome =
                Outcome { error: f64::NAN, tolerance: 0.0, failure: Some(format!("result {i}: bytes behind the output were overwritten")) };
            return Ok(outcome);
        }
        let (got, want) = (values(device, got)?, values(reference, want)?);
        let size = Magnitudes { inputs: &before, output: largest(&want) };
        let tolerance = case.op.tolerance(&specs, &out_specs, i, &size);
        let comparison = compare(&got, &want);
        let share = if comparison.error == 0.0 { 0.0 } else { comparison.error / tolerance };
        if !(share <= worst_share) {
            worst_share = share;
            (outcome.error, outcome.tolerance) = (comparison.error, tolerance);
        }
        if let Some(failure) = comparison.failure(tolerance) {
            return Ok(Outcome { error: comparison.error, tolerance, failure: Some(format!("result {i}: {failure}")) });
        }
    }
    Ok(outcome)
}
