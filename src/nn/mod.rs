//! Layers: modules that own [`Parameter`]s and map one tensor to another under a [`Context`].
//!
//! A layer belongs here when it has parameters, state, or behaves differently in training; plain functions are methods of [`Tensor`].
//! Whole networks are in [`models`](crate::models).

mod activation;
mod container;
mod context;
mod conv;
mod dropout;
mod embedding;
mod graph;
mod init;
mod linear;
pub mod loss;
mod norm;
mod parameter;
mod pool;
pub mod recurrent;
pub mod resize;
mod state;
mod then;

pub use crate::op::Unary as Activation;
pub use container::{Flatten, Residual, Sequential};
pub use context::{Context, Folded, Observer};
pub use conv::{Conv2d, ConvTranspose2d};
pub use dropout::Dropout;
pub use embedding::Embedding;
pub use graph::{Graph, Step};
pub use init::{Init, initialize};
pub use linear::Linear;
pub use norm::BatchNorm2d;
pub use parameter::Parameter;
pub use pool::{AvgPool2d, GlobalAvgPool2d, MaxPool2d};
pub use state::{NamedArray, copy_state, load_state_dict, named_buffers, named_parameters, state_dict};
pub(crate) use state::{misfits, write_arrays};
pub use then::Then;

use crate::backend::MaybeSendSync;
use crate::error::Result;
use crate::tensor::Tensor;

/// What a module owns, as [`Module::visit`] shows it.
pub enum Owned<'a> {
    /// Trained by an optimiser.
    Parameter(&'a Parameter),
    /// Updated in place by the forward pass: running statistics.
    Buffer(&'a Tensor),
}

/// A layer or a network.
pub trait Module: MaybeSendSync {
    /// Computes the output for `x`. Children are called through [`Context::call`], which keeps the layer path.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) when `x` does not fit; the message begins with the layer's path.
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor>;

    /// What `then` makes of [`Module::forward`], in the same pass over memory where the layer can do that.
    ///
    /// # Errors
    /// As [`Module::forward`].
    fn forward_then(&self, ctx: &mut Context, x: &Tensor, then: Then) -> Result<Tensor> {
        then.apply(&self.forward(ctx, x)?)
    }

    /// The layer as what the one before it may compute in its own pass.
    fn as_then(&self) -> Option<Then<'static>> {
        None
    }

    /// The layer as what a convolution before it can have in its weights.
    fn as_norm(&self) -> Option<&BatchNorm2d> {
        None
    }

    /// Shows every parameter and buffer with its name, in PyTorch's order: own parameters, own buffers, then the children.
    ///
    /// `path` is the module's own; names are made with [`join`]. A module that owns nothing need not write this.
    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        let _ = (path, visitor);
    }

    /// Whether the layer itself draws random numbers in training: dropout.
    fn draws(&self) -> bool {
        false
    }

    /// The layer with its attributes in a few words, for tables.
    fn describe(&self) -> String {
        let name = std::any::type_name::<Self>();
        name.rsplit("::").next().unwrap_or(name).to_owned()
    }
}

/// The path of `name` inside the module at `path`: `layer1.0` and `conv1` give `layer1.0.conv1`.
pub fn join(path: &str, name: &str) -> String {
    match (path, name) {
        ("", name) => name.to_owned(),
        // What has no name of its own stands for its parent.
        (path, "") => path.to_owned(),
        _ => format!("{path}.{name}"),
    }
}

/// `3x3`, as tables write a pair.
fn by(pair: [usize; 2]) -> String {
    format!("{}x{}", pair[0], pair[1])
}
