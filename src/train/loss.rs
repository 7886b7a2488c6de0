//! What a training minimises.

use super::Config;
use crate::data::augment::Mix;
use crate::dtype::DType;
use crate::error::Result;
use crate::nn::{self, Context, Module, Sequential, loss};
use crate::op::{CrossEntropyOptions, Unary};
use crate::tensor::Tensor;
use crate::tensor::ops::Reduction;

/// The loss of a batch: `network`, the whole module or what follows its frozen layers, in the precision of the configuration, then [`objective`].
#[expect(clippy::too_many_arguments, reason = "all that a batch's loss depends on")]
pub(super) fn batch_loss(
    config: &Config,
    network: &dyn Module,
    module: &Sequential,
    context: &mut Context,
    weight: Option<&Tensor>,
    x: &Tensor,
    target: &Tensor,
    mix: Option<&Mix>,
) -> Result<Tensor> {
    // What the layers make of it has the type of the input; weights, statistics and the loss are f32.
    let x = if config.half() { x.cast(DType::F16)? } else { x.clone() };
    let logits = network.forward(context, &x)?.cast(DType::F32)?;
    objective(config, module, weight, &logits, target, mix)
}

/// What is minimised: the loss of the logits with smoothed, weighted and mixed classes, or of numbers, and the sum of absolute weights.
fn objective(
    config: &Config,
    module: &Sequential,
    weight: Option<&Tensor>,
    logits: &Tensor,
    target: &Tensor,
    mix: Option<&Mix>,
) -> Result<Tensor> {
    let other = mix.map(|mix| Tensor::from_slice(logits.device(), &[mix.targets.len()], &mix.targets)).transpose()?;
    let mixed = mix.map(|mix| mix.share as f64).zip(other);
    let mut loss = match config.loss.as_str() {
        name if target.dtype().is_float() => match name {
            "mae" => loss::l1(logits, target, Reduction::Mean)?,
            "huber" => loss::huber(logits, target, 1.0, Reduction::Mean)?,
            _ => loss::mse(logits, target, Reduction::Mean)?,
        },
        "cross-entropy" => {
            let smoothed = CrossEntropyOptions { label_smoothing: config.label_smoothing, ..Default::default() };
            let entropy = |target: &Tensor| match weight {
                Some(weight) => logits.cross_entropy(target, Some(weight), smoothed, Reduction::Mean),
                None => logits.cross_entropy(target, None, smoothed, Reduction::None)?.mean(None, false),
            };
            blend(entropy(target)?, mixed, entropy)?
        }
        name => {
            let smoothing = config.label_smoothing;
            let classes = config.classes.len();
            let hot = |target: &Tensor| target.one_hot(classes)?.cast(logits.dtype())?.affine(1.0 - smoothing, smoothing / classes as f64);
            classwise(name, logits, &blend(hot(target)?, mixed, hot)?, weight)?
        }
    };
    if config.l1 > 0.0 {
        for (_, parameter) in nn::named_parameters(module) {
            if parameter.is_trainable() && parameter.shape().iter().count() >= 2 {
                loss = loss.add(&parameter.tensor().unary(Unary::Abs)?.sum(None, false)?.affine(config.l1, 0.0)?)?;
            }
        }
    }
    Ok(loss)
}

/// `share` of a figure of the classes, and the rest of that of the classes which were mixed in.
fn blend(own: Tensor, mixed: Option<(f64, Tensor)>, of: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    match mixed {
        Some((share, other)) => own.affine(share, 0.0)?.add(&of(&other)?.affine(1.0 - share, 0.0)?),
        None => Ok(own),
    }
}

/// The mean over the samples, weighted by their classes, of a loss that is summed over the classes, for logits and shares of the classes `t`, both `[N, C]`: `focal` and `bce` of each
/// class against the rest; `mse`, `(softmax(x) - t)^2` (Brier 1950); `hinge`, `t max(0, 1 - x) + (1 - t) max(0, 1 + x)`.
fn classwise(name: &str, logits: &Tensor, target: &Tensor, weight: Option<&Tensor>) -> Result<Tensor> {
    let losses = match name {
        // Without the weight of positive samples, whose place the weights of classes take.
        "focal" => loss::sigmoid_focal(logits, target, -1.0, 2.0, Reduction::None)?,
        "bce" => loss::binary_cross_entropy_with_logits(logits, target, None, None, Reduction::None)?,
        "mse" => loss::mse(&logits.softmax(1)?, target, Reduction::None)?,
        _ => {
            let (yes, no) = (logits.affine(-1.0, 1.0)?.relu()?, logits.affine(1.0, 1.0)?.relu()?);
            target.mul(&yes)?.add(&target.affine(-1.0, 1.0)?.mul(&no)?)?
        }
    };
    let mut losses = losses.sum(Some(&[1]), false)?;
    if let Some(weight) = weight {
        // Of samples: a class's weight on its column would count its absence as much as its presence.
        losses = losses.mul(&target.mul(weight)?.sum(Some(&[1]), false)?)?;
    }
    losses.mean(None, false)
}

#[cfg(test)]
mod tests {
    use super::super::LOSSES;
    use super::*;
    use crate::device::Device;

    #[test]
    fn weights_of_classes_weigh_samples() {
        let device = Device::cpu(1).unwrap();
        let logits = Tensor::from_slice(&device, &[2, 2], &[0.3f32, -0.2, 1.5, 0.7]).unwrap();
        let target = Tensor::from_slice(&device, &[2, 2], &[1.0f32, 0.0, 0.0, 1.0]).unwrap();
        let weight = Tensor::from_slice(&device, &[2], &[1.0f32, 3.0]).unwrap();
        for name in &LOSSES[1..] {
            let of = |rows: std::ops::Range<usize>, weight: Option<&Tensor>| {
                let part = |t: &Tensor| t.narrow(0, rows.start, rows.len()).unwrap();
                classwise(name, &part(&logits), &part(&target), weight).unwrap().item_blocking().unwrap()
            };
            let (first, second) = (of(0..1, None), of(1..2, None));
            assert!((of(0..2, None) - (first + second) / 2.0).abs() < 1e-6, "{name}");
            assert!((of(0..2, Some(&weight)) - (first + 3.0 * second) / 2.0).abs() < 1e-5, "{name}");
        }
    }
}
