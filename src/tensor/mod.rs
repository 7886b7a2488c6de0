//! [`Tensor`]: a shape, an element type, a device, memory, and perhaps a place on the tape. Its operations are in [`ops`].

pub mod ops;

use crate::autodiff::{self, GradSlot, Node, Step};
use crate::backend::Operand;
use crate::device::Device;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::op::{Elementwise, Op, Random};
use crate::rng::Stream;
use crate::shape::{Shape, Spec};
use std::sync::Arc;

/// A contiguous row-major array on a device. Cloning shares the data.
///
/// There are no `+ - * /` operators, since they could not return errors.
#[derive(Clone)]
pub struct Tensor {
    operand: Operand,
    device: Device,
    node: Option<Arc<Node>>,
}

// Batches are prepared on other threads, models are trained on any.
#[cfg(not(target_arch = "wasm32"))]
const _: fn() = || {
    fn assert<T: Send + Sync>() {}
    assert::<Tensor>();
};

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tensor({} on {})", self.operand.spec, self.device.capabilities().kind)
    }
}

impl Tensor {
    /// Memory without a value: every operation writes all of its result.
    pub(crate) fn empty(device: &Device, spec: Spec) -> Result<Tensor> {
        let buffer = device.alloc(spec.len_bytes())?;
        Ok(Tensor { operand: Operand { buffer, offset: 0, spec }, device: device.clone(), node: None })
    }

    /// A tensor of the given data.
    ///
    /// # Errors
    /// [`Error::Shape`] when the number of values is not the shape's.
    pub fn from_slice<T: Element>(device: &Device, shape: &[usize], data: &[T]) -> Result<Tensor> {
        let shape = Shape::new(shape)?;
        if shape.len() != data.len() {
            return Err(Error::Shape(format!("shape {shape} has {} elements, got {}", shape.len(), data.len())));
        }
        let tensor = Self::empty(device, Spec::new(shape, T::DTYPE))?;
        if !data.is_empty() {
            device.write(&tensor.operand.buffer, 0, bytemuck::cast_slice(data))?;
        }
        Ok(tensor)
    }

    /// A tensor of an `ndarray` array.
    ///
    /// # Errors
    /// [`Error::Shape`] above rank 8.
    pub fn from_ndarray<T: Element>(device: &Device, array: &ndarray::ArrayViewD<T>) -> Result<Tensor> {
        let data: Vec<T> = array.iter().copied().collect();
        Self::from_slice(device, array.shape(), &data)
    }

    /// A tensor whose elements are all `value`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn full(device: &Device, shape: &[usize], dtype: DType, value: f64) -> Result<Tensor> {
        let spec = Spec::new(Shape::new(shape)?, dtype);
        Self::create(device, Op::Elementwise(Elementwise::Fill { value, spec }))
    }

    /// f32 zeros.
    ///
    /// # Errors
    /// Out of memory.
    pub fn zeros(device: &Device, shape: &[usize]) -> Result<Tensor> {
        Self::full(device, shape, DType::F32, 0.0)
    }

    /// f32 ones.
    ///
    /// # Errors
    /// Out of memory.
    pub fn ones(device: &Device, shape: &[usize]) -> Result<Tensor> {
        Self::full(device, shape, DType::F32, 1.0)
    }

    /// Uniform f32 values in `[low, high)`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn uniform(device: &Device, shape: &[usize], low: f64, high: f64, stream: Stream) -> Result<Tensor> {
        let spec = Spec::new(Shape::new(shape)?, DType::F32);
        Self::create(device, Op::Random(Random::Uniform { low, high, stream, spec }))
    }

    /// Normal f32 values.
    ///
    /// # Errors
    /// Out of memory.
    pub fn normal(device: &Device, shape: &[usize], mean: f64, std: f64, stream: Stream) -> Result<Tensor> {
        let spec = Spec::new(Shape::new(shape)?, DType::F32);
        Self::create(device, Op::Random(Random::Normal { mean, std, stream, spec }))
    }

    fn create(device: &Device, op: Op) -> Result<Tensor> {
        let tensor = Self::empty(device, op.infer(&[])?[0])?;
        device.run(&op, &[], std::slice::from_ref(&tensor.operand))?;
        Ok(tensor)
    }

    /// Runs any operation and records it; the first result is the differentiable one.
    ///
    /// # Errors
    /// [`Error::Device`] when the operands are on different devices, otherwise those of [`Op::infer`] and of the device.
    pub fn apply(op: impl Into<Op>, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let op = op.into();
        let Some(first) = inputs.first() else {
            return Err(Error::Shape(format!("{} needs an operand", op.name())));
        };
        if let Some(other) = inputs.iter().find(|t| !t.device.same(&first.device)) {
            return Err(Error::Device(format!(
                "{}: operands are on {} and {}; move one with Tensor::to",
                op.name(),
                first.device.name(),
                other.device.name()
            )));
        }
        let specs: Vec<Spec> = inputs.iter().map(|t| t.spec()).collect();
        let mut outputs = op.infer(&specs)?.into_iter().map(|spec| Self::empty(&first.device, spec)).collect::<Result<Vec<_>>>()?;
        let operands: Vec<Operand> = inputs.iter().map(|t| t.operand.clone()).collect();
        let results: Vec<Operand> = outputs.iter().map(|t| t.operand.clone()).collect();
        first.device.run(&op, &operands, &results)?;
        let node = Node::record(Step::Op(op), inputs, &outputs);
        if let Some(output) = outputs.first_mut() {
            output.node = node;
        }
        Ok(outputs)
    }

    /// As [`Tensor::apply`], for operations with one result.
    pub(crate) fn apply1(op: impl Into<Op>, inputs: &[&Tensor]) -> Result<Tensor> {
        Self::apply(op, inputs)?.into_iter().next().ok_or_else(|| Error::Shape("the operation has no result".into()))
    }

    /// The sizes.
    pub fn shape(&self) -> &Shape {
        &self.operand.spec.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.operand.spec.dtype
    }

    /// Shape and type.
    pub fn spec(&self) -> Spec {
        self.operand.spec
    }

    /// The device that holds the data.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The memory that holds the data.
    pub fn operand(&self) -> &Operand {
        &self.operand
    }

    pub(crate) fn node(&self) -> Option<&Arc<Node>> {
        self.node.as_ref()
    }

    /// The same data under another shape of as many elements; `-1` is not special here.
    pub(crate) fn view(&self, shape: Shape) -> Result<Tensor> {
        if shape.len() != self.shape().len() {
            return Err(Error::Shape(format!(
                "reshape: {} has {} elements, {shape} has {}",
                self.shape(),
                self.shape().len(),
                shape.len()
            )));
        }
        let mut view = self.clone();
        view.operand.spec.shape = shape;
        view.node = None;
        Ok(view)
    }

    /// `count` elements from `offset` on as a tensor of their own shape: how parameters live in an arena.
    pub(crate) fn slice_of_arena(&self, offset: usize, shape: Shape) -> Tensor {
        let mut view = self.detach();
        view.operand.offset += offset;
        view.operand.spec.shape = shape;
        view
    }

    /// The same data under another shape of as many elements. Moves nothing.
    ///
    /// # Errors
    /// [`Error::Shape`] when the numbers of elements differ.
    pub fn reshape(&self, shape: &[usize]) -> Result<Tensor> {
        let mut view = self.view(Shape::new(shape)?)?;
        view.node = Node::record(Step::Reshape, &[self], &[]);
        Ok(view)
    }

    /// A view of elements `start..start + len` along `dim`, where they lie together and at an address that the device can bind.
    pub(crate) fn part(&self, dim: usize, start: usize, len: usize) -> Result<Option<Tensor>> {
        let inner: usize = self.shape()[dim + 1..].iter().product();
        let offset = start * inner;
        let aligned = ((self.operand.offset + offset) * self.dtype().size()).is_multiple_of(self.device.capabilities().alignment);
        let together = self.shape()[..dim].iter().all(|&size| size == 1);
        let fits = start.checked_add(len).is_some_and(|end| end <= self.shape()[dim]);
        if !(together && aligned && fits && len > 0) {
            return Ok(None);
        }
        let mut dims = self.shape().to_vec();
        dims[dim] = len;
        let mut view = self.detach();
        view.operand.offset += offset;
        view.operand.spec.shape = Shape::new(&dims)?;
        view.node = Node::record(Step::Narrow(offset), &[self], &[]);
        Ok(Some(view))
    }

    /// `[N, ..] -> [N, rest]`.
    ///
    /// # Errors
    /// [`Error::Shape`] for a scalar.
    pub fn flatten(&self) -> Result<Tensor> {
        let Some(&n) = self.shape().first() else {
            return Err(Error::Shape("flatten expects at least one dimension, got a scalar".into()));
        };
        self.reshape(&[n, self.shape()[1..].iter().product()])
    }

    /// The same data off the tape.
    pub fn detach(&self) -> Tensor {
        Tensor { node: None, ..self.clone() }
    }

    /// The same data as a new leaf of the tape, whose gradient [`Tensor::grad`] returns after [`Tensor::backward`].
    pub fn requires_grad(&self) -> Tensor {
        self.leaf(Arc::default())
    }

    pub(crate) fn leaf(&self, slot: Arc<GradSlot>) -> Tensor {
        Tensor { node: Some(Node::leaf(slot)), ..self.clone() }
    }

    /// A leaf's gradient.
    pub fn grad(&self) -> Option<Tensor> {
        self.node.as_ref()?.slot()?.grad()
    }

    /// Computes the gradients of a scalar with respect to every leaf it depends on.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there is one element; otherwise those of [`autodiff::backward`].
    pub fn backward(&self) -> Result<()> {
        if self.shape().len() != 1 {
            return Err(Error::Shape(format!("backward starts from one value, got {}; reduce it, or use backward_with", self.shape())));
        }
        autodiff::backward(self, Self::full(&self.device, self.shape(), self.dtype(), 1.0)?)
    }

    /// As [`Tensor::backward`] from a tensor of any shape, with its upstream gradient.
    ///
    /// # Errors
    /// [`Error::Shape`] when the shapes differ.
    pub fn backward_with(&self, upstream: &Tensor) -> Result<()> {
        if upstream.spec() != self.spec() {
            return Err(Error::Shape(format!("backward_with: the upstream gradient is {}, the tensor {}", upstream.spec(), self.spec())));
        }
        autodiff::backward(self, upstream.detach())
    }

    /// The values, once all work before is done.
    ///
    /// # Errors
    /// [`Error::DType`] when `T` is not the element type; errors of the device.
    pub async fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        if T::DTYPE != self.dtype() {
            return Err(Error::DType(format!("a tensor of {} cannot be read as {}", self.dtype(), T::DTYPE)));
        }
        let bytes = self.device.read(&self.operand.buffer, self.operand.range()).await?;
        Ok(bytemuck::allocation::pod_collect_to_vec(&bytes))
    }

    /// Blocking twin of [`Tensor::to_vec`].
    ///
    /// # Errors
    /// As [`Tensor::to_vec`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn to_vec_blocking<T: Element>(&self) -> Result<Vec<T>> {
        pollster::block_on(self.to_vec())
    }

    /// The values as an `ndarray` array.
    ///
    /// # Errors
    /// As [`Tensor::to_vec`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn to_ndarray_blocking<T: Element>(&self) -> Result<ndarray::ArrayD<T>> {
        let data = self.to_vec_blocking()?;
        ndarray::ArrayD::from_shape_vec(self.shape().to_vec(), data).map_err(|e| Error::Shape(e.to_string()))
    }

    /// A scalar's value.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there is one element; as [`Tensor::to_vec`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn item_blocking(&self) -> Result<f32> {
        match self.to_vec_blocking::<f32>()?[..] {
            [value] => Ok(value),
            _ => Err(Error::Shape(format!("item expects one element, got {}", self.shape()))),
        }
    }

    /// A copy on another device, off the tape.
    ///
    /// # Errors
    /// Errors of either device.
    pub async fn to(&self, device: &Device) -> Result<Tensor> {
        let copy = Self::empty(device, self.spec())?;
        if !self.shape().is_empty() {
            let bytes = self.device.read(&self.operand.buffer, self.operand.range()).await?;
            device.write(&copy.operand.buffer, 0, &bytes)?;
        }
        Ok(copy)
    }

    /// Overwrites the values in place.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::DType`] when the data do not fit.
    pub fn write<T: Element>(&self, data: &[T]) -> Result<()> {
        if T::DTYPE != self.dtype() || data.len() != self.shape().len() {
            return Err(Error::Shape(format!("{} values of {} do not fit a tensor {}", data.len(), T::DTYPE, self.spec())));
        }
        if data.is_empty() {
            return Ok(());
        }
        self.device.write(&self.operand.buffer, self.operand.range().start, bytemuck::cast_slice(data))
    }
}
