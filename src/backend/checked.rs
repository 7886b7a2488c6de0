//! Runs every operation on a device and on the CPU reference, and stops at the first disagreement.

use super::cpu::Cpu;
use super::decorator::Decorator;
use super::{Backend, Capabilities, Operand};
use crate::cases::compare;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Magnitudes, Op};
use crate::shape::Spec;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A device under suspicion. Both sides get the device's inputs, so that errors cannot pile up. Native only: it blocks inside.
pub struct Checked {
    capabilities: Capabilities,
    device: Arc<dyn Backend>,
    reference: Cpu,
    operations: Arc<AtomicU64>,
}

impl Checked {
    /// Checks `device` against the CPU reference.
    ///
    /// # Errors
    /// [`Error::Device`] when the reference cannot start.
    pub fn new(device: Arc<dyn Backend>) -> Result<Self> {
        let mut capabilities = device.capabilities().clone();
        capabilities.name = format!("{}, every operation compared with the CPU reference", capabilities.name);
        capabilities.kind = "checked";
        Ok(Checked { capabilities, device, reference: Cpu::reference()?, operations: Arc::default() })
    }

    /// How many operations were found right so far.
    pub fn operations(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.operations)
    }

    fn to_reference(&self, operand: &Operand) -> Result<Operand> {
        let buffer = self.reference.alloc(operand.spec.len_bytes())?;
        if !operand.spec.shape.is_empty() {
            let bytes = pollster::block_on(self.device.read(&operand.buffer, operand.range()))?;
            self.reference.write(&buffer, 0, &bytes)?;
        }
        Ok(Operand { buffer, offset: 0, spec: operand.spec })
    }
}

/// The values of an operand as f64, whatever its type.
pub(crate) fn values(backend: &dyn Backend, operand: &Operand) -> Result<Vec<f64>> {
    if operand.spec.shape.is_empty() {
        return Ok(Vec::new());
    }
    let bytes = pollster::block_on(backend.read(&operand.buffer, operand.range()))?;
    Ok(match operand.spec.dtype {
        DType::F32 => bytemuck::allocation::pod_collect_to_vec::<u8, f32>(&bytes).into_iter().map(f64::from).collect(),
        DType::F16 => bytemuck::allocation::pod_collect_to_vec::<u8, half::f16>(&bytes).into_iter().map(f64::from).collect(),
        DType::F64 => bytemuck::allocation::pod_collect_to_vec(&bytes),
        DType::U32 => bytemuck::allocation::pod_collect_to_vec::<u8, u32>(&bytes).into_iter().map(f64::from).collect(),
        DType::I32 => bytemuck::allocation::pod_collect_to_vec::<u8, i32>(&bytes).into_iter().map(f64::from).collect(),
    })
}

impl Decorator for Checked {
    fn inner(&self) -> &dyn Backend {
        &*self.device
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn run(&self, op: &Op, inputs: &[Operand], outputs: &[Operand]) -> Result<()> {
        let reference = inputs.iter().map(|o| self.to_reference(o)).collect::<Result<Vec<_>>>()?;
        let magnitudes = reference.iter().map(|o| Ok(largest(&values(&self.reference, o)?))).collect::<Result<Vec<f64>>>()?;
        self.device.run(op, inputs, outputs)?;
        let mut expected = Vec::new();
        for output in outputs {
            let buffer = self.reference.alloc(output.spec.len_bytes())?;
            expected.push(Operand { buffer, offset: 0, spec: output.spec });
        }
        self.reference.run(op, &reference, &expected)?;
        let in_place = op.in_place();
        let got = outputs.iter().chain(in_place.iter().map(|&i| &inputs[i]));
        let want = expected.iter().chain(in_place.iter().map(|&i| &reference[i]));
        let specs: Vec<Spec> = inputs.iter().map(|o| o.spec).collect();
        let out_specs: Vec<Spec> = outputs.iter().map(|o| o.spec).collect();
        for (i, (got, want)) in got.zip(want).enumerate() {
            let (got, want) = (values(&*self.device, got)?, values(&self.reference, want)?);
            let size = Magnitudes { inputs: &magnitudes, output: largest(&want) };
            let tolerance = op.tolerance(&specs, &out_specs, i, &size);
            if let Some(worst) = compare(&got, &want).failure(tolerance) {
                let shapes: Vec<String> = specs.iter().map(Spec::to_string).collect();
                return Err(Error::Mismatch(format!("{op:?} on [{}], result {i}: {worst}", shapes.join(", "))));
            }
        }
        self.operations.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// The largest finite magnitude.
pub(crate) fn largest(values: &[f64]) -> f64 {
    values.iter().map(|v| v.abs()).filter(|v| v.is_finite()).fold(0.0, f64::max)
}
