//! An operation of your own: shape rule, reference, WGSL kernel, gradient, and the proof that they agree.
//!
//! `cargo run --release --example 13_custom_op`

use mappa::backend::cpu::Cpu;
use mappa::cases::{Case, Data, run_case};
use mappa::op::{Custom, CustomOp};
use mappa::shape::Spec;
use mappa::{Device, Error, Result, Tensor};

/// `y = exp(-x^2)`, a bell.
#[derive(Debug)]
struct Bell;

/// `dx = -2 x exp(-x^2) dy`.
#[derive(Debug)]
struct BellBackward;

/// One element an invocation, 64 a workgroup; a long tensor continues in the second direction.
fn workgroups(elements: usize) -> [u32; 3] {
    let groups = elements.div_ceil(64).max(1) as u32;
    let x = groups.min(65_535);
    [x, groups.div_ceil(x), 1]
}

/// `struct Params { n: u32 }`, padded to 16 bytes.
fn params(elements: usize) -> Vec<u8> {
    [elements as u32, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl CustomOp for Bell {
    fn name(&self) -> &'static str {
        "bell"
    }
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        match inputs {
            [x] if x.dtype.is_float() => Ok(vec![*x]),
            _ => Err(Error::Shape(format!("bell takes one float tensor, got {inputs:?}"))),
        }
    }
    fn reference(&self, inputs: &[(Spec, &[f64])]) -> Vec<Vec<f64>> {
        vec![inputs[0].1.iter().map(|x| (-x * x).exp()).collect()]
    }
    fn shader(&self) -> &'static str {
        "
//#include shared/index.wgsl
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@group(0) @binding(2) var<uniform> n: vec4<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * 64u + lane;
    if i < n.x { y[i] = exp(-x[i] * x[i]); }
}
"
    }
    fn params(&self, inputs: &[Spec], _: &[Spec]) -> Vec<u8> {
        params(inputs[0].shape.len())
    }
    fn workgroups(&self, inputs: &[Spec], _: &[Spec]) -> [u32; 3] {
        workgroups(inputs[0].shape.len())
    }
    fn gradient(&self) -> Option<Custom> {
        Some(Custom::new(BellBackward))
    }
}

impl CustomOp for BellBackward {
    fn name(&self) -> &'static str {
        "bell_backward"
    }
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        match inputs {
            [x, dy] if x == dy => Ok(vec![*x]),
            _ => Err(Error::Shape(format!("bell_backward takes x and dy of one shape, got {inputs:?}"))),
        }
    }
    fn reference(&self, inputs: &[(Spec, &[f64])]) -> Vec<Vec<f64>> {
        let [(_, x), (_, dy)] = inputs else { return Vec::new() };
        vec![x.iter().zip(*dy).map(|(x, dy)| -2.0 * x * (-x * x).exp() * dy).collect()]
    }
    fn shader(&self) -> &'static str {
        "
//#include shared/index.wgsl
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(3) var<uniform> n: vec4<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * 64u + lane;
    if i < n.x { dx[i] = -2.0 * x[i] * exp(-x[i] * x[i]) * dy[i]; }
}
"
    }
    fn params(&self, inputs: &[Spec], _: &[Spec]) -> Vec<u8> {
        params(inputs[0].shape.len())
    }
    fn workgroups(&self, inputs: &[Spec], _: &[Spec]) -> [u32; 3] {
        workgroups(inputs[0].shape.len())
    }
}

fn main() -> Result<()> {
    let bell = Custom::new(Bell);
    let device = Device::from_env_blocking()?;
    let x = Tensor::from_slice(&device, &[5], &[-2.0f32, -1.0, 0.0, 1.0, 2.0])?.requires_grad();
    let y = Tensor::apply(bell.clone(), &[&x])?.remove(0);
    y.sum(None, false)?.backward()?;
    println!("on {}", device.name());
    println!("y  = {}", y.to_ndarray_blocking::<f32>()?);
    if let Some(dx) = x.grad() {
        println!("dx = {}", dx.to_ndarray_blocking::<f32>()?);
    }
    // The kernel against the reference, as `mappa verify` does it for the built-in operations.
    let case = Case { op: bell.into(), inputs: vec![Data::Uniform(vec![3, 7, 31], -3.0, 3.0)], differentiable: true };
    let outcome = run_case(&case, &Cpu::reference()?, &*device)?;
    println!("{case}: error {:.1e}, tolerance {:.1e}", outcome.error, outcome.tolerance);
    outcome.failure.map_or(Ok(()), |failure| Err(Error::Mismatch(failure)))
}
