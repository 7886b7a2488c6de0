//! Dispatches of optimiser steps.

use super::{Bound, Kernel, Plan, WG, word};
use crate::backend::Operand;
use crate::error::Result;
use crate::op::Optimizer;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable, Default)]
pub(super) struct Params {
    n: u32,
    lr: f32,
    weight_decay: f32,
    direction: f32,
    a: f32,
    b: f32,
    c: f32,
    d: f32,
    eps: f32,
    step_size: f32,
    root: f32,
    keep: f32,
    number: u32,
    log_a: f32,
    log_c: f32,
    pad: u32,
}

pub(super) fn lower(op: &Optimizer, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let n = inputs[0].spec.shape.len();
    let direction = |maximize: bool| if maximize { -1.0 } else { 1.0 };
    let (kernel, params) = match *op {
        Optimizer::Sgd(s) => {
            let params = Params {
                n: word(n)?,
                lr: s.lr as f32,
                weight_decay: s.weight_decay as f32,
                direction: direction(s.maximize),
                a: s.momentum as f32,
                b: (1.0 - s.dampening) as f32,
                number: s.step,
                ..Default::default()
            };
            if s.momentum == 0.0 {
                (Kernel::new("optimizer", "sgd"), params)
            } else {
                (Kernel::new("optimizer", "sgd_momentum").constant("NESTEROV", s.nesterov as u32), params)
            }
        }
        Optimizer::Adam(s) => {
            // 1 - beta^t in f64: near t = 1 it cancels to a thousandth.
            let correction = |beta: f64| 1.0 - beta.powi(s.step as i32);
            let params = Params {
                n: word(n)?,
                lr: s.lr as f32,
                weight_decay: s.weight_decay as f32,
                direction: direction(s.maximize),
                a: s.beta1 as f32,
                b: (1.0 - s.beta1) as f32,
                c: s.beta2 as f32,
                d: (1.0 - s.beta2) as f32,
                eps: s.eps as f32,
                step_size: (s.lr / correction(s.beta1)) as f32,
                root: (1.0 / correction(s.beta2).sqrt()) as f32,
                keep: (1.0 - s.lr * s.weight_decay) as f32,
                number: s.step,
                // Of beta = 0 the correction is 1; e^-100 is nothing beside that.
                log_a: s.beta1.ln().max(-100.0) as f32,
                log_c: s.beta2.ln().max(-100.0) as f32,
                ..Default::default()
            };
            (Kernel::new("optimizer", "adam").constant("DECOUPLED", s.decoupled as u32), params)
        }
        Optimizer::ClipFactor { max_norm } => {
            let params = Params { n: word(n)?, step_size: max_norm as f32, ..Default::default() };
            let kernel = Kernel::new("optimizer", "clip_factor").constant("WG", WG);
            return plan.push(kernel, &[&inputs[0]], &[&outputs[0]], &params, [1, 1, 1]);
        }
        Optimizer::LossScale(s) => {
            let params = Params {
                n: word(n)?,
                a: s.growth_factor as f32,
                b: s.backoff_factor as f32,
                step_size: s.max_norm.min(f32::MAX as f64) as f32,
                number: s.growth_interval,
                ..Default::default()
            };
            let kernel = Kernel::new("optimizer", "loss_scale").constant("WG", WG);
            return plan.push(kernel, &[&inputs[0]], &[&inputs[1], &outputs[0]], &params, [1, 1, 1]);
        }
    };
    let kernel = kernel.constant("SCALED", (inputs[2].spec.shape.len() >= 4) as u32);
    let in_place = crate::op::Op::Optimizer(*op).in_place();
    let bindings = inputs.iter().enumerate().map(|(i, o)| Bound { operand: o.clone(), write: in_place.contains(&i) }).collect();
    plan.push_bound(kernel.constant("WG", WG), bindings, bytemuck::bytes_of(&params).to_vec(), plan.fold(n, WG)?)
}
