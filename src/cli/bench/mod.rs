//! `mappa bench`: the workloads by which mappa is compared with its peers, and the protocol that they are timed by.
//!
//! A call is one forward pass, one training step or one operation. After a first call (which compiles) and a warm-up, blocks of `k` calls are timed, each
//! ended by reading one number of the last result back; the time of a call is a block's divided by `k`. Inputs are made once and stay on the device.
//!
//! A call's share of the roof is the least time that its operations could take, each by what the device computes or moves at most, over its time.

mod workloads;

use super::commands::profile;
use super::peak::{self, Peak};
use super::{BenchArgs, note, open_device, say};
use mappa::{DType, Device, Error, Result, Tensor};
use serde_json::json;
use std::process::ExitCode;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use workloads::{Call, Unit, names, unknown, workload};

/// What runs when no workload is named: a minute on a processor.
const DEFAULTS: [&str; 6] = ["matmul_1024", "conv_A_fwdbwd_b4", "train_lenet5", "train_cnn", "train_lstm", "overhead"];

/// Waits for a result by reading its first number.
fn read(results: &[Tensor]) -> Result<()> {
    for result in results {
        let flat = result.reshape(&[result.shape().len()])?;
        flat.narrow(0, 0, 1)?.cast(DType::F32)?.item_blocking()?;
    }
    Ok(())
}

/// What the operations of one call cost at least.
struct Least {
    operations: usize,
    bytes: f64,
    /// Each operation as long as its arithmetic or its traffic takes at the device's peak, one after the other.
    seconds: f64,
}

/// Counts the second call of a workload, without computing; `None` for one that reads values.
fn least(name: &str, peak: Peak) -> Result<Option<Least>> {
    let (null, counts) = Device::null();
    let (mut call, _) = workload(name, &null)?;
    if call().is_err() {
        return Ok(None);
    }
    let first = counts.lock().unwrap_or_else(PoisonError::into_inner).ops.len();
    call()?;
    let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    let ops = &counts.ops[first..];
    Ok(Some(Least {
        operations: ops.len(),
        bytes: ops.iter().map(|op| op.2 as f64).sum(),
        seconds: ops.iter().map(|op| peak.seconds(op.1 as f64, op.2 as f64)).sum(),
    }))
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

/// Parts of a long run, after each of which it is looked at.
const PARTS: usize = 10;

/// Megabytes of this process that are in memory; `None` where /proc does not tell.
fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.split_whitespace().next()?;
    kilobytes.parse::<f64>().ok().map(|kilobytes| kilobytes / 1024.0)
}

/// `calls` calls of a workload in [`PARTS`] parts: does anything grow?
fn endure(name: &str, call: &mut Call, calls: usize, device: &Device, json: bool) -> Result<()> {
    // What is made once is no growth.
    for _ in 0..3 {
        read(&call()?)?;
    }
    let mut times = Vec::new();
    for part in 0..PARTS {
        let (from, to) = (part * calls / PARTS, (part + 1) * calls / PARTS);
        let begun = Instant::now();
        let mut last = Vec::new();
        for i in from..to {
            last = call()?;
            // A loss is read now and then, as in a training.
            if i % 100 == 99 {
                read(&last)?;
            }
        }
        read(&last)?;
        let milliseconds = begun.elapsed().as_secs_f64() * 1e3 / (to - from) as f64;
        times.push(milliseconds);
        let (memory, resident) = (device.memory(), resident());
        let [live, pooled] = [memory.live_bytes, memory.pooled_bytes].map(|bytes| bytes as f64 / 1048576.0);
        if json {
            say(json!({
                "peer": "mappa", "version": env!("CARGO_PKG_VERSION"), "device": device.name(), "workload": name, "metric": "endurance",
                "calls": to, "ms": milliseconds, "resident_mib": resident, "live_mib": live, "pooled_mib": pooled,
            }));
        } else {
            let resident = resident.map_or("not known".into(), |resident| format!("{resident:.1} MiB"));
            say(format!(
                "{name:26} {to:>8} calls, {milliseconds:.3} ms each; process {resident}, device {live:.1} MiB in use, {pooled:.1} MiB free"
            ));
        }
    }
    if !json {
        let drift = 100.0 * (times[PARTS - 1] / times[0] - 1.0);
        say(format!("{name:26} the last tenth took {:.1} % {} than the first", drift.abs(), if drift < 0.0 { "less" } else { "more" }));
    }
    Ok(())
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
    if args.one_step {
        let (mut call, _) = workload(chosen[0], &device)?;
        read(&call()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(calls) = args.calls {
        if calls < PARTS {
            return Err(Error::Config(format!("--calls {calls} must be at least {PARTS}")));
        }
        if chosen.iter().any(|name| *name == "startup") {
            return Err(Error::Config("--calls: startup is not a call that can be repeated".into()));
        }
        note(format!("device  {line}"));
        for name in chosen {
            let (mut call, _) = workload(name, &device)?;
            endure(name, &mut call, calls, &device, args.device.json)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let kind = device.capabilities().kind;
    let threads = peak::threads(if kind == "cpu" { args.device.threads } else { 0 });
    let peak = Peak::measure(&device, threads)?;
    let (device, costs) = if args.profile { device.profiled() } else { (device, Default::default()) };
    if !args.device.json {
        note(format!("device  {line}"));
        note(format!("peak    {:.0} GFLOP/s of multiply-adds, {:.1} GB/s of copying", peak.flops * 1e-9, peak.bytes * 1e-9));
        note(format!("{:26} {:>12} {:>12} {:10} {:>11} {:>6} {:>8}", "workload", "median", "best", "", "a call", "calls", "of roof"));
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
        let least = if name == "startup" { None } else { least(name, peak)? };
        let share = least.as_ref().map(|least| least.seconds / median);
        let rows: Vec<(&str, f64, f64, &str)> = match unit {
            Some(Unit::Flops(n)) => vec![("throughput", n / median * 1e-9, n / best * 1e-9, "GFLOP/s")],
            Some(Unit::Bytes(n)) => vec![("bandwidth", n / median * 1e-9, n / best * 1e-9, "GB/s")],
            Some(Unit::Traffic) => {
                let n = least.as_ref().map_or(f64::NAN, |least| least.bytes);
                vec![("bandwidth", n / median * 1e-9, n / best * 1e-9, "GB/s")]
            }
            Some(Unit::Overhead) => {
                let mut rows = vec![("step_time", median * 1e3, best * 1e3, "ms/step")];
                // Small operations: what is left is what the host does for each.
                rows.extend(least.as_ref().map(|least| {
                    let each = 1e6 / least.operations.max(1) as f64;
                    ("host_time", median * each, best * each, "us/op")
                }));
                rows
            }
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
                    "other_load": timing.other_load, "share_of_roof": share,
                    "peak_flops": peak.flops, "peak_bytes_per_s": peak.bytes,
                }));
            } else {
                let call = format!("{:.2?}", Duration::from_secs_f64(median));
                let share = share.map_or(String::new(), |share| format!("{:.0} %", 100.0 * share));
                say(format!("{name:26} {value:12.3} {best:12.3} {unit:10} {call:>11} {calls:>6} {share:>8}"));
            }
        }
        if args.profile {
            pollster::block_on(device.sync())?;
            let mut costs = costs.lock().unwrap_or_else(PoisonError::into_inner);
            profile(&mut costs, timing.seconds.iter().sum::<f64>() * timing.calls as f64, peak);
            costs.clear();
        }
        if timing.other_load > 0.25 {
            note(format!("{name}: other processes kept {:.1} cores busy; do not trust this line", timing.other_load));
        }
    }
    Ok(ExitCode::SUCCESS)
}
