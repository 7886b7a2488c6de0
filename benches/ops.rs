//! Single operations on the CPU and on the GPU: products, convolutions, and what a dispatch costs the host.
//!
//! `cargo bench --bench ops`

mod common;

use common::{criterion, devices, sync};
use cpu_time::ThreadTime;
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use mappa::backend::Operand;
use mappa::op::{Binary, Clip, Conv, Conv2dOptions, Elementwise, Matmul, Op};
use mappa::rng::Stream;
use mappa::{Device, Tensor};
use std::time::{Duration, Instant};

fn uniform(device: &Device, shape: &[usize]) -> Tensor {
    Tensor::uniform(device, shape, -1.0, 1.0, Stream::new(1, "bench", shape.len() as u64, 0)).unwrap()
}

/// Times `op` into results that exist already. The throughput is in floating-point operations.
fn bench(c: &mut Criterion, name: &str, kind: &str, device: &Device, op: impl Into<Op>, inputs: &[Tensor]) {
    let op = op.into();
    let specs: Vec<_> = inputs.iter().map(Tensor::spec).collect();
    let out_specs = op.infer(&specs).unwrap();
    let outputs: Vec<Tensor> = out_specs.iter().map(|spec| Tensor::zeros(device, &spec.shape).unwrap()).collect();
    let operands = |tensors: &[Tensor]| -> Vec<Operand> { tensors.iter().map(|t| t.operand().clone()).collect() };
    let (inputs, results) = (operands(inputs), operands(&outputs));
    let mut group = c.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(op.flops(&specs, &out_specs)));
    group.bench_function(BenchmarkId::from_parameter(kind), |b| {
        b.iter_custom(|iterations| {
            sync(device);
            let begun = Instant::now();
            for _ in 0..iterations {
                device.run(&op, &inputs, &results).unwrap();
            }
            sync(device);
            begun.elapsed()
        });
    });
    group.finish();
}

/// Dispatches recorded without a wait between them.
const DISPATCHES: u64 = 1000;

/// Sums of four elements: no work, all overhead. `recorded` is the time that the calling thread computed for them, its submits included, whatever a software
/// GPU does on the same cores meanwhile; `done` is the time until the device has done them.
fn dispatch(c: &mut Criterion, kind: &str, device: &Device) {
    let operand = |_| uniform(device, &[4]).operand().clone();
    let inputs: Vec<Operand> = (0..2).map(operand).collect();
    let results: Vec<Operand> = (0..1).map(operand).collect();
    let op = Op::from(Elementwise::Binary(Binary::Add));
    let mut group = c.benchmark_group(format!("{DISPATCHES} dispatches"));
    group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(DISPATCHES));
    for (name, waits) in [("recorded", false), ("done", true)] {
        group.bench_function(BenchmarkId::new(name, kind), |b| {
            b.iter_custom(|iterations| {
                let mut total = Duration::ZERO;
                for _ in 0..iterations {
                    let (begun, host) = (Instant::now(), ThreadTime::now());
                    for _ in 0..DISPATCHES {
                        device.run(&op, &inputs, &results).unwrap();
                    }
                    device.flush().unwrap();
                    let recorded = host.elapsed();
                    sync(device);
                    total += if waits { begun.elapsed() } else { recorded };
                }
                total
            });
        });
    }
    group.finish();
}

fn main() {
    let mut c = criterion();
    for (kind, device) in &devices() {
        for n in [256, 512, 1024] {
            let inputs = [uniform(device, &[n, n]), uniform(device, &[n, n])];
            bench(&mut c, &format!("sgemm {n}"), kind, device, Matmul::default(), &inputs);
        }
        // x W^T of linear layers.
        for (m, n, k) in [(8, 1000, 512), (64, 1000, 512), (64, 128, 12_544), (8, 512, 512), (128, 512, 512)] {
            let inputs = [uniform(device, &[m, k]), uniform(device, &[n, k])];
            bench(&mut c, &format!("linear {m} x {n}, {k}"), kind, device, Matmul { transpose_b: true, ..Default::default() }, &inputs);
        }
        // 3x3, 32 to 32 channels, on images of 28 x 28: a middle layer of a small classifier.
        let options = Conv2dOptions { padding: [1, 1], ..Default::default() };
        let (x, w, y) = (uniform(device, &[4, 32, 28, 28]), uniform(device, &[32, 32, 3, 3]), uniform(device, &[4, 32, 28, 28]));
        bench(&mut c, "conv2d", kind, device, Conv::Forward { options, bias: false, clip: Clip::Nothing }, &[x.clone(), w.clone()]);
        bench(&mut c, "conv2d_backward_input", kind, device, Conv::BackwardInput { options, input_size: [28, 28] }, &[y.clone(), w]);
        bench(&mut c, "conv2d_backward_weight", kind, device, Conv::BackwardWeight { options, kernel_size: [3, 3] }, &[x, y]);
        dispatch(&mut c, kind, device);
    }
    c.final_summary();
}
