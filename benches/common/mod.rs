//! What the benchmarks share.

use criterion::Criterion;
use mappa::Device;
use std::time::Duration;

/// The CPU, and the GPU where there is one; a software GPU counts.
pub fn devices() -> Vec<(&'static str, Device)> {
    let cpu = Device::cpu(0).unwrap();
    println!("cpu: {}", cpu.name());
    let mut devices = vec![("cpu", cpu)];
    #[cfg(feature = "gpu")]
    match pollster::block_on(Device::gpu(None)) {
        Ok(gpu) => {
            println!("gpu: {}", gpu.name());
            devices.push(("gpu", gpu));
        }
        Err(error) => println!("gpu: left out: {error}"),
    }
    devices
}

/// Ten samples in about three seconds each: enough to see a change of 10 % on a quiet machine.
pub fn criterion() -> Criterion {
    let quick = Criterion::default().sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    quick.configure_from_args()
}

/// Waits for all recorded work.
pub fn sync(device: &Device) {
    pollster::block_on(device.sync()).unwrap();
}
