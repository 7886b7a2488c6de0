//! The GPU backend: hand-written WGSL through wgpu.
//!
//! `adapter` finds and opens a GPU, `memory` pools buffers, `shader` expands sources, `pipeline` compiles them, `stream` records dispatches,
//! `timing` reads the device's clock, and `kernels/<family>` turns an operation into dispatches.

mod adapter;
pub mod kernels;
mod memory;
mod pipeline;
pub mod shader;
mod stream;
mod timing;

pub use adapter::{AdapterInfo, adapters};
pub use pipeline::Kernel;

use super::{Backend, BoxFuture, Buffer, Capabilities, KernelTable, Mark, MemoryStats, Operand, check_run};
use crate::cases::{self, run_case};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::Op;
use crate::shape::Spec;
use memory::{GpuBuffer, GpuMemory, Pool, next_id, size_class};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use stream::Stream;
use timing::Timer;

/// How to open a GPU.
#[derive(Debug, Clone)]
pub struct GpuOptions {
    /// Number of the adapter in [`adapters`]; `None` takes the best.
    pub index: Option<usize>,
    /// Asks for WebGPU's default limits and no optional feature, instead of all that the adapter has.
    pub default_limits: bool,
    /// Kernels other than the device's own choice, as [`KernelTable::with`] reads them, later ones before earlier ones.
    pub kernels: Vec<String>,
    /// What the kernels are compiled from.
    pub sources: shader::Sources,
}

impl Default for GpuOptions {
    /// The best adapter, with all that it has unless `MAPPA_LIMITS=default`.
    fn default() -> Self {
        let default_limits = std::env::var("MAPPA_LIMITS").is_ok_and(|v| v == "default");
        GpuOptions { index: None, default_limits, kernels: Vec::new(), sources: shader::Sources::default() }
    }
}

/// A GPU as a device.
pub struct Gpu {
    capabilities: Capabilities,
    info: AdapterInfo,
    device: wgpu::Device,
    queue: wgpu::Queue,
    limits: kernels::Limits,
    stream: Mutex<Stream>,
    pool: Arc<Mutex<Pool>>,
    /// `None` where the device has no clock to read.
    timer: Option<Mutex<Timer>>,
    /// The first error that the device reported, with the operation recorded last. It comes back from every later call.
    fault: Arc<Mutex<Fault>>,
}

#[derive(Default)]
struct Fault {
    message: Option<String>,
    /// File and entry point of the kernel recorded last.
    recording: (&'static str, &'static str),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gpu {
    /// Opens the best adapter, or number `index` of [`adapters`].
    ///
    /// # Errors
    /// [`Error::NoDevice`] when there is none, or it cannot be opened.
    pub async fn open(index: Option<usize>) -> Result<Gpu> {
        Gpu::open_with(GpuOptions { index, ..Default::default() }).await
    }

    /// Opens an adapter as [`Gpu::open`] does, with other limits or other shader sources.
    ///
    /// # Errors
    /// As [`Gpu::open`].
    pub async fn open_with(options: GpuOptions) -> Result<Gpu> {
        let (info, adapter) = adapter::find(options.index).await?;
        let own = adapter::kernels(&info, &adapter, options.default_limits);
        let kernels = options.kernels.iter().try_fold(own, |table, text| table.with(text))?;
        let (device, queue) = adapter::open(&info, &adapter, options.default_limits, &kernels).await?;
        let fault: Arc<Mutex<Fault>> = Arc::default();
        let on_error = Arc::clone(&fault);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let mut fault = lock(&on_error);
            let (file, entry) = fault.recording;
            let message = format!("the GPU reported an error at or before the kernel {file}/{entry}: {error}");
            fault.message.get_or_insert(message);
        }));
        let on_lost = Arc::clone(&fault);
        device.set_device_lost_callback(move |reason, message| {
            // Dropping the device on purpose reports a loss too.
            if reason != wgpu::DeviceLostReason::Destroyed {
                lock(&on_lost)
                    .message
                    .get_or_insert(format!("the GPU was lost ({message}); a driver update, a reset or a too long computation can do that"));
            }
        });
        let limits = device.limits();
        let plan_limits = kernels::Limits {
            workgroups: limits.max_compute_workgroups_per_dimension,
            binding_bytes: limits.max_storage_buffer_binding_size,
            alignment: limits.min_storage_buffer_offset_alignment.max(16) as usize,
            kernels,
        };
        let capabilities = Capabilities {
            kind: "gpu",
            name: format!("{} ({}{})", info.name, info.api, if info.software { ", software" } else { "" }),
            driver: info.driver.clone(),
            f64: false,
            f16: device.features().contains(wgpu::Features::SHADER_F16),
            kernels,
            alignment: limits.min_storage_buffer_offset_alignment.max(16) as usize,
            max_buffer_bytes: limits.max_buffer_size.min(limits.max_storage_buffer_binding_size) as usize,
        };
        let stream = Mutex::new(Stream::new(device.clone(), queue.clone(), options.sources));
        let timer = Timer::new(&device, &queue).map(Mutex::new);
        Ok(Gpu { capabilities, info, device, queue, limits: plan_limits, stream, pool: Arc::default(), timer, fault })
    }

    /// Opens an adapter and lets it prove itself on [`cases::quick`], as `mappa verify --quick` does. The verdict is remembered for this adapter,
    /// driver, binary and choice of kernels.
    ///
    /// # Errors
    /// [`Error::Mismatch`] when a kernel computes wrong numbers there.
    pub async fn open_checked(options: GpuOptions) -> Result<Gpu> {
        let gpu = Gpu::open_with(options).await?;
        let stamp = self_test_stamp(&gpu.info, &gpu.capabilities.kernels);
        if stamp.as_ref().is_some_and(|path| path.exists()) {
            return Ok(gpu);
        }
        let reference = super::cpu::Cpu::reference()?;
        for case in cases::quick() {
            if let Some(failure) = run_case(&case, &reference, &gpu)?.failure {
                return Err(Error::Mismatch(format!(
                    "{} computes wrong numbers: {case}: {failure}; update its driver, see `mappa verify`",
                    gpu.info.name
                )));
            }
        }
        if let Some(path) = stamp {
            // A cache only: without it the test runs again next time.
            if let Some(dir) = path.parent() {
                let _ = std::fs::create_dir_all(dir);
            }
            let _ = std::fs::write(path, "passed\n");
        }
        Ok(gpu)
    }

    /// What the adapter says of itself.
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// Whether tensors can have this type here.
    fn holds(&self, dtype: DType) -> bool {
        match dtype {
            DType::F64 => false,
            DType::F16 => self.capabilities.f16,
            DType::F32 | DType::U32 | DType::I32 => true,
        }
    }

    fn check(&self) -> Result<()> {
        match &lock(&self.fault).message {
            Some(message) => Err(Error::Gpu(message.clone())),
            None => Ok(()),
        }
    }

    fn create(&self, class: u64) -> Option<wgpu::Buffer> {
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("tensor"),
            size: class,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        pollster::block_on(scope.pop()).is_none().then_some(buffer)
    }

    /// A buffer that the host can read.
    fn staging(&self, size: u64) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("read"),
            size,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        })
    }

    /// The bytes of a staging buffer once the submitted work is done.
    async fn fetch(&self, staging: wgpu::Buffer) -> Result<Vec<u8>> {
        let (sender, receiver) = futures_intrusive::channel::shared::oneshot_channel();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            let _ = sender.send(result);
        });
        if let Err(error) = self.device.poll(wgpu::PollType::wait_indefinitely()) {
            lock(&self.fault).message.get_or_insert(format!("waiting for the GPU failed: {error}"));
        }
        let mapped = receiver.receive().await;
        self.check()?;
        match mapped {
            Some(Ok(())) => {}
            other => return Err(Error::Gpu(format!("reading from the GPU failed: {other:?}"))),
        }
        let view = staging.get_mapped_range(..).map_err(|e| Error::Gpu(format!("reading from the GPU failed: {e}")))?;
        Ok(view.to_vec())
    }

    /// Shader specialisations and their bindings (written or not), for tests: what the operation would dispatch.
    pub fn plan(&self, op: &Op, inputs: &[Operand], outputs: &[Operand]) -> Result<Vec<kernels::Dispatch>> {
        let scratch = |len_bytes: usize| self.alloc(len_bytes);
        kernels::lower(op, inputs, outputs, &self.limits, &scratch)
    }
}

/// Where a passed self-test is remembered: named by adapter, driver, binary and kernels. `None` where there is no cache folder.
fn self_test_stamp(info: &AdapterInfo, kernels: &KernelTable) -> Option<std::path::PathBuf> {
    let cache = super::cache_folder()?;
    let binary = std::env::current_exe().and_then(std::fs::metadata).ok()?;
    let built = binary.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos();
    let text = format!("{}|{}|{}|{}|{built}|{kernels}", info.name, info.driver, env!("CARGO_PKG_VERSION"), binary.len());
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ b as u64).wrapping_mul(0x0000_0100_0000_01b3));
    Some(cache.join(format!("self-test-{hash:016x}")))
}

impl Backend for Gpu {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn alloc(&self, len_bytes: usize) -> Result<Buffer> {
        self.check()?;
        let class = size_class(len_bytes);
        // A class may round past the limit: then the exact size is used.
        let class = if class as usize > self.capabilities.max_buffer_bytes { (len_bytes as u64).next_multiple_of(16) } else { class };
        if class as usize > self.capabilities.max_buffer_bytes {
            return Err(Error::Device(format!(
                "a tensor of {len_bytes} bytes exceeds the largest buffer of {} ({} bytes); use a smaller --batch-size",
                self.info.name, self.capabilities.max_buffer_bytes
            )));
        }
        let mut pool = lock(&self.pool);
        let buffer = match pool.free.get_mut(&class).and_then(Vec::pop) {
            Some(buffer) => {
                pool.stats.pooled_bytes -= class;
                buffer
            }
            None => {
                let raw = match self.create(class) {
                    Some(raw) => Some(raw),
                    None => {
                        // Give back what lies unused, then try once more.
                        pool.trim();
                        lock(&self.stream).forget_bind_groups();
                        let _ = self.device.poll(wgpu::PollType::wait_indefinitely());
                        self.create(class)
                    }
                };
                let Some(raw) = raw else {
                    return Err(Error::Device(format!(
                        "{} is out of memory: {} bytes in use, {len_bytes} more asked for; use a smaller --batch-size",
                        self.info.name, pool.stats.live_bytes
                    )));
                };
                Arc::new(GpuBuffer { raw, id: next_id(), last_use: AtomicU64::new(0) })
            }
        };
        pool.stats.live_bytes += class;
        pool.stats.peak_bytes = pool.stats.peak_bytes.max(pool.stats.live_bytes);
        Ok(Buffer::new(GpuMemory { buffer, class, pool: Arc::clone(&self.pool) }))
    }

    fn write(&self, buffer: &Buffer, offset: usize, bytes: &[u8]) -> Result<()> {
        self.check()?;
        let memory: &GpuMemory = buffer.memory("gpu")?;
        if offset + bytes.len() > memory.class as usize || !offset.is_multiple_of(4) {
            return Err(Error::Shape(format!(
                "write of {} bytes at {offset} does not fit a buffer of {} bytes",
                bytes.len(),
                memory.class
            )));
        }
        let mut stream = lock(&self.stream);
        // Queue writes run before recorded work, so that work which uses the buffer must be submitted first.
        if memory.buffer.last_use.load(Ordering::Relaxed) == stream.epoch {
            stream.flush();
        }
        // Queue writes are of whole words; a buffer's size is a multiple of them.
        let (whole, rest) = bytes.split_at(bytes.len() & !3);
        self.queue.write_buffer(&memory.buffer.raw, offset as u64, whole);
        if !rest.is_empty() {
            let mut word = [0; 4];
            word[..rest.len()].copy_from_slice(rest);
            self.queue.write_buffer(&memory.buffer.raw, (offset + whole.len()) as u64, &word);
        }
        Ok(())
    }

    fn read(&self, buffer: &Buffer, range: std::ops::Range<usize>) -> BoxFuture<'_, Result<Vec<u8>>> {
        let buffer = buffer.clone();
        Box::pin(async move {
            self.check()?;
            let memory: &GpuMemory = buffer.memory("gpu")?;
            if range.is_empty() {
                return Ok(Vec::new());
            }
            if range.end > memory.class as usize {
                return Err(Error::Shape(format!("read of bytes {range:?} does not fit a buffer of {} bytes", memory.class)));
            }
            // Copies are of whole words.
            let (start, end) = (range.start & !3, range.end.next_multiple_of(4));
            let staging = self.staging((end - start) as u64);
            {
                let mut stream = lock(&self.stream);
                stream.encoder().copy_buffer_to_buffer(&memory.buffer.raw, start as u64, &staging, 0, (end - start) as u64);
                stream.flush();
            }
            let mut bytes = self.fetch(staging).await?;
            bytes.truncate(range.end - start);
            bytes.drain(..range.start - start);
            Ok(bytes)
        })
    }

    fn run(&self, op: &Op, inputs: &[Operand], outputs: &[Operand]) -> Result<()> {
        self.check()?;
        check_run(op, inputs, outputs)?;
        let specs = |operands: &[Operand]| operands.iter().map(|o| o.spec).collect::<Vec<Spec>>();
        let (in_specs, out_specs) = (specs(inputs), specs(outputs));
        if let Some(spec) = in_specs.iter().chain(&out_specs).find(|s| !self.holds(s.dtype)) {
            let backend = format!("gpu ({})", self.info.name);
            return Err(Error::Unsupported { backend, op: format!("{op:?} on {}", spec.dtype) });
        }
        let scratch = |len_bytes: usize| self.alloc(len_bytes);
        let plan = kernels::lower(op, inputs, outputs, &self.limits, &scratch)?;
        if plan.is_empty() {
            return Ok(());
        }
        if let Some(last) = plan.last() {
            lock(&self.fault).recording = (last.kernel.file, last.kernel.entry);
        }
        let mut stream = lock(&self.stream);
        for dispatch in &plan {
            let bindings = dispatch.bindings.iter().map(bind).collect::<Result<Vec<_>>>()?;
            stream.dispatch(&dispatch.kernel, &bindings, &dispatch.params, dispatch.groups)?;
        }
        stream.spend(op.flops(&in_specs, &out_specs) + op.bytes(&in_specs, &out_specs));
        Ok(())
    }

    fn supports(&self, _: &Op, inputs: &[Spec]) -> bool {
        inputs.iter().all(|s| self.holds(s.dtype))
    }

    fn flush(&self) -> Result<()> {
        lock(&self.stream).flush();
        self.check()
    }

    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.flush()?;
            if let Err(error) = self.device.poll(wgpu::PollType::wait_indefinitely()) {
                lock(&self.fault).message.get_or_insert(format!("waiting for the GPU failed: {error}"));
            }
            self.check()
        })
    }

    fn mark(&self) -> Result<Mark> {
        self.check()?;
        Ok(self.timer.as_ref().map_or(Mark(0), |timer| lock(timer).mark(&mut lock(&self.stream))))
    }

    fn elapsed(&self, from: Mark, to: Mark) -> BoxFuture<'_, Result<Option<f64>>> {
        Box::pin(async move {
            let Some(timer) = &self.timer else { return Ok(None) };
            let staging = self.staging(16);
            {
                let mut stream = lock(&self.stream);
                lock(timer).resolve(&mut stream, [from, to], &staging)?;
                stream.flush();
            }
            let bytes = self.fetch(staging).await?;
            Ok(Some(lock(timer).seconds(&bytes)))
        })
    }

    fn memory(&self) -> MemoryStats {
        lock(&self.pool).stats
    }
}

/// The binding of an operand. Ranges are rounded up to whole words, at least one: empty bindings are refused.
fn bind(b: &kernels::Bound) -> Result<stream::Binding<'_>> {
    let memory: &GpuMemory = b.operand.buffer.memory("gpu")?;
    let range = b.operand.range();
    Ok(stream::Binding {
        buffer: &memory.buffer,
        offset: range.start as u64,
        size: (range.len() as u64).next_multiple_of(4).max(4),
        write: b.write,
    })
}
