//! What wraps another backend, and looks at each operation on its way.

use super::{Backend, BoxFuture, Buffer, Capabilities, Mark, MaybeSendSync, MemoryStats, Operand};
use crate::error::Result;
use crate::op::Op;
use crate::shape::Spec;

/// A backend around another one. All that it does not say itself goes to the inner one.
pub(crate) trait Decorator: MaybeSendSync + 'static {
    /// The backend that computes.
    fn inner(&self) -> &dyn Backend;

    /// See [`Backend::capabilities`].
    fn capabilities(&self) -> &Capabilities {
        self.inner().capabilities()
    }

    /// See [`Backend::run`].
    fn run(&self, op: &Op, inputs: &[Operand], outputs: &[Operand]) -> Result<()>;

    /// See [`Backend::sync`].
    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        self.inner().sync()
    }
}

impl<D: Decorator> Backend for D {
    fn capabilities(&self) -> &Capabilities {
        Decorator::capabilities(self)
    }
    fn alloc(&self, len_bytes: usize) -> Result<Buffer> {
        self.inner().alloc(len_bytes)
    }
    fn write(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> Result<()> {
        self.inner().write(buffer, offset, bytes)
    }
    fn read(&self, buffer: &Buffer, range: std::ops::Range<usize>) -> BoxFuture<'_, Result<Vec<u8>>> {
        self.inner().read(buffer, range)
    }
    fn run(&self, op: &Op, inputs: &[Operand], outputs: &[Operand]) -> Result<()> {
        Decorator::run(self, op, inputs, outputs)
    }
    fn supports(&self, op: &Op, inputs: &[Spec]) -> bool {
        self.inner().supports(op, inputs)
    }
    fn flush(&self) -> Result<()> {
        self.inner().flush()
    }
    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Decorator::sync(self)
    }
    fn mark(&self) -> Result<Mark> {
        self.inner().mark()
    }
    fn elapsed(&self, from: Mark, to: Mark) -> BoxFuture<'_, Result<Option<f64>>> {
        self.inner().elapsed(from, to)
    }
    fn memory(&self) -> MemoryStats {
        self.inner().memory()
    }
}
