//! Elementwise functions.

use super::{Args, chunk_len, in_parallel, outputs};
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::op::{Binary, Elementwise, Unary};
use crate::shape::collapse;
use rayon::prelude::*;

/// Elements a thread takes at the least.
const GRAIN: usize = 16_384;

pub(super) fn run<T: Real>(op: &Elementwise, args: &mut Args, fast: bool) -> Result<()> {
    match *op {
        Elementwise::Unary(f) => {
            if fast && unary_fast(f, args) {
                return Ok(());
            }
            let [y] = outputs::<T, 1>(&mut args.outs);
            let x: &[T] = bytemuck::cast_slice(args.ins[0]);
            for (y, x) in y.iter_mut().zip(x) {
                *y = T::from_f64(unary(f, x.to_f64()));
            }
        }
        Elementwise::UnaryBackward(f) => {
            if fast && unary_backward_fast(f, args) {
                return Ok(());
            }
            let [dx] = outputs::<T, 1>(&mut args.outs);
            let (saved, dy): (&[T], &[T]) = (bytemuck::cast_slice(args.ins[0]), bytemuck::cast_slice(args.ins[1]));
            for (dx, (s, dy)) in dx.iter_mut().zip(saved.iter().zip(dy)) {
                *dx = T::from_f64(derivative(f, s.to_f64(), dy.to_f64()));
            }
        }
        Elementwise::Binary(f) => {
            let shape = args.out_specs[0].shape;
            let strides = |i: usize| -> Vec<i64> { args.specs[i].shape.broadcast_strides(&shape).iter().map(|&s| s as i64).collect() };
            let (dims, strides) = collapse(&shape, &[&strides(0), &strides(1)]);
            let [y] = outputs::<T, 1>(&mut args.outs);
            let (a, b): (&[T], &[T]) = (bytemuck::cast_slice(args.ins[0]), bytemuck::cast_slice(args.ins[1]));
            binary(f, a, b, y, &dims, &strides[0], &strides[1], fast);
        }
        Elementwise::AddAssign => {
            let [acc] = outputs::<T, 1>(&mut args.outs);
            let x: &[T] = bytemuck::cast_slice(args.ins[1]);
            for (acc, x) in acc.iter_mut().zip(x) {
                *acc = T::from_f64(acc.to_f64() + x.to_f64());
            }
        }
        Elementwise::Fill { value, spec } => match spec.dtype {
            DType::U32 | DType::I32 => outputs::<u32, 1>(&mut args.outs)[0].fill(value as u32),
            _ => outputs::<T, 1>(&mut args.outs)[0].fill(T::from_f64(value)),
        },
    }
    Ok(())
}

fn unary(f: Unary, x: f64) -> f64 {
    match f {
        Unary::Neg => -x,
        Unary::Exp => x.exp(),
        Unary::Log => x.ln(),
        Unary::Sqrt => x.sqrt(),
        Unary::Square => x * x,
        Unary::Abs => x.abs(),
        Unary::Reciprocal => 1.0 / x,
        // Not `max`, which would turn NaN into 0.
        Unary::Relu => {
            if x <= 0.0 {
                0.0
            } else {
                x
            }
        }
        Unary::LeakyRelu { negative_slope } => {
            if x > 0.0 {
                x
            } else {
                negative_slope * x
            }
        }
        Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
        Unary::Tanh => x.tanh(),
        Unary::Affine { scale, shift } => scale * x + shift,
    }
}

/// `f'(x) dy`; `s` is the input or the output, as `Unary::saved` says.
fn derivative(f: Unary, s: f64, dy: f64) -> f64 {
    match f {
        Unary::Neg => -dy,
        Unary::Exp => s * dy,
        Unary::Log => dy / s,
        Unary::Sqrt => dy / (2.0 * s),
        Unary::Square => 2.0 * s * dy,
        Unary::Abs => {
            if s > 0.0 {
                dy
            } else if s < 0.0 {
                -dy
            } else {
                0.0
            }
        }
        Unary::Reciprocal => -s * s * dy,
        Unary::Relu => {
            if s > 0.0 {
                dy
            } else {
                0.0
            }
        }
        Unary::LeakyRelu { negative_slope } => {
            if s > 0.0 {
                dy
            } else {
                negative_slope * dy
            }
        }
        Unary::Sigmoid => s * (1.0 - s) * dy,
        Unary::Tanh => (1.0 - s * s) * dy,
        Unary::Affine { scale, .. } => scale * dy,
    }
}

/// f32 loops that vectorise, for the functions that training spends time in. False: not one of them.
fn unary_fast(f: Unary, args: &mut Args) -> bool {
    let [y] = outputs::<f32, 1>(&mut args.outs);
    let x: &[f32] = bytemuck::cast_slice(args.ins[0]);
    match f {
        Unary::Relu => map(x, y, |x| if x <= 0.0 { 0.0 } else { x }),
        Unary::LeakyRelu { negative_slope } => map(x, y, |x| if x > 0.0 { x } else { negative_slope as f32 * x }),
        Unary::Affine { scale, shift } => map(x, y, |x| scale as f32 * x + shift as f32),
        Unary::Square => map(x, y, |x| x * x),
        _ => return false,
    }
    true
}

fn unary_backward_fast(f: Unary, args: &mut Args) -> bool {
    let [dx] = outputs::<f32, 1>(&mut args.outs);
    let (s, dy): (&[f32], &[f32]) = (bytemuck::cast_slice(args.ins[0]), bytemuck::cast_slice(args.ins[1]));
    match f {
        Unary::Relu => zip(s, dy, dx, |s, dy| if s > 0.0 { dy } else { 0.0 }),
        Unary::LeakyRelu { negative_slope } => zip(s, dy, dx, |s, dy| if s > 0.0 { dy } else { negative_slope as f32 * dy }),
        _ => return false,
    }
    true
}

fn map(x: &[f32], y: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    let part = |(x, y): (&[f32], &mut [f32])| y.iter_mut().zip(x).for_each(|(y, &x)| *y = f(x));
    if in_parallel() {
        let n = chunk_len(x.len(), GRAIN);
        x.par_chunks(n).zip(y.par_chunks_mut(n)).for_each(part);
    } else {
        part((x, y));
    }
}

fn zip(a: &[f32], b: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    let part = |((a, b), y): ((&[f32], &[f32]), &mut [f32])| y.iter_mut().zip(a.iter().zip(b)).for_each(|(y, (&a, &b))| *y = f(a, b));
    if in_parallel() {
        let n = chunk_len(a.len(), GRAIN);
        a.par_chunks(n).zip(b.par_chunks(n)).zip(y.par_chunks_mut(n)).for_each(part);
    } else {
        part(((a, b), y));
    }
}

fn apply(f: Binary, a: f64, b: f64) -> f64 {
    match f {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        Binary::EqualMask => (a == b) as u32 as f64,
    }
}

#[allow(clippy::too_many_arguments)] // two operands with their strides
fn binary<T: Real>(f: Binary, a: &[T], b: &[T], y: &mut [T], dims: &[usize], sa: &[i64], sb: &[i64], fast: bool) {
    if let (true, [_], [1], [1]) = (fast, dims, sa, sb) {
        let (a, b): (&[f32], &[f32]) = (bytemuck::cast_slice(a), bytemuck::cast_slice(b));
        let y: &mut [f32] = bytemuck::cast_slice_mut(y);
        return match f {
            Binary::Add => zip(a, b, y, |a, b| a + b),
            Binary::Sub => zip(a, b, y, |a, b| a - b),
            Binary::Mul => zip(a, b, y, |a, b| a * b),
            Binary::Div => zip(a, b, y, |a, b| a / b),
            Binary::EqualMask => zip(a, b, y, |a, b| (a == b) as u32 as f32),
        };
    }
    for (i, y) in y.iter_mut().enumerate() {
        let (mut rest, mut ia, mut ib) = (i, 0, 0);
        for d in (0..dims.len()).rev() {
            let at = rest % dims[d];
            rest /= dims[d];
            ia += at * sa[d] as usize;
            ib += at * sb[d] as usize;
        }
        *y = T::from_f64(apply(f, a[ia].to_f64(), b[ib].to_f64()));
    }
}
