//! Tensors: make some, compute, read back.
//!
//! `cargo run --release --example 00_tensors`

use mappa::{Device, Result, Tensor};

fn main() -> Result<()> {
    let device = Device::from_env_blocking()?;
    println!("on {}", device.name());
    let a = Tensor::from_slice(&device, &[2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])?;
    let b = Tensor::full(&device, &[3], mappa::DType::F32, 10.0)?;
    let sum = a.add(&b)?;
    println!("a + b = {}", sum.to_ndarray_blocking::<f32>()?);
    println!("a a^T = {}", a.matmul_with(&a, false, true)?.to_ndarray_blocking::<f32>()?);
    Ok(())
}
