//! GPU memory: whole buffers from a size-class pool.

use crate::backend::{Memory, MemoryStats};
use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A wgpu buffer with an identity for the bind-group cache.
pub(super) struct GpuBuffer {
    pub raw: wgpu::Buffer,
    pub id: u64,
    /// The submit (see `Stream::epoch`) whose recorded work last used it.
    pub last_use: AtomicU64,
}

/// Free buffers by size, and what is in use.
#[derive(Default)]
pub(super) struct Pool {
    pub free: HashMap<u64, Vec<Arc<GpuBuffer>>>,
    pub stats: MemoryStats,
}

impl Pool {
    /// Forgets all free buffers, so that the driver can have their memory.
    pub fn trim(&mut self) {
        self.free.clear();
        self.stats.pooled_bytes = 0;
    }
}

/// The size class of a request: powers of two in quarters, so that at most a quarter is wasted.
pub(super) fn size_class(len_bytes: usize) -> u64 {
    let len = (len_bytes as u64).max(256);
    let step = (len.next_power_of_two() / 8).max(64);
    len.div_ceil(step) * step
}

pub(super) struct GpuMemory {
    pub buffer: Arc<GpuBuffer>,
    pub class: u64,
    pub pool: Arc<Mutex<Pool>>,
}

impl Memory for GpuMemory {
    fn len_bytes(&self) -> usize {
        self.class as usize
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for GpuMemory {
    fn drop(&mut self) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.stats.live_bytes -= self.class;
        pool.stats.pooled_bytes += self.class;
        // Later dispatches may overwrite it at once: one queue, in order.
        pool.free.entry(self.class).or_default().push(Arc::clone(&self.buffer));
    }
}

pub(super) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
