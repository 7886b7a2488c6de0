//! `mappa export` and `mappa import`: trained networks for other programs, and from them.

use super::{ExportArgs, ImportArgs, note, say};
use mappa::data::{Preprocessing, Sidecar};
use mappa::io::onnx::Model;
use mappa::io::{atomic, pth, safetensors};
use mappa::models::Imported;
use mappa::nn::{NamedArray, state_dict};
use mappa::train::Trained;
use mappa::{Device, Error, Result, Tensor, models};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;

/// The file's ending in small letters.
fn ending(path: &Path) -> String {
    path.extension().map_or(String::new(), |ending| ending.to_string_lossy().to_lowercase())
}

pub fn export(args: &ExportArgs) -> Result<ExitCode> {
    let kind = ending(&args.out);
    if !["onnx", "pth", "pt", "safetensors"].contains(&kind.as_str()) {
        return Err(Error::Config(format!("--out {}: the ending says the format; give .onnx, .pth or .safetensors", args.out.display())));
    }
    if args.fold && kind != "onnx" {
        return Err(Error::Config("--fold: only an .onnx file holds a network whose layers can be joined".into()));
    }
    let Some(Trained { weights, mut about, config }) = Trained::find(&args.source)? else {
        return Err(Error::data(
            args.source.with_extension("toml"),
            "weights need this sidecar, with model, input, classes, scale, mean and std",
        ));
    };
    // Elsewhere pixels are 0 to 255, whatever range the data had that it was trained on.
    if config.is_some() && about.preprocessing.scale != 1.0 {
        about.preprocessing.scale = 255.0;
    }
    match kind.as_str() {
        "onnx" => atomic::write(&args.out, &models::onnx(&about, &weights, args.fold)?.bytes())?,
        _ => {
            let module = Trained { weights, about: about.clone(), config: None }.load(&Device::cpu(0)?)?;
            let state = state_dict(&module);
            if kind == "safetensors" {
                safetensors::save(&args.out, &state, None)?;
            } else {
                let array = |(name, tensor): (String, Tensor)| -> Result<NamedArray> {
                    Ok(NamedArray { name, shape: *tensor.shape(), values: tensor.to_vec_blocking()? })
                };
                atomic::write(&args.out, &pth::encode(&state.into_iter().map(array).collect::<Result<Vec<_>>>()?)?)?;
            }
        }
    }
    let labels = args.out.with_extension("toml");
    atomic::write(&labels, about.to_toml()?.as_bytes())?;
    let size = std::fs::metadata(&args.out).map_or(0, |data| data.len());
    if args.json {
        say(json!({ "event": "export", "file": args.out.display().to_string(), "sidecar": labels.display().to_string(), "bytes": size }));
    } else {
        say(format!("{} ({:.2} MB); classes and preprocessing: {}", args.out.display(), 1e-6 * size as f64, labels.display()));
    }
    Ok(ExitCode::SUCCESS)
}

pub fn import(args: &ImportArgs) -> Result<ExitCode> {
    let out = args.out.clone().unwrap_or_else(|| args.file.with_extension("safetensors"));
    if ending(&out) != "safetensors" {
        return Err(Error::Config(format!("--out {}: give a name that ends in .safetensors", out.display())));
    }
    if out.exists() || out.with_extension("toml").exists() {
        return Err(Error::Config(format!("--out {}: it, or its sidecar, is there already; give another name", out.display())));
    }
    let onnx = ending(&args.file) == "onnx";
    let found = if onnx {
        let bytes = std::fs::read(&args.file).map_err(|e| Error::data(&args.file, format!("cannot be read: {e}")))?;
        models::from_onnx(&args.file, &Model::parse(&args.file, &bytes)?)?
    } else {
        let Some(model) = &args.model else {
            return Err(Error::Config("--model: a file of weights does not say which network they are of".into()));
        };
        let arrays = if ending(&args.file) == "safetensors" { safetensors::load(&args.file)? } else { pth::read(&args.file)? };
        Imported { model: super::commands::described(model)?, input: None, arrays, classes: None, preprocessing: None }
    };
    if onnx && args.model.is_some() {
        return Err(Error::Config(format!("--model: {} says itself which network it is", args.file.display())));
    }
    let input = match (&args.input, found.input) {
        (Some(text), _) => super::commands::image_size(text)?,
        (None, Some(input)) => input,
        (None, None) if onnx => return Err(Error::Config("--input: the file leaves the size of images open; give CxHxW".into())),
        (None, None) => [3, 224, 224],
    };
    // Of the last array with two dimensions or more, which is the last layer's, the first one counts the classes.
    let last = found.arrays.iter().rev().find(|array| array.shape.rank() >= 2).map(|array| array.shape[0]);
    let classes: Vec<String> = match (&args.classes, found.classes) {
        (Some(names), _) => names.split(',').map(|name| name.trim().to_owned()).collect(),
        (None, Some(names)) => names,
        (None, None) => (0..last.unwrap_or(0)).map(|class| class.to_string()).collect(),
    };
    let known = found.preprocessing.filter(|own| own.mean.len() == input[0]);
    let unsaid = args.mean.is_none() && known.is_none();
    let own = known.unwrap_or_else(|| Preprocessing::new(input[0]));
    let preprocessing = Preprocessing {
        scale: args.scale.unwrap_or(own.scale),
        mean: args.mean.clone().unwrap_or(own.mean),
        std: args.std.clone().unwrap_or(own.std),
    };
    let (model, arrays) = (found.model, found.arrays);
    preprocessing.tables(input[0])?;
    let about = Sidecar { model, classes, input, preprocessing, table: None };
    let build = |device: &Device| {
        let module = models::build(&about.model, input, about.classes.len(), device, 0);
        // The text of an imported network is none that anybody wrote.
        module.map_err(|e| if onnx { Error::data(&args.file, e.to_string()) } else { e })
    };
    // Shapes are compared before any layer is made: a file may tell of larger ones than it holds.
    models::load_arrays(&build(&Device::null().0)?, arrays.clone(), &args.file)?;
    let module = build(&Device::cpu(0)?)?;
    let count = arrays.len();
    models::load_arrays(&module, arrays, &args.file)?;
    safetensors::save(&out, &state_dict(&module), None)?;
    atomic::write(out.with_extension("toml"), about.to_toml()?.as_bytes())?;
    if args.json {
        say(json!({ "event": "import", "file": out.display().to_string(), "arrays": count, "classes": about.classes.len() }));
        return Ok(ExitCode::SUCCESS);
    }
    say(format!("{}: {} arrays, {} classes", out.display(), count, about.classes.len()));
    if unsaid {
        note("mean and standard deviation are taken as 0 and 1; --mean and --std say what the network was trained with");
    }
    say(format!("classify with: mappa predict {} FILE...; go on training with: mappa train --weights {}", out.display(), out.display()));
    Ok(ExitCode::SUCCESS)
}
