//! Pipelines and bind-group layouts, made once and cached.

use super::shader::{Sources, Variant};
use crate::error::Result;
use std::collections::HashMap;
use std::sync::Arc;

/// One specialisation of an entry point.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// Source file in `shaders/`, without its ending; the name of an operation from outside the crate.
    pub file: &'static str,
    /// Entry point.
    pub entry: &'static str,
    /// Which files its source includes.
    pub variant: Variant,
    /// `//#spec` constants.
    pub specs: Vec<(&'static str, u32)>,
    /// `override` constants; flags are 0 or 1.
    pub constants: Vec<(&'static str, u32)>,
    /// The text of an operation from outside the crate, in the place of the file.
    pub text: Option<&'static str>,
}

impl Kernel {
    pub(super) fn new(file: &'static str, entry: &'static str) -> Self {
        Kernel { file, entry, variant: Variant::default(), specs: Vec::new(), constants: Vec::new(), text: None }
    }

    pub(super) fn constant(mut self, name: &'static str, value: u32) -> Self {
        self.constants.push((name, value));
        self
    }

    pub(super) fn spec(mut self, name: &'static str, value: u32) -> Self {
        self.specs.push((name, value));
        self
    }
}

pub(super) struct Pipeline {
    pub raw: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
    /// Distinguishes layouts in the bind-group cache.
    pub id: u64,
}

pub(super) struct Pipelines {
    sources: Sources,
    made: HashMap<(Kernel, Vec<bool>), Arc<Pipeline>>,
    modules: HashMap<(&'static str, Variant, Vec<(&'static str, u32)>, Option<&'static str>), wgpu::ShaderModule>,
}

impl Pipelines {
    pub fn new(sources: Sources) -> Self {
        Pipelines { sources, made: HashMap::new(), modules: HashMap::new() }
    }

    /// The pipeline of a kernel whose storage bindings are written (`true`) or only read, in order; the uniform follows them.
    pub fn get(&mut self, device: &wgpu::Device, kernel: &Kernel, writes: &[bool]) -> Result<Arc<Pipeline>> {
        // A lookup by reference would need a borrowed pair; the clone is two small vectors.
        let key = (kernel.clone(), writes.to_vec());
        if let Some(pipeline) = self.made.get(&key) {
            return Ok(Arc::clone(pipeline));
        }
        let module_key = (kernel.file, kernel.variant, kernel.specs.clone(), kernel.text);
        if !self.modules.contains_key(&module_key) {
            let source = match kernel.text {
                Some(text) => self.sources.expand_text(kernel.file, text, kernel.variant, &[])?,
                None => self.sources.expand(kernel.file, kernel.variant, &kernel.specs)?,
            };
            let descriptor = wgpu::ShaderModuleDescriptor { label: Some(kernel.file), source: wgpu::ShaderSource::Wgsl(source.into()) };
            let module = if kernel.text.is_none() && self.sources.are_built_in() {
                // SAFETY: the text is this crate's own, and every loop of it counts to a bound that is known before it begins, so that none is
                // infinite. All other checks stay. Why: wgpu's own guard gives each loop a second exit, and drivers then do not unroll it: sums
                // that should be registers become memory (lavapipe: a product takes 5 times as long).
                unsafe {
                    let checks = wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
                    device.create_shader_module_trusted(descriptor, checks)
                }
            } else {
                device.create_shader_module(descriptor)
            };
            self.modules.insert(module_key.clone(), module);
        }
        let storage = |(i, &write): (usize, &bool)| wgpu::BindGroupLayoutEntry {
            binding: i as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: wgpu::BufferBindingType::Storage { read_only: !write },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let mut entries: Vec<_> = writes.iter().enumerate().map(storage).collect();
        entries.push(wgpu::BindGroupLayoutEntry {
            binding: writes.len() as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty: wgpu::BufferBindingType::Uniform, has_dynamic_offset: true, min_binding_size: None },
            count: None,
        });
        let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(kernel.entry), entries: &entries });
        let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(kernel.entry),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let constants: Vec<(&str, f64)> = kernel.constants.iter().map(|&(name, value)| (name, value as f64)).collect();
        let raw = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(kernel.entry),
            layout: Some(&pipeline_layout),
            module: &self.modules[&module_key],
            entry_point: Some(kernel.entry),
            compilation_options: wgpu::PipelineCompilationOptions { constants: &constants, zero_initialize_workgroup_memory: false },
            cache: None,
        });
        let pipeline = Arc::new(Pipeline { raw, layout, id: self.made.len() as u64 });
        self.made.insert(key, Arc::clone(&pipeline));
        Ok(pipeline)
    }
}
