//! The training loop: batches in, checkpoints and events out.

mod answers;
mod batch_size;
mod classifier;
mod config;
mod explain;
mod frozen;
mod gradients;
mod loss;
mod range;
mod report;
mod run;

pub use answers::{Answers, answers, evaluate};
pub use batch_size::{Auto, BatchSize, fastest_batch_size, memory};
pub use classifier::{Answer, Classifier, Trained};
pub use config::{BACKBONE, BestBy, CLASS_WEIGHTS, Config, LOSSES, NUMBER_LOSSES, PRECISIONS, Settings};
pub use explain::{Heat, grad_cam};
#[cfg(feature = "image")]
pub use explain::{Suspect, suspects};
pub use gradients::GRADIENT_DECADES;
pub use range::{lr_range, suggest_lr};
#[cfg(feature = "image")]
pub use report::audit;
pub use report::comparison;
pub use run::{Best, Run, State};

use crate::data::augment::Mix;
use crate::data::{Batch, Dataset, Loader, LoaderOptions, Part};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::safetensors;
use crate::metrics::Measured;
use crate::models;
use crate::nn::{self, Context, Module, Sequential};
use crate::optim::{Ema, LossScaling, Optimizer, ParamGroup, Schedule};
use crate::tensor::Tensor;
use frozen::{Tail, freeze};
use loss::batch_loss;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Losses stay on the device until so many steps have been recorded: reading one would wait for all work before it.
const LOSSES_IN_FLIGHT: usize = 16;

/// What happened, in the keys of `--json` and `metrics.jsonl`.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Event {
    /// `step`, `epoch` or `done`.
    pub event: std::borrow::Cow<'static, str>,
    /// From 1.
    pub epoch: u64,
    /// Steps since the run's start.
    pub step: u64,
    /// What is minimised, the mean cross-entropy unless the settings say otherwise: of the step's batch, or of the epoch's steps.
    pub train_loss: Option<f64>,
    /// Mean cross-entropy on the validation part; of numbers the mean squared error, in standard deviations of the training targets.
    pub val_loss: Option<f64>,
    /// Accuracy on the validation part; none of numbers.
    pub val_accuracy: Option<f64>,
    /// Accuracy on the test part, at the end alone.
    pub test_accuracy: Option<f64>,
    /// Of numbers: the root of the mean squared error on the validation part, in their units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub val_rmse: Option<f64>,
    /// The same on the test part, at the end alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_rmse: Option<f64>,
    /// Training speed since this process began.
    pub images_per_s: Option<f64>,
    /// The run's folder, at the end alone.
    pub run: Option<String>,
    /// The report, where one is written.
    pub report: Option<String>,
    /// Of an epoch's last step: the norm of the gradient of each layer's weights, before clipping, in the layers' order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_norms: Option<Vec<(String, f64)>>,
    /// Of an epoch's last step, where asked for: how many gradients of each layer's weights are how large, see [`GRADIENT_DECADES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gradient_histograms: Option<Vec<(String, Vec<u64>)>>,
}

impl Event {
    /// The event as one line of JSON; what is not finite is null.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// What is particular to this process, not to the run.
pub struct Options<'a> {
    /// Where to compute.
    pub device: &'a Device,
    /// Threads that prepare batches.
    pub workers: usize,
    /// Stop at the next step, save, and return [`Error::Interrupted`].
    pub interrupt: Arc<AtomicBool>,
    /// Told of everything that happens.
    pub on_event: &'a mut dyn FnMut(&Event),
    /// Told in a line what is done besides, such as computing the features of frozen layers.
    pub on_note: &'a mut dyn FnMut(&str),
    /// Where to go on from the last checkpoint when the device is lost or out of memory.
    pub fallback: Option<&'a Device>,
    /// Count the gradients of each layer by their size at the end of each epoch.
    pub log_gradients: bool,
}

/// A trained run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Of the kept weights: validation, and test where there is a test part.
    pub val: Option<Measured>,
    /// On the test part, touched once.
    pub test: Option<Measured>,
    /// Steps done in all.
    pub steps: u64,
    /// Mean loss of the last epoch's steps.
    pub train_loss: f64,
    /// Best epoch, from 1.
    pub best_epoch: u64,
    /// Seconds of this process.
    pub seconds: f64,
    /// Of these, waiting for batches.
    pub waited: f64,
    /// What is seen of the run in plain words, and what to try next.
    pub verdict: Vec<String>,
    /// The file for people.
    pub report: PathBuf,
}

/// Trains `run` from where it stands to its end.
///
/// Layers that `freeze` names neither change nor cost a backward pass. When the first ones are frozen and images are not changed at random, what these
/// layers make of each image is computed once, and training goes on from there.
///
/// # Errors
/// [`Error::Interrupted`] after saving when asked to stop; errors of device, data and disk, with the last checkpoint kept.
pub fn train(run: &Run, config: &Config, data: &Dataset, options: &mut Options) -> Result<Outcome> {
    config.check_device(options.device)?;
    match (train_on(run, config, data, options), options.fallback) {
        (Err(Error::Gpu(message) | Error::Device(message)), Some(fallback)) => {
            (options.on_note)(&format!("{message}; going on from the last checkpoint on {}", fallback.name()));
            options.device = fallback;
            config.check_device(fallback)?;
            train_on(run, config, data, options)
        }
        (outcome, _) => outcome,
    }
}

fn train_on(run: &Run, config: &Config, data: &Dataset, options: &mut Options) -> Result<Outcome> {
    let device = options.device;
    let build = || models::build(&config.model, config.input, config.classes.len(), device, config.seed);
    let module = build()?;
    if !config.weights.is_empty() && !run.has_checkpoint() {
        let (file, new_head) = begin(&module, config)?;
        let head = if new_head { format!("{}, is new: {} classes", models::head(&module), config.classes.len()) } else { "too".into() };
        (options.on_note)(&format!("weights {}; the last layer{}{head}", file.display(), if new_head { ", " } else { " " }));
    }
    freeze(&module, &config.freeze)?;
    let mut optimizer = Optimizer::new(config.optimizer()?, groups(&module, config))?;
    if config.half() {
        optimizer = optimizer.with_loss_scaling(LossScaling::default())?;
    }
    let average = if config.ema > 0.0 { Some(build()?) } else { None };
    if let Some(average) = &average {
        nn::copy_state(&module, average)?;
    }
    let mut state = run.restore(&module, &mut optimizer, average.as_ref().map(|m| m as &dyn Module))?;
    if state.stopped.is_some_and(|epochs| config.epochs > epochs) {
        // Asked for more than the run was to have when it was stopped early: patience begins anew.
        state.stopped = None;
        state.best = state.best.map(|best| Best { highest_epoch: state.epoch, ..best });
    }
    let average = match average {
        Some(module) => {
            let averages = nn::state_dict(&module).into_iter().map(|(_, tensor)| tensor).collect();
            Some((Ema::resume(config.ema, true, averages, state.step)?, module))
        }
        None => None,
    };
    let pictures = data;
    let (start, features) = frozen::features(&module, config, data, options)?;
    let data = features.as_ref().map_or(data, |(features, _)| features);
    let batches = data.train.len().div_ceil(config.batch_size) as u64;
    let mut total = batches.div_ceil(config.accumulate as u64) * config.epochs;
    if config.max_steps > 0 {
        total = total.min(config.max_steps);
    }
    let weight = class_weights(config, &data.train, device)?;
    let trainer = Trainer {
        run,
        config,
        data,
        pictures,
        start,
        shape: features.as_ref().map_or_else(|| config.input.to_vec(), |(_, shape)| shape.clone()),
        module,
        average,
        optimizer,
        schedule: config.schedule()?,
        weight,
        best_by: config.best_by()?,
        total,
        pending: Vec::new(),
        histograms: None,
        lines: Vec::new(),
        steps_before: state.step,
        state,
        started: Instant::now(),
        waited: Duration::ZERO,
        images: 0,
    };
    trainer.run(options)
}

/// Loads the weights to begin with: their file, and whether the last layer is new.
fn begin(module: &Sequential, config: &Config) -> Result<(PathBuf, bool)> {
    let trained = Trained::find(config.weights.as_ref())?;
    let file = trained.map_or_else(|| config.weights.clone().into(), |trained| trained.weights);
    let new_head = models::transfer(module, &file)?;
    Ok((file, new_head))
}

/// The training batches of an epoch from one on.
fn training_batches(config: &Config, data: &Dataset, epoch: u64, first_batch: usize, workers: usize) -> Result<Loader> {
    let augment = config.augmentation;
    let options = LoaderOptions { batch_size: config.batch_size, shuffle: true, augment, seed: config.seed, epoch, workers, first_batch };
    Loader::new(data, &data.train, options)
}

/// The trainable parameters in groups: the last layer's and the others', with and without weight decay.
fn groups(module: &Sequential, config: &Config) -> Vec<ParamGroup> {
    let head = format!("{}.", models::head(module));
    let (last, others): (Vec<_>, Vec<_>) = nn::named_parameters(module).into_iter().partition(|(name, _)| name.starts_with(&head));
    // One group where one will do: a group costs a dispatch a step.
    let parts =
        if config.backbone_lr == 1.0 { vec![(1.0, [others, last].concat())] } else { vec![(config.backbone_lr, others), (1.0, last)] };
    let groups = parts.into_iter().flat_map(|(lr_factor, parameters)| {
        ParamGroup::split_decay(parameters).into_iter().map(move |group| {
            let weight_decay = Some(group.weight_decay.unwrap_or(config.weight_decay));
            ParamGroup { lr_factor, weight_decay, ..group }
        })
    });
    groups.collect()
}

/// The weight of each class, n / (classes of it), or none where all weigh the same.
fn class_weights(config: &Config, part: &Part, device: &Device) -> Result<Option<Tensor>> {
    if config.class_weights == CLASS_WEIGHTS[0] {
        return Ok(None);
    }
    let mut counts = vec![0usize; config.classes.len()];
    part.labels.iter().for_each(|&label| counts[label as usize] += 1);
    let present = counts.iter().filter(|&&count| count > 0).count();
    let weights: Vec<f32> =
        counts.iter().map(|&count| if count == 0 { 0.0 } else { part.len() as f32 / (present * count) as f32 }).collect();
    Tensor::from_slice(device, &[weights.len()], &weights).map(Some)
}

/// Writes a run's `report.html` again, from its weights and its metrics; returns where it is.
///
/// # Errors
/// [`Error::Data`] for a run without weights; errors of the data and the device.
pub fn plot(run: &Run, config: &Config, data: &Dataset, device: &Device, workers: usize) -> Result<PathBuf> {
    let module = models::build(&config.model, config.input, config.classes.len(), device, config.seed)?;
    models::load(&module, &run.weights())?;
    let answers = |part: &Option<Arc<Part>>| -> Result<Option<Answers>> {
        part.as_ref().map(|part| answers(&module, data, part, device, config.batch_size, workers)).transpose()
    };
    let last = run.epochs()?.pop();
    let report = report::Report {
        config,
        run,
        data,
        device,
        module: &module,
        answers: [answers(&data.val)?, answers(&data.test)?],
        steps: last.as_ref().map_or(0, |event| event.step),
        train_loss: last.and_then(|event| event.train_loss).unwrap_or(0.0),
        timing: report::Timing::read(run),
    };
    Ok(report.conclude()?.path)
}

/// Says in which part of a step an operation's result was not finite. In the forward pass the layer's path says it.
fn during(part: &str, error: Error) -> Error {
    match error {
        Error::Diverged(message) => Error::Diverged(format!("{part}: {message}")),
        other => other,
    }
}

struct Trainer<'a> {
    run: &'a Run,
    config: &'a Config,
    data: &'a Dataset,
    /// The images themselves, where `data` holds features.
    pictures: &'a Dataset,
    /// The first child that images go through; those before it have made the features.
    start: usize,
    /// A sample's, that the child `start` takes.
    shape: Vec<usize>,
    module: Sequential,
    /// The moving average of the weights, in the tensors of a second network.
    average: Option<(Ema, Sequential)>,
    optimizer: Optimizer,
    schedule: Schedule,
    /// Of the classes, `[classes]`.
    weight: Option<Tensor>,
    best_by: BestBy,
    state: State,
    /// Steps of the whole run, which the schedule is stretched over.
    total: u64,
    /// Losses not yet read: step, epoch, scalar.
    pending: Vec<(u64, u64, Tensor)>,
    /// Of the epoch's last step, where asked for.
    histograms: Option<Vec<(String, Vec<u64>)>>,
    /// Lines for `metrics.jsonl`.
    lines: Vec<String>,
    /// Steps that other processes did.
    steps_before: u64,
    started: Instant,
    /// For batches.
    waited: Duration,
    images: u64,
}

impl Trainer<'_> {
    fn run(mut self, options: &mut Options) -> Result<Outcome> {
        // Of a run that was at its end already, what its last epoch reached.
        let mut epoch_loss = self.run.epochs()?.last().and_then(|event| event.train_loss).unwrap_or(0.0);
        while self.state.step < self.total && self.state.stopped.is_none() {
            epoch_loss = self.epoch(options)?;
        }
        self.finish(epoch_loss, options)
    }

    fn epoch(&mut self, options: &mut Options) -> Result<f64> {
        let (config, data) = (self.config, self.data);
        let epoch = self.state.epoch;
        let mut loader = training_batches(config, data, epoch, self.state.batch as usize, options.workers)?;
        loop {
            let asked = Instant::now();
            let batches = loader.by_ref().take(config.accumulate).collect::<Result<Vec<Batch>>>()?;
            if batches.is_empty() {
                break;
            }
            self.waited += asked.elapsed();
            if options.interrupt.load(Ordering::Relaxed) {
                self.save(options)?;
                return Err(Error::Interrupted(format!(
                    "interrupted after step {}; go on with: mappa train --resume {}",
                    self.state.step,
                    self.run.path().display()
                )));
            }
            // Of the epoch's last step, or of the run's.
            let last = self.state.batch as usize + batches.len() >= loader.batches() || self.state.step + 1 >= self.total;
            let loss = self.step(&batches, last, options)?;
            self.state.step += 1;
            self.state.batch += batches.len() as u64;
            self.images += batches.iter().map(Batch::len).sum::<usize>() as u64;
            self.pending.push((self.state.step, epoch, loss.detach().reshape(&[1])?));
            if self.pending.len() >= LOSSES_IN_FLIGHT {
                self.drain(options)?;
            }
            if self.state.step >= self.total {
                break;
            }
            if config.checkpoint_every > 0 && self.state.step.is_multiple_of(config.checkpoint_every) {
                self.save(options)?;
            }
        }
        self.drain(options)?;
        let steps = self.state.batch.div_ceil(config.accumulate as u64);
        let train_loss = self.state.epoch_loss / steps.max(1) as f64;
        let measured = self.answers(&data.val, options)?.map(|answers| answers.measure()).transpose()?;
        self.keep_best(measured.as_ref(), epoch + 1)?;
        let event = Event {
            train_loss: Some(train_loss),
            val_loss: measured.as_ref().map(Measured::loss),
            val_accuracy: measured.as_ref().and_then(Measured::accuracy),
            val_rmse: measured.as_ref().and_then(Measured::rmse),
            gradient_norms: Some(std::mem::take(&mut self.state.gradient_norms)),
            gradient_histograms: self.histograms.take(),
            ..self.event("epoch", epoch, self.state.step)
        };
        self.emit(event, options);
        self.state = State { epoch: epoch + 1, batch: 0, epoch_loss: 0.0, ..self.state.clone() };
        let since = self.state.best.map_or(0, |best| epoch + 1 - best.highest_epoch);
        if config.patience > 0 && since >= config.patience && self.state.step < self.total {
            (options.on_note)(&format!("stopped early: {since} epochs have not improved on the best {}", config.best_by));
            self.state.stopped = Some(config.epochs);
            self.save(options)?;
            return Ok(train_loss);
        }
        if config.checkpoint_every == 0 || self.state.step >= self.total {
            self.save(options)?;
        }
        Ok(train_loss)
    }

    /// One step, of one or more batches; returns its loss.
    fn step(&mut self, batches: &[Batch], last: bool, options: &Options) -> Result<Tensor> {
        let (config, device) = (self.config, options.device);
        self.optimizer.zero_grad();
        let mut total: Option<Tensor> = None;
        let samples: usize = batches.iter().map(Batch::len).sum();
        for (i, batch) in batches.iter().enumerate() {
            let (x, target) = self.tensors(batch, device)?;
            let share = batch.len() as f64 / samples as f64;
            let loss = self.backward(i as u64, share, &x, &target, batch.mix.as_ref());
            let loss = loss.map_err(|error| self.keep_evidence(error, &x, &target))?.detach();
            total = Some(total.map_or(Ok(loss.clone()), |sum| sum.add(&loss))?);
        }
        if last {
            self.state.gradient_norms = gradients::norms(&self.module, &self.optimizer)?;
            self.histograms = options.log_gradients.then(|| gradients::histograms(&self.module, &self.optimizer)).transpose()?;
        }
        let mut update = || -> Result<()> {
            if config.clip_grad_norm > 0.0 {
                self.optimizer.clip_grad_norm(config.clip_grad_norm)?;
            }
            self.optimizer.step(self.schedule.lr(config.lr, self.state.step, self.total))
        };
        let updated = update().map_err(|error| during("the optimiser's step", error));
        if let (Err(error), Some(batch)) = (&updated, batches.last()) {
            let (x, target) = self.tensors(batch, device)?;
            return Err(self.keep_evidence(error.clone(), &x, &target));
        }
        if let Some((average, _)) = &mut self.average {
            let weights: Vec<Tensor> = nn::state_dict(&self.module).into_iter().map(|(_, tensor)| tensor).collect();
            average.update(&weights)?;
        }
        total.ok_or_else(|| Error::Config("a step of no batches".into()))
    }

    /// Images (or features) and classes of a batch.
    fn tensors(&self, batch: &Batch, device: &Device) -> Result<(Tensor, Tensor)> {
        let x = Tensor::from_slice(device, &[&[batch.len()], &self.shape[..]].concat(), &batch.images)?;
        Ok((x, batch.target(device)?))
    }

    /// The gradients of a batch that has a `share` of the step's samples; returns its part of the step's loss.
    fn backward(&mut self, micro_step: u64, share: f64, x: &Tensor, target: &Tensor, mix: Option<&Mix>) -> Result<Tensor> {
        let config = self.config;
        let mut context = Context::train(config.seed, self.state.step).micro_step(micro_step);
        let tail = Tail { module: &self.module, start: self.start, shape: &self.shape };
        let mut loss = batch_loss(config, &tail, &self.module, &mut context, self.weight.as_ref(), x, target, mix)?;
        if share < 1.0 {
            loss = loss.affine(share, 0.0)?;
        }
        self.optimizer.scale_loss(&loss)?.backward().map_err(|error| during("the backward pass", error))?;
        Ok(loss)
    }

    /// What is measured and kept: the average, where there is one.
    fn kept(&self) -> &Sequential {
        self.average.as_ref().map_or(&self.module, |(_, average)| average)
    }

    fn answers(&self, part: &Option<Arc<Part>>, options: &Options) -> Result<Option<Answers>> {
        let tail = Tail { module: self.kept(), start: self.start, shape: &self.shape };
        let Some(part) = part else { return Ok(None) };
        answers(&tail, self.data, part, options.device, self.config.batch_size, options.workers).map(Some)
    }

    /// Saves what reproduces an operation whose result is not finite: the batch, and the weights before the step (in the optimiser's step its
    /// first operations may already have changed them).
    fn keep_evidence(&self, error: Error, x: &Tensor, target: &Tensor) -> Error {
        let Error::Diverged(message) = &error else { return error };
        let folder = self.run.path().join("diverged");
        let save = || -> Result<()> {
            std::fs::create_dir_all(&folder).map_err(|e| Error::io(&folder, e))?;
            let classes = target.cast(crate::dtype::DType::F32)?;
            safetensors::save(folder.join("batch.safetensors"), &[("images".into(), x.clone()), ("target".into(), classes)], None)?;
            safetensors::save(folder.join("model.safetensors"), &nn::state_dict(&self.module), None)?;
            safetensors::save(folder.join("optimizer.safetensors"), &self.optimizer.state(), None)
        };
        let step = self.state.step + 1;
        match save() {
            Ok(()) => Error::Diverged(format!("step {step}: {message}; batch and state are in {}", folder.display())),
            Err(failed) => Error::Diverged(format!("step {step}: {message}; batch and state could not be saved: {failed}")),
        }
    }

    /// Writes the weights when they are the best so far on validation; without validation the last ones are kept.
    ///
    /// A difference of one image is a tie, and a tie goes to the later epoch, whose learning rate is lower: small validation parts are soon at
    /// 100 %, and tell a good epoch from a lucky one no better than that.
    fn keep_best(&mut self, measured: Option<&Measured>, epoch: u64) -> Result<()> {
        let images = self.data.val.as_ref().map_or(1, |part| part.len().max(1)) as f64;
        // Half an image more, so that rounding does not decide. Other figures than the accuracy hardly ever tie.
        let tie = if self.best_by == BestBy::Accuracy { 1.5 / images } else { 0.0 };
        let (accuracy, loss) = measured.map_or((0.0, 0.0), |m| (m.accuracy().unwrap_or(0.0), m.loss()));
        let score = measured.map_or(0.0, |measured| self.best_by.score(measured));
        let last = self.state.best;
        let (highest, highest_epoch) = last.filter(|b| b.highest >= score).map_or((score, epoch), |b| (b.highest, b.highest_epoch));
        match &mut self.state.best {
            Some(best) if score < highest - tie => (best.highest, best.highest_epoch) = (highest, highest_epoch),
            best => {
                *best = Some(Best { accuracy, loss, epoch, highest, highest_epoch });
                safetensors::save(self.run.weights(), &nn::state_dict(self.kept()), None)?;
            }
        }
        Ok(())
    }

    /// Reads the losses of the steps recorded so far and reports them.
    fn drain(&mut self, options: &mut Options) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let pending = std::mem::take(&mut self.pending);
        let scalars: Vec<&Tensor> = pending.iter().map(|(_, _, loss)| loss).collect();
        let losses = Tensor::concat(&scalars, 0)?.to_vec_blocking::<f32>()?;
        for ((step, epoch, _), loss) in pending.iter().zip(losses) {
            if !loss.is_finite() {
                return Err(Error::Diverged(format!(
                    "the training loss became {loss} at step {step}; lower --lr (it is {}), or set clip-grad-norm=1",
                    self.config.lr
                )));
            }
            self.state.epoch_loss += loss as f64;
            let event = Event { train_loss: Some(loss as f64), ..self.event("step", *epoch, *step) };
            self.emit(event, options);
        }
        Ok(())
    }

    fn event(&self, event: &'static str, epoch: u64, step: u64) -> Event {
        let images_per_s = Some(self.images as f64 / self.started.elapsed().as_secs_f64().max(1e-9));
        Event {
            event: event.into(),
            epoch: epoch + 1,
            step,
            train_loss: None,
            val_loss: None,
            val_accuracy: None,
            test_accuracy: None,
            val_rmse: None,
            test_rmse: None,
            images_per_s,
            run: None,
            report: None,
            gradient_norms: None,
            gradient_histograms: None,
        }
    }

    fn emit(&mut self, event: Event, options: &mut Options) {
        // Speed is a figure of this process; the file holds what the same seed gives again.
        self.lines.push(Event { images_per_s: None, ..event.clone() }.to_json());
        (options.on_event)(&event);
    }

    fn save(&mut self, options: &mut Options) -> Result<()> {
        self.drain(options)?;
        // The log first: a checkpoint never knows of a step that the log does not.
        self.run.log(&std::mem::take(&mut self.lines))?;
        let average = self.average.as_ref().map(|(_, average)| average as &dyn Module);
        self.run.checkpoint(&self.module, &self.optimizer, average, &self.state)
    }

    fn finish(mut self, train_loss: f64, options: &mut Options) -> Result<Outcome> {
        let seconds = self.started.elapsed().as_secs_f64();
        safetensors::load_into(self.kept(), self.run.weights())?;
        let answers = [self.answers(&self.data.val, options)?, self.answers(&self.data.test, options)?];
        let waited = self.waited.as_secs_f64();
        let timing = report::Timing {
            device: options.device.name().to_owned(),
            steps: self.state.step - self.steps_before,
            seconds,
            images_per_s: self.images as f64 / seconds.max(1e-9),
            waited,
            peak_bytes: options.device.memory().peak_bytes,
        };
        // A run that was at its end already keeps what is known of its training.
        if timing.steps > 0 {
            timing.save(self.run)?;
        }
        let report = report::Report {
            config: self.config,
            run: self.run,
            data: self.pictures,
            device: options.device,
            module: self.kept(),
            answers,
            steps: self.state.step,
            train_loss,
            timing: report::Timing::read(self.run),
        };
        let report::Conclusion { measured: [val, test], verdict, path } = report.conclude()?;
        let event = Event {
            train_loss: Some(train_loss),
            val_loss: val.as_ref().map(Measured::loss),
            val_accuracy: val.as_ref().and_then(Measured::accuracy),
            test_accuracy: test.as_ref().and_then(Measured::accuracy),
            val_rmse: val.as_ref().and_then(Measured::rmse),
            test_rmse: test.as_ref().and_then(Measured::rmse),
            run: Some(self.run.path().display().to_string()),
            report: Some(path.display().to_string()),
            ..self.event("done", self.state.epoch.saturating_sub(1), self.state.step)
        };
        self.emit(event, options);
        self.run.log(&std::mem::take(&mut self.lines))?;
        let best_epoch = self.state.best.map_or(self.state.epoch, |b| b.epoch);
        Ok(Outcome { val, test, steps: self.state.step, train_loss, best_epoch, seconds, waited, verdict, report: path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::decorator::Decorator;
    use crate::backend::{Backend, Operand};
    use crate::op::Op;
    use std::sync::atomic::AtomicU64;

    /// A device that is lost after so many operations.
    struct Fragile(Device, AtomicU64, bool);

    impl Decorator for Fragile {
        fn inner(&self) -> &dyn Backend {
            &*self.0
        }
        fn run(&self, op: &Op, inputs: &[Operand], outputs: &[Operand]) -> Result<()> {
            match self.1.fetch_sub(1, Ordering::Relaxed) {
                0 => {
                    self.1.store(0, Ordering::Relaxed);
                    // Every second one for want of memory, which is no fault of the device's.
                    Err(if self.2 { Error::Device("out of memory".into()) } else { Error::Gpu("device lost: the driver was reset".into()) })
                }
                _ => self.0.run(op, inputs, outputs),
            }
        }
    }

    #[test]
    fn a_run_whose_device_is_lost_goes_on_elsewhere() {
        let data = crate::data::digits().unwrap().with_validation(0.1, 1).unwrap();
        let settings =
            Settings { model: Some("mlp".into()), max_steps: Some(30), checkpoint_every: Some(4), ema: Some(0.9), ..Default::default() };
        let config = settings.resolve(&data, None).unwrap();
        let cpu = Device::cpu(1).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut notes = Vec::new();
        let mut weights = |name: &str, device: &Device, fallback: Option<&Device>| -> Result<Vec<u8>> {
            let path = folder.path().join(name);
            let mut config = config.clone();
            let run = Run::create(Some(&path), &mut config, device)?;
            let mut options = Options {
                device,
                workers: 1,
                interrupt: Arc::default(),
                on_event: &mut |_| {},
                on_note: &mut |line| notes.push(line.to_owned()),
                fallback,
                log_gradients: false,
            };
            train(&run, &config, &data, &mut options)?;
            Ok(std::fs::read(run.weights()).unwrap())
        };
        let whole = weights("whole", &cpu, None).unwrap();
        // Lost before the first checkpoint, and after some.
        for (operations, memory) in [(100, false), (700, true)] {
            let fragile = || Device::new(Fragile(cpu.clone(), AtomicU64::new(operations), memory));
            let lost = weights(&format!("lost-{operations}"), &fragile(), None).unwrap_err();
            assert!(lost.to_string().contains(if memory { "out of memory" } else { "device lost" }), "{lost}");
            assert!(weights(&format!("{operations}"), &fragile(), Some(&cpu)).unwrap() == whole);
        }
        assert_eq!(notes.iter().filter(|line| line.contains("going on from the last checkpoint")).count(), 2);
    }
}
