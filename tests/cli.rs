//! The command line as a person drives it: exit codes, messages, files.
#![cfg(feature = "cli")]

use assert_cmd::Command;
use std::fs;
use std::path::Path;

fn mappa(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("mappa").unwrap();
    command.args(args).env_remove("MAPPA_DEVICE").env("MAPPA_REQUIRE_GPU", "0");
    command
}

/// Runs a command that must fail with `code`, one line on stderr that holds every one of `words`, and no panic.
fn refused(args: &[&str], code: i32, words: &[&str]) {
    let output = mappa(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).to_string();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {text}");
    assert!(!text.contains("panicked"), "{args:?}: {text}");
    for word in words {
        assert!(text.contains(word), "{args:?}: {word:?} is not in: {text}");
    }
}

const QUICK: [&str; 7] = ["train", "--device", "cpu", "--model", "mlp", "--max-steps", "30"];

fn quick(out: &Path, more: &[&str]) -> Vec<String> {
    let mut args: Vec<String> = QUICK.iter().map(|s| s.to_string()).collect();
    args.extend(["--out".to_string(), out.display().to_string()]);
    args.extend(more.iter().map(|s| s.to_string()));
    args
}

fn run(args: &[String]) -> String {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = mappa(&args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn wrong_input_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let out = at("out");
    for (flags, words) in [
        (vec!["--data", "/nonexistent"], vec!["/nonexistent"]),
        (vec!["--lr", "nan"], vec!["--lr", "NaN"]),
        (vec!["--batch-size", "0"], vec!["--batch-size 0"]),
        (vec!["--epochs", "-1"], vec!["--epochs", "-1"]),
        (vec!["--model", "lenet6"], vec!["lenet6", "lenet5"]),
        (vec!["--val-fraction", "1.5"], vec!["val-fraction"]),
        (vec!["--optimizer", "adamx"], vec!["adamx"]),
        (vec!["--device", "tpu"], vec!["tpu"]),
        (vec!["--device", "gpu:99"], vec!["gpu:99"]),
        (vec!["--set", "speed=3"], vec!["speed"]),
        (vec!["--batch-size", "many"], vec!["--batch-size", "many", "auto"]),
        (vec!["--precision", "f8"], vec!["--precision f8", "f32, f16"]),
        (vec!["--precision", "f16", "--optimizer", "rmsprop"], vec!["--precision f16", "rmsprop"]),
        (vec!["--config", "/nonexistent.toml"], vec!["/nonexistent.toml"]),
    ] {
        let mut args = vec!["train", "--out", &out];
        args.extend(flags);
        refused(&args, 2, &words);
        assert!(!Path::new(&out).exists(), "{args:?} wrote {out}");
    }
    fs::write(at("file"), "x").unwrap();
    refused(&["train", "--device", "cpu", "--out", &at("file/run")], 2, &["is a file"]);
    fs::create_dir(at("full")).unwrap();
    fs::write(at("full/keep"), "x").unwrap();
    refused(&["train", "--device", "cpu", "--out", &at("full")], 2, &["not empty"]);
    refused(&["train", "--resume", &at("full")], 2, &["no run folder"]);
    refused(&["eval", &at("nothing")], 2, &["nothing"]);
    refused(&["predict", &at("full"), "a.png"], 2, &["no run folder"]);
    refused(&["summary", "cnn", "--input", "3x"], 2, &["3x224x224"]);
    refused(&["summary", "lenet5", "--input", "1x1x1"], 2, &["lenet5"]);
    refused(&["verify", "matmull", "--device", "cpu"], 2, &["matmull"]);
    refused(&["verify", "--goldens", &at("full"), "--device", "cpu"], 2, &["manifest.json"]);
}

#[test]
fn corrupt_idx_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let images = |count: u32, bytes: usize, magic: u32| {
        let mut file: Vec<u8> = [magic, count, 2, 2].iter().flat_map(|v| v.to_be_bytes()).collect();
        file.resize(16 + bytes, 7);
        file
    };
    let labels = |values: &[u8]| {
        let mut file: Vec<u8> = [0x801u32, values.len() as u32].iter().flat_map(|v| v.to_be_bytes()).collect();
        file.extend(values);
        file
    };
    for (file, label, word) in [
        (images(2, 7, 0x803), labels(&[0, 1]), "images"),
        (images(2, 8, 0x805), labels(&[0, 1]), "magic"),
        (images(2, 8, 0x803), labels(&[0, 1, 1]), "3"),
    ] {
        fs::write(path("train-images-idx3-ubyte"), file).unwrap();
        fs::write(path("train-labels-idx1-ubyte"), label).unwrap();
        refused(
            &["train", "--device", "cpu", "--data", &folder.path().display().to_string(), "--out", &path("run").display().to_string()],
            2,
            &[word],
        );
        assert!(!path("run").exists());
    }
    fs::write(path("train-labels-idx1-ubyte"), labels(&[0, 9])).unwrap();
    fs::write(path("dataset.toml"), "classes = [\"a\", \"b\"]\n").unwrap();
    refused(&["train", "--device", "cpu", "--data", &folder.path().display().to_string()], 2, &["9"]);
}

#[test]
fn check_finite_names_layer_and_operation_and_keeps_the_evidence() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run").display().to_string();
    let args =
        ["train", "--device", "cpu", "--model", "mlp", "--max-steps", "20", "--lr", "1e30", "--optimizer", "sgd", "--schedule", "none"];
    let flags = ["--check-finite", "--out", &out];
    refused(&[&args[..], &flags].concat(), 1, &["step ", "element", "operands", "diverged"]);
    for name in ["batch", "model", "optimizer"] {
        assert!(folder.path().join(format!("run/diverged/{name}.safetensors")).exists(), "{name}");
    }
    // The loss alone is watched always.
    let other = folder.path().join("other").display().to_string();
    refused(&[&args[..], &["--out", &other]].concat(), 1, &["loss became", "lower --lr"]);
    // Gradients that overflow are usual there.
    refused(&["train", "--device", "cpu", "--check-finite", "--precision", "f16"], 2, &["--check-finite", "--precision f32"]);
}

#[test]
fn a_folder_of_pictures_is_trained_on_measured_and_asked() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (class, colour) in [("leaf", [30, 180, 40]), ("sky", [40, 90, 220])] {
        fs::create_dir_all(at("photos").join(class)).unwrap();
        for i in 0..24u8 {
            let picture =
                image::RgbImage::from_fn(20, 12, |x, y| image::Rgb(colour.map(|c: u8| c.wrapping_add(i).wrapping_add((x + y) as u8))));
            picture.save(at("photos").join(class).join(format!("{i}.png"))).unwrap();
        }
    }
    fs::write(at("photos/sky/broken.jpg"), "no picture").unwrap();
    let (data, out) = (at("photos").display().to_string(), at("run"));
    let args = [
        "train",
        "--device",
        "cpu",
        "--data",
        &data,
        "--size",
        "16",
        "--model",
        "mlp",
        "--epochs",
        "4",
        "--out",
        &out.display().to_string(),
    ];
    let output = mappa(&args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(output.status.success() && text.contains("broken.jpg") && text.contains("3x16x16"), "{text}");
    let picture = at("photos/sky/3.png").display().to_string();
    let line = run(&["predict".to_owned(), out.display().to_string(), picture, "--json".into()]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(line.trim()).unwrap()["class"], "sky", "{line}");
    // The run remembers the size.
    run(&["eval".to_owned(), out.display().to_string(), "--json".into()]);
    run(&["train", "--resume", &out.display().to_string(), "--epochs", "5", "--json", "--device", "cpu"].map(str::to_owned));
    refused(&["train", "--data", &data, "--size", "0"], 2, &["size 0", "4 to 1024"]);
    refused(&["train", "--size", "64", "--device", "cpu"], 2, &["--size 64", "8 x 8"]);
    refused(&["eval", &out.display().to_string(), "--data", "digits"], 2, &["--data digits", "1x8x8", "[3, 16, 16]"]);
    fs::remove_dir_all(at("photos/sky")).unwrap();
    refused(&["train", "--data", &data], 2, &["photos", "at least two, one for each class"]);
}

/// Pictures of one colour with some noise, `count` of each class.
fn paint(folder: &Path, classes: &[(&str, [u8; 3])], count: u8) {
    for (class, colour) in classes {
        fs::create_dir_all(folder.join(class)).unwrap();
        for i in 0..count {
            let picture =
                image::RgbImage::from_fn(12, 12, |x, y| image::Rgb(colour.map(|c| c.wrapping_add(i).wrapping_add((x * y % 7) as u8))));
            picture.save(folder.join(class).join(format!("{i}.png"))).unwrap();
        }
    }
}

#[test]
fn a_trained_network_learns_other_classes() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    paint(&folder.path().join("old"), &[("leaf", [30, 180, 40]), ("sky", [40, 90, 220])], 20);
    paint(&folder.path().join("new"), &[("rose", [220, 30, 60]), ("snow", [230, 230, 230]), ("soil", [90, 60, 30])], 20);
    let train = |data: &str, out: &str, more: &[&str]| {
        let (data, out) = (at(data), at(out));
        let mut args = vec!["train", "--device", "cpu", "--data", &data, "--out", &out, "--epochs", "6"];
        args.extend(more);
        let output = mappa(&args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).to_string();
        assert!(output.status.success(), "{text}");
        text
    };
    train("old", "base", &["--model", "resnet8", "--size", "16"]);
    let text = train("new", "head", &["--weights", &at("base"), "--freeze", "backbone"]);
    assert!(
        text.contains("the last layer, fc, is new: 3 classes") && text.contains("64 features of the frozen layers for 60 images"),
        "{text}"
    );
    // All but the head is what it was, running statistics too.
    let base = fs::read(folder.path().join("base/model.safetensors")).unwrap();
    let head = fs::read(folder.path().join("head/model.safetensors")).unwrap();
    let (base, head) = (safetensors::SafeTensors::deserialize(&base).unwrap(), safetensors::SafeTensors::deserialize(&head).unwrap());
    for (name, tensor) in base.tensors().iter().filter(|(name, _)| !name.starts_with("fc.")) {
        assert!(head.tensor(name).unwrap().data() == tensor.data(), "{name} changed");
    }
    // Phase two: everything, from there, with the head too; images change, so nothing is computed ahead.
    let text = train("new", "tuned", &["--weights", &at("head")]);
    assert!(text.contains("the last layer too") && !text.contains("features of"), "{text}");
    let asked = run(&["predict".into(), at("tuned"), at("new/rose"), "--json".into(), "--device".into(), "cpu".into()]);
    assert_eq!(asked.lines().count(), 20);
    let weights = at("base/model.safetensors");
    refused(&["train", "--data", &at("new"), "--weights", &weights], 2, &["model.toml", "sidecar"]);
    refused(&["train", "--data", &at("new"), "--weights", &at("base"), "--model", "cnn"], 2, &["--model cnn", "resnet8"]);
    refused(&["train", "--weights", &at("base"), "--device", "cpu"], 2, &["takes 3 channels", "digits have 1"]);
    refused(&["train", "--data", &at("new"), "--weights", &at("base"), "--freeze", "conv9*", "--device", "cpu"], 2, &["--freeze conv9*"]);
    refused(&["train", "--resume", &at("head"), "--lr", "1"], 2, &["--resume", "--epochs and --max-steps"]);
}

#[test]
fn a_network_is_described_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let network = "name = \"own\"\nlayers = [\n  { type = \"Flatten\" },\n  { type = \"Linear\", out_features = \"classes\" },\n]\n";
    fs::write(at("own.toml"), network).unwrap();
    let summary = run(&["summary", &at("own.toml"), "--input", "1x8x8"].map(str::to_owned));
    assert!(summary.contains("650 parameters"), "{summary}");
    let out = at("run");
    run(&["train", "--device", "cpu", "--model", &at("own.toml"), "--epochs", "8", "--out", &out, "--json"].map(str::to_owned));
    // The run needs the file no more.
    fs::write(at("own.toml"), network.replace("Flatten", "Flaten")).unwrap();
    let score = run(&["eval", &out, "--json", "--device", "cpu"].map(str::to_owned));
    assert!(serde_json::from_str::<serde_json::Value>(score.trim()).unwrap()["accuracy"].as_f64().unwrap() > 0.7, "{score}");
    // A run that was at its end goes on when it gets more epochs, and not without.
    let epochs = |text: &str| text.lines().filter(|line| line.contains("\"event\":\"epoch\"")).count();
    assert_eq!(epochs(&run(&["train", "--resume", &out, "--epochs", "10", "--device", "cpu", "--json"].map(str::to_owned))), 2);
    let text = run(&["train", "--resume", &out, "--epochs", "10", "--device", "cpu", "--json"].map(str::to_owned));
    let done: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(epochs(&text) == 0 && done["train_loss"].as_f64().unwrap() > 0.1, "{text}");
    refused(&["train", "--model", &at("own.toml"), "--device", "cpu"], 2, &["own.toml: line 3: Flaten", "did you mean Flatten?"]);
    refused(&["summary", &at("none.toml")], 2, &["none.toml"]);
}

#[test]
fn a_run_ends_with_a_report_that_needs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    paint(&folder.path().join("photos"), &[("<leaf>", [30, 180, 40]), ("sky & sea", [40, 90, 220]), ("soil", [120, 110, 90])], 20);
    let (data, out) = (folder.path().join("photos").display().to_string(), folder.path().join("run").display().to_string());
    // Too little for all to be right: one step.
    let text =
        run(&["train", "--device", "cpu", "--data", &data, "--model", "mlp", "--size", "8", "--max-steps", "1", "--json", "--out", &out]
            .map(str::to_owned));
    let done: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let report = fs::read_to_string(done["report"].as_str().unwrap()).unwrap();
    for part in ["Learning curves", "Confusion matrix", "Classes", "ROC", "Reliability", "config.toml", "&lt;leaf&gt;", "sky &amp; sea"] {
        assert!(report.contains(part), "{part}");
    }
    assert!(!report.contains("<leaf>") && !report.contains("http:") && !report.contains("https:") && !report.contains("NaN"));
    // The matrix holds every held back image once, and each mistake that is shown is a picture.
    let cells: u64 =
        report.split("class=\"cell ").skip(1).filter_map(|cell| cell.split('>').nth(1)?.split('<').next()?.parse::<u64>().ok()).sum();
    assert_eq!(cells, 6, "two of 20 of each class");
    let mistakes = report.matches(" taken for <b>").count();
    let parts: Vec<&str> = report.split("<section>").filter(|part| part.contains("The most confident mistakes")).collect();
    assert!(
        mistakes > 0 && parts.len() == 1 && parts[0].matches("src=\"data:image/png;base64,").count() == mistakes,
        "{mistakes} mistakes"
    );
    // Written again from what lies in the folder, it is the same.
    fs::remove_file(Path::new(&out).join("report.html")).unwrap();
    run(&["plot", &out, "--device", "cpu"].map(str::to_owned));
    assert!(fs::read_to_string(Path::new(&out).join("report.html")).unwrap() == report);
    // Without metrics, or with a line that was being written when the machine stopped, it is still drawn.
    let metrics = Path::new(&out).join("metrics.jsonl");
    fs::write(&metrics, "{\"event\":\"epoch\",\"epo").unwrap();
    run(&["plot", &out, "--device", "cpu"].map(str::to_owned));
    fs::remove_file(&metrics).unwrap();
    refused(&["plot", &out, "--device", "cpu"], 1, &["metrics.jsonl"]);
    // Its config.toml makes the same run again.
    let again = folder.path().join("again").display().to_string();
    run(&["train", "--device", "cpu", "--config", &format!("{out}/config.toml"), "--out", &again].map(str::to_owned));
    let file = |run: &str, name: &str| fs::read(Path::new(run).join(name)).unwrap();
    assert!(
        file(&out, "model.safetensors") == file(&again, "model.safetensors") && file(&out, "config.toml") == file(&again, "config.toml")
    );
}

#[test]
fn published_recipes_are_complete() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let data = mappa::data::digits().unwrap();
    let mut count = 0;
    for entry in fs::read_dir(configs).unwrap() {
        let settings = mappa::train::Settings::read(&entry.unwrap().path()).unwrap();
        settings.resolve(&data, None).unwrap();
        count += 1;
    }
    assert!(count >= 5);
}

#[test]
fn settings_are_searched_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let out = at("sweep");
    let sweep =
        ["sweep", "--try", "lr=0.00001,0.005", "--try", "optimizer=adam,adamw", "--model", "mlp", "--epochs", "2", "--device", "cpu"];
    let text = run(&[&sweep[..], &["--out", &out]].concat().iter().map(|s| s.to_string()).collect::<Vec<_>>());
    let rows: Vec<&str> = text.lines().skip(1).collect();
    assert!(rows.len() == 4 && rows[..2].iter().all(|row| row.contains("lr=0.005")), "{text}");
    refused(&[&sweep[..], &["--out", &out]].concat(), 2, &["exists already"]);
    refused(&["sweep", "--try", "speed=1,2", "--device", "cpu", "--out", &at("b")], 2, &["unknown field `speed`"]);
    refused(&["sweep", "--try", "lr=0.1,-1", "--device", "cpu", "--out", &at("b")], 2, &["--lr -1"]);
    assert!(!folder.path().join("b").exists());
    let text = run(&["compare", &at("sweep/001"), &at("sweep/004")].map(str::to_owned));
    assert!(text.contains("lr ") && text.contains("optimizer") && !text.contains("batch-size"), "{text}");
    let text = run(&["compare", &at("sweep/001"), &at("sweep/001"), "--json"].map(str::to_owned));
    assert_eq!(serde_json::from_str::<serde_json::Value>(text.lines().next().unwrap()).unwrap()["finished"], true, "{text}");
    refused(&["compare", &at("nothing")], 2, &["nothing", "no run folder"]);

    let text = run(&["lr-find", "--device", "cpu", "--json", "--steps", "80"].map(str::to_owned));
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let lr = last["lr"].as_f64().unwrap();
    assert!((1e-4..0.1).contains(&lr), "{text}");
    refused(&["lr-find", "--from", "1", "--to", "0.1"], 2, &["--from"]);
}

#[test]
fn a_data_set_is_checked_before_and_after_training() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    for part in ["train", "test"] {
        paint(&folder.path().join("photos").join(part), &[("leaf", [30, 180, 40]), ("sky", [40, 90, 220])], 16);
    }
    // `paint` gives both parts the same pictures: leaks, and each is equal to itself alone.
    let output = mappa(&["data", "check", &at("photos"), "--json"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let summary: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert!(output.status.code() == Some(1) && summary["leaks"].as_u64().unwrap() >= 32, "{text}");
    fs::remove_dir_all(at("photos/test")).unwrap();
    // Three labels are swapped.
    for i in [3, 7, 9] {
        fs::rename(at(&format!("photos/train/leaf/{i}.png")), at(&format!("photos/train/sky/leaf-{i}.png"))).unwrap();
    }
    fs::write(at("photos/train/sky/broken.png"), "").unwrap();
    let out = at("run");
    run(&["train", "--device", "cpu", "--data", &at("photos"), "--model", "mlp", "--size", "8", "--epochs", "2", "--json", "--out", &out]
        .map(str::to_owned));
    let page = at("page.html");
    let output = mappa(&["data", "check", &at("photos"), "--run", &out, "--html", &page, "--device", "cpu", "--json"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let suspects: Vec<serde_json::Value> =
        text.lines().map(|l| serde_json::from_str(l).unwrap()).filter(|v: &serde_json::Value| v["event"] == "suspect").collect();
    let planted = suspects.iter().take(3).filter(|s| s["item"].as_str().unwrap().contains("leaf-") && s["answer"] == "leaf").count();
    assert!(output.status.success() && planted == 3, "{text}");
    assert!(text.contains("\"event\":\"unreadable\"") && text.contains("broken.png"), "{text}");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("Perhaps labelled wrongly") && page.contains("leaf-7.png") && page.contains("broken.png"));
    refused(&["data", "check", &at("nothing")], 2, &["nothing"]);
    run(&["data".to_owned(), "check".into()]);
    let digits = at("digits");
    run(&quick(Path::new(&digits), &[]));
    refused(&["data", "check", &at("photos"), "--run", &digits, "--device", "cpu"], 2, &["classes", "leaf, sky"]);
    refused(&["data", "check", "--run", &digits, "--device", "cpu"], 2, &["among pictures only"]);
}

#[test]
fn a_contact_sheet_shows_what_a_network_sees() {
    let folder = tempfile::tempdir().unwrap();
    let sheet = folder.path().join("sheet.png").display().to_string();
    let text =
        run(&["data", "preview", "digits", "--set", "rotate=20", "--rows", "12", "--columns", "4", "--out", &sheet].map(str::to_owned));
    assert!(text.contains("12 images as they are, then 3 times"), "{text}");
    let sheet = image::open(sheet).unwrap().into_luma8();
    // Eight times 8 pixels and a gap of 2, and one at the end.
    assert_eq!(sheet.dimensions(), (4 * 66 + 2, 12 * 66 + 2));
    let inner = |column: u32| -> Vec<u8> { (0..64 * 64).map(|i| sheet.get_pixel(2 + column * 66 + i % 64, 2 + i / 64)[0]).collect() };
    // The first image is a zero: ink of full brightness about a dark middle; the second is the same, changed.
    assert!(inner(0).contains(&239) && inner(0) != inner(1) && inner(1) != inner(2));
    refused(&["data", "preview", "digits", "--augment", "wild"], 2, &["--augment wild"]);
    let odd = folder.path().join("sheet.xyz").display().to_string();
    refused(&["data", "preview", "digits", "--out", &odd], 2, &["sheet.xyz", ".png"]);
}

#[test]
fn pictures_are_asked_by_folder_and_by_list() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    paint(&folder.path().join("photos"), &[("leaf", [30, 180, 40]), ("sky", [40, 90, 220])], 12);
    let out = at("run");
    run(&["train", "--device", "cpu", "--data", &at("photos"), "--model", "mlp", "--size", "8", "--epochs", "3", "--json", "--out", &out]
        .map(str::to_owned));
    let list = format!("{}\n\n{}\n", at("photos/sky/1.png"), at("photos/leaf/2.png"));
    let output = mappa(&["predict", &out, "-", "--top", "1", "--device", "cpu"]).write_stdin(list).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().count() == 2 && text.contains("sky/1.png: sky") && !text.contains("then"), "{text}");
    let text = run(&["predict", &out, &at("photos"), "--threshold", "1", "--json", "--device", "cpu"].map(str::to_owned));
    assert_eq!(text.lines().count(), 24);
    assert!(text.lines().any(|line| line.contains("\"class\":null")), "{text}");
    // One broken picture among many is named, and the rest is answered.
    fs::write(at("photos/sky/2.png"), "").unwrap();
    let output = mappa(&["predict", &out, &at("photos/sky"), "--device", "cpu"]).output().unwrap();
    let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.code() == Some(2) && text.lines().count() == 11, "{text}{errors}");
    assert!(errors.contains("2.png") && errors.contains("1 of 12 pictures could not be read"), "{errors}");
    fs::create_dir(at("empty")).unwrap();
    refused(&["predict", &out, &at("empty"), "--device", "cpu"], 2, &["empty", "holds no picture"]);
    refused(&["predict", &out, "x.png", "--threshold", "2"], 2, &["--threshold 2"]);
}

#[test]
fn bench_times_workloads_and_says_their_share_of_the_roof() {
    let text = run(&["bench", "overhead", "matmul_256", "--budget", "0.01", "--json", "--device", "cpu"].map(str::to_owned));
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let metrics: Vec<&str> = lines.iter().map(|line| line["metric"].as_str().unwrap()).collect();
    // `overhead` names `overhead` alone, though `overhead_sync` begins with it.
    assert_eq!(metrics, ["step_time", "host_time", "throughput"], "{text}");
    for line in &lines {
        for key in ["peer", "version", "backend", "device", "workload", "unit"] {
            assert!(line[key].is_string(), "{key}: {line}");
        }
        for key in ["threads", "value", "iters", "best", "other_load", "share_of_roof", "peak_flops", "peak_bytes_per_s"] {
            assert!(line[key].as_f64().is_some_and(|value| value >= 0.0), "{key}: {line}");
        }
    }
    refused(&["bench", "train_nothing", "--device", "cpu"], 2, &["train_nothing", "conv_A_fwdbwd_b4"]);
    refused(&["bench", "overhead", "--budget", "0", "--device", "cpu"], 2, &["--budget 0"]);
}

#[test]
fn a_profile_ends_with_a_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run").display().to_string();
    let output = mappa(&["train", "--device", "cpu", "--max-steps", "5", "--profile", "--out", &out]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).to_string();
    assert!(output.status.success() && text.contains("conv2d [") && text.contains("verdict: "), "{text}");
}

#[test]
fn diff_shows_layers_and_gradients() {
    let text = run(&["diff", "lenet5", "--device", "cpu", "--input", "1x28x28", "--batch-size", "2"].map(str::to_owned));
    assert!(text.contains("conv1") && text.contains("gradient") && text.contains("operations are within their tolerances"), "{text}");
    refused(&["diff", "lenet", "--device", "cpu"], 2, &["lenet5"]);
    refused(&["diff", "--input", "28x28", "--device", "cpu"], 2, &["--input 28x28"]);
}

#[test]
fn images_of_idx_files_are_asked_by_number_and_the_held_back_ones_measured() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    // Two classes: bright on the left, bright on the right; pixels 0 to 16.
    let (mut images, mut labels) = (Vec::new(), Vec::new());
    for i in 0..60u8 {
        images.extend((0..64).map(|p: u8| if (p % 8 < 4) == (i % 2 == 0) { 12 + i % 5 } else { i % 3 }));
        labels.push(i % 2);
    }
    let file = |magic: u32, sizes: &[u32], body: &[u8]| -> Vec<u8> {
        [magic].iter().chain(sizes).flat_map(|v| v.to_be_bytes()).chain(body.iter().copied()).collect()
    };
    fs::create_dir(at("data")).unwrap();
    fs::write(at("data/train-images-idx3-ubyte"), file(0x803, &[60, 8, 8], &images)).unwrap();
    fs::write(at("data/train-labels-idx1-ubyte"), file(0x801, &[60], &labels)).unwrap();
    fs::write(at("data/dataset.toml"), "classes = [\"left\", \"right\"]\nscale = 16\n").unwrap();
    let out = at("run");
    run(&[
        "train",
        "--device",
        "cpu",
        "--data",
        &at("data"),
        "--model",
        "mlp",
        "--epochs",
        "4",
        "--val-fraction",
        "0.2",
        "--json",
        "--out",
        &out,
    ]
    .map(str::to_owned));
    let eval: serde_json::Value =
        serde_json::from_str(run(&["eval", &out, "--json", "--device", "cpu"].map(str::to_owned)).trim()).unwrap();
    let done = fs::read_to_string(Path::new(&out).join("metrics.jsonl")).unwrap();
    let done: serde_json::Value = serde_json::from_str(done.lines().last().unwrap()).unwrap();
    assert_eq!(eval["confusion_matrix"].to_string(), "[[6,0],[0,6]]");
    assert_eq!(eval["loss"], done["val_loss"]);
    for (n, class) in [(0, "left"), (17, "right"), (59, "right")] {
        let image = format!("{}:{n}", at("data/train-images-idx3-ubyte"));
        let line: serde_json::Value =
            serde_json::from_str(run(&["predict", &out, &image, "--json", "--device", "cpu"].map(str::to_owned)).trim()).unwrap();
        assert_eq!((line["class"].as_str(), line["path"].as_str()), (Some(class), Some(image.as_str())));
    }
    refused(
        &["predict", &out, &format!("{}:60", at("data/train-images-idx3-ubyte")), "--device", "cpu"],
        2,
        &["train-images-idx3-ubyte:60", "60 images"],
    );
    refused(&["predict", &out, &format!("{}:0", at("data/train-labels-idx1-ubyte")), "--device", "cpu"], 2, &["train-labels"]);
}

#[test]
fn a_network_leaves_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let out = at("run");
    let mut args = quick(Path::new(&out), &["--json"]);
    let model = args.iter().position(|a| a == "mlp").unwrap();
    args[model] = "resnet8".into();
    run(&args);
    let eval = |source: &str| -> serde_json::Value {
        serde_json::from_str(run(&["eval", source, "--data", "digits", "--device", "cpu", "--json"].map(str::to_owned)).trim()).unwrap()
    };
    // Digits have pixels of 0 to 16: elsewhere pixels are 0 to 255, and so the sidecars say; put back, the figures are the run's.
    let digits = |file: &str| {
        let about = Path::new(file).with_extension("toml");
        let text = fs::read_to_string(&about).unwrap();
        assert!(text.contains("scale = 255.0"), "{text}");
        fs::write(&about, text.replace("scale = 255.0", "scale = 16.0")).unwrap();
    };
    let own = eval(&out);
    for (name, flags) in [("net.onnx", &[][..]), ("folded.onnx", &["--fold"]), ("net.pth", &[]), ("net.safetensors", &[])] {
        let file = at(name);
        let mut args = vec!["export", &out, "--out", &file];
        args.extend(flags);
        run(&args.iter().map(|a| a.to_string()).collect::<Vec<_>>());
        let back = if name.ends_with("safetensors") { file.clone() } else { at(&format!("{name}-back.safetensors")) };
        if back != file {
            let mut args = vec!["import", &file, "--out", &back, "--classes", "0,1,2,3,4,5,6,7,8,9"];
            if name.ends_with("pth") {
                args.extend(["--model", "resnet8", "--input", "1x8x8"]);
            }
            run(&args.iter().map(|a| a.to_string()).collect::<Vec<_>>());
        }
        digits(&back);
        let read = eval(&back);
        assert_eq!(read["confusion_matrix"], own["confusion_matrix"], "{name}");
        let difference = (read["loss"].as_f64().unwrap() - own["loss"].as_f64().unwrap()).abs();
        assert!(difference < 1e-5, "{name}: {difference}");
    }
    // An imported network is trained on.
    let again = at("again");
    run(&["train", "--device", "cpu", "--weights", &at("folded.onnx-back.safetensors"), "--max-steps", "3", "--json", "--out", &again]
        .map(str::to_owned));
    assert!(fs::read_to_string(Path::new(&again).join("config.toml")).unwrap().contains("Conv2d"));
    refused(&["export", &out, "--out", &at("net.h5")], 2, &["net.h5", ".onnx, .pth or .safetensors"]);
    refused(&["export", &out, "--out", &at("x.pth"), "--fold"], 2, &["--fold"]);
    refused(&["export", &at("nothing"), "--out", &at("x.onnx")], 2, &["nothing"]);
    refused(&["export", &out, "--out", &at("no/such/folder.onnx")], 1, &["folder.onnx"]);
    refused(&["import", &at("net.pth"), "--out", &at("y.safetensors")], 2, &["--model"]);
    refused(
        &["import", &at("net.pth"), "--model", "resnet18", "--input", "1x8x8", "--out", &at("y.safetensors")],
        2,
        &["net.pth", "missing"],
    );
    refused(&["import", &at("net.onnx"), "--out", &at("net.safetensors")], 2, &["there already"]);
    fs::write(at("bad.onnx"), "no network").unwrap();
    refused(&["import", &at("bad.onnx")], 2, &["bad.onnx", "no ONNX file"]);
    fs::write(at("bad.pth"), "no checkpoint").unwrap();
    refused(&["import", &at("bad.pth"), "--model", "mlp"], 2, &["bad.pth", "zip archive"]);
    assert!(!Path::new(&at("y.safetensors")).exists() && !Path::new(&at("bad.safetensors")).exists());
}

#[test]
fn a_machine_is_looked_at_and_the_shell_is_served() {
    let text = run(&["doctor", "--json"].map(str::to_owned));
    let findings: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for what in ["mappa", "CPU", "memory", "self-test", "GPU", "runs", "temporary", "cache"] {
        assert!(findings.iter().any(|finding| finding["what"] == what), "{what}: {text}");
    }
    assert!(findings.iter().all(|finding| (finding["state"] == "ok") == finding["hint"].is_null()), "{text}");
    let output = mappa(&["doctor"]).env("TMPDIR", "/nonexistent").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && text.contains("wrong  temporary  /nonexistent") && text.contains("-> set TMPDIR"), "{text}");
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        assert!(run(&["completions".to_owned(), shell.into()]).contains("lr-find"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    run(&["man".to_owned(), folder.path().join("man").display().to_string()]);
    assert!(fs::read_to_string(folder.path().join("man/mappa-train.1")).unwrap().contains("label\\-smoothing"));
    fs::write(folder.path().join("file"), "").unwrap();
    refused(&["man", &folder.path().join("file").display().to_string()], 1, &["file"]);
}

#[test]
fn every_loss_learns_and_a_run_that_stopped_early_goes_on_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    for loss in mappa::train::LOSSES {
        let out = folder.path().join(loss);
        let out = out.display().to_string();
        let args = format!(
            "train --device cpu --model mlp --max-steps 800 --epochs 40 --json --loss {loss} --class-weights balanced --mixup 0.1 --out {out}"
        );
        let text = run(&args.split(' ').map(str::to_owned).collect::<Vec<_>>());
        let done: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert!(done["test_accuracy"].as_f64().unwrap() > 0.8, "{loss}: {done}");
    }
    let out = folder.path().join("patient").display().to_string();
    let args = ["train", "--device", "cpu", "--model", "mlp", "--lr", "1e-9", "--patience", "2", "--epochs", "9", "--json", "--out", &out];
    let epochs = || fs::read_to_string(Path::new(&out).join("metrics.jsonl")).unwrap().lines().filter(|l| l.contains("\"epoch\",")).count();
    run(&args.map(str::to_owned));
    let first = epochs();
    assert!(first < 9, "{first} epochs");
    run(&["train", "--resume", &out, "--device", "cpu", "--json"].map(str::to_owned));
    assert_eq!(epochs(), first);
    run(&["train", "--resume", &out, "--device", "cpu", "--epochs", "20", "--json"].map(str::to_owned));
    assert_eq!(epochs(), first + 2);
}

#[test]
fn a_run_can_be_measured_and_asked() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let text = run(&quick(&out, &["--json"]));
    let events: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let steps: Vec<u64> = events.iter().filter(|e| e["event"] == "step").map(|e| e["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, (1..=30).collect::<Vec<u64>>());
    let done = events.last().unwrap();
    assert_eq!(done["event"], "done");
    assert_eq!(done["run"], out.display().to_string());
    let eval: serde_json::Value = serde_json::from_str(run(&["eval".into(), out.display().to_string(), "--json".into()]).trim()).unwrap();
    assert_eq!(eval["accuracy"], done["test_accuracy"]);
    let total: u64 =
        eval["confusion_matrix"].as_array().unwrap().iter().flat_map(|r| r.as_array().unwrap()).map(|v| v.as_u64().unwrap()).sum();
    assert_eq!(total, 360);
    // What it answers as a table, and its curves for TensorBoard and on a page beside another run.
    let table = folder.path().join("predictions.csv");
    run(&["eval".into(), out.display().to_string(), "--predictions".into(), table.display().to_string()]);
    let rows: Vec<String> = fs::read_to_string(&table).unwrap().lines().map(str::to_owned).collect();
    assert!(rows.len() == 361 && rows[0] == "class,0,1,2,3,4,5,6,7,8,9");
    let sum: f64 = rows[1].split(',').skip(1).map(|p| p.parse::<f64>().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-9, "{}", rows[1]);
    let other = folder.path().join("other");
    run(&quick(&other, &["--tensorboard", "--log-gradients"]));
    let epoch = fs::read_to_string(other.join("metrics.jsonl")).unwrap();
    let epoch: serde_json::Value =
        serde_json::from_str(epoch.lines().find(|line| line.contains("\"epoch\":1,") && line.contains("histograms")).unwrap()).unwrap();
    // Every weight of the layer is counted once, and its sizes spread.
    let counts: Vec<u64> = epoch["gradient_histograms"][0][1].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect();
    let norm = epoch["gradient_norms"][0][1].as_f64().unwrap();
    let weights = mappa::models::build("mlp", [1, 8, 8], 10, &mappa::Device::null().0, 0).unwrap();
    let first = mappa::nn::named_parameters(&weights).into_iter().find(|(_, p)| p.shape().rank() >= 2).unwrap().1;
    assert_eq!((counts.len(), counts.iter().sum::<u64>()), (15, first.shape().len() as u64));
    // The largest is no larger than the norm, and at least the norm's share of one weight.
    let largest = counts.iter().rposition(|&n| n > 0).unwrap() as i32 - 13;
    assert!(10f64.powi(largest) <= norm && 10f64.powi(largest + 1) >= norm / (first.shape().len() as f64).sqrt(), "{counts:?} {norm}");
    assert!(fs::read_to_string(other.join("report.html")).unwrap().contains("Sizes of gradients, epoch 1"));
    let events: Vec<_> = fs::read_dir(other.join("tensorboard")).unwrap().flatten().collect();
    assert!(events.len() == 1 && events[0].metadata().unwrap().len() > 30 * 40);
    let page = folder.path().join("page.html");
    run(&["compare".into(), out.display().to_string(), other.display().to_string(), "--html".into(), page.display().to_string()]);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.matches("<polyline").count() == 6 && page.contains("test accuracy"), "{page}");
    let picture = folder.path().join("seven.png");
    image::GrayImage::from_fn(8, 8, |x, y| image::Luma([if y == 1 || x + y == 8 { 255 } else { 0 }])).save(&picture).unwrap();
    let line: serde_json::Value =
        serde_json::from_str(run(&["predict".into(), out.display().to_string(), picture.display().to_string(), "--json".into()]).trim())
            .unwrap();
    assert_eq!(line["top"].as_array().unwrap().len(), 5);
    // The weights alone: with a sidecar they answer as the run does; pixels there are 0..255.
    let weights = folder.path().join("net.safetensors");
    fs::copy(out.join("model.safetensors"), &weights).unwrap();
    let ask = ["predict".to_owned(), weights.display().to_string(), picture.display().to_string(), "--json".into()];
    refused(&ask.iter().map(String::as_str).collect::<Vec<_>>(), 2, &["net.toml", "sidecar"]);
    fs::write(weights.with_extension("toml"), "model = \"mlp\"\ninput = [1, 8, 8]\nnum_classes = 10\nscale = 255.0\n").unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(run(&ask).trim()).unwrap()["top"], line["top"]);
    fs::write(weights.with_extension("toml"), "model = \"mlp\"\ninput = [1, 8, 8]\nnum_classes = 10\nscale = 16\n").unwrap();
    let eval = run(&["eval".into(), weights.display().to_string(), "--json".into()]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(eval.trim()).unwrap()["accuracy"], done["test_accuracy"]);
    refused(&["eval", &weights.display().to_string(), "--model", "lenet5"], 2, &["net.safetensors"]);
    fs::write(&picture, "no picture").unwrap();
    refused(&["predict", &out.display().to_string(), &picture.display().to_string()], 2, &["seven.png"]);
    // A second run into the same folder is refused.
    let again = quick(&out, &[]);
    refused(&again.iter().map(String::as_str).collect::<Vec<_>>(), 2, &["not empty"]);
    // A corrupt checkpoint is named, and nothing is trained on it.
    let last = fs::read_to_string(out.join("checkpoints/last")).unwrap();
    fs::write(out.join("checkpoints").join(last.trim()).join("model.safetensors"), "garbage").unwrap();
    refused(&["train", "--resume", &out.display().to_string(), "--device", "cpu", "--max-steps", "40"], 2, &["model.safetensors"]);
}

#[test]
fn two_runs_of_one_seed_agree_bit_for_bit_whatever_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    let mut weights = Vec::new();
    for (i, more) in [["--threads", "1", "--workers", "0"], ["--threads", "2", "--workers", "3"]].iter().enumerate() {
        let out = folder.path().join(i.to_string());
        let mut args = quick(&out, more);
        let model = args.iter().position(|a| a == "mlp").unwrap();
        args[model] = "cnn".into();
        run(&args);
        weights.push((fs::read(out.join("model.safetensors")).unwrap(), fs::read_to_string(out.join("metrics.jsonl")).unwrap()));
    }
    let steps = |text: &str| text.lines().filter(|l| !l.contains("\"done\"")).map(str::to_owned).collect::<Vec<_>>();
    assert!(weights[0].0 == weights[1].0, "weights differ");
    assert_eq!(steps(&weights[0].1), steps(&weights[1].1));
}

#[test]
fn a_killed_run_resumes_to_the_same_weights() {
    killed_and_resumed(&["--model", "resnet8", "--batch-size", "64"], &[3, 6, 9, 12, 15, 18, 21, 24, 27, 30]);
}

/// What was forced at a run's beginning holds when it goes on, without being said again.
#[test]
fn a_resumed_run_keeps_its_kernels() {
    let folder = tempfile::tempdir().unwrap();
    let weights = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let mut args = quick(&out, more);
        let model = args.iter().position(|a| a == "mlp").unwrap();
        args[model] = "cnn".into();
        run(&args);
        (fs::read(out.join("model.safetensors")).unwrap(), fs::read_to_string(out.join("config.toml")).unwrap())
    };
    let (own, own_config) = weights("own", &[]);
    let (forced, forced_config) = weights("forced", &["--kernels", "filtering=1"]);
    assert!(own != forced, "the forced kernels were not used");
    assert!(own_config.contains("kernels = \"cpu filtering=48,24 pixels=128 columns=8,16\""), "{own_config}");
    assert!(forced_config.contains("kernels = \"cpu filtering=1,1 pixels=128 columns=8,16\""), "{forced_config}");
    killed_and_resumed(&["--model", "cnn", "--kernels", "filtering=1"], &[6, 18]);
    refused(&["train", "--device", "cpu", "--kernels", "filtering=many"], 2, &["'filtering=many'", "columns=N,N"]);
    refused(&["bench", "matmul_256", "--device", "cpu", "--kernels", "product=tile"], 2, &["'product=tile' is no choice of the cpu"]);
    let output = mappa(&["bench", "matmul_256", "--device", "cpu"]).env("MAPPA_KERNELS", "tiles").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The loss scale, and the steps that it skipped, are part of what is resumed.
#[test]
fn a_killed_run_of_mixed_precision_resumes_to_the_same_weights() {
    killed_and_resumed(&["--model", "lenet5", "--precision", "f16"], &[6, 18]);
}

#[test]
fn a_killed_run_with_everything_resumes_to_the_same_weights() {
    let flags = "--model resnet8 --batch-size 16 --accumulate 3 --ema 0.9 --mixup 0.4 --cutmix 1 --rotate 5 --crop 0.6 --jitter 0.2 --erase 0.2 \
                 --warmup-steps 5 --schedule cosine --class-weights balanced --l1 1e-5 --clip-grad-norm 1 --best-by loss";
    killed_and_resumed(&flags.split_whitespace().collect::<Vec<_>>(), &[3, 9, 15, 21, 33]);
}

/// Whatever the process is doing: starting, computing, or writing a checkpoint.
#[test]
fn a_run_killed_at_random_moments_ends_with_the_same_weights() {
    let (kills, steps) = if std::env::var("MAPPA_FULL").is_ok() { (60, "3000") } else { (6, "300") };
    killed_at_random("cpu", kills, steps);
}

/// As above on a GPU, a software one where there is no other.
#[cfg(feature = "gpu")]
#[test]
fn a_run_on_a_gpu_killed_at_random_moments_ends_with_the_same_weights() {
    let (kills, steps) = if std::env::var("MAPPA_FULL").is_ok() { (12, "120") } else { (3, "24") };
    let devices = run(&["devices".to_owned(), "--json".into()]);
    if !devices.contains("\"gpu:0\"") {
        assert_ne!(std::env::var("MAPPA_REQUIRE_GPU").as_deref(), Ok("1"), "no GPU adapter was found");
        println!("skipped: there is no GPU adapter");
        return;
    }
    killed_at_random("gpu", kills, steps);
}

fn killed_at_random(device: &str, kills: u64, steps: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    let flags = "--model lenet5 --batch-size 16 --accumulate 2 --ema 0.9 --mixup 0.4 --randaugment 1 --schedule cosine --seed 5 --checkpoint-every 3";
    let args = |out: &Path, steps: &str| -> Vec<String> {
        let out = out.display().to_string();
        ["train", "--device", device, "--json", "--max-steps", steps, "--epochs", "100", "--out", &out]
            .into_iter()
            .chain(flags.split_whitespace())
            .map(str::to_owned)
            .collect()
    };
    let timed = |args: &[String]| {
        let started = std::time::Instant::now();
        run(args);
        started.elapsed().as_secs_f64()
    };
    // In the first run the driver compiles the kernels, and keeps them.
    timed(&args(&folder.path().join("first"), "1"));
    let (start, all) = (timed(&args(&folder.path().join("start"), "1")), timed(&args(&whole, steps)));
    // Some are killed before their first step, most in the midst of their share of the steps.
    let mut mean = (all - start).max(0.0) / kills as f64;
    let binary = assert_cmd::cargo::cargo_bin("mappa");
    let resume = ["train", "--resume", &killed.display().to_string(), "--device", device, "--json"].map(str::to_owned).to_vec();
    let (mut done, mut at) = (0, Vec::new());
    loop {
        let command = if killed.join("config.toml").exists() { resume.clone() } else { args(&killed, steps) };
        // What was killed while it wrote config.toml is no run yet, and its folder is not empty.
        if command != resume {
            let _ = fs::remove_dir_all(&killed);
        }
        let mut child = std::process::Command::new(&binary).args(command).stdout(std::process::Stdio::null()).spawn().unwrap();
        let patience = mappa::rng::Stream::new(7, "kills", done, 0).uniform(0) as f64 * 2.0 * mean + 0.7 * start;
        let begun = std::time::Instant::now();
        while child.try_wait().unwrap().is_none() && (done >= kills || begun.elapsed().as_secs_f64() < patience) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success());
            if done >= kills / 2 || mean < 0.01 {
                break;
            }
            // Other tests ran beside what was timed: all of it again, with less patience.
            (mean, done) = (mean / 2.0, 0);
            at.clear();
            fs::remove_dir_all(&killed).unwrap();
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        at.push(fs::read_to_string(killed.join("checkpoints/last")).unwrap_or_default().trim().to_owned());
        done += 1;
    }
    println!("{done} kills on {device}, with the last checkpoint {at:?}");
    assert!(done >= kills / 2, "the run ended after {done} kills");
    let last = format!("checkpoints/{:08}", steps.parse::<u64>().unwrap());
    for name in [
        "model.safetensors".to_owned(),
        format!("{last}/model.safetensors"),
        format!("{last}/optimizer.safetensors"),
        format!("{last}/ema.safetensors"),
    ] {
        assert!(fs::read(whole.join(&name)).unwrap() == fs::read(killed.join(&name)).unwrap(), "{name} differs");
    }
}

#[test]
fn batches_of_a_step_are_one_larger_batch() {
    let folder = tempfile::tempdir().unwrap();
    let weights = |name: &str, flags: &str| -> Vec<f32> {
        let out = folder.path().join(name);
        let fixed = "--augment none --optimizer sgd --json --val-fraction 0";
        run(&quick(&out, &flags.split_whitespace().chain(fixed.split_whitespace()).collect::<Vec<_>>()));
        let bytes = fs::read(out.join("model.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        file.tensor("2.weight").unwrap().data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    };
    let (one, four) = (weights("one", "--batch-size 64"), weights("four", "--batch-size 16 --accumulate 4"));
    // Sums of 64 gradients in another order, for 30 steps.
    assert!(one.iter().zip(&four).all(|(a, b)| (a - b).abs() < 1e-4));
    assert!(one.iter().zip(&weights("less", "--batch-size 16")).any(|(a, b)| (a - b).abs() > 1e-2));
}

fn killed_and_resumed(model: &[&str], kills: &[u64]) {
    let folder = tempfile::tempdir().unwrap();
    let flags = [model, &["--checkpoint-every", "3", "--max-steps", "40", "--seed", "5"]].concat();
    let args = |out: &Path| {
        let mut args: Vec<String> = ["train", "--device", "cpu", "--json", "--out"].iter().map(|s| s.to_string()).collect();
        args.push(out.display().to_string());
        args.extend(flags.iter().map(|s| s.to_string()));
        args
    };
    let whole = folder.path().join("whole");
    run(&args(&whole));
    let killed = folder.path().join("killed");
    let binary = assert_cmd::cargo::cargo_bin("mappa");
    let wait_for = |child: &mut std::process::Child, step: u64| {
        // The log is written with each checkpoint, so a checkpoint at or past the step is what to wait for.
        for _ in 0..6000 {
            let last = fs::read_to_string(killed.join("checkpoints/last")).unwrap_or_default();
            if last.trim().parse::<u64>().is_ok_and(|s| s >= step) || child.try_wait().unwrap().is_some() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        panic!("no checkpoint at step {step}");
    };
    let mut child = std::process::Command::new(&binary).args(args(&killed)).stdout(std::process::Stdio::null()).spawn().unwrap();
    for &step in kills {
        wait_for(&mut child, step);
        child.kill().unwrap();
        child.wait().unwrap();
        let resume = ["train", "--resume", &killed.display().to_string(), "--device", "cpu", "--json"].map(str::to_owned);
        child = std::process::Command::new(&binary).args(resume).stdout(std::process::Stdio::null()).spawn().unwrap();
    }
    assert!(child.wait().unwrap().success());
    for name in ["model.safetensors", "checkpoints/00000040/model.safetensors", "checkpoints/00000040/optimizer.safetensors"] {
        assert!(fs::read(whole.join(name)).unwrap() == fs::read(killed.join(name)).unwrap(), "{name} differs");
    }
    let average = "checkpoints/00000040/ema.safetensors";
    assert_eq!(whole.join(average).exists(), model.contains(&"--ema"));
    assert!(fs::read(whole.join(average)).ok() == fs::read(killed.join(average)).ok(), "{average} differs");
    let steps = |out: &Path| -> Vec<String> {
        fs::read_to_string(out.join("metrics.jsonl")).unwrap().lines().filter(|l| !l.contains("\"done\"")).map(str::to_owned).collect()
    };
    assert_eq!(steps(&whole), steps(&killed));
}

#[test]
fn tables_of_numbers_and_words_are_trained_on_measured_and_asked() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let train = |data: &str, out: &str, more: &[&str]| {
        let args = ["train", "--device", "cpu", "--data", &at(data), "--out", &at(out)];
        run(&[&args, more].concat().iter().map(|arg| arg.to_string()).collect::<Vec<_>>())
    };
    let ask = |command: &str, out: &str, file: &[&str]| {
        let args = [command, &at(out), "--device", "cpu", "--json"];
        let text = run(&[&args, file].concat().iter().map(|arg| arg.to_string()).collect::<Vec<_>>());
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect::<Vec<_>>()
    };
    // Linear regression, and a hump that no line has: the tutorial's two programs.
    fs::write(at("line.csv"), "x,y\n1,1.5\n2,2.5\n3,3.5\n4,4.5\n").unwrap();
    train("line.csv", "line", &[]);
    fs::write(at("new.csv"), "x\n1.5\n3.5\n").unwrap();
    let answers = ask("predict", "line", &[&at("new.csv")]);
    assert_eq!((answers.len(), answers[1]["sample"].as_str()), (2, Some("line 3")));
    for (answer, want) in answers.iter().zip([2.0, 4.0]) {
        // Between the points a network with relu is not bound to the line.
        assert!((answer["number"].as_f64().unwrap() - want).abs() < 0.1, "{answer}");
    }
    assert!(ask("eval", "line", &[])[0]["rmse"].as_f64().unwrap() < 0.02);
    fs::write(at("hump.csv"), "x,y\n1,0\n2,1\n3,0\n").unwrap();
    train("hump.csv", "hump", &[]);
    let classes: Vec<String> = ask("predict", "hump", &[&at("hump.csv")]).iter().map(|a| a["class"].as_str().unwrap().to_owned()).collect();
    assert_eq!(classes, ["0", "1", "0"]);
    // The same again from its config.toml, and on from its end.
    let weights = |out: &str| fs::read(dir.path().join(out).join("model.safetensors")).unwrap();
    run(&["train", "--device", "cpu", "--config", &at("hump/config.toml"), "--out", &at("again")].map(str::to_owned));
    assert!(weights("hump") == weights("again"));
    run(&["train", "--device", "cpu", "--resume", &at("again"), "--epochs", "1010"].map(str::to_owned));
    // Sequences of two to four rows: the class is whether they rise.
    let rows = (0..80).flat_map(|s| {
        let sign = if s % 2 == 0 { 1 } else { -1 };
        (0..2 + s % 3).map(move |t| format!("{s},{},{}\n", sign * t + s % 5, if sign > 0 { "up" } else { "down" }))
    });
    fs::write(at("walks.csv"), rows.fold("id,x,way\n".to_owned(), |text, row| text + &row)).unwrap();
    train("walks.csv", "walks", &["--sequence", "id", "--epochs", "30"]);
    assert!(ask("eval", "walks", &[])[0]["accuracy"].as_f64().unwrap() > 0.9);
    assert_eq!(ask("predict", "walks", &[&at("walks.csv")])[0]["sample"], "id 0");
    // A series: the number after four others.
    let rows = (0..120).map(|t| format!("{t},{:.4}\n", (t as f64 / 4.0).sin()));
    fs::write(at("wave.csv"), rows.fold("t,y\n".to_owned(), |text, row| text + &row)).unwrap();
    train("wave.csv", "wave", &["--target", "y", "--ignore", "t", "--window", "4", "--model", "gru", "--epochs", "60"]);
    assert!(ask("eval", "wave", &[])[0]["r2"].as_f64().unwrap() > 0.98);
    let next = ask("predict", "wave", &[&at("wave.csv")])[0]["number"].as_f64().unwrap();
    assert!((next - 30f64.sin()).abs() < 0.15, "{next}");
    let report = fs::read_to_string(dir.path().join("wave/report.html")).unwrap();
    assert!(report.contains("Answers over what they should be") && !report.contains("Filters"));
    // A network without its run.
    run(&["export", &at("hump"), "--out", &at("hump.safetensors")].map(str::to_owned));
    assert_eq!(ask("predict", "hump.safetensors", &[&at("hump.csv")])[1]["class"], "1");
    refused(&["predict", &at("line"), &at("wave.csv"), "--device", "cpu"], 2, &["wave.csv: has no column x. Its columns: t, y"]);
    refused(&["predict", &at("line"), &at("none.csv"), "--device", "cpu"], 2, &["none.csv: cannot be read"]);
    for (more, words) in [
        (&["--augment", "light"][..], "--augment light: changes images; a table has none"),
        (&["--loss", "hinge"], "--loss hinge: use one of mse, mae, huber"),
        (&["--best-by", "accuracy"], "of numbers there is the loss alone"),
        (&["--target", "z"], "has no column z. Its columns: x, y"),
        (&["--label-smoothing", "0.1"], "there are no classes"),
    ] {
        let (data, out) = (at("line.csv"), at("no"));
        let args = [&["train", "--device", "cpu", "--data", &data, "--out", &out], more].concat();
        refused(&args, 2, &[words]);
    }
    refused(&["train", "--target", "y", "--device", "cpu", "--out", &at("no")], 2, &["digits is no table: --target"]);
    assert!(!dir.path().join("no").exists());
}
