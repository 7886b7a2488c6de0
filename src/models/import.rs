//! Networks from ONNX files: a description in TOML, as [`build`](super::build) takes it, and the arrays of its layers.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use super::nearest;
use super::network::MAX_LAYERS;
use crate::data::Preprocessing;
use crate::error::{Error, Result};
use crate::io::onnx::{Array, Model, Node};
use crate::nn::NamedArray;
use crate::shape::Shape;

/// A classifier that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// Its description.
    pub model: String,
    /// `[C, H, W]` of its input, where the file says it.
    pub input: Option<[usize; 3]>,
    /// The arrays under the names of its layers.
    pub arrays: Vec<NamedArray>,
    /// Class names that the file gives.
    pub classes: Option<Vec<String>>,
    /// Preprocessing that the file gives.
    pub preprocessing: Option<Preprocessing>,
}

/// The operators that are understood.
const OPERATORS: [&str; 30] = [
    "Conv",
    "BatchNormalization",
    "Gemm",
    "MatMul",
    "Relu",
    "Clip",
    "LeakyRelu",
    "Sigmoid",
    "Tanh",
    "HardSwish",
    "HardSigmoid",
    "Mish",
    "Gelu",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "ReduceMean",
    "Flatten",
    "Reshape",
    "Dropout",
    "Identity",
    "Add",
    "Mul",
    "Concat",
    "Pad",
    "Slice",
    "Constant",
    "Softmax",
    "LogSoftmax",
    "Squeeze",
];

/// Translates a classifier of images.
///
/// # Errors
/// [`Error::Data`] naming the node and the operator or attribute that has no counterpart.
pub fn from_onnx(path: &Path, model: &Model) -> Result<Imported> {
    let bad = |what: String| Error::data(path, what);
    let graph = model.graph.as_ref().ok_or_else(|| bad("holds no graph".into()))?;
    let output = graph.output.first().ok_or_else(|| bad("has no output".into()))?;
    let mut readers: HashMap<&str, usize> = HashMap::new();
    for name in graph.node.iter().flat_map(|node| &node.input).chain([&output.name]) {
        *readers.entry(name.as_str()).or_default() += 1;
    }
    let mut reader = Reader {
        readers,
        output: &output.name,
        // Nodes may share an array, as exporters do with equal small ones; 16 times the file is more than that.
        room: 4 * prost::Message::encoded_len(model) + (1 << 18),
        constants: HashMap::new(),
        values: HashMap::new(),
        layers: String::new(),
        arrays: Vec::new(),
        count: 0,
    };
    for array in &graph.initializer {
        reader.constants.insert(&array.name, array);
    }
    let inputs: Vec<_> = graph.input.iter().filter(|input| !reader.constants.contains_key(input.name.as_str())).collect();
    let [input] = inputs[..] else {
        return Err(bad(format!("has {} inputs; a classifier of images has one", inputs.len())));
    };
    reader.values.insert(&input.name, "input".into());
    for node in &graph.node {
        let called = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
        let located = |what: String| bad(format!("node {:?} ({}): {what}", called.map_or("", String::as_str), node.op_type));
        if !OPERATORS.contains(&node.op_type.as_str()) {
            let near = nearest(&node.op_type, &OPERATORS).map_or(String::new(), |near| format!("; the nearest that there is: {near}"));
            return Err(located(format!("this operator is not known{near}. Known: {}", OPERATORS.join(", "))));
        }
        reader.node(node).map_err(located)?;
    }
    let last = reader.values.get(output.name.as_str()).cloned().unwrap_or_default();
    if last != reader.last() {
        return Err(bad(format!("its output {} is not what its last layer gives", output.name)));
    }
    let entry = |key: &str| model.metadata_props.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str());
    let list = |key: &str| serde_json::from_str::<Vec<f32>>(entry(key)?).ok();
    let preprocessing = (|| Some(Preprocessing { scale: entry("scale")?.parse().ok()?, mean: list("mean")?, std: list("std")? }))();
    let size = match input.dims().as_deref() {
        Some(&[_, Some(c), Some(h), Some(w)]) => Some([c, h, w]),
        _ => None,
    };
    Ok(Imported {
        model: format!("name = \"imported\"\nlayers = [\n{}]\n", reader.layers),
        input: size,
        arrays: reader.arrays,
        classes: entry("classes").and_then(|text| serde_json::from_str(text).ok()),
        preprocessing,
    })
}

struct Reader<'a> {
    /// How many nodes read each value; the graph's output counts as one.
    readers: HashMap<&'a str, usize>,
    output: &'a str,
    /// Values that may still be kept.
    room: usize,
    constants: HashMap<&'a str, &'a Array>,
    /// The layer that gives each value.
    values: HashMap<&'a str, String>,
    layers: String,
    arrays: Vec<NamedArray>,
    count: usize,
}

type Outcome<T> = std::result::Result<T, String>;

/// A list of two that may be one number.
fn pair(list: &[i64], default: usize) -> Outcome<[usize; 2]> {
    match list {
        [] => Ok([default; 2]),
        &[a, b] if a >= 0 && b >= 0 => Ok([a as usize, b as usize]),
        _ => Err(format!("{list:?} are no two sizes of at least 0")),
    }
}

impl<'a> Reader<'a> {
    fn last(&self) -> String {
        format!("n{}", self.count)
    }

    /// Appends a layer of `inputs`, which gives the node's first output.
    fn layer(&mut self, node: &'a Node, inputs: &[String], kind: &str, attributes: &str) -> String {
        let after = self.last();
        self.count += 1;
        let name = self.last();
        // What takes the layer before it need not say so.
        let inputs = match inputs {
            [one] if *one == after || (self.count == 1 && one == "input") => String::new(),
            all => format!(", inputs = [{}]", all.iter().map(|input| format!("\"{input}\"")).collect::<Vec<_>>().join(", ")),
        };
        let _ = writeln!(self.layers, "  {{ type = \"{kind}\", name = \"{name}\"{attributes}{inputs} }},");
        self.gives(node, name.clone());
        name
    }

    fn gives(&mut self, node: &'a Node, layer: String) {
        if let Some(output) = node.output.first() {
            self.values.insert(output, layer);
        }
    }

    /// The layer that gives input `i`.
    fn computed(&self, node: &Node, i: usize) -> Outcome<String> {
        let name = node.input.get(i).ok_or_else(|| format!("there is no input {i}"))?;
        self.values.get(name.as_str()).cloned().ok_or_else(|| format!("input {name:?} is not computed by a node before it"))
    }

    fn constant(&self, node: &Node, i: usize) -> Option<&'a Array> {
        self.constants.get(node.input.get(i)?.as_str()).copied()
    }

    fn numbers(&self, node: &Node, i: usize) -> Outcome<Vec<f64>> {
        let array = self.constant(node, i).ok_or_else(|| format!("input {i} is not a constant"))?;
        array
            .values()
            .ok_or_else(|| format!("constant {:?} has values of a type that is not read, or not as many as its shape says", array.name))
    }

    /// Keeps an array of a layer, perhaps transposed.
    fn keep(&mut self, node: &Node, i: usize, name: String, transposed: bool) -> Outcome<Vec<usize>> {
        let values = self.numbers(node, i)?;
        let mut shape = self.constant(node, i).map(Array::shape).unwrap_or_default();
        self.room = self.room.checked_sub(values.len()).ok_or("too many nodes share the same arrays")?;
        let mut values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
        if let (true, &[rows, columns]) = (transposed, &shape[..]) {
            values = (0..rows * columns).map(|j| values[j % rows * columns + j / rows]).collect();
            shape.reverse();
        }
        let dims = Shape::new(&shape).map_err(|e| e.to_string())?;
        // An array of nothing could have any other size.
        if shape.contains(&0) {
            return Err(format!("input {i} has shape {shape:?}; every size must be at least 1"));
        }
        self.arrays.push(NamedArray { name, shape: dims, values });
        Ok(shape)
    }

    fn node(&mut self, node: &'a Node) -> Outcome<()> {
        let attribute = |name: &str| node.attribute.iter().find(|a| a.name == name);
        let int = |name: &str, default: i64| attribute(name).map_or(default, |a| a.i);
        let float = |name: &str, default: f32| attribute(name).map_or(default, |a| a.f) as f64;
        let ints = |name: &str| attribute(name).map_or(&[][..], |a| &a.ints);
        if !node.domain.is_empty() && node.domain != "ai.onnx" {
            return Err(format!("operators of {:?} are not known", node.domain));
        }
        let auto = attribute("auto_pad").map(|a| String::from_utf8_lossy(&a.s).into_owned());
        if auto.as_deref().is_some_and(|auto| auto != "NOTSET" && auto != "VALID") {
            return Err("auto_pad is not known; export with explicit pads".into());
        }
        if node.op_type == "AveragePool" && ints("dilations").iter().any(|&d| d != 1) {
            return Err("dilations other than 1 are not known".into());
        }
        if node.op_type == "HardSigmoid" && (float("beta", 0.5) - 0.5).abs() > 1e-6 {
            return Err("a beta other than 0.5 is not known".into());
        }
        if int("training_mode", 0) != 0 {
            return Err("training_mode 1 is not known; export the network for inference".into());
        }
        if attribute("approximate").is_some_and(|a| a.s != b"none") {
            return Err("approximations are not known".into());
        }
        if node.op_type == "Pad" && (node.input.get(3).is_some_and(|name| !name.is_empty()) || float("value", 0.0) != 0.0) {
            return Err("axes, and values other than 0, are not known".into());
        }
        if self.count > MAX_LAYERS || self.arrays.len() > 5 * MAX_LAYERS {
            return Err(format!("the network has more than {MAX_LAYERS} layers"));
        }
        match node.op_type.as_str() {
            "Constant" => {
                let array = attribute("value").and_then(|a| a.t.as_ref()).ok_or("has no array")?;
                let name = node.output.first().ok_or("has no output")?;
                self.constants.insert(name, array);
            }
            "Conv" => {
                let weight = self.constant(node, 1).map(Array::shape).ok_or("its weight is not a constant")?;
                let [to, _, h, w] = weight[..] else { return Err(format!("its weight has shape {weight:?}; only images are known")) };
                let (x, padding) = self.padded(node, ints("pads"))?;
                let (stride, dilation) = (pair(ints("strides"), 1)?, pair(ints("dilations"), 1)?);
                let bias = node.input.get(2).is_some_and(|name| !name.is_empty());
                let attributes = format!(
                    ", out_channels = {to}, kernel_size = {:?}, stride = {stride:?}, padding = {padding:?}, dilation = {dilation:?}, groups = {}, bias = {bias}",
                    [h, w],
                    int("group", 1)
                );
                let name = self.layer(node, &[x], "Conv2d", &attributes);
                self.keep(node, 1, format!("{name}.weight"), false)?;
                if bias {
                    self.keep(node, 2, format!("{name}.bias"), false)?;
                }
            }
            "BatchNormalization" => {
                let x = self.computed(node, 0)?;
                let name = self.layer(node, &[x], "BatchNorm2d", &format!(", eps = {:e}", float("epsilon", 1e-5)));
                for (i, part) in ["weight", "bias", "running_mean", "running_var"].iter().enumerate() {
                    self.keep(node, i + 1, format!("{name}.{part}"), false)?;
                }
            }
            "Gemm" | "MatMul" => {
                let gemm = node.op_type == "Gemm";
                if float("alpha", 1.0) != 1.0 || float("beta", 1.0) != 1.0 || int("transA", 0) != 0 {
                    return Err("alpha, beta and transA other than 1, 1 and 0 are not known".into());
                }
                let x = self.computed(node, 0)?;
                let stored = self.constant(node, 1).map(Array::shape).ok_or("its second operand is not a constant")?;
                let transposed = !(gemm && int("transB", 0) != 0);
                let &[a, b] = &stored[..] else { return Err(format!("its second operand has shape {stored:?}; a matrix was expected")) };
                let bias = gemm && node.input.get(2).is_some_and(|name| !name.is_empty());
                let to = if transposed { b } else { a };
                let name = self.layer(node, &[x], "Linear", &format!(", out_features = {to}, bias = true"));
                self.keep(node, 1, format!("{name}.weight"), transposed)?;
                if bias {
                    self.keep(node, 2, format!("{name}.bias"), false)?;
                } else {
                    let shape = Shape::new(&[to]).map_err(|e| e.to_string())?;
                    self.arrays.push(NamedArray { name: format!("{name}.bias"), shape, values: vec![0.0; to] });
                }
            }
            "Relu" | "Sigmoid" | "Tanh" | "HardSwish" | "HardSigmoid" | "Mish" | "Gelu" | "LeakyRelu" => {
                let kind = match node.op_type.as_str() {
                    "Relu" => "ReLU",
                    "HardSwish" => "Hardswish",
                    // PyTorch's slope; ONNX's default is another.
                    "HardSigmoid" if (float("alpha", 0.2) - 1.0 / 6.0).abs() > 1e-6 => {
                        return Err("a slope other than 1/6 is not known".into());
                    }
                    "HardSigmoid" => "Hardsigmoid",
                    "Gelu" => "GELU",
                    "LeakyRelu" => "LeakyReLU",
                    other => other,
                };
                let slope = format!(", negative_slope = {:?}", float("alpha", 0.01));
                let x = self.computed(node, 0)?;
                self.layer(node, &[x], kind, if kind == "LeakyReLU" { &slope } else { "" });
            }
            "Clip" => {
                let bound = |i: usize, name: &str| match attribute(name) {
                    Some(a) => Ok(Some(a.f as f64)),
                    None if node.input.get(i).is_none_or(String::is_empty) => Ok(None),
                    None => self.numbers(node, i).map(|v| v.first().copied()),
                };
                if (bound(1, "min")?, bound(2, "max")?) != (Some(0.0), Some(6.0)) {
                    return Err("bounds other than 0 and 6 (ReLU6) are not known".into());
                }
                let x = self.computed(node, 0)?;
                self.layer(node, &[x], "ReLU6", "");
            }
            "MaxPool" | "AveragePool" => {
                let average = node.op_type == "AveragePool";
                let pads = ints("pads");
                if average && pads.iter().any(|&p| p != 0) && int("count_include_pad", 0) == 0 {
                    return Err("count_include_pad = 0 with padding is not known".into());
                }
                if !average && pads.len() == 4 && pads[..2] != pads[2..] {
                    return Err(format!("pads {pads:?} differ from side to side"));
                }
                let (kernel, stride) = (pair(ints("kernel_shape"), 1)?, pair(ints("strides"), 1)?);
                let (x, padding) = self.padded(node, pads)?;
                let ceil = int("ceil_mode", 0) != 0;
                let mut attributes = format!(", kernel_size = {kernel:?}, stride = {stride:?}, padding = {padding:?}, ceil_mode = {ceil}");
                let dilation = pair(ints("dilations"), 1)?;
                if !average {
                    let _ = write!(attributes, ", dilation = {dilation:?}");
                }
                self.layer(node, &[x], if average { "AvgPool2d" } else { "MaxPool2d" }, &attributes);
            }
            "GlobalAveragePool" | "ReduceMean" => {
                if node.op_type == "ReduceMean" {
                    let axes: Vec<i64> = if node.input.len() > 1 {
                        self.numbers(node, 1)?.into_iter().map(|v| v as i64).collect()
                    } else {
                        ints("axes").to_vec()
                    };
                    if !matches!(axes[..], [2, 3] | [-2, -1] | [-1, -2]) {
                        return Err(format!("axes {axes:?} are not known; of pixels, 2 and 3, they are"));
                    }
                }
                let x = self.computed(node, 0)?;
                let name = self.layer(node, &[x], "GlobalAvgPool2d", "");
                if node.op_type == "ReduceMean" && int("keepdims", 1) == 0 {
                    self.layer(node, &[name], "Flatten", "");
                }
            }
            "Flatten" | "Reshape" | "Squeeze" => {
                if node.op_type == "Reshape" {
                    let shape = self.numbers(node, 1)?;
                    if shape.len() != 2 {
                        return Err(format!("to {shape:?} is not known; to [N, features] it is"));
                    }
                }
                if node.op_type == "Squeeze" {
                    let axes = if node.input.len() > 1 { self.numbers(node, 1)? } else { ints("axes").iter().map(|&a| a as f64).collect() };
                    if !matches!(axes[..], [2.0, 3.0] | [-2.0, -1.0] | [-1.0, -2.0]) {
                        return Err(format!("axes {axes:?} are not known; of pixels, 2 and 3, they are"));
                    }
                }
                if node.op_type == "Flatten" && int("axis", 1) != 1 {
                    return Err("an axis other than 1 is not known".into());
                }
                let x = self.computed(node, 0)?;
                self.layer(node, &[x], "Flatten", "");
            }
            "Identity" if self.constant(node, 0).is_some() => {
                // Exporters write equal arrays once, and name them again.
                if let (Some(array), Some(name)) = (self.constant(node, 0), node.output.first()) {
                    self.constants.insert(name, array);
                }
            }
            // Softmax changes neither the order of the classes nor what training minimises, which begins with logits.
            "Softmax" | "LogSoftmax" if node.output.first().is_none_or(|name| name != self.output) => {
                return Err("within a network it is not known; as its last step it is".into());
            }
            "Dropout" | "Identity" | "Softmax" | "LogSoftmax" => {
                let x = self.computed(node, 0)?;
                self.gives(node, x);
            }
            "Add" | "Mul" => {
                if node.op_type == "Add"
                    && let Some(at) = (0..2).find(|&i| self.constant(node, i).is_some())
                {
                    return self.bias(node, at);
                }
                let inputs = [self.computed(node, 0)?, self.computed(node, 1)?];
                self.layer(node, &inputs, &node.op_type, "");
            }
            "Concat" => {
                if int("axis", 0) != 1 {
                    return Err("an axis other than 1, the channels, is not known".into());
                }
                let inputs = (0..node.input.len()).map(|i| self.computed(node, i)).collect::<Outcome<Vec<_>>>()?;
                self.layer(node, &inputs, "Concat", "");
            }
            "Pad" => {
                let mode = attribute("mode").map(|a| a.s.clone()).filter(|mode| mode != b"constant");
                let value =
                    if node.input.get(2).is_some_and(|name| !name.is_empty()) { self.numbers(node, 2)?.first().copied() } else { None };
                let pads: Vec<i64> = match ints("pads") {
                    [] => self.numbers(node, 1)?.into_iter().map(|v| v as i64).collect(),
                    pads => pads.to_vec(),
                };
                let &[0, c0, h0, w0, 0, c1, h1, w1] = &pads[..] else { return Err(format!("pads {pads:?} are not those of images")) };
                if mode.is_some() || value.is_some_and(|value| value != 0.0) {
                    return Err("padding with other values than 0 is not known".into());
                }
                let x = self.computed(node, 0)?;
                self.layer(node, &[x], "ZeroPad2d", &format!(", padding = {:?}", [w0, w1, h0, h1, c0, c1]));
            }
            _ => self.slice(node)?,
        }
        Ok(())
    }

    /// A slice of images that only leaves out rows and columns: every second one is a pool of one pixel.
    fn slice(&mut self, node: &'a Node) -> Outcome<()> {
        let (starts, ends, axes) = (self.numbers(node, 1)?, self.numbers(node, 2)?, self.numbers(node, 3)?);
        let steps = if node.input.len() > 4 { self.numbers(node, 4)? } else { vec![1.0; axes.len()] };
        // Only what reaches to the end whatever the size is known to leave nothing out.
        if ends.iter().any(|&end| end < f64::from(i32::MAX)) || starts.len() != axes.len() || steps.len() != axes.len() {
            return Err("slices that end before the last row or column are not known".into());
        }
        let mut stride = [1usize; 2];
        for ((&axis, &start), &step) in axes.iter().zip(&starts).zip(&steps) {
            let spatial = axis == 2.0 || axis == 3.0;
            if start != 0.0 || step < 1.0 || (step > 1.0 && !spatial) {
                return Err("slices other than every n-th row and column are not known".into());
            }
            if spatial {
                stride[axis as usize - 2] = step as usize;
            }
        }
        let x = self.computed(node, 0)?;
        self.layer(node, &[x], "AvgPool2d", &format!(", kernel_size = 1, stride = {stride:?}"));
        Ok(())
    }

    /// The sum with a constant: the bias of the matrix product before it.
    fn bias(&mut self, node: &'a Node, at: usize) -> Outcome<()> {
        let values: Vec<f32> = self.numbers(node, at)?.into_iter().map(|v| v as f32).collect();
        let layer = self.computed(node, 1 - at)?;
        let shape = self.constant(node, at).map(Array::shape).unwrap_or_default();
        // Of a matrix product that nothing else reads, a value for each output.
        let alone = node.input.get(1 - at).and_then(|name| self.readers.get(name.as_str())) == Some(&1);
        let linear = self.arrays.iter().any(|array| array.name == format!("{layer}.weight") && array.shape.rank() == 2);
        if !alone || !linear || !matches!(shape[..], [_] | [1, _]) {
            return Err("the sum with a constant is known only behind a product of matrices, as its bias".into());
        }
        let found = self.arrays.iter_mut().find(|array| array.name == format!("{layer}.bias"));
        match found {
            Some(array) if array.values.len() == values.len() && array.values.iter().all(|&v| v == 0.0) => array.values = values,
            _ => return Err("the sum with a constant is known only behind a product of matrices, as its bias".into()),
        }
        self.gives(node, layer);
        Ok(())
    }

    /// The input, padded by a layer of its own where the sides differ, and what remains for the layer itself.
    fn padded(&mut self, node: &'a Node, pads: &[i64]) -> Outcome<(String, [usize; 2])> {
        let x = self.computed(node, 0)?;
        match *pads {
            [] => Ok((x, [0; 2])),
            [top, left, bottom, right] if top == bottom && left == right && top >= 0 && left >= 0 => Ok((x, [top as usize, left as usize])),
            [top, left, bottom, right] => {
                Ok((self.layer(node, &[x], "ZeroPad2d", &format!(", padding = {:?}", [left, right, top, bottom])), [0; 2]))
            }
            _ => Err(format!("pads {pads:?} are not those of images")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Sidecar;
    use crate::device::Device;
    use crate::io::safetensors;
    use crate::models::{self, NAMES};
    use crate::nn::{Context, Module, named_parameters, state_dict};
    use crate::rng::Stream;
    use crate::tensor::Tensor;

    /// Out to ONNX and in again: the same logits, plain and folded.
    #[test]
    fn what_is_exported_is_imported() {
        let device = Device::cpu(0).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let side = 40;
        let x = Tensor::normal(&device, &[3, 3, side, side], 0.0, 1.0, Stream::new(1, "x", 0, 0)).unwrap();
        for name in NAMES
            .into_iter()
            .filter(|name| !["resnet34", "resnet50", "resnet56", "vgg16_bn", "alexnet", "rnn", "gru", "lstm"].contains(name))
        {
            let classes = (0..7).map(|class| format!("class {class}")).collect();
            let preprocessing = Preprocessing { scale: 255.0, mean: vec![0.4, 0.5, 0.6], std: vec![0.2; 3] };
            let about = Sidecar { model: name.into(), classes, input: [3, side, side], preprocessing, table: None };
            let module = models::build(name, about.input, 7, &device, 3).unwrap();
            // Running statistics that are not the initial ones.
            let mut ctx = Context::train(1, 0);
            module.forward(&mut ctx, &x).unwrap();
            let weights = folder.path().join("w.safetensors");
            safetensors::save(&weights, &state_dict(&module), None).unwrap();
            let want = module.forward(&mut Context::eval(), &x).unwrap().to_vec_blocking::<f32>().unwrap();
            let largest = want.iter().fold(0f32, |m, v| m.max(v.abs()));
            for fold in [false, true] {
                let bytes = models::onnx(&about, &weights, fold).unwrap().bytes();
                let path = Path::new("a.onnx");
                let read = from_onnx(path, &Model::parse(path, &bytes).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(
                    (read.input, read.classes.as_ref(), read.preprocessing.as_ref()),
                    (Some(about.input), Some(&about.classes), Some(&about.preprocessing))
                );
                let other = models::build(&read.model, about.input, 7, &device, 0)
                    .unwrap_or_else(|error| panic!("{name}: {error}\n{}", read.model));
                crate::nn::load_state_dict(&other, &read.arrays).unwrap_or_else(|error| panic!("{name}: {error}"));
                let got = other.forward(&mut Context::eval(), &x).unwrap().to_vec_blocking::<f32>().unwrap();
                let worst = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= 1e-4 * largest.max(1.0) && largest > 0.0, "{name}, folded {fold}: {worst} of {largest}");
                assert!(!fold || !read.model.contains("BatchNorm2d"));
                assert!(!named_parameters(&other).is_empty());
            }
        }
    }

    #[test]
    fn what_has_no_counterpart_is_named() {
        let node = |op: &str| Node {
            input: vec!["x".into()],
            output: vec!["y".into()],
            name: "first".into(),
            op_type: op.into(),
            ..Default::default()
        };
        let error = |nodes: Vec<Node>| {
            let value = |name: &str| crate::io::onnx::ValueInfo { name: name.into(), kind: None };
            let graph = crate::io::onnx::Graph { node: nodes, input: vec![value("x")], output: vec![value("y")], ..Default::default() };
            from_onnx(Path::new("a.onnx"), &Model { graph: Some(graph), ..Default::default() }).unwrap_err().to_string()
        };
        assert!(
            error(vec![node("Relus")])
                .starts_with("a.onnx: node \"first\" (Relus): this operator is not known; the nearest that there is: Relu. Known: Conv")
        );
        assert!(error(vec![node("Clip")]).contains("bounds other than 0 and 6"));
        assert!(error(vec![node("Conv")]).contains("its weight is not a constant"));
        assert!(error(vec![Node { input: vec!["z".into()], ..node("Relu") }]).contains("input \"z\" is not computed"));
        assert!(error(vec![Node { domain: "com.other".into(), ..node("Relu") }]).contains("operators of \"com.other\""));
        assert!(
            error(vec![node("Relu"), Node { output: vec!["w".into()], ..node("Tanh") }])
                .contains("its output y is not what its last layer gives")
        );
    }
}
