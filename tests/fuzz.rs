//! Files that are damaged at random: every reader answers with data or an error, never with a panic, and without memory that the file does not fill.
//!
//! Each run takes a seed file and changes some bytes: flips, cuts, repeats, inserts, and replaces numbers by extreme ones. `MAPPA_FUZZ=N` runs N of each.

use mappa::data;
use mappa::io::onnx::Model;
use mappa::io::{idx, pth, safetensors};
use mappa::models;
use mappa::rng::Stream;
use mappa::train::Settings;
use mappa::{Device, Tensor};
use std::path::Path;

fn runs(default: u64) -> u64 {
    std::env::var("MAPPA_FUZZ").map_or(default, |n| n.parse().expect("MAPPA_FUZZ is a number of runs"))
}

/// Changes a seed file; run 0 leaves it as it is.
fn damage(seed: &[u8], name: &str, run: u64) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    let stream = Stream::new(1, name, run, 0);
    let mut next = 0;
    let mut draw = |n: usize| {
        next += 1;
        stream.below(next, n.max(1))
    };
    const EXTREME: [&[u8]; 9] = [&[0; 4], &[255; 4], &[255; 8], &[0x7f, 255, 255, 255], b"-1", b"1e999", b"99999999999", b"nan", b"\""];
    for _ in 0..if run == 0 { 0 } else { 1 + draw(4) } {
        let at = draw(bytes.len());
        match draw(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << draw(8),
            1 if !bytes.is_empty() => bytes[at] = draw(256) as u8,
            2 => bytes.truncate(at),
            3 => {
                let end = (at + 1 + draw(40)).min(bytes.len());
                let part = bytes[at.min(end)..end].to_vec();
                let to = draw(bytes.len());
                bytes.splice(to..to, part);
            }
            4 => {
                let end = (at + 1 + draw(12)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            _ => {
                let new = EXTREME[draw(EXTREME.len())];
                let end = (at + new.len()).min(bytes.len());
                bytes.splice(at.min(end)..end, new.iter().copied());
            }
        }
    }
    bytes
}

/// Feeds damaged files to `read`, and demands that some are accepted and some refused: a reader that looks at nothing shows nothing.
fn fuzz(name: &str, seeds: &[Vec<u8>], default: u64, mut read: impl FnMut(&[u8]) -> bool) {
    let (mut accepted, mut refused) = (0u64, 0u64);
    for run in 0..runs(default) {
        let seed = &seeds[run as usize % seeds.len()];
        let bytes = damage(seed, name, run);
        match read(&bytes) {
            true => accepted += 1,
            false => refused += 1,
        }
    }
    println!("{name}: {accepted} accepted, {refused} refused");
    assert!(accepted > 0 && refused > 0, "{name}: {accepted} accepted, {refused} refused");
}

fn idx_file(magic: u32, sizes: &[u32]) -> Vec<u8> {
    let mut bytes = magic.to_be_bytes().to_vec();
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend((0..sizes.iter().product::<u32>()).map(|i| i as u8));
    bytes
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut writer, bytes).unwrap();
    writer.finish().unwrap()
}

#[test]
fn idx_files() {
    let images = idx_file(0x803, &[3, 4, 5]);
    fuzz("idx images", &[images.clone(), zipped(&images)], 20_000, |bytes| idx::parse_images("a", bytes).is_ok());
    fuzz("idx labels", &[idx_file(0x801, &[7])], 20_000, |bytes| idx::parse_labels("a", bytes).is_ok());
}

#[test]
fn safetensors_files() {
    let device = Device::cpu(1).unwrap();
    let tensors =
        [("a.weight".to_owned(), Tensor::ones(&device, &[2, 3]).unwrap()), ("b".to_owned(), Tensor::ones(&device, &[4]).unwrap())];
    let seed = pollster::block_on(safetensors::encode(&tensors, Some(("about", "a test")))).unwrap();
    fuzz("safetensors", &[seed], 20_000, |bytes| safetensors::decode(Path::new("a"), bytes).is_ok());
}

#[test]
fn pytorch_checkpoints() {
    let array = |name: &str, shape: &[usize]| mappa::nn::NamedArray {
        name: name.into(),
        shape: mappa::shape::Shape::new(shape).unwrap(),
        values: vec![0.5; shape.iter().product()],
    };
    let seed = pth::encode(&[array("a.weight", &[3, 2]), array("a.bias", &[3])]).unwrap();
    // The checksum of an entry hides what is behind it: the pickle is damaged before it is packed, too.
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(&seed)).unwrap();
    let mut files = Vec::new();
    for i in 0..archive.len() {
        let mut file = archive.by_index(i).unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
        files.push((file.name().unwrap().into_owned(), bytes));
    }
    let pickle = files[0].1.clone();
    fuzz("pth", std::slice::from_ref(&seed), 3_000, |bytes| pth::read_from(std::io::Cursor::new(bytes), Path::new("a")).is_ok());
    fuzz("pickle", &[pickle], 3_000, |bytes| {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (i, (name, own)) in files.iter().enumerate() {
            let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
            writer.start_file(name.as_str(), options).unwrap();
            std::io::Write::write_all(&mut writer, if i == 0 { bytes } else { own }).unwrap();
        }
        pth::read_from(std::io::Cursor::new(writer.finish().unwrap().into_inner()), Path::new("a")).is_ok()
    });
}

#[test]
fn onnx_files() {
    let (null, device) = (Device::null().0, Device::cpu(1).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let seeds = ["squeezenet1_1", "resnet8"].map(|name| {
        let about = data::Sidecar {
            model: name.into(),
            classes: vec!["a".into(), "b".into()],
            input: [3, 33, 33],
            preprocessing: data::Preprocessing::new(3),
            table: None,
        };
        let module = models::build(name, about.input, 2, &device, 0).unwrap();
        let weights = folder.path().join("w.safetensors");
        safetensors::save(&weights, &mappa::nn::state_dict(&module), None).unwrap();
        let mut model = models::onnx(&about, &weights, true).unwrap();
        // Without most of the weights, so that damage meets the rest.
        for array in model.graph.as_mut().unwrap().initializer.iter_mut().filter(|array| array.raw_data.len() > 600) {
            array.dims = vec![array.dims[0], 1, 1, 1];
            array.raw_data.truncate(4 * array.dims[0] as usize);
        }
        model.bytes()
    });
    fuzz("onnx", &seeds, 2_000, |bytes| {
        let path = Path::new("a.onnx");
        let read = Model::parse(path, bytes).and_then(|model| models::from_onnx(path, &model));
        read.is_ok_and(|read| {
            // What is described is built, or refused.
            let _ = models::build(&read.model, read.input.unwrap_or([3, 33, 33]).map(|size| size.min(64)), 2, &null, 0);
            true
        })
    });
}

#[test]
fn network_descriptions() {
    let seed = r#"name = "x"
layers = [
  { type = "Conv2d", out_channels = 8, kernel_size = 3, padding = 1, stride = [1, 2], name = "stem" },
  { type = "BatchNorm2d", eps = 1e-3 },
  { type = "Sequential", repeat = 2, layers = [{ type = "Residual", layers = [{ type = "Conv2d", out_channels = 8, kernel_size = 1 }] }] },
  { type = "MaxPool2d", kernel_size = 2 }, { type = "GlobalAvgPool2d" }, { type = "Flatten" }, { type = "Dropout", p = 0.5 },
  { type = "Linear", out_features = "classes" },
]
"#;
    let (null, _) = Device::null();
    fuzz("networks", &[seed.into()], 3_000, |bytes| match std::str::from_utf8(bytes) {
        Ok(text) => models::build(text, [3, 12, 12], 5, &null, 1).is_ok(),
        Err(_) => false,
    });
}

#[test]
fn settings_files() {
    let seed = "lr = 0.5\nepochs = 3\nfreeze = [\"a.*\"]\nflip = true\nmixup = 0.2\noptimizer = \"sgd\"\nbest-by = \"recall:3\"\nschedule = \"step\"\n";
    let data = data::digits().unwrap();
    fuzz("settings", &[seed.into()], 5_000, |bytes| match std::str::from_utf8(bytes) {
        Ok(text) => Settings::parse(text, "a").and_then(|settings| settings.resolve(&data, None)).is_ok(),
        Err(_) => false,
    });
}

/// Data sets in files of one name.
fn fuzz_data(name: &str, file: &str, seeds: &[Vec<u8>], default: u64, prepare: impl Fn(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let path = dir.path().join(file);
    let source = if file.ends_with("bin") || file.ends_with("npy") { dir.path() } else { &path };
    fuzz(name, seeds, default, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        data::load(source.to_str().unwrap(), 4).is_ok()
    });
}

#[test]
fn cifar_files() {
    let rows: Vec<u8> = (0..3 * 3073usize).map(|i| if i.is_multiple_of(3073) { (i / 3073) as u8 } else { i as u8 }).collect();
    fuzz_data("cifar", "data_batch_1.bin", &[rows], 2_000, |_| {});
}

#[test]
fn arrays_of_numpy() {
    let npy = |descr: &str, shape: &str, values: &[u8]| -> Vec<u8> {
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat()
    };
    let (images, labels) = (npy("|u1", "3, 4, 5", &[7; 60]), npy("<u2", "3,", &[0, 0, 1, 0, 1, 0]));
    let archive = |method| {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in [("x_train.npy", &images), ("y_train.npy", &labels)] {
            writer.start_file(name, zip::write::SimpleFileOptions::default().compression_method(method)).unwrap();
            std::io::Write::write_all(&mut writer, bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    };
    let seeds = [archive(zip::CompressionMethod::Stored), archive(zip::CompressionMethod::Deflated)];
    fuzz_data("npz", "set.npz", &seeds, 3_000, |_| {});
    fuzz_data("npy", "x_train.npy", std::slice::from_ref(&images), 3_000, |dir| std::fs::write(dir.join("y_train.npy"), &labels).unwrap());
}

#[cfg(feature = "image")]
#[test]
fn archives_and_tables_of_pictures() {
    let save = |path: &Path| image::RgbImage::from_fn(6, 5, |x, y| image::Rgb([x as u8 * 40, y as u8 * 40, 9])).save(path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut seeds = Vec::new();
    for ending in ["png", "jpg", "gif", "bmp", "tif", "webp"] {
        let file = dir.path().join(format!("1.{ending}"));
        save(&file);
        let mut tar = tar::Builder::new(Vec::new());
        for class in ["a", "b"] {
            tar.append_path_with_name(&file, format!("set/{class}/1.{ending}")).unwrap();
        }
        seeds.push(tar.into_inner().unwrap());
    }
    seeds.push(zipped(&seeds[0]));
    fuzz_data("tar", "set.tar", &seeds, 3_000, |_| {});
    let table = "path,label\n1.png,a\n2.png,a\n\"3.png\",b\n4.png,b\n";
    fuzz_data("csv", "set.csv", &[table.into()], 2_000, |dir| (1..5).for_each(|i| save(&dir.join(format!("{i}.png")))));
}

#[test]
fn tables_of_numbers_and_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.csv");
    let seed = "id,x,colour,part,y\na,1,red,train,0\na,2.5,blue,train,1\nb,-3e1,red,val,0\nb,\"4\",blue,test,1\nc,5,red,train,0\n";
    let ways = [
        data::TableOptions::default(),
        data::TableOptions { sequence: Some("id".into()), missing: Some("drop".into()), ..Default::default() },
        data::TableOptions { window: Some(2), missing: Some("mean".into()), task: Some("regression".into()), ..Default::default() },
    ];
    let mut way = 0;
    fuzz("tables", &[seed.into()], 3_000, |bytes| {
        std::fs::write(&path, bytes).unwrap();
        way += 1;
        data::load_table(&path, &ways[way % ways.len()]).is_ok_and(|data| data.table.unwrap().read(&path).is_ok())
    });
}
