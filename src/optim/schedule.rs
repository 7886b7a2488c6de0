//! Learning rates by step.

use crate::error::{Error, Result};
use std::f64::consts::PI;

/// Share of the learning rate with which a warm-up starts.
const WARMUP_START: f64 = 0.1;

/// How the learning rate goes on after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Decay {
    /// It stays.
    #[default]
    Constant,
    /// Times `gamma` every `step_size` steps, `torch.optim.lr_scheduler.StepLR`.
    Step {
        /// Steps between two changes.
        step_size: u64,
        /// Factor of a change.
        gamma: f64,
    },
    /// `eta_min + (lr - eta_min) (1 + cos(pi t / t_max)) / 2`: Loshchilov and Hutter 2016, arXiv:1608.03983, `CosineAnnealingLR`.
    Cosine {
        /// Steps to the minimum; `None`: all of them.
        t_max: Option<u64>,
        /// The smallest learning rate.
        eta_min: f64,
    },
    /// Up from `lr / div_factor` to `lr` and down to `lr / (div_factor final_div_factor)` on half cosines: Smith and Topin 2017,
    /// arXiv:1708.07120, `OneCycleLR` without its cycle of the momentum. `lr` is the largest rate.
    OneCycle {
        /// Share of the steps that go up; 0.3.
        pct_start: f64,
        /// The first rate is `lr / div_factor`; 25.
        div_factor: f64,
        /// The last rate is the first divided by this; 1e4.
        final_div_factor: f64,
    },
}

/// The learning rate of each step: a linear warm-up from a tenth, then a [`Decay`] over the steps that remain.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Schedule {
    /// What follows the warm-up.
    pub decay: Decay,
    /// Steps of the warm-up; 0 is none.
    pub warmup_steps: u64,
}

impl From<Decay> for Schedule {
    fn from(decay: Decay) -> Self {
        Schedule { decay, warmup_steps: 0 }
    }
}

impl std::str::FromStr for Schedule {
    type Err = Error;

    /// A schedule by name, see [`Schedule::NAMES`]; `step` divides by ten every 30 steps.
    fn from_str(name: &str) -> Result<Self> {
        let decay = match name {
            "none" => Decay::Constant,
            "step" => Decay::Step { step_size: 30, gamma: 0.1 },
            "cosine" => Decay::Cosine { t_max: None, eta_min: 0.0 },
            "one-cycle" => Decay::OneCycle { pct_start: 0.3, div_factor: 25.0, final_div_factor: 1e4 },
            _ => return Err(Error::Config(format!("unknown schedule '{name}'; use {}", Self::NAMES.join(", ")))),
        };
        Ok(decay.into())
    }
}

impl Schedule {
    /// The names that can be parsed.
    pub const NAMES: [&str; 4] = ["none", "step", "cosine", "one-cycle"];

    /// The learning rate of step number `step`, from 0, of `total_steps`.
    pub fn lr(&self, base_lr: f64, step: u64, total_steps: u64) -> f64 {
        if step < self.warmup_steps {
            return base_lr * (WARMUP_START + (1.0 - WARMUP_START) * step as f64 / self.warmup_steps as f64);
        }
        let (step, total_steps) = (step - self.warmup_steps, total_steps.saturating_sub(self.warmup_steps).max(1));
        match self.decay {
            Decay::Constant => base_lr,
            Decay::Step { step_size, gamma } => base_lr * gamma.powf((step / step_size.max(1)) as f64),
            Decay::Cosine { t_max, eta_min } => {
                let t_max = t_max.unwrap_or(total_steps).max(1);
                anneal(base_lr, eta_min, step as f64 / t_max as f64)
            }
            Decay::OneCycle { pct_start, div_factor, final_div_factor } => {
                let (top, last) = (pct_start * total_steps as f64 - 1.0, total_steps as f64 - 1.0);
                let (first_lr, step) = (base_lr / div_factor, (step as f64).min(last));
                if step <= top && top > 0.0 {
                    anneal(first_lr, base_lr, step / top)
                } else {
                    let share = if last > top { (step - top) / (last - top) } else { 1.0 };
                    anneal(base_lr, first_lr / final_div_factor, share)
                }
            }
        }
    }
}

/// From `start` at 0 to `end` at 1 on half a cosine.
fn anneal(start: f64, end: f64, share: f64) -> f64 {
    end + (start - end) * (1.0 + (PI * share).cos()) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(schedule: Schedule, base_lr: f64, steps: &[u64], total: u64) -> Vec<f64> {
        steps.iter().map(|&step| schedule.lr(base_lr, step, total)).collect()
    }

    fn close(got: Vec<f64>, want: &[f64]) {
        assert_eq!(got.len(), want.len());
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() <= 1e-9 * w.abs().max(1e-3)), "got {got:?}, expected {want:?}");
    }

    #[test]
    fn schedules_follow_their_formulas() {
        close(rates(Schedule::default(), 0.1, &[0, 59], 60), &[0.1, 0.1]);
        close(rates(Decay::Step { step_size: 10, gamma: 0.5 }.into(), 0.1, &[0, 9, 10, 29, 30], 60), &[0.1, 0.1, 0.05, 0.025, 0.0125]);
        let cosine: Schedule = Decay::Cosine { t_max: None, eta_min: 0.01 }.into();
        close(rates(cosine, 0.1, &[0, 15, 30, 60], 60), &[0.1, 0.055 + 0.045 * 0.5f64.sqrt(), 0.055, 0.01]);
        let short: Schedule = Decay::Cosine { t_max: Some(20), eta_min: 0.0 }.into();
        close(rates(short, 0.1, &[10, 20], 60), &[0.05, 0.0]);
        // PyTorch's OneCycleLR(max_lr=0.2, total_steps=60): the top is at step 0.3 * 60 - 1 = 17, the end at 59.
        let one_cycle: Schedule = "one-cycle".parse().unwrap();
        close(rates(one_cycle, 0.2, &[0, 17, 38, 59, 99], 60), &[0.008, 0.2, 0.1 + 4e-7, 8e-7, 8e-7]);
    }

    #[test]
    fn warm_up_rises_from_a_tenth_and_shortens_the_rest() {
        let schedule = Schedule { decay: Decay::Cosine { t_max: None, eta_min: 0.0 }, warmup_steps: 10 };
        close(rates(schedule, 0.1, &[0, 5, 10, 60, 110], 110), &[0.01, 0.055, 0.1, 0.05, 0.0]);
    }

    #[test]
    fn degenerate_lengths_give_finite_rates() {
        for name in Schedule::NAMES {
            let schedule = Schedule { warmup_steps: 3, ..name.parse().unwrap() };
            for total in [0, 1, 2, 3, 4, 5] {
                assert!((0..10).all(|step| schedule.lr(0.1, step, total).is_finite()), "{name}, {total} steps");
            }
        }
        assert!("linear".parse::<Schedule>().unwrap_err().to_string().contains("one-cycle"));
    }
}
