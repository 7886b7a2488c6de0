//! Recording: one encoder and one compute pass kept open, a uniform ring, cached bind groups, submits bounded in count and in time.

use super::memory::GpuBuffer;
use super::pipeline::{Kernel, Pipelines};
use super::shader::Sources;
use crate::error::Result;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes of the uniform ring. A slot is never reused within one submit, so this bounds the dispatches of a submit.
const RING_BYTES: u64 = 65_536;
/// Floating-point operations and bytes of one submit: about a second on a software adapter. Consumer drivers kill work after two.
const SUBMIT_COST: u64 = 4_000_000_000;
/// Bind groups kept; a training loop uses one for each dispatch of a step.
const BIND_GROUPS: usize = 8192;

/// A range of a buffer as a binding.
#[derive(Clone, Copy)]
pub(super) struct Binding<'a> {
    pub buffer: &'a Arc<GpuBuffer>,
    /// Bytes.
    pub offset: u64,
    /// Bytes, a multiple of 4, not 0.
    pub size: u64,
    pub write: bool,
}

pub(super) struct Stream {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipelines: Pipelines,
    bind_groups: HashMap<(u64, Vec<(u64, u64, u64)>), wgpu::BindGroup>,
    ring: wgpu::Buffer,
    ring_data: Vec<u8>,
    uniform_alignment: usize,
    encoder: Option<wgpu::CommandEncoder>,
    pass: Option<wgpu::ComputePass<'static>>,
    cost: u64,
    /// Number of the submit that recorded work will be part of.
    pub epoch: u64,
}

impl Stream {
    pub fn new(device: wgpu::Device, queue: wgpu::Queue, sources: Sources) -> Self {
        let ring = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("uniform ring"),
            size: RING_BYTES,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let uniform_alignment = device.limits().min_uniform_buffer_offset_alignment as usize;
        Stream {
            device,
            queue,
            pipelines: Pipelines::new(sources),
            bind_groups: HashMap::new(),
            ring,
            ring_data: Vec::new(),
            uniform_alignment,
            encoder: None,
            pass: None,
            cost: 0,
            epoch: 1,
        }
    }

    /// Records one dispatch of `groups` workgroups with `params` as its uniform.
    pub fn dispatch(&mut self, kernel: &Kernel, bindings: &[Binding], params: &[u8], groups: [u32; 3]) -> Result<()> {
        let slot = self.ring_data.len().next_multiple_of(self.uniform_alignment);
        if slot + params.len() > RING_BYTES as usize {
            self.flush();
        }
        let slot = self.ring_data.len().next_multiple_of(self.uniform_alignment);
        let writes: Vec<bool> = bindings.iter().map(|b| b.write).collect();
        let pipeline = self.pipelines.get(&self.device, kernel, &writes)?;
        let key = (pipeline.id, bindings.iter().map(|b| (b.buffer.id, b.offset, b.size)).collect::<Vec<_>>());
        if !self.bind_groups.contains_key(&key) {
            if self.bind_groups.len() >= BIND_GROUPS {
                self.bind_groups.clear();
            }
            let mut entries: Vec<wgpu::BindGroupEntry> = bindings
                .iter()
                .enumerate()
                .map(|(i, b)| wgpu::BindGroupEntry {
                    binding: i as u32,
                    resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &b.buffer.raw,
                        offset: b.offset,
                        size: wgpu::BufferSize::new(b.size),
                    }),
                })
                .collect();
            entries.push(wgpu::BindGroupEntry {
                binding: bindings.len() as u32,
                resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                    buffer: &self.ring,
                    offset: 0,
                    size: wgpu::BufferSize::new(params.len() as u64),
                }),
            });
            let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(kernel.entry),
                layout: &pipeline.layout,
                entries: &entries,
            });
            self.bind_groups.insert(key.clone(), group);
        }
        let pass = match &mut self.pass {
            Some(pass) => pass,
            None => {
                let encoder = self
                    .encoder
                    .get_or_insert_with(|| self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("mappa") }));
                let pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("mappa"), timestamp_writes: None });
                self.pass.insert(pass.forget_lifetime())
            }
        };
        pass.set_pipeline(&pipeline.raw);
        pass.set_bind_group(0, &self.bind_groups[&key], &[slot as u32]);
        pass.dispatch_workgroups(groups[0], groups[1], groups[2]);
        self.ring_data.resize(slot, 0);
        self.ring_data.extend_from_slice(params);
        for binding in bindings {
            binding.buffer.last_use.store(self.epoch, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Counts the work of an operation, and submits when enough has been recorded.
    pub fn spend(&mut self, cost: u64) {
        self.cost += cost;
        if self.cost > SUBMIT_COST {
            self.flush();
        }
    }

    /// The encoder outside any pass, for copies.
    pub fn encoder(&mut self) -> &mut wgpu::CommandEncoder {
        self.pass = None;
        self.encoder.get_or_insert_with(|| self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("mappa") }))
    }

    /// Submits what is recorded.
    pub fn flush(&mut self) {
        self.pass = None;
        if let Some(encoder) = self.encoder.take() {
            if !self.ring_data.is_empty() {
                self.queue.write_buffer(&self.ring, 0, &self.ring_data);
            }
            self.queue.submit([encoder.finish()]);
        }
        self.ring_data.clear();
        self.cost = 0;
        self.epoch += 1;
    }

    /// Forgets cached bind groups, which hold on to their buffers.
    pub fn forget_bind_groups(&mut self) {
        self.bind_groups.clear();
    }
}
