//! Layers that are not trained, and what they make of the images.

use std::sync::Arc;
use std::time::Instant;

use super::config::BACKBONE;
use super::{Config, Options};
use crate::autodiff::no_grad;
use crate::data::{Dataset, Loader, LoaderOptions, Part};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::models;
use crate::nn::{Context, Folded, Module, Sequential, named_parameters};
use crate::tensor::Tensor;

/// The most values of features that are kept in memory, 4 bytes each.
const MAX_FEATURES: usize = 1 << 29;

/// Freezes the parameters that a pattern names: `backbone`, all but the last layer's, or names in which `*` stands for any characters.
pub(super) fn freeze(module: &Sequential, patterns: &[String]) -> Result<()> {
    let parameters = named_parameters(module);
    let head = format!("{}.", models::head(module));
    for pattern in patterns {
        let fits = |name: &str| if pattern == BACKBONE { !name.starts_with(&head) } else { matches(pattern, name) };
        let mut found = false;
        for (_, parameter) in parameters.iter().filter(|(name, _)| fits(name)) {
            parameter.set_trainable(false);
            found = true;
        }
        if !found {
            let some: Vec<&str> = parameters.iter().take(5).map(|(name, _)| name.as_str()).collect();
            return Err(Error::Config(format!("--freeze {pattern}: no parameter has such a name; there are {}, ...", some.join(", "))));
        }
    }
    Ok(())
}

/// Whether `*` in the pattern can stand for characters such that it is `text`.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..]))
}

/// The children of a network from `start` on, which take samples of a shape.
pub(super) struct Tail<'a> {
    pub(super) module: &'a Sequential,
    pub(super) start: usize,
    pub(super) shape: &'a [usize],
}

impl Module for Tail<'_> {
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        // Loaders give [N, C, H, W], of features too.
        let x = x.reshape(&[&x.shape()[..1], self.shape].concat())?;
        self.module.forward_range(ctx, self.start..self.module.children().count(), &x)
    }
}

/// The number of the first child that is trained, or draws random numbers that only trained ones see.
fn first_trained(module: &Sequential) -> usize {
    let trained = |child: &dyn Module| named_parameters(child).iter().any(|(_, parameter)| parameter.is_trainable());
    let children: Vec<&dyn Module> = module.children().map(|(_, child)| child).collect();
    let mut first = children.iter().position(|child| trained(*child)).unwrap_or(children.len());
    while first > 0 && children[first - 1].draws() {
        first -= 1;
    }
    if children[..first].iter().all(|child| named_parameters(*child).is_empty()) { 0 } else { first }
}

/// What the frozen children at the front make of every image, computed once, with the number of the child that goes on and the shape that it takes; number 0
/// and nothing where no children are frozen, images change at random, or the features would not fit memory.
pub(super) fn features(
    module: &Sequential,
    config: &Config,
    data: &Dataset,
    options: &mut Options,
) -> Result<(usize, Option<(Dataset, Vec<usize>)>)> {
    let start = first_trained(module);
    if start == 0 {
        return Ok((0, None));
    }
    if !config.augmentation.is_none() {
        (options.on_note)("frozen layers are computed for each changed image again; with --augment none once for all");
        return Ok((0, None));
    }
    let (null, _) = Device::null();
    let shapes = models::build(&config.model, config.input, config.classes.len(), &null, 0)?;
    let [c, h, w] = config.input;
    let _guard = no_grad();
    let shape = shapes.forward_range(&mut Context::eval(), 0..start, &Tensor::zeros(&null, &[1, c, h, w])?)?.shape()[1..].to_vec();
    let samples = |part: &Option<Arc<Part>>| part.as_ref().map_or(0, |part| part.len());
    let count = data.train.len() + samples(&data.val) + samples(&data.test);
    let len: usize = shape.iter().product();
    if len * count > MAX_FEATURES {
        (options.on_note)(&format!("frozen layers are computed in each epoch again: {count} x {len} features would not fit memory"));
        return Ok((0, None));
    }
    let begun = Instant::now();
    let sizes = match shape[..] {
        [c, h, w] => [c, h, w],
        _ => [len, 1, 1],
    };
    let features = data.with_features(sizes, |part| {
        let (mut values, folded) = (Vec::with_capacity(part.len() * len), Folded::default());
        for batch in
            Loader::new(data, part, LoaderOptions { batch_size: config.batch_size, workers: options.workers, ..Default::default() })?
        {
            let batch = batch?;
            let x = Tensor::from_slice(options.device, &[batch.len(), c, h, w], &batch.images)?;
            values.extend(module.forward_range(&mut Context::eval().folding(&folded), 0..start, &x)?.to_vec_blocking::<f32>()?);
            if options.interrupt.load(std::sync::atomic::Ordering::Relaxed) {
                return Err(Error::Interrupted("interrupted before the first step, while features of frozen layers were computed".into()));
            }
        }
        let mut own = Part::features(values, part.labels.clone());
        own.numbers.clone_from(&part.numbers);
        Ok(own)
    })?;
    (options.on_note)(&format!("{len} features of the frozen layers for {count} images: {:.1} s", begun.elapsed().as_secs_f64()));
    Ok((start, Some((features, shape))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_parameters() {
        for (pattern, text, fits) in [
            ("fc.weight", "fc.weight", true),
            ("fc", "fc.weight", false),
            ("fc.*", "fc.weight", true),
            ("*.bias", "layer1.0.bias", true),
            ("layer*.conv1.*", "layer2.0.conv1.weight", true),
            ("layer*.conv1.*", "layer2.0.conv2.weight", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_frozen_and_where_training_begins() {
        let (device, _) = Device::null();
        let build = |name: &str| models::build(name, [3, 32, 32], 4, &device, 0).unwrap();
        for (name, first) in
            [("efficientnet_lite0", "_dropout"), ("resnet20", "fc"), ("squeezenet1_1", "classifier"), ("cnn", "classifier")]
        {
            let module = build(name);
            freeze(&module, &[if name == "cnn" { "features.*".into() } else { BACKBONE.to_owned() }]).unwrap();
            let start = first_trained(&module);
            assert_eq!(module.children().nth(start).unwrap().0, first, "{name}");
        }
        let module = build("resnet20");
        assert_eq!(first_trained(&module), 0);
        freeze(&module, &["layer3.*".into()]).unwrap();
        assert_eq!(first_trained(&module), 0);
        let error = freeze(&module, &["layer9.*".into()]).unwrap_err().to_string();
        assert!(error.contains("--freeze layer9.*: no parameter has such a name; there are conv1.weight, bn1.weight"), "{error}");
    }
}
