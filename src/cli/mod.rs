//! The command line: what a person touches.

mod audit;
mod bench;
mod commands;
mod doctor;
mod exchange;
mod explore;
mod peak;
mod preview;
mod progress;

use clap::{Args, CommandFactory, Parser, Subcommand};
use mappa::train::Settings;
use mappa::{Device, DeviceChoice, Error, Result};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Trains image classifiers on any GPU, or on the CPU.
#[derive(Parser)]
#[command(name = "mappa", version, about, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Train a classifier; without flags a small CNN on the embedded digits
    Train(Box<TrainArgs>),
    /// Measure a trained model on a data set
    Eval(EvalArgs),
    /// Classify pictures (PNG, JPEG, WebP, GIF, BMP, TIFF)
    Predict(PredictArgs),
    /// Look at data
    #[command(subcommand)]
    Data(DataCommand),
    /// Train a little with ever higher learning rates, and suggest one
    LrFind(LrFindArgs),
    /// Train with several settings, and rank them
    Sweep(SweepArgs),
    /// Show in what runs differ, and what they reached
    Compare(CompareArgs),
    /// Write a run's report.html again
    Plot(PlotArgs),
    /// Write a trained network as ONNX, or its weights for PyTorch, with a sidecar of its classes and preprocessing
    Export(ExportArgs),
    /// Take over a network from an ONNX file, or weights from a PyTorch checkpoint, of which no code is run
    Import(ImportArgs),
    /// List the devices that can compute
    Devices(DevicesArgs),
    /// Look at this machine: devices, self-tests, memory, folders, and what to do where something is wrong
    Doctor(DoctorArgs),
    /// Show a model's layers, shapes, parameters and cost, without computing
    Summary(SummaryArgs),
    /// Check every kernel of a device against the CPU reference, or against reference results of others
    Verify(VerifyArgs),
    /// Compare one training step of a model on a device with the CPU, layer by layer and operation by operation
    Diff(DiffArgs),
    /// Time training steps, networks and operations, as other libraries' are timed
    Bench(BenchArgs),
    /// Write the WGSL that runs
    Shaders(ShadersArgs),
    /// Licences and attributions
    Licenses,
    /// Print a shell's completions, such as: mappa completions bash > ~/.local/share/bash-completion/completions/mappa
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, mappa.1 and one of each command
    Man {
        /// The folder to write to
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}

/// Where to compute.
#[derive(Args, Clone)]
struct DeviceArgs {
    /// auto, cpu, gpu, gpu:N (see `mappa devices`) or checked (every operation compared with the CPU reference) [default: MAPPA_DEVICE, else auto]
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Threads of the CPU backend; 0: one a core
    #[arg(long, default_value_t = 0, value_name = "N", allow_negative_numbers = true)]
    threads: usize,
    /// Kernels other than the device's own choice, or a resumed run's, such as "product=tile filtering=0": see `mappa doctor` [default: MAPPA_KERNELS]
    #[arg(long, value_name = "KEY=VALUE ...")]
    kernels: Option<String>,
    /// Machine-readable output: one JSON object a line on stdout
    #[arg(long)]
    json: bool,
}

/// The networks, for help texts.
fn models() -> String {
    format!("One of {}, or a TOML file that describes a network", mappa::models::NAMES.join(", "))
}

#[derive(Args)]
struct TrainArgs {
    #[command(flatten, next_help_heading = "Settings, also keys of a TOML file")]
    settings: Settings,
    /// Settings from a TOML file; flags win over it
    #[arg(long, value_name = "FILE", help_heading = "Options")]
    config: Option<PathBuf>,
    /// One setting, as in the file
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Options")]
    set: Vec<String>,
    /// Folder of the run [default: runs/<data>-<model>-<n>]
    #[arg(long, value_name = "DIR", help_heading = "Options")]
    out: Option<PathBuf>,
    /// Go on with an interrupted run, with its own settings
    #[arg(long, value_name = "RUN", conflicts_with_all = ["config", "set", "out"], help_heading = "Options")]
    resume: Option<PathBuf>,
    /// Threads that prepare batches
    #[arg(long, default_value_t = 1, value_name = "N", allow_negative_numbers = true, help_heading = "Options")]
    workers: usize,
    /// Read back every result and stop at the first that is NaN or infinite, naming layer and operation; slow. The loss alone is always watched
    #[arg(long, help_heading = "Options")]
    check_finite: bool,
    /// Time every operation, and show at the end where the time went
    #[arg(long, help_heading = "Options")]
    profile: bool,
    /// Write TensorBoard's event files to the folder `tensorboard` of the run, too
    #[arg(long, help_heading = "Options")]
    tensorboard: bool,
    /// Count the gradients of each layer by their size in each epoch: in metrics.jsonl, in the report, in TensorBoard's files
    #[arg(long, help_heading = "Options")]
    log_gradients: bool,
    /// When the GPU is lost or out of memory: stop, or go on from the last checkpoint on the CPU
    #[arg(long, value_enum, default_value = "stop", help_heading = "Options")]
    on_device_loss: DeviceLoss,
    #[command(flatten, next_help_heading = "Options")]
    device: DeviceArgs,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum DeviceLoss {
    Stop,
    Cpu,
}

impl TrainArgs {
    fn settings(&self) -> Result<Settings> {
        let mut settings = match &self.config {
            Some(path) => Settings::read(path)?,
            None => Settings::default(),
        };
        for assignment in &self.set {
            settings.set(assignment)?;
        }
        settings.overlay(self.settings.clone())?;
        Ok(settings)
    }
}

#[derive(Args)]
struct EvalArgs {
    /// A run's folder, or a file of weights (its sidecar, a TOML file of the same stem, or --model says which network)
    #[arg(value_name = "RUN|WEIGHTS")]
    source: PathBuf,
    /// The network of a file of weights
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The data to measure on [default: the run's own; digits for weights]
    #[arg(long, value_name = "digits|DIR")]
    data: Option<String>,
    /// Write of each image its class and the probability of every class as CSV
    #[arg(long, value_name = "FILE.csv")]
    predictions: Option<PathBuf>,
    /// Samples at a time
    #[arg(long, default_value_t = 256, value_name = "N")]
    batch_size: usize,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Args)]
struct PredictArgs {
    /// A run's folder, or a file of weights with its sidecar, a TOML file of the same stem
    #[arg(value_name = "RUN|WEIGHTS")]
    source: PathBuf,
    /// Pictures to classify, or folders of them; IDX_FILE:17 is image 17 (from 0) of a file of IDX images; - reads names from stdin, one a line
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Classes shown of each picture [default: 3, with --json 5]
    #[arg(long, value_name = "K")]
    top: Option<usize>,
    /// Say "unsure" where the best class is less probable, 0 to 1
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    threshold: f64,
    /// Pictures at a time
    #[arg(long, default_value_t = 32, value_name = "N")]
    batch_size: usize,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Subcommand)]
enum DataCommand {
    /// Draw training images as a network sees them: as they are, then changed at random
    Preview(PreviewArgs),
    /// Find unreadable pictures, duplicates, leaks between train, val and test, and wrong labels; exit code 1 where there is a leak
    Check(CheckArgs),
}

#[derive(Args)]
struct CheckArgs {
    /// The data, as for `train`
    #[arg(value_name = "digits|DIR|FILE", default_value = "digits")]
    source: String,
    /// A run on these data, which says what may be labelled wrongly
    #[arg(long, value_name = "RUN|WEIGHTS")]
    run: Option<PathBuf>,
    /// Pictures that may be labelled wrongly, at most
    #[arg(long, default_value_t = 60, value_name = "N")]
    suspects: usize,
    /// Write a page with the pictures, too
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Args)]
struct PreviewArgs {
    /// The data, as for `train`
    #[arg(value_name = "digits|DIR|FILE", default_value = "digits")]
    source: String,
    /// Height and width that pictures are resized to [default: 64]
    #[arg(long, value_name = "N")]
    size: Option<usize>,
    /// none, light, standard or strong [default: as for `train`]
    #[arg(long, value_name = "NAME")]
    augment: Option<String>,
    /// One setting of `train`, such as rotate=15
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Seed of the changes [default: 1]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Images
    #[arg(long, default_value_t = 10, value_name = "N")]
    rows: usize,
    /// Each image as it is, and so many times less one changed
    #[arg(long, default_value_t = 10, value_name = "N")]
    columns: usize,
    /// The picture to write
    #[arg(long, default_value = "preview.png", value_name = "FILE.png")]
    out: PathBuf,
}

#[derive(Args)]
struct LrFindArgs {
    #[command(flatten, next_help_heading = "Settings, as for train")]
    settings: Settings,
    /// The first learning rate
    #[arg(long, default_value_t = 1e-6, value_name = "X", help_heading = "Options")]
    from: f64,
    /// The last learning rate
    #[arg(long, default_value_t = 1.0, value_name = "X", help_heading = "Options")]
    to: f64,
    /// Steps between them
    #[arg(long, default_value_t = 100, value_name = "N", help_heading = "Options")]
    steps: usize,
    /// Threads that prepare batches
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Options")]
    workers: usize,
    #[command(flatten, next_help_heading = "Options")]
    device: DeviceArgs,
}

#[derive(Args)]
struct SweepArgs {
    /// A setting with the values to try, or with a range, from which --random draws
    #[arg(long = "try", value_name = "KEY=VALUE,...|KEY=LOW..HIGH", required = true, help_heading = "Options")]
    tries: Vec<String>,
    /// So many runs with values drawn at random, instead of all combinations
    #[arg(long, value_name = "N", help_heading = "Options")]
    random: Option<usize>,
    /// The folder for the runs, which must not exist
    #[arg(long, default_value = "sweep", value_name = "DIR", help_heading = "Options")]
    out: PathBuf,
    /// Threads that prepare batches
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Options")]
    workers: usize,
    #[command(flatten, next_help_heading = "Settings of all runs, as for train")]
    settings: Settings,
    #[command(flatten, next_help_heading = "Options")]
    device: DeviceArgs,
}

#[derive(Args)]
struct CompareArgs {
    /// Folders of runs
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Write a page with their curves, too
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
    /// Machine-readable output: one JSON object a line on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ExportArgs {
    /// A run's folder, or a file of weights with its sidecar
    #[arg(value_name = "RUN|WEIGHTS")]
    source: PathBuf,
    /// The file; its ending says the format: .onnx, .pth (torch.load) or .safetensors
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Multiply batch normalisation into the convolutions before it
    #[arg(long)]
    fold: bool,
    /// Machine-readable output: one JSON object a line on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ImportArgs {
    /// A classifier of images as .onnx, a checkpoint of torch.save, or a file of safetensors without a sidecar
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[arg(long, help = format!("Of weights: {}", models()))]
    model: Option<String>,
    /// Channels, height and width of an image [default: what the file says, else 3x224x224]
    #[arg(long, value_name = "CxHxW")]
    input: Option<String>,
    /// Names of the classes [default: numbers, as many as the last layer has outputs]
    #[arg(long, value_name = "NAME,...")]
    classes: Option<String>,
    /// What pixels of 0 to 255 are divided by [default: what the file says, else 255]
    #[arg(long, value_name = "X")]
    scale: Option<f32>,
    /// Then subtracted, a value a channel [default: 0]
    #[arg(long, value_name = "X,...", value_delimiter = ',', allow_negative_numbers = true)]
    mean: Option<Vec<f32>>,
    /// Then divided by, a value a channel [default: 1]
    #[arg(long, value_name = "X,...", value_delimiter = ',')]
    std: Option<Vec<f32>>,
    /// The file to write [default: the same name, ending in .safetensors]
    #[arg(long, value_name = "FILE.safetensors")]
    out: Option<PathBuf>,
    /// Machine-readable output: one JSON object a line on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct DoctorArgs {
    /// Machine-readable output: one JSON object a line on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct PlotArgs {
    /// The run's folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Args)]
struct DevicesArgs {
    /// Machine-readable output: one JSON object a line on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct SummaryArgs {
    #[arg(help = models())]
    model: String,
    /// Channels, height and width of an image
    #[arg(long, value_name = "CxHxW", default_value = "1x28x28")]
    input: String,
    /// Images at a time
    #[arg(long, default_value_t = 1, value_name = "N")]
    batch_size: usize,
    /// Classes of the last layer
    #[arg(long, default_value_t = 10, value_name = "N")]
    classes: usize,
    /// Machine-readable output: one JSON object a line on stdout
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct VerifyArgs {
    /// Operations or families to check [default: all]
    #[arg(value_name = "OP")]
    ops: Vec<String>,
    /// Compare with the reference results in this folder instead
    #[arg(long, value_name = "DIR")]
    goldens: Option<PathBuf>,
    /// Compute ONNX's operator tests in this folder instead
    #[arg(long, value_name = "DIR", conflicts_with = "goldens")]
    onnx_node: Option<PathBuf>,
    /// Write which of them run, and why others do not, as a table
    #[arg(long, value_name = "FILE", requires = "onnx_node")]
    coverage: Option<PathBuf>,
    /// One case of each operation, of the elementwise functions a dozen: the self-test of --device auto
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Args)]
struct DiffArgs {
    /// The network, as for `train`
    #[arg(default_value = "cnn")]
    model: String,
    /// Channels, height and width of an image
    #[arg(long, value_name = "CxHxW", default_value = "1x28x28")]
    input: String,
    /// Images of the step
    #[arg(long, default_value_t = 8, value_name = "N")]
    batch_size: usize,
    /// Classes of the last layer
    #[arg(long, default_value_t = 10, value_name = "N")]
    classes: usize,
    /// Seed of weights, images and dropout
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Args)]
struct BenchArgs {
    /// Workloads to time, or prefixes of their names, such as `conv_` [default: six of them]
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<String>,
    /// Seconds of timed calls a workload
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    budget: f64,
    /// Leave out a workload when one call takes longer
    #[arg(long, default_value_t = 20.0, value_name = "SECONDS")]
    max_call: f64,
    /// Show at the end where each workload's time went, operation by operation
    #[arg(long)]
    profile: bool,
    /// Instead of a budget, N calls in ten parts: the time of a call and the memory after each, which should both stay as they are
    #[arg(long, value_name = "N", conflicts_with_all = ["profile", "budget"])]
    calls: Option<usize>,
    /// One call of the first workload, for measuring a start from outside
    #[arg(long, hide = true)]
    one_step: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

#[derive(Args)]
struct ShadersArgs {
    /// The folder to write to
    #[arg(long, value_name = "DIR")]
    expand: PathBuf,
}

/// A line on stdout. A reader that went away (`mappa ... | head`) ends the program quietly.
fn say(line: impl std::fmt::Display) {
    if writeln!(std::io::stdout(), "{line}").is_err() {
        std::process::exit(0);
    }
}

/// A line on stderr.
fn note(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Opens the device that the flag, else `MAPPA_DEVICE`, else the default asks for.
fn open_device(args: &DeviceArgs) -> Result<(Device, String)> {
    open_device_with(args, "")
}

/// As [`open_device`], with the kernels that a configuration names, which those of the flag, else of `MAPPA_KERNELS`, replace.
fn open_device_with(args: &DeviceArgs, kernels: &str) -> Result<(Device, String)> {
    let text = args.device.clone().or_else(|| std::env::var("MAPPA_DEVICE").ok());
    let choice: DeviceChoice = text.map_or(Ok(DeviceChoice::Auto), |t| t.parse())?;
    let forced = args.kernels.clone().or_else(|| std::env::var("MAPPA_KERNELS").ok()).unwrap_or_default();
    pollster::block_on(Device::open_with(choice, args.threads, &[kernels, &forced]))
}

fn manual(folder: &std::path::Path) -> Result<ExitCode> {
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), folder))
        .map_err(|e| Error::io(folder, e))?;
    say(folder.join("mappa.1").display());
    Ok(ExitCode::SUCCESS)
}

/// Runs the program. Exit codes: 0 done, 2 wrong input, 1 failed while running or a check found something, 130 interrupted.
pub fn main() -> ExitCode {
    let start = Instant::now();
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("error,wgpu_hal=off,wgpu_core=off,naga=off"))
        .format(move |out, record| {
            let (level, style) = (record.level(), out.default_level_style(record.level()));
            writeln!(out, "[{:.3} s {style}{level}{style:#} {}] {}", start.elapsed().as_secs_f64(), record.target(), record.args())
        })
        .init();
    let cli = Cli::parse();
    let result = match cli.command {
        Command::Train(args) => commands::train(&args),
        Command::Eval(args) => commands::eval(&args),
        Command::Predict(args) => commands::predict(&args),
        Command::Data(DataCommand::Check(args)) => audit::check(&args),
        Command::Data(DataCommand::Preview(args)) => preview::preview(&args),
        Command::LrFind(args) => explore::lr_find(&args),
        Command::Sweep(args) => explore::sweep(&args),
        Command::Compare(args) => explore::compare(&args),
        Command::Export(args) => exchange::export(&args),
        Command::Import(args) => exchange::import(&args),
        Command::Plot(args) => commands::plot(&args),
        Command::Devices(args) => commands::devices(&args),
        Command::Summary(args) => commands::summary(&args),
        Command::Verify(args) => commands::verify(&args),
        Command::Diff(args) => commands::diff(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Shaders(args) => commands::shaders(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Licenses => commands::licenses(),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "mappa", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Man { folder } => manual(&folder),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            note(format!("mappa: {error}"));
            match error {
                Error::Interrupted(_) => ExitCode::from(130),
                error if error.is_bad_input() => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}
