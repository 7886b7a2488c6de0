//! What a device can do at most, measured: fused multiply-adds from registers, and a copy. Together they are the roof of Williams, Waterman and
//! Patterson, "Roofline" (2009), that kernels are judged by.

use mappa::backend::profile::Cost;
use mappa::op::{Custom, CustomOp};
use mappa::shape::Spec;
use mappa::{DType, Device, Error, Result, Tensor};
use pulp::{Arch, Simd, WithSimd};
use std::time::Instant;

/// The fastest that a device was seen to compute and to move data.
#[derive(Clone, Copy)]
pub struct Peak {
    /// f32 operations a second; a multiply-add is two.
    pub flops: f64,
    /// Bytes a second, read and written, that do not come from a cache.
    pub bytes: f64,
}

/// Runs of each measurement, the best of which counts.
const RUNS: usize = 5;
/// Seconds of a run, about.
const RUN: f64 = 0.02;

impl Peak {
    /// Half a second. `threads` is what the CPU backend was given.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn measure(device: &Device, threads: usize) -> Result<Peak> {
        if device.capabilities().kind == "cpu" { cpu(self::threads(threads)) } else { gpu(device) }
    }

    /// The least seconds that so much work can take.
    pub fn seconds(&self, flops: f64, bytes: f64) -> f64 {
        (flops / self.flops).max(bytes / self.bytes)
    }
}

/// Threads that the CPU backend starts when it is given `asked`.
pub fn threads(asked: usize) -> usize {
    if asked > 0 { asked } else { std::thread::available_parallelism().map_or(1, |n| n.get()) }
}

/// What limits a training, in a line, from the times of its operations, its own time, and the part of that spent waiting for batches.
pub fn verdict(costs: &[Cost], seconds: f64, waited: f64, workers: usize, peak: Peak) -> String {
    let busy: f64 = costs.iter().map(|c| c.seconds).sum();
    let (idle, waited) = ((1.0 - busy / seconds).max(0.0), waited / seconds);
    if busy == 0.0 {
        return "this device has no clock: what it did when is not known".into();
    }
    if waited > 0.1 {
        return format!(
            "input pipeline bound: {:.0} % of the time went into waiting for batches, the device was idle {:.0} %; raise --workers ({workers} now)",
            100.0 * waited,
            100.0 * idle
        );
    }
    if idle > 0.4 {
        return format!(
            "host bound: the device was idle {:.0} % of the time, waiting for the next operation; a larger --batch-size gives it more at once",
            100.0 * idle
        );
    }
    let by_arithmetic = |c: &&Cost| c.flops as f64 / peak.flops > c.bytes as f64 / peak.bytes;
    let arithmetic: f64 = costs.iter().filter(by_arithmetic).map(|c| c.seconds).sum();
    let least: f64 = costs.iter().map(|c| peak.seconds(c.flops as f64, c.bytes as f64)).sum();
    let (bound, share) = if 2.0 * arithmetic > busy { ("arithmetic", arithmetic / busy) } else { ("memory", 1.0 - arithmetic / busy) };
    format!(
        "{bound} bound: {:.0} % of the operations' time is in those that {bound} limits, the device was idle {:.0} %; at its peak all of them would take {:.0} % of their time",
        100.0 * share,
        100.0 * idle,
        100.0 * least / busy
    )
}

/// The most units a second of `run(n)`, which does `n` times `units`; `n` grows until a run is long enough to time.
fn best(units: f64, mut run: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let mut timed = |n: usize| -> Result<f64> {
        let begun = Instant::now();
        run(n)?;
        Ok(begun.elapsed().as_secs_f64().max(1e-9))
    };
    let mut n = 1;
    let mut seconds = timed(n)?;
    while seconds < RUN && n < 1 << 24 {
        n = ((n as f64 * RUN / seconds * 1.2) as usize).clamp(n + 1, n * 16);
        seconds = timed(n)?;
    }
    let mut least = seconds;
    for _ in 1..RUNS {
        least = least.min(timed(n)?);
    }
    Ok(units * n as f64 / least)
}

/// Rounds of the loop of multiply-adds that count as one unit of work.
const ROUNDS: usize = 1024;
/// Sums that do not wait for each other: two multiply-adds a cycle, of four or five cycles each, keep ten busy.
const CHAINS: usize = 12;

/// A loop of multiply-adds on registers; the result depends on all of them.
struct MultiplyAdds(usize);

impl WithSimd for MultiplyAdds {
    type Output = (f32, usize);
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f32, usize) {
        let (a, b) = (simd.splat_f32s(std::hint::black_box(0.5)), simd.splat_f32s(std::hint::black_box(0.25)));
        let mut sums = [a; CHAINS];
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(*sum, a, b);
            }
        }
        let total = sums.into_iter().fold(b, |x, y| simd.add_f32s(x, y));
        (simd.reduce_sum_f32s(total), S::F32_LANES)
    }
}

fn cpu(threads: usize) -> Result<Peak> {
    let (_, lanes) = Arch::new().dispatch(MultiplyAdds(0));
    let on_all = |work: &(dyn Fn() + Sync)| {
        std::thread::scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        Ok(())
    };
    let units = (threads * ROUNDS * CHAINS * lanes * 2) as f64;
    let flops = best(units, |n| {
        on_all(&|| {
            std::hint::black_box(Arch::new().dispatch(MultiplyAdds(n * ROUNDS)));
        })
    });
    // Far more than a cache holds, in all.
    let len = (128 << 20) / threads;
    let mut parts: Vec<(Vec<u8>, Vec<u8>)> = (0..threads).map(|_| (vec![1; len], vec![0; len])).collect();
    let bytes = best((2 * len * threads) as f64, |n| {
        std::thread::scope(|scope| {
            for (from, to) in &mut parts {
                scope.spawn(move || {
                    for _ in 0..n {
                        to.copy_from_slice(std::hint::black_box(from));
                        std::hint::black_box(&to);
                    }
                });
            }
        });
        Ok(())
    });
    Ok(Peak { flops: flops?, bytes: bytes? })
}

/// An operation for its time alone: each invocation runs `rounds` of a loop of multiply-adds, or copies 16 elements.
#[derive(Debug)]
struct Loop {
    /// 0: a copy.
    rounds: u32,
}

/// Invocations of a workgroup.
const GROUP: usize = 64;
/// Elements of a vector.
const WIDTH: usize = 4;

impl Loop {
    fn invocations(&self, x: &Spec) -> usize {
        x.shape.len() / if self.rounds == 0 { 4 * WIDTH } else { WIDTH }
    }
}

impl CustomOp for Loop {
    fn name(&self) -> &'static str {
        if self.rounds == 0 { "copy" } else { "multiply_adds" }
    }
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        match inputs {
            [x] if x.dtype == DType::F32 && x.shape.len().is_multiple_of(GROUP * 4 * WIDTH) => Ok(vec![*x]),
            _ => Err(Error::Shape(format!("{} takes one f32 tensor of whole workgroups, got {inputs:?}", self.name()))),
        }
    }
    fn reference(&self, inputs: &[(Spec, &[f64])]) -> Vec<Vec<f64>> {
        // The loop goes towards b / (1 - a) = 0.5, whatever it begins with: a round does twelve steps for each of three sums.
        let rounds = |x: f64| if self.rounds == 0 { x } else { 3.0 * (0.5 + (x - 0.5) * 0.5f64.powf(4.0 * self.rounds as f64)) };
        vec![inputs[0].1.iter().map(|&x| rounds(x)).collect()]
    }
    fn shader(&self) -> &'static str {
        if self.rounds == 0 {
            "
//#include shared/index.wgsl
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(2) var<uniform> params: vec4<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = flat_group(group, groups) * 256u + lane;
    if i >= 4u * params.y { return; }
    y[i] = x[i];
    y[i + 64u] = x[i + 64u];
    y[i + 128u] = x[i + 128u];
    y[i + 192u] = x[i + 192u];
}
"
        } else {
            // Three times four sums, and four steps of each a round.
            "
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
@group(0) @binding(2) var<uniform> params: vec4<u32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.y { return; }
    let a = vec4<f32>(0.5);
    let b = vec4<f32>(0.25);
    var s = x[id.x];
    var t = s;
    var u = s;
    for (var i = 0u; i < params.x; i++) {
        s = fma(s, a, b); t = fma(t, a, b); u = fma(u, a, b);
        s = fma(s, a, b); t = fma(t, a, b); u = fma(u, a, b);
        s = fma(s, a, b); t = fma(t, a, b); u = fma(u, a, b);
        s = fma(s, a, b); t = fma(t, a, b); u = fma(u, a, b);
    }
    y[id.x] = s + t + u;
}
"
        }
    }
    fn params(&self, inputs: &[Spec], _: &[Spec]) -> Vec<u8> {
        [self.rounds, self.invocations(&inputs[0]) as u32, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
    }
    fn workgroups(&self, inputs: &[Spec], _: &[Spec]) -> [u32; 3] {
        let groups = (self.invocations(&inputs[0]) / GROUP) as u32;
        let x = groups.min(65_535);
        [x, groups.div_ceil(x), 1]
    }
}

fn gpu(device: &Device) -> Result<Peak> {
    let run = |x: &Tensor, op: &Custom, n: usize| -> Result<()> {
        let mut y = x.clone();
        for _ in 0..n {
            y = Tensor::apply(op.clone(), &[x])?.swap_remove(0);
        }
        y.reshape(&[y.shape().len()])?.narrow(0, 0, 1)?.item_blocking()?;
        Ok(())
    };
    // Enough invocations for the largest GPU; few rounds for the smallest, which must not be kept for seconds.
    let (invocations, rounds) = (1 << 16, 64);
    let x = Tensor::zeros(device, &[invocations * WIDTH])?;
    let op = Custom::new(Loop { rounds });
    let units = (invocations * rounds as usize * 3 * 4 * WIDTH * 2) as f64;
    let flops = best(units, |n| run(&x, &op, n))?;
    let x = Tensor::zeros(device, &[16 << 20])?;
    let op = Custom::new(Loop { rounds: 0 });
    let bytes = best((2 * 4 * x.shape().len()) as f64, |n| run(&x, &op, n))?;
    Ok(Peak { flops, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mappa::cases::{Case, Data, run_case};

    #[test]
    fn a_cpu_multiplies_more_often_than_it_moves() {
        let peak = Peak::measure(&Device::cpu(1).unwrap(), 1).unwrap();
        assert!(peak.flops > 1e8 && peak.bytes > 1e7 && peak.flops.is_finite() && peak.bytes.is_finite());
        let even = Peak { flops: 8.0, bytes: 2.0 };
        assert_eq!((even.seconds(8.0, 0.0), even.seconds(8.0, 6.0)), (1.0, 3.0));
    }

    #[test]
    fn a_verdict_names_what_limits() {
        let peak = Peak { flops: 10.0, bytes: 10.0 };
        let cost = |seconds: f64, flops: u64, bytes: u64| Cost { seconds, flops, bytes, ..Cost::default() };
        let costs = [cost(4.0, 20, 1), cost(2.0, 1, 10)];
        let of = |costs: &[Cost], seconds: f64, waited: f64| verdict(costs, seconds, waited, 2, peak);
        let text = of(&costs, 10.0, 3.0);
        assert!(text.starts_with("input pipeline bound: 30 %") && text.contains("idle 40 %; raise --workers (2 now)"), "{text}");
        assert!(of(&costs, 15.0, 0.0).starts_with("host bound: the device was idle 60 %"));
        let text = of(&costs, 7.5, 0.1);
        assert!(
            text.starts_with("arithmetic bound: 67 %") && text.contains("idle 20 %") && text.ends_with("take 50 % of their time"),
            "{text}"
        );
        assert!(of(&costs[1..], 2.0, 0.0).starts_with("memory bound: 100 %"));
        assert!(of(&[], 2.0, 0.0).contains("no clock"));
    }

    #[cfg(feature = "gpu")]
    #[test]
    fn what_is_timed_on_a_gpu_computes_what_it_says() {
        let gpu = match pollster::block_on(mappa::backend::gpu::Gpu::open(None)) {
            Ok(gpu) => gpu,
            // As in tests/common: a missing adapter fails where one is asked for.
            Err(Error::NoDevice(message)) if std::env::var("MAPPA_REQUIRE_GPU").as_deref() != Ok("1") => {
                eprintln!("skipped: {message}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let reference = mappa::backend::cpu::Cpu::reference().unwrap();
        for rounds in [0, 1, 3] {
            let case = Case {
                op: Custom::new(Loop { rounds }).into(),
                inputs: vec![Data::Uniform(vec![2 * GROUP * 4 * WIDTH], -1.0, 1.0)],
                differentiable: false,
            };
            let outcome = run_case(&case, &reference, &gpu).unwrap();
            assert!(outcome.failure.is_none(), "{rounds} rounds: {outcome:?}");
        }
        let peak = Peak::measure(&Device::new(gpu), 1).unwrap();
        assert!(peak.flops > 1e8 && peak.bytes > 1e7 && peak.flops.is_finite() && peak.bytes.is_finite());
    }
}
