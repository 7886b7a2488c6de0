//! `mappa doctor`: what this machine has, whether it works, and what to do where it does not.

use super::{DoctorArgs, say};
use mappa::backend::KernelTable;
use mappa::{Device, Result, verify};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

/// Good, of note, or wrong.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Good,
    Note,
    Wrong,
}

/// What was found, and what to do about it.
struct Finding {
    what: &'static str,
    state: State,
    found: String,
    hint: Option<String>,
}

impl Finding {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Finding { what, state: State::Good, found: found.into(), hint: None }
    }
    fn note(what: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Finding { what, state: State::Note, found: found.into(), hint: Some(hint.into()) }
    }
    fn wrong(what: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Finding { what, state: State::Wrong, found: found.into(), hint: Some(hint.into()) }
    }
}

pub fn doctor(args: &DoctorArgs) -> Result<ExitCode> {
    let mut wrong = 0;
    let mut report = |finding: Finding| {
        wrong += (finding.state == State::Wrong) as usize;
        let state = ["ok", "note", "wrong"][finding.state as usize];
        if args.json {
            say(json!({ "event": "finding", "what": finding.what, "state": state, "found": finding.found, "hint": finding.hint }));
            return;
        }
        say(format!("{state:5}  {:9}  {}", finding.what, finding.found));
        if let Some(hint) = finding.hint {
            say(format!("                  -> {hint}"));
        }
    };
    let features: Vec<&str> =
        [("gpu", cfg!(feature = "gpu")), ("image", cfg!(feature = "image"))].iter().filter(|f| f.1).map(|f| f.0).collect();
    let built = if cfg!(debug_assertions) { "unoptimised" } else { "optimised" };
    let version =
        format!("{} ({built}, {}-{}, {})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS, features.join(", "));
    report(match cfg!(debug_assertions) {
        true => Finding::note("mappa", version, "build with --release: training is many times faster"),
        false => Finding::good("mappa", version),
    });
    report(cpu());
    report(memory());
    let cpu = Device::cpu(0)?;
    report(self_test("self-test", "the CPU", &cpu));
    adapters(&mut report);
    report(writable("runs", Path::new("."), "run mappa where files may be written, or give train --out DIR"));
    report(writable("temporary", &std::env::temp_dir(), "set TMPDIR to a folder with room: pictures beyond 2 GiB are kept there"));
    report(match mappa::backend::cache_folder() {
        Some(cache) => Finding::good("cache", format!("{}: self-tests that passed", cache.display())),
        None => Finding::note("cache", "no folder", "set HOME or XDG_CACHE_HOME, so that a GPU is not tested at each start"),
    });
    if !args.json {
        say(match wrong {
            0 => "nothing is wrong".to_owned(),
            1 => "1 thing is wrong".to_owned(),
            n => format!("{n} things are wrong"),
        });
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn cpu() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    #[cfg(target_arch = "x86_64")]
    let vectors = if std::is_x86_feature_detected!("avx512f") {
        "AVX-512"
    } else if std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma") {
        "AVX2"
    } else {
        "no AVX2"
    };
    #[cfg(not(target_arch = "x86_64"))]
    let vectors = std::env::consts::ARCH;
    let found = format!("{cores} threads, {vectors}; kernels: {}", KernelTable::CPU);
    match vectors {
        "no AVX2" => Finding::note("CPU", found, "without AVX2 and FMA the CPU backend takes several times as long"),
        _ => Finding::good("CPU", found),
    }
}

/// Of Linux; elsewhere nothing is known.
fn memory() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    match (kib("MemTotal:"), kib("MemAvailable:")) {
        (Some(total), Some(free)) => {
            let found = format!("{:.1} GiB, {:.1} GiB free", total as f64 / 1048576.0, free as f64 / 1048576.0);
            match free {
                0..1_048_576 => Finding::note("memory", found, "train with a small --batch-size, or close other programs"),
                _ => Finding::good("memory", found),
            }
        }
        _ => Finding::good("memory", "not known on this system"),
    }
}

/// One case of each kernel against the reference.
fn self_test(what: &'static str, name: &str, device: &Device) -> Finding {
    let again = "mappa verify --device DEVICE says more; please report it with the first failure that it prints";
    match verify::cases(device, &[], true, &mut |_| {}) {
        Ok(summary) if summary.is_ok() => Finding::good(what, format!("{name}: every kernel is right")),
        Ok(summary) => {
            let first = summary.first_failure.map_or(String::new(), |row| format!(": {}", row.name));
            Finding::wrong(what, format!("{name} computes wrongly{first}"), again)
        }
        Err(error) => Finding::wrong(what, format!("{name} fails: {error}"), again),
    }
}

#[cfg(feature = "gpu")]
fn adapters(report: &mut dyn FnMut(Finding)) {
    let adapters = pollster::block_on(mappa::backend::gpu::adapters());
    if adapters.is_empty() {
        report(Finding::note(
            "GPU",
            "none was found",
            "training runs on the CPU; install the GPU's Vulkan driver (on Debian mesa-vulkan-drivers, which also brings a software GPU)",
        ));
    }
    let real = adapters.iter().any(|adapter| !adapter.software);
    for a in &adapters {
        let found = format!("gpu:{}: {} ({}, {}, {}); {}", a.index, a.name, a.kind, a.api, a.driver, a.features.join(", "));
        report(match a.software && !real {
            true => Finding::note("GPU", found, "a software GPU: for tests; --device auto takes the CPU"),
            false => Finding::good("GPU", found),
        });
        match pollster::block_on(Device::open(mappa::DeviceChoice::Gpu(Some(a.index)), 0)) {
            Ok((device, _)) => {
                let c = device.capabilities();
                report(Finding::good(
                    "limits",
                    format!("gpu:{}: tensors of up to {:.2} GB; kernels: {}", a.index, 1e-9 * c.max_buffer_bytes as f64, c.kernels),
                ));
                report(self_test("self-test", &format!("gpu:{}", a.index), &device));
            }
            Err(error) => report(Finding::wrong("GPU", format!("gpu:{}: {error}", a.index), "update its driver, or use --device cpu")),
        }
    }
}

#[cfg(not(feature = "gpu"))]
fn adapters(report: &mut dyn FnMut(Finding)) {
    report(Finding::note("GPU", "this build has no GPU backend", "build with the feature gpu"));
}

/// Whether a file can be made in a folder.
fn writable(what: &'static str, folder: &Path, hint: &str) -> Finding {
    let shown = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    match tempfile::NamedTempFile::new_in(folder) {
        Ok(_) => Finding::good(what, format!("{}: can be written", shown.display())),
        Err(error) => Finding::wrong(what, format!("{}: {error}", shown.display()), hint),
    }
}
