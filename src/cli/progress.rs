//! What a person sees while training: a bar on a terminal, plain lines elsewhere, all on stderr.

use super::note;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mappa::train::Event;
use std::io::IsTerminal;

/// Progress of one training.
pub struct Progress {
    bar: Option<ProgressBar>,
    epochs: u64,
    accuracy: Option<f64>,
}

impl Progress {
    /// For `steps` steps in `epochs` epochs.
    pub fn new(steps: u64, epochs: u64) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr_with_hz(10));
            let template = "{prefix} {bar:28} {pos}/{len}  {msg}  ETA {eta}";
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Progress { bar, epochs, accuracy: None }
    }

    /// Shows an event.
    pub fn show(&mut self, event: &Event) {
        let loss = event.train_loss.unwrap_or(f64::NAN);
        let speed = event.images_per_s.unwrap_or(0.0);
        match (&self.bar, &*event.event) {
            (Some(bar), "step") => {
                let accuracy = self.accuracy.map_or(String::new(), |a| format!("  val {:.1} %", 100.0 * a));
                bar.set_prefix(format!("epoch {}/{}", event.epoch, self.epochs));
                bar.set_message(format!("loss {loss:.3}{accuracy}  {speed:.0} images/s"));
                bar.set_position(event.step);
            }
            (_, "epoch") => {
                self.accuracy = event.val_accuracy;
                let val = match (event.val_loss, event.val_accuracy) {
                    (Some(l), Some(a)) => format!("  val loss {l:.4}  val accuracy {:.2} %", 100.0 * a),
                    _ => String::new(),
                };
                let line = format!("epoch {:>3}/{}  loss {loss:.4}{val}  {speed:.0} images/s", event.epoch, self.epochs);
                match &self.bar {
                    Some(bar) => bar.println(line),
                    None => note(line),
                }
            }
            (Some(bar), "done") => bar.finish_and_clear(),
            _ => {}
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
