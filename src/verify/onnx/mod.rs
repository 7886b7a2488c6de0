//! The operator tests of ONNX: single nodes with inputs and expected outputs, as `onnx.backend.test` computes them.
//!
//! A folder holds `manifest.json` and one safetensors file. The cases that are taken are those that the manifest marks as relevant for CNNs and
//! whose floats are f32. What is left out, is left out by operator or attribute, with a reason, never by case.

mod layers;
mod math;
mod node;
mod shape;

use super::report::{Row, Summary, Verdict, verdict_of};
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use node::{Host, Node, Operator, Outcome, Output, Stop};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

const OPERATORS: [&[Operator]; 3] = [math::OPERATORS, shape::OPERATORS, layers::OPERATORS];

/// Absolute tolerance, as a share of the largest expected value; the suite states the relative one.
const ATOL: f64 = 1e-6;

#[derive(Deserialize)]
struct Manifest {
    file: String,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    op_types: Vec<String>,
    #[serde(default)]
    attributes: Map<String, Value>,
    inputs: Vec<Option<Entry>>,
    outputs: Vec<Option<Entry>>,
    rtol: f64,
    f32_data: bool,
    cnn_relevant: bool,
}

#[derive(Deserialize)]
struct Entry {
    key: Option<String>,
    dtype: Option<String>,
    shape: Option<Vec<usize>>,
}

/// Computes the cases of a folder on `device`, and shows each outcome to `on_row`.
///
/// # Errors
/// [`Error::Data`] that names the file and the case when the folder is missing, incomplete or contradicts itself.
pub fn onnx_node(dir: &Path, device: &Device, on_row: &mut dyn FnMut(&Row)) -> Result<Summary> {
    let path = dir.join("manifest.json");
    let read = |path: &Path| std::fs::read(path).map_err(|e| Error::data(path, format!("cannot be read: {e}")));
    let manifest: Manifest =
        serde_json::from_slice(&read(&path)?).map_err(|e| Error::data(&path, format!("not a list of ONNX cases: {e}")))?;
    let file = dir.join(&manifest.file);
    let bytes = read(&file)?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| Error::data(&file, format!("not a complete safetensors file: {e}")))?;
    let mut summary = Summary::default();
    for case in manifest.cases.iter().filter(|case| case.cnn_relevant && case.f32_data) {
        let mut row = Row {
            family: "onnx".into(),
            name: case.name.clone(),
            device: device.name().into(),
            op: case.op_types.join("+"),
            variant: "f32 base".into(),
            dtype: "f32".into(),
            error: None,
            tolerance: None,
            verdict: Verdict::Pass,
            detail: None,
        };
        match run(case, &tensors, device) {
            Ok((error, tolerance, failure)) => {
                (row.error, row.tolerance) = (Some(error), Some(tolerance));
                if failure.is_some() {
                    (row.verdict, row.detail) = (Verdict::Fail, failure);
                }
            }
            Err(Stop::Unsupported(reason)) => (row.verdict, row.detail) = (Verdict::Unsupported, Some(reason)),
            Err(Stop::Malformed(message)) => return Err(Error::data(&path, format!("case {}: {message}", case.name))),
            Err(Stop::Failed(error)) => (row.verdict, row.detail) = verdict_of(&error),
        }
        summary.count(&row);
        on_row(&row);
    }
    Ok(summary)
}

/// Computes a case; the error, the tolerance, and why it failed.
fn run(case: &Case, tensors: &SafeTensors, device: &Device) -> Outcome<(f64, f64, Option<String>)> {
    let [op] = &case.op_types[..] else { return node::unsupported("graphs of several nodes") };
    let Some(operator) = OPERATORS.into_iter().flatten().find(|operator| operator.name == op) else {
        return node::unsupported(missing(op));
    };
    if let Some(key) = case.attributes.keys().find(|key| !operator.attributes.contains(&key.as_str())) {
        return node::unsupported(format!("attribute {key}"));
    }
    let host = |entry: &Option<Entry>| entry.as_ref().map(|e| values(e, tensors)).transpose();
    let inputs = case.inputs.iter().map(host).collect::<Outcome<Vec<_>>>()?;
    let node = Node { device, attributes: &case.attributes, inputs, outputs: case.outputs.len() };
    let outputs = (operator.run)(&node)?;
    let (mut worst, mut allowed) = (0.0_f64, 0.0);
    for (i, entry) in case.outputs.iter().enumerate() {
        let Some(want) = host(entry)? else { continue };
        let Some(got) = outputs.get(i) else { return node::unsupported(format!("output {i}")) };
        let (shape, got) = fetch(got)?;
        if shape != want.shape {
            return Ok((f64::NAN, 0.0, Some(format!("output {i}: shape {shape:?}, expected {:?}", want.shape))));
        }
        let largest = want.values.iter().filter(|v| v.is_finite()).fold(0.0_f64, |m, v| m.max(v.abs()));
        for (at, (&g, &w)) in got.iter().zip(&want.values).enumerate() {
            if g == w || g.is_nan() && w.is_nan() {
                continue;
            }
            let tolerance = if want.float { ATOL * largest + case.rtol * w.abs() } else { 0.0 };
            let error = (g - w).abs();
            // `!(<=)`: NaN fails.
            if !(error <= tolerance) {
                return Ok((error, tolerance, Some(format!("output {i}: element {at} is {g:e}, expected {w:e}"))));
            }
            if error > worst {
                (worst, allowed) = (error, tolerance);
            }
        }
    }
    Ok((worst, allowed, None))
}

/// Why there is no such operator.
fn missing(op: &str) -> &'static str {
    match op {
        "QuantizeLinear" | "DequantizeLinear" | "DynamicQuantizeLinear" | "QLinearMatMul" | "QLinearConv" => {
            "integer-quantised values; there is no 8-bit type"
        }
        "NonMaxSuppression" | "RoiAlign" => "object detection",
        "DeformConv" | "GridSample" => "sampling at computed places; there is no operation for it",
        "Bernoulli" => "random results, which are another generator's",
        _ if op.contains("preview.training") => "another formula than the optimisers of PyTorch, which mappa follows",
        _ => "there is no such operation",
    }
}

/// A tensor of the file.
fn values(entry: &Entry, tensors: &SafeTensors) -> Outcome<Host> {
    let (Some(key), Some(dtype), Some(shape)) = (&entry.key, &entry.dtype, &entry.shape) else {
        return node::unsupported("values that are no tensors");
    };
    let Ok(view) = tensors.tensor(key) else { return node::malformed(format!("there is no tensor {key}")) };
    let data = view.data();
    let values: Vec<f64> = match view.dtype() {
        Dtype::F32 => data.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
        Dtype::I64 => data.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f64).collect(),
        Dtype::I32 => data.as_chunks().0.iter().map(|&b| f64::from(i32::from_le_bytes(b))).collect(),
        Dtype::BOOL | Dtype::U8 => data.iter().map(|&b| f64::from(b)).collect(),
        other => return node::unsupported(format!("values of type {other:?}")),
    };
    if values.len() != shape.iter().product::<usize>() {
        return node::malformed(format!("tensor {key} has {} values for shape {shape:?}", values.len()));
    }
    Ok(Host { shape: shape.clone(), float: dtype == "float", values })
}

/// A result on the host.
fn fetch(output: &Output) -> Outcome<(Vec<usize>, Vec<f64>)> {
    Ok(match output {
        Output::Integers(shape, values) => (shape.clone(), values.iter().map(|&v| v as f64).collect()),
        Output::Tensor(t) => {
            let values = match t.dtype() {
                DType::F32 => t.to_vec_blocking::<f32>()?.into_iter().map(f64::from).collect(),
                DType::F16 => t.to_vec_blocking::<half::f16>()?.into_iter().map(f64::from).collect(),
                DType::F64 => t.to_vec_blocking::<f64>()?,
                DType::U32 => t.to_vec_blocking::<u32>()?.into_iter().map(f64::from).collect(),
                DType::I32 => t.to_vec_blocking::<i32>()?.into_iter().map(f64::from).collect(),
            };
            (t.shape().to_vec(), values)
        }
    })
}

/// The table of `docs/onnx-coverage.md`: operators with the cases that run, and what is left out, why.
pub fn coverage(rows: &[Row]) -> String {
    let mut operators: BTreeMap<&str, (usize, BTreeMap<&str, usize>)> = BTreeMap::new();
    for row in rows {
        let (runs, left_out) = operators.entry(&row.op).or_default();
        match (row.verdict, &row.detail) {
            (Verdict::Unsupported, Some(reason)) => *left_out.entry(reason).or_default() += 1,
            _ => *runs += 1,
        }
    }
    let (all, left) = (rows.len(), rows.iter().filter(|row| row.verdict == Verdict::Unsupported).count());
    let mut text = format!(
        "# ONNX operators\n\n\
         Of the {all} operator tests of ONNX that concern CNNs and whose floats are f32, {} run on mappa's operations, and {left} are left out by operator or\n\
         attribute. `mappa verify --onnx-node DIR --coverage FILE` writes this table.\n\n\
         | operator | cases that run | left out |\n| --- | ---: | --- |\n",
        all - left
    );
    for (op, (runs, left_out)) in operators {
        let reasons: Vec<String> = left_out.iter().map(|(reason, count)| format!("{count}: {reason}")).collect();
        text += &format!("| {op} | {runs} | {} |\n", reasons.join("; "));
    }
    text
}
