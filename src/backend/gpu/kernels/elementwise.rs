//! Dispatches of elementwise functions.

use super::{Kernel, Plan, WG, eight, strides, word, words};
use crate::backend::Operand;
use crate::dtype::DType;
use crate::error::Result;
use crate::op::{Binary, Comparison, Elementwise, Unary};
use crate::shape::collapse;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable, Default)]
pub(super) struct Params {
    n: u32,
    p: f32,
    q: f32,
    bits: u32,
    sizes: [[u32; 4]; 2],
    stride_a: [[u32; 4]; 2],
    stride_b: [[u32; 4]; 2],
    stride_c: [[u32; 4]; 2],
}

/// The function's number in the shader, and its two parameters.
fn number(f: Unary) -> (u32, f64, f64) {
    match f {
        Unary::Neg => (0, 0.0, 0.0),
        Unary::Exp => (1, 0.0, 0.0),
        Unary::Log => (2, 0.0, 0.0),
        Unary::Sqrt => (3, 0.0, 0.0),
        Unary::Square => (4, 0.0, 0.0),
        Unary::Abs => (5, 0.0, 0.0),
        Unary::Reciprocal => (6, 0.0, 0.0),
        Unary::Relu => (7, 0.0, 0.0),
        Unary::LeakyRelu { negative_slope } => (8, negative_slope, 0.0),
        Unary::Sigmoid => (9, 0.0, 0.0),
        Unary::Tanh => (10, 0.0, 0.0),
        Unary::Affine { scale, shift } => (11, scale, shift),
        Unary::Rsqrt => (12, 0.0, 0.0),
        Unary::Sign => (13, 0.0, 0.0),
        Unary::Floor => (14, 0.0, 0.0),
        Unary::Ceil => (15, 0.0, 0.0),
        Unary::Round => (16, 0.0, 0.0),
        Unary::Sin => (17, 0.0, 0.0),
        Unary::Cos => (18, 0.0, 0.0),
        Unary::Tan => (19, 0.0, 0.0),
        Unary::Asin => (20, 0.0, 0.0),
        Unary::Acos => (21, 0.0, 0.0),
        Unary::Atan => (22, 0.0, 0.0),
        Unary::Sinh => (23, 0.0, 0.0),
        Unary::Cosh => (24, 0.0, 0.0),
        Unary::Asinh => (25, 0.0, 0.0),
        Unary::Acosh => (26, 0.0, 0.0),
        Unary::Atanh => (27, 0.0, 0.0),
        Unary::Erf => (28, 0.0, 0.0),
        Unary::Pow { exponent } => (29, exponent, 0.0),
        Unary::Clamp { min, max } => (30, min, max),
        Unary::Threshold { threshold, value } => (31, threshold, value),
        Unary::Elu { alpha } => (32, alpha, 0.0),
        Unary::Selu => (33, 0.0, 0.0),
        Unary::Celu { alpha } => (34, alpha, 0.0),
        Unary::Gelu => (35, 0.0, 0.0),
        Unary::GeluTanh => (36, 0.0, 0.0),
        Unary::Silu => (37, 0.0, 0.0),
        Unary::Mish => (38, 0.0, 0.0),
        Unary::Hardswish => (39, 0.0, 0.0),
        Unary::Hardsigmoid => (40, 0.0, 0.0),
        Unary::Softplus { beta, threshold } => (41, beta, threshold),
        Unary::Softsign => (42, 0.0, 0.0),
        Unary::LogSigmoid => (43, 0.0, 0.0),
    }
}

pub(super) fn lower(op: &Elementwise, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let kernel = |entry: &'static str, op: u32| Kernel::new("elementwise", entry).constant("WG", WG).constant("OP", op);
    match *op {
        Elementwise::Unary(f) | Elementwise::UnaryBackward(f) => {
            let (number, p, q) = number(f);
            let backward = matches!(op, Elementwise::UnaryBackward(_));
            let n = outputs[0].spec.shape.len();
            // Vectors where the length allows: 5 GB/s against 2 on lavapipe.
            let (entry, n) = match (backward, n.is_multiple_of(4)) {
                (false, true) => ("unary4", n / 4),
                (false, false) => ("unary", n),
                (true, true) => ("unary_backward4", n / 4),
                (true, false) => ("unary_backward", n),
            };
            let params = Params { n: word(n)?, p: p as f32, q: q as f32, ..Default::default() };
            let reads: Vec<&Operand> = inputs.iter().collect();
            plan.push(kernel(entry, number), &reads, &[&outputs[0]], &params, plan.fold(n, WG)?)
        }
        Elementwise::Binary(f) => {
            let number = match f {
                Binary::Add => 0,
                Binary::Sub => 1,
                Binary::Mul => 2,
                Binary::Div => 3,
                Binary::Maximum => 4,
                Binary::Minimum => 5,
                Binary::Pow => 6,
                Binary::Remainder => 7,
                Binary::Fmod => 8,
            };
            let shape = outputs[0].spec.shape;
            let n = shape.len();
            let signed = |i: usize| -> Vec<i64> { inputs[i].spec.shape.broadcast_strides(&shape).iter().map(|&s| s as i64).collect() };
            let (dims, lists) = collapse(&shape, &[&signed(0), &signed(1)]);
            let same = dims.len() == 1 && lists[0] == [1] && lists[1] == [1];
            if same && n.is_multiple_of(4) {
                let params = Params { n: word(n / 4)?, ..Default::default() };
                return plan.push(kernel("binary4", number), &[&inputs[0], &inputs[1]], &[&outputs[0]], &params, plan.fold(n / 4, WG)?);
            }
            broadcast(kernel("binary", number), inputs, outputs, plan)
        }
        Elementwise::Compare(f) => {
            let number = match f {
                Comparison::Eq => 0,
                Comparison::Ne => 1,
                Comparison::Lt => 2,
                Comparison::Le => 3,
                Comparison::Gt => 4,
                Comparison::Ge => 5,
            };
            let kernel = kernel("compare", number).constant("FROM", type_number(inputs[0].spec.dtype));
            broadcast(kernel, inputs, outputs, plan)
        }
        Elementwise::Where => broadcast(kernel("choose", 0), inputs, outputs, plan),
        Elementwise::Cast { .. } => cast(&inputs[0], &outputs[0], plan),
        Elementwise::Classify { nan, positive_infinity, negative_infinity } => {
            let n = outputs[0].spec.shape.len();
            let kinds = nan as u32 | (positive_infinity as u32) << 1 | (negative_infinity as u32) << 2;
            let params = Params { n: word(n)?, ..Default::default() };
            plan.push(kernel("classify", kinds), &[&inputs[0]], &[&outputs[0]], &params, plan.fold(n, WG)?)
        }
        Elementwise::AddAssign => {
            let n = inputs[0].spec.shape.len();
            let params = Params { n: word(n)?, ..Default::default() };
            plan.push(kernel("add_assign", 0), &[&inputs[1]], &[&inputs[0]], &params, plan.fold(n, WG)?)
        }
        Elementwise::Fill { value, .. } => fill(&outputs[0], value, plan),
    }
}

/// The values of `from` as the type of `to`.
pub(super) fn cast(from: &Operand, to: &Operand, plan: &mut Plan) -> Result<()> {
    let n = to.spec.shape.len();
    // One of the types may be f16, which an entry of its own reads or writes; from f16 to itself is a copy, as from f32 to itself.
    let entry = match (from.spec.dtype, to.spec.dtype) {
        (DType::F16, DType::F16) => {
            return super::layout::lower(
                &crate::op::Layout::Expand { shape: to.spec.shape },
                std::slice::from_ref(from),
                std::slice::from_ref(to),
                plan,
            );
        }
        (_, DType::F16) => "to_float",
        (a, _) if a.is_float() => "from_float",
        (_, b) if b.is_float() => "to_float",
        _ => "convert",
    };
    let kernel = Kernel::new("elementwise", entry).constant("WG", WG);
    let (source, target) = (type_number(from.spec.dtype), type_number(to.spec.dtype));
    // Each entry has the constants of what can differ there.
    let kernel = match entry {
        "from_float" => kernel.constant("TO", target),
        "to_float" => kernel.constant("FROM", source),
        _ => kernel.constant("FROM", source).constant("TO", target),
    };
    let params = Params { n: word(n)?, ..Default::default() };
    plan.push(kernel, &[from], &[to], &params, plan.fold(n, WG)?)
}

/// The type's number in the shader.
fn type_number(dtype: DType) -> u32 {
    match dtype {
        DType::F32 | DType::F64 | DType::F16 => 0,
        DType::I32 => 1,
        DType::U32 => 2,
    }
}

/// Up to three operands, each by strides of its own.
fn broadcast(kernel: Kernel, inputs: &[Operand], outputs: &[Operand], plan: &mut Plan) -> Result<()> {
    let shape = outputs[0].spec.shape;
    let n = shape.len();
    let signed = |o: &Operand| -> Vec<i64> { o.spec.shape.broadcast_strides(&shape).iter().map(|&s| s as i64).collect() };
    let own: Vec<Vec<i64>> = inputs.iter().map(signed).collect();
    let (dims, lists) = collapse(&shape, &own.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let mut packed = [[[0; 4]; 2]; 3];
    for (packed, list) in packed.iter_mut().zip(&lists) {
        *packed = eight(&strides(list)?, 0);
    }
    let [stride_a, stride_b, stride_c] = packed;
    let params = Params { n: word(n)?, sizes: eight(&words(dims)?, 1), stride_a, stride_b, stride_c, ..Default::default() };
    plan.push(kernel, &inputs.iter().collect::<Vec<_>>(), &[&outputs[0]], &params, plan.fold(n, WG)?)
}

/// Sets every element of `target`.
pub(super) fn fill(target: &Operand, value: f64, plan: &mut Plan) -> Result<()> {
    let n = target.spec.shape.len();
    let bits = match target.spec.dtype {
        DType::U32 | DType::I32 => value as i64 as u32,
        DType::F16 => u32::from(half::f16::from_f64(value).to_bits()),
        DType::F32 | DType::F64 => (value as f32).to_bits(),
    };
    let params = Params { n: word(n)?, bits, ..Default::default() };
    let kernel = Kernel::new("elementwise", "fill").constant("WG", WG);
    plan.push(kernel, &[], &[target], &params, plan.fold(n, WG)?)
}
