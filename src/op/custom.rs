//! Operations from outside the crate: the one opening in the closed set of families.

use crate::error::{Error, Result};
use crate::op::Magnitudes;
use crate::shape::Spec;
use std::sync::Arc;

/// An operation of your own: its shape rule, its reference on the CPU, and its WGSL.
///
/// Like the built-in ones it is data, without state: it runs on every device, `checked` and [`run_case`](crate::cases::run_case) judge its
/// kernel by its reference, and with a [`gradient`](CustomOp::gradient) it takes part in [`backward`](crate::Tensor::backward).
pub trait CustomOp: std::fmt::Debug + Send + Sync {
    /// The name in messages, in `snake_case`. Together with the shader's text it names the compiled kernel.
    fn name(&self) -> &'static str;

    /// Shapes and types of the results.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::DType`] saying what does not fit.
    fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>>;

    /// The results in f64, in row-major order: the definition of the operation.
    fn reference(&self, inputs: &[(Spec, &[f64])]) -> Vec<Vec<f64>>;

    /// WGSL with one entry point `main`. Its group 0 binds the operands (`storage, read`), the results (`storage, read_write`), then the
    /// [`params`](CustomOp::params) (`uniform`). `//#include shared/index.wgsl` and the other shared parts work on lines of their own.
    fn shader(&self) -> &'static str;

    /// The uniform's bytes, laid out as the shader's struct: a multiple of 16, at least 16.
    fn params(&self, inputs: &[Spec], outputs: &[Spec]) -> Vec<u8>;

    /// Workgroups of the dispatch, at most 65,535 in each direction.
    fn workgroups(&self, inputs: &[Spec], outputs: &[Spec]) -> [u32; 3];

    /// The operation that takes these operands and then the gradient of the first result, and gives the gradient of every operand.
    /// `None`: it has no gradient.
    fn gradient(&self) -> Option<Custom> {
        None
    }

    /// The largest allowed absolute difference of an f32 result from [`reference`](CustomOp::reference). By default sixteen roundings of the
    /// largest result; an operation that sums many terms says more.
    fn tolerance(&self, inputs: &[Spec], output: usize, size: &Magnitudes) -> f64 {
        let _ = (inputs, output);
        16.0 * size.output / 16_777_216.0
    }
}

/// A shared [`CustomOp`]. Two are equal when they are the same object.
#[derive(Debug, Clone)]
pub struct Custom(Arc<dyn CustomOp>);

impl Custom {
    /// Wraps an operation.
    pub fn new(op: impl CustomOp + 'static) -> Self {
        Custom(Arc::new(op))
    }

    pub(super) fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let outputs = self.0.infer(inputs)?;
        if outputs.is_empty() {
            return Err(Error::Shape(format!("{}: an operation has at least one result", self.0.name())));
        }
        Ok(outputs)
    }
}

impl std::ops::Deref for Custom {
    type Target = dyn CustomOp;
    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
