//! [`Parameter`]: a trained tensor that a module, an optimiser and a checkpoint share.

use super::Init;
use crate::autodiff::GradSlot;
use crate::device::Device;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{Layout, Op};
use crate::shape::Shape;
use crate::tensor::Tensor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// A shared handle to a trained tensor. Cloning shares it; its memory moves into an arena when an optimiser gathers it.
#[derive(Clone)]
pub struct Parameter(Arc<Inner>);

struct Inner {
    tensor: RwLock<Tensor>,
    slot: Arc<GradSlot>,
    trainable: AtomicBool,
    init: Mutex<Init>,
}

impl std::fmt::Debug for Parameter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parameter({})", self.data().spec())
    }
}

impl Parameter {
    /// Zeros of f32 that [`initialize`](super::initialize) will fill as `init` says.
    ///
    /// # Errors
    /// [`Error::Shape`] for an impossible shape; out of memory.
    pub fn new(device: &Device, shape: &[usize], init: Init) -> Result<Self> {
        let parameter = Self::from_tensor(&Tensor::full(device, shape, DType::F32, 0.0)?);
        parameter.set_init(init);
        Ok(parameter)
    }

    /// A trained tensor with the given values. It shares the tensor's memory until an optimiser gathers it.
    pub fn from_tensor(tensor: &Tensor) -> Self {
        Parameter(Arc::new(Inner {
            tensor: RwLock::new(tensor.detach()),
            slot: Arc::default(),
            trainable: AtomicBool::new(true),
            init: Mutex::new(Init::Default),
        }))
    }

    /// The tensor as a forward pass uses it: a leaf of the tape, or off the tape when the parameter is frozen.
    pub fn tensor(&self) -> Tensor {
        let data = self.data();
        if self.is_trainable() { data.leaf(Arc::clone(&self.0.slot)) } else { data }
    }

    /// As [`Parameter::tensor`], rounded to f16 where the activations `x` are f16: the parameter itself and its gradient stay f32.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn tensor_for(&self, x: &Tensor) -> Result<Tensor> {
        if x.dtype() == DType::F16 { self.tensor().cast(DType::F16) } else { Ok(self.tensor()) }
    }

    /// The tensor off the tape. Later steps change its values.
    pub fn data(&self) -> Tensor {
        self.0.tensor.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The sizes.
    pub fn shape(&self) -> Shape {
        *self.data().shape()
    }

    /// The gradient summed since it was last cleared.
    pub fn grad(&self) -> Option<Tensor> {
        self.0.slot.grad()
    }

    /// Forgets the gradient. [`Optimizer::zero_grad`](crate::optim::Optimizer::zero_grad) does it for all parameters of an optimiser.
    pub fn clear_grad(&self) {
        self.0.slot.clear();
    }

    /// Whether gradients are computed.
    pub fn is_trainable(&self) -> bool {
        self.0.trainable.load(Ordering::Relaxed)
    }

    /// Freezes (`false`) or thaws the parameter: from the next forward pass on no gradient, or one again.
    pub fn set_trainable(&self, trainable: bool) {
        self.0.trainable.store(trainable, Ordering::Relaxed);
    }

    /// How [`initialize`](super::initialize) fills the parameter.
    pub fn init(&self) -> Init {
        *self.0.init.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what the layer chose for [`initialize`](super::initialize).
    pub fn set_init(&self, init: Init) {
        *self.0.init.lock().unwrap_or_else(PoisonError::into_inner) = init;
    }

    /// Copies the values of a tensor of the same shape on the same device into the parameter's own memory.
    ///
    /// # Errors
    /// [`Error::Shape`] when shape or type differ, [`Error::Device`] when the devices do.
    pub fn set(&self, values: &Tensor) -> Result<()> {
        let own = self.data();
        if values.spec() != own.spec() {
            return Err(Error::Shape(format!("a parameter {} cannot be set to a tensor {}", own.spec(), values.spec())));
        }
        copy_into(values, &own)
    }

    /// Overwrites the values from the host.
    ///
    /// # Errors
    /// [`Error::Shape`] unless there are as many values as the parameter has.
    pub fn write(&self, values: &[f32]) -> Result<()> {
        self.data().write(values)
    }

    /// True when both handles name the same parameter.
    pub fn same(&self, other: &Parameter) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(crate) fn slot(&self) -> &GradSlot {
        &self.0.slot
    }

    /// Moves the parameter: its values into `weights`, its gradients from now on into `gradients` (slices of arenas).
    pub(crate) fn gather(&self, weights: Tensor, gradients: Tensor) -> Result<()> {
        copy_into(&self.data(), &weights)?;
        *self.0.tensor.write().unwrap_or_else(PoisonError::into_inner) = weights;
        self.0.slot.set_arena(gradients);
        Ok(())
    }
}

/// Copies `source` into the memory of `target`, which has the same shape.
pub(super) fn copy_into(source: &Tensor, target: &Tensor) -> Result<()> {
    if !source.device().same(target.device()) {
        return Err(Error::Device(format!(
            "the values are on {}, the parameter on {}; move them with Tensor::to",
            source.device().name(),
            target.device().name()
        )));
    }
    let shape = *target.shape();
    // GPUs refuse a dispatch that reads and writes one buffer, so a slice of the same arena takes a detour.
    let detour = source.operand().buffer.same(&target.operand().buffer);
    let source = if detour { source.detach().expand(&shape)? } else { source.detach() };
    target.device().run(&Op::Layout(Layout::Expand { shape }), &[source.operand().clone()], &[target.operand().clone()])
}
