//! `model` and `training`: whole networks, whose weights follow from a recipe.

use super::architecture;
use super::golden::{Attributes, Golden, Operator, Outcome, Output, Stop, malformed, unsupported};
use super::optimizer::config;
use super::schedule::schedule_of;
use crate::autodiff::no_grad;
use crate::nn::{Context, Module, NamedArray, Sequential, load_state_dict, named_parameters, state_dict};
use crate::optim::{Optimizer, ParamGroup};
use crate::shape::Shape;
use crate::tensor::Tensor;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;

pub(super) const OPERATORS: &[Operator] = &[
    Operator {
        name: "model",
        attributes: &[
            "architecture",
            "num_classes",
            "input_shape",
            "weights",
            "state",
            "parameters",
            "rows",
            "channels",
            "dropout",
            "width_mult",
        ],
        run: model,
    },
    Operator {
        name: "training",
        attributes: &[
            "architecture",
            "steps",
            "batch_size",
            "batches",
            "loss",
            "optimizer",
            "schedule",
            "clip_grad_norm",
            "weights",
            "state",
        ],
        run: training,
    },
];

/// How batches and losses are described in the cases that are understood.
const BATCHES: &str = "step i (from 0) takes rows (32*i + 0..31) mod 256, in order";
const LOSS: &str = "mean cross-entropy, before the step's update";
/// Values of a gradient in a row of `grad_first` and of `grad_spread`.
const SHOWN: usize = 16;

/// The recipe of the weights.
#[derive(Deserialize)]
struct Recipe {
    recipe: String,
    seed: u64,
    gain: f64,
    values: usize,
}

/// The value `u` in `[0, 1)` at counter `i`: SplitMix64 (Steele, Lea, Flood 2014), its 24 high bits.
fn splitmix64(seed: u64, i: u64) -> f64 {
    let z = seed.wrapping_add(i).wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f64 / 16_777_216.0
}

/// The tensors of `state` by the recipe; one counter runs over all of them.
fn weights(recipe: &Recipe, state: &[(String, Vec<usize>)]) -> Outcome<Vec<NamedArray>> {
    if recipe.recipe != "splitmix64" {
        return unsupported(format!("weights by the recipe '{}'", recipe.recipe));
    }
    let mut counter = 0;
    let mut arrays = Vec::new();
    for (name, shape) in state {
        let last = name.rsplit('.').next().unwrap_or_default();
        let fan_in: usize = shape.iter().skip(1).product();
        // A weight with one dimension belongs to a normalisation layer.
        let (center, scale) = match (last, shape.len()) {
            ("weight" | "running_var", 1) => (1.0, 0.1),
            (_, 2..) => (0.0, recipe.gain / (fan_in as f64).sqrt()),
            _ => (0.0, 0.1),
        };
        let shape = Shape::new(shape)?;
        let value = |i: u64| (center + scale * (2.0 * splitmix64(recipe.seed, i) - 1.0)) as f32;
        let end = counter + shape.len() as u64;
        if end > recipe.values as u64 {
            return malformed(format!("attribute state has more values than the {} of the recipe", recipe.values));
        }
        arrays.push(NamedArray { name: name.clone(), shape, values: (counter..end).map(value).collect() });
        counter = end;
    }
    if counter != recipe.values as u64 {
        return malformed(format!("attribute state has {counter} values, the recipe {}", recipe.values));
    }
    Ok(arrays)
}

/// The network of a case with its weights, and the names of its state in the case's order.
fn network(g: &Golden, image: &Shape) -> Outcome<(Sequential, Vec<String>)> {
    let &[_, channels, height, width] = &image[..] else { return malformed(format!("the images are {image}, expected [N, C, H, W]")) };
    let network = architecture::build(g.attributes(), [channels, height, width], g.device)?;
    let state: Vec<(String, Vec<usize>)> = g.attribute("state")?;
    let arrays = weights(&g.attribute("weights")?, &state)?;
    load_state_dict(&network, &arrays).map_err(|error| Stop::Malformed(error.to_string()))?;
    Ok((network, state.into_iter().map(|(name, _)| name).collect()))
}

/// Sum and sum of absolute values.
fn sums(values: &[f32]) -> [f64; 2] {
    [values.iter().map(|&v| f64::from(v)).sum(), values.iter().map(|&v| f64::from(v).abs()).sum()]
}

/// Limits of the rows of the gradients' tables, see [`row_limits`].
#[derive(Deserialize)]
struct Rows {
    max_abs: Vec<f64>,
    values_f32_err: Vec<f64>,
}

/// The folder's "sound row limit": one tolerance for all rows would be wide for layers with small gradients.
fn row_limits(g: &Golden, parameters: usize) -> Outcome<Option<Vec<f64>>> {
    let Some(rows) = g.attribute::<Option<Rows>>("rows")? else { return Ok(None) };
    if rows.max_abs.len() != parameters || rows.values_f32_err.len() != parameters {
        return malformed("attribute rows needs a value for each parameter");
    }
    let largest = rows.max_abs.iter().copied().fold(0.0, f64::max);
    let limit = |(err, max_abs): (&f64, &f64)| 8.0 * err + 1e-5 * max_abs + 5e-7 * largest;
    Ok(Some(rows.values_f32_err.iter().zip(&rows.max_abs).map(limit).collect()))
}

/// A forward pass in evaluation mode, then one forward and backward pass in training mode.
fn model(g: &Golden) -> Outcome<Vec<Output>> {
    if g.attribute::<Option<f64>>("dropout")?.unwrap_or(0.0) != 0.0 {
        return unsupported("dropout");
    }
    let (input, target) = (g.input("input")?, g.input("target")?);
    let (network, state) = network(g, input.shape())?;
    let logits = {
        let _guard = no_grad();
        network.forward(&mut Context::eval(), input)?
    };
    let loss = network.forward(&mut Context::train(0, 0), input)?.cross_entropy_mean(target)?;
    loss.backward()?;
    let parameters: HashMap<String, _> = named_parameters(&network).into_iter().collect();
    let names: Vec<String> = g.attribute("parameters")?;
    let (mut grad_sums, mut grad_first, mut grad_spread) = (Vec::new(), Vec::new(), Vec::new());
    for name in &names {
        let Some(grad) = parameters.get(name).and_then(|parameter| parameter.grad()) else {
            return malformed(format!("attribute parameters: no gradient reached {name}"));
        };
        let grad = grad.to_vec_blocking::<f32>()?;
        grad_sums.extend(sums(&grad));
        grad_first.extend((0..SHOWN).map(|i| grad.get(i).map_or(0.0, |&v| f64::from(v))));
        grad_spread.extend((0..SHOWN).map(|j| grad.get(j * grad.len() / SHOWN).map_or(0.0, |&v| f64::from(v))));
    }
    let limits = row_limits(g, names.len())?;
    let table = |name: &str, values: Vec<f64>| Output { row_limits: limits.clone(), ..Output::floats(name, &[names.len(), SHOWN], values) };
    let mut outputs = vec![
        Output::of("logits", &logits)?,
        Output::of("loss", &loss)?,
        Output::floats("grad_sums", &[names.len(), 2], grad_sums),
        table("grad_first", grad_first),
        table("grad_spread", grad_spread),
    ];
    if g.case.outputs.contains_key("running_stats") {
        let tensors: HashMap<String, Tensor> = state_dict(&network).into_iter().collect();
        let mut stats = Vec::new();
        for name in state.iter().filter(|name| name.ends_with("running_mean") || name.ends_with("running_var")) {
            let Some(tensor) = tensors.get(name) else { return malformed(format!("attribute state: there is no {name}")) };
            stats.extend(tensor.to_vec_blocking::<f32>()?.into_iter().map(f64::from));
        }
        outputs.push(Output::floats("running_stats", &[stats.len()], stats));
    }
    Ok(outputs)
}

/// A part of the attributes with a name of its own: an optimiser or a schedule.
fn named(g: &Golden, key: &str) -> Outcome<(String, Map<String, Value>)> {
    let mut part: Map<String, Value> = g.attribute(key)?;
    let name = Attributes(&part).get("name")?;
    part.remove("name");
    Ok((name, part))
}

/// Steps of an optimiser on batches of the images, in order.
fn training(g: &Golden) -> Outcome<Vec<Output>> {
    for (key, understood) in [("batches", BATCHES), ("loss", LOSS)] {
        let text: String = g.attribute(key)?;
        if text != understood {
            return unsupported(format!("{key} '{text}'"));
        }
    }
    let (images, targets) = (g.input("images")?, g.input("target")?);
    let (network, state) = network(g, images.shape())?;
    let (name, settings) = named(g, "optimizer")?;
    Attributes(&settings).only(match name.as_str() {
        "sgd" => &["lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize"],
        _ => &["lr", "betas", "eps", "weight_decay", "amsgrad", "maximize"],
    })?;
    let config = config(&name, Attributes(&settings))?;
    let (name, settings) = named(g, "schedule")?;
    Attributes(&settings).only(match name.as_str() {
        "none" => &[],
        "step_lr" => &["step_size", "gamma"],
        _ => &["T_max", "eta_min"],
    })?;
    let schedule = schedule_of(&name, Attributes(&settings))?;
    let clip: Option<f64> = g.attribute("clip_grad_norm")?;
    let (steps, batch_size): (usize, usize) = (g.attribute("steps")?, g.attribute("batch_size")?);
    let count = images.shape()[0];
    if batch_size != 32 || count != 256 {
        return unsupported(format!("batches of {batch_size} from {count} images"));
    }

    let mut image = images.shape().to_vec();
    image[0] = batch_size;
    let (pixels, classes) = (images.to_vec_blocking::<f32>()?, targets.to_vec_blocking::<i32>()?);
    if classes.len() != count {
        return malformed(format!("{count} images but {} targets", classes.len()));
    }
    let size = pixels.len() / count;
    let mut optimizer = Optimizer::new(config, vec![ParamGroup::new(named_parameters(&network))])?;
    let (mut losses, mut norms) = (Vec::new(), Vec::new());
    for step in 0..steps {
        let first = step * batch_size % count;
        let x = Tensor::from_slice(g.device, &image, &pixels[first * size..(first + batch_size) * size])?;
        let y = Tensor::from_slice(g.device, &[batch_size], &classes[first..first + batch_size])?;
        optimizer.zero_grad();
        let loss = network.forward(&mut Context::train(0, step as u64), &x)?.cross_entropy_mean(&y)?;
        losses.extend(loss.to_vec_blocking::<f32>()?.into_iter().map(f64::from));
        loss.backward()?;
        if let Some(max_norm) = clip {
            norms.extend(optimizer.clip_grad_norm(max_norm)?.to_vec_blocking::<f32>()?.into_iter().map(f64::from));
        }
        optimizer.step(schedule.lr(config.lr(), step as u64, steps as u64))?;
    }

    let tensors: HashMap<String, Tensor> = state_dict(&network).into_iter().collect();
    let mut final_sums = Vec::new();
    for name in &state {
        let Some(tensor) = tensors.get(name) else { return malformed(format!("attribute state: there is no {name}")) };
        final_sums.extend(sums(&tensor.to_vec_blocking::<f32>()?));
    }
    let _guard = no_grad();
    image[0] = 8;
    let logits = network.forward(&mut Context::eval(), &Tensor::from_slice(g.device, &image, &pixels[..8 * size])?)?;
    let mut outputs = vec![
        Output::floats("loss", &[steps], losses),
        Output::floats("final_sums", &[state.len(), 2], final_sums),
        Output::of("final_logits", &logits)?,
    ];
    if clip.is_some() {
        outputs.push(Output::floats("grad_norm", &[steps], norms));
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_recipe_gives_the_published_values() {
        let recipe = Recipe { recipe: "splitmix64".into(), seed: 10100, gain: 2.5, values: 156 };
        let state = [("conv1.weight".to_owned(), vec![6, 1, 5, 5]), ("conv1.bias".to_owned(), vec![6])];
        let Ok(arrays) = weights(&recipe, &state) else { panic!("the recipe is refused") };
        assert_eq!(
            arrays[0].values[..4],
            [0.008389174938201904f64, 0.2034916877746582, 0.10013473033905029, -0.48543769121170044].map(|v| v as f32)
        );
        assert_eq!(arrays[1].values[0], 0.05198696851730347f64 as f32);
        assert_eq!(splitmix64(10100, 0), 0.5083891749382019);
        assert!(weights(&Recipe { values: 155, ..recipe }, &state).is_err());
    }
}
