//! Optimiser steps, element by element: in f64, and in f32 as the GPU's kernels take them.

use super::fast::update;
use super::{Args, outputs, typed};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::{AdamStep, LossScaleStep, Optimizer, SgdStep};

pub(super) fn run<T: Real>(op: &Optimizer, args: &mut Args, fast: bool) -> Result<()> {
    if let Optimizer::ClipFactor { max_norm } = *op {
        let norm = typed::<T>(args.ins[0]).iter().map(|v| v.to_f64()).sum::<f64>().sqrt();
        let [y] = outputs::<T, 1>(&mut args.outs);
        y[0] = T::from_f64((max_norm / (norm + 1e-6)).min(1.0));
        y[1] = T::from_f64(norm);
        return Ok(());
    }
    if let Optimizer::LossScale(step) = op {
        let sum = typed::<T>(args.ins[0]).iter().map(|v| v.to_f64()).sum::<f64>();
        let [y, state] = outputs::<T, 2>(&mut args.outs);
        loss_scale(step, sum, state, y);
        return Ok(());
    }
    let (gradient, scale): (&[T], &[T]) = (bytemuck::cast_slice(args.ins[1]), bytemuck::cast_slice(args.ins[2]));
    // Of a loss scaler's four values the third skips the step, the fourth counts those skipped.
    let skipped = match scale {
        [_, _, skip, _] if skip.to_f64() != 0.0 => return Ok(()),
        [_, _, _, skipped] => skipped.to_f64(),
        _ => 0.0,
    };
    let scale = scale[0].to_f64();
    if fast {
        steps(op, args, scale as f32, skipped);
        return Ok(());
    }
    match *op {
        Optimizer::Sgd(step) if step.momentum == 0.0 => {
            let [weight] = outputs::<T, 1>(&mut args.outs);
            for (w, g) in weight.iter_mut().zip(gradient) {
                let mut unused = 0.0;
                *w = T::from_f64(sgd(&step, step.step as f64, w.to_f64(), g.to_f64() * scale, &mut unused));
            }
        }
        Optimizer::Sgd(step) => {
            let [weight, buffer] = outputs::<T, 2>(&mut args.outs);
            let number = step.step as f64 - skipped;
            for ((w, b), g) in weight.iter_mut().zip(buffer).zip(gradient) {
                let mut velocity = b.to_f64();
                *w = T::from_f64(sgd(&step, number, w.to_f64(), g.to_f64() * scale, &mut velocity));
                *b = T::from_f64(velocity);
            }
        }
        Optimizer::Adam(step) => {
            let [weight, first, second] = outputs::<T, 3>(&mut args.outs);
            let number = step.step as f64 - skipped;
            for (((w, m), v), g) in weight.iter_mut().zip(first).zip(second).zip(gradient) {
                let mut moments = [m.to_f64(), v.to_f64()];
                *w = T::from_f64(adam(&step, number, w.to_f64(), g.to_f64() * scale, &mut moments));
                (*m, *v) = (T::from_f64(moments[0]), T::from_f64(moments[1]));
            }
        }
        Optimizer::ClipFactor { .. } | Optimizer::LossScale(_) => {}
    }
    Ok(())
}

/// torch.optim.SGD in step `number`, from 1: `g += weight_decay w; b = momentum b + (1 - dampening) g; w -= lr (nesterov ? g + momentum b : b)`.
fn sgd(o: &SgdStep, number: f64, w: f64, g: f64, buffer: &mut f64) -> f64 {
    let g = if o.maximize { -g } else { g } + o.weight_decay * w;
    if o.momentum == 0.0 {
        return w - o.lr * g;
    }
    *buffer = if number == 1.0 { g } else { o.momentum * *buffer + (1.0 - o.dampening) * g };
    w - o.lr * if o.nesterov { g + o.momentum * *buffer } else { *buffer }
}

/// torch.optim.Adam and AdamW in step `number`, from 1.
fn adam(o: &AdamStep, number: f64, mut w: f64, g: f64, [m, v]: &mut [f64; 2]) -> f64 {
    let mut g = if o.maximize { -g } else { g };
    if o.decoupled {
        w *= 1.0 - o.lr * o.weight_decay;
    } else {
        g += o.weight_decay * w;
    }
    *m = o.beta1 * *m + (1.0 - o.beta1) * g;
    *v = o.beta2 * *v + (1.0 - o.beta2) * g * g;
    let (c1, c2) = (1.0 - o.beta1.powf(number), 1.0 - o.beta2.powf(number));
    w - o.lr / c1 * *m / ((*v / c2).sqrt() + o.eps)
}

/// torch.amp.GradScaler's `unscale_` and `update`, and the clip factor of the unscaled gradients.
fn loss_scale<T: Real>(o: &LossScaleStep, sum: f64, state: &mut [T], y: &mut [T]) {
    let [scale, streak, skipped] = [0, 1, 2].map(|i| state[i].to_f64());
    // As in f32, whose largest number a sum of squares may exceed.
    let overflow = !(sum as f32).is_finite();
    let (factor, norm, next) = if overflow {
        (0.0, 0.0, [scale * o.backoff_factor, 0.0, skipped + 1.0])
    } else {
        let norm = sum.sqrt() / scale;
        let grown = streak + 1.0 >= o.growth_interval as f64;
        let next = if grown { [scale * o.growth_factor, 0.0, skipped] } else { [scale, streak + 1.0, skipped] };
        ((o.max_norm / (norm + 1e-6)).min(1.0) / scale, norm, next)
    };
    for (slot, value) in state.iter_mut().zip(next) {
        *slot = T::from_f64(value);
    }
    for (slot, value) in y.iter_mut().zip([factor, norm, overflow as u32 as f64, next[2]]) {
        *slot = T::from_f64(value);
    }
}

/// The fused steps in f32. Coefficients are computed in f64: `1 - beta^t` cancels.
fn steps(op: &Optimizer, args: &mut Args, scale: f32, skipped: f64) {
    let gradient: &[f32] = bytemuck::cast_slice(args.ins[1]);
    let direction = |maximize: bool| if maximize { -scale } else { scale };
    match *op {
        Optimizer::Sgd(s) => {
            let (sign, decay, lr) = (direction(s.maximize), s.weight_decay as f32, s.lr as f32);
            let (momentum, fresh) = (s.momentum as f32, (1.0 - s.dampening) as f32);
            let first = s.step as f64 - skipped == 1.0;
            let [weight, buffer] = outputs::<f32, 2>(&mut args.outs);
            if s.momentum == 0.0 {
                update([weight], gradient, |[w], g| *w -= lr * (sign * g + decay * *w));
            } else {
                update([weight, buffer], gradient, |[w, b], g| {
                    let g = sign * g + decay * *w;
                    *b = if first { g } else { momentum * *b + fresh * g };
                    *w -= lr * if s.nesterov { g + momentum * *b } else { *b };
                });
            }
        }
        Optimizer::Adam(s) => {
            let number = s.step as f64 - skipped;
            let sign = direction(s.maximize);
            let (beta1, beta2, eps) = (s.beta1 as f32, s.beta2 as f32, s.eps as f32);
            let (fresh1, fresh2) = ((1.0 - s.beta1) as f32, (1.0 - s.beta2) as f32);
            let step_size = (s.lr / (1.0 - s.beta1.powf(number))) as f32;
            let root = (1.0 / (1.0 - s.beta2.powf(number)).sqrt()) as f32;
            // Of the weight and of the gradient.
            let (keep, decay) = if s.decoupled { (1.0 - s.lr * s.weight_decay, 0.0) } else { (1.0, s.weight_decay) };
            let (keep, decay) = (keep as f32, decay as f32);
            let [weight, first, second] = outputs::<f32, 3>(&mut args.outs);
            update([weight, first, second], gradient, |[w, m, v], g| {
                let g = sign * g + decay * *w;
                *m = beta1 * *m + fresh1 * g;
                *v = beta2 * *v + fresh2 * g * g;
                *w = *w * keep - step_size * *m / (v.sqrt() * root + eps);
            });
        }
        Optimizer::ClipFactor { .. } | Optimizer::LossScale(_) => {}
    }
}
