//! Every combination of attributes and shapes that PyTorch rejects is rejected by [`Op::infer`], with a message that names the operation, the
//! attribute, what was given and what was expected.

use mappa::dtype::DType;
use mappa::op::*;
use mappa::rng::Stream;
use mappa::shape::{Shape, Spec};

fn f32s(shape: &[usize]) -> Spec {
    Spec::new(Shape::new(shape).unwrap(), DType::F32)
}

fn i32s(shape: &[usize]) -> Spec {
    Spec::new(Shape::new(shape).unwrap(), DType::I32)
}

fn u32s(shape: &[usize]) -> Spec {
    Spec::new(Shape::new(shape).unwrap(), DType::U32)
}

/// `op` refuses operands `bad` with a message that holds all the given parts.
fn refuses(op: impl Into<Op>, bad: &[Spec], parts: &[&str]) {
    let op = op.into();
    match op.infer(bad) {
        Ok(specs) => panic!("{op:?} accepts {bad:?} and makes {specs:?}"),
        Err(error) => {
            let text = error.to_string();
            for part in parts {
                assert!(text.to_lowercase().contains(part), "{op:?}: the message does not say '{part}': {text}");
            }
        }
    }
}

fn accepts(op: impl Into<Op>, good: &[Spec]) {
    let op = op.into();
    op.infer(good).unwrap_or_else(|error| panic!("{op:?} refuses {good:?}: {error}"));
}

#[test]
fn convolutions() {
    let (x, w) = (f32s(&[2, 4, 5, 5]), f32s(&[6, 2, 3, 3]));
    let good = Conv2dOptions { groups: 2, ..Default::default() };
    let forward = |options| Conv::Forward { options, bias: false, clip: Clip::Nothing };
    accepts(forward(good), &[x, w]);
    for (options, parts) in [
        (Conv2dOptions { stride: [0, 1], ..good }, ["conv2d", "stride", "at least 1", "[0, 1]"]),
        (Conv2dOptions { dilation: [1, 0], ..good }, ["conv2d", "dilation", "at least 1", "[1, 0]"]),
        (Conv2dOptions { groups: 0, ..good }, ["conv2d", "groups", "at least 1", "groups: 0"]),
        (Conv2dOptions { groups: 1, ..good }, ["conv2d", "groups = 1", "c = 4", "expects c = 2"]),
        (Conv2dOptions { groups: usize::MAX, ..good }, ["conv2d", "groups", "c = 4", "expects"]),
        (Conv2dOptions { dilation: [1, 3], ..good }, ["conv2d", "kernel width 3", "dilation 3", "width 5"]),
        (Conv2dOptions { dilation: [usize::MAX, 1], ..good }, ["conv2d", "kernel height 3", "dilation", "height 5"]),
    ] {
        refuses(forward(options), &[x, w], &parts);
        // The gradients check the same attributes; the shape that they infer is right for 1 group.
        let dy = f32s(&[2, 6, 3, 3]);
        if options.groups != 1 {
            refuses(Conv::BackwardInput { options, input_size: [5, 5] }, &[dy, w], &[]);
            refuses(Conv::BackwardWeight { options, kernel_size: [3, 3] }, &[x, dy], &[]);
        }
    }
    refuses(forward(Conv2dOptions { groups: 4, ..good }), &[x, f32s(&[6, 1, 3, 3])], &["conv2d", "6 output channels", "4 groups"]);
    refuses(forward(good), &[f32s(&[4, 5, 5]), w], &["conv2d", "[n, c, h, w]", "[4, 5, 5]"]);
    refuses(forward(good), &[x, f32s(&[6, 2, 3])], &["conv2d weight", "[6, 2, 3]"]);
    refuses(forward(good), &[x, f32s(&[6, 2, 7, 3])], &["conv2d", "kernel height 7", "height 5"]);
    refuses(forward(good), &[x, f32s(&[6, 2, 0, 3])], &["conv2d", "kernel height 0"]);
    refuses(forward(good), &[x, i32s(&[6, 2, 3, 3])], &["float", "i32"]);
    refuses(forward(good), &[x], &["1 operands", "expected 2"]);
    let bias = Conv::Forward { options: good, bias: true, clip: Clip::Nothing };
    accepts(bias, &[x, w, f32s(&[6])]);
    refuses(bias, &[x, w, f32s(&[4])], &["conv2d", "bias [4]", "[6]"]);
    refuses(bias, &[x, w], &["2 operands", "expected 3"]);
    refuses(Conv::BackwardInput { options: good, input_size: [5, 5] }, &[f32s(&[2, 6, 4, 3]), w], &["[2, 6, 4, 3]", "[2, 6, 3, 3]"]);
    refuses(Conv::BackwardWeight { options: good, kernel_size: [3, 3] }, &[x, f32s(&[3, 6, 3, 3])], &["[3, 6, 3, 3]", "[2, 6, 3, 3]"]);
}

#[test]
fn transposed_convolutions() {
    let size = |conv: Conv2dOptions, output_padding| ConvTranspose2dOptions { conv, output_padding }.output_size([3, 3], [2, 2]);
    let stride = |s| Conv2dOptions { stride: [s, s], ..Default::default() };
    assert_eq!(size(stride(2), [1, 0]).unwrap(), [7, 6]);
    for (conv, output_padding, parts) in [
        (stride(2), [2, 0], ["output_padding 2", "less than stride 2", "dilation 1"]),
        (stride(1), [0, 1], ["output_padding 1", "less than stride 1", "dilation 1"]),
        (stride(0), [0, 0], ["stride", "at least 1", "[0, 0]"]),
        (Conv2dOptions { padding: [2, 2], ..Default::default() }, [0, 0], ["padding 2", "leaves nothing", "input size 3"]),
    ] {
        let text = size(conv, output_padding).unwrap_err().to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
}

#[test]
fn pools() {
    let x = f32s(&[2, 3, 6, 6]);
    let good = Pool2dOptions { kernel_size: [3, 3], stride: [2, 2], padding: [1, 1], dilation: [1, 1], ceil_mode: false };
    let average = |window| AvgPool2dOptions { window, count_include_pad: true, divisor_override: None };
    accepts(Pool::Max(good), &[x]);
    accepts(Pool::Avg(average(good)), &[x]);
    for (window, parts) in [
        (Pool2dOptions { kernel_size: [0, 3], padding: [0, 0], ..good }, ["pool2d", "kernel_size", "at least 1", "[0, 3]"]),
        (Pool2dOptions { stride: [2, 0], ..good }, ["pool2d", "stride", "at least 1", "[2, 0]"]),
        (Pool2dOptions { padding: [2, 1], ..good }, ["pool2d", "padding 2", "at most half", "kernel_size 3"]),
        (Pool2dOptions { kernel_size: [9, 9], ..good }, ["pool2d", "window 9", "[2, 3, 6, 6]", "padding 1"]),
    ] {
        refuses(Pool::Max(window), &[x], &parts);
        refuses(Pool::Avg(average(window)), &[x], &parts);
        let dy = f32s(&[2, 3, 3, 3]);
        refuses(Pool::MaxBackward { options: window, input_size: [6, 6] }, &[dy, u32s(&[2, 3, 3, 3])], &parts);
        refuses(Pool::AvgBackward { options: average(window), input_size: [6, 6] }, &[dy], &parts);
    }
    refuses(Pool::Max(Pool2dOptions { dilation: [0, 1], ..good }), &[x], &["pool2d", "dilation", "at least 1", "[0, 1]"]);
    let zero = AvgPool2dOptions { divisor_override: Some(0), ..average(good) };
    refuses(Pool::Avg(zero), &[x], &["avg_pool2d", "divisor_override", "at least 1", "got 0"]);
    refuses(Pool::AvgBackward { options: zero, input_size: [6, 6] }, &[f32s(&[2, 3, 3, 3])], &["avg_pool2d", "divisor_override", "got 0"]);
    let dilated = average(Pool2dOptions { dilation: [2, 1], ..good });
    refuses(Pool::Avg(dilated), &[x], &["avg_pool2d", "dilation", "[1, 1]", "got [2, 1]"]);
    refuses(Pool::Max(good), &[f32s(&[6, 6])], &["pool2d", "[n, c, h, w]", "[6, 6]"]);
    refuses(Pool::Max(good), &[i32s(&[2, 3, 6, 6])], &["float", "i32"]);
    let backward = Pool::MaxBackward { options: good, input_size: [6, 6] };
    refuses(backward, &[f32s(&[2, 3, 3, 3]), i32s(&[2, 3, 3, 3])], &["max_pool2d", "u32", "i32"]);
    refuses(backward, &[f32s(&[2, 3, 4, 3]), u32s(&[2, 3, 4, 3])], &["[2, 3, 4, 3]", "[2, 3, 3, 3]"]);
    refuses(Pool::GlobalAvg, &[f32s(&[2, 3, 0, 6])], &["global_avg_pool2d", "no pixels", "[2, 3, 0, 6]"]);
}

#[test]
fn norms_and_matrix_products() {
    let (x, c) = (f32s(&[2, 3, 4, 4]), f32s(&[3]));
    let train = Norm::BatchNorm { eps: 1e-5, momentum: 0.1, running: false, after: After::Nothing };
    accepts(train, &[x, c, c]);
    refuses(train, &[f32s(&[1, 3]), c, c], &["batch_norm", "more than one value a channel", "[1, 3]"]);
    refuses(train, &[f32s(&[3]), c, c], &["batch_norm", "[n, c, ..]", "[3]"]);
    refuses(train, &[x, f32s(&[4]), c], &["batch_norm", "3 channels", "[4]"]);
    refuses(train, &[x, c], &["2 operands", "expected 3"]);
    let eval = |after| Norm::BatchNormEval { eps: 1e-5, after };
    refuses(eval(After::Nothing), &[x, c, c, c, f32s(&[2])], &["batch_norm", "3 channels", "[2]"]);
    accepts(eval(After::AddRelu), &[x, c, c, c, c, x]);
    refuses(eval(After::AddRelu), &[x, c, c, c, c], &["5 operands", "expected 6"]);
    refuses(eval(After::AddRelu), &[x, c, c, c, c, f32s(&[2, 3, 1, 1])], &["[2, 3, 4, 4]", "[2, 3, 1, 1]"]);
    refuses(eval(After::AddRelu), &[x, c, c, c, c, i32s(&[2, 3, 4, 4])], &["float", "i32"]);
    let backward = |after| Norm::BatchNormBackward { training: true, after };
    refuses(backward(After::Nothing), &[x, f32s(&[2, 3, 4, 5]), c, c, c], &["[2, 3, 4, 4]", "[2, 3, 4, 5]"]);
    refuses(backward(After::Relu { ceiling: 6.0 }), &[x, x, c, c, c, x], &["3 channels", "[2, 3, 4, 4]"]);
    refuses(backward(After::AddRelu), &[x, x, c, c, c, c], &["[2, 3, 4, 4]", "[3]"]);
    let product = Matmul::default();
    accepts(product, &[f32s(&[2, 3]), f32s(&[3, 4])]);
    refuses(product, &[f32s(&[2, 3]), f32s(&[4, 3])], &["matmul", "inner sizes", "k = 3", "k = 4"]);
    refuses(Matmul { transpose_a: true, ..product }, &[f32s(&[2, 3]), f32s(&[3, 4])], &["matmul", "transposed", "k = 2", "k = 3"]);
    refuses(product, &[f32s(&[3]), f32s(&[3, 4])], &["matmul", "[.., m, k]", "[3]"]);
    refuses(product, &[f32s(&[2, 2, 3]), f32s(&[3, 3, 4])], &["matmul", "[2]", "[3]"]);
    refuses(Matmul { bias: true, ..product }, &[f32s(&[2, 3]), f32s(&[3, 4]), f32s(&[2])], &["matmul", "bias [2]", "[4]"]);
    refuses(Matmul { bias: true, ..product }, &[f32s(&[2, 3]), f32s(&[3, 4])], &["2 operands", "expected 3"]);
}

#[test]
fn reductions_scans_and_softmax() {
    let x = f32s(&[3, 4]);
    let reduce = |kind, dims: &[usize]| Reduce { kind, dims: dims.to_vec(), keepdim: false };
    accepts(reduce(ReduceKind::Max, &[0, 1]), &[x]);
    refuses(reduce(ReduceKind::Sum, &[2]), &[x], &["reduce", "dimension 2", "out of range", "[3, 4]"]);
    refuses(reduce(ReduceKind::Sum, &[1, 1]), &[x], &["reduce", "without repeats", "[1, 1]", "[3, 4]"]);
    for kind in [ReduceKind::Max, ReduceKind::Min, ReduceKind::ArgMax, ReduceKind::ArgMin, ReduceKind::Mean] {
        refuses(reduce(kind, &[1]), &[f32s(&[3, 0])], &["reduce", "no elements", "[3, 0]", "[1]"]);
    }
    refuses(reduce(ReduceKind::Max, &[0]), &[i32s(&[3])], &["float", "i32"]);
    refuses(Scan::Cumsum { dim: 2, reverse: false }, &[x], &["cumsum", "dimension 2", "[3, 4]"]);
    refuses(Scan::TopK { dim: 1, k: 5, largest: true }, &[x], &["topk", "k = 5", "4 elements", "[3, 4]"]);
    refuses(Softmax::LogSoftmax { dim: 2 }, &[x], &["log_softmax", "dimension 2", "[3, 4]"]);
    let plain = CrossEntropyOptions::default();
    let loss = Softmax::CrossEntropy;
    accepts(loss(plain), &[x, i32s(&[3])]);
    refuses(loss(plain), &[x, i32s(&[4])], &["cross_entropy", "[3, 4]", "targets [3]", "got [4]"]);
    refuses(loss(plain), &[x, f32s(&[3])], &["cross_entropy", "i32", "f32"]);
    refuses(loss(plain), &[f32s(&[4]), i32s(&[])], &["cross_entropy", "[n, c, ..]", "[4]"]);
    for label_smoothing in [-0.1, 1.5, f64::NAN] {
        let options = CrossEntropyOptions { label_smoothing, ..plain };
        refuses(
            loss(options),
            &[x, i32s(&[3])],
            &["cross_entropy", "label_smoothing", "[0, 1]", &label_smoothing.to_string().to_lowercase()],
        );
    }
    let weighted = CrossEntropyOptions { weight: true, ..plain };
    refuses(loss(weighted), &[x, i32s(&[3]), f32s(&[3])], &["[3]", "[4]"]);
    refuses(loss(weighted), &[x, i32s(&[3])], &["2 operands", "expected 3"]);
}

#[test]
fn layouts() {
    let x = f32s(&[3, 4]);
    refuses(Layout::Permute { dims: vec![0, 0] }, &[x], &["permute", "[0, 0]", "[3, 4]"]);
    refuses(Layout::Permute { dims: vec![1, 0, 2] }, &[x], &["[3, 4]"]);
    let slice = |starts: &[usize], steps: &[isize], sizes: &[usize]| Layout::Slice {
        starts: starts.into(),
        steps: steps.into(),
        sizes: sizes.into(),
    };
    accepts(slice(&[0, 1], &[1, 1], &[3, 3]), &[x]);
    refuses(slice(&[0, 2], &[1, 1], &[3, 3]), &[x], &["slice", "start 2", "size 3", "dimension 1"]);
    refuses(slice(&[0, 0], &[1, 0], &[3, 1]), &[x], &["slice", "step 0", "dimension 1"]);
    refuses(slice(&[0, 1], &[1, -1], &[3, 3]), &[x], &["slice", "step -1", "dimension 1"]);
    refuses(Layout::Concat { dim: 0 }, &[x, f32s(&[3, 5])], &["concat", "[3, 5]", "[3, 4]"]);
    refuses(Layout::Concat { dim: 2 }, &[x, x], &["concat", "dimension 2", "[3, 4]"]);
    refuses(Layout::Concat { dim: 0 }, &[], &["concat", "at least one"]);
    refuses(Layout::Expand { shape: Shape::new(&[3, 5]).unwrap() }, &[x], &["expand", "[3, 4]", "[3, 5]"]);
    refuses(Layout::Expand { shape: Shape::new(&[4]).unwrap() }, &[x], &["expand", "[3, 4]", "[4]"]);
    refuses(Layout::IndexSelect { dim: 2 }, &[x, i32s(&[2])], &["index_select", "dimension 2", "[3, 4]"]);
    refuses(Layout::IndexSelect { dim: 0 }, &[x, f32s(&[2])], &["index_select", "u32 or i32", "f32"]);
    refuses(Layout::IndexSelect { dim: 0 }, &[x, i32s(&[2, 1])], &["index_select", "[2, 1]"]);
    refuses(Layout::IndexAdd { dim: 0, size: 9 }, &[x, i32s(&[2])], &["index_add", "3 rows", "2 indices"]);
    refuses(Layout::IndexAdd { dim: 0, size: 9 }, &[x, f32s(&[3])], &["index_add", "u32 or i32", "f32"]);
    refuses(Layout::Gather { dim: 0 }, &[x, i32s(&[2, 5])], &["gather", "[2, 5]", "[3, 4]"]);
    refuses(Layout::Gather { dim: 0 }, &[x, i32s(&[2])], &["gather", "rank", "[3, 4]"]);
    let scatter = Layout::ScatterAdd { dim: 0, shape: Shape::new(&[3, 4]).unwrap() };
    refuses(scatter.clone(), &[f32s(&[2, 5]), i32s(&[2, 5])], &["scatter_add", "[2, 5]", "[3, 4]"]);
    refuses(scatter, &[f32s(&[2, 4]), i32s(&[1, 4])], &["[2, 4]", "[1, 4]"]);
}

#[test]
fn elementwise_random_recurrent_and_optimizers() {
    let x = f32s(&[3, 4]);
    refuses(Elementwise::Binary(Binary::Add), &[x, f32s(&[3])], &["add", "[3, 4]", "[3]"]);
    refuses(Elementwise::Binary(Binary::Mul), &[x, i32s(&[3, 4])], &["mul", "float", "i32"]);
    refuses(Elementwise::Unary(Unary::Exp), &[i32s(&[3])], &["exp", "float", "i32"]);
    refuses(Elementwise::Where, &[x, x, x], &["where", "u32", "f32"]);
    refuses(Elementwise::Compare(Comparison::ALL[0]), &[x, i32s(&[3, 4])], &["one type", "f32", "i32"]);
    let stream = Stream::new(0, "test", 0, 0);
    for p in [-0.1, 1.0, f64::NAN] {
        refuses(Random::Dropout { p, stream }, &[x], &["dropout", "p = ", "[0, 1)"]);
    }
    refuses(Recurrent::Lstm, &[f32s(&[2, 12]), f32s(&[2, 12]), f32s(&[2, 3])], &["lstm", "[2, n, h]", "[2, 3]"]);
    refuses(Recurrent::Gru, &[f32s(&[2, 9]), f32s(&[2, 8]), f32s(&[2, 3])], &["gru", "[2, 9]", "[2, 8]"]);
    let sgd = SgdStep { lr: 0.1, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: false, maximize: false, step: 2 };
    refuses(Optimizer::Sgd(sgd), &[x, x, f32s(&[1])], &["sgd", "3 operands", "expected 4"]);
    refuses(Optimizer::Sgd(sgd), &[x, f32s(&[3]), f32s(&[1]), x], &["sgd", "[3, 4]", "[3]"]);
}
