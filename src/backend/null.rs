//! Counts instead of computing: shapes, floating-point operations, bytes. Reading a value is a typed error.

use super::{Backend, BoxFuture, Buffer, Capabilities, KernelTable, Mark, Memory, MemoryStats, Operand, check_run};
use crate::error::{Error, Result};
use crate::op::Op;
use crate::shape::Spec;
use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

/// What a pass over the null device would have cost.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Each operation in order, with its floating-point operations and bytes moved.
    pub ops: Vec<(String, u64, u64)>,
    /// Memory that tensors would hold.
    pub memory: MemoryStats,
}

impl Counts {
    /// Floating-point operations of all calls.
    pub fn flops(&self) -> u64 {
        self.ops.iter().map(|(_, flops, _)| flops).sum()
    }
}

/// A device without data.
pub struct Null {
    capabilities: Capabilities,
    counts: Arc<Mutex<Counts>>,
}

struct Nothing {
    len_bytes: usize,
    counts: Arc<Mutex<Counts>>,
}

impl Memory for Nothing {
    fn len_bytes(&self) -> usize {
        self.len_bytes
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Nothing {
    fn drop(&mut self) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).memory.live_bytes -= self.len_bytes as u64;
    }
}

impl Default for Null {
    fn default() -> Self {
        let capabilities = Capabilities {
            kind: "null",
            name: "shape pass".into(),
            driver: String::new(),
            f64: true,
            f16: true,
            kernels: KernelTable::CPU,
            alignment: 256,
            max_buffer_bytes: isize::MAX as usize,
        };
        Null { capabilities, counts: Arc::default() }
    }
}

impl Null {
    /// What has been counted so far, for a clone of this handle taken before the device was shared.
    pub fn counts(&self) -> Arc<Mutex<Counts>> {
        Arc::clone(&self.counts)
    }
}

impl Backend for Null {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }
    fn alloc(&self, len_bytes: usize) -> Result<Buffer> {
        let memory = &mut self.counts.lock().unwrap_or_else(PoisonError::into_inner).memory;
        memory.live_bytes += len_bytes as u64;
        memory.peak_bytes = memory.peak_bytes.max(memory.live_bytes);
        Ok(Buffer::new(Nothing { len_bytes, counts: Arc::clone(&self.counts) }))
    }
    fn write(&self, _: &Buffer, _: usize, _: &[u8]) -> Result<()> {
        Ok(())
    }
    fn read(&self, _: &Buffer, _: std::ops::Range<usize>) -> BoxFuture<'_, Result<Vec<u8>>> {
        let error = Error::Device("the null device computes shapes only: a tensor's values cannot be read there".into());
        Box::pin(std::future::ready(Err(error)))
    }
    fn run(&self, op: &Op, inputs: &[Operand], outputs: &[Operand]) -> Result<()> {
        check_run(op, inputs, outputs)?;
        let specs = |operands: &[Operand]| operands.iter().map(|o| o.spec).collect::<Vec<Spec>>();
        let (inputs, outputs) = (specs(inputs), specs(outputs));
        let call = (op.name(), op.flops(&inputs, &outputs), op.bytes(&inputs, &outputs));
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).ops.push(call);
        Ok(())
    }
    fn supports(&self, _: &Op, _: &[Spec]) -> bool {
        true
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(std::future::ready(Ok(())))
    }
    fn mark(&self) -> Result<Mark> {
        Ok(Mark(0))
    }
    fn elapsed(&self, _: Mark, _: Mark) -> BoxFuture<'_, Result<Option<f64>>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    fn memory(&self) -> MemoryStats {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).memory
    }
}
