//! Layers: convolution, pooling, normalisation, softmax and losses, recurrent nets, sampling.

use super::math::plain;
use super::node::{Node, Operator, Outcome, Output, axis, malformed, one, sizes, unsupported};
use crate::dtype::DType;
use crate::nn::loss;
use crate::nn::recurrent::{self, Cell, Given, Sequences, Weights};
use crate::op::{Conv2dOptions, ConvTranspose2dOptions, Pool, Pool2dOptions, ReduceKind, Unary};
use crate::tensor::Tensor;
use crate::tensor::ops::Reduction;

const WINDOW: &[&str] =
    &["kernel_shape", "strides", "pads", "dilations", "auto_pad", "ceil_mode", "count_include_pad", "p", "storage_order"];
const NET: &[&str] = &["hidden_size", "direction", "layout", "linear_before_reset"];

pub(super) const OPERATORS: &[Operator] = &[
    Operator { name: "Conv", attributes: &["kernel_shape", "strides", "pads", "dilations", "auto_pad", "group"], run: conv },
    Operator {
        name: "ConvTranspose",
        attributes: &["kernel_shape", "strides", "pads", "dilations", "auto_pad", "group", "output_padding", "output_shape"],
        run: conv_transpose,
    },
    Operator { name: "MaxPool", attributes: WINDOW, run: max_pool },
    Operator { name: "AveragePool", attributes: WINDOW, run: average_pool },
    Operator { name: "LpPool", attributes: WINDOW, run: lp_pool },
    plain("GlobalAveragePool", |n| one(n.input(0)?.mean(Some(&[2, 3]), true)?)),
    plain("GlobalMaxPool", |n| one(n.input(0)?.amax(Some(&[2, 3]), true)?)),
    Operator { name: "MaxUnpool", attributes: &["kernel_shape", "strides", "pads"], run: max_unpool },
    Operator { name: "Col2Im", attributes: &["dilations", "pads", "strides"], run: col2im },
    Operator { name: "BatchNormalization", attributes: &["epsilon", "momentum", "training_mode"], run: batch_normalization },
    Operator {
        name: "InstanceNormalization",
        attributes: &["epsilon"],
        run: |n| one(n.input(0)?.instance_norm(Some(&n.input(1)?), Some(&n.input(2)?), n.attribute("epsilon", 1e-5)?)?),
    },
    Operator {
        name: "GroupNormalization",
        attributes: &["epsilon", "num_groups"],
        run: |n| {
            one(n.input(0)?.group_norm(
                n.attribute("num_groups", 1)?,
                Some(&n.input(1)?),
                Some(&n.input(2)?),
                n.attribute("epsilon", 1e-5)?,
            )?)
        },
    },
    Operator { name: "LayerNormalization", attributes: &["axis", "epsilon"], run: layer_normalization },
    Operator { name: "RMSNormalization", attributes: &["axis", "epsilon"], run: rms_normalization },
    Operator { name: "LpNormalization", attributes: &["axis", "p"], run: lp_normalization },
    Operator { name: "LRN", attributes: &["alpha", "beta", "bias", "size"], run: lrn },
    Operator { name: "MeanVarianceNormalization", attributes: &["axes"], run: mean_variance_normalization },
    Operator { name: "Softmax", attributes: &["axis"], run: |n| one(n.input(0)?.softmax(n.attribute("axis", -1)?)?) },
    Operator { name: "LogSoftmax", attributes: &["axis"], run: |n| one(n.input(0)?.log_softmax(n.attribute("axis", -1)?)?) },
    Operator { name: "Hardmax", attributes: &["axis"], run: hardmax },
    Operator { name: "SoftmaxCrossEntropyLoss", attributes: &["ignore_index", "reduction"], run: softmax_cross_entropy },
    Operator { name: "NegativeLogLikelihoodLoss", attributes: &["ignore_index", "reduction"], run: |n| one(nll(n, &n.input(0)?)?) },
    Operator { name: "Dropout", attributes: &["seed", "ratio"], run: dropout },
    Operator { name: "RNN", attributes: NET, run: |n| net(n, Cell::RnnTanh) },
    Operator { name: "LSTM", attributes: NET, run: |n| net(n, Cell::Lstm) },
    Operator { name: "GRU", attributes: NET, run: |n| net(n, Cell::Gru) },
    Operator { name: "AffineGrid", attributes: &["align_corners"], run: affine_grid },
];

/// One axis of a window.
#[derive(Debug, Clone, Copy)]
struct Axis {
    kernel: usize,
    stride: usize,
    dilation: usize,
    /// Padding before and after.
    pads: [usize; 2],
    /// Positions beyond the padding that rounding up reaches for: they belong to no divisor.
    beyond: usize,
}

/// The window of a node over the given sizes; one spatial dimension counts as the second of two.
fn window(n: &Node, spatial: &[usize], kernel: Option<Vec<usize>>) -> Outcome<[Axis; 2]> {
    let rank = spatial.len();
    if rank == 0 || rank > 2 {
        return unsupported(format!("{rank} spatial dimensions; there are operations for one and two"));
    }
    let Some(kernel) = n.get::<Vec<usize>>("kernel_shape")?.or(kernel) else { return malformed("there is no kernel_shape") };
    let list = |key: &str, default: usize, len: usize| -> Outcome<Vec<usize>> {
        let list: Vec<usize> = n.attribute(key, vec![default; len])?;
        if list.len() == len { Ok(list) } else { malformed(format!("{key} {list:?}")) }
    };
    let (strides, dilations, pads) = (list("strides", 1, rank)?, list("dilations", 1, rank)?, list("pads", 0, 2 * rank)?);
    if kernel.len() != rank {
        return malformed(format!("kernel_shape {kernel:?} over {rank} dimensions"));
    }
    let (auto, ceil) = (n.attribute("auto_pad", "NOTSET".to_owned())?, n.flag("ceil_mode", false)?);
    let mut axes = [Axis { kernel: 1, stride: 1, dilation: 1, pads: [0; 2], beyond: 0 }; 2];
    for d in 0..rank {
        let (size, stride) = (spatial[d], strides[d].max(1));
        let reach = dilations[d] * (kernel[d].max(1) - 1) + 1;
        let pads = match auto.as_str() {
            "NOTSET" => [pads[d], pads[d + rank]],
            "VALID" => [0; 2],
            "SAME_UPPER" | "SAME_LOWER" => {
                let total = ((size.div_ceil(stride).max(1) - 1) * stride + reach).saturating_sub(size);
                if auto == "SAME_UPPER" { [total / 2, total - total / 2] } else { [total - total / 2, total / 2] }
            }
            other => return malformed(format!("auto_pad {other}")),
        };
        let padded = size + pads[0] + pads[1];
        let Some(span) = padded.checked_sub(reach) else { return malformed(format!("a window of {reach} over {padded}")) };
        let mut beyond = 0;
        if ceil && span % stride != 0 {
            // A last window that would begin in the padding at the end is left out.
            let start = (span / stride + 1) * stride;
            if start < size + pads[0] {
                beyond = start + reach - padded;
            }
        }
        axes[d + 2 - rank] = Axis { kernel: kernel[d], stride, dilation: dilations[d], pads, beyond };
    }
    Ok(axes)
}

/// `[N, C, L]` as `[N, C, 1, L]`.
fn plane(x: &Tensor) -> Outcome<Tensor> {
    match x.shape()[..] {
        [n, c, l] => Ok(x.reshape(&[n, c, 1, l])?),
        _ => Ok(x.clone()),
    }
}

/// The result of a plane with as many dimensions as the input had.
fn unplane(y: &Tensor, rank: usize) -> Outcome<Tensor> {
    match (rank, &y.shape()[..]) {
        (3, &[n, c, _, l]) => Ok(y.reshape(&[n, c, l])?),
        _ => Ok(y.clone()),
    }
}

fn padded(x: &Tensor, axes: &[Axis; 2], value: f64) -> Outcome<Tensor> {
    let [h, w] = axes.map(|a| [a.pads[0] as i64, (a.pads[1] + a.beyond) as i64]);
    Ok(if [h, w] == [[0; 2]; 2] { x.clone() } else { x.pad(&[w[0], w[1], h[0], h[1]], value)? })
}

fn options(axes: &[Axis; 2], groups: usize) -> Conv2dOptions {
    Conv2dOptions { stride: axes.map(|a| a.stride), padding: [0; 2], dilation: axes.map(|a| a.dilation), groups }
}

fn conv(n: &Node) -> Outcome<Vec<Output>> {
    let (x, w) = (n.input(0)?, n.input(1)?);
    let axes = window(n, &x.shape()[2..], Some(w.shape()[2..].to_vec()))?;
    let y = padded(&plane(&x)?, &axes, 0.0)?.conv2d(&plane(&w)?, n.optional(2)?.as_ref(), options(&axes, n.attribute("group", 1)?))?;
    one(unplane(&y, x.shape().rank())?)
}

/// The whole result, of which the padding is then cut off.
fn conv_transpose(n: &Node) -> Outcome<Vec<Output>> {
    let (x, w) = (n.input(0)?, n.input(1)?);
    let rank = x.shape().rank() - 2;
    if rank == 0 || rank > 2 {
        return unsupported(format!("{rank} spatial dimensions; there are operations for one and two"));
    }
    let list = |key: &str, default: usize, len: usize| n.attribute::<Vec<usize>>(key, vec![default; len]);
    let (strides, dilations, extra) = (list("strides", 1, rank)?, list("dilations", 1, rank)?, list("output_padding", 0, rank)?);
    let (pads, auto) = (list("pads", 0, 2 * rank)?, n.attribute("auto_pad", "NOTSET".to_owned())?);
    let wanted: Option<Vec<usize>> = n.get("output_shape")?;
    let (mut stride, mut dilation, mut cut) = ([1; 2], [1; 2], [0i64; 4]);
    for d in 0..rank {
        let at = d + 2 - rank;
        (stride[at], dilation[at]) = (strides[d], dilations[d]);
        let (size, reach) = (x.shape()[2 + d], dilations[d] * (w.shape()[2 + d] - 1) + 1);
        let full = (strides[d] * (size - 1) + reach + extra[d]) as i64;
        let (begin, end) = match (&wanted, auto.as_str()) {
            (None, "NOTSET") => (pads[d] as i64, pads[d + rank] as i64),
            (None, "VALID") => (0, 0),
            (wanted, _) => {
                let target = wanted.as_ref().and_then(|w| w.get(d)).copied().unwrap_or(size * strides[d]) as i64;
                let total = full - target;
                match auto.as_str() {
                    // More than the whole: the rest is added at the end.
                    _ if total < 0 => (0, total),
                    "SAME_UPPER" => (total / 2, total - total / 2),
                    _ => (total - total / 2, total / 2),
                }
            }
        };
        // What was added at the end is not part of the whole: it is padding of zeros that bias then meets.
        (cut[2 * (1 - at)], cut[2 * (1 - at) + 1]) = (-begin, extra[d] as i64 - end);
    }
    let conv = Conv2dOptions { stride, padding: [0; 2], dilation, groups: n.attribute("group", 1)? };
    let y = plane(&x)?.conv_transpose2d(&plane(&w)?, None, ConvTranspose2dOptions { conv, output_padding: [0; 2] })?.pad(&cut, 0.0)?;
    let y = match n.optional(2)? {
        Some(bias) => y.add(&bias.reshape(&[bias.shape().len(), 1, 1])?)?,
        None => y,
    };
    one(unplane(&y, x.shape().rank())?)
}

fn pool_options(axes: &[Axis; 2]) -> Pool2dOptions {
    Pool2dOptions {
        kernel_size: axes.map(|a| a.kernel),
        stride: axes.map(|a| a.stride),
        padding: [0; 2],
        dilation: axes.map(|a| a.dilation),
        ceil_mode: false,
    }
}

fn max_pool(n: &Node) -> Outcome<Vec<Output>> {
    let x = n.input(0)?;
    let axes = window(n, &x.shape()[2..], None)?;
    let image = plane(&x)?;
    let results = Tensor::apply(Pool::Max(pool_options(&axes)), &[&padded(&image, &axes, f64::NEG_INFINITY)?])?;
    let [y, index] = &results[..] else { return malformed("max pooling has two results") };
    let mut outputs = vec![Output::Tensor(unplane(y, x.shape().rank())?)];
    if n.outputs > 1 {
        // From places in the padded plane to places in the whole tensor.
        let [_, _, h, w] = image.shape().nchw("MaxPool")?;
        let wide = w + axes[1].pads[0] + axes[1].pads[1] + axes[1].beyond;
        let planes = y.shape()[2] * y.shape()[3];
        let columns_first = n.flag("storage_order", false)?;
        let place = |(i, &at): (usize, &u32)| {
            let (row, column) = (at as usize / wide - axes[0].pads[0], at as usize % wide - axes[1].pads[0]);
            (i / planes * h * w + if columns_first { column * h + row } else { row * w + column }) as i64
        };
        let index: Vec<i64> = index.to_vec_blocking::<u32>()?.iter().enumerate().map(place).collect();
        outputs.push(Output::Integers(unplane(y, x.shape().rank())?.shape().to_vec(), index));
    }
    Ok(outputs)
}

/// Sums over windows: a convolution with ones, which also knows dilation.
fn window_sums(x: &Tensor, axes: &[Axis; 2]) -> Outcome<Tensor> {
    let [n, c, h, w] = x.shape().nchw("pool")?;
    let ones = Tensor::full(x.device(), &[1, 1, axes[0].kernel, axes[1].kernel], DType::F32, 1.0)?;
    let y = x.reshape(&[n * c, 1, h, w])?.conv2d(&ones, None, options(axes, 1))?;
    Ok(y.reshape(&[n, c, y.shape()[2], y.shape()[3]])?)
}

fn average_pool(n: &Node) -> Outcome<Vec<Output>> {
    let x = n.input(0)?;
    let axes = window(n, &x.shape()[2..], None)?;
    let image = plane(&x)?;
    let [_, _, h, w] = image.shape().nchw("AveragePool")?;
    // The divisors: how many counted positions each window holds.
    let counted = if n.flag("count_include_pad", false)? {
        let inner = axes.map(|a| Axis { beyond: 0, ..a });
        let ones = padded(&Tensor::full(n.device, &[1, 1, h, w], DType::F32, 1.0)?, &inner, 1.0)?;
        padded(&ones, &axes.map(|a| Axis { pads: [0; 2], ..a }), 0.0)?
    } else {
        padded(&Tensor::full(n.device, &[1, 1, h, w], DType::F32, 1.0)?, &axes, 0.0)?
    };
    let y = window_sums(&padded(&image, &axes, 0.0)?, &axes)?.div(&window_sums(&counted, &axes)?)?;
    one(unplane(&y, x.shape().rank())?)
}

fn lp_pool(n: &Node) -> Outcome<Vec<Output>> {
    let (x, p) = (n.input(0)?, n.attribute::<f64>("p", 2.0)?);
    let axes = window(n, &x.shape()[2..], None)?;
    let powers = padded(&plane(&x)?, &axes, 0.0)?.unary(Unary::Abs)?.powf(p)?;
    one(unplane(&window_sums(&powers, &axes)?.powf(1.0 / p)?, x.shape().rank())?)
}

/// Zeros, with each maximum at the place that it came from.
fn max_unpool(n: &Node) -> Outcome<Vec<Output>> {
    let (x, Some(index)) = (n.input(0)?, n.host(1)) else { return malformed("there is no index") };
    let [batch, c, h, w] = x.shape().nchw("MaxUnpool")?;
    let kernel: [usize; 2] = n.attribute("kernel_shape", [1; 2])?;
    let (stride, pads): ([usize; 2], [usize; 4]) = (n.attribute("strides", [1; 2])?, n.attribute("pads", [0; 4])?);
    let own = [0, 1].map(|d| ([h, w][d] - 1) * stride[d] + kernel[d] - pads[d] - pads[d + 2]);
    let shape = match n.integers(2) {
        Some(shape) => sizes(&shape)?,
        None => vec![batch, c, own[0], own[1]],
    };
    let len: usize = shape.iter().product();
    // Indices count in planes of the window's own size; a larger plane has longer rows.
    let place = |&at: &f64| {
        let (plane, rest) = (at as usize / (own[0] * own[1]), at as usize % (own[0] * own[1]));
        (plane * shape[2] * shape[3] + rest / own[1] * shape[3] + rest % own[1]) as u32
    };
    let index: Vec<u32> =
        if shape[2..] == own { index.values.iter().map(|&v| v as u32).collect() } else { index.values.iter().map(place).collect() };
    let index = Tensor::from_slice(n.device, &[index.len()], &index)?;
    let zeros = Tensor::full(n.device, &[len], DType::F32, 0.0)?;
    one(zeros.scatter_add(0, &index, &x.reshape(&[x.shape().len()])?)?.reshape(&shape)?)
}

/// The gradient of taking blocks out of an image: a transposed convolution with the identity.
fn col2im(n: &Node) -> Outcome<Vec<Output>> {
    let (x, image, block) = (n.input(0)?, sizes(&n.list(1)?)?, sizes(&n.list(2)?)?);
    let (&[h, w], &[kh, kw]) = (&image[..], &block[..]) else {
        return unsupported(format!("{} spatial dimensions; there are operations for one and two", image.len()));
    };
    let [batch, rows, _] = x.shape()[..] else { return malformed("Col2Im takes [N, C k, L]") };
    let pads: [usize; 4] = n.attribute("pads", [0; 4])?;
    let conv = Conv2dOptions { stride: n.attribute("strides", [1; 2])?, dilation: n.attribute("dilations", [1; 2])?, ..Default::default() };
    let (c, k) = (rows / (kh * kw), kh * kw);
    let whole = [h + pads[0] + pads[2], w + pads[1] + pads[3]];
    let blocks = [0, 1].map(|d| (whole[d] - conv.dilation[d] * ([kh, kw][d] - 1) - 1) / conv.stride[d] + 1);
    let identity: Vec<f32> = (0..k * k).map(|i| (i / k == i % k) as u32 as f32).collect();
    let weight = Tensor::from_slice(n.device, &[k, 1, kh, kw], &identity)?;
    let y = x.reshape(&[batch * c, k, blocks[0], blocks[1]])?;
    let y = y.conv_transpose2d(&weight, None, ConvTranspose2dOptions { conv, output_padding: [0; 2] })?;
    // Rows that no block reaches are zeros; padding is cut off.
    let missing = |d: usize| whole[d] as i64 - y.shape()[2 + d] as i64;
    let [top, left, bottom, right] = pads.map(|p| p as i64);
    one(y.pad(&[-left, missing(1) - right, -top, missing(0) - bottom], 0.0)?.reshape(&[batch, c, h, w])?)
}

fn batch_normalization(n: &Node) -> Outcome<Vec<Output>> {
    let (x, scale, bias, mean, var) = (n.input(0)?, n.input(1)?, n.input(2)?, n.input(3)?, n.input(4)?);
    let eps = n.attribute("epsilon", 1e-5)?;
    if !n.flag("training_mode", false)? {
        return one(x.batch_norm_eval(&scale, &bias, &mean, &var, eps)?);
    }
    // ONNX keeps `momentum` of the old statistics, and takes the biased variance.
    let momentum: f64 = n.attribute("momentum", 0.9)?;
    let dims: Vec<i64> = (0..x.shape().rank() as i64).filter(|&d| d != 1).collect();
    let mix = |old: &Tensor, new: &Tensor| old.affine(momentum, 0.0)?.add(&new.affine(1.0 - momentum, 0.0)?);
    let (own_mean, own_var) = (x.mean(Some(&dims), false)?, x.reduce(ReduceKind::Var { correction: 0 }, Some(&dims), false)?);
    Ok(vec![x.batch_norm(&scale, &bias, None, 0.1, eps)?.into(), mix(&mean, &own_mean)?.into(), mix(&var, &own_var)?.into()])
}

fn layer_normalization(n: &Node) -> Outcome<Vec<Output>> {
    let (x, eps) = (n.input(0)?, n.attribute("epsilon", 1e-5)?);
    let from = axis(n.attribute("axis", -1)?, x.shape().rank())?;
    let dims: Vec<i64> = (from..x.shape().rank()).map(|d| d as i64).collect();
    // Scale and bias may be broadcast.
    let y = x.layer_norm(&x.shape()[from..], None, None, eps)?.mul(&n.input(1)?)?;
    let y = match n.optional(2)? {
        Some(bias) => y.add(&bias)?,
        None => y,
    };
    let mean = x.mean(Some(&dims), true)?;
    let deviation = x.reduce(ReduceKind::Var { correction: 0 }, Some(&dims), true)?.affine(1.0, eps)?.unary(Unary::Rsqrt)?;
    Ok(vec![y.into(), mean.into(), deviation.into()])
}

fn rms_normalization(n: &Node) -> Outcome<Vec<Output>> {
    let x = n.input(0)?;
    let from = axis(n.attribute("axis", -1)?, x.shape().rank())?;
    one(x.rms_norm(&x.shape()[from..], None, n.attribute("epsilon", 1e-5)?)?.mul(&n.input(1)?)?)
}

/// Where the norm is 0, so are the elements.
fn lp_normalization(n: &Node) -> Outcome<Vec<Output>> {
    let x = n.input(0)?;
    let norm = x.norm(n.attribute("p", 2.0)?, Some(&[n.attribute("axis", -1)?]), true)?;
    let (zero, one_) = (Tensor::full(n.device, &[], DType::F32, 0.0)?, Tensor::full(n.device, &[], DType::F32, 1.0)?);
    let safe = one_.where_(&norm.compare(crate::op::Comparison::Eq, &zero)?, &norm)?;
    one(x.div(&safe)?)
}

/// ONNX's window of an even size begins one channel later than PyTorch's.
fn lrn(n: &Node) -> Outcome<Vec<Output>> {
    let size: usize = n.attribute("size", 1)?;
    if size.is_multiple_of(2) {
        return unsupported("an even size, whose window PyTorch places otherwise");
    }
    one(n.input(0)?.local_response_norm(size, n.attribute("alpha", 1e-4)?, n.attribute("beta", 0.75)?, n.attribute("bias", 1.0)?)?)
}

fn mean_variance_normalization(n: &Node) -> Outcome<Vec<Output>> {
    let x = n.input(0)?;
    let axes: Vec<i64> = n.attribute("axes", vec![0, 2, 3])?;
    let deviation = x.std(Some(&axes), 0, true)?.affine(1.0, 1e-9)?;
    one(x.sub(&x.mean(Some(&axes), true)?)?.div(&deviation)?)
}

/// 1 at the first of the largest elements.
fn hardmax(n: &Node) -> Outcome<Vec<Output>> {
    let x = n.input(0)?;
    let d = axis(n.attribute("axis", -1)?, x.shape().rank())?;
    let mut dims = vec![1; x.shape().rank()];
    dims[d] = x.shape()[d];
    let numbers = Tensor::from_slice(n.device, &dims, &(0..x.shape()[d] as u32).collect::<Vec<_>>())?;
    let largest = x.reduce(ReduceKind::ArgMax, Some(&[d as i64]), true)?;
    one(largest.compare(crate::op::Comparison::Eq, &numbers)?.cast(DType::F32)?)
}

fn reduction(n: &Node) -> Outcome<Reduction> {
    match n.attribute("reduction", "mean".to_owned())?.as_str() {
        "mean" => Ok(Reduction::Mean),
        "sum" => Ok(Reduction::Sum),
        "none" => Ok(Reduction::None),
        other => malformed(format!("reduction {other}")),
    }
}

fn nll(n: &Node, log_probabilities: &Tensor) -> Outcome<Tensor> {
    // Without the attribute every target counts; no class has this number.
    let ignore: i64 = n.attribute("ignore_index", i64::from(i32::MIN))?;
    Ok(loss::nll(log_probabilities, &n.input(1)?, n.optional(2)?.as_ref(), ignore, reduction(n)?)?)
}

fn softmax_cross_entropy(n: &Node) -> Outcome<Vec<Output>> {
    let log_probabilities = n.input(0)?.log_softmax(1)?;
    Ok(vec![nll(n, &log_probabilities)?.into(), log_probabilities.into()])
}

/// In evaluation nothing happens; what training drops is random.
fn dropout(n: &Node) -> Outcome<Vec<Output>> {
    let x = n.input(0)?;
    let training = n.number(2).unwrap_or(0.0) != 0.0;
    let ratio = n.number(1).map_or_else(|| n.attribute("ratio", 0.5), Ok)?;
    if training && ratio != 0.0 {
        return unsupported("a random mask in training, which is another generator's");
    }
    let mask = Output::Integers(x.shape().to_vec(), vec![1; x.shape().len()]);
    Ok(vec![x.into(), mask])
}

/// Rows of gates `[G H, ..]` from ONNX's order to PyTorch's.
fn gates(w: &Tensor, order: &[usize], h: usize) -> Outcome<Tensor> {
    let parts = order.iter().map(|&g| w.narrow(0, g * h, h)).collect::<crate::Result<Vec<_>>>()?;
    Ok(Tensor::concat(&parts.iter().collect::<Vec<_>>(), 0)?)
}

fn net(n: &Node, cell: Cell) -> Outcome<Vec<Output>> {
    let h: usize = n.attribute("hidden_size", 0)?;
    let batch_first = n.flag("layout", false)?;
    if n.host(7).is_some() {
        return unsupported("peephole weights");
    }
    let swap = |t: &Tensor| if batch_first { t.permute(&[1, 0, 2]) } else { Ok(t.clone()) };
    let x = swap(&n.input(0)?)?;
    if let Some(lengths) = n.host(4)
        && lengths.values.iter().any(|&l| l as usize != x.shape()[0])
    {
        return unsupported("sequences of different lengths");
    }
    let state = |i: usize| -> Outcome<Option<Tensor>> { Ok(n.optional(i)?.map(|t| swap(&t)).transpose()?) };
    let (h0, c0) = (state(5)?, state(6)?);
    // ONNX: i, o, f, c and z, r, h; PyTorch: i, f, g, o and r, z, n.
    let order: &[usize] = match cell {
        Cell::Lstm => &[0, 2, 3, 1],
        Cell::Gru => &[1, 0, 2],
        _ => &[0],
    };
    let (w, r, b) = (n.input(1)?, n.input(2)?, n.optional(3)?);
    let directions = w.shape()[0];
    let mut weights = Vec::new();
    for d in 0..directions {
        let part = |t: &Tensor| -> Outcome<Tensor> { Ok(t.narrow(0, d, 1)?.reshape(&t.shape()[1..])?) };
        let (mut input_bias, mut hidden_bias) = (None, None);
        if let Some(b) = &b {
            let both = part(b)?;
            let half = both.shape()[0] / 2;
            input_bias = Some(gates(&both.narrow(0, 0, half)?, order, h)?);
            hidden_bias = Some(gates(&both.narrow(0, half, half)?, order, h)?);
        }
        weights.push(Weights { input: gates(&part(&w)?, order, h)?, hidden: gates(&part(&r)?, order, h)?, input_bias, hidden_bias });
    }
    let direction: String = n.attribute("direction", "forward".to_owned())?;
    let reverse = direction == "reverse";
    let x = if reverse { x.flip(&[0])? } else { x };
    let result = if cell == Cell::Gru && !n.flag("linear_before_reset", false)? {
        gru_reset_first(&x, &weights, h0.as_ref(), h)?
    } else {
        recurrent::sequence(cell, &x, &weights, directions == 2, Given { h0: h0.as_ref(), c0: c0.as_ref(), mask: None }, &mut Ok)?
    };
    let output = if reverse { result.output.flip(&[0])? } else { result.output };
    // [T, N, D H] to [T, D, N, H].
    let (steps, batch) = (output.shape()[0], output.shape()[1]);
    let y = output.reshape(&[steps, batch, directions, h])?;
    let y = y.permute(if batch_first { &[1, 0, 2, 3] } else { &[0, 2, 1, 3] })?;
    let mut outputs = vec![y.into(), swap(&result.h_n)?.into()];
    if let Some(c) = result.c_n {
        outputs.push(swap(&c)?.into());
    }
    Ok(outputs)
}

/// The older GRU, whose reset gate comes before the hidden weights: `n = tanh(x_n + (r h) W_n + b_n)`.
fn gru_reset_first(x: &Tensor, weights: &[Weights], h0: Option<&Tensor>, size: usize) -> Outcome<Sequences> {
    let (steps, batch) = (x.shape()[0], x.shape()[1]);
    let (mut outputs, mut last) = (Vec::new(), Vec::new());
    for (d, w) in weights.iter().enumerate() {
        let mut h = match h0 {
            Some(h0) => h0.narrow(0, d, 1)?.reshape(&[batch, size])?,
            None => Tensor::full(x.device(), &[batch, size], DType::F32, 0.0)?,
        };
        let part = |t: &Tensor, g: usize| t.narrow(0, g * size, size);
        let bias = |t: &Option<Tensor>, g: usize| t.as_ref().map(|t| part(t, g)).transpose();
        let mut hidden = vec![None; steps];
        for i in 0..steps {
            let t = if d == 0 { i } else { steps - 1 - i };
            let x = x.narrow(0, t, 1)?.reshape(&[batch, x.shape()[2]])?;
            let of_x = |g: usize| x.linear(&part(&w.input, g)?, bias(&w.input_bias, g)?.as_ref());
            let of_h = |h: &Tensor, g: usize| h.linear(&part(&w.hidden, g)?, bias(&w.hidden_bias, g)?.as_ref());
            let (r, z) = (of_x(0)?.add(&of_h(&h, 0)?)?.sigmoid()?, of_x(1)?.add(&of_h(&h, 1)?)?.sigmoid()?);
            let new = of_x(2)?.add(&of_h(&r.mul(&h)?, 2)?)?.tanh()?;
            h = new.add(&z.mul(&h.sub(&new)?)?)?;
            hidden[t] = Some(h.reshape(&[1, batch, size])?);
        }
        outputs.push(Tensor::concat(&hidden.iter().flatten().collect::<Vec<_>>(), 0)?);
        last.push(h);
    }
    let output = Tensor::concat(&outputs.iter().collect::<Vec<_>>(), 2)?;
    Ok(Sequences { output, h_n: Tensor::stack(&last.iter().collect::<Vec<_>>(), 0)?, c_n: None })
}

/// The places of an image's pixels after an affine map: `[N, H, W, 2]`, x before y, from -1 to 1.
fn affine_grid(n: &Node) -> Outcome<Vec<Output>> {
    let (theta, size) = (n.input(0)?, sizes(&n.list(1)?)?);
    let &[batch, _, h, w] = &size[..] else { return unsupported("3 spatial dimensions; there are operations for one and two") };
    let corners = n.flag("align_corners", false)?;
    let place = |i: usize, count: usize| match corners {
        true if count > 1 => -1.0 + 2.0 * i as f32 / (count - 1) as f32,
        true => -1.0,
        false => (2 * i + 1) as f32 / count as f32 - 1.0,
    };
    let base: Vec<f32> = (0..h * w).flat_map(|i| [place(i % w, w), place(i / w, h), 1.0]).collect();
    let grid = Tensor::from_slice(n.device, &[1, h * w, 3], &base)?.matmul_with(&theta, false, true)?;
    one(grid.reshape(&[batch, h, w, 2])?)
}
