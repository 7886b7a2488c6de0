//! Finding adapters, and opening one.

use crate::error::{Error, Result};

/// An adapter as `mappa devices` lists it.
#[derive(Debug, Clone)]
pub struct AdapterInfo {
    /// Number for `--device gpu:N`: the best is 0.
    pub index: usize,
    /// The driver's name of it.
    pub name: String,
    /// Graphics API: Vulkan, Metal, DX12.
    pub api: String,
    /// Driver and its version.
    pub driver: String,
    /// Discrete, integrated, virtual, CPU, other.
    pub kind: String,
    /// A software rasteriser.
    pub software: bool,
    /// Optional features that mappa can use: subgroups, f16, timestamps.
    pub features: Vec<String>,
    /// The least and the most lanes of a subgroup.
    pub subgroup_sizes: [u32; 2],
}

fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle())
}

fn score(kind: wgpu::DeviceType) -> u32 {
    match kind {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    }
}

async fn enumerate() -> Vec<wgpu::Adapter> {
    let mut found = instance().enumerate_adapters(wgpu::Backends::PRIMARY).await;
    found.retain(|a| a.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS));
    // Stable: adapters of one kind keep the driver's order.
    found.sort_by_key(|a| score(a.get_info().device_type));
    found
}

/// All adapters that can compute, the best first.
pub async fn adapters() -> Vec<AdapterInfo> {
    enumerate().await.iter().enumerate().map(|(index, a)| describe(index, a)).collect()
}

fn describe(index: usize, adapter: &wgpu::Adapter) -> AdapterInfo {
    let info = adapter.get_info();
    let mut features = Vec::new();
    for (feature, name) in
        [(wgpu::Features::SUBGROUP, "subgroups"), (wgpu::Features::SHADER_F16, "f16"), (wgpu::Features::TIMESTAMP_QUERY, "timestamps")]
    {
        if adapter.features().contains(feature) {
            features.push(name.to_owned());
        }
    }
    AdapterInfo {
        index,
        name: info.name.clone(),
        api: format!("{:?}", info.backend),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        kind: format!("{:?}", info.device_type),
        software: info.device_type == wgpu::DeviceType::Cpu,
        features,
        subgroup_sizes: [info.subgroup_min_size, info.subgroup_max_size],
    }
}

/// Opens an adapter with WebGPU's default limits and no optional feature, or with all that it has.
pub(super) async fn open(index: Option<usize>, default_limits: bool) -> Result<(AdapterInfo, wgpu::Device, wgpu::Queue)> {
    let mut found = enumerate().await;
    let count = found.len();
    if count == 0 {
        return Err(Error::NoDevice(
            "no GPU adapter was found; install a Vulkan driver (Debian: mesa-vulkan-drivers) or use --device cpu".into(),
        ));
    }
    let chosen = index.unwrap_or(0);
    if chosen >= count {
        return Err(Error::NoDevice(format!("there is no adapter gpu:{chosen}: {count} found, numbered from 0; see `mappa devices`")));
    }
    let adapter = found.swap_remove(chosen);
    let (limits, features) = if default_limits {
        (wgpu::Limits::default(), wgpu::Features::empty())
    } else {
        let wanted = wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS
            | wgpu::Features::SUBGROUP
            | wgpu::Features::SHADER_F16;
        (adapter.limits(), adapter.features() & wanted)
    };
    let info = describe(chosen, &adapter);
    let descriptor =
        wgpu::DeviceDescriptor { label: Some("mappa"), required_features: features, required_limits: limits, ..Default::default() };
    let (device, queue) =
        adapter.request_device(&descriptor).await.map_err(|e| Error::NoDevice(format!("{} could not be opened: {e}", info.name)))?;
    Ok((info, device, queue))
}
