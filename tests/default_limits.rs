//! Every case once more on a GPU that was asked for WebGPU's default limits and no optional feature.
#![cfg(feature = "gpu")]

mod common;

use mappa::backend::gpu::GpuOptions;
use mappa::cases::all;

/// The one case above this shows that dispatches fold, which does not depend on limits.
const MAX_ELEMENTS: usize = 4 << 20;

#[test]
fn every_kernel_agrees_with_the_reference_at_default_limits() {
    let Some(gpu) = common::gpu(GpuOptions { default_limits: true, ..Default::default() }) else { return };
    let cases: Vec<_> = all().into_iter().filter(|case| common::elements(case) <= MAX_ELEMENTS).collect();
    assert_eq!(cases.len() + 1, all().len(), "the limit leaves out more than one case");
    common::check(&gpu, &cases);
}

#[test]
fn a_tensor_larger_than_a_default_binding_is_an_error_that_says_what_to_do() {
    let Some(gpu) = common::gpu(GpuOptions { default_limits: true, ..Default::default() }) else { return };
    let device = mappa::Device::new(gpu);
    // 256 MiB; a binding has at most 128.
    let error = mappa::Tensor::zeros(&device, &[64 << 20]).unwrap_err().to_string();
    assert!(error.contains("exceeds the largest buffer") && error.contains("--batch-size"), "{error}");
}
