//! Optimiser steps, element by element.

use super::{Args, outputs};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::{AdamStep, Optimizer, SgdStep};

pub(super) fn run<T: Real>(op: &Optimizer, args: &mut Args, _fast: bool) -> Result<()> {
    if let Optimizer::ClipFactor { max_norm } = *op {
        let norm = args.input::<T>(0).iter().map(|v| v.to_f64()).sum::<f64>().sqrt();
        let [y] = outputs::<T, 1>(&mut args.outs);
        y[0] = T::from_f64((max_norm / (norm + 1e-6)).min(1.0));
        y[1] = T::from_f64(norm);
        return Ok(());
    }
    let (gradient, scale): (&[T], &[T]) = (bytemuck::cast_slice(args.ins[1]), bytemuck::cast_slice(args.ins[2]));
    let scale = scale[0].to_f64();
    match *op {
        Optimizer::Sgd(step) if step.momentum == 0.0 => {
            let [weight] = outputs::<T, 1>(&mut args.outs);
            for (w, g) in weight.iter_mut().zip(gradient) {
                let mut unused = 0.0;
                *w = T::from_f64(sgd(&step, w.to_f64(), g.to_f64() * scale, &mut unused));
            }
        }
        Optimizer::Sgd(step) => {
            let [weight, buffer] = outputs::<T, 2>(&mut args.outs);
            for ((w, b), g) in weight.iter_mut().zip(buffer).zip(gradient) {
                let mut velocity = b.to_f64();
                *w = T::from_f64(sgd(&step, w.to_f64(), g.to_f64() * scale, &mut velocity));
                *b = T::from_f64(velocity);
            }
        }
        Optimizer::Adam(step) => {
            let [weight, first, second] = outputs::<T, 3>(&mut args.outs);
            for (((w, m), v), g) in weight.iter_mut().zip(first).zip(second).zip(gradient) {
                let mut moments = [m.to_f64(), v.to_f64()];
                *w = T::from_f64(adam(&step, w.to_f64(), g.to_f64() * scale, &mut moments));
                (*m, *v) = (T::from_f64(moments[0]), T::from_f64(moments[1]));
            }
        }
        Optimizer::ClipFactor { .. } => {}
    }
    Ok(())
}

/// torch.optim.SGD: `g += weight_decay w; b = momentum b + (1 - dampening) g; w -= lr (nesterov ? g + momentum b : b)`.
fn sgd(o: &SgdStep, w: f64, g: f64, buffer: &mut f64) -> f64 {
    let g = if o.maximize { -g } else { g } + o.weight_decay * w;
    if o.momentum == 0.0 {
        return w - o.lr * g;
    }
    *buffer = if o.first { g } else { o.momentum * *buffer + (1.0 - o.dampening) * g };
    w - o.lr * if o.nesterov { g + o.momentum * *buffer } else { *buffer }
}

/// torch.optim.Adam and AdamW.
fn adam(o: &AdamStep, mut w: f64, g: f64, [m, v]: &mut [f64; 2]) -> f64 {
    let mut g = if o.maximize { -g } else { g };
    if o.decoupled {
        w *= 1.0 - o.lr * o.weight_decay;
    } else {
        g += o.weight_decay * w;
    }
    *m = o.beta1 * *m + (1.0 - o.beta1) * g;
    *v = o.beta2 * *v + (1.0 - o.beta2) * g * g;
    let (c1, c2) = (1.0 - o.beta1.powi(o.step as i32), 1.0 - o.beta2.powi(o.step as i32));
    w - o.lr / c1 * *m / ((*v / c2).sqrt() + o.eps)
}
