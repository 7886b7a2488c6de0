//! Update rules that are compositions of tensor operations, on whole arenas where a rule looks at one element at a time, and on the
//! parameters themselves where it needs their norms or shapes. Nothing is read back.
//!
//! In the formulas w is a weight, g its gradient, t the step from 1; states begin at 0.

use crate::autodiff::no_grad;
use crate::error::{Error, Result};
use crate::op::{Comparison, Layout, Op, Unary};
use crate::tensor::Tensor;

/// A rule with its settings, by PyTorch's names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Adam whose second moment never falls (Reddi et al. 2018): `torch.optim.Adam(amsgrad=True)`, with `decoupled` AdamW.
    AmsGrad {
        /// Decay of the two moments.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        eps: f64,
        /// Weight decay apart from the gradient.
        decoupled: bool,
    },
    /// Hinton 2012: `v = alpha v + (1 - alpha) g^2`, `w -= lr g / (sqrt(v) + eps)`; `centered` subtracts the squared mean of g from v, and
    /// with `momentum` the quotients are gathered in `b = momentum b + g / ..`.
    RmsProp {
        /// Decay of the mean square.
        alpha: f64,
        /// Added to the root.
        eps: f64,
        /// Share of the last update; 0 keeps no buffer.
        momentum: f64,
        /// Divides by the standard deviation, not by the root mean square.
        centered: bool,
    },
    /// Duchi et al. 2011: `v += g^2`, `w -= lr / (1 + (t - 1) lr_decay) g / (sqrt(v) + eps)`.
    Adagrad {
        /// Decay of the learning rate.
        lr_decay: f64,
        /// Added to the root.
        eps: f64,
        /// What the sum of squares begins with.
        initial_accumulator_value: f64,
    },
    /// Zeiler 2012, arXiv:1212.5701: `v = rho v + (1 - rho) g^2`, `d = sqrt(u + eps) / sqrt(v + eps) g`, `u = rho u + (1 - rho) d^2`, `w -= lr d`.
    Adadelta {
        /// Decay of both means.
        rho: f64,
        /// Added below both roots.
        eps: f64,
    },
    /// Kingma and Ba 2014, section 7.1: Adam with `u = max(b2 u, |g| + eps)` for the root of the second moment.
    Adamax {
        /// Decay of the moment and of the largest value.
        betas: [f64; 2],
        /// Added to `|g|`.
        eps: f64,
    },
    /// Dozat 2016: Adam with Nesterov's momentum, whose share grows with the steps.
    NAdam {
        /// Decay of the two moments.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        eps: f64,
        /// How fast the momentum's share grows.
        momentum_decay: f64,
    },
    /// Liu et al. 2019, arXiv:1908.03265: Adam without its second moment while that is known badly.
    RAdam {
        /// Decay of the two moments.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        eps: f64,
    },
    /// Chen et al. 2023, arXiv:2302.06675: `w -= lr (sign(b1 m + (1 - b1) g) + weight_decay w)`, `m = b2 m + (1 - b2) g`.
    Lion {
        /// Shares of the moment in the sign and in itself.
        betas: [f64; 2],
    },
    /// You et al. 2020, arXiv:1904.00962: Adam's update u with decoupled decay, each tensor's times `|w| / |u|`.
    Lamb {
        /// Decay of the two moments.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        eps: f64,
    },
    /// You et al. 2017, arXiv:1708.03888: momentum with each tensor's rate times `trust_coefficient |w| / (|g| + weight_decay |w|)`.
    Lars {
        /// Share of the last update.
        momentum: f64,
        /// Share of the weights' norm in a step.
        trust_coefficient: f64,
    },
    /// Jordan et al. 2024, `torch.optim.Muon`: momentum whose matrix is made orthogonal by Newton-Schulz steps, in full precision. Matrices only.
    Muon {
        /// Share of the last momentum.
        momentum: f64,
        /// Looks ahead by the momentum.
        nesterov: bool,
        /// Coefficients of a Newton-Schulz step: of X, of A X and of A A X with `A = X X^T`.
        ns_coefficients: [f64; 3],
        /// Newton-Schulz steps.
        ns_steps: usize,
        /// The least norm that is divided by.
        eps: f64,
        /// Scales by `0.2 sqrt(max(rows, columns))` instead of `sqrt(max(1, rows / columns))`.
        match_rms_adamw: bool,
    },
}

/// Copies `value` into `target`, in place.
fn assign(target: &Tensor, value: &Tensor) -> Result<()> {
    let copy = Op::Layout(Layout::Expand { shape: *target.shape() });
    target.device().run(&copy, &[value.operand().clone()], &[target.operand().clone()])
}

/// `a share + b (1 - share)`.
fn mix(a: &Tensor, share: f64, b: &Tensor) -> Result<Tensor> {
    a.affine(share, 0.0)?.add(&b.affine(1.0 - share, 0.0)?)
}

fn norm(x: &Tensor) -> Result<Tensor> {
    x.norm(2.0, None, false)
}

/// `a / b`, and 1 where one of them is 0.
fn ratio_or_one(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (zero, one) = (Tensor::full(a.device(), &[], a.dtype(), 0.0)?, Tensor::full(a.device(), &[], a.dtype(), 1.0)?);
    let safe = one.where_(&b.compare(Comparison::Eq, &zero)?, b)?;
    let ratio = one.where_(&b.compare(Comparison::Eq, &zero)?, &a.div(&safe)?)?;
    one.where_(&a.compare(Comparison::Eq, &zero)?, &ratio)
}

impl Rule {
    /// The states that it keeps, by PyTorch's names.
    pub(super) fn state_names(&self) -> &'static [&'static str] {
        match self {
            Rule::AmsGrad { .. } => &["exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
            Rule::RmsProp { momentum, centered, .. } => match (*momentum > 0.0, *centered) {
                (false, false) => &["square_avg"],
                (true, false) => &["square_avg", "momentum_buffer"],
                (false, true) => &["square_avg", "grad_avg"],
                (true, true) => &["square_avg", "momentum_buffer", "grad_avg"],
            },
            Rule::Adagrad { .. } => &["sum"],
            Rule::Adadelta { .. } => &["square_avg", "acc_delta"],
            Rule::Adamax { .. } => &["exp_avg", "exp_inf"],
            Rule::NAdam { .. } | Rule::RAdam { .. } | Rule::Lamb { .. } => &["exp_avg", "exp_avg_sq"],
            Rule::Lion { .. } => &["exp_avg"],
            Rule::Lars { .. } | Rule::Muon { .. } => &["momentum_buffer"],
        }
    }

    /// Whether a step looks at each parameter as a whole.
    pub(super) fn per_tensor(&self) -> bool {
        matches!(self, Rule::Lamb { .. } | Rule::Lars { .. } | Rule::Muon { .. })
    }

    /// Settings out of range, or a parameter that the rule does not fit.
    pub(super) fn check(&self) -> Result<()> {
        let within = |name: &str, value: f64, low: f64, high: f64| {
            if value >= low && value < high {
                Ok(())
            } else {
                Err(Error::Config(format!("optimizer: {name} = {value} must lie in [{low}, {high})")))
            }
        };
        // 0 / (0 + eps) must be 0: the arenas' padding has no gradient.
        let positive = |eps: f64| {
            if eps > 0.0 && eps.is_finite() { Ok(()) } else { Err(Error::Config(format!("optimizer: eps = {eps} must be above 0"))) }
        };
        match *self {
            Rule::AmsGrad { betas, eps, .. }
            | Rule::Adamax { betas, eps }
            | Rule::NAdam { betas, eps, .. }
            | Rule::RAdam { betas, eps }
            | Rule::Lamb { betas, eps } => {
                positive(eps)?;
                betas.iter().try_for_each(|&b| within("betas", b, 0.0, 1.0))
            }
            Rule::Lion { betas } => betas.iter().try_for_each(|&b| within("betas", b, 0.0, 1.0)),
            Rule::RmsProp { alpha, eps, momentum, .. } => {
                positive(eps)?;
                within("alpha", alpha, 0.0, 1.0)?;
                within("momentum", momentum, 0.0, f64::INFINITY)
            }
            Rule::Adagrad { lr_decay, eps, initial_accumulator_value } => {
                positive(eps)?;
                within("lr_decay", lr_decay, 0.0, f64::INFINITY)?;
                within("initial_accumulator_value", initial_accumulator_value, 0.0, f64::INFINITY)
            }
            Rule::Adadelta { rho, eps } => {
                positive(eps)?;
                within("rho", rho, 0.0, 1.0)
            }
            Rule::Lars { momentum, trust_coefficient } => {
                within("momentum", momentum, 0.0, f64::INFINITY)?;
                within("trust_coefficient", trust_coefficient, 0.0, f64::INFINITY)
            }
            Rule::Muon { momentum, eps, .. } => {
                positive(eps)?;
                within("momentum", momentum, 0.0, 1.0)
            }
        }
    }

    /// Updates `w` and the states from the gradient `g`, in place.
    pub(super) fn step(&self, lr: f64, weight_decay: f64, t: u64, w: &Tensor, g: &Tensor, state: &[&Tensor]) -> Result<()> {
        let _guard = no_grad();
        let n = t as f64;
        // The penalty joins the gradient, but for the rules that shrink the weights themselves.
        let own_decay = match self {
            Rule::AmsGrad { decoupled, .. } => *decoupled,
            Rule::Lion { .. } | Rule::Lamb { .. } | Rule::Lars { .. } | Rule::Muon { .. } => true,
            _ => false,
        };
        let g = if weight_decay != 0.0 && !own_decay { g.add(&w.affine(weight_decay, 0.0)?)? } else { g.clone() };
        let square = || g.unary(Unary::Square);
        let root = |x: &Tensor, eps: f64| x.unary(Unary::Sqrt)?.affine(1.0, eps);
        // Both moments of Adam, and 1 less their decay so far.
        let moments = |betas: [f64; 2]| -> Result<(Tensor, Tensor, [f64; 2])> {
            let (m, v) = (mix(state[0], betas[0], &g)?, mix(state[1], betas[1], &square()?)?);
            assign(state[0], &m)?;
            assign(state[1], &v)?;
            Ok((m, v, betas.map(|b| 1.0 - b.powf(n))))
        };
        let next = match *self {
            Rule::AmsGrad { betas, eps, decoupled } => {
                let (m, v, [c1, c2]) = moments(betas)?;
                let largest = state[2].maximum(&v)?;
                assign(state[2], &largest)?;
                let w = if decoupled { w.affine(1.0 - lr * weight_decay, 0.0)? } else { w.clone() };
                w.sub(&m.affine(lr / c1, 0.0)?.div(&root(&largest.affine(1.0 / c2, 0.0)?, eps)?)?)?
            }
            Rule::RmsProp { alpha, eps, momentum, centered } => {
                let v = mix(state[0], alpha, &square()?)?;
                assign(state[0], &v)?;
                let spread = if centered {
                    let mean = mix(state[state.len() - 1], alpha, &g)?;
                    assign(state[state.len() - 1], &mean)?;
                    v.sub(&mean.unary(Unary::Square)?)?
                } else {
                    v
                };
                let mut update = g.div(&root(&spread, eps)?)?;
                if momentum > 0.0 {
                    update = state[1].affine(momentum, 0.0)?.add(&update)?;
                    assign(state[1], &update)?;
                }
                w.sub(&update.affine(lr, 0.0)?)?
            }
            Rule::Adagrad { lr_decay, eps, initial_accumulator_value } => {
                let before = if t == 1 { state[0].affine(0.0, initial_accumulator_value)? } else { state[0].clone() };
                let sum = before.add(&square()?)?;
                assign(state[0], &sum)?;
                w.sub(&g.affine(lr / (1.0 + (n - 1.0) * lr_decay), 0.0)?.div(&root(&sum, eps)?)?)?
            }
            Rule::Adadelta { rho, eps } => {
                let v = mix(state[0], rho, &square()?)?;
                assign(state[0], &v)?;
                let below = |x: &Tensor| x.affine(1.0, eps)?.unary(Unary::Sqrt);
                let delta = below(state[1])?.div(&below(&v)?)?.mul(&g)?;
                assign(state[1], &mix(state[1], rho, &delta.unary(Unary::Square)?)?)?;
                w.sub(&delta.affine(lr, 0.0)?)?
            }
            Rule::Adamax { betas, eps } => {
                let m = mix(state[0], betas[0], &g)?;
                let u = state[1].affine(betas[1], 0.0)?.maximum(&g.unary(Unary::Abs)?.affine(1.0, eps)?)?;
                assign(state[0], &m)?;
                assign(state[1], &u)?;
                w.sub(&m.affine(lr / (1.0 - betas[0].powf(n)), 0.0)?.div(&u)?)?
            }
            Rule::NAdam { betas, eps, momentum_decay } => {
                let (m, v, [_, c2]) = moments(betas)?;
                let share = |t: f64| betas[0] * (1.0 - 0.5 * 0.96_f64.powf(t * momentum_decay));
                // The product of all shares so far; below 1e-30 it is nothing beside 1.
                let mut product = 1.0;
                for i in 1..=t {
                    product *= share(i as f64);
                    if product < 1e-30 {
                        break;
                    }
                }
                let denominator = root(&v.affine(1.0 / c2, 0.0)?, eps)?;
                let of_g = g.affine(lr * (1.0 - share(n)) / (1.0 - product), 0.0)?;
                let of_m = m.affine(lr * share(n + 1.0) / (1.0 - product * share(n + 1.0)), 0.0)?;
                w.sub(&of_g.add(&of_m)?.div(&denominator)?)?
            }
            Rule::RAdam { betas, eps } => {
                let (m, v, [c1, c2]) = moments(betas)?;
                let longest = 2.0 / (1.0 - betas[1]) - 1.0;
                let length = longest - 2.0 * n * betas[1].powf(n) / c2;
                let update = m.affine(lr / c1, 0.0)?;
                if length > 5.0 {
                    let known = (length - 4.0) * (length - 2.0) * longest;
                    let rectified = (known / ((longest - 4.0) * (longest - 2.0) * length)).sqrt();
                    w.sub(&update.affine(rectified * c2.sqrt(), 0.0)?.div(&root(&v, eps)?)?)?
                } else {
                    w.sub(&update)?
                }
            }
            Rule::Lion { betas } => {
                let sign = mix(state[0], betas[0], &g)?.unary(Unary::Sign)?;
                assign(state[0], &mix(state[0], betas[1], &g)?)?;
                w.affine(1.0 - lr * weight_decay, 0.0)?.sub(&sign.affine(lr, 0.0)?)?
            }
            Rule::Lamb { betas, eps } => {
                let (m, v, [c1, c2]) = moments(betas)?;
                let adam = m.affine(1.0 / c1, 0.0)?.div(&root(&v.affine(1.0 / c2, 0.0)?, eps)?)?;
                let update = adam.add(&w.affine(weight_decay, 0.0)?)?;
                w.sub(&update.mul(&ratio_or_one(&norm(w)?, &norm(&update)?)?.affine(lr, 0.0)?)?)?
            }
            Rule::Lars { momentum, trust_coefficient } => {
                let (of_w, of_g) = (norm(w)?, norm(&g)?);
                let local = ratio_or_one(&of_w.affine(trust_coefficient, 0.0)?, &of_g.add(&of_w.affine(weight_decay, 0.0)?)?)?;
                // Without a gradient the rate is not scaled.
                let (zero, one) = (Tensor::full(w.device(), &[], w.dtype(), 0.0)?, Tensor::full(w.device(), &[], w.dtype(), 1.0)?);
                let local = one.where_(&of_g.compare(Comparison::Eq, &zero)?, &local)?;
                let update = g.add(&w.affine(weight_decay, 0.0)?)?.mul(&local.affine(lr, 0.0)?)?;
                let velocity = state[0].affine(momentum, 0.0)?.add(&update)?;
                assign(state[0], &velocity)?;
                w.sub(&velocity)?
            }
            Rule::Muon { momentum, nesterov, ns_coefficients: [a, b, c], ns_steps, eps, match_rms_adamw } => {
                let &[rows, columns] = &w.shape()[..] else {
                    return Err(Error::Config(format!("optimizer: muon updates matrices, not parameters of shape {}", w.shape())));
                };
                let velocity = mix(state[0], momentum, &g)?;
                assign(state[0], &velocity)?;
                let update = if nesterov { mix(&velocity, momentum, &g)? } else { velocity };
                let tall = rows > columns;
                let mut x = if tall { update.permute(&[1, 0])? } else { update };
                x = x.div(&norm(&x)?.clamp(Some(eps), None)?)?;
                for _ in 0..ns_steps {
                    let gram = x.matmul_with(&x, false, true)?;
                    let polynomial = gram.affine(b, 0.0)?.add(&gram.matmul(&gram)?.affine(c, 0.0)?)?;
                    x = x.affine(a, 0.0)?.add(&polynomial.matmul(&x)?)?;
                }
                let x = if tall { x.permute(&[1, 0])? } else { x };
                let (rows, columns) = (rows as f64, columns as f64);
                let scale = if match_rms_adamw { 0.2 * rows.max(columns).sqrt() } else { (rows / columns).max(1.0).sqrt() };
                w.affine(1.0 - lr * weight_decay, 0.0)?.sub(&x.affine(lr * scale, 0.0)?)?
            }
        };
        assign(w, &next)
    }
}

/// Moving averages of weights (Polyak and Juditsky 1992): `p = d p + (1 - d) w` after each step, `d` being `decay`, or with `warmup`
/// `min(decay, (1 + t) / (10 + t))`.
pub struct Ema {
    decay: f64,
    warmup: bool,
    steps: u64,
    averages: Vec<Tensor>,
}

impl Ema {
    /// Begins with copies of `weights`.
    ///
    /// # Errors
    /// [`Error::Config`] unless `decay` lies in `[0, 1]`; out of memory.
    pub fn new(decay: f64, warmup: bool, weights: &[Tensor]) -> Result<Self> {
        if !(0.0..=1.0).contains(&decay) {
            return Err(Error::Config(format!("ema: decay = {decay} must lie in [0, 1]")));
        }
        let _guard = no_grad();
        let averages = weights.iter().map(|w| w.affine(1.0, 0.0)).collect::<Result<_>>()?;
        Ok(Ema { decay, warmup, steps: 0, averages })
    }

    /// Goes on with `averages` after `steps` steps, in their own memory.
    ///
    /// # Errors
    /// [`Error::Config`] unless `decay` lies in `[0, 1]`.
    pub fn resume(decay: f64, warmup: bool, averages: Vec<Tensor>, steps: u64) -> Result<Self> {
        Ok(Ema { averages, steps, ..Ema::new(decay, warmup, &[])? })
    }

    /// Takes in the weights after a step.
    ///
    /// # Errors
    /// [`Error::Shape`] when there are others than at the beginning.
    pub fn update(&mut self, weights: &[Tensor]) -> Result<()> {
        if weights.len() != self.averages.len() {
            return Err(Error::Shape(format!("ema: {} weights, begun with {}", weights.len(), self.averages.len())));
        }
        let _guard = no_grad();
        self.steps += 1;
        let t = self.steps as f64;
        let decay = if self.warmup { self.decay.min((1.0 + t) / (10.0 + t)) } else { self.decay };
        self.averages.iter().zip(weights).try_for_each(|(average, w)| assign(average, &mix(average, decay, w)?))
    }

    /// The averages, in the order of the weights.
    pub fn averages(&self) -> &[Tensor] {
        &self.averages
    }
}
