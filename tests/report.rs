//! Reports as a browser shows them: nothing is loaded, nothing fails, every chart and picture is there.
#![cfg(all(feature = "cli", feature = "image"))]

#[path = "common/browser.rs"]
mod browser;
#[path = "common/shared.rs"]
mod reference;

use reference::shared;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Looks at the page from inside, and leaves what it saw in an element.
const PROBE: &str = r#"<script>
const violations = [];
document.addEventListener("securitypolicyviolation", e => violations.push(e.blockedURI));
window.onload = () => {
    const seen = {
        requests: performance.getEntriesByType("resource").map(e => e.name).filter(name => !name.startsWith("data:")),
        violations,
        charts: [...document.querySelectorAll("svg")].map(svg => [svg.getAttribute("aria-label"),
            [...svg.querySelectorAll("polyline, rect.bin, circle")].filter(mark => { const b = mark.getBBox(); return b.width > 0 || b.height > 0; }).length]),
        pictures: document.images.length,
        broken: [...document.images].filter(image => !image.complete || image.naturalWidth == 0).length,
        cells: [...document.querySelectorAll(".matrix td")].reduce((sum, cell) => sum + Number(cell.textContent || 0), 0),
        scores: JSON.parse(document.getElementById("scores").textContent),
        overflow: document.documentElement.scrollWidth > window.innerWidth,
    };
    const element = document.createElement("pre");
    element.id = "probe";
    element.textContent = btoa(unescape(encodeURIComponent(JSON.stringify(seen))));
    document.body.appendChild(element);
};
</script>"#;

fn train(out: &Path, flags: &str) {
    let binary = assert_cmd::cargo::cargo_bin("mappa");
    let output = Command::new(binary).args(["train", "--device", "cpu", "--out"]).arg(out).args(flags.split(' ')).output().unwrap();
    assert!(output.status.success(), "{flags}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Opens a report, and says what the page saw.
fn look(chromium: &str, run: &Path) -> Value {
    let text = std::fs::read_to_string(run.join("report.html")).unwrap();
    assert!(text.len() < 5_000_000, "{} bytes", text.len());
    let policy = "default-src 'none'; ";
    assert!(text.contains(policy));
    let probed =
        text.replacen(policy, &format!("{policy}script-src 'unsafe-inline'; "), 1).replacen("</head>", &format!("{PROBE}</head>"), 1);
    let page = run.join("probed.html");
    std::fs::write(&page, probed).unwrap();
    let profile = tempfile::tempdir().unwrap();
    let flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update \
        --disable-sync --enable-logging=stderr --window-size=1200,900 --virtual-time-budget=5000 --dump-dom";
    let output = Command::new(chromium)
        .args(flags.split_whitespace())
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let (dom, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let console: Vec<&str> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert!(console.is_empty(), "{console:?}");
    let probe = dom.split("<pre id=\"probe\">").nth(1).unwrap_or_else(|| panic!("the page said nothing: {log}")).split('<').next().unwrap();
    use base64::Engine;
    serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(probe).unwrap()).unwrap()
}

fn check(name: &str, run: &Path, chromium: &str, matrix: bool) -> Value {
    let seen = look(chromium, run);
    println!(
        "{name}: {} charts, {} pictures, {} bytes",
        seen["charts"].as_array().unwrap().len(),
        seen["pictures"],
        std::fs::metadata(run.join("report.html")).unwrap().len()
    );
    for none in ["requests", "violations"] {
        assert_eq!(seen[none], serde_json::json!([]), "{name}: {none}");
    }
    assert_eq!((&seen["broken"], &seen["overflow"]), (&0.into(), &false.into()), "{name}");
    assert!(seen["pictures"].as_u64().unwrap() > 0, "{name}");
    let charts = seen["charts"].as_array().unwrap();
    assert!(charts.len() >= 7 && charts.iter().all(|chart| chart[1].as_u64().unwrap() > 0), "{name}: {charts:?}");
    let scores = &seen["scores"];
    let cells = scores["confusion_matrix"].as_array().unwrap();
    assert_eq!(cells.iter().map(|cell| cell[2].as_u64().unwrap()).sum::<u64>(), scores["images"].as_u64().unwrap(), "{name}");
    if matrix {
        assert_eq!(seen["cells"], scores["images"], "{name}");
    }
    seen
}

#[test]
fn a_browser_shows_reports_of_digits_mnist_and_flowers() {
    let Some(chromium) = browser::chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    train(&at("digits"), "--max-steps 200");
    check("digits", &at("digits"), &chromium, true);
    if let Some(data) = shared("data/mnist") {
        train(&at("mnist"), &format!("--data {} --model lenet5 --max-steps 40", data.display()));
        check("mnist", &at("mnist"), &chromium, true);
    }
    if let Some(data) = shared("data/flowers-96") {
        let tar =
            std::fs::read_dir(&data).unwrap().flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|e| e == "tar")).unwrap();
        train(&at("flowers"), &format!("--data {} --size 96 --model resnet8 --max-steps 8 --augment strong", tar.display()));
        check("flowers", &at("flowers"), &chromium, true);
    }
}

#[test]
fn a_report_of_a_thousand_classes_stays_small() {
    let Some(chromium) = browser::chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // Three images of 12 x 12 pixels of each class.
    let classes = 1000u32;
    let npy = |descr: &str, shape: &str, values: Vec<u8>| -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &values].concat()
    };
    std::fs::create_dir(&data).unwrap();
    let images: Vec<u8> = (0..3 * classes * 144).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(data.join("x_train.npy"), npy("|u1", &format!("{}, 12, 12", 3 * classes), images)).unwrap();
    std::fs::write(
        data.join("y_train.npy"),
        npy("<u4", &format!("{},", 3 * classes), (0..3 * classes).flat_map(|i| (i % classes).to_le_bytes()).collect()),
    )
    .unwrap();
    let run = folder.path().join("run");
    train(&run, &format!("--data {} --model mlp --max-steps 20 --val-fraction 0.34", data.display()));
    let seen = check("1,000 classes", &run, &chromium, false);
    assert_eq!(seen["scores"]["images"], 1000);
}
