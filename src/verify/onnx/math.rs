//! Functions of elements, reductions, products.

use super::node::{Node, Operator, Outcome, Output, axis, malformed, one, unsupported};
use crate::dtype::DType;
use crate::op::{Binary, Comparison, Elementwise, ReduceKind, Unary};
use crate::tensor::Tensor;

const AXES: &[&str] = &["axes", "keepdims", "noop_with_empty_axes"];
const ARG: &[&str] = &["axis", "keepdims", "select_last_index"];

pub(super) const OPERATORS: &[Operator] = &[
    plain("Abs", |n| unary(n, Unary::Abs)),
    plain("Acos", |n| unary(n, Unary::Acos)),
    plain("Acosh", |n| unary(n, Unary::Acosh)),
    plain("Asin", |n| unary(n, Unary::Asin)),
    plain("Asinh", |n| unary(n, Unary::Asinh)),
    plain("Atan", |n| unary(n, Unary::Atan)),
    plain("Atanh", |n| unary(n, Unary::Atanh)),
    plain("Ceil", |n| unary(n, Unary::Ceil)),
    plain("Cos", |n| unary(n, Unary::Cos)),
    plain("Cosh", |n| unary(n, Unary::Cosh)),
    plain("Erf", |n| unary(n, Unary::Erf)),
    plain("Exp", |n| unary(n, Unary::Exp)),
    plain("Floor", |n| unary(n, Unary::Floor)),
    plain("HardSwish", |n| unary(n, Unary::Hardswish)),
    plain("Log", |n| unary(n, Unary::Log)),
    plain("Mish", |n| unary(n, Unary::Mish)),
    plain("Neg", |n| unary(n, Unary::Neg)),
    plain("Reciprocal", |n| unary(n, Unary::Reciprocal)),
    plain("Relu", |n| unary(n, Unary::Relu)),
    plain("Round", |n| unary(n, Unary::Round)),
    plain("Sigmoid", |n| unary(n, Unary::Sigmoid)),
    plain("Sign", |n| unary(n, Unary::Sign)),
    plain("Sin", |n| unary(n, Unary::Sin)),
    plain("Sinh", |n| unary(n, Unary::Sinh)),
    plain("Softplus", |n| unary(n, Unary::Softplus { beta: 1.0, threshold: 20.0 })),
    plain("Softsign", |n| unary(n, Unary::Softsign)),
    plain("Sqrt", |n| unary(n, Unary::Sqrt)),
    plain("Tan", |n| unary(n, Unary::Tan)),
    plain("Tanh", |n| unary(n, Unary::Tanh)),
    Operator { name: "Elu", attributes: &["alpha"], run: |n| unary(n, Unary::Elu { alpha: n.attribute("alpha", 1.0)? }) },
    Operator { name: "Celu", attributes: &["alpha"], run: |n| unary(n, Unary::Celu { alpha: n.attribute("alpha", 1.0)? }) },
    Operator {
        name: "LeakyRelu",
        attributes: &["alpha"],
        run: |n| unary(n, Unary::LeakyRelu { negative_slope: n.attribute("alpha", 0.01)? }),
    },
    Operator {
        name: "ThresholdedRelu",
        attributes: &["alpha"],
        run: |n| unary(n, Unary::Threshold { threshold: n.attribute("alpha", 1.0)?, value: 0.0 }),
    },
    Operator { name: "Selu", attributes: &["alpha", "gamma"], run: selu },
    Operator { name: "HardSigmoid", attributes: &["alpha", "beta"], run: hard_sigmoid },
    Operator { name: "Gelu", attributes: &["approximate"], run: gelu },
    Operator { name: "Swish", attributes: &["alpha"], run: swish },
    Operator { name: "SwiGLU", attributes: &["alpha"], run: swiglu },
    Operator { name: "Shrink", attributes: &["lambd", "bias"], run: shrink },
    plain("PRelu", prelu),
    plain("Clip", clip),
    plain("Add", |n| binary(n, Binary::Add)),
    plain("Sub", |n| binary(n, Binary::Sub)),
    plain("Mul", |n| binary(n, Binary::Mul)),
    plain("Div", |n| binary(n, Binary::Div)),
    plain("Pow", pow),
    Operator {
        name: "Mod",
        attributes: &["fmod"],
        run: |n| binary(n, if n.flag("fmod", false)? { Binary::Fmod } else { Binary::Remainder }),
    },
    plain("Max", |n| fold(n, Binary::Maximum)),
    plain("Min", |n| fold(n, Binary::Minimum)),
    plain("Sum", |n| fold(n, Binary::Add)),
    plain("Mean", mean),
    plain("Equal", |n| compare(n, Comparison::Eq)),
    plain("Greater", |n| compare(n, Comparison::Gt)),
    plain("GreaterOrEqual", |n| compare(n, Comparison::Ge)),
    plain("Less", |n| compare(n, Comparison::Lt)),
    plain("LessOrEqual", |n| compare(n, Comparison::Le)),
    plain("IsNaN", |n| one(n.input(0)?.isnan()?)),
    Operator { name: "IsInf", attributes: &["detect_positive", "detect_negative"], run: is_inf },
    plain("Where", |n| one(n.input(1)?.where_(&n.input(0)?.cast(DType::U32)?, &n.input(2)?)?)),
    Operator { name: "ReduceSum", attributes: AXES, run: |n| reduce(n, |x, d, k| x.sum(Some(d), k)) },
    Operator { name: "ReduceMean", attributes: AXES, run: |n| reduce(n, |x, d, k| x.mean(Some(d), k)) },
    Operator { name: "ReduceProd", attributes: AXES, run: |n| reduce(n, |x, d, k| x.prod(Some(d), k)) },
    Operator { name: "ReduceMax", attributes: AXES, run: |n| extreme(n, ReduceKind::Max, f64::NEG_INFINITY) },
    Operator { name: "ReduceMin", attributes: AXES, run: |n| extreme(n, ReduceKind::Min, f64::INFINITY) },
    Operator { name: "ReduceL1", attributes: AXES, run: |n| reduce(n, |x, d, k| x.norm(1.0, Some(d), k)) },
    Operator { name: "ReduceL2", attributes: AXES, run: |n| reduce(n, |x, d, k| x.norm(2.0, Some(d), k)) },
    Operator { name: "ReduceSumSquare", attributes: AXES, run: |n| reduce(n, |x, d, k| x.reduce(ReduceKind::SumSquares, Some(d), k)) },
    Operator { name: "ReduceLogSum", attributes: AXES, run: |n| reduce(n, |x, d, k| x.sum(Some(d), k)?.unary(Unary::Log)) },
    Operator { name: "ReduceLogSumExp", attributes: AXES, run: |n| reduce(n, |x, d, k| x.logsumexp(d, k)) },
    Operator { name: "ArgMax", attributes: ARG, run: |n| arg(n, ReduceKind::ArgMax) },
    Operator { name: "ArgMin", attributes: ARG, run: |n| arg(n, ReduceKind::ArgMin) },
    Operator { name: "TopK", attributes: &["axis", "largest", "sorted"], run: top_k },
    plain("MatMul", |n| one(matmul(&n.input(0)?, &n.input(1)?)?)),
    Operator { name: "Gemm", attributes: &["alpha", "beta", "transA", "transB"], run: gemm },
];

/// An operator without attributes.
pub(super) const fn plain(name: &'static str, run: fn(&Node) -> Outcome<Vec<Output>>) -> Operator {
    Operator { name, attributes: &[], run }
}

fn unary(n: &Node, f: Unary) -> Outcome<Vec<Output>> {
    one(n.input(0)?.unary(f)?)
}

fn selu(n: &Node) -> Outcome<Vec<Output>> {
    let (alpha, gamma): (Option<f64>, Option<f64>) = (n.get("alpha")?, n.get("gamma")?);
    if alpha.is_none() && gamma.is_none() {
        return unary(n, Unary::Selu);
    }
    let alpha = alpha.unwrap_or(1.673_263_192_176_818_8);
    one(n.input(0)?.unary(Unary::Elu { alpha })?.affine(gamma.unwrap_or(1.050_701_022_148_132_3), 0.0)?)
}

fn hard_sigmoid(n: &Node) -> Outcome<Vec<Output>> {
    one(n.input(0)?.affine(n.attribute("alpha", 0.2)?, n.attribute("beta", 0.5)?)?.clamp(Some(0.0), Some(1.0))?)
}

fn gelu(n: &Node) -> Outcome<Vec<Output>> {
    match n.attribute("approximate", "none".to_owned())?.as_str() {
        "none" => unary(n, Unary::Gelu),
        "tanh" => unary(n, Unary::GeluTanh),
        other => malformed(format!("approximate {other}")),
    }
}

fn swish(n: &Node) -> Outcome<Vec<Output>> {
    let x = n.input(0)?;
    one(x.affine(n.attribute("alpha", 1.0)?, 0.0)?.sigmoid()?.mul(&x)?)
}

/// `swish(a) b`.
fn swiglu(n: &Node) -> Outcome<Vec<Output>> {
    let (a, b) = (n.input(0)?, n.input(1)?);
    one(a.affine(n.attribute("alpha", 1.0)?, 0.0)?.sigmoid()?.mul(&a)?.mul(&b)?)
}

/// `x + bias` below `-lambd`, `x - bias` above `lambd`, 0 between.
fn shrink(n: &Node) -> Outcome<Vec<Output>> {
    let (x, lambd, bias) = (n.input(0)?, n.attribute("lambd", 0.5)?, n.attribute("bias", 0.0)?);
    let scalar = |v: f64| Tensor::full(n.device, &[], DType::F32, v);
    let (low, high) = (x.compare(Comparison::Lt, &scalar(-lambd)?)?, x.compare(Comparison::Gt, &scalar(lambd)?)?);
    one(x.affine(1.0, bias)?.where_(&low, &x.affine(1.0, -bias)?.where_(&high, &scalar(0.0)?)?)?)
}

fn prelu(n: &Node) -> Outcome<Vec<Output>> {
    let (x, slope) = (n.input(0)?, n.input(1)?);
    let zero = Tensor::full(n.device, &[], DType::F32, 0.0)?;
    one(x.where_(&x.compare(Comparison::Ge, &zero)?, &x.mul(&slope)?)?)
}

fn clip(n: &Node) -> Outcome<Vec<Output>> {
    one(n.input(0)?.clamp(n.number(1), n.number(2))?)
}

fn binary(n: &Node, f: Binary) -> Outcome<Vec<Output>> {
    one(floats(n, 0)?.binary(f, &floats(n, 1)?)?)
}

/// Input `i` as floats; the integers of mixed operands are small.
fn floats(n: &Node, i: usize) -> Outcome<Tensor> {
    Ok(n.input(i)?.cast(DType::F32)?)
}

/// The result has the type of the base.
fn pow(n: &Node) -> Outcome<Vec<Output>> {
    let float = n.host(0).is_some_and(|base| base.float);
    let y = floats(n, 0)?.pow(&floats(n, 1)?)?;
    one(if float { y } else { y.unary(Unary::Round)?.cast(DType::I32)? })
}

fn fold(n: &Node, f: Binary) -> Outcome<Vec<Output>> {
    let inputs = n.all()?;
    let Some((first, rest)) = inputs.split_first() else { return malformed("there are no inputs") };
    one(rest.iter().try_fold(first.clone(), |y, x| y.binary(f, x))?)
}

fn mean(n: &Node) -> Outcome<Vec<Output>> {
    match fold(n, Binary::Add)?.pop() {
        Some(Output::Tensor(sum)) => one(sum.affine(1.0 / n.inputs.len() as f64, 0.0)?),
        _ => malformed("there are no inputs"),
    }
}

fn compare(n: &Node, f: Comparison) -> Outcome<Vec<Output>> {
    one(n.input(0)?.compare(f, &n.input(1)?)?)
}

fn is_inf(n: &Node) -> Outcome<Vec<Output>> {
    let op = Elementwise::Classify {
        nan: false,
        positive_infinity: n.flag("detect_positive", true)?,
        negative_infinity: n.flag("detect_negative", true)?,
    };
    one(Tensor::apply(op, &[&n.input(0)?])?.swap_remove(0))
}

/// The dimensions to reduce and whether they are kept; `None`: nothing is reduced.
fn dims(n: &Node) -> Outcome<Option<(Vec<i64>, bool)>> {
    let axes = n.get::<Vec<i64>>("axes")?.or_else(|| n.integers(1)).unwrap_or_default();
    if axes.is_empty() && n.flag("noop_with_empty_axes", false)? {
        return Ok(None);
    }
    let rank = n.host(0).map_or(0, |x| x.shape.len());
    let dims = if axes.is_empty() { (0..rank as i64).collect() } else { axes };
    Ok(Some((dims, n.flag("keepdims", true)?)))
}

fn reduce(n: &Node, f: fn(&Tensor, &[i64], bool) -> crate::Result<Tensor>) -> Outcome<Vec<Output>> {
    let x = n.input(0)?;
    match dims(n)? {
        Some((dims, keepdim)) => one(f(&x, &dims, keepdim)?),
        None => one(x),
    }
}

/// `none` is the result over no elements.
fn extreme(n: &Node, kind: ReduceKind, none: f64) -> Outcome<Vec<Output>> {
    let x = n.input(0)?;
    let Some((dims, keepdim)) = dims(n)? else { return one(x) };
    let mut shape = Vec::new();
    let reduced = dims.iter().map(|&d| axis(d, x.shape().rank())).collect::<Outcome<Vec<_>>>()?;
    for (d, &size) in x.shape().iter().enumerate() {
        match (reduced.contains(&d), keepdim) {
            (false, _) => shape.push(size),
            (true, true) => shape.push(1),
            (true, false) => {}
        }
    }
    if reduced.iter().any(|&d| x.shape()[d] == 0) {
        return one(Tensor::full(n.device, &shape, DType::F32, none)?);
    }
    one(x.reduce(kind, Some(&dims), keepdim)?)
}

fn arg(n: &Node, kind: ReduceKind) -> Outcome<Vec<Output>> {
    let (x, keepdim) = (n.input(0)?, n.flag("keepdims", true)?);
    let dim = n.attribute("axis", 0)?;
    if !n.flag("select_last_index", false)? {
        return one(x.reduce(kind, Some(&[dim]), keepdim)?);
    }
    // The last of equals is the first from the other end.
    let last = x.shape()[axis(dim, x.shape().rank())?].saturating_sub(1);
    let from_end = x.flip(&[dim])?.reduce(kind, Some(&[dim]), keepdim)?.cast(DType::F32)?;
    one(from_end.affine(-1.0, last as f64)?.cast(DType::I32)?)
}

fn top_k(n: &Node) -> Outcome<Vec<Output>> {
    let Some(k) = n.number(1).filter(|k| *k >= 0.0) else { return malformed("k is missing") };
    let (values, index) = n.input(0)?.topk(k as usize, n.attribute("axis", -1)?, n.flag("largest", true)?)?;
    if !n.flag("sorted", true)? {
        return unsupported("unsorted results, whose order is not defined");
    }
    Ok(vec![values.into(), index.into()])
}

/// As NumPy: a vector is a row on the left and a column on the right.
fn matmul(a: &Tensor, b: &Tensor) -> crate::Result<Tensor> {
    let row = if a.shape().rank() == 1 { a.reshape(&[1, a.shape()[0]])? } else { a.clone() };
    let column = if b.shape().rank() == 1 { b.reshape(&[b.shape()[0], 1])? } else { b.clone() };
    let y = row.matmul(&column)?;
    let mut shape = y.shape().to_vec();
    if b.shape().rank() == 1 {
        shape.pop();
    }
    if a.shape().rank() == 1 {
        shape.remove(shape.len() - if b.shape().rank() == 1 { 1 } else { 2 });
    }
    y.reshape(&shape)
}

fn gemm(n: &Node) -> Outcome<Vec<Output>> {
    let y = n.input(0)?.matmul_with(&n.input(1)?, n.flag("transA", false)?, n.flag("transB", false)?)?;
    let y = y.affine(n.attribute("alpha", 1.0)?, 0.0)?;
    match n.optional(2)? {
        Some(c) => one(y.add(&c.affine(n.attribute("beta", 1.0)?, 0.0)?)?),
        None => one(y),
    }
}
