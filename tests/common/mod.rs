//! What several test binaries share; each compiles this module, and not all need everything.
#![allow(dead_code)]

use mappa::backend::Backend;
use mappa::backend::cpu::Cpu;
use mappa::cases::{Case, Data, run_case};

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
