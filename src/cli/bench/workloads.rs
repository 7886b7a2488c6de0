//! What is timed: training steps, networks and operations, under the names and in the shapes that other libraries are timed by, and each family of kernels.

use mappa::nn::recurrent::{Cell, Given, RecurrentNet, RecurrentOptions};
use mappa::nn::{Activation, Context, Conv2d, Flatten, Folded, Linear, MaxPool2d, Module, Sequential, initialize, join, named_parameters};
use mappa::op::{Conv2dOptions, Pool2dOptions};
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::rng::Stream;
use mappa::{DType, Device, Error, Result, Tensor, autodiff, models};

/// A convolution of square images.
struct Convolution {
    name: &'static str,
    channels: usize,
    size: usize,
    out_channels: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    groups: usize,
}

const fn convolution(name: &'static str, channels: usize, size: usize, out_channels: usize, kernel: usize) -> Convolution {
    Convolution { name, channels, size, out_channels, kernel, stride: 1, padding: kernel / 2, groups: 1 }
}

const CONVOLUTIONS: [Convolution; 6] = [
    convolution("A", 64, 56, 64, 3),
    Convolution { stride: 2, ..convolution("B", 3, 224, 64, 7) },
    convolution("C", 256, 14, 256, 3),
    convolution("D", 256, 56, 64, 1),
    Convolution { groups: 128, ..convolution("E", 128, 56, 128, 3) },
    Convolution { stride: 2, ..convolution("F", 128, 28, 256, 3) },
];

/// A call of it does the work, and gives a tensor whose first element is read to wait for it.
pub type Call = Box<dyn FnMut() -> Result<Vec<Tensor>>>;

/// What a call counts.
#[derive(Clone, Copy)]
pub enum Unit {
    /// Floating-point operations.
    Flops(f64),
    /// Bytes.
    Bytes(f64),
    /// A training or inference step of so many images.
    Step(usize),
    /// The bytes that its operations read and write.
    Traffic,
    /// A step whose images are of no interest.
    Overhead,
}

/// The workloads in order; what begins with `family_` is one of each family of kernels, with `f16_` the same of operands in f16.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = [256, 512, 1024, 2048, 4096].iter().map(|n| format!("matmul_{n}")).collect();
    for Convolution { name, .. } in CONVOLUTIONS {
        for pass in ["fwd", "fwdbwd"] {
            names.extend([format!("conv_{name}_{pass}_b4"), format!("conv_{name}_{pass}")]);
        }
    }
    let rest = "train_lenet5 train_cnn train_resnet18_cifar_b4 train_resnet18_cifar infer_resnet18_224_b1 infer_resnet18_224_b8 \
                infer_resnet18_224_b1_folded infer_resnet18_224_b8_folded train_lstm \
                overhead overhead_sync elementwise_16M startup family_pool family_norm family_reduce \
                family_scan family_softmax family_layout family_random family_optimizer";
    let halves: Vec<String> = names.iter().map(|name| format!("f16_{name}")).collect();
    names.extend(rest.split_whitespace().map(str::to_owned));
    names.extend(halves);
    names
}

fn uniform(device: &Device, shape: &[usize]) -> Result<Tensor> {
    Tensor::uniform(device, shape, -1.0, 1.0, Stream::new(1, "bench", shape.len() as u64, 0))
}

/// Last hidden state of an LSTM over rows, and a linear layer.
struct RowLstm {
    lstm: RecurrentNet,
    fc: Linear,
}

impl Module for RowLstm {
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        let h = self.lstm.run(ctx, x, Given::default())?.h_n;
        ctx.call("fc", &self.fc, &h.reshape(&h.shape()[1..])?)
    }
    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, mappa::nn::Owned)) {
        self.lstm.visit(&join(path, "lstm"), visitor);
        self.fc.visit(&join(path, "fc"), visitor);
    }
}

/// Networks that the peers' benchmarks train and `--model` does not know.
fn network(name: &str, device: &Device) -> Result<Box<dyn Module>> {
    let conv = |from, to| Conv2d::new(device, from, to, [3, 3], Conv2dOptions { padding: [1, 1], ..Default::default() }, true);
    let linear = |from, to| Linear::new(device, from, to, true);
    let module: Box<dyn Module> = match name {
        "train_lenet5" => Box::new(models::build("lenet5", [1, 28, 28], 10, device, 1)?),
        "train_cnn" => Box::new(
            Sequential::new()
                .then(conv(1, 32)?)
                .then(Activation::Relu)
                .then(conv(32, 64)?)
                .then(Activation::Relu)
                .then(MaxPool2d::new(2))
                .then(Flatten)
                .then(linear(12544, 128)?)
                .then(Activation::Relu)
                .then(linear(128, 10)?),
        ),
        "train_lstm" => {
            let options = RecurrentOptions { batch_first: true, ..RecurrentOptions::new(28, 128) };
            Box::new(RowLstm { lstm: RecurrentNet::new(device, Cell::Lstm, options)?, fc: linear(128, 10)? })
        }
        "train_resnet18_cifar" => Box::new(models::build("resnet18", [3, 32, 32], 10, device, 1)?),
        "infer_resnet18_224" => Box::new(models::build("resnet18", [3, 224, 224], 1000, device, 1)?),
        _ => Box::new(Sequential::new().then(linear(64, 64)?).then(Activation::Relu).then(linear(64, 10)?)),
    };
    initialize(&*module, 1)?;
    Ok(module)
}

/// Forward, loss, backward and update of a network on one batch.
fn training(name: &str, device: &Device, input: &[usize], config: OptimizerConfig, lr: f64, read: bool) -> Result<Call> {
    let module = network(name, device)?;
    let mut optimizer = Optimizer::new(config, vec![ParamGroup::new(named_parameters(&*module))])?;
    let x = uniform(device, input)?;
    let target: Vec<i32> = (0..input[0] as i32).map(|i| i % 10).collect();
    let target = Tensor::from_slice(device, &[input[0]], &target)?;
    let mut step = 0;
    Ok(Box::new(move || {
        step += 1;
        optimizer.zero_grad();
        let loss = module.forward(&mut Context::train(1, step), &x)?.cross_entropy_mean(&target)?;
        loss.backward()?;
        optimizer.step(lr)?;
        if read {
            loss.item_blocking()?;
        }
        Ok(vec![loss.detach()])
    }))
}

/// What `name` does on `device`.
///
/// # Errors
/// [`Error::Config`] for an unknown name; errors of the device.
pub fn workload(name: &str, device: &Device) -> Result<(Call, Unit)> {
    let (name, dtype) = name.strip_prefix("f16_").map_or((name, DType::F32), |name| (name, DType::F16));
    let uniform = |device: &Device, shape: &[usize]| uniform(device, shape)?.cast(dtype);
    if let Some(n) = name.strip_prefix("matmul_").and_then(|n| n.parse::<usize>().ok()) {
        let (a, b) = (uniform(device, &[n, n])?, uniform(device, &[n, n])?);
        return Ok((Box::new(move || Ok(vec![a.matmul(&b)?])), Unit::Flops(2.0 * (n as f64).powi(3))));
    }
    if let Some(rest) = name.strip_prefix("conv_") {
        let batch = if rest.ends_with("_b4") { 4 } else { 32 };
        let Convolution { channels: c, size, out_channels: k, kernel, stride, padding, groups, .. } =
            CONVOLUTIONS.into_iter().find(|conv| rest.starts_with(conv.name)).ok_or_else(|| unknown(name))?;
        let options = Conv2dOptions { stride: [stride; 2], padding: [padding; 2], groups, ..Default::default() };
        let (x, w) = (uniform(device, &[batch, c, size, size])?, uniform(device, &[k, c / groups, kernel, kernel])?);
        let out = (size + 2 * padding - kernel) / stride + 1;
        let macs = (batch * k * out * out * (c / groups) * kernel * kernel) as f64;
        if !rest.contains("fwdbwd") {
            return Ok((Box::new(move || Ok(vec![x.conv2d(&w, None, options)?])), Unit::Flops(2.0 * macs)));
        }
        let dy = Tensor::ones(device, &[batch, k, out, out])?.cast(dtype)?;
        let call = move || {
            let (x, w) = (x.requires_grad(), w.requires_grad());
            x.conv2d(&w, None, options)?.backward_with(&dy)?;
            Ok([x.grad(), w.grad()].into_iter().flatten().collect())
        };
        return Ok((Box::new(call), Unit::Flops(6.0 * macs)));
    }
    let sgd = OptimizerConfig::Sgd { lr: 0.01, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: false, maximize: false };
    let adam = OptimizerConfig::adam(1e-3);
    let plain = OptimizerConfig::sgd(0.01);
    Ok(match name {
        "train_lenet5" => (training(name, device, &[64, 1, 28, 28], sgd, 0.01, false)?, Unit::Step(64)),
        "train_cnn" => (training(name, device, &[64, 1, 28, 28], adam, 1e-3, false)?, Unit::Step(64)),
        "train_lstm" => (training(name, device, &[64, 28, 28], adam, 1e-3, false)?, Unit::Step(64)),
        "train_resnet18_cifar" | "train_resnet18_cifar_b4" => {
            let batch = if name.ends_with("_b4") { 4 } else { 32 };
            (training("train_resnet18_cifar", device, &[batch, 3, 32, 32], sgd, 0.01, false)?, Unit::Step(batch))
        }
        name if name.starts_with("infer_resnet18_224_b") => {
            let batch = if name.contains("_b8") { 8 } else { 1 };
            let folded = name.ends_with("_folded").then(Folded::default);
            let (module, x) = (network("infer_resnet18_224", device)?, uniform(device, &[batch, 3, 224, 224])?);
            let call = move || {
                let _guard = autodiff::no_grad();
                let ctx = Context::eval();
                let mut ctx = match &folded {
                    Some(folded) => ctx.folding(folded),
                    None => ctx,
                };
                Ok(vec![module.forward(&mut ctx, &x)?])
            };
            (Box::new(call), Unit::Step(batch))
        }
        "overhead" | "overhead_sync" => (training("mlp", device, &[32, 64], plain, 0.01, name == "overhead_sync")?, Unit::Overhead),
        "elementwise_16M" => {
            let x = uniform(device, &[1 << 24])?;
            (Box::new(move || Ok(vec![x.unary(Activation::Relu)?.affine(1.5, 0.5)?])), Unit::Bytes(8.0 * (1 << 24) as f64))
        }
        _ => (family(name, device)?, Unit::Traffic),
    })
}

/// One operation of a family of kernels, where there is one forward and backward, on activations of a small network.
fn family(name: &str, device: &Device) -> Result<Call> {
    let x = uniform(device, &[8, 64, 56, 56])?;
    let through = |x: Tensor, f: Box<dyn Fn(&Tensor) -> Result<Tensor>>| -> Result<Call> {
        let dy = Tensor::ones(device, f(&x)?.shape())?;
        Ok(Box::new(move || {
            let x = x.requires_grad();
            f(&x)?.backward_with(&dy)?;
            Ok(x.grad().into_iter().collect())
        }))
    };
    match name {
        "family_pool" => through(x, Box::new(|x| x.max_pool2d(Pool2dOptions::new(2)))),
        "family_norm" => {
            let (weight, bias) = (Tensor::ones(device, &[64])?, Tensor::zeros(device, &[64])?);
            through(x, Box::new(move |x| x.batch_norm(&weight, &bias, None, 0.1, 1e-5)))
        }
        "family_reduce" => Ok(Box::new(move || Ok(vec![x.sum(Some(&[0, 2, 3]), false)?]))),
        "family_scan" => Ok(Box::new(move || Ok(vec![x.cumsum(3)?]))),
        "family_softmax" => through(uniform(device, &[1024, 1000])?, Box::new(|x| x.log_softmax(1))),
        "family_layout" => Ok(Box::new(move || Ok(vec![x.permute(&[0, 2, 3, 1])?]))),
        "family_random" => through(x, Box::new(|x| x.dropout(0.5, Stream::new(1, "bench", 0, 0)))),
        "family_optimizer" => {
            let module = Linear::new(device, 2048, 1024, true)?;
            let mut optimizer = Optimizer::new(OptimizerConfig::adam(1e-3), vec![ParamGroup::new(named_parameters(&module))])?;
            // The gradients that this leaves are used by every step.
            module.forward(&mut Context::train(1, 0), &uniform(device, &[4, 2048])?)?.sum(None, false)?.backward()?;
            Ok(Box::new(move || {
                optimizer.step(1e-3)?;
                Ok(named_parameters(&module).into_iter().map(|(_, parameter)| parameter.tensor()).collect())
            }))
        }
        _ => Err(unknown(name)),
    }
}

/// The error of a name that no workload has.
pub fn unknown(name: &str) -> Error {
    Error::Config(format!("bench: there is no workload '{name}'. Workloads (a prefix names several): {}", names().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_runs_and_counts_what_its_definition_says() {
        for name in names().iter().filter(|name| *name != "startup" && *name != "overhead_sync") {
            let (device, counts) = Device::null();
            let (mut call, unit) = workload(name, &device).unwrap_or_else(|e| panic!("{name}: {e}"));
            let before = counts.lock().unwrap().ops.len();
            assert!(!call().unwrap_or_else(|e| panic!("{name}: {e}")).is_empty(), "{name}");
            let counts = counts.lock().unwrap();
            let flops: u64 = counts.ops[before..].iter().filter(|op| op.0.contains("conv2d") || op.0 == "matmul").map(|op| op.1).sum();
            match unit {
                Unit::Flops(n) => assert_eq!(flops as f64, n, "{name}"),
                Unit::Step(_) => assert!(flops > 0, "{name}"),
                _ => assert!(counts.ops.len() > before, "{name}"),
            }
        }
        assert!(workload("train_nothing", &Device::null().0).is_err());
    }
}
