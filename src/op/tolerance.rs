//! How far two correct f32 implementations of an operation may differ.
//!
//! A sum of K terms in f32 makes an error that grows like `u sqrt(K)` times the sum's typical size (Higham and Mary 2019,
//! "A new approach to probabilistic rounding error analysis": `lambda sqrt(K) u` holds with probability `1 - 2 exp(-lambda^2 / 2)` per result).
//! The typical size is the larger of the result itself and `sqrt(K)` times the largest term, since terms of both signs cancel.
//! Functions add the units in the last place that `shaders/shared/math.wgsl` and WGSL's own accuracy table promise.

use super::elementwise::Saved;
use super::{After, Binary, Elementwise, Norm, Op, Optimizer, Reduce, ReduceKind, Softmax, Unary};
use crate::dtype::DType;
use crate::shape::Spec;

/// Unit roundoff of f32.
const U: f64 = 1.0 / 16_777_216.0;
/// Unit roundoff of f16, and its smallest normal number.
const U16: f64 = 1.0 / 2048.0;
const F16_SMALLEST: f64 = 1.0 / 16384.0;
/// `lambda` of the module's comment: at 6 one result in 3e7 would exceed it by chance.
const LAMBDA: f64 = 6.0;

/// The largest finite magnitudes that occur in a call: of each input, and of the output under test.
#[derive(Debug, Clone)]
pub struct Magnitudes<'a> {
    /// Of each input.
    pub inputs: &'a [f64],
    /// Of the output.
    pub output: f64,
}

impl Op {
    /// The largest allowed absolute difference of output number `output` (operands updated in place follow the results) from the exact one, in f32
    /// arithmetic. 0 asks for equality.
    ///
    /// f16 is a way to store: an operation computes in f32 and rounds its result once, for which WGSL allows either neighbour, and flushes what is below
    /// f16's smallest normal number if the device likes.
    pub fn tolerance(&self, inputs: &[Spec], outputs: &[Spec], output: usize, size: &Magnitudes) -> f64 {
        let in_f32 = self.f32_tolerance(inputs, outputs, output, size);
        let updated = || self.in_place().get(output - outputs.len()).and_then(|&i| inputs.get(i));
        let result = outputs.get(output).or_else(updated).map(|spec| spec.dtype);
        let moved = match self {
            Op::Layout(layout) => !matches!(layout, super::Layout::IndexAdd { .. } | super::Layout::ScatterAdd { .. }),
            Op::Elementwise(op) => matches!(op, Elementwise::Where | Elementwise::Fill { .. }),
            _ => false,
        };
        if result == Some(DType::F16) && !moved { in_f32 + 2.0 * U16 * size.output + F16_SMALLEST } else { in_f32 }
    }

    fn f32_tolerance(&self, inputs: &[Spec], outputs: &[Spec], output: usize, size: &Magnitudes) -> f64 {
        if outputs.get(output).is_some_and(|s| !s.dtype.is_float()) {
            return 0.0;
        }
        let input = |i: usize| size.inputs.get(i).copied().unwrap_or(0.0);
        // An error of `ulps` roundings of the result, and a sum of `terms` terms of at most `term`.
        let rounded = |ulps: f64| ulps * U * size.output;
        let summed = |terms: usize, term: f64| {
            let root = (terms.max(1) as f64).sqrt();
            LAMBDA * U * root * size.output.max(root * term)
        };
        // e^t with t = b log a: an error of 8 roundings of t is one of 8 U |t| of the result y, and y |log y| is at most 1/e below 1.
        let power = |y: f64| 8.0 * U * (y * (2.0 + y.max(1.0).ln()) + 0.4);
        match self {
            Op::Layout(super::Layout::IndexAdd { .. } | super::Layout::ScatterAdd { .. }) => summed(inputs[1].shape.len(), input(0)),
            Op::Layout(_) | Op::Elementwise(Elementwise::Fill { .. } | Elementwise::Where) => 0.0,
            // From integers a conversion may round either way.
            Op::Elementwise(Elementwise::Cast { .. }) => {
                if inputs[0].dtype.is_float() {
                    0.0
                } else {
                    rounded(2.0)
                }
            }
            Op::Random(super::Random::Normal { std, .. }) => {
                // log, square root and sine: sin and cos are within 2^-22 absolute, radius at most sqrt(2 * 24 ln 2) = 5.8.
                rounded(16.0) + std.abs() * 5.8 * 16.0 * U
            }
            Op::Random(_) => rounded(4.0),
            Op::Elementwise(Elementwise::Unary(f)) => match f {
                Unary::Neg | Unary::Abs | Unary::Relu | Unary::Sign | Unary::Floor | Unary::Ceil | Unary::Round => 0.0,
                Unary::Clamp { .. } | Unary::Threshold { .. } => 0.0,
                // The reduced angle errs by U and by |x| 2^-42, see cos_sin; the tangent's slope is 1 + tan^2.
                Unary::Sin | Unary::Cos => 8.0 * U + input(0) * 2.0_f64.powi(-41),
                Unary::Tan => (8.0 * U + input(0) * 2.0_f64.powi(-41)) * (1.0 + size.output * size.output),
                // Angles up to pi, and 1 + erf, are sums whose parts round at their own size.
                Unary::Asin | Unary::Acos | Unary::Atan | Unary::Erf => rounded(8.0) + 8.0 * U,
                Unary::Gelu | Unary::GeluTanh => rounded(16.0) + 4.0 * U * input(0),
                Unary::Pow { .. } => power(size.output),
                // WGSL: the error of exp is 3 + 2|x| ulp, of log 3 ulp or 2^-21 absolute near 1.
                Unary::Exp => rounded(8.0),
                Unary::Log => rounded(8.0) + 2.0_f64.powi(-21),
                Unary::Sqrt | Unary::Square | Unary::Reciprocal | Unary::Rsqrt | Unary::LeakyRelu { .. } | Unary::Affine { .. } => {
                    rounded(8.0)
                }
                // A few functions of 4 ulp each, and the roundings between them.
                _ => rounded(24.0),
            },
            // 1 - s^2 and s (1 - s) round at the size of 1 before dy multiplies them.
            // Others add such terms at the size of s.
            Op::Elementwise(Elementwise::UnaryBackward(Unary::Pow { .. })) => 4.0 * power(size.output) + 16.0 * U * input(1),
            Op::Elementwise(Elementwise::UnaryBackward(f)) if f.saved() == Saved::Input => {
                rounded(32.0) + 4.0 * U * (1.0 + input(0)) * input(1)
            }
            Op::Elementwise(Elementwise::UnaryBackward(_)) => rounded(16.0) + 2.0 * U * input(1),
            Op::Elementwise(Elementwise::Binary(Binary::Maximum | Binary::Minimum | Binary::Fmod)) => 0.0,
            Op::Elementwise(Elementwise::Binary(Binary::Pow)) => power(size.output),
            // WGSL's division is within 2.5 ulp.
            Op::Elementwise(_) => rounded(6.0),
            Op::Matmul(op) => {
                let k = op.sizes(&inputs[0].shape, &inputs[1].shape).map_or(1, |s| s.k);
                summed(k + 1, input(0) * input(1)) + rounded(2.0) + U * input(2)
            }
            Op::Conv(op) => {
                let macs = op.macs(inputs, outputs) as usize;
                let terms = match outputs[0].shape.len() {
                    0 => 1,
                    n => macs.div_ceil(n),
                };
                summed(terms + 1, input(0) * input(1)) + rounded(2.0) + U * input(2)
            }
            Op::Pool(super::Pool::Max(_)) => 0.0,
            Op::Pool(_) => {
                let terms = if inputs[0].shape.len() > outputs[0].shape.len() {
                    inputs[0].shape.len().div_ceil(outputs[0].shape.len().max(1))
                } else {
                    64
                };
                summed(terms, input(0) / terms as f64) + rounded(6.0)
            }
            Op::Reduce(Reduce { kind, dims, .. }) => {
                let n: usize = dims.iter().map(|&d| inputs[0].shape[d]).product::<usize>().max(1);
                match kind {
                    ReduceKind::Max | ReduceKind::ArgMax | ReduceKind::Min | ReduceKind::ArgMin => 0.0,
                    ReduceKind::Prod => rounded(2.0 + n as f64),
                    ReduceKind::Sum => summed(n, input(0)),
                    ReduceKind::SumSquares => summed(n, 0.0) + rounded(4.0),
                    ReduceKind::Mean => summed(n, input(0) / n as f64) + rounded(6.0),
                    // A deviation is exact to u times the larger of value and mean; squared, relative to the variance.
                    ReduceKind::Var { .. } => summed(n, 0.0) + rounded(16.0) + 8.0 * U * input(0) * size.output.sqrt(),
                }
            }
            // A step errs by its product and by its gates. An error passes on through the forget gate, at most 1, and through slopes of at most about 1/2 and
            // the weights, whose gain on errors of either sign is sqrt(H) times their size; the steps' errors add.
            Op::Recurrent(op) if op.is_layer() => {
                let (steps, wide) = (inputs[0].shape[0] as f64, inputs[0].shape[2]);
                let largest = size.inputs.iter().fold(1.0_f64.max(size.output), |a: f64, &b| a.max(b));
                let gain = 1.0 + (wide as f64 / 4.0).sqrt() * input(1) / 2.0;
                steps * gain * (summed(wide + 1, input(1)) + 48.0 * U * largest)
            }
            // A few gates of 16 roundings each at the size of 1, then products with state and upstream gradient.
            Op::Recurrent(_) => {
                let largest = size.inputs.iter().fold(1.0, |a: f64, &b| a.max(b));
                rounded(16.0) + 32.0 * U * largest
            }
            Op::Scan(super::Scan::Cumsum { dim, .. }) => summed(inputs[0].shape[*dim], input(0)),
            Op::Scan(super::Scan::TopK { .. }) => 0.0,
            Op::Softmax(op) => {
                let classes = inputs[0].shape.iter().copied().max().unwrap_or(1);
                let sums = LAMBDA * U * (classes as f64).sqrt();
                match op {
                    // log-sum-exp: relative error of the sum becomes absolute; the difference x - lse rounds at the size of x.
                    Softmax::LogSoftmax { .. } => rounded(8.0) + sums + 8.0 * U * (1.0 + input(0)),
                    Softmax::LogSoftmaxBackward { .. } => rounded(16.0) + summed(classes, input(1)) + 8.0 * U * classes as f64 * input(1),
                    Softmax::CrossEntropy(_) => {
                        let weight = if inputs.len() > 2 { input(2).max(1.0) } else { 1.0 };
                        weight * (rounded(8.0) + sums + 8.0 * U * (1.0 + input(0)))
                    }
                    Softmax::CrossEntropyBackward(_) => {
                        let weight = if inputs.len() > 3 { input(2).max(1.0) } else { 1.0 };
                        let upstream = input(inputs.len() - 1);
                        weight * upstream * (sums + 32.0 * U + 4.0 * U * input(0))
                    }
                }
            }
            Op::Norm(op) => {
                let channels = inputs[0].shape[1].max(1);
                let n = (inputs[0].shape.len() / channels).max(1);
                let sums = LAMBDA * U * (n as f64).sqrt();
                let residual = if op.after() == After::AddRelu { input(inputs.len() - 1) } else { 0.0 };
                match op {
                    // Normalised values are of size sqrt(n) at most; the mean's error is u |x| invstd in units of y.
                    // A ReLU does not make errors larger; a residual adds a rounding of the sum.
                    Norm::BatchNorm { .. } if output == 0 => {
                        (sums + 16.0 * U) * (size.output + input(2) + residual) + 32.0 * U * (1.0 + input(0)) * input(1)
                    }
                    Norm::BatchNorm { .. } => (sums + 16.0 * U) * size.output + 8.0 * U * input(0),
                    Norm::BatchNormEval { .. } => rounded(16.0) + 16.0 * U * (input(2) + input(3) * input(1) + residual),
                    Norm::BatchNormBackward { .. } if output == 0 => (sums + 32.0 * U) * (size.output + input(1) * input(2) * input(4)),
                    // The residual's gradient is dy or 0.
                    Norm::BatchNormBackward { .. } if output == 3 => 0.0,
                    // Sums of n terms dy and dy xhat, with |xhat| at most about 6 in the cases of interest.
                    Norm::BatchNormBackward { .. } => summed(n, 6.0 * input(1)) + rounded(16.0),
                }
            }
            // With a relative error e of the sum: e / 2 of norm and factor. Counts and powers of two are exact.
            Op::Optimizer(Optimizer::ClipFactor { .. } | Optimizer::LossScale(_)) => summed(inputs[0].shape.len(), 0.0) + rounded(8.0),
            Op::Custom(op) => op.tolerance(inputs, output, size),
            // Updated operands: a few roundings of the operand and of one update.
            Op::Optimizer(_) => rounded(8.0) + 16.0 * U * (input(0) + input(1)),
        }
    }

    /// The tolerance that applies to outputs of `dtype`: f64 results are compared with each other far below any f32 tolerance.
    pub fn tolerance_for(&self, dtype: DType, inputs: &[Spec], outputs: &[Spec], output: usize, size: &Magnitudes) -> f64 {
        let f32_tolerance = self.tolerance(inputs, outputs, output, size);
        if dtype == DType::F64 { f32_tolerance * 2.0_f64.powi(-29) } else { f32_tolerance }
    }
}
