//! The state of a module by name: what checkpoints hold.

use super::parameter::copy_into;
use super::{Module, Owned, Parameter};
use crate::error::{Error, Result};
use crate::shape::Shape;
use crate::tensor::Tensor;
use std::collections::HashMap;

/// A named array on the host, as files hold them.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedArray {
    /// PyTorch's name, such as `layer1.0.conv1.weight`.
    pub name: String,
    /// The sizes.
    pub shape: Shape,
    /// As many values as the shape says, row-major.
    pub values: Vec<f32>,
}

/// The parameters of a module with PyTorch's names and in its order.
pub fn named_parameters(module: &dyn Module) -> Vec<(String, Parameter)> {
    let mut parameters = Vec::new();
    module.visit("", &mut |name, owned| {
        if let Owned::Parameter(parameter) = owned {
            parameters.push((name, parameter.clone()));
        }
    });
    parameters
}

/// The buffers (running statistics) of a module with PyTorch's names and in its order.
pub fn named_buffers(module: &dyn Module) -> Vec<(String, Tensor)> {
    let mut buffers = Vec::new();
    module.visit("", &mut |name, owned| {
        if let Owned::Buffer(buffer) = owned {
            buffers.push((name, buffer.detach()));
        }
    });
    buffers
}

/// Parameters and buffers with PyTorch's names and in its order. The tensors share the module's memory: later steps change them.
pub fn state_dict(module: &dyn Module) -> Vec<(String, Tensor)> {
    let mut state = Vec::new();
    module.visit("", &mut |name, owned| {
        state.push(match owned {
            Owned::Parameter(parameter) => (name, parameter.data()),
            Owned::Buffer(buffer) => (name, buffer.detach()),
        });
    });
    state
}

/// Copies all parameters and buffers of a module to another of the same network, on the device.
///
/// # Errors
/// [`Error::Shape`] for another network; errors of the device.
pub fn copy_state(from: &dyn Module, to: &dyn Module) -> Result<()> {
    let (from, to) = (state_dict(from), state_dict(to));
    if from.len() != to.len() {
        return Err(Error::Shape(format!("a network of {} tensors cannot be copied to one of {}", from.len(), to.len())));
    }
    from.iter().zip(&to).try_for_each(|((_, from), (_, to))| copy_into(from, to))
}

/// Overwrites all parameters and buffers of a module. Names must match exactly; nothing is changed unless all fit.
///
/// # Errors
/// [`Error::Config`] that lists the missing, the unexpected and the misshapen names.
pub fn load_state_dict(module: &dyn Module, arrays: &[NamedArray]) -> Result<()> {
    let state = state_dict(module);
    if let Some(message) = misfits(&state, arrays) {
        return Err(Error::Config(format!("the weights do not fit the model: {message}")));
    }
    write_arrays(&state, arrays)
}

/// How `arrays` differ from what is expected in names and shapes, in one line; `None` when they fit.
pub(crate) fn misfits(expected: &[(String, Tensor)], arrays: &[NamedArray]) -> Option<String> {
    let mut given: HashMap<&str, &NamedArray> = HashMap::new();
    let (mut missing, mut unexpected, mut misshapen, mut twice) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for array in arrays {
        if array.values.len() != array.shape.len() {
            misshapen.push(format!("{} {} has {} values", array.name, array.shape, array.values.len()));
        }
        if given.insert(&array.name, array).is_some() {
            twice.push(array.name.clone());
        }
    }
    for (name, tensor) in expected {
        match given.remove(name.as_str()) {
            Some(array) if array.shape != *tensor.shape() => {
                misshapen.push(format!("{name} is {}, expected {}", array.shape, tensor.shape()))
            }
            Some(_) => {}
            None => missing.push(name.clone()),
        }
    }
    for array in arrays {
        if given.contains_key(array.name.as_str()) {
            unexpected.push(array.name.clone());
        }
    }
    let lists = [("missing", missing), ("unexpected", unexpected), ("of another shape", misshapen), ("twice", twice)];
    let parts: Vec<String> =
        lists.iter().filter(|(_, names)| !names.is_empty()).map(|(what, names)| format!("{what}: {}", list(names))).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// Names in one line; of very many the first dozen.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let text = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{text} and {} more", names.len() - SHOWN) } else { text }
}

/// Writes arrays that [`misfits`] found to fit.
pub(crate) fn write_arrays(targets: &[(String, Tensor)], arrays: &[NamedArray]) -> Result<()> {
    let given: HashMap<&str, &NamedArray> = arrays.iter().map(|array| (array.name.as_str(), array)).collect();
    for (name, tensor) in targets {
        if let Some(array) = given.get(name.as_str()) {
            tensor.write(&array.values)?;
        }
    }
    Ok(())
}
