//! The CPU backend: for each family a *reference* (plain loops, f64 accumulation), and a *fast* path where speed matters.
//!
//! The reference is the definition of every operation and the judge of every GPU kernel. The fast path (f32 only) is itself tested against
//! the reference; its results do not depend on the number of threads.

mod conv;
mod custom;
mod elementwise;
mod fast;
mod layout;
mod matmul;
mod norm;
mod optimizer;
mod pool;
mod random;
mod recurrent;
mod reduce;
mod scan;
mod softmax;

use super::{Backend, BoxFuture, Buffer, Capabilities, KernelTable, Mark, Memory, MemoryStats, Operand, check_run};
use crate::dtype::{DType, Real};
use crate::error::{Error, Result};
use crate::op::Op;
use crate::shape::Spec;
use half::f16;
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

/// Below this many floating-point operations a call stays on the calling thread, since waking the pool's threads takes some 80 us once they sleep: in
/// products, which do a hundred of them in a nanosecond, and elsewhere.
const PARALLEL_FLOPS: [u64; 2] = [10_000_000, 200_000];

/// The CPU as a device.
pub struct Cpu {
    capabilities: Capabilities,
    fast: bool,
    threads: rayon::ThreadPool,
    pool: Arc<Mutex<Pool>>,
    started: Instant,
}

/// Freed vectors by length, so that the steady state of a training loop allocates nothing.
#[derive(Default)]
struct Pool {
    free: HashMap<usize, Vec<Vec<u64>>>,
    stats: MemoryStats,
}

struct CpuMemory {
    words: RwLock<Vec<u64>>,
    len: usize,
    pool: Arc<Mutex<Pool>>,
}

impl Memory for CpuMemory {
    fn len_bytes(&self) -> usize {
        self.len * 8
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for CpuMemory {
    fn drop(&mut self) {
        let words = std::mem::take(self.words.get_mut().unwrap_or_else(PoisonError::into_inner));
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.stats.live_bytes -= self.len as u64 * 8;
        pool.stats.pooled_bytes += self.len as u64 * 8;
        pool.free.entry(self.len).or_default().push(words);
    }
}

/// The operands of one call as bytes. `outs` holds the results, then the operands updated in place (whose `ins` are empty).
pub(crate) struct Args<'a> {
    pub ins: Vec<&'a [u8]>,
    pub outs: Vec<&'a mut [u8]>,
    pub specs: &'a [Spec],
    pub out_specs: &'a [Spec],
}

/// An input as a slice of `T`. The slots of operands that are updated in place are empty, and aligned to nothing.
fn typed<T: bytemuck::Pod>(bytes: &[u8]) -> &[T] {
    if bytes.is_empty() { &[] } else { bytemuck::cast_slice(bytes) }
}

/// Splits off the typed first `N` outputs.
fn outputs<'b, T: bytemuck::Pod, const N: usize>(outs: &'b mut [&mut [u8]]) -> [&'b mut [T]; N] {
    let mut typed = outs.iter_mut().map(|bytes| bytemuck::cast_slice_mut::<u8, T>(bytes));
    std::array::from_fn(|_| typed.next().unwrap_or_default())
}

impl Cpu {
    /// The fast CPU device on `threads` threads (0: one for each core).
    ///
    /// # Errors
    /// [`Error::Device`] when threads cannot be started.
    pub fn new(threads: usize) -> Result<Self> {
        Self::with_kernels(threads, KernelTable::CPU)
    }

    /// As [`Cpu::new`], with other kernels than its own choice.
    ///
    /// # Errors
    /// As [`Cpu::new`].
    pub fn with_kernels(threads: usize, kernels: KernelTable) -> Result<Self> {
        Self::build(threads, true, kernels)
    }

    /// The reference alone: single-threaded plain loops that judge other devices.
    ///
    /// # Errors
    /// [`Error::Device`] when the thread cannot be started.
    pub fn reference() -> Result<Self> {
        Self::build(1, false, KernelTable::CPU)
    }

    fn build(threads: usize, fast: bool, kernels: KernelTable) -> Result<Self> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("mappa-cpu-{i}"))
            .build()
            .map_err(|e| Error::Device(format!("cannot start the CPU backend's threads: {e}")))?;
        let name = format!("{} ({} threads)", std::env::consts::ARCH, threads.current_num_threads());
        let capabilities = Capabilities {
            kind: "cpu",
            name,
            driver: String::new(),
            f64: true,
            f16: true,
            kernels,
            alignment: 8,
            max_buffer_bytes: isize::MAX as usize,
        };
        Ok(Cpu { capabilities, fast, threads, pool: Arc::default(), started: Instant::now() })
    }

    /// An operation on f16 operands: computed in f32 on widened copies, so that each result is rounded to f16 once. `written` are the specs of `outs`.
    fn widened(
        &self,
        op: &Op,
        ins: Vec<&[u8]>,
        mut outs: Vec<&mut [u8]>,
        written: &[Spec],
        mut specs: Vec<Spec>,
        mut out_specs: Vec<Spec>,
    ) -> Result<()> {
        // By bytes: the slot of an operand that is updated in place is empty, and aligned to nothing.
        let widen = |bytes: &[u8]| -> Vec<f32> { bytes.as_chunks().0.iter().map(|&b| f16::from_ne_bytes(b).to_f32()).collect() };
        let half = |spec: &Spec| spec.dtype == DType::F16;
        let wide_ins: Vec<Option<Vec<f32>>> = specs.iter().zip(&ins).map(|(spec, bytes)| half(spec).then(|| widen(bytes))).collect();
        let mut wide_outs: Vec<Option<Vec<f32>>> =
            written.iter().zip(&outs).map(|(spec, bytes)| half(spec).then(|| widen(bytes))).collect();
        let ins =
            ins.into_iter().zip(&wide_ins).map(|(bytes, wide)| wide.as_ref().map_or(bytes, |wide| bytemuck::cast_slice(wide))).collect();
        for spec in specs.iter_mut().chain(&mut out_specs).filter(|spec| half(spec)) {
            spec.dtype = DType::F32;
        }
        let targets = outs.iter_mut().zip(&mut wide_outs);
        let f32_outs = targets.map(|(bytes, wide)| wide.as_mut().map_or(&mut **bytes, |wide| bytemuck::cast_slice_mut(wide))).collect();
        self.dispatch::<f32>(op, &mut Args { ins, outs: f32_outs, specs: &specs, out_specs: &out_specs })?;
        for (bytes, wide) in outs.iter_mut().zip(wide_outs) {
            if let Some(wide) = wide {
                bytes.as_chunks_mut().0.iter_mut().zip(wide).for_each(|(to, v)| *to = f16::from_f32(v).to_ne_bytes());
            }
        }
        Ok(())
    }

    fn dispatch<T: Real>(&self, op: &Op, args: &mut Args) -> Result<()> {
        // The fast paths are written for f32 alone; f64 exists for gradient checks.
        let fast = self.fast && T::DTYPE == DType::F32;
        match op {
            Op::Elementwise(op) => elementwise::run::<T>(op, args, fast),
            Op::Matmul(op) => matmul::run::<T>(op, args, fast),
            Op::Conv(op) => conv::run::<T>(op, args, fast.then_some(&self.capabilities.kernels)),
            Op::Pool(op) => pool::run::<T>(op, args, fast),
            Op::Recurrent(op) if fast => recurrent::run_fast(op, args),
            Op::Recurrent(op) => recurrent::run::<T>(op, args),
            Op::Reduce(op) => reduce::run::<T>(op, args, fast),
            Op::Scan(op) => scan::run::<T>(op, args),
            Op::Softmax(op) => softmax::run::<T>(op, args, fast),
            Op::Layout(op) => layout::run::<T>(op, args),
            Op::Random(op) => random::run::<T>(op, args, fast),
            Op::Norm(op) => norm::run::<T>(op, args, fast),
            Op::Optimizer(op) => optimizer::run::<T>(op, args, fast),
            Op::Custom(op) => custom::run(op, args),
        }
    }
}

enum Guard<'a> {
    Read(RwLockReadGuard<'a, Vec<u64>>),
    Write(RwLockWriteGuard<'a, Vec<u64>>),
}

impl Backend for Cpu {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn alloc(&self, len_bytes: usize) -> Result<Buffer> {
        let len = len_bytes.div_ceil(8).max(1);
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let words = match pool.free.get_mut(&len).and_then(Vec::pop) {
            Some(words) => {
                pool.stats.pooled_bytes -= len as u64 * 8;
                words
            }
            None => {
                let mut words = Vec::new();
                words
                    .try_reserve_exact(len)
                    .map_err(|_| Error::Device(format!("out of memory: cannot allocate {len_bytes} bytes; use a smaller --batch-size")))?;
                words.resize(len, 0);
                words
            }
        };
        pool.stats.live_bytes += len as u64 * 8;
        pool.stats.peak_bytes = pool.stats.peak_bytes.max(pool.stats.live_bytes);
        Ok(Buffer::new(CpuMemory { words: RwLock::new(words), len, pool: Arc::clone(&self.pool) }))
    }

    fn write(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> Result<()> {
        let memory: &CpuMemory = buffer.memory("cpu")?;
        let mut words = memory.words.write().unwrap_or_else(PoisonError::into_inner);
        let all: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        let end = offset + bytes.len();
        let target = all
            .get_mut(offset..end)
            .ok_or_else(|| Error::Shape(format!("write of {} bytes at {offset} ends behind its buffer", bytes.len())))?;
        target.copy_from_slice(bytes);
        Ok(())
    }

    fn read(&self, buffer: &Buffer, range: std::ops::Range<usize>) -> BoxFuture<'_, Result<Vec<u8>>> {
        let result = buffer.memory::<CpuMemory>("cpu").and_then(|memory| {
            let words = memory.words.read().unwrap_or_else(PoisonError::into_inner);
            let all: &[u8] = bytemuck::cast_slice(&words);
            all.get(range.clone())
                .map(<[u8]>::to_vec)
                .ok_or_else(|| Error::Shape(format!("read of bytes {range:?} ends behind its buffer")))
        });
        Box::pin(std::future::ready(result))
    }

    fn run(&self, op: &Op, inputs: &[Operand], outputs: &[Operand]) -> Result<()> {
        check_run(op, inputs, outputs)?;
        let in_place = op.in_place();
        let written: Vec<&Operand> = outputs.iter().chain(in_place.iter().map(|&i| &inputs[i])).collect();
        // Each distinct buffer is locked once, so that an operand given twice cannot deadlock against a waiting writer.
        let mut buffers: Vec<(&Buffer, bool)> = Vec::new();
        for (operand, write) in written.iter().map(|o| (*o, true)).chain(inputs.iter().map(|o| (o, false))) {
            if !buffers.iter().any(|(b, _)| b.same(&operand.buffer)) {
                buffers.push((&operand.buffer, write));
            }
        }
        let mut guards = Vec::with_capacity(buffers.len());
        for (buffer, write) in &buffers {
            let words = &buffer.memory::<CpuMemory>("cpu")?.words;
            guards.push(if *write {
                Guard::Write(words.write().unwrap_or_else(PoisonError::into_inner))
            } else {
                Guard::Read(words.read().unwrap_or_else(PoisonError::into_inner))
            });
        }
        let mut ins: Vec<&[u8]> = vec![&[]; inputs.len()];
        let mut outs: Vec<&mut [u8]> = written.iter().map(|_| &mut [][..]).collect();
        for ((buffer, _), guard) in buffers.iter().zip(&mut guards) {
            match guard {
                Guard::Read(words) => {
                    let all: &[u8] = bytemuck::cast_slice(&words[..]);
                    for (slot, operand) in ins.iter_mut().zip(inputs) {
                        if operand.buffer.same(buffer) {
                            *slot = &all[operand.range()];
                        }
                    }
                }
                Guard::Write(words) => {
                    let mut mine: Vec<(usize, std::ops::Range<usize>)> =
                        written.iter().enumerate().filter(|(_, o)| o.buffer.same(buffer)).map(|(slot, o)| (slot, o.range())).collect();
                    mine.sort_by_key(|(_, range)| range.start);
                    // `check_run` found the ranges disjoint, so splitting from the left reaches each of them.
                    let (mut rest, mut at): (&mut [u8], usize) = (bytemuck::cast_slice_mut(&mut words[..]), 0);
                    for (slot, range) in mine {
                        let (_, tail) = rest.split_at_mut(range.start.max(at) - at);
                        let (own, tail) = tail.split_at_mut(range.len());
                        outs[slot] = own;
                        at = range.start.max(at) + range.len();
                        rest = tail;
                    }
                }
            }
        }
        let specs: Vec<Spec> = inputs.iter().map(|o| o.spec).collect();
        let out_specs: Vec<Spec> = outputs.iter().map(|o| o.spec).collect();
        if specs.iter().chain(&out_specs).any(|s| s.dtype == DType::F16) {
            return self.widened(op, ins, outs, &written.iter().map(|o| o.spec).collect::<Vec<_>>(), specs, out_specs);
        }
        let mut args = Args { ins, outs, specs: &specs, out_specs: &out_specs };
        let float = specs.iter().chain(&out_specs).map(|s| s.dtype).find(|d| d.is_float());
        let mut call = || match float {
            Some(DType::F64) => self.dispatch::<f64>(op, &mut args),
            _ => self.dispatch::<f32>(op, &mut args),
        };
        let products = matches!(op, Op::Matmul(_) | Op::Conv(_)) || matches!(op, Op::Recurrent(op) if op.is_layer());
        let worth = PARALLEL_FLOPS[!products as usize];
        // What only moves numbers takes as long as an operation on each.
        let work = op.flops(&specs, &out_specs).max(op.bytes(&specs, &out_specs) / 8);
        if self.fast && self.threads.current_num_threads() > 1 && work > worth { self.threads.install(call) } else { call() }
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
        Ok(Mark(self.started.elapsed().as_nanos() as u64))
    }

    fn elapsed(&self, from: Mark, to: Mark) -> BoxFuture<'_, Result<Option<f64>>> {
        Box::pin(std::future::ready(Ok(Some(to.0.saturating_sub(from.0) as f64 * 1e-9))))
    }

    fn memory(&self) -> MemoryStats {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).stats
    }
}

/// The threads of the backend's pool inside it, i.e. for calls large enough to be worth several; elsewhere 1. Outside, rayon would start a pool of its own.
fn threads() -> usize {
    if rayon::current_thread_index().is_some() { rayon::current_num_threads() } else { 1 }
}

/// Whether there are several threads to use.
fn in_parallel() -> bool {
    threads() > 1
}
