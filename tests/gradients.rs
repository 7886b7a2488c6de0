//! Every gradient against central differences in f64, with an upstream gradient other than 1.

use mappa::autodiff::check_gradient;
use mappa::backend::cpu::Cpu;
use mappa::cases::all;
use mappa::dtype::DType;
use mappa::op::After;
use mappa::rng::Stream;
use mappa::{Device, Tensor};

#[test]
fn every_vjp_agrees_with_finite_differences() {
    let (device, reference) = (Device::reference().unwrap(), Cpu::reference().unwrap());
    let mut checked = Vec::new();
    for case in all().into_iter().filter(|c| c.differentiable) {
        let mut constants = Vec::new();
        let mut leaves = Vec::new();
        for (i, data) in case.inputs.iter().enumerate() {
            let (spec, bytes) = (data.spec().unwrap(), data.bytes(&reference, i as u64 + 1).unwrap());
            if spec.dtype == DType::F32 {
                let values: Vec<f64> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()) as f64).collect();
                leaves.push(Tensor::from_slice(&device, &spec.shape, &values).unwrap());
                constants.push(None);
            } else {
                let words = bytes.chunks_exact(4).map(|b| b.try_into().unwrap());
                let constant = match spec.dtype {
                    DType::U32 => Tensor::from_slice(&device, &spec.shape, &words.map(u32::from_le_bytes).collect::<Vec<u32>>()),
                    _ => Tensor::from_slice(&device, &spec.shape, &words.map(i32::from_le_bytes).collect::<Vec<i32>>()),
                };
                let constant = constant.unwrap();
                constants.push(Some(constant));
            }
        }
        // The cross-entropy's class weights are not differentiated, as in PyTorch.
        if case.op.name() == "cross_entropy" {
            for leaf in leaves.drain(1..) {
                constants.retain(Option::is_some);
                constants.insert(0, None);
                constants.push(Some(leaf));
            }
        }
        let apply = |leaves: &[Tensor]| {
            let mut rest = leaves.iter();
            let inputs: Vec<&Tensor> = constants.iter().map(|c| c.as_ref().unwrap_or_else(|| rest.next().unwrap())).collect();
            Ok(Tensor::apply(case.op.clone(), &inputs)?.swap_remove(0))
        };
        let shape = *apply(&leaves).unwrap().shape();
        let upstream: Vec<f64> = (0..shape.len()).map(|i| 0.5 + (i as f64 * 0.7).sin()).collect();
        let upstream = Tensor::from_slice(&device, &shape, &upstream).unwrap();
        let check = check_gradient(&leaves, &upstream, apply).unwrap_or_else(|e| panic!("{case}: {e}"));
        // Central differences with h = 1e-5 err by about h^2 f''' / 6 = 1e-9 for third derivatives up to 50 in these ranges.
        assert!(check.error < 2e-8, "{case}: {check:?}");
        checked.push(case.op.name());
    }
    checked.sort();
    checked.dedup();
    assert_eq!(checked.len(), 83, "{checked:?}");
}

/// With given statistics, which have no gradient: a frozen layer in training.
#[test]
fn batch_norm_in_evaluation_agrees_with_finite_differences() {
    let device = Device::reference().unwrap();
    let values = |shape: &[usize], seed: u64, low: f64, high: f64| {
        let stream = Stream::new(seed, "test", 0, 0);
        let len: usize = shape.iter().product();
        let data: Vec<f64> = (0..len as u64).map(|i| low + (high - low) * stream.uniform(i) as f64).collect();
        Tensor::from_slice(&device, shape, &data).unwrap()
    };
    let shape = [2, 3, 2, 2];
    let (mean, var) = (values(&[3], 1, -1.0, 1.0), values(&[3], 2, 0.5, 1.5));
    let upstream = values(&shape, 3, 0.5, 1.5);
    for after in [After::Nothing, After::Relu { ceiling: f64::INFINITY }, After::Relu { ceiling: 0.75 }, After::AddRelu] {
        let mut leaves = vec![values(&shape, 4, -1.0, 1.0), values(&[3], 5, 0.5, 1.5), values(&[3], 6, -1.0, 1.0)];
        leaves.extend((after == After::AddRelu).then(|| values(&shape, 7, -1.0, 1.0)));
        let apply = |leaves: &[Tensor]| leaves[0].batch_norm_eval_then(&leaves[1], &leaves[2], [&mean, &var], 1e-5, (after, leaves.get(3)));
        let check = check_gradient(&leaves, &upstream, apply).unwrap();
        assert!(check.error < 2e-8, "{after:?}: {check:?}");
    }
}

#[test]
fn a_chain_of_ten_thousand_operations_fits_the_stack() {
    let device = Device::cpu(1).unwrap();
    let x = Tensor::ones(&device, &[3]).unwrap().requires_grad();
    let mut y = x.clone();
    for _ in 0..10_000 {
        y = y.affine(1.0, 0.25).unwrap();
    }
    drop(y.clone());
    y.sum(None, false).unwrap().backward().unwrap();
    assert_eq!(x.grad().unwrap().to_vec_blocking::<f32>().unwrap(), [1.0; 3]);
    let mut z = x.clone();
    for _ in 0..10_000 {
        z = z.relu().unwrap();
    }
    drop(z);
}

#[test]
fn gradients_accumulate_and_a_used_tape_says_so() {
    let device = Device::cpu(1).unwrap();
    let x = Tensor::from_slice(&device, &[2], &[1.0f32, -2.0]).unwrap().requires_grad();
    let loss = x.mul(&x).unwrap().add(&x).unwrap().sum(None, false).unwrap();
    loss.backward().unwrap();
    assert_eq!(x.grad().unwrap().to_vec_blocking::<f32>().unwrap(), [3.0, -3.0]);
    assert!(loss.backward().unwrap_err().to_string().contains("used up"));
    x.sum(None, false).unwrap().backward().unwrap();
    assert_eq!(x.grad().unwrap().to_vec_blocking::<f32>().unwrap(), [4.0, -2.0]);
    let _guard = mappa::autodiff::no_grad();
    assert!(x.relu().unwrap().sum(None, false).unwrap().backward().is_err());
}
