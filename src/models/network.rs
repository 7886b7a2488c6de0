//! Networks described in TOML: layers by PyTorch's names, shapes inferred from the images.
//!
//! ```toml
//! name = "small"
//! layers = [
//!   { type = "Conv2d", out_channels = 32, kernel_size = 3, padding = 1, bias = false },
//!   { type = "BatchNorm2d" },
//!   { type = "ReLU" },
//!   { type = "MaxPool2d", kernel_size = 2 },
//!   { type = "Residual", layers = [
//!     { type = "Conv2d", out_channels = 32, kernel_size = 3, padding = 1 },
//!     { type = "BatchNorm2d" },
//!   ] },
//!   { type = "GlobalAvgPool2d" },
//!   { type = "Flatten" },
//!   { type = "Linear", out_features = "classes" },
//! ]
//! ```

use serde::Deserialize;
use toml::Spanned;

use super::nearest;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::nn::recurrent::{Cell, RecurrentOptions, RowReader};
use crate::nn::{
    Activation, AvgPool2d, BatchNorm2d, Context, Conv2d, Dropout, Flatten, GlobalAvgPool2d, Graph, Linear, MaxPool2d, Module, Residual,
    Sequential, Step,
};
use crate::op::{AvgPool2dOptions, Conv2dOptions, Pool2dOptions};
use crate::tensor::Tensor;

/// The most layers of a network; more is a mistake in `repeat`.
pub(super) const MAX_LAYERS: usize = 2000;

/// A network's description.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Network {
    name: Option<String>,
    layers: Vec<Spanned<Layer>>,
}

/// One number for both directions, or one each.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged, expecting = "expected a whole number or [height, width]")]
enum Pair {
    Both(usize),
    Each([usize; 2]),
}

/// Of windows as [`Pair`]; of `ZeroPad2d` sides, the last dimension first.
#[derive(Deserialize, Clone)]
#[serde(untagged, expecting = "expected a whole number, [height, width] or a list of sides")]
enum Padding {
    Pair(Pair),
    Sides(Vec<i64>),
}

/// A number of features, or "classes".
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a whole number or \"classes\"")]
enum Features {
    Number(usize),
    Word(String),
}

/// A layer with the attributes of all types; each type takes some.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Layer {
    #[serde(rename = "type")]
    kind: String,
    name: Option<String>,
    out_channels: Option<Features>,
    out_features: Option<Features>,
    kernel_size: Option<Pair>,
    stride: Option<Pair>,
    padding: Option<Padding>,
    dilation: Option<Pair>,
    groups: Option<usize>,
    bias: Option<bool>,
    ceil_mode: Option<bool>,
    p: Option<f64>,
    eps: Option<f64>,
    momentum: Option<f64>,
    negative_slope: Option<f64>,
    hidden_size: Option<usize>,
    num_layers: Option<usize>,
    bidirectional: Option<bool>,
    dropout: Option<f64>,
    repeat: Option<usize>,
    layers: Option<Vec<Spanned<Layer>>>,
    shortcut: Option<Vec<Spanned<Layer>>>,
    inputs: Option<Vec<String>>,
}

/// Those of recurrent nets.
const RECURRENT: &[&str] = &["hidden_size", "num_layers", "bias", "bidirectional", "dropout"];

/// The types with the attributes that each takes besides `type` and `name`.
const TYPES: [(&str, &[&str]); 27] = [
    ("Conv2d", &["out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "bias"]),
    ("BatchNorm2d", &["eps", "momentum"]),
    ("Linear", &["out_features", "bias"]),
    ("RNN", RECURRENT),
    ("GRU", RECURRENT),
    ("LSTM", RECURRENT),
    ("ReLU", &[]),
    ("ReLU6", &[]),
    ("LeakyReLU", &["negative_slope"]),
    ("GELU", &[]),
    ("SiLU", &[]),
    ("Hardswish", &[]),
    ("Hardsigmoid", &[]),
    ("Mish", &[]),
    ("Sigmoid", &[]),
    ("Tanh", &[]),
    ("MaxPool2d", &["kernel_size", "stride", "padding", "dilation", "ceil_mode"]),
    ("AvgPool2d", &["kernel_size", "stride", "padding", "ceil_mode"]),
    ("GlobalAvgPool2d", &[]),
    ("Flatten", &[]),
    ("Dropout", &["p"]),
    ("ZeroPad2d", &["padding"]),
    ("Add", &[]),
    ("Mul", &[]),
    ("Concat", &[]),
    ("Residual", &["layers", "shortcut"]),
    ("Sequential", &["layers", "repeat"]),
];

impl Layer {
    /// The attributes that are given.
    fn given(&self) -> Vec<&'static str> {
        let all = [
            ("out_channels", self.out_channels.is_some()),
            ("out_features", self.out_features.is_some()),
            ("kernel_size", self.kernel_size.is_some()),
            ("stride", self.stride.is_some()),
            ("padding", self.padding.is_some()),
            ("dilation", self.dilation.is_some()),
            ("groups", self.groups.is_some()),
            ("bias", self.bias.is_some()),
            ("ceil_mode", self.ceil_mode.is_some()),
            ("p", self.p.is_some()),
            ("eps", self.eps.is_some()),
            ("momentum", self.momentum.is_some()),
            ("negative_slope", self.negative_slope.is_some()),
            ("hidden_size", self.hidden_size.is_some()),
            ("num_layers", self.num_layers.is_some()),
            ("bidirectional", self.bidirectional.is_some()),
            ("dropout", self.dropout.is_some()),
            ("repeat", self.repeat.is_some()),
            ("layers", self.layers.is_some()),
            ("shortcut", self.shortcut.is_some()),
        ];
        all.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
    }
}

fn pair(value: Option<Pair>, default: usize) -> [usize; 2] {
    match value {
        Some(Pair::Both(n)) => [n; 2],
        Some(Pair::Each(pair)) => pair,
        None => [default; 2],
    }
}

/// The padding of a window, the same on both sides.
fn window_padding(padding: &Option<Padding>) -> Result<[usize; 2]> {
    match padding {
        Some(Padding::Pair(own)) => Ok(pair(Some(*own), 0)),
        Some(Padding::Sides(_)) => {
            Err(Error::Config("padding is a whole number or [height, width]; sides that differ take a ZeroPad2d before it".into()))
        }
        None => Ok([0; 2]),
    }
}

/// PyTorch's layer of this name: zeros around images, by its list of sides; of six numbers the last two are of the channels.
struct ZeroPad2d(Vec<i64>);

impl Module for ZeroPad2d {
    fn forward(&self, _: &mut Context, x: &Tensor) -> Result<Tensor> {
        x.pad(&self.0, 0.0)
    }

    fn describe(&self) -> String {
        format!("ZeroPad2d {:?}", self.0)
    }
}

/// Whether a model's name is a description.
pub(super) fn is_description(text: &str) -> bool {
    text.contains('\n') || text.contains('=')
}

fn parse(text: &str) -> Result<Network> {
    toml::from_str(text).map_err(|e| {
        let start = e.span().map_or(0, |span| span.start);
        Error::Config(format!("line {}: {}", line(text, start), e.message()))
    })
}

/// The line, from 1, of a place in the text.
fn line(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|&b| b == b'\n').count()
}

/// The `name` that a description gives, if it can be part of a file name.
pub(super) fn name(text: &str) -> Option<String> {
    let name = parse(text).ok()?.name?;
    name.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c)).then_some(name).filter(|name| !name.starts_with('.'))
}

/// Builds the network that `text` describes.
pub(super) fn build(text: &str, [channels, height, width]: [usize; 3], classes: usize, device: &Device) -> Result<Sequential> {
    let network = parse(text)?;
    // Shapes come from the same layers on the null device.
    let (null, _) = Device::null();
    let x = Tensor::zeros(&null, &[1, channels, height, width])?;
    let mut builder = Builder { text, device, null: &null, classes, layers: 0 };
    let (network, y) = builder.sequence(&network.layers, x, 0)?;
    if y.shape()[..] != [1, classes] {
        return Err(Error::Config(format!(
            "the layers give {}, expected [N, {classes}], a logit for each class; end with Flatten and {{ type = \"Linear\", out_features = \"classes\" }}",
            y.shape()
        )));
    }
    Ok(network)
}

struct Builder<'a> {
    text: &'a str,
    device: &'a Device,
    null: &'a Device,
    classes: usize,
    layers: usize,
}

impl Builder<'_> {
    /// Layers one after the other, or as their `inputs` say, and what they make of `x` on the null device.
    fn sequence(&mut self, layers: &[Spanned<Layer>], mut x: Tensor, depth: usize) -> Result<(Sequential, Tensor)> {
        let merges = |kind: &str| matches!(kind, "Add" | "Mul" | "Concat");
        let branches = layers.iter().any(|layer| layer.get_ref().inputs.is_some() || merges(&layer.get_ref().kind));
        let (mut sequence, mut graph) = (Sequential::new(), Graph::new());
        let mut names: Vec<String> = Vec::new();
        // What each layer gives, behind the input.
        let mut results = vec![x.clone()];
        for (i, layer) in layers.iter().enumerate() {
            let at = line(self.text, layer.span().start);
            let own = layer.get_ref();
            let name = own.name.clone().unwrap_or_else(|| i.to_string());
            let located = |error: Error| match error {
                Error::Config(message) if message.starts_with("line ") => Error::Config(message),
                error => Error::Config(format!("line {at}: {}: {error}", own.kind)),
            };
            if names.contains(&name) || name.is_empty() || name.contains(['.', '/']) {
                return Err(located(Error::Config(format!("name {name:?} is taken, empty or has a dot; give another"))));
            }
            if !branches {
                let module;
                (module, x) = self.layer(own, &x, depth).map_err(located)?;
                sequence = sequence.named_box(&name, module);
                names.push(name);
                continue;
            }
            let number = |input: &String| match names.iter().position(|name| name == input) {
                Some(layer) => Ok(layer + 1),
                None if input == "input" => Ok(0),
                None => Err(located(Error::Config(format!(
                    "inputs: no layer before it is called {input:?}; there are input, {}",
                    names.join(", ")
                )))),
            };
            let inputs = own.inputs.as_ref().map_or(Ok(vec![i]), |inputs| inputs.iter().map(number).collect())?;
            let step;
            (step, x) = self.step(own, &inputs.iter().map(|&input| &results[input]).collect::<Vec<_>>(), depth).map_err(located)?;
            graph.push(&name, &inputs, step).map_err(located)?;
            names.push(name);
            results.push(x.clone());
        }
        Ok((if branches { sequence.named("", graph) } else { sequence }, x))
    }

    /// A layer that may take several inputs.
    fn step(&mut self, layer: &Layer, inputs: &[&Tensor], depth: usize) -> Result<(Step, Tensor)> {
        let step = match layer.kind.as_str() {
            "Add" => Step::Add,
            "Mul" => Step::Mul,
            "Concat" => Step::Concat,
            _ => {
                let &[x] = inputs else {
                    return Err(Error::Config(format!("takes one input, got {}", inputs.len())));
                };
                let (module, y) = self.layer(layer, x, depth)?;
                return Ok((Step::Layer(module), y));
            }
        };
        self.count(depth)?;
        if let Some(wrong) = layer.given().first() {
            return Err(Error::Config(format!("has no attribute {wrong}; it takes inputs")));
        }
        let y = step.apply(&mut Context::eval(), "", inputs)?;
        Ok((step, y))
    }

    /// A layer, and what it makes of `x` on the null device.
    fn layer(&mut self, layer: &Layer, x: &Tensor, depth: usize) -> Result<(Box<dyn Module>, Tensor)> {
        self.count(depth)?;
        let Some((_, known)) = TYPES.iter().find(|(kind, _)| *kind == layer.kind) else {
            let kinds: Vec<&str> = TYPES.iter().map(|(kind, _)| *kind).collect();
            let hint = nearest(&layer.kind, &kinds).map_or_else(|| ".".to_owned(), |near| format!("; did you mean {near}?"));
            return Err(Error::Config(format!("unknown type{hint} Known types: {}", kinds.join(", "))));
        };
        if let Some(wrong) = layer.given().into_iter().find(|name| !known.contains(name)) {
            let takes = if known.is_empty() { "no attributes".to_owned() } else { known.join(", ") };
            return Err(Error::Config(format!("has no attribute {wrong}; it takes {takes}")));
        }
        match layer.kind.as_str() {
            "Sequential" => {
                let layers = layer.layers.as_deref().unwrap_or_default();
                let mut all = Sequential::new();
                let mut x = x.clone();
                for i in 0..layer.repeat.unwrap_or(1) {
                    // A repetition counts also where it holds nothing.
                    self.count(depth)?;
                    let part;
                    (part, x) = self.sequence(layers, x, depth + 1)?;
                    match layer.repeat {
                        Some(_) => all = all.named(&i.to_string(), part),
                        None => all = part,
                    }
                }
                return Ok((Box::new(all), x));
            }
            "Residual" => {
                let (body, y) = self.sequence(layer.layers.as_deref().unwrap_or_default(), x.clone(), depth + 1)?;
                let (shortcut, beside) = match &layer.shortcut {
                    Some(layers) => {
                        let (shortcut, y) = self.sequence(layers, x.clone(), depth + 1)?;
                        (Some(shortcut), y)
                    }
                    None => (None, x.clone()),
                };
                if y.shape() != beside.shape() {
                    return Err(Error::Config(format!(
                        "layers give {}, but the shortcut {}; give both the same channels and stride",
                        y.shape(),
                        beside.shape()
                    )));
                }
                return Ok((Box::new(Residual::new(body, shortcut)), y));
            }
            _ => {}
        }
        let module = self.simple(layer, x, self.device)?;
        let y = self.simple(layer, x, self.null)?.forward(&mut Context::eval(), x)?;
        Ok((module, y))
    }

    fn count(&mut self, depth: usize) -> Result<()> {
        self.layers += 1;
        if self.layers > MAX_LAYERS || depth > 16 {
            return Err(Error::Config(format!("the network has more than {MAX_LAYERS} layers, or layers in layers 16 times")));
        }
        Ok(())
    }

    fn simple(&self, layer: &Layer, x: &Tensor, device: &Device) -> Result<Box<dyn Module>> {
        let needs = |name: &str| Error::Config(format!("needs {name}"));
        let channels = || x.shape().nchw("input").map(|[_, c, _, _]| c);
        let number = |features: &Option<Features>, name: &str| match features {
            Some(Features::Number(0)) => Err(Error::Config(format!("{name} must be at least 1"))),
            Some(Features::Number(n)) => Ok(*n),
            Some(Features::Word(word)) if word == "classes" => Ok(self.classes),
            Some(Features::Word(word)) => Err(Error::Config(format!("{name} = {word:?}: give a number or \"classes\""))),
            None => Err(needs(name)),
        };
        let kernel = || layer.kernel_size.ok_or_else(|| needs("kernel_size")).map(|size| pair(Some(size), 1));
        Ok(match layer.kind.as_str() {
            "Conv2d" => {
                let options = Conv2dOptions {
                    stride: pair(layer.stride, 1),
                    padding: window_padding(&layer.padding)?,
                    dilation: pair(layer.dilation, 1),
                    groups: layer.groups.unwrap_or(1),
                };
                let to = number(&layer.out_channels, "out_channels")?;
                Box::new(Conv2d::new(device, channels()?, to, kernel()?, options, layer.bias.unwrap_or(true))?)
            }
            "BatchNorm2d" => {
                let mut norm = BatchNorm2d::new(device, channels()?)?;
                norm.eps = layer.eps.unwrap_or(norm.eps);
                norm.momentum = layer.momentum.unwrap_or(norm.momentum);
                if !(norm.eps > 0.0 && (0.0..=1.0).contains(&norm.momentum)) {
                    return Err(Error::Config(format!(
                        "eps = {} must be above 0 and momentum = {} lie in [0, 1]",
                        norm.eps, norm.momentum
                    )));
                }
                Box::new(norm)
            }
            "Linear" => {
                let &[_, from] = &x.shape()[..] else {
                    return Err(Error::Config(format!("takes [N, features], got {}; put a Flatten before it", x.shape())));
                };
                Box::new(Linear::new(device, from, number(&layer.out_features, "out_features")?, layer.bias.unwrap_or(true))?)
            }
            "RNN" | "GRU" | "LSTM" => {
                let cell = match layer.kind.as_str() {
                    "RNN" => Cell::RnnTanh,
                    "GRU" => Cell::Gru,
                    _ => Cell::Lstm,
                };
                let [_, c, h, w] = x.shape().nchw("input")?;
                let options = RecurrentOptions {
                    num_layers: layer.num_layers.unwrap_or(1),
                    bias: layer.bias.unwrap_or(true),
                    bidirectional: layer.bidirectional.unwrap_or(false),
                    dropout: layer.dropout.unwrap_or(0.0),
                    ..RecurrentOptions::new(0, layer.hidden_size.ok_or_else(|| needs("hidden_size"))?)
                };
                Box::new(RowReader::new(device, cell, [c, h, w], options, false)?)
            }
            "MaxPool2d" | "AvgPool2d" => {
                let kernel_size = kernel()?;
                let stride = layer.stride.map_or(kernel_size, |stride| pair(Some(stride), 1));
                let (padding, ceil_mode) = (window_padding(&layer.padding)?, layer.ceil_mode.unwrap_or(false));
                let dilation = pair(layer.dilation, 1);
                let window = Pool2dOptions { kernel_size, stride, padding, dilation, ceil_mode };
                if layer.kind == "MaxPool2d" {
                    Box::new(MaxPool2d(window))
                } else {
                    Box::new(AvgPool2d(AvgPool2dOptions { window, count_include_pad: true, divisor_override: None }))
                }
            }
            "ZeroPad2d" => {
                let sides = match &layer.padding {
                    Some(Padding::Sides(sides)) => sides.clone(),
                    Some(Padding::Pair(Pair::Both(n))) => vec![*n as i64; 4],
                    Some(Padding::Pair(Pair::Each([left, right]))) => vec![*left as i64, *right as i64],
                    None => return Err(needs("padding")),
                };
                Box::new(ZeroPad2d(sides))
            }
            "GlobalAvgPool2d" => Box::new(GlobalAvgPool2d),
            "Flatten" => Box::new(Flatten),
            "Dropout" => Box::new(Dropout::new(layer.p.unwrap_or(0.5))?),
            "ReLU" => Box::new(Activation::Relu),
            "ReLU6" => Box::new(Activation::Clamp { min: 0.0, max: 6.0 }),
            "LeakyReLU" => Box::new(Activation::LeakyRelu { negative_slope: layer.negative_slope.unwrap_or(0.01) }),
            "GELU" => Box::new(Activation::Gelu),
            "SiLU" => Box::new(Activation::Silu),
            "Hardswish" => Box::new(Activation::Hardswish),
            "Hardsigmoid" => Box::new(Activation::Hardsigmoid),
            "Mish" => Box::new(Activation::Mish),
            "Sigmoid" => Box::new(Activation::Sigmoid),
            _ => Box::new(Activation::Tanh),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::named_parameters;

    fn build(text: &str) -> Result<Sequential> {
        super::build(text, [3, 16, 20], 4, &Device::null().0)
    }

    const GOOD: &str = r#"
name = "small-2"
layers = [
  { type = "Conv2d", out_channels = 8, kernel_size = 3, padding = 1, bias = false, name = "stem" },
  { type = "BatchNorm2d" },
  { type = "MaxPool2d", kernel_size = 2 },
  { type = "Sequential", repeat = 2, layers = [
    { type = "Residual", layers = [
      { type = "Conv2d", out_channels = 8, kernel_size = [3, 1], padding = [1, 0] },
      { type = "SiLU" },
    ] },
  ] },
  { type = "Residual", layers = [{ type = "Conv2d", out_channels = 12, kernel_size = 1, stride = 2 }],
    shortcut = [{ type = "Conv2d", out_channels = 12, kernel_size = 2, stride = 2 }] },
  { type = "AvgPool2d", kernel_size = 2, stride = 1 },
  { type = "Flatten" },
  { type = "Dropout", p = 0.1 },
  { type = "Linear", out_features = "classes" },
]
"#;

    #[test]
    fn layers_are_built_in_order_with_their_names() {
        let parameters: Vec<String> = named_parameters(&build(GOOD).unwrap()).iter().map(|(n, p)| format!("{n} {}", p.shape())).collect();
        let expected = [
            "stem.weight [8, 3, 3, 3]",
            "1.weight [8]",
            "1.bias [8]",
            "3.0.0.0.weight [8, 8, 3, 1]",
            "3.0.0.0.bias [8]",
            "3.1.0.0.weight [8, 8, 3, 1]",
            "3.1.0.0.bias [8]",
            "4.0.weight [12, 8, 1, 1]",
            "4.0.bias [12]",
            "4.downsample.0.weight [12, 8, 2, 2]",
            "4.downsample.0.bias [12]",
            // 16 x 20 by 2, by 2, less 1: 3 x 4.
            "8.weight [4, 144]",
            "8.bias [4]",
        ];
        assert_eq!(parameters, expected);
        assert_eq!(name(GOOD).as_deref(), Some("small-2"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let network = |layers: &str| format!("layers = [\n{layers}\n]");
        for (text, words) in [
            ("layers = [\n  { type = \"ReLU\", colour = 1 } ]".to_owned(), "line 2: unknown field `colour`"),
            (network("{ type = \"Relu\" }"), "line 2: Relu: unknown type; did you mean ReLU?"),
            (
                network("{ type = \"ReLU\" },\n{ type = \"Linear\", out_features = 3 }"),
                "line 3: Linear: takes [N, features], got [1, 3, 16, 20]",
            ),
            (
                network("{ type = \"Linear\", kernel_size = 3 }"),
                "line 2: Linear: has no attribute kernel_size; it takes out_features, bias",
            ),
            (network("{ type = \"Conv2d\", kernel_size = 3 }"), "line 2: Conv2d: needs out_channels"),
            (network("{ type = \"Conv2d\", kernel_size = \"3\", out_channels = 1 }"), "line 2: expected a whole number or [height, width]"),
            (network("{ type = \"MaxPool2d\", kernel_size = 40 }"), "line 2: MaxPool2d: "),
            (network("{ type = \"Conv2d\", out_channels = 6, kernel_size = 3, groups = 2 }"), "line 2: Conv2d: "),
            (
                network("{ type = \"Residual\", layers = [\n{ type = \"MaxPool2d\", kernel_size = 2 } ] }"),
                "line 2: Residual: layers give [1, 3, 8, 10], but the shortcut [1, 3, 16, 20]",
            ),
            (network("{ type = \"Sequential\", repeat = 4000000000, layers = [{ type = \"ReLU\" }] }"), "more than 2000 layers"),
            (network("{ type = \"ReLU\", name = \"a\" },\n{ type = \"ReLU\", name = \"a\" }"), "line 3: ReLU: name \"a\" is taken"),
            (network("{ type = \"Flatten\" }"), "the layers give [1, 960], expected [N, 4]"),
            (network("{ type = \"ReLU\", inputs = [\"b\"] }"), "line 2: ReLU: inputs: no layer before it is called \"b\"; there are input"),
            (network("{ type = \"Add\", inputs = [\"input\", \"input\"], p = 0.5 }"), "line 2: Add: has no attribute p"),
            (network("{ type = \"ReLU\", inputs = [\"input\", \"input\"] }"), "line 2: ReLU: takes one input, got 2"),
            (network("{ type = \"MaxPool2d\", kernel_size = 2 },\n{ type = \"Add\", inputs = [\"0\", \"input\"] }"), "line 3: Add: "),
            (
                network("{ type = \"Conv2d\", out_channels = 2, kernel_size = 3, padding = [1, 0, 1, 0] }"),
                "sides that differ take a ZeroPad2d",
            ),
            (network("{ type = \"LSTM\", num_layers = 2 }"), "line 2: LSTM: needs hidden_size"),
            (network("{ type = \"GRU\", hidden_size = 4, num_layers = 0 }"), "line 2: GRU: "),
            (network("{ type = \"Dropout\", p = 2.0 }"), "line 2: Dropout: dropout: p = 2 must lie in [0, 1)"),
            ("layers = 3".to_owned(), "line 1: invalid type"),
        ] {
            let error = build(&text).err().unwrap().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!(
            build(&network("{ type = \"Sequential\", repeat = 9000000000000000000 }")).err().unwrap().to_string().contains("2000 layers")
        );
    }
}
