//! Networks with weights that others trained give the logits that others computed, on the CPU and on a GPU.

#[path = "common/shared.rs"]
mod reference;

use mappa::data::{self, Sidecar};
use mappa::nn::{Context, Folded, Module};
use mappa::train::{Trained, evaluate};
use mappa::{Device, Tensor, autodiff, models};
use reference::shared;
use safetensors::SafeTensors;
use std::path::Path;

/// Largest difference from the fixtures' logits, which are f64 rounded to f32. ONNX Runtime's in f32 differ by up to 1.6e-5, ours by as much; the
/// order of f32 sums, which devices may choose, is given some times that.
const TOLERANCE: f32 = 1e-4;

fn check(device: &Device) {
    let Some(folder) = shared("data/pretrained") else { return };
    let _guard = autodiff::no_grad();
    for name in ["resnet20-cifar10", "squeezenet1_0-imagenet", "efficientnet_lite0-imagenet"] {
        let weights = folder.join(format!("{name}.safetensors"));
        let about = Sidecar::beside(&weights).unwrap().unwrap();
        let module = models::build(&about.model, about.input, about.classes.len(), device, 0).unwrap();
        models::load(&module, &weights).unwrap();
        // Labels are i64, which mappa's own reader refuses.
        let bytes = std::fs::read(folder.join(format!("{name}.fixture.safetensors"))).unwrap();
        let fixture = SafeTensors::deserialize(&bytes).unwrap();
        let array = |name: &str| -> (Vec<usize>, Vec<f32>) {
            let view = fixture.tensor(name).unwrap();
            (view.shape().to_vec(), view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect())
        };
        let ((shape, input), (_, want)) = (array("input"), array("logits"));
        let x = Tensor::from_slice(device, &shape, &input).unwrap();
        // Layer by layer, and with the norms in the convolutions' weights.
        let folded = Folded::default();
        for (way, mut ctx) in [("layer by layer", Context::eval()), ("folded", Context::eval().folding(&folded))] {
            let got = module.forward(&mut ctx, &x).unwrap().to_vec_blocking::<f32>().unwrap();
            assert_eq!(got.len(), want.len());
            let worst = got.iter().zip(&want).map(|(g, w)| (g - w).abs()).fold(0.0, f32::max);
            println!("{name} on {}, {way}: {worst:.2e}", device.name());
            assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= TOLERANCE), "{name}, {way}: logits differ by up to {worst}");
        }
    }
}

#[test]
fn the_cpu_gives_the_published_networks_logits() {
    check(&Device::cpu(0).unwrap());
}

#[test]
#[cfg(feature = "gpu")]
fn the_gpu_gives_the_published_networks_logits() {
    check(&pollster::block_on(Device::gpu(None)).unwrap());
}

#[test]
fn a_network_of_others_is_as_good_here_whatever_its_file_is_called() {
    let Some(folder) = shared("data/pretrained") else { return };
    let dir = tempfile::tempdir().unwrap();
    // Nothing but the sidecar may say what the weights are.
    for ending in ["safetensors", "toml"] {
        std::fs::copy(folder.join(format!("resnet20-cifar10.{ending}")), dir.path().join(format!("x.{ending}"))).unwrap();
    }
    let device = Device::cpu(0).unwrap();
    let trained = Trained::find(&dir.path().join("x.safetensors")).unwrap().unwrap();
    let mut data = data::load(folder.join("../cifar10-subset").to_str().unwrap(), data::DEFAULT_SIZE).unwrap();
    assert_eq!(data.classes, trained.about.classes);
    data.preprocessing = trained.about.preprocessing.clone();
    let scores = evaluate(&trained.load(&device).unwrap(), &data, &data.test.clone().unwrap(), &device, 256, 1).unwrap().scores();
    let right = (0..10).map(|class| scores.confusion_matrix[class][class]).sum::<u64>();
    println!("{right} of 2,000 right");
    // As published for these 2,000 pictures, and two for ties that rounding decides.
    assert!(right.abs_diff(1836) <= 2, "{right} of 2,000 right");
}

/// Boxes drawn by hand on the middle squares of five validation photos of daisies, in sides of the square: left, top, right, bottom. None overlap.
#[cfg(feature = "image")]
const DAISIES: [(&str, &[[f32; 4]]); 5] = [
    ("10437929963_bc13eebe0c.jpg", &[[0.02, 0.1, 0.87, 1.0]]),
    ("10770585085_4742b9dac3_n.jpg", &[[0.23, 0.05, 1.0, 0.95]]),
    ("11891885265_ccefec7284_n.jpg", &[[0.36, 0.33, 0.65, 0.65]]),
    ("1265350143_6e2b276ec9.jpg", &[[0.0, 0.27, 0.46, 0.8], [0.5, 0.17, 1.0, 0.78]]),
    ("13583238844_573df2de8e_m.jpg", &[[0.34, 0.36, 0.52, 0.52], [0.62, 0.13, 0.8, 0.27], [0.0, 0.02, 0.15, 0.2], [0.32, 0.1, 0.48, 0.24]]),
];

/// How many times the heat of the background Grad-CAM's heat for `class` is in the boxes: the odds of the share of heat over those of the share of area.
#[cfg(feature = "image")]
fn heat_on_daisies(trained: &Trained, class: usize, photos: &[(String, Vec<u8>)]) -> f32 {
    let device = Device::cpu(0).unwrap();
    let module = trained.load(&device).unwrap();
    let [c, h, w] = trained.about.input;
    let tables = trained.about.preprocessing.tables(c).unwrap();
    let (mut inside, mut area) = (0.0, 0.0);
    for (photo, boxes) in DAISIES {
        let (name, bytes) = photos.iter().find(|(name, _)| name.ends_with(photo)).unwrap();
        let pixels = mappa::io::picture::decode(Path::new(name), std::io::Cursor::new(bytes), c, h, w).unwrap();
        let input: Vec<f32> = pixels.iter().enumerate().map(|(i, &pixel)| tables[i / (h * w)][pixel as usize]).collect();
        let x = Tensor::from_slice(&device, &[1, c, h, w], &input).unwrap();
        let heat = mappa::train::grad_cam(&module, &x, &[class]).unwrap().unwrap();
        let [rows, columns] = heat.size;
        // The share of a cell that is in a box.
        let overlap = |low: f32, high: f32, cell: usize, n: usize| {
            let (from, to) = (cell as f32 / n as f32, (cell + 1) as f32 / n as f32);
            (high.min(to) - low.max(from)).max(0.0) * n as f32
        };
        let share = |i: usize| {
            boxes.iter().map(|b| overlap(b[0], b[2], i % columns, columns) * overlap(b[1], b[3], i / columns, rows)).sum::<f32>()
        };
        let total: f32 = heat.values.iter().sum();
        let mass = heat.values.iter().enumerate().map(|(i, v)| v * share(i)).sum::<f32>() / total;
        let boxed = boxes.iter().map(|b| (b[2] - b[0]) * (b[3] - b[1])).sum::<f32>();
        println!(
            "{photo}: {:.0} % of the heat in {:.0} % of the picture ({}, {rows} x {columns})",
            100.0 * mass,
            100.0 * boxed,
            heat.layer
        );
        inside += mass / DAISIES.len() as f32;
        area += boxed / DAISIES.len() as f32;
    }
    let ratio = inside / (1.0 - inside) / (area / (1.0 - area));
    println!("mean: {:.0} % of the heat in {:.0} % of the picture: {ratio:.1} times that of the background", 100.0 * inside, 100.0 * area);
    ratio
}

#[cfg(feature = "image")]
#[test]
fn networks_that_know_daisies_look_at_them() {
    let Some(folder) = shared("data/pretrained") else { return };
    let mut tar = tar::Archive::new(std::fs::File::open(folder.join("../flowers-96/flowers-96.tar")).unwrap());
    let mut photos = Vec::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        photos.push((name, bytes));
    }
    let weights = folder.join("efficientnet_lite0-imagenet.safetensors");
    // ImageNet's class 985: daisy.
    let imagenet = heat_on_daisies(&Trained::find(&weights).unwrap().unwrap(), 985, &photos);
    assert!(imagenet > 1.5, "{imagenet}");

    // A run on every eighth photo of the five flowers, as `configs/photos-transfer.toml` trains.
    let dir = tempfile::tempdir().unwrap();
    let mut part = tar::Builder::new(std::fs::File::create(dir.path().join("flowers.tar")).unwrap());
    for (name, bytes) in photos.iter().filter(|(name, _)| name.ends_with(".jpg")).step_by(8) {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        part.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    part.into_inner().unwrap();
    let train = std::process::Command::new(env!("CARGO_BIN_EXE_mappa"))
        .args(["train", "--device", "cpu", "--config"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/photos-transfer.toml"))
        .arg("--data")
        .arg(dir.path().join("flowers.tar"))
        .arg("--weights")
        .arg(&weights)
        .arg("--out")
        .arg(dir.path().join("run"))
        .output()
        .unwrap();
    assert!(train.status.success(), "{}", String::from_utf8_lossy(&train.stderr));
    let run = Trained::find(&dir.path().join("run")).unwrap().unwrap();
    let daisy = run.about.classes.iter().position(|class| class == "daisy").unwrap();
    let flowers = heat_on_daisies(&run, daisy, &photos);
    assert!(flowers > 1.5, "{flowers}");
}
