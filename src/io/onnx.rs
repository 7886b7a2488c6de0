//! ONNX's files: the messages of onnx.proto (<https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>), as far as networks for inference use them. Field
//! numbers are the standard's.

use crate::error::{Error, Result};
use prost::Message;
use std::path::Path;

/// A file.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub struct Model {
    #[prost(int64, tag = "1")]
    pub ir_version: i64,
    #[prost(string, tag = "2")]
    pub producer_name: String,
    #[prost(string, tag = "3")]
    pub producer_version: String,
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub opset_import: Vec<OperatorSet>,
    #[prost(message, repeated, tag = "14")]
    pub metadata_props: Vec<Entry>,
}

/// Which operators are meant.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub struct OperatorSet {
    #[prost(string, tag = "1")]
    pub domain: String,
    #[prost(int64, tag = "2")]
    pub version: i64,
}

/// A key and its value.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub struct Entry {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

/// Nodes in the order of computation.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<Array>,
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfo>,
}

/// An operator with the names of what it takes and gives.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub struct Node {
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<Attribute>,
    #[prost(string, tag = "7")]
    pub domain: String,
}

/// An attribute of a node.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(float, tag = "2")]
    pub f: f32,
    #[prost(int64, tag = "3")]
    pub i: i64,
    #[prost(bytes = "vec", tag = "4")]
    pub s: Vec<u8>,
    #[prost(message, optional, tag = "5")]
    pub t: Option<Array>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub kind: i32,
}

/// Values with a shape.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub struct Array {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub int32_data: Vec<i32>,
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    #[prost(string, tag = "8")]
    pub name: String,
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
    #[prost(double, repeated, tag = "10")]
    pub double_data: Vec<f64>,
    /// 1: in another file.
    #[prost(int32, tag = "14")]
    pub data_location: i32,
}

/// A named value of the graph, and what is known of it.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub struct ValueInfo {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub kind: Option<Type>,
}

/// A type; only that of arrays is read.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub struct Type {
    #[prost(message, optional, tag = "1")]
    pub tensor_type: Option<ArrayType>,
}

/// Element type and shape.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub struct ArrayType {
    #[prost(int32, tag = "1")]
    pub elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub shape: Option<ArrayShape>,
}

/// Sizes.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub struct ArrayShape {
    #[prost(message, repeated, tag = "1")]
    pub dim: Vec<Dim>,
}

/// A size: a number, or a name where it is free.
#[derive(Clone, PartialEq, Message)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub struct Dim {
    #[prost(int64, optional, tag = "1")]
    pub dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    pub dim_param: Option<String>,
}

/// Numbers of element types.
pub const FLOAT: i32 = 1;
/// 64-bit integers.
pub const INT64: i32 = 7;

impl Model {
    /// Reads the bytes of a file; `path` stands for it in errors.
    ///
    /// # Errors
    /// [`Error::Data`] for what is no ONNX file.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let model = Model::decode(bytes).map_err(|e| Error::data(path, format!("this is no ONNX file: {e}")))?;
        match &model.graph {
            Some(graph) if !graph.node.is_empty() => Ok(model),
            _ => Err(Error::data(path, "this is no ONNX file: it holds no graph")),
        }
    }

    /// The bytes of a file.
    pub fn bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

impl Attribute {
    /// An integer.
    pub fn int(name: &str, i: i64) -> Self {
        Attribute { name: name.into(), i, kind: 2, ..Default::default() }
    }

    /// A float.
    pub fn float(name: &str, f: f64) -> Self {
        Attribute { name: name.into(), f: f as f32, kind: 1, ..Default::default() }
    }

    /// Integers.
    pub fn ints(name: &str, ints: impl IntoIterator<Item = usize>) -> Self {
        Attribute { name: name.into(), ints: ints.into_iter().map(|i| i as i64).collect(), kind: 7, ..Default::default() }
    }
}

impl ValueInfo {
    /// Floats of a shape, in which a name stands for a size that is free.
    pub fn floats(name: &str, dims: Vec<Dim>) -> Self {
        let tensor_type = ArrayType { elem_type: FLOAT, shape: Some(ArrayShape { dim: dims }) };
        ValueInfo { name: name.into(), kind: Some(Type { tensor_type: Some(tensor_type) }) }
    }

    /// The sizes that are numbers, `None` for free ones.
    pub fn dims(&self) -> Option<Vec<Option<usize>>> {
        let shape = self.kind.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?;
        Some(shape.dim.iter().map(|dim| dim.dim_value.and_then(|v| usize::try_from(v).ok()).filter(|&v| v > 0)).collect())
    }
}

impl Array {
    /// Floats.
    pub fn floats(name: &str, dims: &[usize], values: &[f32]) -> Self {
        let dims = dims.iter().map(|&d| d as i64).collect();
        Array {
            name: name.into(),
            dims,
            data_type: FLOAT,
            raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            ..Default::default()
        }
    }

    /// Integers in one dimension.
    pub fn integers(name: &str, values: &[i64]) -> Self {
        let raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Array { name: name.into(), dims: vec![values.len() as i64], data_type: INT64, raw_data, ..Default::default() }
    }

    /// Sizes.
    pub fn shape(&self) -> Vec<usize> {
        self.dims.iter().map(|&d| usize::try_from(d).unwrap_or(0)).collect()
    }

    /// The values of floats (16, 32 and 64 bits) and integers (32 and 64 bits), if they are as many as the shape says.
    pub fn values(&self) -> Option<Vec<f64>> {
        fn of<const N: usize>(raw: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
            raw.as_chunks::<N>().0.iter().map(|&bytes| value(bytes)).collect()
        }
        let raw = &self.raw_data[..];
        let values = match (self.data_type, raw.is_empty()) {
            (1, false) => of(raw, |b| f32::from_le_bytes(b) as f64),
            (1, true) => self.float_data.iter().map(|&v| v as f64).collect(),
            (6, false) => of(raw, |b| i32::from_le_bytes(b) as f64),
            (6, true) => self.int32_data.iter().map(|&v| v as f64).collect(),
            (7, false) => of(raw, |b| i64::from_le_bytes(b) as f64),
            (7, true) => self.int64_data.iter().map(|&v| v as f64).collect(),
            (10, false) => of(raw, |b| half::f16::from_le_bytes(b).to_f64()),
            (10, true) => self.int32_data.iter().map(|&v| half::f16::from_bits(v as u16).to_f64()).collect(),
            (11, false) => of(raw, f64::from_le_bytes),
            (11, true) => self.double_data.clone(),
            _ => return None,
        };
        let count = self.shape().iter().try_fold(1usize, |n, &size| n.checked_mul(size))?;
        (self.data_location == 0 && values.len() == count).then_some(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_survives_its_file() {
        let weight = Array::floats("w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.5]);
        assert_eq!(weight.values().unwrap()[5], 6.5);
        let node = Node { input: vec!["x".into(), "w".into()], output: vec!["y".into()], op_type: "MatMul".into(), ..Default::default() };
        let dims = vec![Dim { dim_value: None, dim_param: Some("N".into()) }, Dim { dim_value: Some(2), dim_param: None }];
        let graph = Graph {
            node: vec![node],
            initializer: vec![weight, Array::integers("s", &[-1, 7])],
            input: vec![ValueInfo::floats("x", dims)],
            ..Default::default()
        };
        let model = Model { ir_version: 8, graph: Some(graph), ..Default::default() };
        let read = Model::parse(Path::new("a.onnx"), &model.bytes()).unwrap();
        assert_eq!(read, model);
        let graph = read.graph.unwrap();
        assert_eq!(graph.input[0].dims().unwrap(), [None, Some(2)]);
        assert_eq!(graph.initializer[1].values().unwrap(), [-1.0, 7.0]);
    }

    #[test]
    fn what_is_no_model_is_refused() {
        for bytes in [&b""[..], b"hello", &[0xff; 20]] {
            assert!(Model::parse(Path::new("a.onnx"), bytes).unwrap_err().to_string().starts_with("a.onnx: this is no ONNX file"));
        }
        // A shape that its values do not fill.
        let short = Array { dims: vec![1 << 40, 1 << 40], ..Array::floats("w", &[1], &[1.0]) };
        assert_eq!(short.values(), None);
    }
}
