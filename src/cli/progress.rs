//! What a person sees while training: a bar on a terminal, plain lines elsewhere, all on stderr.

use super::note;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mappa::train::Event;
use std::io::IsTerminal;

/// Epochs that have a line, about: the first and the last always do.
const LINES: u64 = 20;

/// Progress of one training.
pub struct Progress {
    bar: Option<ProgressBar>,
    epochs: u64,
    /// What is learned from.
    things: &'static str,
    /// What the last epoch reached.
    reached: String,
}

impl Progress {
    /// For `steps` steps in `epochs` epochs of `things`.
    pub fn new(steps: u64, epochs: u64, things: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr_with_hz(10));
            let template = "{prefix} {bar:28} {pos}/{len}  {msg}  ETA {eta}";
            bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Progress { bar, epochs, things, reached: String::new() }
    }

    /// Shows an event.
    pub fn show(&mut self, event: &Event) {
        let loss = event.train_loss.unwrap_or(f64::NAN);
        let speed = event.images_per_s.unwrap_or(0.0);
        match (&self.bar, &*event.event) {
            (Some(bar), "step") => {
                bar.set_prefix(format!("epoch {}/{}", event.epoch, self.epochs));
                bar.set_message(format!("loss {loss:.3}{}  {speed:.0} {}/s", self.reached, self.things));
                bar.set_position(event.step);
            }
            (_, "epoch") => {
                let val = match (event.val_loss, event.val_accuracy, event.val_rmse) {
                    (Some(loss), Some(accuracy), _) => format!("  val loss {loss:.4}  val accuracy {:.2} %", 100.0 * accuracy),
                    (Some(loss), _, Some(rmse)) => format!("  val loss {loss:.4}  val error {rmse:.4}"),
                    _ => String::new(),
                };
                self.reached = event.val_accuracy.map_or(String::new(), |a| format!("  val {:.1} %", 100.0 * a));
                // Of many epochs some: the lines of all would scroll everything else away. metrics.jsonl has every one.
                let every = self.epochs.div_ceil(LINES);
                if event.epoch > 1 && event.epoch < self.epochs && !event.epoch.is_multiple_of(every) {
                    return;
                }
                let line = format!("epoch {:>3}/{}  loss {loss:.4}{val}  {speed:.0} {}/s", event.epoch, self.epochs, self.things);
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
