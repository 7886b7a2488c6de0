//! Elementwise functions.

use super::fast::{self, add_assign, exp, map, relu, tanh, zip};
use super::{Args, outputs};
use crate::dtype::{DType, Real};
use crate::error::Result;
use crate::op::{Binary, Comparison, Elementwise, Unary};
use crate::shape::{Spec, collapse};

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
        Elementwise::Compare(f) => match args.specs[0].dtype {
            DType::I32 => compare::<i32>(f, args),
            DType::U32 => compare::<u32>(f, args),
            _ => compare::<T>(f, args),
        },
        Elementwise::Where => match args.specs[1].dtype {
            DType::F64 => choose::<u64>(args),
            _ => choose::<u32>(args),
        },
        Elementwise::Cast { dtype } => cast(args, dtype),
        Elementwise::Classify { nan, positive_infinity, negative_infinity } => {
            let [y] = outputs::<u32, 1>(&mut args.outs);
            let x: &[T] = bytemuck::cast_slice(args.ins[0]);
            for (y, x) in y.iter_mut().zip(x) {
                let x = x.to_f64();
                let is = nan && x.is_nan() || positive_infinity && x == f64::INFINITY || negative_infinity && x == f64::NEG_INFINITY;
                *y = is as u32;
            }
        }
        Elementwise::AddAssign if fast => {
            let [acc] = outputs::<f32, 1>(&mut args.outs);
            add_assign(acc, bytemuck::cast_slice(args.ins[1]));
        }
        Elementwise::AddAssign => {
            let [acc] = outputs::<T, 1>(&mut args.outs);
            let x: &[T] = bytemuck::cast_slice(args.ins[1]);
            for (acc, x) in acc.iter_mut().zip(x) {
                *acc = T::from_f64(acc.to_f64() + x.to_f64());
            }
        }
        Elementwise::Fill { value, spec } => match spec.dtype {
            DType::U32 | DType::I32 => fast::fill(outputs::<u32, 1>(&mut args.outs)[0], value as u32),
            _ => fast::fill(outputs::<T, 1>(&mut args.outs)[0], T::from_f64(value)),
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
        Unary::Rsqrt => 1.0 / x.sqrt(),
        Unary::Sign => {
            // PyTorch's sign of NaN is 0.
            if x == 0.0 || x.is_nan() { 0.0 } else { x.signum() }
        }
        Unary::Floor => x.floor(),
        Unary::Ceil => x.ceil(),
        Unary::Round => x.round_ties_even(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tan => x.tan(),
        Unary::Asin => x.asin(),
        Unary::Acos => x.acos(),
        Unary::Atan => x.atan(),
        Unary::Sinh => x.sinh(),
        Unary::Cosh => x.cosh(),
        Unary::Asinh => x.asinh(),
        Unary::Acosh => x.acosh(),
        Unary::Atanh => x.atanh(),
        Unary::Erf => libm::erf(x),
        Unary::Pow { exponent } => x.powf(exponent),
        // Not `f64::clamp`, which panics where the bounds are crossed; PyTorch then gives `max`.
        Unary::Clamp { min, max } => {
            if x.is_nan() {
                x
            } else {
                x.max(min).min(max)
            }
        }
        Unary::Threshold { threshold, value } => {
            if x <= threshold {
                value
            } else {
                x
            }
        }
        Unary::Elu { alpha } => exponential_unit(x, 1.0, alpha, 1.0),
        Unary::Selu => exponential_unit(x, SELU.0, SELU.0 * SELU.1, 1.0),
        Unary::Celu { alpha } => exponential_unit(x, 1.0, alpha, 1.0 / alpha),
        Unary::Gelu => x * 0.5 * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        Unary::GeluTanh => 0.5 * x * (1.0 + gelu_angle(x).tanh()),
        Unary::Silu => x * sigmoid(x),
        Unary::Mish => x * softplus(x).tanh(),
        Unary::Hardswish => x * unary(Unary::Hardsigmoid, x),
        Unary::Hardsigmoid => unary(Unary::Clamp { min: 0.0, max: 6.0 }, x + 3.0) / 6.0,
        Unary::Softplus { beta, threshold } => {
            if beta * x > threshold {
                x
            } else {
                softplus(beta * x) / beta
            }
        }
        Unary::Softsign => x / (1.0 + x.abs()),
        Unary::LogSigmoid => -softplus(-x),
    }
}

/// Scale and alpha of selu.
const SELU: (f64, f64) = (1.050_700_987_355_480_5, 1.673_263_242_354_377_2);

/// `positive x` above 0, else `negative (e^(rate x) - 1)`.
fn exponential_unit(x: f64, positive: f64, negative: f64, rate: f64) -> f64 {
    if x > 0.0 { positive * x } else { negative * (rate * x).exp_m1() }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// `log(1 + e^x)` without overflow.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// `sqrt(2 / pi) (x + 0.044715 x^3)`
fn gelu_angle(x: f64) -> f64 {
    (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)
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
        Unary::Rsqrt => -0.5 * s * s * s * dy,
        Unary::Sign | Unary::Floor | Unary::Ceil | Unary::Round => 0.0,
        Unary::Sin => s.cos() * dy,
        Unary::Cos => -s.sin() * dy,
        Unary::Tan => (1.0 + s * s) * dy,
        Unary::Asin => dy / ((1.0 - s) * (1.0 + s)).sqrt(),
        Unary::Acos => -dy / ((1.0 - s) * (1.0 + s)).sqrt(),
        Unary::Atan => dy / (1.0 + s * s),
        Unary::Sinh => s.cosh() * dy,
        Unary::Cosh => s.sinh() * dy,
        Unary::Asinh => dy / (1.0 + s * s).sqrt(),
        Unary::Acosh => dy / ((s - 1.0) * (s + 1.0)).sqrt(),
        Unary::Atanh => dy / ((1.0 - s) * (1.0 + s)),
        Unary::Erf => std::f64::consts::FRAC_2_SQRT_PI * (-s * s).exp() * dy,
        Unary::Pow { exponent } => {
            if exponent == 0.0 {
                0.0
            } else {
                exponent * s.powf(exponent - 1.0) * dy
            }
        }
        Unary::Clamp { min, max } => pass(s > min && s < max, dy),
        Unary::Threshold { threshold, .. } => pass(s > threshold, dy),
        Unary::Elu { alpha } => exponential_slope(s, 1.0, alpha, 1.0) * dy,
        Unary::Selu => exponential_slope(s, SELU.0, SELU.0 * SELU.1, 1.0) * dy,
        Unary::Celu { alpha } => exponential_slope(s, 1.0, alpha, 1.0 / alpha) * dy,
        Unary::Gelu => {
            let density = (-0.5 * s * s).exp() * 0.5 * std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2;
            (0.5 * (1.0 + libm::erf(s * std::f64::consts::FRAC_1_SQRT_2)) + s * density) * dy
        }
        Unary::GeluTanh => {
            let t = gelu_angle(s).tanh();
            let slope = (2.0 / std::f64::consts::PI).sqrt() * (1.0 + 3.0 * 0.044_715 * s * s);
            (0.5 * (1.0 + t) + 0.5 * s * (1.0 - t * t) * slope) * dy
        }
        Unary::Silu => sigmoid(s) * (1.0 + s * (1.0 - sigmoid(s))) * dy,
        Unary::Mish => {
            let t = softplus(s).tanh();
            (t + s * sigmoid(s) * (1.0 - t * t)) * dy
        }
        Unary::Hardswish => {
            if s <= -3.0 {
                0.0
            } else if s >= 3.0 {
                dy
            } else {
                (s / 3.0 + 0.5) * dy
            }
        }
        Unary::Hardsigmoid => pass(s > -3.0 && s < 3.0, dy / 6.0),
        Unary::Softplus { beta, threshold } => {
            if beta * s > threshold {
                dy
            } else {
                sigmoid(beta * s) * dy
            }
        }
        Unary::Softsign => dy / ((1.0 + s.abs()) * (1.0 + s.abs())),
        Unary::LogSigmoid => sigmoid(-s) * dy,
    }
}

/// `value` where it passes, else 0, also for an infinite `value`.
fn pass(passes: bool, value: f64) -> f64 {
    if passes { value } else { 0.0 }
}

/// The derivative of [`exponential_unit`].
fn exponential_slope(x: f64, positive: f64, negative: f64, rate: f64) -> f64 {
    if x > 0.0 { positive } else { negative * rate * (rate * x).exp() }
}

/// f32 loops that vectorise, for the functions that training spends time in. False: not one of them.
fn unary_fast(f: Unary, args: &mut Args) -> bool {
    let [y] = outputs::<f32, 1>(&mut args.outs);
    let x: &[f32] = bytemuck::cast_slice(args.ins[0]);
    match f {
        Unary::Relu => map(x, y, relu),
        Unary::LeakyRelu { negative_slope } => map(x, y, |x| if x > 0.0 { x } else { negative_slope as f32 * x }),
        Unary::Affine { scale, shift } => map(x, y, |x| scale as f32 * x + shift as f32),
        Unary::Square => map(x, y, |x| x * x),
        Unary::Exp => map(x, y, exp),
        Unary::Tanh => map(x, y, tanh),
        Unary::Sigmoid => map(x, y, fast::sigmoid),
        Unary::Silu => map(x, y, |x| x * fast::sigmoid(x)),
        Unary::Clamp { min, max } => {
            let (min, max) = (min as f32, max as f32);
            map(x, y, |x| {
                let x = if x < min { min } else { x };
                if x > max { max } else { x }
            });
        }
        _ => return false,
    }
    true
}

fn unary_backward_fast(f: Unary, args: &mut Args) -> bool {
    let [dx] = outputs::<f32, 1>(&mut args.outs);
    let (s, dy): (&[f32], &[f32]) = (bytemuck::cast_slice(args.ins[0]), bytemuck::cast_slice(args.ins[1]));
    match f {
        Unary::Relu => zip(s, dy, dx, |s, dy| if s > 0.0 { dy } else { 0.0 }),
        Unary::Tanh => zip(s, dy, dx, |s, dy| (1.0 - s * s) * dy),
        Unary::Sigmoid => zip(s, dy, dx, |s, dy| s * (1.0 - s) * dy),
        Unary::Exp => zip(s, dy, dx, |s, dy| s * dy),
        Unary::Affine { scale, .. } => zip(s, dy, dx, |_, dy| scale as f32 * dy),
        Unary::LeakyRelu { negative_slope } => zip(s, dy, dx, |s, dy| if s > 0.0 { dy } else { negative_slope as f32 * dy }),
        Unary::Clamp { min, max } => {
            let (min, max) = (min as f32, max as f32);
            zip(s, dy, dx, |s, dy| if s > min && s < max { dy } else { 0.0 });
        }
        _ => return false,
    }
    true
}

fn apply(f: Binary, a: f64, b: f64) -> f64 {
    match f {
        Binary::Add => a + b,
        Binary::Sub => a - b,
        Binary::Mul => a * b,
        Binary::Div => a / b,
        // PyTorch's maximum is NaN where one operand is; Rust's is the other operand.
        Binary::Maximum if a.is_nan() || b.is_nan() => f64::NAN,
        Binary::Maximum => a.max(b),
        Binary::Minimum if a.is_nan() || b.is_nan() => f64::NAN,
        Binary::Minimum => a.min(b),
        Binary::Pow => a.powf(b),
        Binary::Remainder => {
            let rest = a % b;
            if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest }
        }
        Binary::Fmod => a % b,
    }
}

fn compares<T: PartialOrd>(f: Comparison, a: T, b: T) -> bool {
    match f {
        Comparison::Eq => a == b,
        Comparison::Ne => a != b,
        Comparison::Lt => a < b,
        Comparison::Le => a <= b,
        Comparison::Gt => a > b,
        Comparison::Ge => a >= b,
    }
}

/// Calls `f` with the number of each element of the result, and where its operands lie.
fn broadcast<const N: usize>(specs: &[Spec], out: &Spec, mut f: impl FnMut(usize, [usize; N])) {
    let strides: [Vec<usize>; N] = std::array::from_fn(|i| specs[i].shape.broadcast_strides(&out.shape));
    let dims = &out.shape;
    for i in 0..dims.len() {
        let (mut rest, mut at) = (i, [0; N]);
        for d in (0..dims.rank()).rev() {
            for (at, strides) in at.iter_mut().zip(&strides) {
                *at += rest % dims[d] * strides[d];
            }
            rest /= dims[d];
        }
        f(i, at);
    }
}

fn compare<T: bytemuck::Pod + PartialOrd>(f: Comparison, args: &mut Args) {
    let [y] = outputs::<u32, 1>(&mut args.outs);
    let (a, b): (&[T], &[T]) = (bytemuck::cast_slice(args.ins[0]), bytemuck::cast_slice(args.ins[1]));
    broadcast(args.specs, &args.out_specs[0], |i, [ia, ib]| y[i] = compares(f, a[ia], b[ib]) as u32);
}

/// `T` is a word of the operands' size: the bits are copied, whatever they mean.
fn choose<T: bytemuck::Pod>(args: &mut Args) {
    let [y] = outputs::<T, 1>(&mut args.outs);
    let condition: &[u32] = bytemuck::cast_slice(args.ins[0]);
    let (a, b): (&[T], &[T]) = (bytemuck::cast_slice(args.ins[1]), bytemuck::cast_slice(args.ins[2]));
    broadcast(args.specs, &args.out_specs[0], |i, [ic, ia, ib]| y[i] = if condition[ic] != 0 { a[ia] } else { b[ib] });
}

/// f64 holds every f32, i32 and u32; `as` saturates and makes 0 of NaN.
fn cast(args: &mut Args, dtype: DType) {
    let x: Vec<f64> = match args.specs[0].dtype {
        DType::I32 => bytemuck::cast_slice::<u8, i32>(args.ins[0]).iter().map(|&x| x as f64).collect(),
        DType::U32 => bytemuck::cast_slice::<u8, u32>(args.ins[0]).iter().map(|&x| x as f64).collect(),
        DType::F32 | DType::F16 => bytemuck::cast_slice::<u8, f32>(args.ins[0]).iter().map(|&x| x as f64).collect(),
        DType::F64 => bytemuck::cast_slice::<u8, f64>(args.ins[0]).to_vec(),
    };
    let y = &mut args.outs[0];
    match dtype {
        DType::I32 => bytemuck::cast_slice_mut::<u8, i32>(y).iter_mut().zip(x).for_each(|(y, x)| *y = x as i32),
        DType::U32 => bytemuck::cast_slice_mut::<u8, u32>(y).iter_mut().zip(x).for_each(|(y, x)| *y = x as u32),
        DType::F32 | DType::F16 => bytemuck::cast_slice_mut::<u8, f32>(y).iter_mut().zip(x).for_each(|(y, x)| *y = x as f32),
        DType::F64 => bytemuck::cast_slice_mut::<u8, f64>(y).copy_from_slice(&x),
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
            _ => zip(a, b, y, |a, b| apply(f, a as f64, b as f64) as f32),
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
