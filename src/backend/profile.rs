//! A decorator that times every operation of another backend with that backend's own clock.

use super::decorator::Decorator;
use super::{Backend, BoxFuture, Mark, Operand};
use crate::error::Result;
use crate::op::Op;
use crate::shape::Spec;
use std::sync::{Arc, Mutex, PoisonError};

/// Calls whose times are still with the device. Below the number of marks that a GPU keeps.
const PENDING: usize = 1024;

/// What calls of one operation on operands of one shape cost together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cost {
    /// The operation's name.
    pub op: String,
    /// Shapes of its operands.
    pub shapes: String,
    /// Number of calls.
    pub calls: u64,
    /// Time on the device, in seconds; 0 where the device has no clock.
    pub seconds: f64,
    /// Floating-point operations.
    pub flops: u64,
    /// Bytes read and written.
    pub bytes: u64,
}

/// Costs of all operations so far; shared with the [`Profile`] that fills it.
pub type Costs = Arc<Mutex<Vec<Cost>>>;

/// Times each operation of `inner`. The calls of a step follow each other without a wait, but each is timed alone: overlap is lost.
pub struct Profile {
    inner: Arc<dyn Backend>,
    costs: Costs,
    /// Row in `costs`, and the marks around the call.
    pending: Mutex<Vec<(usize, Mark, Mark)>>,
}

impl Profile {
    /// Wraps a backend.
    pub fn new(inner: Arc<dyn Backend>) -> Self {
        Profile { inner, costs: Arc::default(), pending: Mutex::default() }
    }

    /// The table that fills as operations run; complete after a [`Backend::sync`].
    pub fn costs(&self) -> Costs {
        Arc::clone(&self.costs)
    }

    async fn collect(&self) -> Result<()> {
        let pending = std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner));
        for (row, from, to) in pending {
            let seconds = self.inner.elapsed(from, to).await?.unwrap_or(0.0);
            self.costs.lock().unwrap_or_else(PoisonError::into_inner)[row].seconds += seconds;
        }
        Ok(())
    }
}

impl Decorator for Profile {
    fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn run(&self, op: &Op, inputs: &[Operand], outputs: &[Operand]) -> Result<()> {
        let from = self.inner.mark()?;
        self.inner.run(op, inputs, outputs)?;
        let to = self.inner.mark()?;
        let specs = |operands: &[Operand]| operands.iter().map(|o| o.spec).collect::<Vec<Spec>>();
        let (inputs, outputs) = (specs(inputs), specs(outputs));
        let (name, shapes) = (op.name(), inputs.iter().map(|s| s.shape.to_string()).collect::<Vec<_>>().join(" "));
        let row = {
            let mut costs = self.costs.lock().unwrap_or_else(PoisonError::into_inner);
            let row = costs.iter().position(|c| c.op == name && c.shapes == shapes).unwrap_or(costs.len());
            if row == costs.len() {
                costs.push(Cost { op: name, shapes, ..Cost::default() });
            }
            let cost = &mut costs[row];
            cost.calls += 1;
            cost.flops += op.flops(&inputs, &outputs);
            cost.bytes += op.bytes(&inputs, &outputs);
            row
        };
        let full = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.push((row, from, to));
            pending.len() >= PENDING
        };
        if full { pollster::block_on(self.collect()) } else { Ok(()) }
    }

    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.collect().await?;
            self.inner.sync().await
        })
    }
}
