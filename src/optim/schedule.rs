//! Learning rates by step.

use crate::error::{Error, Result};
use std::f64::consts::PI;

/// Share of the learning rate with which a warm-up starts.
const WARMUP_START: f64 = 0.1;

/// How the learning rate goes on after the warm-up. `lr` is the base rate and t the step from 0; names and settings are those of
/// `torch.optim.lr_scheduler`.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Decay {
    /// It stays.
    #[default]
    Constant,
    /// Times `gamma` every `step_size` steps, `StepLR`.
    Step {
        /// Steps between two changes.
        step_size: u64,
        /// Factor of a change.
        gamma: f64,
    },
    /// Times `gamma` at each milestone, `MultiStepLR`.
    MultiStep {
        /// Steps at which it changes.
        milestones: Vec<u64>,
        /// Factor of a change.
        gamma: f64,
    },
    /// `lr gamma^t`, `ExponentialLR`.
    Exponential {
        /// Factor of a step.
        gamma: f64,
    },
    /// `lr factor` for the first steps, then `lr`: `ConstantLR`.
    Factor {
        /// Factor of the first steps.
        factor: f64,
        /// Their number.
        total_iters: u64,
    },
    /// From `lr start_factor` to `lr end_factor` in equal steps, `LinearLR`.
    Linear {
        /// Factor at the beginning.
        start_factor: f64,
        /// Factor from the end on.
        end_factor: f64,
        /// Steps between; `None`: all of them.
        total_iters: Option<u64>,
    },
    /// `lr (1 - t / total_iters)^power`, `PolynomialLR`.
    Polynomial {
        /// Steps to 0; `None`: all of them.
        total_iters: Option<u64>,
        /// 1 is a straight line.
        power: f64,
    },
    /// `eta_min + (lr - eta_min) (1 + cos(pi t / t_max)) / 2`: Loshchilov and Hutter 2016, arXiv:1608.03983, `CosineAnnealingLR`.
    Cosine {
        /// Steps to the minimum; `None`: all of them.
        t_max: Option<u64>,
        /// The smallest learning rate.
        eta_min: f64,
    },
    /// [`Decay::Cosine`] again and again, each time over `t_mult` as many steps: `CosineAnnealingWarmRestarts`.
    WarmRestarts {
        /// Steps of the first.
        t_0: u64,
        /// Factor of the steps of each further one, at least 1.
        t_mult: u64,
        /// The smallest learning rate.
        eta_min: f64,
    },
    /// Up from `lr / div_factor` to `lr` and down to `lr / (div_factor final_div_factor)`: Smith and Topin 2017, arXiv:1708.07120, `OneCycleLR`.
    /// `lr` is the largest rate.
    OneCycle {
        /// Share of the steps that go up; 0.3.
        pct_start: f64,
        /// The first rate is `lr / div_factor`; 25.
        div_factor: f64,
        /// The last rate is the first divided by this; 1e4.
        final_div_factor: f64,
        /// On straight lines, not on half cosines.
        linear: bool,
        /// Down to the first rate as fast as up, then to the last one.
        three_phase: bool,
        /// The smallest and the largest momentum, for [`Schedule::momentum`].
        momentum: [f64; 2],
    },
    /// Up and down between `lr` and `max_lr` (Smith 2015, arXiv:1506.01186), `CyclicLR`. `lr` is the smallest rate.
    Cyclic {
        /// The largest rate.
        max_lr: f64,
        /// Steps up.
        step_size_up: u64,
        /// Steps down.
        step_size_down: u64,
        /// How the height of a cycle changes.
        mode: Cycle,
        /// The smallest and the largest momentum, for [`Schedule::momentum`].
        momentum: [f64; 2],
    },
    /// `lr min((t + 1) / warmup_steps, sqrt(warmup_steps / (t + 1)))` (Vaswani et al. 2017).
    InverseSqrt {
        /// Steps up to `lr`.
        warmup_steps: u64,
    },
    /// One after the other, `SequentialLR`: the second begins at its own step 0.
    Chain {
        /// For the first `steps`.
        first: Box<Decay>,
        /// How many.
        steps: u64,
        /// After them.
        then: Box<Decay>,
    },
}

/// How the height of a cycle of [`Decay::Cyclic`] changes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cycle {
    /// It stays.
    Triangular,
    /// It halves with each cycle.
    Triangular2,
    /// Times `gamma^t`.
    ExpRange {
        /// Factor of a step.
        gamma: f64,
    },
}

/// The learning rate of each step: a linear warm-up from a tenth, then a [`Decay`] over the steps that remain.
#[derive(Debug, Clone, PartialEq, Default)]
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
            "one-cycle" => Decay::OneCycle {
                pct_start: 0.3,
                div_factor: 25.0,
                final_div_factor: 1e4,
                linear: false,
                three_phase: false,
                momentum: [0.85, 0.95],
            },
            "linear" => Decay::Linear { start_factor: 1.0, end_factor: 0.0, total_iters: None },
            "polynomial" => Decay::Polynomial { total_iters: None, power: 0.9 },
            _ => return Err(Error::Config(format!("unknown schedule '{name}'; use {}", Self::NAMES.join(", ")))),
        };
        Ok(decay.into())
    }
}

impl Schedule {
    /// The names that can be parsed.
    pub const NAMES: [&str; 6] = ["none", "step", "cosine", "one-cycle", "linear", "polynomial"];

    /// The learning rate of step number `step`, from 0, of `total_steps`.
    pub fn lr(&self, base_lr: f64, step: u64, total_steps: u64) -> f64 {
        if step < self.warmup_steps {
            return base_lr * (WARMUP_START + (1.0 - WARMUP_START) * step as f64 / self.warmup_steps as f64);
        }
        let (step, total_steps) = (step - self.warmup_steps, total_steps.saturating_sub(self.warmup_steps).max(1));
        self.decay.lr(base_lr, step, total_steps)
    }

    /// The momentum of step number `step`, where the schedule cycles it: low where the rate is high.
    pub fn momentum(&self, step: u64, total_steps: u64) -> Option<f64> {
        let (step, total_steps) = (step.checked_sub(self.warmup_steps)?, total_steps.saturating_sub(self.warmup_steps).max(1));
        match self.decay {
            Decay::OneCycle { pct_start, linear, three_phase, momentum: [low, high], .. } => {
                // A third phase keeps it high.
                let levels = [high, low, high, high];
                Some(one_cycle(step, total_steps, pct_start, linear, three_phase, &levels))
            }
            Decay::Cyclic { step_size_up, step_size_down, mode, momentum: [low, high], .. } => {
                Some(high - (high - low) * cycle_height(step, step_size_up, step_size_down, mode))
            }
            _ => None,
        }
    }
}

impl Decay {
    fn lr(&self, base_lr: f64, step: u64, total_steps: u64) -> f64 {
        let t = step as f64;
        match *self {
            Decay::Constant => base_lr,
            Decay::Step { step_size, gamma } => base_lr * gamma.powf((step / step_size.max(1)) as f64),
            Decay::MultiStep { ref milestones, gamma } => {
                base_lr * gamma.powf(milestones.iter().filter(|&&milestone| step >= milestone).count() as f64)
            }
            Decay::Exponential { gamma } => base_lr * gamma.powf(t),
            Decay::Factor { factor, total_iters } => {
                if step < total_iters {
                    base_lr * factor
                } else {
                    base_lr
                }
            }
            Decay::Linear { start_factor, end_factor, total_iters } => {
                let share = (t / total_iters.unwrap_or(total_steps).max(1) as f64).min(1.0);
                base_lr * (start_factor + (end_factor - start_factor) * share)
            }
            Decay::Polynomial { total_iters, power } => {
                base_lr * (1.0 - (t / total_iters.unwrap_or(total_steps).max(1) as f64).min(1.0)).powf(power)
            }
            Decay::Cosine { t_max, eta_min } => anneal(base_lr, eta_min, t / t_max.unwrap_or(total_steps).max(1) as f64, false),
            Decay::WarmRestarts { t_0, t_mult, eta_min } => {
                let (mut since, mut length) = (step, t_0.max(1));
                while since >= length {
                    since -= length;
                    length = length.saturating_mul(t_mult.max(1));
                }
                anneal(base_lr, eta_min, since as f64 / length as f64, false)
            }
            Decay::OneCycle { pct_start, div_factor, final_div_factor, linear, three_phase, .. } => {
                let (first, last) = (base_lr / div_factor, base_lr / div_factor / final_div_factor);
                let levels = if three_phase { [first, base_lr, first, last] } else { [first, base_lr, last, last] };
                one_cycle(step, total_steps, pct_start, linear, three_phase, &levels)
            }
            Decay::Cyclic { max_lr, step_size_up, step_size_down, mode, .. } => {
                base_lr + (max_lr - base_lr) * cycle_height(step, step_size_up, step_size_down, mode)
            }
            Decay::InverseSqrt { warmup_steps } => {
                let share = (t + 1.0) / warmup_steps.max(1) as f64;
                base_lr * share.min(1.0 / share.sqrt())
            }
            Decay::Chain { ref first, steps, ref then } => match step.checked_sub(steps) {
                Some(rest) => then.lr(base_lr, rest, total_steps.saturating_sub(steps).max(1)),
                None => first.lr(base_lr, step, steps),
            },
        }
    }
}

/// A level that goes through two or three phases, whose borders are `levels`.
fn one_cycle(step: u64, total_steps: u64, pct_start: f64, linear: bool, three_phase: bool, levels: &[f64; 4]) -> f64 {
    let (top, last) = (pct_start * total_steps as f64 - 1.0, total_steps as f64 - 1.0);
    let t = (step as f64).min(last);
    let ends: &[f64] = if three_phase { &[top, 2.0 * top, last] } else { &[top, last] };
    let mut begin = 0.0;
    for (phase, &end) in ends.iter().enumerate() {
        if t <= end && end > begin {
            return anneal(levels[phase], levels[phase + 1], (t - begin) / (end - begin), linear);
        }
        begin = end;
    }
    levels[ends.len()]
}

/// The height of step `step` in its cycle, from 0 to 1.
fn cycle_height(step: u64, up: u64, down: u64, mode: Cycle) -> f64 {
    let length = (up + down).max(1);
    let (cycle, place) = (step / length, (step % length) as f64);
    let height = if place <= up as f64 && up > 0 { place / up as f64 } else { (length as f64 - place) / down.max(1) as f64 };
    height
        * match mode {
            Cycle::Triangular => 1.0,
            Cycle::Triangular2 => 0.5_f64.powf(cycle as f64),
            Cycle::ExpRange { gamma } => gamma.powf(step as f64),
        }
}

/// Lowers the learning rate when a metric no longer improves: `ReduceLROnPlateau`. Unlike a [`Schedule`] it depends on what happens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plateau {
    /// A larger metric is better.
    pub max: bool,
    /// Factor of the learning rate.
    pub factor: f64,
    /// Reports without improvement that are borne.
    pub patience: u64,
    /// What counts as an improvement.
    pub threshold: f64,
    /// The threshold is a difference, not a share of the best metric.
    pub absolute: bool,
    /// Reports after a change that count nothing.
    pub cooldown: u64,
    /// The smallest learning rate.
    pub min_lr: f64,
    /// Smaller changes are not made.
    pub eps: f64,
    /// The learning rate now.
    pub lr: f64,
    /// The best metric so far.
    pub best: Option<f64>,
    /// Reports since then.
    pub bad: u64,
    /// Reports that still count nothing.
    pub cooling: u64,
}

impl Plateau {
    /// From `lr` on with PyTorch's defaults, for a metric that should fall.
    pub fn new(lr: f64) -> Self {
        Plateau {
            max: false,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            absolute: false,
            cooldown: 0,
            min_lr: 0.0,
            eps: 1e-8,
            lr,
            best: None,
            bad: 0,
            cooling: 0,
        }
    }

    /// Takes the metric of a step or epoch, and returns the learning rate of the next.
    pub fn report(&mut self, metric: f64) -> f64 {
        let improved = self.best.is_none_or(|best| match (self.max, self.absolute) {
            (false, false) => metric < best * (1.0 - self.threshold),
            (false, true) => metric < best - self.threshold,
            (true, false) => metric > best * (1.0 + self.threshold),
            (true, true) => metric > best + self.threshold,
        });
        if improved {
            self.best = Some(metric);
            self.bad = 0;
        } else {
            self.bad += 1;
        }
        if self.cooling > 0 {
            self.cooling -= 1;
            self.bad = 0;
        }
        if self.bad > self.patience {
            let lr = (self.lr * self.factor).max(self.min_lr);
            if self.lr - lr > self.eps {
                self.lr = lr;
            }
            (self.cooling, self.bad) = (self.cooldown, 0);
        }
        self.lr
    }
}

/// From `start` at 0 to `end` at 1, on a line or on half a cosine.
fn anneal(start: f64, end: f64, share: f64, linear: bool) -> f64 {
    if linear { start + (end - start) * share } else { end + (start - end) * (1.0 + (PI * share).cos()) / 2.0 }
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
        close(rates(one_cycle.clone(), 0.2, &[0, 17, 38, 59, 99], 60), &[0.008, 0.2, 0.1 + 4e-7, 8e-7, 8e-7]);
        assert_eq!([0, 17, 59].map(|step| one_cycle.momentum(step, 60)), [Some(0.95), Some(0.85), Some(0.95)]);
        close(rates(Decay::WarmRestarts { t_0: 2, t_mult: 2, eta_min: 0.0 }.into(), 1.0, &[0, 1, 2, 4, 6], 60), &[1.0, 0.5, 1.0, 0.5, 1.0]);
        let up = Decay::Linear { start_factor: 0.5, end_factor: 1.0, total_iters: Some(4) };
        let chain = Decay::Chain { first: Box::new(up), steps: 4, then: Box::new(Decay::Exponential { gamma: 0.5 }) };
        close(rates(chain.into(), 1.0, &[0, 2, 4, 5], 60), &[0.5, 0.75, 1.0, 0.5]);
    }

    #[test]
    fn a_plateau_lowers_the_rate_after_its_patience() {
        let mut plateau = Plateau { patience: 1, factor: 0.5, cooldown: 1, ..Plateau::new(1.0) };
        let rates: Vec<f64> = [3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0].map(|metric| plateau.report(metric)).to_vec();
        assert_eq!(rates, [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25]);
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
        assert!("linnear".parse::<Schedule>().unwrap_err().to_string().contains("one-cycle"));
    }
}
