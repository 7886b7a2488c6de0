//! `optimizer` and `clip`: steps on given gradients, the norm of all gradients.

use super::golden::{Attributes, Golden, Operator, Outcome, Output, malformed, unsupported};
use crate::nn::Parameter;
use crate::optim::{Ema, Optimizer, OptimizerConfig, ParamGroup, Rule};
use crate::tensor::Tensor;
use serde_json::{Map, Value};

const SGD: &[&str] = &["lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize", "steps", "groups"];
const ADAM: &[&str] = &["lr", "betas", "eps", "weight_decay", "amsgrad", "maximize", "steps", "groups"];

pub(super) const OPERATORS: &[Operator] = &[
    Operator { name: "sgd", attributes: SGD, run: steps },
    Operator { name: "adam", attributes: ADAM, run: steps },
    Operator { name: "adamw", attributes: ADAM, run: steps },
    Operator {
        name: "rmsprop",
        attributes: &["lr", "momentum", "alpha", "eps", "centered", "weight_decay", "maximize", "steps", "groups"],
        run: steps,
    },
    Operator {
        name: "adagrad",
        attributes: &["lr", "lr_decay", "eps", "weight_decay", "initial_accumulator_value", "maximize", "steps", "groups"],
        run: steps,
    },
    Operator { name: "adadelta", attributes: &["lr", "rho", "eps", "weight_decay", "maximize", "steps", "groups"], run: steps },
    Operator { name: "adamax", attributes: &["lr", "betas", "eps", "weight_decay", "maximize", "steps", "groups"], run: steps },
    Operator {
        name: "nadam",
        attributes: &["lr", "betas", "eps", "weight_decay", "momentum_decay", "maximize", "steps", "groups"],
        run: steps,
    },
    Operator { name: "radam", attributes: &["lr", "betas", "eps", "weight_decay", "maximize", "steps", "groups"], run: steps },
    Operator { name: "lion", attributes: &["lr", "betas", "weight_decay", "steps", "reference"], run: steps },
    Operator { name: "lamb", attributes: &["lr", "betas", "eps", "weight_decay", "steps", "reference"], run: steps },
    Operator { name: "lars", attributes: &["lr", "momentum", "weight_decay", "trust_coefficient", "steps", "reference"], run: steps },
    Operator {
        name: "muon",
        attributes: &[
            "lr",
            "momentum",
            "nesterov",
            "weight_decay",
            "ns_coefficients",
            "ns_steps",
            "eps",
            "adjust_lr_fn",
            "steps",
            "reference",
        ],
        run: steps,
    },
    Operator { name: "ema", attributes: &["decay", "warmup", "steps", "reference"], run: ema },
    Operator { name: "clip_grad_value", attributes: &["clip_value"], run: clip_grad_value },
    Operator { name: "clip_grad_norm", attributes: &["max_norm", "norm_type"], run: clip_grad_norm },
];

/// The settings of the optimiser `name`; what is not given has PyTorch's default.
pub(super) fn config(name: &str, attributes: Attributes) -> Outcome<OptimizerConfig> {
    let number = |key: &str, default: f64| -> Outcome<f64> { Ok(attributes.get::<Option<f64>>(key)?.unwrap_or(default)) };
    let flag = |key: &str| -> Outcome<bool> { Ok(attributes.get::<Option<bool>>(key)?.unwrap_or(false)) };
    let lr = attributes.get("lr")?;
    let maximize = flag("maximize")?;
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
        "adam" | "adamw" if flag("amsgrad")? => {
            let decoupled = name == "adamw";
            let weight_decay = number("weight_decay", if decoupled { 0.01 } else { 0.0 })?;
            OptimizerConfig::Composed { lr, weight_decay, maximize, rule: Rule::AmsGrad { betas, eps, decoupled } }
        }
        "adam" => OptimizerConfig::Adam { lr, betas, eps, weight_decay: number("weight_decay", 0.0)?, maximize },
        "adamw" => OptimizerConfig::AdamW { lr, betas, eps, weight_decay: number("weight_decay", 0.01)?, maximize },
        _ => {
            let rule = match name {
                "rmsprop" => {
                    Rule::RmsProp { alpha: number("alpha", 0.99)?, eps, momentum: number("momentum", 0.0)?, centered: flag("centered")? }
                }
                "adagrad" => Rule::Adagrad {
                    lr_decay: number("lr_decay", 0.0)?,
                    eps: number("eps", 1e-10)?,
                    initial_accumulator_value: number("initial_accumulator_value", 0.0)?,
                },
                "adadelta" => Rule::Adadelta { rho: number("rho", 0.9)?, eps: number("eps", 1e-6)? },
                "adamax" => Rule::Adamax { betas, eps },
                "nadam" => Rule::NAdam { betas, eps, momentum_decay: number("momentum_decay", 0.004)? },
                "radam" => Rule::RAdam { betas, eps },
                "lion" => Rule::Lion { betas },
                "lamb" => Rule::Lamb { betas, eps },
                "lars" => Rule::Lars { momentum: number("momentum", 0.0)?, trust_coefficient: number("trust_coefficient", 0.001)? },
                "muon" => Rule::Muon {
                    momentum: number("momentum", 0.95)?,
                    nesterov: flag("nesterov")?,
                    ns_coefficients: attributes.get("ns_coefficients")?,
                    ns_steps: attributes.get("ns_steps")?,
                    eps: number("eps", 1e-7)?,
                    match_rms_adamw: match attributes.get::<String>("adjust_lr_fn")?.as_str() {
                        "original" => false,
                        "match_rms_adamw" => true,
                        other => return unsupported(format!("adjust_lr_fn {other}")),
                    },
                },
                _ => return unsupported(format!("optimizer {name}")),
            };
            OptimizerConfig::Composed { lr, weight_decay: number("weight_decay", 0.0)?, maximize, rule }
        }
    })
}

/// The weights `w0`, `w1` ... of each step, whose moving averages begin with `p0`, `p1` ...
fn ema(g: &Golden) -> Outcome<Vec<Output>> {
    let begin: Vec<Tensor> = g.numbered("p")?.into_iter().cloned().collect();
    let weights = g.numbered("w")?;
    if weights.len() != begin.len() {
        return malformed("there must be weights for each average");
    }
    let mut ema = Ema::new(g.attribute("decay")?, g.attribute("warmup")?, &begin)?;
    let mut outputs = Vec::new();
    for step in 0..g.attribute::<usize>("steps")? {
        let row = |(w, p): (&&Tensor, &Tensor)| w.narrow(0, step, 1)?.reshape(p.shape());
        ema.update(&weights.iter().zip(&begin).map(row).collect::<crate::Result<Vec<_>>>()?)?;
        for (i, average) in ema.averages().iter().enumerate() {
            let name = format!("p{i}.step{}", step + 1);
            if g.case.outputs.contains_key(&name) {
                outputs.push(Output::of(name, average)?);
            }
        }
    }
    Ok(outputs)
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

/// The gradients after `clip`: an optimiser keeps the factor on the device until its step, and ascending from 0 at rate 1 gives the clipped
/// gradients themselves.
fn clipped(g: &Golden, clip: impl Fn(&mut Optimizer) -> Outcome<Vec<Output>>) -> Outcome<Vec<Output>> {
    let mut parameters = Vec::new();
    for (i, gradient) in g.numbered("g")?.into_iter().enumerate() {
        parameters.push((format!("g{i}"), Parameter::from_tensor(&Tensor::zeros(g.device, gradient.shape())?)));
    }
    let ascent = OptimizerConfig::Sgd { lr: 1.0, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false, maximize: true };
    let mut optimizer = Optimizer::new(ascent, vec![ParamGroup::new(parameters.clone())])?;
    for (name, parameter) in &parameters {
        parameter.tensor().backward_with(g.input(name)?)?;
    }
    let mut outputs = clip(&mut optimizer)?;
    optimizer.step(1.0)?;
    for (name, parameter) in &parameters {
        outputs.push(Output::of(format!("clipped.{name}"), &parameter.data())?);
    }
    Ok(outputs)
}

fn clip_grad_norm(g: &Golden) -> Outcome<Vec<Output>> {
    let norm_type: Value = g.attribute("norm_type")?;
    let norm_type = match (norm_type.as_f64(), norm_type.as_str()) {
        (Some(p), _) => p,
        (_, Some("inf")) => f64::INFINITY,
        _ => return unsupported(format!("norm_type {norm_type}")),
    };
    let max_norm = g.attribute("max_norm")?;
    clipped(g, |optimizer| Ok(vec![Output::of("total_norm", &optimizer.clip_grad_norm_of(max_norm, norm_type)?.reshape(&[])?)?]))
}

fn clip_grad_value(g: &Golden) -> Outcome<Vec<Output>> {
    let clip_value = g.attribute("clip_value")?;
    clipped(g, |optimizer| {
        optimizer.clip_grad_value(clip_value)?;
        Ok(Vec::new())
    })
}
