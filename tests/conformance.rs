//! Every case of the list, on every backend, against the CPU reference. One device for the whole binary.

mod common;
#[path = "common/kernels.rs"]
mod kernels;

use kernels::*;
use mappa::backend::cpu::Cpu;
use mappa::backend::{Backend, KernelTable, Operand};
use mappa::cases::{Case, all, half};

#[test]
fn the_fast_cpu_paths_agree_with_the_reference() {
    for threads in [1, 2] {
        common::check(&Cpu::new(threads).unwrap(), &all());
        common::check(&Cpu::new(threads).unwrap(), &half());
    }
}

#[test]
#[cfg(feature = "gpu")]
fn every_kernel_agrees_with_the_reference() {
    if let Some(gpu) = common::gpu(Default::default()) {
        common::check(&gpu, &all());
    }
}

#[test]
#[cfg(feature = "gpu")]
fn every_kernel_agrees_with_the_reference_in_f16() {
    let Some(gpu) = common::gpu(Default::default()) else { return };
    if gpu.capabilities().f16 {
        common::check(&gpu, &half());
        // The products without subgroups, which the default limits show in f32 alone.
        let Some(base) = common::gpu(mappa::backend::gpu::GpuOptions { kernels: vec!["product=tile".into()], ..Default::default() }) else {
            return;
        };
        let products: Vec<Case> = half().into_iter().filter(|case| matches!(case.op.family(), "matmul" | "conv")).collect();
        common::check(&base, &products);
    } else {
        // lavapipe, which CI runs on, has f16.
        assert!(std::env::var("MAPPA_REQUIRE_GPU").is_err(), "{} has no f16", gpu.capabilities().name);
        eprintln!("skipped: {} has no f16", gpu.capabilities().name);
    }
}

#[test]
#[cfg(feature = "gpu")]
fn products_by_cooperative_matrices_agree_with_the_reference() {
    let Some(kernels) = common::matrices() else { return };
    let gpu = common::gpu(mappa::backend::gpu::GpuOptions { kernels: vec![kernels], ..Default::default() }).unwrap();
    let products: Vec<Case> = half().into_iter().filter(|case| matches!(case.op.family(), "matmul" | "conv")).collect();
    common::check(&gpu, &products);
}

fn products() -> Vec<Case> {
    all().into_iter().filter(|case| matches!(case.op.family(), "matmul" | "conv")).collect()
}

#[test]
fn every_choice_of_cpu_kernels_agrees_with_the_reference() {
    for kernels in CPU_KERNELS {
        let table = KernelTable::CPU.with(kernels).unwrap();
        common::check(&Cpu::with_kernels(2, table).unwrap(), &products());
    }
}

#[test]
#[cfg(feature = "gpu")]
fn every_choice_of_gpu_kernels_agrees_with_the_reference() {
    for kernels in GPU_KERNELS {
        let Some(gpu) = common::gpu(mappa::backend::gpu::GpuOptions { kernels: vec![kernels.into()], ..Default::default() }) else {
            return;
        };
        common::check(&gpu, &products());
    }
}

/// Runs a case and returns the bytes of its results.
fn results(case: &Case, device: &dyn Backend, reference: &Cpu) -> Vec<Vec<u8>> {
    let operand = |spec: mappa::shape::Spec, bytes: &[u8]| {
        let buffer = device.alloc(spec.len_bytes()).unwrap();
        if !bytes.is_empty() {
            device.write(&buffer, 0, bytes).unwrap();
        }
        Operand { buffer, offset: 0, spec }
    };
    let inputs: Vec<Operand> =
        case.inputs.iter().enumerate().map(|(i, d)| operand(d.spec().unwrap(), &d.bytes(reference, i as u64).unwrap())).collect();
    let specs: Vec<_> = inputs.iter().map(|o| o.spec).collect();
    let outputs: Vec<Operand> = case.op.infer(&specs).unwrap().into_iter().map(|s| operand(s, &vec![0; s.len_bytes()])).collect();
    device.run(&case.op, &inputs, &outputs).unwrap();
    let written = outputs.iter().chain(case.op.in_place().iter().map(|&i| &inputs[i]));
    written.map(|o| pollster::block_on(device.read(&o.buffer, o.range())).unwrap()).collect()
}

#[test]
fn cpu_results_do_not_depend_on_the_number_of_threads() {
    let reference = Cpu::reference().unwrap();
    let (one, two) = (Cpu::new(1).unwrap(), Cpu::new(2).unwrap());
    for case in all() {
        assert!(results(&case, &one, &reference) == results(&case, &two, &reference), "{case} differs between 1 and 2 threads");
    }
}

#[test]
#[cfg(feature = "gpu")]
fn marks_measure_the_device_s_own_time() {
    let Some(gpu) = common::gpu(Default::default()) else { return };
    let case = all().into_iter().filter(|c| c.op.name() == "matmul").max_by_key(common::elements).unwrap();
    let reference = Cpu::reference().unwrap();
    let begun = std::time::Instant::now();
    let marks: Vec<_> = (0..3)
        .map(|_| {
            let mark = gpu.mark().unwrap();
            results(&case, &gpu, &reference);
            mark
        })
        .collect();
    let elapsed = |from, to| pollster::block_on(gpu.elapsed(from, to)).unwrap();
    let Some(whole) = elapsed(marks[0], marks[2]) else { return };
    let parts = elapsed(marks[0], marks[1]).unwrap() + elapsed(marks[1], marks[2]).unwrap();
    assert!(whole > 0.0 && whole < begun.elapsed().as_secs_f64(), "{whole} s");
    assert!((whole - parts).abs() <= 1e-6 * whole, "{whole} s as a whole, {parts} s in parts");
    let unknown = pollster::block_on(gpu.elapsed(marks[0], mappa::backend::Mark(1 << 40)));
    assert!(unknown.unwrap_err().to_string().contains("not among the last"));
}

#[test]
fn every_operation_has_a_case() {
    // One row for each name that Op::name can give: a new variant without rows changes neither list by itself, so names are counted.
    let mut names: Vec<String> = all().iter().map(|c| c.op.name()).collect();
    names.sort();
    names.dedup();
    for name in [
        "neg",
        "exp",
        "log",
        "sqrt",
        "square",
        "abs",
        "reciprocal",
        "relu",
        "leaky_relu",
        "sigmoid",
        "tanh",
        "affine",
        "add",
        "sub",
        "mul",
        "div",
        "maximum",
        "minimum",
        "remainder",
        "fmod",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "where",
        "cast",
        "classify",
        "rsqrt",
        "sign",
        "floor",
        "ceil",
        "round",
        "sin",
        "cos",
        "tan",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "asinh",
        "acosh",
        "atanh",
        "erf",
        "pow",
        "clamp",
        "threshold",
        "elu",
        "selu",
        "celu",
        "gelu",
        "gelu_tanh",
        "silu",
        "mish",
        "hardswish",
        "hardsigmoid",
        "softplus",
        "softsign",
        "log_sigmoid",
        "add_assign",
        "fill",
        "matmul",
        "conv2d",
        "conv2d_backward_input",
        "conv2d_backward_weight",
        "max_pool2d",
        "max_pool2d_backward",
        "avg_pool2d",
        "avg_pool2d_backward",
        "global_avg_pool2d",
        "global_avg_pool2d_backward",
        "sum",
        "sum_squares",
        "mean",
        "max",
        "arg_max",
        "var",
        "log_softmax",
        "log_softmax_backward",
        "cross_entropy",
        "cross_entropy_backward",
        "permute",
        "slice",
        "slice_backward",
        "pad",
        "concat",
        "expand",
        "index_select",
        "index_add",
        "uniform",
        "normal",
        "dropout",
        "batch_norm",
        "batch_norm_eval",
        "batch_norm_backward",
        "sgd",
        "adam",
        "clip_factor",
    ] {
        assert!(names.iter().any(|n| n == name), "{name} has no case; have {names:?}");
    }
}
