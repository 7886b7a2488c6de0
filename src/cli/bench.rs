//! `mappa bench`: the workloads by which mappa is compared with its peers, and the protocol that they are timed by.
//!
//! A call is one forward pass, one training step or one operation. After a first call (which compiles) and a warm-up, blocks of `k` calls are timed, each
//! ended by reading one number of the last result back; the time of a call is a block's divided by `k`. Inputs are made once and stay on the device.

use super::commands::profile;
use super::{BenchArgs, note, open_device, say};
use mappa::nn::recurrent::{Cell, RecurrentNet, RecurrentOptions};
use mappa::nn::{Activation, Context, Conv2d, Flatten, Linear, MaxPool2d, Module, Sequential, initialize, join, named_parameters};
use mappa::op::Conv2dOptions;
use mappa::optim::{Optimizer, OptimizerConfig, ParamGroup};
use mappa::rng::Stream;
use mappa::{Device, Error, Result, Tensor, autodiff, models};
use serde_json::json;
use std::process::ExitCode;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// A convolution: name, C, H = W, K, kernel, stride, padding, groups.
const CONVS: [(&str, usize, usize, usize, usize, usize, usize, usize); 6] = [
    ("A", 64, 56, 64, 3, 1, 1, 1),
    ("B", 3, 224, 64, 7, 2, 3, 1),
    ("C", 256, 14, 256, 3, 1, 1, 1),
    ("D", 256, 56, 64, 1, 1, 0, 1),
    ("E", 128, 56, 128, 3, 1, 1, 128),
    ("F", 128, 28, 256, 3, 2, 1, 1),
];

/// What runs when no workload is named: a minute on a processor.
const DEFAULTS: [&str; 6] = ["matmul_1024", "conv_A_fwdbwd_b4", "train_lenet5", "train_cnn", "train_lstm", "overhead"];

/// A call of it does the work, and gives a tensor whose first element is read to wait for it.
type Call = Box<dyn FnMut() -> Result<Vec<Tensor>>>;

/// What a call counts.
enum Unit {
    /// Floating-point operations.
    Flops(f64),
    /// Bytes.
    Bytes(f64),
    /// A training or inference step of so many images.
    Step(usize),
    /// A step whose images are of no interest.
    Overhead,
}

/// The workloads in order, as `../peers` name them.
pub fn names() -> Vec<String> {
    let mut names: Vec<String> = [256, 512, 1024, 2048, 4096].iter().map(|n| format!("matmul_{n}")).collect();
    for (name, ..) in CONVS {
        for pass in ["fwd", "fwdbwd"] {
            names.extend([format!("conv_{name}_{pass}_b4"), format!("conv_{name}_{pass}")]);
        }
    }
    let rest = "train_lenet5 train_cnn train_resnet18_cifar_b4 train_resnet18_cifar infer_resnet18_224_b1 infer_resnet18_224_b8 train_lstm \
                overhead overhead_sync elementwise_16M startup";
    names.extend(rest.split_whitespace().map(str::to_owned));
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
        let h = self.lstm.run(x, None, None)?.h_n;
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
        "train_lenet5" => return models::build("lenet5", [1, 28, 28], 10, device, 1),
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
        "train_resnet18_cifar" => return models::build("resnet18", [3, 32, 32], 10, device, 1),
        "infer_resnet18_224" => return models::build("resnet18", [3, 224, 224], 1000, device, 1),
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

fn workload(name: &str, device: &Device) -> Result<(Call, Unit)> {
    if let Some(n) = name.strip_prefix("matmul_").and_then(|n| n.parse::<usize>().ok()) {
        let (a, b) = (uniform(device, &[n, n])?, uniform(device, &[n, n])?);
        return Ok((Box::new(move || Ok(vec![a.matmul(&b)?])), Unit::Flops(2.0 * (n as f64).powi(3))));
    }
    if let Some(rest) = name.strip_prefix("conv_") {
        let batch = if rest.ends_with("_b4") { 4 } else { 32 };
        let (_, c, size, k, kernel, stride, padding, groups) =
            CONVS.into_iter().find(|conv| rest.starts_with(conv.0)).ok_or_else(|| unknown(name))?;
        let options = Conv2dOptions { stride: [stride; 2], padding: [padding; 2], groups, ..Default::default() };
        let (x, w) = (uniform(device, &[batch, c, size, size])?, uniform(device, &[k, c / groups, kernel, kernel])?);
        let out = (size + 2 * padding - kernel) / stride + 1;
        let macs = (batch * k * out * out * (c / groups) * kernel * kernel) as f64;
        if !rest.contains("fwdbwd") {
            return Ok((Box::new(move || Ok(vec![x.conv2d(&w, None, options)?])), Unit::Flops(2.0 * macs)));
        }
        let dy = Tensor::ones(device, &[batch, k, out, out])?;
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
        "infer_resnet18_224_b1" | "infer_resnet18_224_b8" => {
            let batch = if name.ends_with("_b8") { 8 } else { 1 };
            let (module, x) = (network("infer_resnet18_224", device)?, uniform(device, &[batch, 3, 224, 224])?);
            let call = move || {
                let _guard = autodiff::no_grad();
                Ok(vec![module.forward(&mut Context::eval(), &x)?])
            };
            (Box::new(call), Unit::Step(batch))
        }
        "overhead" | "overhead_sync" => (training("mlp", device, &[32, 64], plain, 0.01, name == "overhead_sync")?, Unit::Overhead),
        "elementwise_16M" => {
            let x = uniform(device, &[1 << 24])?;
            (Box::new(move || Ok(vec![x.unary(Activation::Relu)?.affine(1.5, 0.5)?])), Unit::Bytes(8.0 * (1 << 24) as f64))
        }
        _ => return Err(unknown(name)),
    })
}

fn unknown(name: &str) -> Error {
    Error::Config(format!("bench: there is no workload '{name}'. Workloads (a prefix names several): {}", names().join(", ")))
}

/// Waits for a result by reading its first number.
fn read(results: &[Tensor]) -> Result<()> {
    for result in results {
        let flat = result.reshape(&[result.shape().len()])?;
        flat.narrow(0, 0, 1)?.item_blocking()?;
    }
    Ok(())
}

/// Seconds of each block's call, calls a block, and the cores that other processes kept busy meanwhile.
struct Timing {
    seconds: Vec<f64>,
    calls: usize,
    other_load: f64,
}

impl Timing {
    fn median(&self) -> f64 {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let n = sorted.len();
        (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0
    }

    fn best(&self) -> f64 {
        self.seconds.iter().copied().fold(f64::INFINITY, f64::min)
    }
}

/// Busy seconds of the machine's cores, and of this process; `None` where /proc does not tell.
fn busy() -> Option<(f64, f64)> {
    let number = |text: Option<&str>| text.and_then(|t| t.parse::<f64>().ok());
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let mut words = stat.lines().next()?.split_whitespace().skip(1);
    let fields: Vec<f64> = (0..7).filter_map(|_| number(words.next())).collect();
    let [user, nice, system, _, _, irq, softirq] = fields[..] else { return None };
    let own = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name in parentheses: state is field 3, user and system time 14 and 15.
    let mut own = own.rsplit_once(')')?.1.split_whitespace().skip(11);
    let own = number(own.next())? + number(own.next())?;
    // Ticks are hundredths of a second on Linux.
    Some(((user + nice + system + irq + softirq) / 100.0, own / 100.0))
}

/// Times `call`; `None` when one call takes longer than `longest`.
fn time(call: &mut Call, budget: f64, longest: f64) -> Result<Option<Timing>> {
    let once = |call: &mut Call| -> Result<f64> {
        let begun = Instant::now();
        read(&call()?)?;
        Ok(begun.elapsed().as_secs_f64())
    };
    let mut first = once(call)?;
    if first > longest {
        // The first call may have compiled for long.
        first = once(call)?;
        if first > longest {
            return Ok(None);
        }
    }
    for _ in 0..if first > 0.5 { 2 } else { 5 } {
        once(call)?;
    }
    let one = once(call)?;
    let calls = ((0.1 / one.max(1e-9)) as usize).clamp(1, 1000);
    let least = if one > 4.0 { 3 } else { 5 };
    let (mut seconds, mut total, before) = (Vec::new(), 0.0, busy());
    while seconds.len() < least || (total < budget && seconds.len() < 50) {
        let begun = Instant::now();
        let mut last = Vec::new();
        for _ in 0..calls {
            last = call()?;
        }
        read(&last)?;
        let block = begun.elapsed().as_secs_f64();
        seconds.push(block / calls as f64);
        total += block;
    }
    let other = |((all0, own0), (all1, own1)): ((f64, f64), (f64, f64))| (((all1 - all0) - (own1 - own0)) / total).max(0.0);
    Ok(Some(Timing { seconds, calls, other_load: before.zip(busy()).map_or(0.0, other) }))
}

/// From before a process is started until its first training step of train_lenet5 is done and its loss read: five times.
fn startup(args: &BenchArgs) -> Result<Timing> {
    let binary = std::env::current_exe().map_err(|e| Error::Device(format!("bench startup: this program's own file is not known: {e}")))?;
    let mut child =
        vec!["bench".to_owned(), "train_lenet5".into(), "--one-step".into(), "--threads".into(), args.device.threads.to_string()];
    child.extend(args.device.device.iter().flat_map(|device| ["--device".to_owned(), device.clone()]));
    let mut seconds = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        let status = std::process::Command::new(&binary).args(&child).stdout(std::process::Stdio::null()).status();
        seconds.push(begun.elapsed().as_secs_f64());
        if !status.as_ref().is_ok_and(|status| status.success()) {
            return Err(Error::Device(format!("bench startup: {} {} failed: {status:?}", binary.display(), child.join(" "))));
        }
    }
    Ok(Timing { seconds, calls: 1, other_load: 0.0 })
}

pub fn bench(args: &BenchArgs) -> Result<ExitCode> {
    let all = names();
    let wanted: Vec<String> = if args.workloads.is_empty() { DEFAULTS.map(str::to_owned).to_vec() } else { args.workloads.clone() };
    let mut chosen: Vec<&String> = Vec::new();
    for name in &wanted {
        let before = chosen.len();
        // A name itself, or all that begin with it.
        let exact = all.iter().filter(|known| *known == name).collect::<Vec<_>>();
        chosen.extend(if exact.is_empty() { all.iter().filter(|known| known.starts_with(name.as_str())).collect() } else { exact });
        if chosen.len() == before {
            return Err(unknown(name));
        }
    }
    if !(args.budget > 0.0 && args.max_call > 0.0) {
        return Err(Error::Config(format!("--budget {} and --max-call {} must be above 0 seconds", args.budget, args.max_call)));
    }
    let (device, line) = open_device(&args.device)?;
    let (device, costs) = if args.profile { device.profiled() } else { (device, Default::default()) };
    if args.one_step {
        let (mut call, _) = workload(chosen[0], &device)?;
        read(&call()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let kind = device.capabilities().kind;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = if kind == "cpu" && args.device.threads > 0 { args.device.threads } else { threads };
    if !args.device.json {
        note(format!("device  {line}"));
        note(format!("{:26} {:>12} {:>12} {:10} {:>11} {:>6}", "workload", "median", "best", "", "a call", "calls"));
    }
    for name in chosen {
        let (timing, unit) = if name == "startup" {
            (Some(startup(args)?), None)
        } else {
            let (mut call, unit) = workload(name, &device)?;
            (time(&mut call, args.budget, args.max_call)?, Some(unit))
        };
        let Some(timing) = timing else {
            note(format!("{name}: left out, one call takes more than {} s (--max-call)", args.max_call));
            continue;
        };
        let (median, best) = (timing.median(), timing.best());
        let rows: Vec<(&str, f64, f64, &str)> = match unit {
            Some(Unit::Flops(n)) => vec![("throughput", n / median * 1e-9, n / best * 1e-9, "GFLOP/s")],
            Some(Unit::Bytes(n)) => vec![("bandwidth", n / median * 1e-9, n / best * 1e-9, "GB/s")],
            Some(Unit::Overhead) => vec![("step_time", median * 1e3, best * 1e3, "ms/step")],
            Some(Unit::Step(images)) => vec![
                ("step_time", median * 1e3, best * 1e3, "ms/step"),
                ("images_per_s", images as f64 / median, images as f64 / best, "images/s"),
            ],
            None => vec![("startup", median, best, "s")],
        };
        let calls = timing.calls * timing.seconds.len();
        for (metric, value, best, unit) in rows {
            if args.device.json {
                say(json!({
                    "peer": "mappa", "version": env!("CARGO_PKG_VERSION"), "backend": kind, "device": device.name(), "threads": threads,
                    "workload": name, "metric": metric, "value": value, "unit": unit, "iters": calls, "best": best,
                    "other_load": timing.other_load,
                }));
            } else {
                let call = format!("{:.2?}", Duration::from_secs_f64(median));
                say(format!("{name:26} {value:12.3} {best:12.3} {unit:10} {call:>11} {calls:>6}"));
            }
        }
        if args.profile {
            pollster::block_on(device.sync())?;
            let mut costs = costs.lock().unwrap_or_else(PoisonError::into_inner);
            profile(&mut costs, timing.seconds.iter().sum::<f64>() * timing.calls as f64);
            costs.clear();
        }
        if timing.other_load > 0.25 {
            note(format!("{name}: other processes kept {:.1} cores busy; do not trust this line", timing.other_load));
        }
    }
    Ok(ExitCode::SUCCESS)
}
