//! Every shader in every specialisation, compiled by a browser's own compiler: naga accepts what Chrome refuses, such as a barrier in control flow that
//! Chrome cannot prove uniform. A page makes each module and pipeline and sends back what the compiler said.
//!
//! Needs Chromium (`CHROMIUM` names it); without one the test says so, and fails with `MAPPA_REQUIRE_CHROMIUM=1`.
#![cfg(feature = "gpu")]

#[path = "common/browser.rs"]
mod browser;
mod common;

use mappa::backend::gpu::shader::{Sources, Storage};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PAGE: &str = r#"<!doctype html><script type="module">
const report = { modules: 0, pipelines: 0, leftOut: 0, messages: [] };
try {
    const adapter = await navigator.gpu.requestAdapter();
    // Some variants need a feature that not every browser's device has.
    report.f16 = adapter.features.has("shader-f16");
    report.subgroups = adapter.features.has("subgroups");
    const features = ["shader-f16", "subgroups"].filter(name => adapter.features.has(name));
    const device = await adapter.requestDevice({ requiredFeatures: features });
    report.adapter = [adapter.info?.vendor, adapter.info?.architecture, adapter.info?.description].join(" ");
    const modules = new Map();
    for (const { name, text, entry, constants, half, lanes } of await (await fetch("/shaders")).json()) {
        if (half && !report.f16 || lanes && !report.subgroups) { report.leftOut++; continue; }
        if (!modules.has(text)) {
            const module = device.createShaderModule({ code: text });
            for (const m of (await module.getCompilationInfo()).messages)
                if (m.type == "error") report.messages.push(`${name}:${m.lineNum}: ${m.message}`);
            modules.set(text, module);
            report.modules++;
        }
        try {
            await device.createComputePipelineAsync({ layout: "auto", compute: { module: modules.get(text), entryPoint: entry, constants } });
            report.pipelines++;
        } catch (e) { report.messages.push(`${name} ${entry} ${JSON.stringify(constants)}: ${e.message}`); }
    }
} catch (e) { report.messages.push(`the page failed: ${e}`); }
await fetch("/report", { method: "POST", body: JSON.stringify(report) });
</script>"#;

/// Ends the browser with the test, however that ends.
struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves one request; the body of a POST is the report.
fn answer(stream: TcpStream, shaders: &str) -> Option<Value> {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request).ok()?;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? <= 2 {
            break;
        }
        if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (kind, text) = match request.split(' ').nth(1)? {
        "/" => ("text/html", PAGE),
        "/shaders" => ("application/json", shaders),
        _ => ("text/plain", ""),
    };
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", text.len());
    (&stream).write_all((head + text).as_bytes()).ok()?;
    request.starts_with("POST /report").then(|| serde_json::from_slice(&body).unwrap())
}

#[test]
fn a_browser_compiles_every_specialisation() {
    let Some(chromium) = browser::chromium() else { return };
    // Browsers have no cooperative matrices.
    let mut pipelines = common::pipelines();
    pipelines.retain(|d| d.kernel.variant.matrices == 0);
    let shader = |d: &mappa::backend::gpu::kernels::Dispatch| {
        let text = Sources::default().expand(d.kernel.file, d.kernel.variant, &d.kernel.specs).unwrap();
        let lanes = d.kernel.variant.lanes;
        // naga knows no such line, the language asks for it.
        let text = if lanes { format!("enable subgroups;\n{text}") } else { text };
        let constants: serde_json::Map<String, Value> = d.kernel.constants.iter().map(|&(k, v)| (k.to_owned(), json!(v))).collect();
        json!({ "name": d.kernel.file, "text": text, "entry": d.kernel.entry, "constants": constants, "half": d.kernel.variant.storage != Storage::F32, "lanes": lanes })
    };
    let shaders = serde_json::to_string(&pipelines.iter().map(shader).collect::<Vec<_>>()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let profile = tempfile::tempdir().unwrap();
    let flags = "--headless --no-sandbox --disable-quic --no-first-run --disable-background-networking --disable-component-update --disable-sync \
        --enable-unsafe-webgpu --use-webgpu-adapter=swiftshader --enable-features=Vulkan";
    let child = Command::new(&chromium)
        .args(flags.split_whitespace())
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://{}/", listener.local_addr().unwrap()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut browser = Browser(child);
    let begun = Instant::now();
    let report = loop {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Some(report) = answer(stream, &shaders) {
                    break report;
                }
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
        assert!(browser.0.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(300), "{chromium} sent no report");
    };
    println!(
        "{}: {} modules, {} pipelines, {} left out (f16: {}, subgroups: {}), {:.1} s",
        report["adapter"],
        report["modules"],
        report["pipelines"],
        report["leftOut"],
        report["f16"],
        report["subgroups"],
        begun.elapsed().as_secs_f64()
    );
    let messages: Vec<&str> = report["messages"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(messages.is_empty(), "{} messages:\n{}", messages.len(), messages.join("\n"));
    // All, or all but the variants that need what the browser's device has not.
    let lacks = |feature: &str, needed: bool| needed && report[feature] != true;
    let left_out = |d: &mappa::backend::gpu::kernels::Dispatch| {
        lacks("f16", d.kernel.variant.storage != Storage::F32) || lacks("subgroups", d.kernel.variant.lanes)
    };
    let left_out = pipelines.iter().filter(|d| left_out(d)).count();
    assert_eq!((&report["pipelines"], &report["leftOut"]), (&json!(pipelines.len() - left_out), &json!(left_out)));
}
