//! Losses, with PyTorch's names, arguments and conventions. Targets and weights receive no gradient.
//!
//! Cross-entropy of logits with class indices is an operation of its own, [`Tensor::cross_entropy`].

use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Comparison, Unary};
use crate::shape::Shape;
use crate::tensor::Tensor;
use crate::tensor::ops::Reduction;

/// The mean, the sum, or the losses themselves.
fn reduced(losses: &Tensor, reduction: Reduction) -> Result<Tensor> {
    match reduction {
        Reduction::None => Ok(losses.clone()),
        Reduction::Sum => losses.sum(None, false),
        Reduction::Mean => losses.mean(None, false),
    }
}

fn scalar(like: &Tensor, value: f64) -> Result<Tensor> {
    Tensor::full(like.device(), &[], like.dtype(), value)
}

/// The target off the tape, if it has the input's shape.
fn fitting(name: &str, input: &Tensor, target: &Tensor) -> Result<Tensor> {
    if input.shape() != target.shape() {
        return Err(Error::Shape(format!("{name}: input is {}, but target is {}; they must be equal", input.shape(), target.shape())));
    }
    Ok(target.detach())
}

/// Weights off the tape, if they broadcast to the input.
fn weighted(name: &str, losses: &Tensor, weight: Option<&Tensor>) -> Result<Tensor> {
    let Some(weight) = weight else { return Ok(losses.clone()) };
    if Shape::broadcast(losses.shape(), weight.shape(), name)? != *losses.shape() {
        return Err(Error::Shape(format!("{name}: weight {} does not broadcast to {}", weight.shape(), losses.shape())));
    }
    losses.mul(&weight.detach())
}

/// `(input - target)^2`.
///
/// # Errors
/// [`Error::Shape`] unless both have one shape.
pub fn mse(input: &Tensor, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
    reduced(&input.sub(&fitting("mse_loss", input, target)?)?.unary(Unary::Square)?, reduction)
}

/// `|input - target|`.
///
/// # Errors
/// [`Error::Shape`] unless both have one shape.
pub fn l1(input: &Tensor, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
    reduced(&input.sub(&fitting("l1_loss", input, target)?)?.unary(Unary::Abs)?, reduction)
}

/// With `d = |input - target|`: `d^2 / 2` below `delta`, else `delta (d - delta / 2)` (Huber 1964).
///
/// # Errors
/// [`Error::Shape`] unless both have one shape; [`Error::Config`] unless `delta` is above 0.
pub fn huber(input: &Tensor, target: &Tensor, delta: f64, reduction: Reduction) -> Result<Tensor> {
    if !(delta > 0.0) {
        return Err(Error::Config(format!("huber_loss: delta = {delta} must be above 0")));
    }
    let d = input.sub(&fitting("huber_loss", input, target)?)?.unary(Unary::Abs)?;
    // c (d - c / 2) with c = min(d, delta) is both branches.
    let c = d.clamp(None, Some(delta))?;
    reduced(&c.mul(&d.sub(&c.affine(0.5, 0.0)?)?)?, reduction)
}

/// [`huber`] divided by its bend: `d^2 / (2 beta)` below `beta`, else `d - beta / 2` (Girshick 2015); with `beta` 0 it is [`l1`].
///
/// # Errors
/// As [`huber`].
pub fn smooth_l1(input: &Tensor, target: &Tensor, beta: f64, reduction: Reduction) -> Result<Tensor> {
    if beta == 0.0 { l1(input, target, reduction) } else { huber(input, target, beta, reduction)?.affine(1.0 / beta, 0.0) }
}

/// Negative log-likelihood: `-weight[t] input[t]` of log-probabilities `[N, C, ..]` and class indices `[N, ..]` (i32). Targets equal to `ignore_index`,
/// or outside the classes, count nothing; the mean divides by the sum of the weights of the others.
///
/// # Errors
/// [`Error::Shape`] or [`Error::DType`] when the operands do not fit.
pub fn nll(input: &Tensor, target: &Tensor, weight: Option<&Tensor>, ignore_index: i64, reduction: Reduction) -> Result<Tensor> {
    let (weights, rows) = class_weights("nll_loss", input, target, weight, ignore_index)?;
    let mut index = target.shape().to_vec();
    index.insert(1, 1);
    let losses = input.gather(1, &target.reshape(&index)?)?.reshape(&rows)?.mul(&weights.affine(-1.0, 0.0)?)?;
    match reduction {
        Reduction::Mean => losses.sum(None, false)?.div(&weights.sum(None, false)?),
        other => reduced(&losses, other),
    }
}

/// For class indices `[N, ..]` the weight of each target, 0 where it counts nothing; and the sizes of the target.
fn class_weights(name: &str, input: &Tensor, target: &Tensor, weight: Option<&Tensor>, ignore_index: i64) -> Result<(Tensor, Vec<usize>)> {
    let (shape, rows) = (input.shape().to_vec(), target.shape().to_vec());
    if shape.len() < 2 || [&shape[..1], &shape[2..]].concat() != rows || target.dtype() != DType::I32 {
        return Err(Error::Shape(format!("{name}: input [N, C, ..] is {}, target i32 [N, ..] is {}", input.spec(), target.spec())));
    }
    let classes = match weight {
        Some(w) if w.shape()[..] == [shape[1]] => w.detach(),
        Some(w) => return Err(Error::Shape(format!("{name}: weight {} must be [{}], one value a class", w.shape(), shape[1]))),
        None => Tensor::full(input.device(), &[shape[1]], input.dtype(), 1.0)?,
    };
    // An index outside selects 0.
    let weights = classes.index_select(0, &target.reshape(&[target.shape().len()])?)?.reshape(&rows)?;
    let Ok(ignored) = i32::try_from(ignore_index) else { return Ok((weights, rows)) };
    let counts = target.compare(Comparison::Ne, &Tensor::from_slice(input.device(), &[], &[ignored])?)?;
    Ok((weights.where_(&counts, &scalar(input, 0.0)?)?, rows))
}

/// Cross-entropy of logits `[N, C, ..]` with target probabilities of the same shape: `-sum_c weight_c t_c log_softmax(x)_c`, the targets mixed with
/// `label_smoothing` of `1 / C`. The mean divides by the number of losses.
///
/// # Errors
/// [`Error::Shape`] when the operands do not fit.
pub fn soft_cross_entropy(
    input: &Tensor,
    target: &Tensor,
    weight: Option<&Tensor>,
    label_smoothing: f64,
    reduction: Reduction,
) -> Result<Tensor> {
    let target = fitting("cross_entropy", input, target)?;
    let classes = input.shape().get(1).copied().unwrap_or(0);
    let mut terms = input.log_softmax(1)?.mul(&target.affine(1.0 - label_smoothing, label_smoothing / classes.max(1) as f64)?)?;
    if let Some(weight) = weight {
        let mut dims = vec![1; input.shape().rank() - 1];
        dims[0] = classes;
        terms = weighted("cross_entropy", &terms, Some(&weight.reshape(&dims)?))?;
    }
    reduced(&terms.sum(Some(&[1]), false)?.affine(-1.0, 0.0)?, reduction)
}

/// `-weight (t log x + (1 - t) log(1 - x))` of probabilities, the logarithms not below -100 as in PyTorch.
///
/// # Errors
/// [`Error::Shape`] when the operands do not fit.
pub fn binary_cross_entropy(input: &Tensor, target: &Tensor, weight: Option<&Tensor>, reduction: Reduction) -> Result<Tensor> {
    let target = fitting("binary_cross_entropy", input, target)?;
    let log = |x: &Tensor| -> Result<Tensor> {
        // The slope of the logarithm at 0 is infinite: the constant takes its place there.
        let tiny = x.compare(Comparison::Lt, &scalar(x, f64::from(f32::MIN_POSITIVE))?)?;
        let safe = scalar(x, 1.0)?.where_(&tiny, x)?.unary(Unary::Log)?;
        scalar(x, -100.0)?.where_(&tiny, &safe)
    };
    let (yes, no) = (target.mul(&log(input)?)?, target.affine(-1.0, 1.0)?.mul(&log(&input.affine(-1.0, 1.0)?)?)?);
    reduced(&weighted("binary_cross_entropy", &yes.add(&no)?.affine(-1.0, 0.0)?, weight)?, reduction)
}

/// [`binary_cross_entropy`] of `sigmoid(input)`, computed without leaving the logarithms: `(1 - t) x + (1 + (pos_weight - 1) t) softplus(-x)`.
///
/// # Errors
/// [`Error::Shape`] when the operands do not fit.
pub fn binary_cross_entropy_with_logits(
    input: &Tensor,
    target: &Tensor,
    weight: Option<&Tensor>,
    pos_weight: Option<&Tensor>,
    reduction: Reduction,
) -> Result<Tensor> {
    const NAME: &str = "binary_cross_entropy_with_logits";
    let target = fitting(NAME, input, target)?;
    let mut softplus = input.unary(Unary::LogSigmoid)?.affine(-1.0, 0.0)?;
    if let Some(pos_weight) = pos_weight {
        let factor = weighted(NAME, &target, Some(&pos_weight.detach().affine(1.0, -1.0)?))?.affine(1.0, 1.0)?;
        softplus = softplus.mul(&factor)?;
    }
    let losses = target.affine(-1.0, 1.0)?.mul(input)?.add(&softplus)?;
    reduced(&weighted(NAME, &losses, weight)?, reduction)
}

/// Focal loss of binary logits (Lin et al. 2017): [`binary_cross_entropy_with_logits`] times `alpha_t (1 - p_t)^gamma`, with `p_t` the probability of
/// the target, `alpha_t` `alpha` for target 1 and `1 - alpha` for 0 (a negative `alpha`: 1 for both).
///
/// # Errors
/// [`Error::Shape`] when the operands do not fit.
pub fn sigmoid_focal(input: &Tensor, target: &Tensor, alpha: f64, gamma: f64, reduction: Reduction) -> Result<Tensor> {
    let target = fitting("sigmoid_focal_loss", input, target)?;
    let p = input.sigmoid()?;
    // 1 - p_t = p + t - 2 p t.
    let miss = p.add(&target)?.sub(&p.mul(&target)?.affine(2.0, 0.0)?)?;
    let mut losses = binary_cross_entropy_with_logits(input, &target, None, None, Reduction::None)?.mul(&miss.powf(gamma)?)?;
    if alpha >= 0.0 {
        losses = losses.mul(&target.affine(2.0 * alpha - 1.0, 1.0 - alpha)?)?;
    }
    reduced(&losses, reduction)
}

/// What [`kl_div`] divides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KlReduction {
    /// As for other losses; the mean divides by the number of elements.
    Elements(Reduction),
    /// The sum divided by the first dimension: the divergence itself.
    BatchMean,
}

/// Kullback-Leibler divergence, `t (log t - input)` with log-probabilities `input`; `log_target`: the target is given as log-probabilities too.
///
/// # Errors
/// [`Error::Shape`] unless both have one shape.
pub fn kl_div(input: &Tensor, target: &Tensor, log_target: bool, reduction: KlReduction) -> Result<Tensor> {
    let target = fitting("kl_div", input, target)?;
    let losses = if log_target {
        target.exp()?.mul(&target.sub(input)?)?
    } else {
        // t log t is 0 at 0.
        let zero = scalar(input, 0.0)?;
        let some = target.compare(Comparison::Gt, &zero)?;
        let entropy = target.mul(&target.where_(&some, &scalar(input, 1.0)?)?.unary(Unary::Log)?)?;
        entropy.sub(&target.mul(input)?)?
    };
    match reduction {
        KlReduction::Elements(reduction) => reduced(&losses, reduction),
        KlReduction::BatchMean => losses.sum(None, false)?.affine(1.0 / input.shape().first().copied().unwrap_or(1).max(1) as f64, 0.0),
    }
}

/// `input` for target 1, `max(0, margin - input)` for target -1.
///
/// # Errors
/// [`Error::Shape`] unless both have one shape.
pub fn hinge_embedding(input: &Tensor, target: &Tensor, margin: f64, reduction: Reduction) -> Result<Tensor> {
    let target = fitting("hinge_embedding_loss", input, target)?;
    let positive = target.compare(Comparison::Gt, &scalar(input, 0.0)?)?;
    reduced(&input.where_(&positive, &input.affine(-1.0, margin)?.relu()?)?, reduction)
}

/// `log(1 + e^(-target input))` for targets 1 and -1.
///
/// # Errors
/// [`Error::Shape`] unless both have one shape.
pub fn soft_margin(input: &Tensor, target: &Tensor, reduction: Reduction) -> Result<Tensor> {
    let target = fitting("soft_margin_loss", input, target)?;
    reduced(&input.mul(&target)?.unary(Unary::LogSigmoid)?.affine(-1.0, 0.0)?, reduction)
}

/// What a generator and its critic (the discriminator) play for; logits of any shape, high for real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adversarial {
    /// Goodfellow et al. 2014, arXiv:1406.2661: the critic minimises `-log s(real) - log(1 - s(drawn))`, the generator `-log s(drawn)`, which has a slope
    /// where `log(1 - s(drawn))` is flat.
    NonSaturating,
    /// Lim and Ye 2017, arXiv:1705.02894: the critic minimises `max(0, 1 - real) + max(0, 1 + drawn)`, the generator `-drawn`.
    Hinge,
    /// Arjovsky et al. 2017, arXiv:1701.07875: the critic minimises `drawn - real`, the generator `-drawn`. The critic's weights must stay bounded, or it has
    /// no minimum.
    Wasserstein,
}

impl Adversarial {
    /// The critic's loss, the mean over the logits. `smoothing` is what the target of real ones lacks of 1 (Salimans et al. 2016, arXiv:1606.03498); only
    /// [`Adversarial::NonSaturating`] has targets.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn critic(self, real: &Tensor, drawn: &Tensor, smoothing: f64) -> Result<Tensor> {
        match self {
            Adversarial::NonSaturating => constant_target(real, 1.0 - smoothing)?.add(&constant_target(drawn, 0.0)?),
            Adversarial::Hinge => {
                real.affine(-1.0, 1.0)?.relu()?.mean(None, false)?.add(&drawn.affine(1.0, 1.0)?.relu()?.mean(None, false)?)
            }
            Adversarial::Wasserstein => drawn.mean(None, false)?.sub(&real.mean(None, false)?),
        }
    }

    /// The generator's loss, the mean over the critic's logits of what it drew.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn generator(self, drawn: &Tensor) -> Result<Tensor> {
        match self {
            Adversarial::NonSaturating => constant_target(drawn, 1.0),
            Adversarial::Hinge | Adversarial::Wasserstein => drawn.mean(None, false)?.affine(-1.0, 0.0),
        }
    }
}

/// The mean of `-t log s(x) - (1 - t) log(1 - s(x))`.
fn constant_target(logits: &Tensor, target: f64) -> Result<Tensor> {
    let target = Tensor::full(logits.device(), logits.shape(), logits.dtype(), target)?;
    binary_cross_entropy_with_logits(logits, &target, None, None, Reduction::Mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::autodiff::check_gradient;

    fn values(device: &Device, seed: f64) -> Tensor {
        Tensor::from_slice(device, &[2, 3], &(0..6).map(|i| (i as f64 * 1.3 + seed).sin()).collect::<Vec<f64>>()).unwrap()
    }

    /// Of each loss without reduction, with an upstream gradient other than 1.
    #[test]
    fn gradients_agree_with_finite_differences() {
        let device = Device::reference().unwrap();
        let (x, t) = (values(&device, 0.2), values(&device, 2.0));
        let unit = t.affine(0.4, 0.5).unwrap();
        let sign = t.unary(Unary::Sign).unwrap();
        let index = Tensor::from_slice(&device, &[2], &[2i32, 0]).unwrap();
        let weight = Tensor::from_slice(&device, &[3], &[0.5, 2.0, 1.5]).unwrap();
        let none = Reduction::None;
        let losses: Vec<(&str, Box<dyn Fn(&Tensor) -> Result<Tensor>>)> = vec![
            ("mse", Box::new(|x| mse(x, &t, none))),
            ("l1", Box::new(|x| l1(x, &t, none))),
            ("huber", Box::new(|x| huber(x, &t, 0.5, none))),
            ("smooth_l1", Box::new(|x| smooth_l1(x, &t, 0.5, none))),
            ("nll", Box::new(|x| nll(x, &index, Some(&weight), -100, Reduction::Mean))),
            ("soft_cross_entropy", Box::new(|x| soft_cross_entropy(x, &unit, Some(&weight), 0.1, none))),
            ("bce", Box::new(|x| binary_cross_entropy(&x.affine(0.4, 0.5)?, &unit, Some(&weight), none))),
            ("bce logits", Box::new(|x| binary_cross_entropy_with_logits(x, &unit, Some(&weight), Some(&weight), none))),
            ("focal", Box::new(|x| sigmoid_focal(x, &unit, 0.25, 2.0, none))),
            ("kl_div", Box::new(|x| kl_div(x, &unit, false, KlReduction::Elements(none)))),
            ("kl_div of logs", Box::new(|x| kl_div(x, &t, true, KlReduction::BatchMean))),
            ("hinge", Box::new(|x| hinge_embedding(x, &sign, 1.0, none))),
            ("soft margin", Box::new(|x| soft_margin(x, &sign, none))),
        ];
        for (name, loss) in losses {
            let shape = *loss(&x).unwrap().shape();
            let upstream: Vec<f64> = (0..shape.len()).map(|i| 0.5 + (i as f64 * 0.7).sin()).collect();
            let upstream = Tensor::from_slice(&device, &shape, &upstream).unwrap();
            let check = check_gradient(std::slice::from_ref(&x), &upstream, |x| loss(&x[0])).unwrap();
            assert!(check.error < 2e-8, "{name}: {check:?}");
        }
    }

    #[test]
    fn borders_are_finite_and_shapes_are_named() {
        let device = Device::cpu(1).unwrap();
        let of = |values: &[f32]| Tensor::from_slice(&device, &[values.len()], values).unwrap();
        let x = of(&[0.0, 1.0, 0.0]).requires_grad();
        let loss = binary_cross_entropy(&x, &of(&[1.0, 1.0, 0.0]), None, Reduction::None).unwrap();
        assert_eq!(loss.to_vec_blocking::<f32>().unwrap(), [100.0, 0.0, 0.0]);
        loss.sum(None, false).unwrap().backward().unwrap();
        assert!(x.grad().unwrap().to_vec_blocking::<f32>().unwrap().iter().all(|g| g.is_finite()));
        let error = mse(&of(&[1.0]), &of(&[1.0, 2.0]), Reduction::Mean).unwrap_err().to_string();
        assert_eq!(error, "mse_loss: input is [1], but target is [2]; they must be equal");
        assert!(huber(&of(&[1.0]), &of(&[1.0]), 0.0, Reduction::Mean).unwrap_err().to_string().contains("delta = 0"));
    }

    #[test]
    fn adversaries_play_for_what_their_papers_say() {
        let device = Device::cpu(1).unwrap();
        let tensor = |values: &[f32]| Tensor::from_slice(&device, &[2, 1], values).unwrap();
        let (real, drawn) = (tensor(&[0.5, 2.0]), tensor(&[-3.0, 0.25]));
        let s = |x: f64| 1.0 / (1.0 + (-x).exp());
        let near = |got: Tensor, want: f64| {
            let got = got.item_blocking().unwrap() as f64;
            assert!((got - want).abs() < 1e-6, "{got} beside {want}");
        };
        let entropy = |x: f64, t: f64| -t * s(x).ln() - (1.0 - t) * (1.0 - s(x)).ln();
        let critic = (entropy(0.5, 0.9) + entropy(2.0, 0.9) + entropy(-3.0, 0.0) + entropy(0.25, 0.0)) / 2.0;
        near(Adversarial::NonSaturating.critic(&real, &drawn, 0.1).unwrap(), critic);
        near(Adversarial::NonSaturating.generator(&drawn).unwrap(), -(s(-3.0).ln() + s(0.25).ln()) / 2.0);
        near(Adversarial::Hinge.critic(&real, &drawn, 0.0).unwrap(), 0.25 + 0.625);
        near(Adversarial::Hinge.generator(&drawn).unwrap(), 2.75 / 2.0);
        near(Adversarial::Wasserstein.critic(&real, &drawn, 0.0).unwrap(), -1.375 - 1.25);
        near(Adversarial::Wasserstein.generator(&drawn).unwrap(), 1.375);
    }
}
