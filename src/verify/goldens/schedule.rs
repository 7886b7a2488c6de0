//! `schedule`: the learning rates of 60 steps.

use super::golden::{Attributes, Golden, Operator, Outcome, Output, unsupported};
use crate::optim::{Cycle, Decay, Plateau, Schedule};

/// A schedule with the attributes of its own.
const fn operator(name: &'static str, attributes: &'static [&'static str]) -> Operator {
    Operator { name, attributes, run }
}

pub(super) const OPERATORS: &[Operator] = &[
    operator("step_lr", &["base_lr", "step_size", "gamma", "steps"]),
    operator("multistep_lr", &["base_lr", "milestones", "gamma", "steps"]),
    operator("exponential_lr", &["base_lr", "gamma", "steps"]),
    operator("constant_lr", &["base_lr", "factor", "total_iters", "steps"]),
    operator("linear_lr", &["base_lr", "start_factor", "end_factor", "total_iters", "steps"]),
    operator("polynomial_lr", &["base_lr", "total_iters", "power", "steps"]),
    operator("cosine_annealing_lr", &["base_lr", "T_max", "eta_min", "steps"]),
    operator("cosine_annealing_warm_restarts", &["base_lr", "T_0", "T_mult", "eta_min", "steps"]),
    operator(
        "one_cycle_lr",
        &[
            "max_lr",
            "total_steps",
            "pct_start",
            "anneal_strategy",
            "three_phase",
            "div_factor",
            "final_div_factor",
            "base_momentum",
            "max_momentum",
            "steps",
        ],
    ),
    operator(
        "cyclic_lr",
        &["min_lr", "max_lr", "step_size_up", "step_size_down", "mode", "gamma", "base_momentum", "max_momentum", "steps"],
    ),
    operator("inverse_sqrt_lr", &["base_lr", "warmup_steps", "steps", "reference"]),
    operator(
        "sequential_lr",
        &["base_lr", "warmup_steps", "start_factor", "T_max", "eta_min", "constant_steps", "factor", "gamma", "steps", "reference"],
    ),
    Operator {
        name: "reduce_lr_on_plateau",
        attributes: &["base_lr", "mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr", "eps", "steps"],
        run: plateau,
    },
];

/// The schedule `name`, whose attributes are those of the cases.
pub(super) fn schedule_of(name: &str, a: Attributes) -> Outcome<Schedule> {
    let number = |key: &str| a.get::<f64>(key);
    let momentum = || -> Outcome<[f64; 2]> { Ok([number("base_momentum")?, number("max_momentum")?]) };
    Ok(match name {
        "none" => Decay::Constant,
        "step_lr" => Decay::Step { step_size: a.get("step_size")?, gamma: number("gamma")? },
        "multistep_lr" => Decay::MultiStep { milestones: a.get("milestones")?, gamma: number("gamma")? },
        "exponential_lr" => Decay::Exponential { gamma: number("gamma")? },
        "constant_lr" => Decay::Factor { factor: number("factor")?, total_iters: a.get("total_iters")? },
        "linear_lr" => Decay::Linear {
            start_factor: number("start_factor")?,
            end_factor: number("end_factor")?,
            total_iters: Some(a.get("total_iters")?),
        },
        "polynomial_lr" => Decay::Polynomial { total_iters: Some(a.get("total_iters")?), power: number("power")? },
        "cosine_annealing_lr" => Decay::Cosine { t_max: Some(a.get("T_max")?), eta_min: number("eta_min")? },
        "cosine_annealing_warm_restarts" => {
            Decay::WarmRestarts { t_0: a.get("T_0")?, t_mult: a.get("T_mult")?, eta_min: number("eta_min")? }
        }
        "one_cycle_lr" => Decay::OneCycle {
            pct_start: number("pct_start")?,
            div_factor: number("div_factor")?,
            final_div_factor: number("final_div_factor")?,
            linear: match a.get::<String>("anneal_strategy")?.as_str() {
                "cos" => false,
                "linear" => true,
                other => return unsupported(format!("anneal_strategy {other}")),
            },
            three_phase: a.get("three_phase")?,
            momentum: momentum()?,
        },
        "cyclic_lr" => Decay::Cyclic {
            max_lr: number("max_lr")?,
            step_size_up: a.get("step_size_up")?,
            step_size_down: a.get("step_size_down")?,
            mode: match a.get::<String>("mode")?.as_str() {
                "triangular" => Cycle::Triangular,
                "triangular2" => Cycle::Triangular2,
                "exp_range" => Cycle::ExpRange { gamma: number("gamma")? },
                other => return unsupported(format!("mode {other}")),
            },
            momentum: momentum()?,
        },
        "inverse_sqrt_lr" => Decay::InverseSqrt { warmup_steps: a.get("warmup_steps")? },
        "sequential_lr" => match (a.get::<Option<u64>>("warmup_steps")?, a.get::<Option<u64>>("constant_steps")?) {
            (Some(steps), None) => Decay::Chain {
                first: Box::new(Decay::Linear { start_factor: number("start_factor")?, end_factor: 1.0, total_iters: Some(steps) }),
                steps,
                then: Box::new(Decay::Cosine { t_max: Some(a.get("T_max")?), eta_min: number("eta_min")? }),
            },
            (None, Some(steps)) => Decay::Chain {
                first: Box::new(Decay::Factor { factor: number("factor")?, total_iters: steps }),
                steps,
                then: Box::new(Decay::Exponential { gamma: number("gamma")? }),
            },
            _ => return unsupported("a chain of other parts"),
        },
        _ => return unsupported(format!("schedule {name}")),
    }
    .into())
}

fn run(g: &Golden) -> Outcome<Vec<Output>> {
    let (a, steps) = (g.attributes(), g.attribute::<u64>("steps")?);
    let schedule = schedule_of(&g.case.op, a)?;
    // The rate that the others are measured by: the smallest of a cycle, the largest of one cycle.
    let base_lr = match g.case.op.as_str() {
        "one_cycle_lr" => a.get("max_lr")?,
        "cyclic_lr" => a.get("min_lr")?,
        _ => a.get("base_lr")?,
    };
    let total = a.get::<Option<u64>>("total_steps")?.unwrap_or(steps);
    let rates: Vec<f64> = (0..steps).map(|step| schedule.lr(base_lr, step, total)).collect();
    let mut outputs = vec![Output::floats("lr", &[rates.len()], rates)];
    if let Some(momenta) = (0..steps).map(|step| schedule.momentum(step, total)).collect::<Option<Vec<f64>>>() {
        outputs.push(Output::floats("momentum", &[momenta.len()], momenta));
    }
    Ok(outputs)
}

fn plateau(g: &Golden) -> Outcome<Vec<Output>> {
    let one_of = |key: &str, no: &str, yes: &str| match g.attribute::<String>(key)? {
        text if text == no => Ok(false),
        text if text == yes => Ok(true),
        other => unsupported(format!("{key} {other}")),
    };
    let mut plateau = Plateau {
        max: one_of("mode", "min", "max")?,
        factor: g.attribute("factor")?,
        patience: g.attribute("patience")?,
        threshold: g.attribute("threshold")?,
        absolute: one_of("threshold_mode", "rel", "abs")?,
        cooldown: g.attribute("cooldown")?,
        min_lr: g.attribute("min_lr")?,
        eps: g.attribute("eps")?,
        ..Plateau::new(g.attribute("base_lr")?)
    };
    let mut rates = Vec::new();
    for metric in g.input("metric")?.to_vec_blocking::<f32>()?.into_iter().take(g.attribute("steps")?) {
        rates.push(plateau.lr);
        plateau.report(f64::from(metric));
    }
    Ok(vec![Output::floats("lr", &[rates.len()], rates)])
}
