//! What the GPU tests share.

use mappa::backend::gpu::{Gpu, GpuOptions};
use mappa::cases::{Case, Data};
use mappa::error::Error;

/// Opens a GPU. Where there is none the test is skipped with a line that says so, unless `MAPPA_REQUIRE_GPU=1`.
pub fn gpu(options: GpuOptions) -> Option<Gpu> {
    match pollster::block_on(Gpu::open_with(options)) {
        Ok(gpu) => Some(gpu),
        Err(Error::NoDevice(message)) if std::env::var("MAPPA_REQUIRE_GPU").as_deref() != Ok("1") => {
            eprintln!("skipped: {message}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Elements of the largest operand or result of a case.
#[allow(dead_code, reason = "each test binary compiles this module and not all need it")]
pub fn elements(case: &Case) -> usize {
    let inputs: Vec<_> = case.inputs.iter().map(Data::spec).collect::<Result<_, _>>().unwrap();
    let outputs = case.op.infer(&inputs).unwrap();
    inputs.iter().chain(&outputs).map(|spec| spec.shape.len()).max().unwrap_or(0)
}
