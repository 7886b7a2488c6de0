//! The rows: every operation with the attributes and shapes that have gone wrong somewhere in the field. New op = new rows.

use super::case::{Case, Data};
use crate::dtype::DType;
use crate::op::elementwise::Saved;
use crate::op::*;
use crate::rng::Stream;
use crate::shape::{Shape, Spec};

fn uniform(shape: &[usize]) -> Data {
    Data::Uniform(shape.to_vec(), -1.0, 1.0)
}

fn between(shape: &[usize], low: f64, high: f64) -> Data {
    Data::Uniform(shape.to_vec(), low, high)
}

/// Collects the rows.
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, op: impl Into<Op>, inputs: Vec<Data>) {
        self.0.push(Case { op: op.into(), inputs, differentiable: false });
    }

    /// A row whose gradient is checked as well.
    fn grad(&mut self, op: impl Into<Op>, inputs: Vec<Data>) {
        self.0.push(Case { op: op.into(), inputs, differentiable: true });
    }
}

/// All rows, family by family.
pub fn all() -> Vec<Case> {
    let mut c = Cases(Vec::new());
    elementwise(&mut c);
    matmul(&mut c);
    conv(&mut c);
    pool(&mut c);
    recurrent(&mut c);
    reduce(&mut c);
    scan(&mut c);
    softmax(&mut c);
    layout(&mut c);
    random(&mut c);
    norm(&mut c);
    empty_norms(&mut c);
    optimizer(&mut c);
    c.0
}

pub(super) fn half_cast() -> Op {
    Elementwise::Cast { dtype: DType::F16 }.into()
}

/// Rows of f16: those of [`all`] whose float operands can be f16, rounded to it. Where a family computes f16 in f32, one row of each operation.
pub fn half() -> Vec<Case> {
    let rounded = |data: Data| match data.spec() {
        Ok(spec) if spec.dtype == DType::F32 => Data::Output(half_cast(), vec![data], 0),
        _ => data,
    };
    let mut seen = std::collections::BTreeSet::new();
    let mut cases: Vec<Case> = Vec::new();
    for Case { op, inputs, .. } in all() {
        let own_kernels = matches!(op.family(), "elementwise" | "matmul" | "conv" | "pool" | "layout" | "random" | "norm");
        // Weights are f32, and so is what optimisers see.
        let wanted = !matches!(op, Op::Optimizer(_)) && (own_kernels || seen.insert(op.name()));
        let large = inputs.iter().any(|data| data.shape().iter().product::<usize>() > 1 << 19);
        if !wanted || large {
            continue;
        }
        let activations = match op {
            Op::Norm(Norm::BatchNormBackward { .. }) => 2,
            Op::Norm(_) => 1,
            _ => inputs.len(),
        };
        // Behind the weights and statistics of a normalisation: what has the shape of x.
        let weights = match &op {
            Op::Norm(norm) if norm.after() == After::AddRelu => inputs.len() - 1,
            _ => inputs.len(),
        };
        let half = |spec: Spec| if spec.dtype == DType::F32 { Spec { dtype: DType::F16, ..spec } } else { spec };
        let op = match op {
            Op::Elementwise(Elementwise::Fill { value, spec }) => Elementwise::Fill { value, spec: half(spec) }.into(),
            Op::Random(Random::Uniform { low, high, stream, spec }) => Random::Uniform { low, high, stream, spec: half(spec) }.into(),
            Op::Random(Random::Normal { mean, std, stream, spec }) => Random::Normal { mean, std, stream, spec: half(spec) }.into(),
            other => other,
        };
        let inputs: Vec<Data> =
            inputs.into_iter().enumerate().map(|(i, data)| if i < activations || i >= weights { rounded(data) } else { data }).collect();
        let specs: Vec<Spec> = inputs.iter().filter_map(|data| data.spec().ok()).collect();
        let results = op.infer(&specs).unwrap_or_default();
        if specs.iter().chain(&results).any(|spec| spec.dtype == DType::F16) {
            cases.push(Case { op, inputs, differentiable: false });
        }
    }
    for (shape, low, high) in [(vec![0], 0.0, 1.0), (vec![1], 0.0, 1.0), (vec![1027], -9.0, 9.0), (vec![7, 5], -70000.0, 70000.0)] {
        cases.push(Case { op: half_cast(), inputs: vec![between(&shape, low, high)], differentiable: false });
    }
    cases.push(Case { op: half_cast(), inputs: vec![Data::Special(vec![301])], differentiable: false });
    // Sums that f32 holds and f16 does not: infinite when they are stored.
    let large = |shape: &[usize]| rounded(between(shape, 100.0, 300.0));
    cases.push(Case { op: Matmul::default().into(), inputs: vec![large(&[7, 9]), large(&[9, 5])], differentiable: false });
    cases.push(Case { op: half_cast(), inputs: vec![Data::Below(vec![301], 3000)], differentiable: false });
    cases.push(Case { op: half_cast(), inputs: vec![Data::Flags(vec![301])], differentiable: false });
    cases
}

fn elementwise(c: &mut Cases) {
    for f in Unary::ALL {
        // Inside the domain, and away from the kinks that finite differences cannot see.
        let (low, high) = match f {
            Unary::Log | Unary::Sqrt | Unary::Rsqrt | Unary::Reciprocal | Unary::Pow { .. } => (0.2, 3.0),
            Unary::Asin | Unary::Acos | Unary::Atanh => (-0.9, 0.9),
            Unary::Acosh => (1.3, 4.0),
            Unary::Tan => (-1.2, 1.2),
            _ => (-3.0, 3.0),
        };
        c.grad(Elementwise::Unary(f), vec![between(&[2, 3, 5], low, high)]);
        // Around one vec4 and one workgroup.
        for n in [1, 4, 7, 1025] {
            c.add(Elementwise::Unary(f), vec![between(&[n], low, high)]);
            let saved = match f.saved() {
                Saved::Input => between(&[n], low, high),
                Saved::Output => Data::Output(Elementwise::Unary(f).into(), vec![between(&[n], low, high)], 0),
            };
            c.add(Elementwise::UnaryBackward(f), vec![saved, uniform(&[n])]);
        }
        c.add(Elementwise::Unary(f), vec![uniform(&[0, 3])]);
    }
    for f in [Unary::Relu, Unary::LeakyRelu { negative_slope: 0.1 }, Unary::Abs] {
        c.add(Elementwise::UnaryBackward(f), vec![Data::Ties(vec![301]), uniform(&[301])]);
    }
    c.add(Elementwise::Unary(Unary::Tanh), vec![uniform(&[70_001])]);
    for f in Unary::ALL {
        // Where exponentials leave the range of f32, and angles are many turns.
        if !matches!(f, Unary::Sinh | Unary::Cosh | Unary::Exp | Unary::Log | Unary::Sqrt | Unary::Rsqrt | Unary::Pow { .. } | Unary::Tan) {
            c.add(Elementwise::Unary(f), vec![between(&[513], -80.0, 80.0)]);
        }
        if !matches!(f, Unary::Neg | Unary::Affine { .. }) && f.saved() == Saved::Input {
            c.add(Elementwise::UnaryBackward(f), vec![Data::Ties(vec![65]), uniform(&[65])]);
        }
        if !matches!(f, Unary::Sin | Unary::Cos | Unary::Tan) {
            c.add(Elementwise::Unary(f), vec![Data::Special(vec![65])]);
        }
    }
    for f in [Unary::Exp, Unary::Sinh, Unary::Cosh] {
        c.add(Elementwise::Unary(f), vec![between(&[2049], -85.0, 85.0)]);
    }
    for f in [Unary::Log, Unary::Sqrt, Unary::Rsqrt, Unary::Asinh, Unary::Acosh, Unary::Softsign] {
        c.add(Elementwise::Unary(f), vec![between(&[513], 1.0, 1e12)]);
    }
    for f in [Unary::Sin, Unary::Cos] {
        c.add(Elementwise::Unary(f), vec![between(&[2049], -5000.0, 5000.0)]);
    }
    for (exponent, low) in [(0.0, -3.0), (2.0, -3.0), (3.0, -3.0), (-1.0, 0.1), (-2.0, 0.1), (0.5, 0.0), (1.0, -3.0), (13.0, -3.0)] {
        c.add(Elementwise::Unary(Unary::Pow { exponent }), vec![between(&[131], low, 3.0)]);
        c.add(Elementwise::UnaryBackward(Unary::Pow { exponent }), vec![between(&[131], low.max(0.1), 3.0), uniform(&[131])]);
    }
    for (min, max) in [(f64::NEG_INFINITY, 0.5), (-0.5, f64::INFINITY), (1.0, -1.0)] {
        c.add(Elementwise::Unary(Unary::Clamp { min, max }), vec![between(&[37], -3.0, 3.0)]);
    }
    // Past 65,535 workgroups.
    c.add(Elementwise::Unary(Unary::Relu), vec![uniform(&[256 * 65_535 + 5])]);
    for f in Binary::ALL {
        let b = |shape: &[usize]| between(shape, 0.5, 2.0);
        for (x, y) in [
            (&[2, 3][..], &[2, 3][..]),
            (&[2, 3], &[3]),
            (&[2, 3], &[2, 1]),
            (&[2, 1, 4], &[3, 1]),
            (&[3], &[2, 3]),
            (&[], &[5]),
            (&[1, 2, 1, 2, 1, 2, 1, 2], &[2, 1, 2, 1, 2, 1, 2, 1]),
        ] {
            let a = if f == Binary::Pow { b(x) } else { uniform(x) };
            c.grad(Elementwise::Binary(f), vec![a, b(y)]);
        }
        for (x, y) in [
            (&[1025][..], &[1025][..]),
            (&[1028], &[1028]),
            (&[33, 65], &[65]),
            (&[4, 5, 33], &[5, 1]),
            (&[70_001], &[1]),
            (&[0, 3], &[1, 3]),
            (&[1], &[4099]),
        ] {
            c.add(Elementwise::Binary(f), vec![uniform(x), b(y)]);
        }
    }
    for f in [Binary::Maximum, Binary::Minimum, Binary::Fmod] {
        c.add(Elementwise::Binary(f), vec![Data::Ties(vec![7, 33]), Data::Ties(vec![33])]);
        c.add(Elementwise::Binary(f), vec![Data::Special(vec![7, 33]), Data::Special(vec![33])]);
    }
    for f in [Binary::Remainder, Binary::Fmod] {
        // Quotients of one digit and of many, and exact ones.
        c.add(Elementwise::Binary(f), vec![between(&[1025], -50.0, 50.0), between(&[1025], -3.0, 3.0)]);
        c.add(Elementwise::Binary(f), vec![between(&[1025], -1e9, 1e9), between(&[1025], 0.1, 1.0)]);
        c.add(Elementwise::Binary(f), vec![Data::Ties(vec![130]), between(&[], 0.5, 0.5)]);
    }
    for f in Comparison::ALL {
        c.add(Elementwise::Compare(f), vec![Data::Ties(vec![7, 33]), Data::Ties(vec![33])]);
        c.add(Elementwise::Compare(f), vec![Data::Special(vec![130]), Data::Special(vec![130])]);
        c.add(Elementwise::Compare(f), vec![Data::Below(vec![2, 1, 65], 3), Data::Below(vec![4, 1], 3)]);
        c.add(Elementwise::Compare(f), vec![Data::Flags(vec![70]), Data::Flags(vec![1])]);
        // Integers of both signs.
        let signed = |n: usize| Data::Output(Elementwise::Cast { dtype: DType::I32 }.into(), vec![Data::Ties(vec![n])], 0);
        c.add(Elementwise::Compare(f), vec![signed(66), signed(66)]);
    }
    for (condition, a, b) in [
        (&[2, 3][..], &[2, 3][..], &[2, 3][..]),
        (&[2, 1, 3], &[3], &[4, 1]),
        (&[1], &[65, 3], &[]),
        (&[1025], &[1], &[1025]),
        (&[0], &[1], &[1]),
    ] {
        c.grad(Elementwise::Where, vec![Data::Flags(condition.to_vec()), uniform(a), uniform(b)]);
        c.add(Elementwise::Where, vec![Data::Flags(condition.to_vec()), Data::Special(a.to_vec()), Data::Special(b.to_vec())]);
    }
    c.add(Elementwise::Where, vec![Data::Flags(vec![65]), Data::Below(vec![65], 9), Data::Below(vec![1], 9)]);
    for dtype in [DType::F32, DType::I32, DType::U32] {
        for data in [
            Data::Flags(vec![67]),
            Data::Below(vec![67], 1 << 30),
            between(&[67], -9.0, 9.0),
            between(&[67], -1e10, 1e10),
            Data::Special(vec![67]),
        ] {
            c.add(Elementwise::Cast { dtype }, vec![data]);
        }
    }
    for (nan, positive_infinity, negative_infinity) in
        [(true, false, false), (false, true, false), (false, false, true), (false, true, true)]
    {
        c.add(Elementwise::Classify { nan, positive_infinity, negative_infinity }, vec![Data::Special(vec![3, 67])]);
    }
    for n in [1, 5, 1027] {
        c.add(Elementwise::AddAssign, vec![uniform(&[n]), uniform(&[n])]);
    }
    for (shape, dtype) in [(&[3, 5][..], DType::F32), (&[1027], DType::F32), (&[9], DType::U32), (&[0], DType::F32)] {
        if let Ok(shape) = Shape::new(shape) {
            c.add(
                Elementwise::Fill { value: 2.5_f64.floor() + if dtype == DType::F32 { 0.5 } else { 0.0 }, spec: Spec::new(shape, dtype) },
                vec![],
            );
        }
    }
}

fn matmul(c: &mut Cases) {
    for (transpose_a, transpose_b) in [(false, false), (false, true), (true, false), (true, true)] {
        let a = |m: usize, k: usize| uniform(&if transpose_a { [k, m] } else { [m, k] });
        let b = |k: usize, n: usize| uniform(&if transpose_b { [n, k] } else { [k, n] });
        let op = |bias| Matmul { transpose_a, transpose_b, bias, relu: false };
        c.grad(op(false), vec![a(3, 4), b(4, 5)]);
        c.grad(op(true), vec![a(2, 3), b(3, 4), uniform(&[4])]);
        c.grad(Matmul { relu: true, ..op(true) }, vec![a(2, 3), b(3, 4), uniform(&[4])]);
        for (m, n, k) in [
            (1, 1, 1),
            (1, 7, 300),
            (65, 1, 9),
            (16, 16, 16),
            (31, 33, 17),
            (31, 36, 17),
            (64, 64, 64),
            (129, 63, 70),
            (37, 50, 36),
            (8, 10, 84),
            (200, 130, 33),
            (3, 5, 0),
            (3, 32, 0),
            (2, 600, 1000),
        ] {
            c.add(op(false), vec![a(m, k), b(k, n)]);
            c.add(op(true), vec![a(m, k), b(k, n), uniform(&[n])]);
            c.add(Matmul { relu: true, ..op(false) }, vec![a(m, k), b(k, n)]);
        }
        c.add(op(false), vec![a(0, 3), b(3, 4)]);
        // Tiles enough for the widest ones of a GPU.
        c.add(op(false), vec![a(70, 19), b(19, 32_760)]);
    }
    let plain = Matmul::default();
    for (x, y) in [(&[3, 2, 4][..], &[3, 4, 2][..]), (&[3, 2, 4], &[4, 2]), (&[2, 4], &[3, 4, 2]), (&[2, 1, 3, 4], &[1, 3, 4, 2])] {
        c.grad(plain, vec![uniform(x), uniform(y)]);
    }
    c.add(plain, vec![uniform(&[5, 1, 65, 33]), uniform(&[3, 33, 70])]);
    c.add(Matmul { transpose_b: true, bias: true, ..plain }, vec![uniform(&[4, 37, 20]), uniform(&[50, 20]), uniform(&[50])]);
    c.add(Matmul { transpose_b: true, bias: true, ..plain }, vec![uniform(&[37, 1100]), uniform(&[50, 1100]), uniform(&[50])]);
}

fn conv(c: &mut Cases) {
    // (n, c, h, w), (k, kh, kw), stride, padding, dilation, groups, gradients checked
    type Row = ([usize; 4], [usize; 3], [usize; 2], [usize; 2], [usize; 2], usize, bool);
    let rows: [Row; 35] = [
        ([1, 1, 1, 1], [1, 1, 1], [1, 1], [0, 0], [1, 1], 1, true),
        ([2, 2, 4, 5], [3, 3, 3], [1, 1], [1, 1], [1, 1], 1, true),
        ([1, 2, 5, 4], [2, 2, 3], [2, 1], [1, 0], [1, 2], 1, true),
        ([1, 4, 4, 4], [4, 3, 3], [2, 2], [1, 1], [1, 1], 2, true),
        ([2, 3, 4, 4], [6, 3, 3], [1, 1], [2, 2], [2, 2], 3, true),
        ([1, 1, 5, 5], [2, 3, 3], [3, 3], [0, 0], [1, 1], 1, true),
        ([2, 1, 28, 28], [6, 5, 5], [1, 1], [2, 2], [1, 1], 1, false),
        ([3, 6, 14, 14], [16, 5, 5], [1, 1], [0, 0], [1, 1], 1, false),
        ([5, 16, 8, 8], [32, 3, 3], [1, 1], [1, 1], [1, 1], 1, false),
        ([2, 65, 9, 7], [67, 3, 3], [1, 1], [1, 1], [1, 1], 1, false),
        ([2, 32, 13, 11], [70, 1, 1], [1, 1], [0, 0], [1, 1], 1, false),
        // Pixels in whole vectors.
        ([3, 32, 6, 10], [70, 1, 1], [1, 1], [0, 0], [1, 1], 1, false),
        ([2, 7, 4, 4], [9, 1, 1], [1, 1], [0, 0], [1, 1], 1, true),
        ([2, 8, 4, 6], [12, 1, 1], [1, 1], [0, 0], [1, 1], 2, false),
        ([2, 32, 13, 11], [20, 1, 1], [2, 2], [0, 0], [1, 1], 1, false),
        ([1, 3, 33, 31], [16, 7, 7], [2, 2], [3, 3], [1, 1], 1, false),
        ([2, 24, 10, 9], [24, 3, 3], [1, 1], [1, 1], [1, 1], 24, false),
        ([3, 8, 19, 37], [8, 3, 3], [2, 1], [1, 2], [1, 2], 8, false),
        ([1, 5, 40, 21], [5, 5, 4], [3, 2], [2, 2], [1, 1], 5, false),
        ([2, 12, 10, 9], [24, 3, 3], [2, 2], [1, 1], [1, 1], 4, false),
        ([1, 2, 17, 15], [3, 3, 2], [4, 3], [3, 2], [2, 3], 1, false),
        ([0, 2, 5, 5], [3, 3, 3], [1, 1], [1, 1], [1, 1], 1, false),
        ([40, 8, 16, 16], [9, 3, 3], [1, 1], [1, 1], [1, 1], 1, false),
        // Tiles enough for the widest ones of a GPU.
        ([2, 3, 128, 130], [65, 3, 3], [1, 1], [1, 1], [1, 1], 1, false),
        // Many small images: the CPU puts them side by side.
        ([17, 3, 4, 5], [5, 3, 3], [1, 1], [1, 1], [1, 1], 1, false),
        ([32, 9, 5, 4], [10, 3, 2], [2, 1], [2, 1], [1, 2], 1, false),
        ([48, 6, 10, 10], [7, 5, 5], [1, 1], [0, 0], [1, 1], 1, false),
        // Many channels, which it sums in blocks; rows longer than one piece of its weight gradient.
        ([3, 130, 7, 7], [9, 3, 3], [1, 1], [1, 1], [1, 1], 1, false),
        ([1, 2, 3, 900], [3, 3, 3], [1, 1], [1, 1], [1, 1], 1, false),
        ([2, 128, 6, 5], [33, 3, 3], [2, 2], [1, 1], [1, 1], 1, false),
        // Channels enough for tiles by minimal filtering, in several blocks and in one; strides as columns.
        ([4, 64, 33, 20], [48, 3, 3], [1, 1], [2, 2], [1, 1], 1, false),
        ([3, 50, 12, 11], [71, 3, 3], [1, 1], [0, 1], [1, 1], 1, false),
        ([2, 96, 5, 3], [100, 3, 3], [1, 1], [1, 1], [1, 1], 1, false),
        ([1, 16, 3, 3], [16, 3, 3], [2, 2], [4, 4], [4, 4], 1, false),
        ([3, 17, 13, 9], [20, 3, 4], [2, 3], [1, 2], [2, 1], 1, false),
    ];
    for (x, [k, kh, kw], stride, padding, dilation, groups, differentiable) in rows {
        let options = Conv2dOptions { stride, padding, dilation, groups };
        let weight = [k, x[1] / groups, kh, kw];
        let (Ok(x_shape), Ok(w_shape)) = (Shape::new(&x), Shape::new(&weight)) else { continue };
        let Ok(y) = options.output_shape(&x_shape, &w_shape) else { continue };
        for (bias, clip) in [(false, Clip::Nothing), (true, Clip::Nothing), (true, Clip::Relu), (true, Clip::Relu6)] {
            // Large enough for the ceiling.
            let pixels = if clip == Clip::Relu6 { between(&x, -3.0, 3.0) } else { uniform(&x) };
            let mut inputs = vec![pixels, if clip == Clip::Relu6 { between(&weight, -3.0, 3.0) } else { uniform(&weight) }];
            if bias {
                inputs.push(uniform(&[k]));
            }
            c.0.push(Case { op: Conv::Forward { options, bias, clip }.into(), inputs, differentiable });
        }
        c.0.push(Case {
            op: Conv::BackwardInput { options, input_size: [x[2], x[3]] }.into(),
            inputs: vec![uniform(&y), uniform(&weight)],
            differentiable,
        });
        c.add(Conv::BackwardWeight { options, kernel_size: [kh, kw] }, vec![uniform(&x), uniform(&y)]);
    }
    // Sums of no terms: no channels, no images, no results' channels.
    let options = Conv2dOptions::default();
    for bias in [false, true] {
        let inputs = [uniform(&[1, 0, 4, 4]), uniform(&[8, 0, 1, 1]), uniform(&[8])];
        c.add(Conv::Forward { options, bias, clip: Clip::Nothing }, inputs[..2 + bias as usize].to_vec());
    }
    c.add(Conv::BackwardWeight { options, kernel_size: [1, 1] }, vec![uniform(&[0, 8, 4, 4]), uniform(&[0, 8, 4, 4])]);
    c.add(Conv::BackwardInput { options, input_size: [4, 4] }, vec![uniform(&[2, 0, 4, 4]), uniform(&[0, 8, 1, 1])]);
    // Several blocks of tiles on the GPU, and several sums of its weight gradient: 4,200 tiles.
    let (x, weight) = (uniform(&[5, 32, 60, 56]), uniform(&[32, 32, 3, 3]));
    let options = Conv2dOptions { padding: [1, 1], ..Conv2dOptions::default() };
    c.add(Conv::Forward { options, bias: false, clip: Clip::Nothing }, vec![x.clone(), weight]);
    c.add(Conv::BackwardWeight { options, kernel_size: [3, 3] }, vec![x.clone(), x]);
}

fn pool(c: &mut Cases) {
    let windows = |k: [usize; 2], stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2], ceil_mode: bool| Pool2dOptions {
        kernel_size: k,
        stride,
        padding,
        dilation,
        ceil_mode,
    };
    let rows = [
        (windows([2, 2], [2, 2], [0, 0], [1, 1], false), [2, 3, 6, 4]),
        (windows([2, 2], [2, 2], [0, 0], [1, 1], true), [1, 2, 5, 7]),
        (windows([3, 3], [2, 2], [1, 1], [1, 1], false), [1, 2, 7, 6]),
        (windows([3, 2], [1, 2], [1, 0], [1, 1], true), [2, 1, 5, 5]),
        (windows([3, 3], [1, 1], [0, 0], [2, 2], false), [1, 2, 6, 7]),
        (windows([2, 2], [3, 3], [1, 1], [1, 1], true), [1, 2, 6, 8]),
        (windows([2, 2], [2, 2], [0, 0], [1, 1], false), [7, 33, 28, 26]),
        (windows([3, 3], [2, 2], [1, 1], [1, 1], true), [3, 17, 15, 14]),
        (windows([3, 3], [1, 1], [1, 1], [1, 1], false), [2, 3, 21, 37]),
        (windows([2, 2], [2, 2], [1, 1], [1, 1], false), [2, 3, 9, 35]),
        (windows([3, 4], [3, 3], [1, 2], [1, 1], true), [2, 3, 20, 40]),
    ];
    for (i, (options, x)) in rows.into_iter().enumerate() {
        let input_size = [x[2], x[3]];
        let small = i < 6;
        c.0.push(Case { op: Pool::Max(options).into(), inputs: vec![uniform(&x)], differentiable: small });
        c.add(Pool::Max(options), vec![Data::Ties(x.to_vec())]);
        let Some(y) = Shape::new(&x).ok().and_then(|s| options.output_shape(&s).ok()) else { continue };
        let index = Data::Output(Pool::Max(options).into(), vec![Data::Ties(x.to_vec())], 1);
        c.add(Pool::MaxBackward { options, input_size }, vec![uniform(&y), index]);
        if options.dilation == [1, 1] {
            for (count_include_pad, divisor_override) in [(true, None), (false, None), (true, Some(3))] {
                let options = AvgPool2dOptions { window: options, count_include_pad, divisor_override };
                c.0.push(Case { op: Pool::Avg(options).into(), inputs: vec![uniform(&x)], differentiable: small });
                c.add(Pool::AvgBackward { options, input_size }, vec![uniform(&y)]);
            }
        }
    }
    // One pixel; 7x7; exactly one workgroup of 256; odd sizes above it; more planes than one dispatch dimension.
    for shape in [[1, 1, 1, 1], [2, 3, 7, 7], [1, 5, 16, 16], [2, 2, 17, 31], [1, 65_537, 1, 2]] {
        let input_size = [shape[2], shape[3]];
        c.0.push(Case { op: Pool::GlobalAvg.into(), inputs: vec![uniform(&shape)], differentiable: shape[1] < 4 && shape[2] < 8 });
        c.add(Pool::GlobalAvgBackward { input_size }, vec![uniform(&[shape[0], shape[1], 1, 1])]);
    }
}

fn recurrent(c: &mut Cases) {
    for (n, h) in [(1, 1), (2, 3), (5, 33), (3, 100), (0, 4)] {
        let wide = |gates: usize| between(&[n, gates * h], -3.0, 3.0);
        let (state, hidden) = (uniform(&[2, n, h]), uniform(&[n, h]));
        let lstm = vec![wide(4), wide(4), state.clone()];
        let gru = vec![wide(3), wide(3), hidden.clone()];
        let of = |op: Recurrent, inputs: &[Data], i: usize| Data::Output(op.into(), inputs.to_vec(), i);
        c.add(Recurrent::LstmBackward, vec![of(Recurrent::Lstm, &lstm, 1), state.clone(), of(Recurrent::Lstm, &lstm, 0), state]);
        c.add(Recurrent::GruBackward, vec![of(Recurrent::Gru, &gru, 1), hidden.clone(), hidden]);
        let small = n * h < 10 && n > 0;
        c.0.push(Case { op: Recurrent::Lstm.into(), inputs: lstm, differentiable: small });
        c.0.push(Case { op: Recurrent::Gru.into(), inputs: gru, differentiable: small });
    }
    // One step; several; more rows than one thread takes; none.
    for (steps, n, h, reverse) in
        [(1, 1, 1, false), (3, 2, 3, false), (3, 2, 3, true), (4, 67, 20, false), (2, 33, 65, true), (2, 0, 4, false)]
    {
        let bound = 1.0 / (h as f64).sqrt();
        let layer = vec![between(&[steps, n, 4 * h], -3.0, 3.0), between(&[4 * h, h], -bound, bound), uniform(&[2, n, h])];
        let op = Recurrent::LstmLayer { reverse };
        let of = |i: usize| Data::Output(op.into(), layer.clone(), i);
        let gradient = vec![of(1), layer[1].clone(), layer[2].clone(), of(0), uniform(&[steps, 2, n, h])];
        c.add(Recurrent::LstmLayerBackward { reverse }, gradient);
        c.0.push(Case { op: op.into(), inputs: layer, differentiable: n == 2 || steps == 1 });
    }
}

fn reduce(c: &mut Cases) {
    let kinds = [
        ReduceKind::Sum,
        ReduceKind::SumSquares,
        ReduceKind::Mean,
        ReduceKind::Max,
        ReduceKind::ArgMax,
        ReduceKind::Min,
        ReduceKind::ArgMin,
        ReduceKind::Prod,
        ReduceKind::Var { correction: 1 },
        ReduceKind::Var { correction: 0 },
    ];
    for kind in kinds {
        let op = |dims: &[usize], keepdim| Reduce { kind, dims: dims.to_vec(), keepdim };
        // Around 1, or products of a few hundred would leave the range of f32.
        let data = |shape: &[usize]| if kind == ReduceKind::Prod { between(shape, 0.9, 1.1) } else { uniform(shape) };
        for (shape, dims) in [(&[3, 4][..], &[1][..]), (&[3, 4], &[0]), (&[2, 3, 2, 2], &[0, 2, 3]), (&[2, 3, 4], &[0, 1, 2])] {
            let case = Case { op: op(dims, false).into(), inputs: vec![data(shape)], differentiable: !op(dims, false).is_index() };
            c.0.push(case);
        }
        for (shape, dims) in [
            (&[5, 1000][..], &[1][..]),
            (&[1000, 5], &[0]),
            (&[3, 70, 11], &[1]),
            (&[4, 33, 9, 7], &[0, 2, 3]),
            (&[2, 3, 4, 5, 6], &[0, 2, 4]),
            // Terms in whole vectors, in one chunk and in several.
            (&[3, 70, 12, 8], &[0, 2, 3]),
            (&[2, 5, 9000], &[0, 2]),
            (&[300, 257], &[0, 1]),
            (&[70_000, 2], &[1]),
            (&[1_000_003], &[0]),
            (&[64, 3, 4], &[]),
        ] {
            // A variance of one value has no degrees of freedom.
            if !(dims.is_empty() && kind == ReduceKind::Var { correction: 1 }) {
                c.add(op(dims, true), vec![data(shape)]);
            }
        }
        if matches!(kind, ReduceKind::Max | ReduceKind::ArgMax | ReduceKind::Min | ReduceKind::ArgMin) {
            c.add(op(&[1], false), vec![Data::Special(vec![37, 500])]);
            c.add(op(&[1], false), vec![Data::Ties(vec![37, 500])]);
            c.add(op(&[0], false), vec![Data::Ties(vec![5000, 3])]);
        }
        if matches!(kind, ReduceKind::Var { .. } | ReduceKind::Mean | ReduceKind::Sum) {
            // A large common offset: what naive sums of squares get wrong.
            c.add(op(&[0, 1], false), vec![between(&[1000, 1000], 100.0, 101.0)]);
        }
    }
    for kind in [ReduceKind::Sum, ReduceKind::Prod] {
        c.add(Reduce { kind, dims: vec![1], keepdim: false }, vec![uniform(&[4, 0])]);
    }
    c.add(Reduce { kind: ReduceKind::Prod, dims: vec![1], keepdim: false }, vec![Data::Ties(vec![40, 5])]);
}

fn scan(c: &mut Cases) {
    for (shape, dim) in [(&[5][..], 0), (&[3, 4], 0), (&[3, 4], 1), (&[2, 3, 2], 1)] {
        for flag in [false, true] {
            c.grad(Scan::Cumsum { dim, reverse: flag }, vec![uniform(shape)]);
            c.grad(Scan::TopK { dim, k: 2, largest: flag }, vec![uniform(shape)]);
        }
    }
    // Around one tile of 256, many tiles, empty rows, many rows.
    for (shape, dim) in
        [(&[255][..], 0), (&[256], 0), (&[257], 0), (&[10_007], 0), (&[3, 300, 5], 1), (&[2, 0, 3], 1), (&[0, 3], 1), (&[70_000, 2], 1)]
    {
        c.add(Scan::Cumsum { dim, reverse: false }, vec![uniform(shape)]);
        c.add(Scan::Cumsum { dim, reverse: true }, vec![uniform(shape)]);
    }
    for (shape, dim, k) in [(&[70][..], 0, 70), (&[3, 65], 1, 5), (&[65, 3], 0, 1), (&[2, 33, 4], 1, 33), (&[4, 5], 1, 0), (&[1025], 0, 10)]
    {
        for largest in [true, false] {
            for data in [uniform(shape), Data::Ties(shape.to_vec()), Data::Special(shape.to_vec())] {
                c.add(Scan::TopK { dim, k, largest }, vec![data]);
            }
        }
    }
}

fn softmax(c: &mut Cases) {
    for (shape, dim) in [(&[3, 4][..], 1), (&[3, 4], 0), (&[2, 3, 2], 1)] {
        c.grad(Softmax::LogSoftmax { dim }, vec![uniform(shape)]);
    }
    for (shape, dim) in [(&[1, 1][..], 1), (&[65, 10], 1), (&[7, 1000], 1), (&[4, 33, 5], 1), (&[300, 3], 0), (&[2, 70_000], 1)] {
        c.add(Softmax::LogSoftmax { dim }, vec![between(shape, -10.0, 10.0)]);
        let y = Data::Output(Softmax::LogSoftmax { dim }.into(), vec![uniform(shape)], 0);
        c.add(Softmax::LogSoftmaxBackward { dim }, vec![y, uniform(shape)]);
    }
    let plain = CrossEntropyOptions::default();
    // Logits whose exponentials leave the range of f32 in both directions, also next to each other.
    for size in [300.0, 3e4] {
        let logits = || between(&[9, 33], -size, size);
        c.add(Softmax::LogSoftmax { dim: 1 }, vec![logits()]);
        c.add(Softmax::CrossEntropy(plain), vec![logits(), Data::Below(vec![9], 33)]);
        c.add(Softmax::CrossEntropyBackward(plain), vec![logits(), Data::Below(vec![9], 33), uniform(&[9])]);
    }
    for options in [
        plain,
        CrossEntropyOptions { label_smoothing: 0.1, ..plain },
        CrossEntropyOptions { ignore_index: 1, ..plain },
        CrossEntropyOptions { weight: true, label_smoothing: 0.2, ..plain },
    ] {
        for (shape, small) in
            [(&[5, 4][..], true), (&[2, 3, 4], true), (&[64, 10], false), (&[300, 1], false), (&[3, 1000], false), (&[2, 7, 5, 9], false)]
        {
            let mut rows = shape.to_vec();
            let classes = rows.remove(1);
            let mut inputs = vec![between(shape, -4.0, 4.0), Data::Below(rows.clone(), classes)];
            if options.weight {
                inputs.push(between(&[classes], 0.5, 1.5));
            }
            c.0.push(Case { op: Softmax::CrossEntropy(options).into(), inputs: inputs.clone(), differentiable: small });
            inputs.push(uniform(&rows));
            c.add(Softmax::CrossEntropyBackward(options), inputs);
        }
    }
}

fn layout(c: &mut Cases) {
    for (shape, dims) in [(&[2, 3][..], &[1, 0][..]), (&[2, 3, 2, 2], &[0, 2, 3, 1]), (&[2, 3, 4], &[2, 0, 1])] {
        c.grad(Layout::Permute { dims: dims.to_vec() }, vec![uniform(shape)]);
    }
    c.add(Layout::Permute { dims: vec![0, 2, 1] }, vec![uniform(&[3, 65, 130])]);
    c.add(Layout::Permute { dims: vec![7, 6, 5, 4, 3, 2, 1, 0] }, vec![uniform(&[2, 1, 3, 2, 1, 2, 3, 2])]);
    for (shape, starts, steps, sizes) in [
        (&[5][..], &[1][..], &[2][..], &[2][..]),
        (&[3, 4], &[0, 1], &[1, 1], &[2, 2]),
        (&[3, 9, 33], &[1, 0, 2], &[1, 3, 2], &[2, 3, 15]),
        (&[4, 4], &[1, 1], &[1, 1], &[0, 2]),
        (&[5], &[4], &[-1], &[5]),
        (&[3, 7], &[0, 6], &[1, -3], &[2, 3]),
        (&[3, 9, 33], &[2, 8, 31], &[-1, -2, 1], &[3, 5, 2]),
    ] {
        let (starts, steps, sizes) = (starts.to_vec(), steps.to_vec(), sizes.to_vec());
        c.grad(Layout::Slice { starts: starts.clone(), steps: steps.clone(), sizes: sizes.clone() }, vec![uniform(shape)]);
        if let Ok(shape) = Shape::new(shape) {
            c.add(Layout::SliceBackward { starts, steps, shape }, vec![uniform(&sizes)]);
        }
    }
    for (shape, before, after) in [
        (&[3][..], &[1][..], &[2][..]),
        (&[2, 3], &[0, 1], &[1, 0]),
        (&[2, 3, 30, 31], &[0, 0, 2, 1], &[0, 0, 1, 2]),
        (&[0, 2], &[1, 1], &[0, 1]),
    ] {
        let small = shape.len() < 3;
        c.0.push(Case {
            op: Layout::Pad { before: before.to_vec(), after: after.to_vec(), value: 0.5 }.into(),
            inputs: vec![uniform(shape)],
            differentiable: small,
        });
    }
    for (shape, index, dim) in [
        (&[5][..], &[3][..], 0),
        (&[3, 4], &[3, 6], 1),
        (&[3, 4], &[5, 2], 0),
        (&[2, 5, 3], &[1, 7, 2], 1),
        (&[4, 33, 65], &[4, 20, 65], 1),
        (&[1, 2, 1, 2, 1, 3, 1, 2], &[1, 2, 1, 2, 1, 5, 1, 1], 5),
        (&[3, 4], &[3, 0], 1),
    ] {
        let below = Data::Below(index.to_vec(), shape[dim]);
        let small = shape.len() < 4 && shape[0] < 4;
        c.0.push(Case {
            op: Layout::Gather { dim }.into(),
            inputs: vec![uniform(shape), below.clone()],
            differentiable: small && index[1..] != [0],
        });
        if let Ok(shape) = Shape::new(shape) {
            let op = Layout::ScatterAdd { dim, shape };
            c.0.push(Case { op: op.into(), inputs: vec![uniform(index), below], differentiable: small && index[1..] != [0] });
        }
    }
    // Indices outside.
    c.add(Layout::Gather { dim: 0 }, vec![uniform(&[5]), Data::Below(vec![30], 9)]);
    if let Ok(shape) = Shape::new(&[5, 2]) {
        c.add(Layout::ScatterAdd { dim: 0, shape }, vec![uniform(&[30, 1]), Data::Below(vec![30, 1], 9)]);
    }
    c.add(Layout::Gather { dim: 0 }, vec![Data::Below(vec![5], 99), Data::Below(vec![30], 5)]);
    c.grad(Layout::Concat { dim: 1 }, vec![uniform(&[2, 1, 3]), uniform(&[2, 2, 3]), uniform(&[2, 0, 3])]);
    c.grad(Layout::Concat { dim: 0 }, vec![uniform(&[1, 3]), uniform(&[2, 3])]);
    c.add(Layout::Concat { dim: 2 }, vec![uniform(&[9, 5, 33]), uniform(&[9, 5, 2]), uniform(&[9, 5, 64])]);
    c.add(Layout::Concat { dim: 0 }, vec![Data::Below(vec![5], 9), Data::Below(vec![3], 9)]);
    for (from, to) in [(&[3, 1][..], &[2, 3, 4][..]), (&[], &[5]), (&[4, 1, 33], &[4, 70, 33])] {
        if let Ok(shape) = Shape::new(to) {
            c.0.push(Case { op: Layout::Expand { shape }.into(), inputs: vec![uniform(from)], differentiable: to.len() < 4 && to[0] != 4 });
        }
    }
    for (shape, dim, n) in
        [(&[5, 4][..], 0, 7), (&[2, 4, 3], 1, 3), (&[3, 6], 1, 4), (&[100, 33], 0, 300), (&[1000], 0, 5), (&[4, 3], 0, 0)]
    {
        let index = Data::Below(vec![n], shape[dim]);
        let small = shape.iter().product::<usize>() < 100 && n > 0;
        c.0.push(Case { op: Layout::IndexSelect { dim }.into(), inputs: vec![uniform(shape), index.clone()], differentiable: small });
        let mut rows = shape.to_vec();
        rows[dim] = n;
        c.add(Layout::IndexAdd { dim, size: shape[dim] }, vec![uniform(&rows), index]);
    }
}

fn random(c: &mut Cases) {
    for (seed, n) in [(1, 1), (2, 6), (3, 1027), (4, 70_001)] {
        let stream = Stream::new(seed, "case", 5, 6);
        let Ok(shape) = Shape::new(&[n]) else { continue };
        let spec = Spec::new(shape, DType::F32);
        c.add(Random::Uniform { low: -2.0, high: 3.0, stream, spec }, vec![]);
        c.add(Random::Uniform { low: 0.0, high: 1.0, stream, spec }, vec![]);
        c.add(Random::Normal { mean: 0.5, std: 2.0, stream, spec }, vec![]);
        c.0.push(Case { op: Random::Dropout { p: 0.3, stream }.into(), inputs: vec![uniform(&[n])], differentiable: n < 10 });
    }
}

fn norm(c: &mut Cases) {
    for (x, small) in [
        (&[4, 3][..], true),
        (&[2, 3, 2, 2], true),
        (&[3, 2, 4], true),
        (&[6, 17, 5, 5], false),
        (&[1, 3, 33, 31], false),
        (&[64, 16, 8, 8], false),
        (&[300, 5], false),
        (&[40, 3, 28, 28], false),
    ] {
        let ch = x[1];
        let (weight, bias) = (between(&[ch], 0.5, 1.5), uniform(&[ch]));
        let running = [uniform(&[ch]), between(&[ch], 0.5, 1.5)];
        for after in [After::Nothing, After::Relu { ceiling: f64::INFINITY }, After::Relu { ceiling: 0.75 }, After::AddRelu] {
            let residual = || (after == After::AddRelu).then(|| uniform(x));
            let inputs = |data: Vec<Data>| data.into_iter().chain(residual()).collect::<Vec<_>>();
            let train = Norm::BatchNorm { eps: 1e-5, momentum: 0.1, running: false, after };
            let batch = inputs(vec![uniform(x), weight.clone(), bias.clone()]);
            c.0.push(Case { op: train.into(), inputs: batch.clone(), differentiable: small });
            let with = Norm::BatchNorm { eps: 1e-3, momentum: 0.3, running: true, after };
            let [mean, var] = &running;
            let given = inputs(vec![between(x, 1.0, 3.0), weight.clone(), bias.clone(), mean.clone(), var.clone()]);
            c.add(with, given.clone());
            c.add(Norm::BatchNormEval { eps: 1e-5, after }, given);
            for training in [true, false] {
                let of_batch = |i| Data::Output(train.into(), batch.clone(), i);
                let operands = vec![uniform(x), uniform(x), weight.clone(), of_batch(1), of_batch(2)];
                let last = match after {
                    After::Nothing => None,
                    After::Relu { .. } => Some(bias.clone()),
                    After::AddRelu => Some(of_batch(0)),
                };
                c.add(Norm::BatchNormBackward { training, after }, operands.into_iter().chain(last).collect());
            }
        }
    }
}

fn empty_norms(c: &mut Cases) {
    // No images, and images without pixels.
    for x in [&[0, 3, 2, 2][..], &[2, 3, 0, 2]] {
        let stats = || [between(&[3], 0.5, 1.5), uniform(&[3]), uniform(&[3]), between(&[3], 0.5, 1.5)];
        for after in [After::Nothing, After::Relu { ceiling: f64::INFINITY }, After::AddRelu] {
            let residual = (after == After::AddRelu).then(|| uniform(x));
            c.add(Norm::BatchNormEval { eps: 1e-5, after }, [uniform(x)].into_iter().chain(stats()).chain(residual.clone()).collect());
            let [weight, bias, mean, invstd] = stats();
            let last = if after == After::Nothing { None } else { residual.or(Some(bias)) };
            let operands = [uniform(x), uniform(x), weight, mean, invstd].into_iter().chain(last);
            c.add(Norm::BatchNormBackward { training: false, after }, operands.collect());
        }
    }
}

fn optimizer(c: &mut Cases) {
    let sgd = SgdStep { lr: 0.1, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false, maximize: false, step: 2 };
    let adam = AdamStep { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, decoupled: false, maximize: false, step: 3 };
    for n in [1, 6, 1027] {
        let x = || uniform(&[n]);
        let scale = || between(&[2], 0.5, 1.0);
        for step in [sgd, SgdStep { weight_decay: 0.1, maximize: true, ..sgd }] {
            c.add(Optimizer::Sgd(step), vec![x(), x(), scale()]);
        }
        let momentum = SgdStep { momentum: 0.9, weight_decay: 0.05, ..sgd };
        for step in [
            momentum,
            SgdStep { dampening: 0.3, ..momentum },
            SgdStep { nesterov: true, ..momentum },
            SgdStep { step: 1, dampening: 0.3, ..momentum },
        ] {
            c.add(Optimizer::Sgd(step), vec![x(), x(), scale(), x()]);
        }
        for step in [
            adam,
            AdamStep { weight_decay: 0.1, step: 1, ..adam },
            AdamStep { weight_decay: 0.1, decoupled: true, step: 1000, ..adam },
            AdamStep { maximize: true, ..adam },
        ] {
            c.add(Optimizer::Adam(step), vec![x(), x(), scale(), x(), between(&[n], 0.01, 1.0)]);
        }
    }
    // A step under a loss scale: taken, as the first that counts after skipped ones, and skipped.
    let scaled = LossScaleStep { max_norm: 0.7, growth_factor: 2.0, backoff_factor: 0.5, growth_interval: 3 };
    for (sums, skipped, step) in [(between(&[2], 0.0, 2.0), 0.0, 7), (between(&[1], 0.0, 2.0), 4.0, 5), (Data::Special(vec![30]), 1.0, 9)] {
        let x = || uniform(&[5]);
        let state = Data::Uniform(vec![3], skipped, skipped);
        let scale = || Data::Output(Optimizer::LossScale(scaled).into(), vec![sums.clone(), state.clone()], 0);
        c.add(Optimizer::Sgd(SgdStep { step, ..sgd }), vec![x(), x(), scale()]);
        c.add(Optimizer::Sgd(SgdStep { step, momentum: 0.9, dampening: 0.3, ..sgd }), vec![x(), x(), scale(), x()]);
        c.add(Optimizer::Adam(AdamStep { step, ..adam }), vec![x(), x(), scale(), x(), between(&[5], 0.01, 1.0)]);
    }
    for (sums, state) in [
        (between(&[1], 0.0, 9.0), between(&[3], 1.0, 2.0)),
        // The row of good steps is long enough: the scale grows.
        (between(&[300], 0.0, 9.0), between(&[3], 2.0, 2.0)),
        (Data::Special(vec![300]), between(&[3], 2.0, 9.0)),
    ] {
        for max_norm in [0.5, f64::INFINITY] {
            c.add(Optimizer::LossScale(LossScaleStep { max_norm, ..scaled }), vec![sums.clone(), state.clone()]);
        }
    }
    for (n, max_norm) in [(1, 1.0), (5, 0.5), (5, 100.0)] {
        c.add(Optimizer::ClipFactor { max_norm }, vec![between(&[n], 0.0, 2.0)]);
    }
}
