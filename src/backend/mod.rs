//! How a device computes an [`Op`]: the object-safe [`Backend`] trait, buffers and the checks that all backends share.

pub mod checked;
pub mod cpu;
pub(crate) mod decorator;
pub mod finite;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod null;
pub mod profile;
mod table;

pub use table::{Class, KernelTable, Product};

use crate::error::{Error, Result};
use crate::op::Op;
use crate::shape::Spec;
use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// `Send + Sync` natively; nothing on wasm, where GPU objects belong to one thread.
#[cfg(not(target_arch = "wasm32"))]
pub trait MaybeSendSync: Send + Sync {}
#[cfg(not(target_arch = "wasm32"))]
impl<T: Send + Sync + ?Sized> MaybeSendSync for T {}
/// `Send + Sync` natively; nothing on wasm, where GPU objects belong to one thread.
#[cfg(target_arch = "wasm32")]
pub trait MaybeSendSync {}
#[cfg(target_arch = "wasm32")]
impl<T: ?Sized> MaybeSendSync for T {}

/// A boxed future: browsers have no blocking wait.
#[cfg(not(target_arch = "wasm32"))]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A boxed future: browsers have no blocking wait.
#[cfg(target_arch = "wasm32")]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Device memory behind a [`Buffer`]; each backend has its own.
pub trait Memory: Any + MaybeSendSync {
    /// Usable bytes, at least as many as were asked for.
    fn len_bytes(&self) -> usize;
    /// For the owning backend to find its own type again.
    fn as_any(&self) -> &dyn Any;
}

/// A shared handle to device memory. The memory goes back to its backend's pool with the last handle.
#[derive(Clone)]
pub struct Buffer(Arc<dyn Memory>);

impl Buffer {
    /// Wraps a backend's memory.
    pub fn new(memory: impl Memory) -> Self {
        Buffer(Arc::new(memory))
    }

    /// The backend's own type.
    ///
    /// # Errors
    /// [`Error::Device`] when the buffer belongs to another kind of backend.
    pub fn memory<M: Memory>(&self, backend: &str) -> Result<&M> {
        self.0
            .as_any()
            .downcast_ref()
            .ok_or_else(|| Error::Device(format!("a buffer of another device was given to {backend}; move the tensor with Tensor::to")))
    }

    /// Usable bytes.
    pub fn len_bytes(&self) -> usize {
        self.0.len_bytes()
    }

    /// True when both handles name the same memory.
    pub fn same(&self, other: &Buffer) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.0), Arc::as_ptr(&other.0))
    }
}

/// Where backends remember what takes time to find out, by the XDG convention; `None` where there is no home.
pub fn cache_folder() -> Option<std::path::PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| std::path::Path::new(&home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(std::path::PathBuf::from).or_else(home)?;
    Some(cache.join("mappa"))
}

/// An operand or result of an operation: a contiguous range of a buffer, and what it means.
#[derive(Clone)]
pub struct Operand {
    /// The memory.
    pub buffer: Buffer,
    /// First element, in elements.
    pub offset: usize,
    /// Shape and type.
    pub spec: Spec,
}

impl Operand {
    /// The bytes of the buffer that the operand occupies.
    pub fn range(&self) -> std::ops::Range<usize> {
        let start = self.offset * self.spec.dtype.size();
        start..start + self.spec.len_bytes()
    }

    fn overlaps(&self, other: &Operand) -> bool {
        let (a, b) = (self.range(), other.range());
        self.buffer.same(&other.buffer) && a.start < b.end && b.start < a.end
    }
}

/// What a device is and can do.
#[derive(Debug, Clone)]
pub struct Capabilities {
    /// Kind: `cpu`, `gpu`, `checked`, `null`.
    pub kind: &'static str,
    /// The adapter's or processor's name, for people.
    pub name: String,
    /// The driver and its version; empty where there is none.
    pub driver: String,
    /// Whether `f64` tensors work.
    pub f64: bool,
    /// Whether `f16` tensors work.
    pub f16: bool,
    /// Which kernels compute.
    pub kernels: KernelTable,
    /// Views into a shared buffer start at multiples of this many bytes.
    pub alignment: usize,
    /// Largest buffer that one operand can be, in bytes.
    pub max_buffer_bytes: usize,
}

/// Bytes of device memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryStats {
    /// Held by live buffers.
    pub live_bytes: u64,
    /// The largest `live_bytes` so far.
    pub peak_bytes: u64,
    /// Free in the pool.
    pub pooled_bytes: u64,
}

/// A point in a device's stream of work, see [`Backend::mark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(pub u64);

/// A device that computes [`Op`]s. Object-safe; no method per operation.
pub trait Backend: MaybeSendSync + 'static {
    /// What the device is and can do.
    fn capabilities(&self) -> &Capabilities;
    /// Memory for `len_bytes` bytes, contents unspecified.
    fn alloc(&self, len_bytes: usize) -> Result<Buffer>;
    /// Copies `bytes` into the buffer at `offset` bytes, a multiple of 4. A last word that `bytes` fills in part may be filled up with zeros. Ordered after all work recorded so far.
    fn write(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> Result<()>;
    /// The bytes of a range of the buffer after all work recorded so far.
    fn read(&self, buffer: &Buffer, range: std::ops::Range<usize>) -> BoxFuture<'_, Result<Vec<u8>>>;
    /// Records one operation. Results have the shapes of [`Op::infer`]; every element of a result is written.
    fn run(&self, op: &Op, inputs: &[Operand], outputs: &[Operand]) -> Result<()>;
    /// Whether there is a kernel for this operation on operands of these types.
    fn supports(&self, op: &Op, inputs: &[Spec]) -> bool;
    /// Hands recorded work to the device.
    fn flush(&self) -> Result<()>;
    /// Resolves when all recorded work is done.
    fn sync(&self) -> BoxFuture<'_, Result<()>>;
    /// Marks this point of the stream of work.
    fn mark(&self) -> Result<Mark>;
    /// Device seconds between two marks; `None` where the device has no clock of its own.
    fn elapsed(&self, from: Mark, to: Mark) -> BoxFuture<'_, Result<Option<f64>>>;
    /// Memory in use.
    fn memory(&self) -> MemoryStats;
}

/// What every backend checks before it runs an operation: shapes against [`Op::infer`], ranges against buffers, and aliasing.
///
/// # Errors
/// [`Error::Shape`], [`Error::DType`], or [`Error::Alias`] when a written buffer is also read: GPUs track whole buffers.
pub fn check_run(op: &Op, inputs: &[Operand], outputs: &[Operand]) -> Result<()> {
    let specs: Vec<Spec> = inputs.iter().map(|o| o.spec).collect();
    let inferred = op.infer(&specs)?;
    if inferred.len() != outputs.len() || inferred.iter().zip(outputs).any(|(want, got)| *want != got.spec) {
        let got: Vec<String> = outputs.iter().map(|o| o.spec.to_string()).collect();
        let want: Vec<String> = inferred.iter().map(Spec::to_string).collect();
        return Err(Error::Shape(format!("{}: results are [{}], the caller gave [{}]", op.name(), want.join(", "), got.join(", "))));
    }
    let in_place = op.in_place();
    for operand in inputs.iter().chain(outputs) {
        if operand.range().end > operand.buffer.len_bytes() {
            return Err(Error::Shape(format!(
                "{}: operand {} ends behind its buffer of {} bytes",
                op.name(),
                operand.spec,
                operand.buffer.len_bytes()
            )));
        }
    }
    let written: Vec<&Operand> = outputs.iter().chain(in_place.iter().map(|&i| &inputs[i])).filter(|o| !o.spec.shape.is_empty()).collect();
    for (i, a) in written.iter().enumerate() {
        let read = inputs.iter().enumerate().filter(|(j, _)| !in_place.contains(j)).map(|(_, o)| o);
        for b in read {
            if a.buffer.same(&b.buffer) {
                return Err(Error::Alias(format!(
                    "{}: one buffer is both read ({}) and written ({}); copy the operand first",
                    op.name(),
                    b.spec,
                    a.spec
                )));
            }
        }
        if written[i + 1..].iter().any(|b| a.overlaps(b)) {
            return Err(Error::Alias(format!("{}: two results overlap in one buffer", op.name())));
        }
    }
    Ok(())
}
