//! Operations from outside the crate: on every device, with a gradient, and what happens when one is wrong.

mod common;

use mappa::autodiff::check_gradient;
use mappa::backend::cpu::Cpu;
use mappa::cases::{Case, Data, run_case};
use mappa::op::{Custom, CustomOp, Op};
use mappa::shape::Spec;
use mappa::{Device, Error, Result, Tensor};

/// `y = a b` by element, or what a mistake makes of it.
#[derive(Debug, Clone, Copy)]
struct Product {
    shader: &'static str,
    gradient: bool,
    results: usize,
}

const PRODUCT: Product = Product {
    shader: "
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@group(0) @binding(3) var<uniform> n: vec4<u32>;
@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < n.x { y[id.x] = a[id.x] * b[id.x]; }
}",
    gradient: true,
    results: 1,
};

/// `da = b dy`, `db = a dy`.
#[derive(Debug)]
struct ProductBackward;

fn params(inputs: &[Spec]) -> Vec<u8> {
    bytemuck::cast_slice(&[inputs[0].shape.len() as u32, 0, 0, 0]).to_vec()
}

impl CustomOp for Product {
    fn name(&self) -> &'static str {
        "product"
    }
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        match inputs {
            [a, b] if a == b => Ok(vec![*a; self.results]),
            _ => Err(Error::Shape("product takes two tensors of one shape".into())),
        }
    }
    fn reference(&self, inputs: &[(Spec, &[f64])]) -> Vec<Vec<f64>> {
        vec![inputs[0].1.iter().zip(inputs[1].1).map(|(a, b)| a * b).collect()]
    }
    fn shader(&self) -> &'static str {
        self.shader
    }
    fn params(&self, inputs: &[Spec], _: &[Spec]) -> Vec<u8> {
        params(inputs)
    }
    fn workgroups(&self, inputs: &[Spec], _: &[Spec]) -> [u32; 3] {
        [inputs[0].shape.len().div_ceil(32) as u32, 1, 1]
    }
    fn gradient(&self) -> Option<Custom> {
        self.gradient.then(|| Custom::new(ProductBackward))
    }
}

impl CustomOp for ProductBackward {
    fn name(&self) -> &'static str {
        "product_backward"
    }
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        Ok(vec![inputs[0], inputs[1]])
    }
    fn reference(&self, inputs: &[(Spec, &[f64])]) -> Vec<Vec<f64>> {
        let times = |i: usize| inputs[i].1.iter().zip(inputs[2].1).map(|(x, dy)| x * dy).collect();
        vec![times(1), times(0)]
    }
    fn shader(&self) -> &'static str {
        "
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> da: array<f32>;
@group(0) @binding(4) var<storage, read_write> db: array<f32>;
@group(0) @binding(5) var<uniform> n: vec4<u32>;
@compute @workgroup_size(32)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < n.x {
        da[id.x] = b[id.x] * dy[id.x];
        db[id.x] = a[id.x] * dy[id.x];
    }
}"
    }
    fn params(&self, inputs: &[Spec], _: &[Spec]) -> Vec<u8> {
        params(inputs)
    }
    fn workgroups(&self, inputs: &[Spec], _: &[Spec]) -> [u32; 3] {
        [inputs[0].shape.len().div_ceil(32) as u32, 1, 1]
    }
}

fn case(op: impl CustomOp + 'static, inputs: usize) -> Case {
    Case { op: Op::Custom(Custom::new(op)), inputs: vec![Data::Uniform(vec![5, 13], -2.0, 2.0); inputs], differentiable: true }
}

fn pair(device: &Device) -> [Tensor; 2] {
    let value = |sign: f64| (0..6).map(|i| sign * (i as f64 - 2.5)).collect::<Vec<f64>>();
    [1.0, -0.7].map(|sign| Tensor::from_slice(device, &[2, 3], &value(sign)).unwrap())
}

#[test]
#[cfg(feature = "gpu")]
fn the_gpu_agrees_with_the_operation_s_reference() {
    let Some(gpu) = common::gpu(Default::default()) else { return };
    let reference = Cpu::reference().unwrap();
    for case in [case(PRODUCT, 2), case(ProductBackward, 3)] {
        let outcome = run_case(&case, &reference, &gpu).unwrap();
        assert!(outcome.failure.is_none(), "{case}: {:?}", outcome.failure);
    }
    // Another text under the same name is another kernel: it computes, and is found out.
    let wrong = Product { shader: PRODUCT.shader.replace("a[id.x] * b[id.x]", "a[id.x] + b[id.x]").leak(), ..PRODUCT };
    assert!(run_case(&case(wrong, 2), &reference, &gpu).unwrap().failure.is_some());
}

#[test]
#[cfg(feature = "gpu")]
fn a_shader_that_does_not_compile_is_an_error_that_names_the_operation() {
    let Some(gpu) = common::gpu(Default::default()) else { return };
    let broken = Product { shader: PRODUCT.shader.replace("y[id.x] =", "z[id.x] =").leak(), ..PRODUCT };
    let error = run_case(&case(broken, 2), &Cpu::reference().unwrap(), &gpu).unwrap_err().to_string();
    assert!(error.contains("product"), "{error}");
}

#[test]
fn its_gradient_agrees_with_finite_differences() {
    let device = Device::cpu(1).unwrap();
    let upstream = Tensor::from_slice(&device, &[2, 3], &[0.3, -1.0, 0.5, 2.0, 1.0, -0.4]).unwrap();
    let product = Custom::new(PRODUCT);
    let check = check_gradient(&pair(&device), &upstream, |x| Ok(Tensor::apply(product.clone(), &[&x[0], &x[1]])?.remove(0))).unwrap();
    assert!(check.error < 1e-8, "{check:?}");
}

#[test]
fn what_is_wrong_with_an_operation_is_said() {
    let device = Device::cpu(1).unwrap();
    let [a, b] = pair(&device);
    let error = |op: Product| Tensor::apply(Custom::new(op), &[&a, &b]).map(|_| ()).unwrap_err().to_string();
    let message = error(Product { results: 2, ..PRODUCT });
    assert!(message.contains("product") && message.contains("[6] elements") && message.contains("[6, 6]"), "{message}");
    assert!(error(Product { results: 0, ..PRODUCT }).contains("at least one result"));
    let y = Tensor::apply(Custom::new(Product { gradient: false, ..PRODUCT }), &[&a.requires_grad(), &b]).unwrap().remove(0);
    let message = y.sum(None, false).unwrap().backward().unwrap_err().to_string();
    assert!(message.contains("product has no gradient"), "{message}");
}
