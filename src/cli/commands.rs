//! One function a command.

use super::peak::{self, Peak};
use super::progress::Progress;
use super::{
    DeviceLoss, DevicesArgs, DiffArgs, EvalArgs, PlotArgs, PredictArgs, ShadersArgs, SummaryArgs, TrainArgs, VerifyArgs, note, open_device,
    open_device_with, say,
};
use mappa::backend::profile::Cost;
use mappa::data::{self, Dataset, Sidecar, TableOptions};
use mappa::io::atomic;
use mappa::io::tensorboard::EventFile;
use mappa::metrics::{Measured, Predictions};
use mappa::nn::{Context, Module, named_parameters};
use mappa::train::{self, Answer, Answers, BatchSize, Classifier, Config, Options, Outcome, Run, Settings, Trained};
use mappa::verify;
use mappa::{DType, Device, Error, Result, Tensor, autodiff, models};
use serde_json::json;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

pub fn train(args: &TrainArgs) -> Result<ExitCode> {
    let json = args.device.json;
    let mut auto = false;
    // Input is read and checked before a device is touched.
    let (run, mut config, data) = match &args.resume {
        Some(path) => {
            let Settings { epochs, max_steps, .. } = args.settings;
            if args.settings != (Settings { epochs, max_steps, ..Settings::default() }) {
                return Err(Error::Config(
                    "--resume goes on with the run's own settings; of them only --epochs and --max-steps may change".into(),
                ));
            }
            let (run, mut config) = Run::open(path)?;
            config.epochs = epochs.unwrap_or(config.epochs);
            config.max_steps = max_steps.unwrap_or(config.max_steps);
            let data = data_of(&config)?;
            (Some(run), config, data)
        }
        None => {
            let settings = args.settings()?;
            auto = matches!(settings.batch_size, Some(BatchSize::Auto(_)));
            let (data, config) = prepare(settings, &mut None)?;
            (None, config, data)
        }
    };
    if args.check_finite && config.half() {
        return Err(Error::Config(
            "--check-finite stops at the first infinity, which f16 gradients may hold: such steps are skipped and the loss scale halved; use --precision f32".into(),
        ));
    }
    // Shapes, before a GPU is touched: the error names the layer.
    let (null, _) = Device::null();
    let shapes = models::build(&config.model, config.input, config.classes.len(), &null, config.seed)
        .map_err(|e| in_file(args.settings.model.as_deref(), e))?;
    shapes.forward(&mut Context::eval(), &Tensor::zeros(&null, &[1, config.input[0], config.input[1], config.input[2]])?)?;
    // A run keeps its kernels, on which the last bits depend.
    let (device, line) = open_device_with(&args.device, &config.kernels)?;
    let device = if args.check_finite { device.watched() } else { device };
    if auto {
        config.batch_size = train::fastest_batch_size(&config, &data, &device)?;
    }
    let peak = if args.profile { Some(Peak::measure(&device, args.device.threads)?) } else { None };
    let (device, costs) = if args.profile { device.profiled() } else { (device, Default::default()) };
    let run = match run {
        Some(run) => run,
        None => Run::create(args.out.as_deref(), &mut config, &device)?,
    };
    let parameters: usize = named_parameters(&shapes).iter().map(|(_, p)| p.shape().len()).sum();
    if !json {
        note(format!("device  {line}"));
        note(format!("data    {}: {}", config.data, sizes(&data)));
        for skipped in data.skipped.iter().take(SKIPPED_SHOWN) {
            note(format!("        left out: {skipped}"));
        }
        if data.skipped.len() > SKIPPED_SHOWN {
            let what = if config.table.is_some() { "rows more that lack a value" } else { "pictures more that cannot be read" };
            note(format!("        left out: {} {what}", data.skipped.len() - SKIPPED_SHOWN));
        }
        note(format!(
            "model   {}: {parameters} parameters; {} with learning rate {} ({}), batches of {}, {}, label smoothing {}, augmentation {}",
            models::title(&config.model),
            config.optimizer,
            config.lr,
            config.schedule,
            config.batch_size,
            config.loss,
            config.label_smoothing,
            config.augment
        ));
        note(format!("run     {}", run.path().display()));
    }
    let interrupt = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&interrupt);
    // The first signal asks for a clean stop, the second one does not wait for it.
    let handler = ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    });
    if let Err(error) = handler {
        note(format!("mappa: Ctrl-C will not save this run: {error}"));
    }
    let steps = (data.train.len().div_ceil(config.batch_size) as u64).div_ceil(config.accumulate as u64) * config.epochs;
    let steps = if config.max_steps > 0 { steps.min(config.max_steps) } else { steps };
    let mut progress = Progress::new(steps, config.epochs, if config.table.is_some() { "rows" } else { "images" });
    let mut tensorboard = if args.tensorboard { Some(EventFile::create(&run.path().join("tensorboard"))?) } else { None };
    let mut on_event = |event: &train::Event| {
        if let Some(file) = &mut tensorboard
            && let Err(error) = scalars(file, event)
        {
            // The run is worth more than its curves.
            note(format!("mappa: {error}; nothing more is written there"));
            tensorboard = None;
        }
        if json { say(event.to_json()) } else { progress.show(event) }
    };
    let mut on_note = |line: &str| {
        if !json {
            note(format!("        {line}"))
        }
    };
    let fallback = if args.on_device_loss == DeviceLoss::Cpu { Some(Device::cpu(args.device.threads)?) } else { None };
    let fallback = fallback.map(|cpu| if args.check_finite { cpu.watched() } else { cpu });
    let mut options = Options {
        device: &device,
        workers: args.workers,
        interrupt,
        on_event: &mut on_event,
        on_note: &mut on_note,
        fallback: fallback.as_ref(),
        log_gradients: args.log_gradients,
    };
    let outcome = train::train(&run, &config, &data, &mut options);
    drop(progress);
    let outcome = outcome.inspect_err(|error| {
        if !matches!(error, Error::Interrupted(_)) && run.path().join("checkpoints/last").exists() {
            note(format!("mappa: the run is saved up to its last checkpoint; go on with: mappa train --resume {}", run.path().display()));
        }
    })?;
    if let Some(peak) = peak {
        // A device that was lost on the way says nothing more; what it did is known.
        let _ = pollster::block_on(device.sync());
        let mut costs = costs.lock().unwrap_or_else(PoisonError::into_inner);
        profile(&mut costs, outcome.seconds, peak);
        note(format!("verdict: {}", peak::verdict(&costs, outcome.seconds, outcome.waited, args.workers, peak)));
    }
    if !json {
        summarize(&outcome, &run, &config);
        let bytes = device.memory().peak_bytes;
        if bytes > 0 {
            note(format!("memory  tensors held at most {:.1} MB", 1e-6 * bytes as f64));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An event's figures as TensorBoard shows them.
fn scalars(file: &mut EventFile, event: &train::Event) -> Result<()> {
    let train = if event.event == "step" { "loss/step" } else { "loss/train" };
    let mut all: Vec<(String, f64)> = [
        (train, event.train_loss),
        ("loss/val", event.val_loss),
        ("accuracy/val", event.val_accuracy),
        ("accuracy/test", event.test_accuracy),
        ("rmse/val", event.val_rmse),
        ("rmse/test", event.test_rmse),
        ("images_per_s", event.images_per_s),
    ]
    .into_iter()
    .filter_map(|(tag, value)| Some((tag.to_owned(), value?)))
    .collect();
    all.extend(event.gradient_norms.iter().flatten().map(|(layer, norm)| (format!("gradient/{layer}"), *norm)));
    for (layer, counts) in event.gradient_histograms.iter().flatten() {
        let limits: Vec<f64> = std::iter::once(0.0)
            .chain((*train::GRADIENT_DECADES.start()..=train::GRADIENT_DECADES.end() + 1).map(|power| 10f64.powi(power)))
            .collect();
        file.histogram(event.step, &format!("gradients/{layer}"), &limits, counts)?;
    }
    file.scalars(event.step, &all.iter().map(|(tag, value)| (tag.as_str(), *value)).collect::<Vec<_>>())
}

/// A data set with what it was read by: source, size, how a table is read, share and seed of the validation part.
pub type Loaded = ((String, usize, TableOptions, Option<f64>, Option<u64>), Dataset);

/// The data set and the complete configuration that settings mean. A data set that is `loaded` already is not read again.
pub fn prepare(mut settings: Settings, loaded: &mut Option<Loaded>) -> Result<(Dataset, Config)> {
    settings.model = settings.model.map(|model| described(&model)).transpose()?;
    let weights = weights(&settings)?;
    let source = settings.data.clone().unwrap_or_else(|| "digits".into());
    let size = settings.size.or(weights.as_ref().map(|about| about.input[1])).unwrap_or(data::DEFAULT_SIZE);
    let key = (source.clone(), size, settings.table(), settings.val_fraction, settings.seed);
    let mut data = match loaded {
        Some((own, data)) if *own == key => data.clone(),
        _ => {
            let data = match data::is_table(source.as_ref()) {
                true => data::load_table(source.as_ref(), &settings.table())?,
                false => data::load(&source, size)?,
            };
            let fraction = settings.val_fraction.unwrap_or(data.val_fraction());
            let data = data.with_validation(fraction, settings.seed.unwrap_or(1))?;
            *loaded = Some((key, data.clone()));
            data
        }
    };
    if let Some(size) = settings.size.filter(|&size| [data.height, data.width] != [size; 2]) {
        return Err(Error::Config(format!(
            "--size {size}: the images of {source} are {} x {}; only pictures are resized",
            data.height, data.width
        )));
    }
    if let Some(about) = &weights {
        if data.table.is_some() || about.table.is_some() {
            return Err(Error::Config(
                "--weights: networks for images can begin with the weights of others; those for tables cannot".into(),
            ));
        }
        if about.input[0] != data.channels {
            return Err(Error::Config(format!(
                "--weights {}: the network takes {} channels, but the images of {source} have {}",
                settings.weights.as_deref().unwrap_or(""),
                about.input[0],
                data.channels
            )));
        }
        // Preprocessing belongs to the weights.
        data.preprocessing = about.preprocessing.clone();
    }
    let config = settings.resolve(&data, weights.as_ref())?;
    Ok((data, config))
}

/// Unreadable pictures that are named.
const SKIPPED_SHOWN: usize = 5;

/// Rows of a profile that are shown; the rest is summed.
const PROFILE_ROWS: usize = 24;

/// Where the time went, the costliest first, on stderr.
pub fn profile(costs: &mut [Cost], seconds: f64, peak: Peak) {
    costs.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    let busy: f64 = costs.iter().map(|c| c.seconds).sum();
    note(format!(
        "{:>7} {:>6} {:>8} {:>9} {:>8} {:>8} {:>7}  operation",
        "seconds", "share", "calls", "us a call", "GFLOP/s", "GB/s", "of roof"
    ));
    let row = |c: &Cost, what: &str| {
        let s = c.seconds.max(1e-12);
        note(format!(
            "{:7.3} {:5.1}% {:8} {:9.1} {:8.2} {:8.2} {:6.0}%  {what}",
            c.seconds,
            100.0 * c.seconds / busy.max(1e-12),
            c.calls,
            1e6 * c.seconds / c.calls.max(1) as f64,
            1e-9 * c.flops as f64 / s,
            1e-9 * c.bytes as f64 / s,
            100.0 * peak.seconds(c.flops as f64, c.bytes as f64) / s,
        ));
    };
    let (shown, rest) = costs.split_at(costs.len().min(PROFILE_ROWS));
    for c in shown {
        row(c, &format!("{} {}", c.op, c.shapes));
    }
    if !rest.is_empty() {
        let sum = rest.iter().fold(Cost::default(), |sum, c| Cost {
            calls: sum.calls + c.calls,
            seconds: sum.seconds + c.seconds,
            flops: sum.flops + c.flops,
            bytes: sum.bytes + c.bytes,
            ..sum
        });
        row(&sum, &format!("({} more)", rest.len()));
    }
    note(format!("operations took {busy:.2} s of {seconds:.2} s; the rest is the host's: batches, recording, waiting, files"));
}

/// The data set that a run is trained on, as it was then.
fn data_of(config: &Config) -> Result<Dataset> {
    let data = match &config.table {
        Some(table) => table.load(config.data.as_ref(), &config.classes)?,
        None => data::load(&config.data, config.input[1])?,
    };
    let mut data = data.with_validation(config.val_fraction, config.seed)?;
    if data.classes != config.classes {
        return Err(Error::Config(format!("the classes of {} are not those that the run began with", config.data)));
    }
    data.preprocessing = config.preprocessing.clone();
    Ok(data)
}

fn sizes(data: &Dataset) -> String {
    let count = |part: &Option<Arc<data::Part>>, name: &str| part.as_ref().map_or(String::new(), |p| format!(", {} {name}", p.len()));
    let parts = format!("{} training{}{}", data.train.len(), count(&data.val, "validation"), count(&data.test, "test"));
    if let Some(table) = &data.table {
        let what = match (table.masked(), table.window) {
            (true, _) => format!("sequences of up to {} rows, ", table.steps),
            (_, 0) => "rows, ".into(),
            (_, window) => format!("rows after {window} others, "),
        };
        let target = if table.regression { "a number".into() } else { format!("{} classes", data.classes.len()) };
        let columns = if table.columns.len() == 1 { "1 column".into() } else { format!("{} columns", table.columns.len()) };
        return format!("{parts} {what}{columns}; predicted is {}, {target}", table.target);
    }
    format!("{parts} images {}x{}x{}, {} classes", data.channels, data.height, data.width, data.classes.len())
}

/// The end in words: what was reached, where it is, what to try next.
fn summarize(outcome: &Outcome, run: &Run, config: &Config) {
    let things = if config.table.is_some() { "samples" } else { "images" };
    match (&outcome.test, &outcome.val) {
        (Some(test), _) => say(format!("test {} on {} {things} never used before", test.headline(), test.count())),
        (None, Some(val)) => say(format!("validation {} on {} {things} (this data set has no test part)", val.headline(), val.count())),
        (None, None) => {
            say(format!("no {things} were held back: there is no accuracy to report; the training loss is {:.4}", outcome.train_loss))
        }
    }
    if let Some(val) = &outcome.val {
        say(format!(
            "the weights of epoch {} were kept, by validation ({}); {} steps in {:.1} s",
            outcome.best_epoch,
            val.accuracy().map_or_else(|| val.headline(), |accuracy| format!("{:.2} %", 100.0 * accuracy)),
            outcome.steps,
            outcome.seconds
        ));
    } else {
        say(format!("the last weights were kept; {} steps in {:.1} s", outcome.steps, outcome.seconds));
    }
    outcome.verdict.iter().for_each(say);
    say(format!("report {}", outcome.report.display()));
    let what = if config.table.is_some() { "predict with: mappa predict" } else { "classify pictures with: mappa predict" };
    say(format!("run {}; {what} {} FILE...", run.path().display(), run.path().display()));
}

/// The model that a person names: the text of a description, where it is the name of a file that ends in .toml.
pub fn described(model: &str) -> Result<String> {
    if !model.ends_with(".toml") {
        return Ok(model.to_owned());
    }
    let text = std::fs::read_to_string(model).map_err(|e| Error::data(model, format!("cannot read this network: {e}")))?;
    // A description is told from a name by its lines.
    Ok(if text.contains('\n') { text } else { text + "\n" })
}

/// Puts the description's file in front of an error in it.
fn in_file(model: Option<&str>, error: Error) -> Error {
    match (model, error) {
        (Some(file), Error::Config(message)) if file.ends_with(".toml") => Error::Config(format!("{file}: {message}")),
        (_, error) => error,
    }
}

/// What belongs to the weights that training begins with.
fn weights(settings: &Settings) -> Result<Option<Sidecar>> {
    let Some(path) = &settings.weights else { return Ok(None) };
    let trained = Trained::find(Path::new(path))?;
    let Some(trained) = trained else {
        return Err(Error::data(
            Path::new(path).with_extension("toml"),
            "weights need this sidecar, with model, input, classes or num_classes, scale, mean and std",
        ));
    };
    match &settings.model {
        Some(model) if *model != trained.about.model => Err(Error::Config(format!(
            "--model {}: the weights {path} are a {}'s",
            models::title(model),
            models::title(&trained.about.model)
        ))),
        _ => Ok(Some(trained.about)),
    }
}

pub fn eval(args: &EvalArgs) -> Result<ExitCode> {
    if args.batch_size == 0 {
        return Err(Error::Config("--batch-size 0: give at least 1".into()));
    }
    let found = Trained::find(&args.source)?;
    let own = found.as_ref().and_then(|trained| trained.config.as_ref()).filter(|_| args.data.is_none());
    let source = own.map(|config| config.data.clone()).or(args.data.clone()).unwrap_or_else(|| "digits".into());
    // Tables are read, and pictures resized, as the model takes them.
    let mut data = match found.as_ref().map(|trained| &trained.about) {
        Some(Sidecar { table: Some(table), classes, .. }) => table.load(source.as_ref(), classes)?,
        about => data::load(&source, about.map_or(data::DEFAULT_SIZE, |about| about.input[1]))?,
    };
    if let Some(config) = own {
        // The same images are held back as when it was trained.
        data = data.with_validation(config.val_fraction, config.seed)?;
    }
    let mut trained = match (found, &args.model) {
        (Some(trained), _) => trained,
        (None, Some(model)) => {
            let about = Sidecar {
                model: described(model)?,
                classes: data.classes.clone(),
                input: [data.channels, data.height, data.width],
                preprocessing: data.preprocessing.clone(),
                table: data.table.as_deref().cloned(),
            };
            Trained { weights: args.source.clone(), about, config: None }
        }
        (None, None) => return Err(Error::Config(format!("{}: weights without a sidecar need --model", args.source.display()))),
    };
    if let Some(model) = &args.model {
        trained.about.model = described(model)?;
    }
    if [data.channels, data.height, data.width] != trained.about.input || data.classes.len() > trained.about.classes.len() {
        return Err(Error::Config(format!(
            "--data {source}: images {}x{}x{} of {} classes do not fit a model for {:?} and {} classes",
            data.channels,
            data.height,
            data.width,
            data.classes.len(),
            trained.about.input,
            trained.about.classes.len()
        )));
    }
    let (device, _) = open_device(&args.device)?;
    let module = trained.load(&device)?;
    // Preprocessing and classes belong to the model.
    data.preprocessing = trained.about.preprocessing;
    data.classes = trained.about.classes;
    let (part, name) = match (&data.test, &data.val) {
        (Some(test), _) => (test, "test"),
        (None, Some(val)) => (val, "validation"),
        (None, None) => (&data.train, "training"),
    };
    let answers = train::answers(&module, &data, part, &device, args.batch_size, 1)?;
    let (predictions, scores) = match (&answers, answers.measure()?) {
        (Answers::Classes(predictions), Measured::Classes(scores)) => (predictions, scores),
        (_, measured) => return numbers(args, &answers, &measured, name),
    };
    if let Some(path) = &args.predictions {
        write_predictions(path, &data.classes, predictions)?;
    }
    if args.device.json {
        let mut line = json!({ "event": "eval" });
        if let (Some(line), Ok(serde_json::Value::Object(scores))) = (line.as_object_mut(), serde_json::to_value(&scores)) {
            line.extend(scores);
        }
        say(line);
        return Ok(ExitCode::SUCCESS);
    }
    let things = if data.table.is_some() { "samples" } else { "images" };
    say(format!("{name} accuracy {:.2} % on {} {things}, loss {:.4}", 100.0 * scores.accuracy, part.len(), scores.loss));
    if let Some(auc) = scores.auc {
        say(format!("mean one-against-rest AUC {auc:.4}"));
    }
    let width = data.classes.iter().map(String::len).max().unwrap_or(5).max(5);
    say(format!("{:width$}  precision  recall  F1", "class"));
    for (c, class) in data.classes.iter().enumerate() {
        say(format!("{class:width$}  {:9.4}  {:6.4}  {:6.4}", scores.precision[c], scores.recall[c], scores.f1[c]));
    }
    Ok(ExitCode::SUCCESS)
}

/// How far off predicted numbers are.
fn numbers(args: &EvalArgs, answers: &Answers, measured: &Measured, name: &str) -> Result<ExitCode> {
    if let (Some(path), Answers::Numbers(numbers)) = (&args.predictions, answers) {
        let rows = numbers.targets.iter().zip(&numbers.answers).map(|(target, answer)| format!("{target},{answer}\n"));
        atomic::write(path, ["target,answer\n".to_owned()].into_iter().chain(rows).collect::<String>().as_bytes())?;
    }
    if let (true, Measured::Numbers { errors, loss, count }) = (args.device.json, measured) {
        say(
            json!({ "event": "eval", "samples": count, "loss": loss, "mse": errors.mse, "rmse": errors.rmse, "mae": errors.mae, "r2": errors.r2 }),
        );
    } else {
        say(format!("{name} {} on {} samples", measured.headline(), measured.count()));
    }
    Ok(ExitCode::SUCCESS)
}

/// What a network answers to the rows of tables.
fn predict_tables(args: &PredictArgs, top: usize) -> Result<ExitCode> {
    let (device, _) = open_device(&args.device)?;
    let classifier = Classifier::load(&args.source, &device)?;
    let foretold = classifier.table().filter(|table| table.window > 0).map_or("", |_| ", what comes next");
    for file in &args.files {
        for (name, answer) in classifier.answer(file)? {
            let place = format!("{}, {name}{foretold}", file.display());
            let (file, json) = (file.display().to_string(), args.device.json);
            match answer {
                Answer::Number(number) if json => say(json!({ "path": file, "sample": name, "number": number })),
                Answer::Number(number) => say(format!("{place}: {number:.6}")),
                Answer::Classes(ranked) if json => say(classes_json(&file, Some(&name), &ranked, top, args.threshold)),
                Answer::Classes(ranked) => say(format!("{place}: {}", classes_text(&ranked, top, args.threshold))),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Classes, the most probable first, for programs.
fn classes_json(path: &str, sample: Option<&str>, ranked: &[(&str, f64)], top: usize, threshold: f64) -> serde_json::Value {
    let (class, probability) = ranked[0];
    let shown: Vec<_> = ranked.iter().take(top).map(|(class, p)| json!({ "class": class, "probability": p })).collect();
    let class = (probability >= threshold).then_some(class);
    let mut line = json!({ "path": path, "class": class, "probability": probability, "top": shown });
    if let Some(sample) = sample {
        line["sample"] = json!(sample);
    }
    line
}

/// The same for people.
fn classes_text(ranked: &[(&str, f64)], top: usize, threshold: f64) -> String {
    let shown: Vec<String> = ranked.iter().take(top).map(|(class, p)| format!("{class} {:.1} %", 100.0 * p)).collect();
    let first = if ranked[0].1 >= threshold { shown[0].clone() } else { format!("unsure, perhaps {}", shown[0]) };
    if shown.len() == 1 { first } else { format!("{first} (then {})", shown[1..].join(", ")) }
}

/// One row an image: its class, and the probability of every class under its name.
fn write_predictions(path: &Path, classes: &[String], predictions: &Predictions) -> Result<()> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let rows = predictions.probabilities.chunks_exact(classes.len().max(1)).zip(&predictions.targets);
    let rows = rows.map(|(p, &target)| [classes[target].clone()].into_iter().chain(p.iter().map(f64::to_string)).collect::<Vec<_>>());
    let header = ["class".to_owned()].into_iter().chain(classes.iter().cloned()).collect();
    let bytes = [header].into_iter().chain(rows).try_for_each(|row| writer.write_record(&row)).map_err(|e| e.to_string());
    let bytes = bytes.and_then(|()| writer.into_inner().map_err(|e| e.to_string()));
    atomic::write(path, &bytes.map_err(|e| Error::Config(format!("--predictions {}: {e}", path.display())))?)
}

pub fn predict(args: &PredictArgs) -> Result<ExitCode> {
    let top = args.top.unwrap_or(if args.device.json { 5 } else { 3 });
    if args.batch_size == 0 || top == 0 {
        return Err(Error::Config("--batch-size and --top: give at least 1".into()));
    }
    if !(0.0..=1.0).contains(&args.threshold) {
        return Err(Error::Config(format!("--threshold {}: give a probability from 0 to 1", args.threshold)));
    }
    // What the weights say of themselves is read before a device is touched.
    if Trained::find(&args.source)?.is_some_and(|trained| trained.about.table.is_some()) {
        return predict_tables(args, top);
    }
    let files = data::files(&args.files)?;
    let (device, _) = open_device(&args.device)?;
    let classifier = Classifier::load(&args.source, &device)?;
    let mut unreadable = 0;
    for some in files.chunks(args.batch_size) {
        let (mut readable, mut pixels) = (Vec::new(), Vec::new());
        for path in some {
            match classifier.read(path) {
                Ok(picture) => {
                    readable.push(path);
                    pixels.extend(picture);
                }
                // One of many must not end the work; of one it is the answer.
                Err(error) if files.len() > 1 => {
                    note(format!("mappa: {error}"));
                    unreadable += 1;
                }
                Err(error) => return Err(error),
            }
        }
        for (path, ranked) in readable.into_iter().zip(classifier.classify_pixels(&pixels)?) {
            match args.device.json {
                true => say(classes_json(&path.display().to_string(), None, &ranked, top, args.threshold)),
                false => say(format!("{}: {}", path.display(), classes_text(&ranked, top, args.threshold))),
            }
        }
    }
    if unreadable > 0 {
        note(format!("mappa: {unreadable} of {} pictures could not be read", files.len()));
    }
    Ok(if unreadable == 0 { ExitCode::SUCCESS } else { ExitCode::from(2) })
}

pub fn plot(args: &PlotArgs) -> Result<ExitCode> {
    let (run, config) = Run::open(&args.run)?;
    let data = data_of(&config)?;
    let (device, _) = open_device(&args.device)?;
    let report = train::plot(&run, &config, &data, &device, 1)?;
    if args.device.json {
        say(json!({ "event": "report", "report": report.display().to_string() }));
    } else {
        say(format!("report {}", report.display()));
    }
    Ok(ExitCode::SUCCESS)
}

pub fn devices(args: &DevicesArgs) -> Result<ExitCode> {
    let cpu = Device::cpu(0)?;
    if args.json {
        say(json!({ "device": "cpu", "name": cpu.name() }));
    } else {
        say(format!("{:6}  {}", "cpu", cpu.name()));
    }
    #[cfg(feature = "gpu")]
    {
        let adapters = pollster::block_on(mappa::backend::gpu::adapters());
        if adapters.is_empty() {
            note("no GPU adapter was found; on Debian, mesa-vulkan-drivers brings drivers and a software one");
        }
        for a in adapters {
            let device = format!("gpu:{}", a.index);
            if args.json {
                say(
                    json!({ "device": device, "name": a.name, "api": a.api, "driver": a.driver, "kind": a.kind, "software": a.software, "features": a.features }),
                );
            } else {
                let software = if a.software { ", software: only with --device gpu" } else { "" };
                say(format!("{device:6}  {} ({}, {}{software}); {}", a.name, a.api, a.driver, a.features.join(", ")));
            }
        }
    }
    let (_, line) = pollster::block_on(Device::open(mappa::DeviceChoice::Auto, 0))?;
    if !args.json {
        say(format!("auto    {line}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// `CxHxW`.
pub fn image_size(text: &str) -> Result<[usize; 3]> {
    let sizes: Vec<usize> = text.split('x').filter_map(|n| n.parse().ok()).collect();
    match sizes[..] {
        [c, h, w] if text.split('x').count() == 3 => Ok([c, h, w]),
        _ => Err(Error::Config(format!("--input {text}: expected channels, height and width, such as 3x224x224"))),
    }
}

pub fn diff(args: &DiffArgs) -> Result<ExitCode> {
    let input = image_size(&args.input)?;
    if args.batch_size == 0 || args.classes == 0 {
        return Err(Error::Config("--batch-size and --classes: give at least 1".into()));
    }
    let (device, line) = open_device(&args.device)?;
    let model = described(&args.model)?;
    let step = verify::Step { model: &model, input, batch_size: args.batch_size, classes: args.classes, seed: args.seed };
    let report = verify::diff(&step, &device).map_err(|e| in_file(Some(&args.model), e))?;
    if args.device.json {
        for row in &report.rows {
            say(json!({ "event": "diff", "part": row.part, "name": row.name, "error": row.error, "size": row.size }));
        }
        say(json!({ "event": "summary", "device": device.name(), "operations": report.operations, "mismatch": report.mismatch }));
    } else {
        note(format!("device  {line}, against the CPU"));
        let width = report.rows.iter().map(|r| r.name.len()).max().unwrap_or(4).max(4);
        say(format!("{:9} {:width$}  largest difference  of values up to", "part", "name"));
        for row in &report.rows {
            say(format!("{:9} {:width$}  {:18.3e}  {:15.3e}", row.part, row.name, row.error, row.size));
        }
        match &report.mismatch {
            Some(mismatch) => say(format!("after {} operations the first leaves its tolerance: {mismatch}", report.operations)),
            None => say(format!("all {} operations are within their tolerances", report.operations)),
        }
    }
    Ok(if report.mismatch.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub fn summary(args: &SummaryArgs) -> Result<ExitCode> {
    let [c, h, w] = image_size(&args.input)?;
    if args.batch_size == 0 || args.classes == 0 {
        return Err(Error::Config("--batch-size and --classes: give at least 1".into()));
    }
    let (device, counts) = Device::null();
    let module = models::build(&described(&args.model)?, [c, h, w], args.classes, &device, 0).map_err(|e| in_file(Some(&args.model), e))?;
    let parameters: Vec<(String, usize)> = named_parameters(&module).into_iter().map(|(name, p)| (name, p.shape().len())).collect();
    let x = Tensor::full(&device, &[args.batch_size, c, h, w], DType::F32, 0.0)?;
    let flops = move || counts.lock().unwrap_or_else(PoisonError::into_inner).flops();
    // Layer, kind, output shape, elements, FLOPs counted when it was done.
    type Layer = (String, String, String, usize, u64);
    let layers: Arc<Mutex<Vec<Layer>>> = Arc::default();
    let (seen, count) = (Arc::clone(&layers), flops.clone());
    let before = flops();
    let observer = Box::new(move |path: &str, layer: &dyn Module, y: &Tensor| {
        let row = (path.to_owned(), layer.describe(), y.shape().to_string(), y.shape().len(), count());
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(row);
        None
    });
    let guard = autodiff::no_grad();
    let y = module.forward(&mut Context::eval().observe(observer), &x)?;
    drop(guard);
    let (total_flops, total): (u64, usize) = (flops() - before, parameters.iter().map(|p| p.1).sum());
    let layers = layers.lock().unwrap_or_else(PoisonError::into_inner).clone();
    // Containers are rows too; what they hold has been shown.
    let leaves: Vec<&Layer> = layers.iter().filter(|l| !layers.iter().any(|o| o.0.starts_with(&format!("{}.", l.0)))).collect();
    let own = |path: &str| {
        parameters.iter().filter(|(n, _)| n.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))).map(|p| p.1).sum::<usize>()
    };
    let activations: usize = leaves.iter().map(|l| 4 * l.3).sum();
    let data = Dataset {
        name: "summary".into(),
        classes: (0..args.classes).map(|class| class.to_string()).collect(),
        channels: c,
        height: h,
        width: w,
        preprocessing: data::Preprocessing::new(c),
        train: Arc::new(data::Part::new(Vec::new(), Vec::new())),
        val: None,
        test: None,
        skipped: Vec::new(),
        table: None,
    };
    let settings = Settings { model: Some(described(&args.model)?), val_fraction: Some(0.0), ..Settings::default() };
    let training = train::memory(&settings.resolve(&data, None)?, args.batch_size)?;
    if args.json {
        let mut last = before;
        for (path, kind, shape, _, at) in &leaves {
            say(json!({ "event": "layer", "layer": path, "kind": kind, "output": shape, "parameters": own(path), "flops": at - last }));
            last = *at;
        }
        say(
            json!({ "event": "summary", "parameters": total, "flops": total_flops, "activation_bytes": activations, "training_bytes": training, "output": y.shape().to_string() }),
        );
        return Ok(ExitCode::SUCCESS);
    }
    let (a, b, d) = leaves.iter().fold((5, 4, 6), |(a, b, d), l| (a.max(l.0.len()), b.max(l.1.len()), d.max(l.2.len())));
    say(format!("{:a$}  {:b$}  {:d$}  {:>10}  {:>8}", "layer", "kind", "output", "parameters", "MFLOP"));
    let mut last = before;
    for (path, kind, shape, _, at) in &leaves {
        say(format!("{path:a$}  {kind:b$}  {shape:d$}  {:>10}  {:>8.2}", own(path), (at - last) as f64 * 1e-6));
        last = *at;
    }
    say(format!(
        "{total} parameters ({:.2} MB), {:.2} MFLOP and {:.2} MB of activations for a batch of {}; training needs about three times the computation and holds {:.2} MB of tensors (adamw)",
        4e-6 * total as f64,
        total_flops as f64 * 1e-6,
        activations as f64 * 1e-6,
        args.batch_size,
        1e-6 * training as f64
    ));
    Ok(ExitCode::SUCCESS)
}

pub fn verify(args: &VerifyArgs) -> Result<ExitCode> {
    let (device, line) = open_device(&args.device)?;
    let json = args.device.json;
    if !json {
        note(format!("device  {line}"));
    }
    let mut on_row = |row: &verify::Row| {
        if json {
            say(serde_json::to_string(row).unwrap_or_default());
        } else if row.verdict == verify::Verdict::Fail {
            say(format!("FAIL {}: {}", row.name, row.detail.as_deref().unwrap_or("")));
        }
    };
    let summary = match (&args.goldens, &args.onnx_node) {
        (Some(dir), _) => verify::goldens(dir, &device, &mut on_row)?,
        (None, Some(dir)) => {
            let mut rows = Vec::new();
            let summary = verify::onnx_node(dir, &device, &mut |row| {
                rows.push(row.clone());
                on_row(row);
            })?;
            if let Some(path) = &args.coverage {
                std::fs::write(path, verify::coverage(&rows)).map_err(|e| Error::io(path, e))?;
            }
            summary
        }
        (None, None) => verify::cases(&device, &args.ops, args.quick, &mut on_row)?,
    };
    if json {
        say(serde_json::to_string(&summary).unwrap_or_default());
    } else {
        say(summary.table());
        if let Some(row) = &summary.first_failure {
            let driver = &device.capabilities().driver;
            say("first failure");
            say(format!("  device   {}{}{driver}", device.name(), if driver.is_empty() { "" } else { ", driver " }));
            say(format!("  variant  {} of {}", row.variant, row.op));
            say(format!("  case     {}", row.name));
            say(format!("  found    {}", row.detail.as_deref().unwrap_or("")));
            if let Some((name, _)) = &summary.smallest_failure {
                say(format!("  again    mappa verify --device {} '{name}'", args.device.device.as_deref().unwrap_or("auto")));
            }
        }
    }
    Ok(if summary.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub fn shaders(args: &ShadersArgs) -> Result<ExitCode> {
    #[cfg(feature = "gpu")]
    {
        for path in mappa::backend::gpu::shader::write_expanded(&args.expand)? {
            say(path.display());
        }
        Ok(ExitCode::SUCCESS)
    }
    #[cfg(not(feature = "gpu"))]
    Err(Error::Config(format!("--expand {}: this build has no shaders; build with the feature gpu", args.expand.display())))
}

pub fn licenses() -> Result<ExitCode> {
    say("mappa is licensed under MIT or Apache-2.0, at your choice.\n");
    say(include_str!("../../LICENSE-MIT"));
    say("The embedded digits:\n");
    say(include_str!("../../data/digits/README.md"));
    Ok(ExitCode::SUCCESS)
}
