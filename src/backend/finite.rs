//! A decorator that stops at the first operation whose result is not finite.

use super::checked::values;
use super::decorator::Decorator;
use super::{Backend, Operand};
use crate::error::{Error, Result};
use crate::op::Op;
use std::sync::Arc;

/// Reads back every float result of `inner` and refuses NaN and infinities. It waits for each operation: a tool for finding a fault, not for
/// training.
pub struct Finite {
    inner: Arc<dyn Backend>,
}

impl Finite {
    /// Wraps a backend.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Finite { inner }
    }
}

impl Decorator for Finite {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn run(&self, op: &Op, inputs: &[Operand], outputs: &[Operand]) -> Result<()> {
        self.inner.run(op, inputs, outputs)?;
        let written = outputs.iter().chain(op.in_place().iter().map(|&i| &inputs[i]));
        for (i, result) in written.enumerate().filter(|(_, o)| o.spec.dtype.is_float()) {
            let found = values(&*self.inner, result)?;
            let Some((at, value)) = found.iter().enumerate().find(|(_, v)| !v.is_finite()) else { continue };
            // What went in tells whether the fault is here or came from before.
            let mut from = Vec::new();
            for input in inputs {
                let largest = values(&*self.inner, input)?.iter().fold(0.0_f64, |m, v| if v.is_nan() { f64::NAN } else { m.max(v.abs()) });
                from.push(format!("{} up to {largest:.3e}", input.spec));
            }
            return Err(Error::Diverged(format!("{op:?}: element {at} of result {i} is {value}; operands: {}", from.join(", "))));
        }
        Ok(())
    }
}
