//! The folder of a run: its files, and checkpoints that are complete or not there.

use super::config::Config;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::{atomic, safetensors};
use crate::nn::{self, Module};
use crate::optim::Optimizer;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Where training stands: all that a resumed run needs besides weights and optimiser state. Random numbers follow from seed and step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// The epoch that the next step belongs to, from 0.
    pub epoch: u64,
    /// Batches of that epoch already done.
    pub batch: u64,
    /// Sum of the losses of that epoch's steps so far.
    pub epoch_loss: f64,
    /// Of the epoch's last step, once it is done: see [`Event`](super::Event).
    #[serde(default)]
    pub gradient_norms: Vec<(String, f64)>,
    /// The weights kept so far.
    pub best: Option<Best>,
    /// An early stop has ended the training, which was to have so many epochs.
    pub stopped: Option<u64>,
}

/// The weights kept so far: the best on validation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Validation accuracy.
    pub accuracy: f64,
    /// Validation loss.
    pub loss: f64,
    /// Their epoch, from 1.
    pub epoch: u64,
    /// The highest score so far by what chooses, which may be one image above.
    pub highest: f64,
    /// Its epoch, from 1.
    pub highest_epoch: u64,
}

/// A run's folder.
#[derive(Debug, Clone)]
pub struct Run {
    path: PathBuf,
}

/// Checkpoints kept.
const KEPT: usize = 2;

impl Run {
    /// Makes the folder of a new run with its `config.toml`, which then names the device's kernels, and `env.json`. Without `out` it is `runs/<data>-<model>-<n>`.
    ///
    /// # Errors
    /// [`Error::Config`] when the folder exists and is not empty, [`Error::Io`] when it cannot be written; then nothing remains.
    pub fn create(out: Option<&Path>, config: &mut Config, device: &Device) -> Result<Run> {
        let path = match out {
            Some(path) => path.to_owned(),
            None => {
                let data = Path::new(&config.data).file_name().and_then(|n| n.to_str()).unwrap_or("data").to_owned();
                (1..)
                    .map(|n| PathBuf::from(format!("runs/{data}-{}-{n}", crate::models::title(&config.model))))
                    .find(|p| !p.exists())
                    .unwrap_or_default()
            }
        };
        if fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::Config(format!("--out {}: this folder is not empty; give another, or --resume it", path.display())));
        }
        if let Some(file) = path.ancestors().find(|a| a.is_file()) {
            return Err(Error::Config(format!("--out {}: {} is a file, not a folder", path.display(), file.display())));
        }
        config.check_device(device)?;
        config.kernels = device.capabilities().kernels.to_string();
        let existed = path.exists();
        fs::create_dir_all(&path).map_err(|e| Error::io(&path, e))?;
        let run = Run { path };
        let env = serde_json::json!({
            "mappa": env!("CARGO_PKG_VERSION"),
            "device": device.name(),
            "backend": device.capabilities().kind,
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
        });
        let written = config
            .to_toml()
            .and_then(|text| atomic::write(run.path.join("config.toml"), text.as_bytes()))
            .and_then(|()| atomic::write(run.path.join("env.json"), format!("{env:#}\n").as_bytes()))
            .and_then(|()| fs::write(run.metrics(), "").map_err(|e| Error::io(run.metrics(), e)));
        if let Err(error) = written {
            // Best effort: the error that matters is the one above.
            let _ = if existed { fs::remove_file(run.path.join("config.toml")) } else { fs::remove_dir_all(&run.path) };
            return Err(error);
        }
        Ok(run)
    }

    /// An existing run.
    ///
    /// # Errors
    /// [`Error::Data`] when the folder is no run.
    pub fn open(path: &Path) -> Result<(Run, Config)> {
        let config = Config::read(path)?;
        Ok((Run { path: path.to_owned() }, config))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `metrics.jsonl`.
    pub fn metrics(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// `model.safetensors`: the best weights.
    pub fn weights(&self) -> PathBuf {
        self.path.join("model.safetensors")
    }

    /// Adds lines to `metrics.jsonl`.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn log(&self, lines: &[String]) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let path = self.metrics();
        let mut text = lines.join("\n");
        text.push('\n');
        let append = || fs::OpenOptions::new().append(true).create(true).open(&path)?.write_all(text.as_bytes());
        append().map_err(|e| Error::io(&path, e))
    }

    /// The `epoch` events of `metrics.jsonl`, oldest first. Lines that are torn are left out.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read.
    pub fn epochs(&self) -> Result<Vec<super::Event>> {
        let path = self.metrics();
        let text = fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let events = text.lines().filter_map(|line| serde_json::from_str::<super::Event>(line).ok());
        Ok(events.filter(|event| event.event == "epoch").collect())
    }

    /// Drops lines of `metrics.jsonl` behind `state`, so that each step appears once after a resume. A torn last line goes too.
    fn rewind(&self, state: &State) -> Result<()> {
        let path = self.metrics();
        let text = fs::read_to_string(&path).unwrap_or_default();
        let keep = |line: &&str| -> bool {
            let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { return false };
            let step = value["step"].as_u64().unwrap_or(u64::MAX);
            // The epoch's own line belongs to its last step, and is written before the checkpoint there.
            match value["event"].as_str() {
                Some("step") => step <= state.step,
                Some("epoch") => value["epoch"].as_u64().is_some_and(|e| e <= state.epoch),
                _ => false,
            }
        };
        let mut kept: String = text.lines().filter(keep).collect::<Vec<_>>().join("\n");
        if !kept.is_empty() {
            kept.push('\n');
        }
        atomic::write(&path, kept.as_bytes())
    }

    /// Writes a checkpoint, with the moving average of the weights where there is one: the folder is completed under a temporary name, synced, renamed, and only then named in `last`.
    ///
    /// # Errors
    /// [`Error::Io`]; earlier checkpoints are untouched.
    pub fn checkpoint(&self, module: &dyn Module, optimizer: &Optimizer, average: Option<&dyn Module>, state: &State) -> Result<()> {
        let folder = self.path.join("checkpoints");
        let name = format!("{:08}", state.step);
        let (temporary, target) = (folder.join(format!("{name}.tmp")), folder.join(&name));
        let write = || -> Result<()> {
            let _ = fs::remove_dir_all(&temporary);
            fs::create_dir_all(&temporary).map_err(|e| Error::io(&temporary, e))?;
            safetensors::save(temporary.join("model.safetensors"), &nn::state_dict(module), None)?;
            safetensors::save(temporary.join("optimizer.safetensors"), &optimizer.state(), None)?;
            if let Some(average) = average {
                safetensors::save(temporary.join("ema.safetensors"), &nn::state_dict(average), None)?;
            }
            let text = serde_json::to_string_pretty(state).map_err(|e| Error::Config(e.to_string()))?;
            atomic::write(temporary.join("state.json"), text.as_bytes())?;
            if target.exists() {
                fs::remove_dir_all(&target).map_err(|e| Error::io(&target, e))?;
            }
            fs::rename(&temporary, &target).map_err(|e| Error::io(&target, e))?;
            atomic::write(folder.join("last"), format!("{name}\n").as_bytes())
        };
        write().inspect_err(|_| {
            // Best effort: half a checkpoint is of no use to anybody.
            let _ = fs::remove_dir_all(&temporary);
        })?;
        let mut all: Vec<PathBuf> =
            fs::read_dir(&folder).map_err(|e| Error::io(&folder, e))?.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
        all.sort();
        for old in &all[..all.len().saturating_sub(KEPT)] {
            fs::remove_dir_all(old).map_err(|e| Error::io(old, e))?;
        }
        Ok(())
    }

    /// Whether there is a checkpoint to go on from.
    pub fn has_checkpoint(&self) -> bool {
        self.path.join("checkpoints/last").exists()
    }

    /// Restores the last checkpoint into `module`, `optimizer` and the moving average; the beginning, where there is none yet.
    ///
    /// # Errors
    /// [`Error::Data`] for a corrupt checkpoint; nothing is then trained on.
    pub fn restore(&self, module: &dyn Module, optimizer: &mut Optimizer, average: Option<&dyn Module>) -> Result<State> {
        let folder = self.path.join("checkpoints");
        let last = folder.join("last");
        let state = if last.exists() {
            let name = fs::read_to_string(&last).map_err(|e| Error::data(&last, e.to_string()))?;
            let at = folder.join(name.trim());
            let path = at.join("state.json");
            let text = fs::read_to_string(&path)
                .map_err(|e| Error::data(&path, format!("the checkpoint named in {} cannot be read: {e}", last.display())))?;
            let state: State = serde_json::from_str(&text).map_err(|e| Error::data(&path, format!("this checkpoint is corrupt: {e}")))?;
            safetensors::load_into(module, at.join("model.safetensors"))?;
            if let Some(average) = average {
                safetensors::load_into(average, at.join("ema.safetensors"))?;
            }
            optimizer.load_state(state.step, &safetensors::load(at.join("optimizer.safetensors"))?)?;
            state
        } else {
            State::default()
        };
        self.rewind(&state)?;
        Ok(state)
    }
}
