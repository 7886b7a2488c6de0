//! Networks with weights that others trained give the logits that others computed, on the CPU and on a GPU.

use mappa::data::{self, Sidecar};
use mappa::nn::{Context, Module};
use mappa::train::{Trained, evaluate};
use mappa::{Device, Tensor, autodiff, models};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};

/// The folder of pretrained weights, or a word on what is left out without it.
fn pretrained() -> Option<PathBuf> {
    let shared = std::env::var_os("MAPPA_SHARED").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let folder = shared.join("data/pretrained");
    if folder.is_dir() {
        return Some(folder);
    }
    let required = std::env::var("MAPPA_REQUIRE_SHARED").is_ok_and(|v| v == "1");
    assert!(!required, "MAPPA_REQUIRE_SHARED=1, but there are no pretrained weights in {}", folder.display());
    println!("left out: pretrained networks, which are not in {}; set MAPPA_SHARED", folder.display());
    None
}

/// Largest difference from the fixtures' logits, which are f64 rounded to f32. ONNX Runtime's in f32 differ by up to 1.6e-5, ours by as much; the
/// order of f32 sums, which devices may choose, is given some times that.
const TOLERANCE: f32 = 1e-4;

fn check(device: &Device) {
    let Some(folder) = pretrained() else { return };
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
        let got = module.forward(&mut Context::eval(), &x).unwrap().to_vec_blocking::<f32>().unwrap();
        assert_eq!(got.len(), want.len());
        let worst = got.iter().zip(&want).map(|(g, w)| (g - w).abs()).fold(0.0, f32::max);
        println!("{name} on {}: {worst:.2e}", device.name());
        assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() <= TOLERANCE), "{name}: logits differ by up to {worst}");
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
    let Some(folder) = pretrained() else { return };
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
