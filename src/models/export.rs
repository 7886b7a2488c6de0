//! Networks as ONNX files: the operations of one forward pass, as a device that writes them down sees them.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::autodiff::no_grad;
use crate::backend::decorator::Decorator;
use crate::backend::{Backend, Operand};
use crate::data::Sidecar;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::onnx::{Array, Attribute, Dim, Entry, Graph, Model, Node, OperatorSet, ValueInfo};
use crate::nn::{Context, Module, state_dict};
use crate::op::{
    After, Binary, Clip, Conv, Elementwise, Layout, Matmul, Norm, Op, Pool, Pool2dOptions, Reduce, ReduceKind, Softmax, Unary,
};
use crate::tensor::Tensor;

/// Images of the pass that is written down. In the file their number is free.
const BATCH: usize = 2;
/// The set of operators that is written.
const OPSET: i64 = 17;

/// What was computed from what.
struct Call {
    op: Op,
    inputs: Vec<Operand>,
    outputs: Vec<Operand>,
}

/// Computes, and keeps each operation with its operands; what they name stays in memory, so that no two of them are taken for one.
struct Recorder {
    device: Device,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Decorator for Recorder {
    fn inner(&self) -> &dyn Backend {
        &*self.device
    }

    fn run(&self, op: &Op, inputs: &[Operand], outputs: &[Operand]) -> Result<()> {
        self.device.run(op, inputs, outputs)?;
        let call = Call { op: op.clone(), inputs: inputs.to_vec(), outputs: outputs.to_vec() };
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        Ok(())
    }
}

/// The network that `about` describes, with the weights in a safetensors file, as an ONNX model: input `input` `[N, C, H, W]` preprocessed, output `logits`
/// `[N, classes]`. Classes and preprocessing are metadata. `fold` multiplies batch normalisation into the convolutions before it.
///
/// # Errors
/// Those of [`build`](super::build) and [`load`](super::load); [`Error::Config`] for recurrent nets, [`Error::Unsupported`] for other operations that have no counterpart in the file.
pub fn onnx(about: &Sidecar, weights: &Path, fold: bool) -> Result<Model> {
    let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
    let device = Device::new(Recorder { device: Device::cpu(0)?, calls: Arc::clone(&calls) });
    let module = super::build(&about.model, about.input, about.classes.len(), &device, 0)?;
    super::load(&module, weights)?;
    let mut recurrent = false;
    module.visit("", &mut |name, _| recurrent |= name.contains("weight_hh_l"));
    if recurrent {
        return Err(Error::Config(
            "recurrent nets are not written as ONNX; .pth and .safetensors hold their weights under PyTorch's names".into(),
        ));
    }
    let [c, h, w] = about.input;
    let x = Tensor::from_slice(&device, &[BATCH, c, h, w], &vec![0f32; BATCH * c * h * w])?;
    calls.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let _guard = no_grad();
    // Under an observer each layer computes apart from the next, as the file has them.
    let y = module.forward(&mut Context::eval().observe(Box::new(|_, _, _| None)), &x)?;
    let calls = std::mem::take(&mut *calls.lock().unwrap_or_else(PoisonError::into_inner));
    let mut writer =
        Writer { device: &device, values: Vec::new(), graph: Graph { name: super::title(&about.model), ..Graph::default() }, added: 0 };
    writer.values.push(Value { operand: x.operand().clone(), name: "input".into() });
    for (name, tensor) in state_dict(&module) {
        writer.values.push(Value { operand: tensor.operand().clone(), name });
    }
    for call in &calls {
        writer.call(call)?;
    }
    let logits = writer.input(y.operand())?;
    writer.graph.node.push(Node { input: vec![logits], output: vec!["logits".into()], op_type: "Identity".into(), ..Node::default() });
    let mut graph = writer.graph;
    if fold {
        fold_norms(&mut graph);
    }
    let free = || Dim { dim_value: None, dim_param: Some("N".into()) };
    let fixed = |size: usize| Dim { dim_value: Some(size as i64), dim_param: None };
    graph.input = vec![ValueInfo::floats("input", vec![free(), fixed(c), fixed(h), fixed(w)])];
    graph.output = vec![ValueInfo::floats("logits", vec![free(), fixed(about.classes.len())])];
    let text = |value: serde_json::Result<String>| value.unwrap_or_default();
    let metadata = [
        ("classes", text(serde_json::to_string(&about.classes))),
        ("scale", about.preprocessing.scale.to_string()),
        ("mean", text(serde_json::to_string(&about.preprocessing.mean))),
        ("std", text(serde_json::to_string(&about.preprocessing.std))),
        ("preprocessing", "x[c] = (pixel / scale - mean[c]) / std[c], with RGB or grey pixels of 0 to 255".into()),
    ];
    Ok(Model {
        // The version that opset 17 came with.
        ir_version: 8,
        producer_name: "mappa".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        graph: Some(graph),
        opset_import: vec![OperatorSet { domain: String::new(), version: OPSET }],
        metadata_props: metadata.map(|(key, value)| Entry { key: key.into(), value }).to_vec(),
    })
}

/// A tensor that has a name in the file.
struct Value {
    operand: Operand,
    name: String,
}

struct Writer<'a> {
    device: &'a Device,
    values: Vec<Value>,
    graph: Graph,
    /// Names given so far.
    added: usize,
}

/// Sizes, steps and paddings, rows before columns, as ONNX names them.
fn window(kernel: [usize; 2], stride: [usize; 2], padding: [usize; 2], dilation: [usize; 2]) -> Vec<Attribute> {
    vec![
        Attribute::ints("kernel_shape", kernel),
        Attribute::ints("strides", stride),
        Attribute::ints("pads", [padding, padding].concat()),
        Attribute::ints("dilations", dilation),
    ]
}

fn pool_window(o: &Pool2dOptions) -> Vec<Attribute> {
    [window(o.kernel_size, o.stride, o.padding, o.dilation), vec![Attribute::int("ceil_mode", o.ceil_mode as i64)]].concat()
}

impl Writer<'_> {
    fn fresh(&mut self, what: &str) -> String {
        self.added += 1;
        format!("{what}_{}", self.added)
    }

    /// The name of an operand, in the shape in which it is read: a view of another shape is a `Reshape`, and what nothing computed is a constant.
    fn input(&mut self, operand: &Operand) -> Result<String> {
        let shape = operand.spec.shape;
        let same = |value: &&Value| value.operand.buffer.same(&operand.buffer) && value.operand.offset == operand.offset;
        let Some(own) = self.values.iter().rev().find(same) else {
            let bytes = pollster::block_on(self.device.read(&operand.buffer, operand.range()))?;
            let name = self.fresh("constant");
            self.graph.initializer.push(Array::floats(&name, &shape, &bytemuck::allocation::pod_collect_to_vec::<u8, f32>(&bytes)));
            self.values.push(Value { operand: operand.clone(), name: name.clone() });
            return Ok(name);
        };
        let (before, from) = (own.operand.spec.shape, own.name.clone());
        // Weights are written once, when they are first read.
        if !self.graph.initializer.iter().any(|array| array.name == from) && from != "input" && !self.computed(&from) {
            let bytes = pollster::block_on(self.device.read(&operand.buffer, operand.range()))?;
            self.graph.initializer.push(Array::floats(&from, &before, &bytemuck::allocation::pod_collect_to_vec::<u8, f32>(&bytes)));
        }
        if before == shape {
            return Ok(from);
        }
        let batched = before.first() == Some(&BATCH) && shape.first() == Some(&BATCH);
        // 0 keeps the size: that of the batch is free.
        let sizes: Vec<i64> = shape.iter().enumerate().map(|(i, &size)| if i == 0 && batched { 0 } else { size as i64 }).collect();
        let (sizes_name, name) = (self.fresh("shape"), self.fresh("reshape"));
        self.graph.initializer.push(Array::integers(&sizes_name, &sizes));
        self.node("Reshape", vec![from, sizes_name], &name, Vec::new());
        self.values.push(Value { operand: operand.clone(), name: name.clone() });
        Ok(name)
    }

    fn computed(&self, name: &str) -> bool {
        self.graph.node.iter().any(|node| node.output.iter().any(|output| output == name))
    }

    fn node(&mut self, op: &str, input: Vec<String>, output: &str, attribute: Vec<Attribute>) {
        let node = Node {
            input,
            output: vec![output.to_owned()],
            name: format!("{op}_{output}"),
            op_type: op.into(),
            attribute,
            ..Node::default()
        };
        self.graph.node.push(node);
    }

    /// A scalar.
    fn scalar(&mut self, value: f64) -> String {
        let name = self.fresh("scalar");
        self.graph.initializer.push(Array::floats(&name, &[], &[value as f32]));
        name
    }

    fn integers(&mut self, values: &[i64]) -> String {
        let name = self.fresh("integers");
        self.graph.initializer.push(Array::integers(&name, values));
        name
    }

    /// Writes an operation; its first result is what is used.
    fn call(&mut self, call: &Call) -> Result<()> {
        let unsupported = || Error::Unsupported { backend: "onnx".into(), op: format!("{:?}", call.op) };
        let mut inputs = call.inputs.iter().map(|operand| self.input(operand)).collect::<Result<Vec<String>>>()?;
        let output = self.fresh(call.op.family());
        let batch = call.inputs.first().is_some_and(|x| x.spec.shape.first() == Some(&BATCH));
        let (op, attributes) = match &call.op {
            Op::Conv(Conv::Forward { options: o, clip: Clip::Nothing, .. }) => {
                let w = call.inputs[1].spec.shape;
                let group = Attribute::int("group", o.groups as i64);
                ("Conv", [window([w[2], w[3]], o.stride, o.padding, o.dilation), vec![group]].concat())
            }
            Op::Norm(Norm::BatchNormEval { eps, after: After::Nothing }) => ("BatchNormalization", vec![Attribute::float("epsilon", *eps)]),
            Op::Pool(Pool::Max(o)) => ("MaxPool", pool_window(o)),
            Op::Pool(Pool::Avg(o)) if o.divisor_override.is_none() => {
                let count = Attribute::int("count_include_pad", o.count_include_pad as i64);
                let attributes = pool_window(&o.window).into_iter().filter(|a| a.name != "dilations");
                ("AveragePool", attributes.chain([count]).collect())
            }
            Op::Pool(Pool::GlobalAvg) => ("GlobalAveragePool", Vec::new()),
            Op::Matmul(Matmul { transpose_a, transpose_b, relu: false, .. }) if call.inputs[0].spec.shape.rank() == 2 => {
                ("Gemm", vec![Attribute::int("transA", *transpose_a as i64), Attribute::int("transB", *transpose_b as i64)])
            }
            Op::Elementwise(Elementwise::Unary(f)) => match *f {
                Unary::Affine { scale, shift } => {
                    let (scale, shift, scaled) = (self.scalar(scale), self.scalar(shift), self.fresh("scaled"));
                    self.node("Mul", vec![inputs[0].clone(), scale], &scaled, Vec::new());
                    inputs = vec![scaled, shift];
                    ("Add", Vec::new())
                }
                Unary::Clamp { min, max } => {
                    let (min, max) = (self.scalar(min), self.scalar(max));
                    inputs.extend([min, max]);
                    ("Clip", Vec::new())
                }
                Unary::LeakyRelu { negative_slope } => ("LeakyRelu", vec![Attribute::float("alpha", negative_slope)]),
                Unary::Elu { alpha } => ("Elu", vec![Attribute::float("alpha", alpha)]),
                Unary::Pow { exponent } => {
                    inputs.push(self.scalar(exponent));
                    ("Pow", Vec::new())
                }
                Unary::Square => {
                    inputs.push(inputs[0].clone());
                    ("Mul", Vec::new())
                }
                Unary::Relu => ("Relu", Vec::new()),
                Unary::Sigmoid => ("Sigmoid", Vec::new()),
                Unary::Tanh => ("Tanh", Vec::new()),
                Unary::Exp => ("Exp", Vec::new()),
                Unary::Log => ("Log", Vec::new()),
                Unary::Sqrt => ("Sqrt", Vec::new()),
                Unary::Abs => ("Abs", Vec::new()),
                Unary::Neg => ("Neg", Vec::new()),
                Unary::Erf => ("Erf", Vec::new()),
                Unary::Reciprocal => ("Reciprocal", Vec::new()),
                _ => return Err(unsupported()),
            },
            Op::Elementwise(Elementwise::Binary(f)) => match f {
                Binary::Add => ("Add", Vec::new()),
                Binary::Sub => ("Sub", Vec::new()),
                Binary::Mul => ("Mul", Vec::new()),
                Binary::Div => ("Div", Vec::new()),
                Binary::Maximum => ("Max", Vec::new()),
                Binary::Minimum => ("Min", Vec::new()),
                Binary::Pow => ("Pow", Vec::new()),
                _ => return Err(unsupported()),
            },
            Op::Layout(Layout::Concat { dim }) => ("Concat", vec![Attribute::int("axis", *dim as i64)]),
            Op::Layout(Layout::Permute { dims }) => ("Transpose", vec![Attribute::ints("perm", dims.iter().copied())]),
            Op::Layout(Layout::Pad { before, after, value }) => {
                let pads: Vec<i64> = before.iter().chain(after).map(|&v| v as i64).collect();
                let pads = self.integers(&pads);
                inputs.push(pads);
                let value = self.scalar(*value);
                inputs.push(value);
                ("Pad", Vec::new())
            }
            Op::Layout(Layout::Slice { starts, steps, sizes }) if steps.iter().all(|&step| step > 0) => {
                let whole = |axis: usize| axis == 0 && batch && starts[0] == 0 && steps[0] == 1 && sizes[0] == BATCH;
                let x = call.inputs[0].spec.shape;
                let last = |i: usize| starts[i] + sizes[i].saturating_sub(1) * steps[i] as usize;
                // To the end, where the next step would leave the tensor.
                let ends = (0..sizes.len()).map(|i| match (whole(i) || (sizes[i] > 0 && last(i) + steps[i] as usize >= x[i]), sizes[i]) {
                    (true, _) => i64::MAX,
                    (_, 0) => starts[i] as i64,
                    (_, size) => (starts[i] + (size - 1) * steps[i] as usize + 1) as i64,
                });
                let (ends, axes): (Vec<i64>, Vec<i64>) = (ends.collect(), (0..sizes.len() as i64).collect());
                for list in [starts.iter().map(|&v| v as i64).collect(), ends, axes, steps.iter().map(|&v| v as i64).collect::<Vec<i64>>()]
                {
                    let name = self.integers(&list);
                    inputs.push(name);
                }
                ("Slice", Vec::new())
            }
            Op::Reduce(Reduce { kind, dims, keepdim }) => {
                let op = match kind {
                    ReduceKind::Sum => "ReduceSum",
                    ReduceKind::Mean => "ReduceMean",
                    _ => return Err(unsupported()),
                };
                let keep = Attribute::int("keepdims", *keepdim as i64);
                // Of opset 17 the sum takes its axes as an input, the mean as an attribute.
                if op == "ReduceSum" {
                    let axes = self.integers(&dims.iter().map(|&d| d as i64).collect::<Vec<_>>());
                    inputs.push(axes);
                    (op, vec![keep])
                } else {
                    (op, vec![keep, Attribute::ints("axes", dims.iter().copied())])
                }
            }
            Op::Softmax(Softmax::LogSoftmax { dim }) => ("LogSoftmax", vec![Attribute::int("axis", *dim as i64)]),
            _ => return Err(unsupported()),
        };
        self.node(op, inputs, &output, attributes);
        self.values.push(Value { operand: call.outputs[0].clone(), name: output });
        Ok(())
    }
}

/// Multiplies each batch normalisation that follows a convolution, and nothing else reads, into its weights:
/// `w' = w g / sqrt(v + eps)`, `b' = (b - m) g / sqrt(v + eps) + beta` of each output channel.
fn fold_norms(graph: &mut Graph) {
    let mut at = 0;
    while at < graph.node.len() {
        let norm = graph.node[at].clone();
        let conv = graph.node.iter().position(|node| node.op_type == "Conv" && norm.input.first().is_some_and(|x| node.output.contains(x)));
        let readers = graph.node.iter().flat_map(|node| &node.input).filter(|x| Some(*x) == norm.input.first()).count();
        let (Some(conv), "BatchNormalization", 1) = (conv, norm.op_type.as_str(), readers) else {
            at += 1;
            continue;
        };
        let values = |name: &str| graph.initializer.iter().find(|array| array.name == name).and_then(Array::values);
        let eps = norm.attribute.iter().find(|a| a.name == "epsilon").map_or(1e-5, |a| a.f as f64);
        let names = graph.node[conv].input.clone();
        let found = (values(&names[1]), values(&norm.input[1]), values(&norm.input[2]), values(&norm.input[3]), values(&norm.input[4]));
        let (Some(w), Some(g), Some(beta), Some(m), Some(v)) = found else {
            at += 1;
            continue;
        };
        let bias = names.get(2).and_then(|name| values(name)).unwrap_or_else(|| vec![0.0; g.len()]);
        let factor: Vec<f64> = g.iter().zip(&v).map(|(g, v)| g / (v + eps).sqrt()).collect();
        let len = w.len() / factor.len().max(1);
        let weight: Vec<f32> = w.iter().enumerate().map(|(i, w)| (w * factor[i / len.max(1)]) as f32).collect();
        let bias: Vec<f32> = (0..g.len()).map(|c| ((bias[c] - m[c]) * factor[c] + beta[c]) as f32).collect();
        let shape = graph.initializer.iter().find(|array| array.name == names[1]).map(Array::shape).unwrap_or_default();
        let folded = names.get(2).cloned().unwrap_or_else(|| format!("{}_bias", norm.output[0]));
        let gone = [&names[1..], &norm.input[1..]].concat();
        graph.initializer.retain(|array| !gone.contains(&array.name));
        graph.initializer.push(Array::floats(&names[1], &shape, &weight));
        graph.initializer.push(Array::floats(&folded, &[bias.len()], &bias));
        let node = &mut graph.node[conv];
        node.input = vec![names[0].clone(), names[1].clone(), folded];
        node.output = norm.output.clone();
        graph.node.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Preprocessing;
    use crate::io::safetensors;
    use crate::models::{self, NAMES};

    fn about(model: &str, side: usize) -> Sidecar {
        let classes = (0..7).map(|class| class.to_string()).collect();
        Sidecar { model: model.into(), classes, input: [3, side, side], preprocessing: Preprocessing::new(3), table: None }
    }

    #[test]
    fn recurrent_nets_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("w.safetensors");
        let cpu = models::build("gru", [3, 16, 16], 7, &Device::cpu(1).unwrap(), 1).unwrap();
        safetensors::save(&weights, &state_dict(&cpu), None).unwrap();
        let error = onnx(&about("gru", 16), &weights, false).err().unwrap().to_string();
        assert!(error.contains("recurrent nets are not written as ONNX"), "{error}");
    }

    /// `onnxruntime` computes what is written: `scripts/against_onnxruntime.py`. Here: every name is defined before it is used, and nothing is left over.
    #[test]
    fn every_network_is_written_completely() {
        let device = Device::cpu(0).unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in NAMES.into_iter().filter(|name| !["resnet34", "resnet50", "resnet56", "vgg16_bn", "rnn", "gru", "lstm"].contains(name))
        {
            let about = about(name, 32);
            let module = models::build(name, about.input, 7, &device, 1).unwrap();
            let weights = folder.path().join("w.safetensors");
            safetensors::save(&weights, &state_dict(&module), None).unwrap();
            for fold in [false, true] {
                let model = onnx(&about, &weights, fold).unwrap_or_else(|error| panic!("{name}: {error}"));
                let graph = Model::parse(Path::new("a"), &model.bytes()).unwrap().graph.unwrap();
                let mut known: Vec<&str> = graph.initializer.iter().map(|array| array.name.as_str()).chain(["input"]).collect();
                let count = known.len();
                known.sort();
                known.dedup();
                assert_eq!(known.len(), count, "{name}: an array is written twice");
                for node in &graph.node {
                    assert!(node.input.iter().all(|input| known.contains(&input.as_str())), "{name}: {node:?}");
                    known.extend(node.output.iter().map(String::as_str));
                }
                assert!(known.contains(&"logits"));
                let used = |array: &Array| graph.node.iter().any(|node| node.input.contains(&array.name));
                assert!(graph.initializer.iter().all(used), "{name}: an array is not used");
                let norms = graph.node.iter().filter(|node| node.op_type == "BatchNormalization").count();
                assert!(!fold || norms == 0, "{name}: {norms} batch norms are left");
            }
        }
    }
}
