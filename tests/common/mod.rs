//! What several test binaries share; each compiles this module, and not all need everything.
#![allow(dead_code)]

use mappa::backend::Backend;
#[cfg(feature = "gpu")]
use mappa::backend::KernelTable;
use mappa::backend::cpu::Cpu;
#[cfg(feature = "gpu")]
use mappa::backend::gpu::kernels::{Dispatch, Limits, lower};
use mappa::cases::{Case, Data, run_case};
#[cfg(feature = "gpu")]
use mappa::{
    Device,
    backend::Operand,
    cases::{all, half},
    shape::Spec,
};
#[cfg(feature = "gpu")]
use std::collections::HashSet;

/// Opens a GPU. Where there is none the test is skipped with a line that says so, unless `MAPPA_REQUIRE_GPU=1`.
#[cfg(feature = "gpu")]
pub fn gpu(options: mappa::backend::gpu::GpuOptions) -> Option<mappa::backend::gpu::Gpu> {
    match pollster::block_on(mappa::backend::gpu::Gpu::open_with(options)) {
        Ok(gpu) => Some(gpu),
        Err(mappa::Error::NoDevice(message)) if std::env::var("MAPPA_REQUIRE_GPU").as_deref() != Ok("1") => {
            eprintln!("skipped: {message}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The kernels that multiply f16 by cooperative matrices here. Where the GPU has none the test is left out with a line that says so, unless
/// `MAPPA_REQUIRE_MATRICES=1`.
#[cfg(feature = "gpu")]
pub fn matrices() -> Option<String> {
    let gpu = gpu(Default::default())?;
    let side = gpu.info().matrices;
    let required = std::env::var("MAPPA_REQUIRE_MATRICES").as_deref() == Ok("1");
    assert!(side > 0 || !required, "{} has no cooperative matrices of f16", gpu.capabilities().name);
    if side == 0 {
        eprintln!("left out: {} has no cooperative matrices of f16", gpu.capabilities().name);
    }
    (side > 0).then(|| format!("matrices={side}"))
}

/// The long tier of `scripts/test.sh --full`.
pub fn full() -> bool {
    std::env::var("MAPPA_FULL").as_deref() == Ok("1")
}

/// Elements of the largest operand or result of a case.
pub fn elements(case: &Case) -> usize {
    let inputs: Vec<_> = case.inputs.iter().map(Data::spec).collect::<Result<_, _>>().unwrap();
    let outputs = case.op.infer(&inputs).unwrap();
    inputs.iter().chain(&outputs).map(|spec| spec.shape.len()).max().unwrap_or(0)
}

/// Compares every case on `device` with the CPU reference, and fails with the list of those that differ.
pub fn check(device: &dyn Backend, cases: &[Case]) {
    let reference = Cpu::reference().unwrap();
    let mut failures = Vec::new();
    for case in cases {
        match run_case(case, &reference, device) {
            Ok(outcome) => failures.extend(outcome.failure.map(|f| format!("{case}: {f}"))),
            Err(error) => failures.push(format!("{case}: {error}")),
        }
    }
    let name = &device.capabilities().name;
    let shown = failures[..failures.len().min(60)].join("\n");
    assert!(failures.is_empty(), "{name}: {} of {} cases failed:\n{shown}", failures.len(), cases.len());
}

/// WebGPU's defaults: <https://www.w3.org/TR/webgpu/#limits>.
pub const WORKGROUPS: u32 = 65_535;
pub const BINDING_BYTES: u64 = 128 << 20;

/// What the cases dispatch at the default limits, or with other `kernels`. The null device gives buffers without memory.
#[cfg(feature = "gpu")]
pub fn dispatches(kernels: KernelTable) -> Vec<Dispatch> {
    let (device, _) = Device::null();
    let limits = Limits { workgroups: WORKGROUPS, binding_bytes: BINDING_BYTES, alignment: 256, kernels };
    let alloc = |len_bytes: usize| device.alloc(len_bytes);
    let operand = |spec: Spec| Operand { buffer: alloc(spec.len_bytes()).unwrap(), offset: 0, spec };
    let mut found = Vec::new();
    for case in all().into_iter().chain(half()) {
        let specs: Vec<Spec> = case.inputs.iter().map(|data| data.spec().unwrap()).collect();
        let outputs: Vec<Operand> = case.op.infer(&specs).unwrap().into_iter().map(operand).collect();
        let inputs: Vec<Operand> = specs.into_iter().map(operand).collect();
        found.extend(lower(&case.op, &inputs, &outputs, &limits, &alloc).unwrap_or_else(|e| panic!("{case}: {e}")));
    }
    found
}

/// Products of f16 by cooperative matrices: as lavapipe has them, and tensor cores.
#[cfg(feature = "gpu")]
pub const MATRICES: [KernelTable; 2] =
    [KernelTable { matrices: 8, ..KernelTable::gpu(8, 8) }, KernelTable { matrices: 16, ..KernelTable::gpu(32, 16) }];

/// The first dispatch of each specialisation and list of written bindings: what one pipeline is made for. Those that need subgroups come
/// last, then those that need cooperative matrices.
#[cfg(feature = "gpu")]
pub fn pipelines() -> Vec<Dispatch> {
    let mut seen = HashSet::new();
    [KernelTable::gpu(0, 0), KernelTable::gpu(8, 0)]
        .into_iter()
        .chain(MATRICES)
        .flat_map(dispatches)
        .filter(|d| seen.insert((d.kernel.clone(), d.bindings.iter().map(|b| b.write).collect::<Vec<bool>>())))
        .collect()
}
