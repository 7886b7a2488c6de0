//! Random shapes and attributes of every family, compared with the CPU reference: what the rows of the case list did not think of.
//!
//! The seed is fixed, so a failure comes back. `MAPPA_FULL=1` runs twenty times as many.

mod common;

use mappa::backend::Backend;
use mappa::backend::cpu::Cpu;
use mappa::cases::{Case, Data, run_case};
use mappa::op::*;
use mappa::shape::Shape;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use std::sync::OnceLock;

fn cpu() -> &'static Cpu {
    static CPU: OnceLock<Cpu> = OnceLock::new();
    CPU.get_or_init(|| Cpu::new(2).unwrap())
}

/// The binary's one GPU; `None` where there is none and none is required.
#[cfg(feature = "gpu")]
fn gpu() -> Option<&'static dyn Backend> {
    static GPU: OnceLock<Option<mappa::backend::gpu::Gpu>> = OnceLock::new();
    GPU.get_or_init(|| common::gpu(Default::default())).as_ref().map(|gpu| gpu as &dyn Backend)
}
#[cfg(not(feature = "gpu"))]
fn gpu() -> Option<&'static dyn Backend> {
    None
}

/// Compares `cases` of one family on the fast CPU paths and, a quarter as many, on the GPU; with `MAPPA_FUZZ=N` N of them on each.
fn check(cases: impl Strategy<Value = Case>) {
    let factor = if common::full() { 20 } else { 1 };
    let fuzz: Option<u32> = std::env::var("MAPPA_FUZZ").ok().map(|n| n.parse().expect("MAPPA_FUZZ is a number of cases"));
    let reference = Cpu::reference().unwrap();
    for (device, count) in [(Some(cpu() as &dyn Backend), 64), (gpu(), 16)] {
        let Some(device) = device else { continue };
        // A shrunken failure prints itself; nothing is written beside the sources.
        let cases_wanted = fuzz.unwrap_or(count * factor);
        let config = Config { cases: cases_wanted, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
        let result = runner.run(&cases, |case| match run_case(&case, &reference, device) {
            Ok(outcome) => outcome.failure.map_or(Ok(()), |failure| Err(TestCaseError::fail(failure))),
            Err(error) => Err(TestCaseError::fail(error.to_string())),
        });
        if let Err(error) = result {
            panic!("{}: {error}", device.capabilities().name);
        }
        println!("{cases_wanted} cases agree on {}", device.capabilities().name);
    }
}

fn uniform(shape: &[usize]) -> Data {
    Data::Uniform(shape.to_vec(), -1.0, 1.0)
}

/// Away from 0, so that quotients and logarithms stay tame.
fn positive(shape: &[usize]) -> Data {
    Data::Uniform(shape.to_vec(), 0.5, 2.0)
}

fn case(op: impl Into<Op>, inputs: Vec<Data>) -> Case {
    Case { op: op.into(), inputs, differentiable: false }
}

/// Sizes that fall on, before and behind the tiles and workgroups: mostly small, some large, 0 now and then.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 1..9usize, 3 => 9..40usize, 1 => 60..70usize, 1 => Just(0)]
}

/// Sizes of at least one element.
fn positive_size() -> impl Strategy<Value = usize> {
    size().prop_map(|n| n.max(1))
}

/// Rank 0 to 4, sizes as [`size`].
fn shape() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(size(), 0..5)
}

fn pair(range: std::ops::Range<usize>) -> impl Strategy<Value = [usize; 2]> {
    (range.clone(), range).prop_map(|(a, b)| [a, b])
}

#[test]
fn elementwise_functions_and_their_gradients_agree() {
    let cases = (shape(), prop::sample::select(Unary::ALL.to_vec()), any::<bool>()).prop_map(|(shape, f, backward)| {
        let forward = case(Elementwise::Unary(f), vec![positive(&shape)]);
        if !backward {
            return forward;
        }
        let saved = match f.saved() {
            elementwise::Saved::Input => positive(&shape),
            elementwise::Saved::Output => Data::Output(forward.op, forward.inputs, 0),
        };
        case(Elementwise::UnaryBackward(f), vec![saved, uniform(&shape)])
    });
    check(cases);
}

#[test]
fn binary_functions_agree_on_shapes_that_broadcast() {
    let functions = Binary::ALL.to_vec();
    // Of each operand: how many leading dimensions it lacks, and which of the others are 1.
    let operand = || (0..5usize, prop::collection::vec(any::<bool>(), 4));
    let cases = (shape(), operand(), operand(), prop::sample::select(functions)).prop_map(|(shape, a, b, f)| {
        let of = |(lacks, ones): (usize, Vec<bool>)| -> Vec<usize> {
            shape.iter().zip(ones).skip(lacks).map(|(&n, one)| if one { 1 } else { n }).collect()
        };
        case(Elementwise::Binary(f), vec![uniform(&of(a)), positive(&of(b))])
    });
    check(cases);
}

#[test]
fn matrix_products_agree() {
    let batches = (prop::collection::vec(1..4usize, 0..3), any::<bool>(), any::<bool>());
    let cases = ((size(), size(), size()), batches, prop::array::uniform4(any::<bool>())).prop_map(
        |((m, n, k), (batch, a_has, b_has), [transpose_a, transpose_b, bias, relu])| {
            let matrix = |has: bool, rows: usize, cols: usize, transposed: bool| {
                let mut shape = if has { batch.clone() } else { Vec::new() };
                shape.extend(if transposed { [cols, rows] } else { [rows, cols] });
                uniform(&shape)
            };
            let mut inputs = vec![matrix(a_has, m, k, transpose_a), matrix(b_has, k, n, transpose_b)];
            if bias {
                inputs.push(uniform(&[n]));
            }
            case(Matmul { transpose_a, transpose_b, bias, relu }, inputs)
        },
    );
    check(cases);
}

fn clip() -> impl Strategy<Value = Clip> {
    prop_oneof![Just(Clip::Nothing), Just(Clip::Relu), Just(Clip::Relu6)]
}

#[test]
fn convolutions_and_their_gradients_agree() {
    let attributes = (pair(1..4), pair(0..4), pair(1..3), 1..4usize);
    let sizes = (0..4usize, 1..6usize, 1..9usize, pair(1..6), pair(0..14));
    let cases = (sizes, attributes, any::<bool>(), clip(), 0..3).prop_map(
        |((n, cg, kg, kernel_size, extra), (stride, padding, dilation, groups), bias, clip, pass)| {
            let options = Conv2dOptions { stride, padding, dilation, groups };
            // Large enough for one window.
            let side = |axis: usize| ((kernel_size[axis] - 1) * dilation[axis] + 1).saturating_sub(2 * padding[axis]).max(1) + extra[axis];
            let (x, w) = ([n, cg * groups, side(0), side(1)], [kg * groups, cg, kernel_size[0], kernel_size[1]]);
            let y = options.output_shape(&Shape::new(&x).unwrap(), &Shape::new(&w).unwrap()).unwrap();
            match pass {
                0 if bias => case(Conv::Forward { options, bias, clip }, vec![uniform(&x), uniform(&w), uniform(&w[..1])]),
                0 => case(Conv::Forward { options, bias, clip }, vec![uniform(&x), uniform(&w)]),
                1 => case(Conv::BackwardInput { options, input_size: [x[2], x[3]] }, vec![uniform(&y), uniform(&w)]),
                _ => case(Conv::BackwardWeight { options, kernel_size }, vec![uniform(&x), uniform(&y)]),
            }
        },
    );
    check(cases);
}

/// As above with channels enough for the ways that pay only then.
#[test]
fn convolutions_of_many_channels_agree() {
    let sizes = (1..4usize, 16..70usize, 16..70usize, pair(0..18));
    let cases =
        (sizes, pair(0..3), any::<[bool; 2]>(), clip(), 0..3).prop_map(|((n, c, k, extra), padding, [strided, bias], clip, pass)| {
            let stride = if strided { [2, 2] } else { [1, 1] };
            let options = Conv2dOptions { stride, padding, ..Conv2dOptions::default() };
            let (x, w) = ([n, c, 3 + extra[0], 3 + extra[1]], [k, c, 3, 3]);
            let y = options.output_shape(&Shape::new(&x).unwrap(), &Shape::new(&w).unwrap()).unwrap();
            match pass {
                0 if bias => case(Conv::Forward { options, bias, clip }, vec![uniform(&x), uniform(&w), uniform(&w[..1])]),
                0 => case(Conv::Forward { options, bias, clip }, vec![uniform(&x), uniform(&w)]),
                1 => case(Conv::BackwardInput { options, input_size: [x[2], x[3]] }, vec![uniform(&y), uniform(&w)]),
                _ => case(Conv::BackwardWeight { options, kernel_size: [3, 3] }, vec![uniform(&x), uniform(&y)]),
            }
        });
    check(cases);
}

#[test]
fn pooling_and_its_gradients_agree() {
    let attributes = (pair(1..5), pair(1..4), pair(0..3), pair(1..3), any::<bool>());
    let average = (any::<bool>(), prop::option::of(1..6usize));
    let cases = ((0..4usize, 1..6usize, pair(0..20)), attributes, average, 0..6).prop_filter_map(
        "a window without a pixel",
        |((n, c, extra), window, (count_include_pad, divisor_override), pass)| {
            let (kernel_size, stride, padding, dilation, ceil_mode) = window;
            let padding = [padding[0].min(kernel_size[0] / 2), padding[1].min(kernel_size[1] / 2)];
            let dilation = if pass < 2 { dilation } else { [1, 1] };
            let options = Pool2dOptions { kernel_size, stride, padding, dilation, ceil_mode };
            let side = |axis: usize| ((kernel_size[axis] - 1) * dilation[axis] + 1 + extra[axis]).saturating_sub(2 * padding[axis]).max(1);
            let input_size = [side(0), side(1)];
            let x = [n, c, input_size[0], input_size[1]];
            let y = options.output_shape(&Shape::new(&x).unwrap()).ok()?;
            let average = AvgPool2dOptions { window: options, count_include_pad, divisor_override };
            Some(match pass {
                0 => case(Pool::Max(options), vec![Data::Ties(x.to_vec())]),
                1 => case(
                    Pool::MaxBackward { options, input_size },
                    vec![uniform(&y), Data::Output(Pool::Max(options).into(), vec![Data::Ties(x.to_vec())], 1)],
                ),
                2 => case(Pool::Avg(average), vec![uniform(&x)]),
                3 => case(Pool::AvgBackward { options: average, input_size }, vec![uniform(&y)]),
                4 => case(Pool::GlobalAvg, vec![uniform(&x)]),
                _ => case(Pool::GlobalAvgBackward { input_size }, vec![uniform(&[n, c, 1, 1])]),
            })
        },
    );
    check(cases);
}

#[test]
fn reductions_agree_over_any_set_of_dimensions() {
    let kinds = vec![
        ReduceKind::Sum,
        ReduceKind::SumSquares,
        ReduceKind::Mean,
        ReduceKind::Max,
        ReduceKind::ArgMax,
        ReduceKind::Var { correction: 0 },
    ];
    let long = (1..4usize, 1..20_000usize).prop_map(|(a, b)| vec![a, b]);
    let shapes = prop_oneof![4 => prop::collection::vec(positive_size(), 1..5), 1 => long];
    let cases = (shapes, prop::collection::vec(any::<bool>(), 5), any::<bool>(), prop::sample::select(kinds)).prop_map(
        |(shape, chosen, keepdim, kind)| {
            let dims = (0..shape.len()).filter(|&d| chosen[d]).collect();
            let data = if matches!(kind, ReduceKind::Max | ReduceKind::ArgMax) { Data::Ties(shape) } else { uniform(&shape) };
            case(Reduce { kind, dims, keepdim }, vec![data])
        },
    );
    check(cases);
}

#[test]
fn log_softmax_and_cross_entropy_agree() {
    let classes = prop_oneof![3 => 1..40usize, 1 => 200..400usize];
    let options = (any::<bool>(), prop::bool::ANY, 0..3i64);
    let cases =
        ((positive_size(), classes, 1..6usize), options, 0..4).prop_map(|((n, classes, inner), (weight, smooth, ignore_index), pass)| {
            let x = vec![n, classes, inner];
            let logits = || Data::Uniform(x.clone(), -5.0, 5.0);
            let options = CrossEntropyOptions { weight, label_smoothing: if smooth { 0.1 } else { 0.0 }, ignore_index };
            let mut inputs = vec![logits(), Data::Below(vec![n, inner], classes)];
            if weight {
                inputs.push(positive(&[classes]));
            }
            match pass {
                0 => case(Softmax::LogSoftmax { dim: 1 }, vec![logits()]),
                1 => case(
                    Softmax::LogSoftmaxBackward { dim: 1 },
                    vec![Data::Output(Softmax::LogSoftmax { dim: 1 }.into(), vec![logits()], 0), uniform(&x)],
                ),
                2 => case(Softmax::CrossEntropy(options), inputs),
                _ => {
                    inputs.push(uniform(&[n, inner]));
                    case(Softmax::CrossEntropyBackward(options), inputs)
                }
            }
        });
    check(cases);
}

#[test]
fn copies_agree_bit_for_bit() {
    let dimension = (size(), 0..4usize, 1..4usize, 0..4usize);
    let cases = (prop::collection::vec(dimension, 1..5), any::<u64>(), 0..6).prop_map(|(dims, order, pass)| {
        let shape: Vec<usize> = dims.iter().map(|d| d.0).collect();
        let rank = shape.len();
        let starts: Vec<usize> = dims.iter().map(|&(n, start, ..)| start.min(n)).collect();
        let mut steps: Vec<isize> = dims.iter().map(|d| d.2 as isize).collect();
        let sizes: Vec<usize> = (0..rank).map(|d| (shape[d] - starts[d]).div_ceil(dims[d].2)).collect();
        let mut first = starts.clone();
        for d in 0..rank {
            // Half of the dimensions are walked backwards.
            if order >> (40 + d) & 1 == 1 && sizes[d] > 0 {
                first[d] = starts[d] + (sizes[d] - 1) * dims[d].2;
                steps[d] = -steps[d];
            }
        }
        let axis = order as usize % rank;
        match pass {
            0 => {
                let mut dims: Vec<usize> = (0..rank).collect();
                dims.sort_by_key(|&d| order.rotate_left(16 * d as u32) % 251);
                case(Layout::Permute { dims }, vec![uniform(&shape)])
            }
            1 => case(Layout::Slice { starts: first, steps, sizes }, vec![uniform(&shape)]),
            2 => case(Layout::SliceBackward { starts: first, steps, shape: Shape::new(&shape).unwrap() }, vec![uniform(&sizes)]),
            3 => {
                let after = dims.iter().map(|d| d.3).collect();
                case(Layout::Pad { before: starts, after, value: -1.5 }, vec![uniform(&shape)])
            }
            4 => {
                let mut other = shape.clone();
                other[axis] = dims[axis].1;
                case(Layout::Concat { dim: axis }, vec![uniform(&shape), uniform(&other), uniform(&shape)])
            }
            _ => {
                let ones = (0..rank).map(|d| if order >> d & 1 == 1 { 1 } else { shape[d] }).collect::<Vec<usize>>();
                case(Layout::Expand { shape: Shape::new(&shape).unwrap() }, vec![uniform(&ones[axis.min(rank - 1)..])])
            }
        }
    });
    // An operand of lower rank broadcasts from the right, so the dimensions it lacks need no check here.
    check(cases);
}

#[test]
fn index_selection_and_its_gradient_agree() {
    let cases =
        (prop::collection::vec(positive_size(), 1..4), any::<usize>(), 0..40usize, any::<bool>()).prop_map(|(shape, dim, n, backward)| {
            let dim = dim % shape.len();
            let index = Data::Below(vec![n], shape[dim]);
            if !backward {
                return case(Layout::IndexSelect { dim }, vec![uniform(&shape), index]);
            }
            let mut rows = shape.clone();
            rows[dim] = n;
            case(Layout::IndexAdd { dim, size: shape[dim] }, vec![uniform(&rows), index])
        });
    check(cases);
}

#[test]
fn batch_normalisation_and_its_gradient_agree() {
    let what_follows = prop_oneof![
        Just(After::Nothing),
        Just(After::Relu { ceiling: f64::INFINITY }),
        Just(After::Relu { ceiling: 0.75 }),
        Just(After::AddRelu)
    ];
    let cases = ((1..6usize, 1..20usize, 1..80usize), 0..4, what_follows).prop_map(|((n, channels, inner), pass, after)| {
        // At least two values a channel.
        let x = [n + 1, channels, inner];
        let (weight, bias) = (positive(&[channels]), uniform(&[channels]));
        let train = Norm::BatchNorm { eps: 1e-5, momentum: 0.1, running: false, after };
        let with = |mut data: Vec<Data>, last: Option<Data>| {
            data.extend(last);
            data
        };
        let residual = (after == After::AddRelu).then(|| uniform(&x));
        let batch = with(vec![uniform(&x), weight.clone(), bias.clone()], residual.clone());
        let given = with([&batch[..3], &[uniform(&[channels]), positive(&[channels])]].concat(), residual);
        match pass {
            0 => case(train, batch),
            1 => case(Norm::BatchNorm { eps: 1e-3, momentum: 0.4, running: true, after }, given),
            2 => case(Norm::BatchNormEval { eps: 1e-5, after }, given),
            _ => {
                let of_batch = |i| Data::Output(train.into(), batch.clone(), i);
                let last = match after {
                    After::Nothing => None,
                    After::Relu { .. } => Some(bias),
                    After::AddRelu => Some(of_batch(0)),
                };
                let operands = vec![uniform(&x), uniform(&x), weight, of_batch(1), of_batch(2)];
                case(Norm::BatchNormBackward { training: true, after }, with(operands, last))
            }
        }
    });
    check(cases);
}

#[test]
fn scans_and_gathers_agree() {
    let dimension = (positive_size(), 1..6usize);
    let cases = (prop::collection::vec(dimension, 1..5), any::<u32>(), 0..4, any::<bool>()).prop_map(|(dims, order, pass, flag)| {
        let shape: Vec<usize> = dims.iter().map(|d| d.0).collect();
        let dim = order as usize % shape.len();
        // As long as the tensor or shorter, but along the dimension, where it may be longer.
        let index: Vec<usize> =
            dims.iter().enumerate().map(|(d, &(n, m))| if d == dim { n + m - 3.min(n + m) } else { m.min(n) }).collect();
        let below = Data::Below(index.clone(), shape[dim] + flag as usize);
        match pass {
            0 => case(Scan::Cumsum { dim, reverse: flag }, vec![uniform(&shape)]),
            1 => case(Scan::TopK { dim, k: dims[dim].1.min(shape[dim]), largest: flag }, vec![Data::Ties(shape)]),
            2 => case(Layout::Gather { dim }, vec![uniform(&shape), below]),
            _ => case(Layout::ScatterAdd { dim, shape: Shape::new(&shape).unwrap() }, vec![uniform(&index), below]),
        }
    });
    check(cases);
}

#[test]
fn recurrent_steps_agree() {
    let cases = (size(), size(), 0..2).prop_map(|(n, h, net)| {
        let gates = |count: usize| Data::Uniform(vec![n, count * h], -6.0, 6.0);
        match net {
            0 => case(Recurrent::Lstm, vec![gates(4), gates(4), uniform(&[2, n, h])]),
            _ => case(Recurrent::Gru, vec![gates(3), gates(3), uniform(&[n, h])]),
        }
    });
    check(cases);
}

/// Resizing is a product with a matrix of the axis; devices differ by the roundings of that product, at most the old pixels many.
#[test]
#[cfg(feature = "gpu")]
fn resizing_agrees() {
    use mappa::nn::resize::{Coordinates, Filter, Nearest, Resize, resize};
    use mappa::{Device, Tensor};
    let (Ok(cpu), Ok(gpu)) = (Device::cpu(1), pollster::block_on(Device::gpu(None))) else { return };
    let filters = prop_oneof![Just(Filter::Linear), Just(Filter::Cubic { a: -0.75 }), Just(Filter::Nearest(Nearest::PreferFloor))];
    let places = prop_oneof![Just(Coordinates::HalfPixel), Just(Coordinates::AlignCorners), Just(Coordinates::Asymmetric)];
    let attributes = (prop::array::uniform3(1..20usize), 1..30usize, 0..3usize, filters, places, any::<bool>());
    let count = std::env::var("MAPPA_FUZZ").map_or(16, |n| n.parse().unwrap());
    let config = Config { cases: count, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
    let result = runner.run(&attributes, |(shape, size, dim, filter, places, antialias)| {
        let how = Resize { antialias, ..Resize::new(shape[dim], size, filter, places) };
        let on = |device: &Device| {
            let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| (i as f32 * 0.7).sin()).collect();
            resize(&Tensor::from_slice(device, &shape, &values).unwrap(), dim as i64, &how).unwrap().to_vec_blocking::<f32>().unwrap()
        };
        // Cubic weights are at most 1.5 in all, so that a sum of n terms of size 1 errs by at most 1.5 n roundings.
        let allowed = 1.5 * shape[dim] as f32 / 16_777_216.0;
        let worst = on(&cpu).iter().zip(on(&gpu)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        if worst <= allowed { Ok(()) } else { Err(TestCaseError::fail(format!("{how:?} of {shape:?}: {worst:e} exceeds {allowed:e}"))) }
    });
    result.unwrap();
}
