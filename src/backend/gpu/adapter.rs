//! Finding adapters, and opening one.

use crate::backend::KernelTable;
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
    /// Optional features that mappa can use: subgroups, f16, timestamps, cooperative matrices.
    pub features: Vec<String>,
    /// The least and the most lanes of a subgroup.
    pub subgroup_sizes: [u32; 2],
    /// The side of cooperative matrices of f16 with sums in f32 that kernels can use; 0 without them.
    pub matrices: u32,
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
    let matrices = matrices(adapter, &info);
    if matrices > 0 {
        features.push(format!("f16 matrices of {matrices}x{matrices}"));
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
        matrices,
    }
}

/// What `shaders/shared/matrices.wgsl` asks for: square matrices of f16 with sums in f32, subgroups of a known size whose lanes are whole rows of one, eight of
/// which make a workgroup, and the largest tile's workgroup memory.
fn matrices(adapter: &wgpu::Adapter, info: &wgpu::AdapterInfo) -> u32 {
    let wanted = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX | wgpu::Features::SHADER_F16 | wgpu::Features::SUBGROUP;
    let lanes = info.subgroup_min_size;
    let limits = adapter.limits();
    if !adapter.features().contains(wanted) || info.subgroup_max_size != lanes || limits.max_compute_workgroup_storage_size < 32 << 10 {
        return 0;
    }
    let fits = |p: &wgpu::CooperativeMatrixProperties| {
        let types = (p.ab_type, p.cr_type) == (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32);
        types
            && [p.n_size, p.k_size] == [p.m_size; 2]
            && lanes.is_multiple_of(p.m_size)
            && 8 * lanes <= limits.max_compute_invocations_per_workgroup
    };
    adapter.cooperative_matrix_properties().iter().filter(|p| fits(p)).map(|p| p.m_size).max().unwrap_or(0)
}

/// The best adapter, or number `index`.
pub(super) async fn find(index: Option<usize>) -> Result<(AdapterInfo, wgpu::Adapter)> {
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
    Ok((describe(chosen, &adapter), adapter))
}

/// The kernels that an adapter runs by itself, with WebGPU's default limits or with all that it has.
pub(super) fn kernels(info: &AdapterInfo, adapter: &wgpu::Adapter, default_limits: bool) -> KernelTable {
    let [least, most] = info.subgroup_sizes;
    let known = least == most && adapter.features().contains(wgpu::Features::SUBGROUP);
    if default_limits { KernelTable::gpu(0, 0) } else { KernelTable::gpu(if known { least } else { 0 }, info.matrices) }
}

/// Opens an adapter with WebGPU's default limits and no optional feature, or with all that it has and the kernels need.
pub(super) async fn open(
    info: &AdapterInfo,
    adapter: &wgpu::Adapter,
    default_limits: bool,
    kernels: &KernelTable,
) -> Result<(wgpu::Device, wgpu::Queue)> {
    let (limits, mut features) = if default_limits {
        (wgpu::Limits::default(), wgpu::Features::empty())
    } else {
        let wanted = wgpu::Features::TIMESTAMP_QUERY
            | wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS
            | wgpu::Features::SUBGROUP
            | wgpu::Features::SHADER_F16;
        (adapter.limits(), adapter.features() & wanted)
    };
    let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
    if kernels.matrices > 0 {
        features |= wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        // SAFETY: wgpu asks that its caller bear with what it does not check yet of cooperative matrices. In
        // shaders/shared/matrices.wgsl they lie within their arrays whatever a tile's sizes, and are used in uniform control flow.
        experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
    }
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("mappa"),
        required_features: features,
        required_limits: limits,
        experimental_features,
        ..Default::default()
    };
    adapter.request_device(&descriptor).await.map_err(|e| Error::NoDevice(format!("{} could not be opened: {e}", info.name)))
}
