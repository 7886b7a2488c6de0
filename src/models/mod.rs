//! Networks by name, sized from the shape of their input.
//!
//! One name is one architecture. A network belongs here when a person would ask for it with `--model`; what only a benchmark needs does not.

mod alexnet;
mod cnn;
mod efficientnet;
mod export;
mod import;
mod lenet;
mod mlp;
mod mobilenet;
mod network;
mod recurrent;
mod resnet;
mod squeezenet;
mod vgg;
mod weights;

pub use alexnet::alexnet;
pub use cnn::cnn;
pub use efficientnet::efficientnet_lite0;
pub use export::onnx;
pub use import::{Imported, from_onnx};
pub use lenet::lenet5;
pub use mlp::mlp;
pub use mobilenet::mobilenet_v2;
pub use recurrent::recurrent;
pub use resnet::{resnet_cifar, resnet8, resnet18, resnet34, resnet50};
pub use squeezenet::{squeezenet1_0, squeezenet1_1};
pub use vgg::{Layer as VggLayer, VGG11, VGG16, vgg};
pub use weights::{head, load, load_arrays, transfer};

use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::recurrent::Cell;
use crate::nn::{Conv2d, Sequential, initialize};
use crate::op::Conv2dOptions;

/// The names that [`build`] knows; the first is the default.
pub const NAMES: [&str; 19] = [
    "cnn",
    "mlp",
    "lenet5",
    "alexnet",
    "resnet8",
    "resnet18",
    "resnet20",
    "resnet34",
    "resnet50",
    "resnet56",
    "mobilenet_v2",
    "efficientnet_lite0",
    "squeezenet1_0",
    "squeezenet1_1",
    "vgg11_bn",
    "vgg16_bn",
    "rnn",
    "gru",
    "lstm",
];

/// The recurrent nets among them.
pub const RECURRENT: [&str; 3] = ["rnn", "gru", "lstm"];

/// The ending of their names for rows whose first value says whether they are there: sequences of different lengths.
pub const MASKED: &str = "_masked";

/// What a model is called in file names: its name, or that of a description, `custom` where it has none.
pub fn title(model: &str) -> String {
    if !network::is_description(model) {
        return model.to_owned();
    }
    network::name(model).unwrap_or_else(|| "custom".into())
}

/// Builds the network `name` for images `[C, H, W]` and initialises it from `seed`: the same values on every device. `name` is one of [`NAMES`], or the text of
/// a network's description:
///
/// ```toml
/// layers = [
///   { type = "Conv2d", out_channels = 16, kernel_size = 3, padding = 1 },
///   { type = "ReLU" },
///   { type = "GlobalAvgPool2d" },
///   { type = "Flatten" },
///   { type = "Linear", out_features = "classes" },
/// ]
/// ```
///
/// Types are PyTorch's `Conv2d`, `BatchNorm2d`, `Linear`, `MaxPool2d`, `AvgPool2d`, `Flatten`, `Dropout` and activations with their attributes less what the
/// shapes say (`in_channels`); `RNN`, `GRU` and `LSTM`, which read images row by row and give their last state; `GlobalAvgPool2d`, the mean over the pixels; `Residual` of `layers` and perhaps a `shortcut`, added and rectified; `Sequential` of
/// `layers`, perhaps to `repeat`; `ZeroPad2d` with PyTorch's `padding` `[left, right, top, bottom]`, perhaps of channels too. A layer's `name` replaces its
/// number in the names of parameters. A layer takes what the one before it gives, or what `inputs` names: layers of the same list, or `input`. `Add`, `Mul` and
/// `Concat` (of channels) take several.
///
/// # Errors
/// [`Error::Config`] for an unknown name or, with its line, what is wrong in a description; [`Error::Shape`] when the images are too small for the network.
pub fn build(name: &str, input_shape: [usize; 3], classes: usize, device: &Device, seed: u64) -> Result<Sequential> {
    let (bare, masked) = name.strip_suffix(MASKED).map_or((name, false), |bare| (bare, RECURRENT.contains(&bare)));
    if !network::is_description(name) && !NAMES.contains(&name) && !masked {
        let hint = nearest(name, &NAMES).map_or_else(|| ".".to_owned(), |near| format!("; did you mean {near}?"));
        return Err(Error::Config(format!("unknown model '{name}'{hint} Known models: {}", NAMES.join(", "))));
    }
    if input_shape.contains(&0) || classes == 0 {
        return Err(Error::Shape(format!("{}: input [C, H, W] = {input_shape:?} and classes = {classes} must be at least 1", title(name))));
    }
    if network::is_description(name) {
        let model = network::build(name, input_shape, classes, device)?;
        initialize(&model, seed)?;
        return Ok(model);
    }
    // The stem for ImageNet would leave nothing of small images.
    let small = input_shape[1].max(input_shape[2]) <= 64;
    let model = match bare {
        "mlp" => mlp(device, input_shape, classes)?,
        "lenet5" => lenet5(device, input_shape, classes)?,
        "alexnet" => alexnet(device, input_shape, classes, small, 0.5)?,
        "resnet8" => resnet8(device, input_shape, classes)?,
        "resnet18" => resnet18(device, input_shape, classes, small)?,
        "resnet34" => resnet34(device, input_shape, classes, small)?,
        "resnet50" => resnet50(device, input_shape, classes, small)?,
        "resnet20" => resnet_cifar(device, input_shape, classes, 3)?,
        "resnet56" => resnet_cifar(device, input_shape, classes, 9)?,
        "mobilenet_v2" => mobilenet_v2(device, input_shape, classes, 1.0, 0.2)?,
        "efficientnet_lite0" => efficientnet_lite0(device, input_shape, classes, 0.2)?,
        "squeezenet1_0" => squeezenet1_0(device, input_shape, classes, 0.5)?,
        "squeezenet1_1" => squeezenet1_1(device, input_shape, classes, 0.5)?,
        "vgg11_bn" => vgg(device, input_shape, &VGG11, classes)?,
        "vgg16_bn" => vgg(device, input_shape, &VGG16, classes)?,
        "rnn" => recurrent(device, Cell::RnnTanh, input_shape, classes, masked)?,
        "gru" => recurrent(device, Cell::Gru, input_shape, classes, masked)?,
        "lstm" => recurrent(device, Cell::Lstm, input_shape, classes, masked)?,
        _ => cnn(device, input_shape, classes)?,
    };
    initialize(&model, seed)?;
    Ok(model)
}

/// The candidate that differs from `word` in the fewest edits (insert, delete or replace a letter), if they are few.
pub(crate) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let near = candidates.iter().map(|&candidate| (distance(&word, &candidate.to_lowercase()), candidate)).min()?;
    (near.0 <= word.chars().count().max(3) / 2).then_some(near.1)
}

/// Levenshtein's distance, one row at a time.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + (x != *y) as usize;
            diagonal = row[j + 1];
            row[j + 1] = replace.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// A 3x3 convolution with padding 1 and, as batch normalisation follows, no bias.
fn conv3x3(device: &Device, in_channels: usize, out_channels: usize, stride: usize) -> Result<Conv2d> {
    conv(device, [in_channels, out_channels], 3, stride, 1, false)
}

fn conv(device: &Device, [from, to]: [usize; 2], kernel: usize, stride: usize, padding: usize, bias: bool) -> Result<Conv2d> {
    let options = Conv2dOptions { stride: [stride; 2], padding: [padding; 2], ..Default::default() };
    Conv2d::new(device, from, to, [kernel; 2], options, bias)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_the_nearest_and_the_list() {
        let (device, _) = Device::null();
        let error = |name: &str| build(name, [1, 8, 8], 10, &device, 0).err().unwrap().to_string();
        let known = NAMES.join(", ");
        assert_eq!(error("lenet"), format!("unknown model 'lenet'; did you mean lenet5? Known models: {known}"));
        assert_eq!(error("transformer"), format!("unknown model 'transformer'. Known models: {known}"));
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!((distance("kitten", "sitting"), distance("", "abc"), distance("cnn", "cnn")), (3, 3, 0));
        assert_eq!(nearest("ResNet8", &NAMES), Some("resnet8"));
    }
}
