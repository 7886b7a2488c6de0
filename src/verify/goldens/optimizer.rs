//! `optimizer`, `clip` and `schedule`: steps on given gradients, the norm of all gradients, learning rates.

use super::golden::{Attributes, Golden, Operator, Outcome, Output, malformed, unsupported};
use crate::nn::Parameter;
use crate::optim::{Decay, Optimizer, OptimizerConfig, ParamGroup, Schedule};
use crate::tensor::Tensor;
use serde_json::{Map, Value};

const SGD: &[&str] = &["lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize", "steps", "groups"];
const ADAM: &[&str] = &["lr", "betas", "eps", "weight_decay", "amsgrad", "maximize", "steps", "groups"];

pub(super) const OPERATORS: &[Operator] = &[
    Operator { name: "sgd", attributes: SGD, run: steps },
    Operator { name: "adam", attributes: ADAM, run: steps },
    Operator { name: "adamw", attributes: ADAM, run: steps },
    Operator { name: "clip_grad_norm", attributes: &["max_norm", "norm_type"], run: clip_grad_norm },
    Operator { name: "step_lr", attributes: &["base_lr", "step_size", "gamma", "steps"], run: schedule },
    Operator { name: "cosine_annealing_lr", attributes: &["base_lr", "T_max", "eta_min", "steps"], run: schedule },
];

/// The settings of the optimiser `name`; what is not given has PyTorch's default.
pub(super) fn config(name: &str, attributes: Attributes) -> Outcome<OptimizerConfig> {
    let number = |key: &str, default: f64| -> Outcome<f64> { Ok(attributes.get::<Option<f64>>(key)?.unwrap_or(default)) };
    let flag = |key: &str| -> Outcome<bool> { Ok(attributes.get::<Option<bool>>(key)?.unwrap_or(false)) };
    let lr = attributes.get("lr")?;
    let maximize = flag("maximize")?;
    if flag("amsgrad")? {
        return unsupported("amsgrad");
    }
    let betas = attributes.get::<Option<[f64; 2]>>("betas")?.unwrap_or([0.9, 0.999]);
    let eps = number("eps", 1e-8)?;
    Ok(match name {
        "sgd" => OptimizerConfig::Sgd {
            lr,
            momentum: number("momentum", 0.0)?,
            dampening: number("dampening", 0.0)?,
            weight_decay: number("weight_decay", 0.0)?,
            nesterov: flag("nesterov")?,
            maximize,
        },
        "adam" => OptimizerConfig::Adam { lr, betas, eps, weight_decay: number("weight_decay", 0.0)?, maximize },
        "adamw" => OptimizerConfig::AdamW { lr, betas, eps, weight_decay: number("weight_decay", 0.01)?, maximize },
        _ => return unsupported(format!("optimizer {name}")),
    })
}

/// The inputs `<stem>0`, `<stem>1` ... as named parameters.
fn parameters(g: &Golden, stem: &str) -> Outcome<Vec<(String, Parameter)>> {
    Ok(g.numbered(stem)?.into_iter().enumerate().map(|(i, tensor)| (format!("{stem}{i}"), Parameter::from_tensor(tensor))).collect())
}

/// Steps with the gradients `g0`, `g1` ..., whose row t is used in step t + 1.
fn steps(g: &Golden) -> Outcome<Vec<Output>> {
    let config = config(&g.case.op, g.attributes())?;
    let parameters = parameters(g, "p")?;
    let groups = match g.attribute::<Option<Vec<Map<String, Value>>>>("groups")? {
        None => vec![ParamGroup::new(parameters.clone())],
        Some(settings) if settings.len() == parameters.len() => settings
            .iter()
            .zip(&parameters)
            .map(|(settings, parameter)| {
                let settings = Attributes(settings);
                settings.only(&["lr", "weight_decay"])?;
                let lr_factor = settings.get::<Option<f64>>("lr")?.map_or(1.0, |lr| lr / config.lr());
                Ok(ParamGroup { lr_factor, weight_decay: settings.get("weight_decay")?, ..ParamGroup::new(vec![parameter.clone()]) })
            })
            .collect::<Outcome<_>>()?,
        Some(settings) => return malformed(format!("{} groups for {} parameters", settings.len(), parameters.len())),
    };
    let steps: usize = g.attribute("steps")?;
    let gradients = g.numbered("g")?.into_iter().map(|g| Ok(g.to_vec_blocking::<f32>()?)).collect::<Outcome<Vec<_>>>()?;
    let fits = |(rows, (_, p)): (&Vec<f32>, &(String, Parameter))| steps.checked_mul(p.shape().len()) == Some(rows.len());
    if gradients.len() != parameters.len() || !gradients.iter().zip(&parameters).all(fits) {
        return malformed("there must be a gradient for each parameter and step");
    }
    let mut optimizer = Optimizer::new(config, groups)?;
    let mut outputs = Vec::new();
    for step in 0..steps {
        optimizer.zero_grad();
        for (rows, (_, parameter)) in gradients.iter().zip(&parameters) {
            let (shape, len) = (parameter.shape(), parameter.shape().len());
            let gradient = Tensor::from_slice(g.device, &shape, &rows[step * len..(step + 1) * len])?;
            parameter.tensor().backward_with(&gradient)?;
        }
        optimizer.step(config.lr())?;
        for (name, parameter) in &parameters {
            let name = format!("{name}.step{}", step + 1);
            if g.case.outputs.contains_key(&name) {
                outputs.push(Output::of(name, &parameter.data())?);
            }
        }
    }
    Ok(outputs)
}

/// An optimiser keeps the factor on the device until its step: ascending from 0 at rate 1 gives the clipped gradients themselves.
fn clip_grad_norm(g: &Golden) -> Outcome<Vec<Output>> {
    let norm_type: Value = g.attribute("norm_type")?;
    if norm_type.as_f64() != Some(2.0) {
        return unsupported(format!("norm_type {norm_type}"));
    }
    let mut parameters = Vec::new();
    for (i, gradient) in g.numbered("g")?.into_iter().enumerate() {
        parameters.push((format!("g{i}"), Parameter::from_tensor(&Tensor::zeros(g.device, gradient.shape())?)));
    }
    let ascent = OptimizerConfig::Sgd { lr: 1.0, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false, maximize: true };
    let mut optimizer = Optimizer::new(ascent, vec![ParamGroup::new(parameters.clone())])?;
    for (name, parameter) in &parameters {
        parameter.tensor().backward_with(g.input(name)?)?;
    }
    let norm = optimizer.clip_grad_norm(g.attribute("max_norm")?)?;
    optimizer.step(1.0)?;
    let mut outputs = vec![Output::of("total_norm", &norm.reshape(&[])?)?];
    for (name, parameter) in &parameters {
        outputs.push(Output::of(format!("clipped.{name}"), &parameter.data())?);
    }
    Ok(outputs)
}

/// The schedule `name`, whose attributes are those of the cases.
pub(super) fn schedule_of(name: &str, attributes: Attributes) -> Outcome<Schedule> {
    Ok(match name {
        "none" => Schedule::default(),
        "step_lr" => Decay::Step { step_size: attributes.get("step_size")?, gamma: attributes.get("gamma")? }.into(),
        "cosine_annealing_lr" => Decay::Cosine { t_max: Some(attributes.get("T_max")?), eta_min: attributes.get("eta_min")? }.into(),
        _ => return unsupported(format!("schedule {name}")),
    })
}

fn schedule(g: &Golden) -> Outcome<Vec<Output>> {
    let (schedule, base_lr, steps) = (schedule_of(&g.case.op, g.attributes())?, g.attribute("base_lr")?, g.attribute::<u64>("steps")?);
    let rates: Vec<f64> = (0..steps).map(|step| schedule.lr(base_lr, step, steps)).collect();
    Ok(vec![Output::floats("lr", &[rates.len()], rates)])
}
