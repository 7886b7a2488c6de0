//! Weights from files into networks of the zoo: a whole network's, or another task's with a new head.

use std::path::Path;

use crate::error::{Error, Result};
use crate::io::safetensors;
use crate::nn::{Module, NamedArray, misfits, named_parameters, state_dict, write_arrays};

/// Names that other collections give to a layer, and ours: ResNets for CIFAR are often published with `linear` for the last layer.
const ALIASES: [(&str, &str); 1] = [("linear", "fc")];

/// Overwrites all weights of a network from a safetensors file. `linear.*` is taken for `fc.*` where the network has no `linear` but an `fc`.
///
/// # Errors
/// [`Error::Data`] when the file is missing, corrupt, or does not fit: it lists missing, unexpected and misshapen names.
pub fn load(module: &dyn Module, path: &Path) -> Result<()> {
    load_arrays(module, safetensors::load(path)?, path)
}

/// As [`load`], from arrays; `path` is for messages.
///
/// # Errors
/// As [`load`].
pub fn load_arrays(module: &dyn Module, mut arrays: Vec<NamedArray>, path: &Path) -> Result<()> {
    rename(module, &mut arrays);
    let state = state_dict(module);
    if let Some(message) = misfits(&state, &arrays) {
        return Err(Error::data(path, format!("the weights do not fit the model: {message}")));
    }
    write_arrays(&state, &arrays)
}

/// As [`load`], but where the file's last layer is for another number of classes, that layer keeps its initial weights. Returns whether it does.
///
/// # Errors
/// Those of [`load`], for all other layers.
pub fn transfer(module: &dyn Module, path: &Path) -> Result<bool> {
    let (mut arrays, mut state) = (safetensors::load(path)?, state_dict(module));
    rename(module, &mut arrays);
    let head = head(module);
    let in_head = |name: &str| name.strip_prefix(head.as_str()).is_some_and(|rest| rest.starts_with('.'));
    // Another number of classes changes the first size of each of the layer's arrays, and nothing else.
    let new = state.iter().filter(|(name, _)| in_head(name)).any(|(name, tensor)| {
        arrays.iter().any(|array| array.name == *name && array.shape[0] != tensor.shape()[0] && array.shape[1..] == tensor.shape()[1..])
    });
    if new {
        arrays.retain(|array| !in_head(&array.name));
        state.retain(|(name, _)| !in_head(name));
    }
    if let Some(message) = misfits(&state, &arrays) {
        return Err(Error::data(path, format!("the weights do not fit the model: {message}")));
    }
    write_arrays(&state, &arrays)?;
    Ok(new)
}

/// The path of the layer with the last parameter, which gives the logits: `fc`, `classifier.1`.
pub fn head(module: &dyn Module) -> String {
    let last = named_parameters(module).pop();
    last.and_then(|(name, _)| name.rsplit_once('.').map(|(path, _)| path.to_owned())).unwrap_or_default()
}

/// Gives arrays the names that the network has for them.
fn rename(module: &dyn Module, arrays: &mut [NamedArray]) {
    let ours: Vec<String> = state_dict(module).into_iter().map(|(name, _)| name).collect();
    let has = |layer: &str| ours.iter().any(|name| name.split('.').next() == Some(layer));
    for (theirs, own) in ALIASES {
        if has(theirs) || !has(own) {
            continue;
        }
        for array in arrays.iter_mut() {
            if let Some(rest) = array.name.strip_prefix(theirs).filter(|rest| rest.starts_with('.')) {
                array.name = format!("{own}{rest}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;
    use crate::models::build;

    fn first(module: &dyn Module, name: &str) -> f32 {
        let state = state_dict(module);
        let tensor = &state.iter().find(|(own, _)| own == name).unwrap().1;
        tensor.to_vec_blocking::<f32>().unwrap()[0]
    }

    #[test]
    fn a_head_for_other_classes_stays_new_and_all_else_is_loaded() {
        let device = Device::cpu(1).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        for (name, head_name) in [("resnet8", "fc"), ("squeezenet1_1", "classifier.1"), ("mlp", "2"), ("efficientnet_lite0", "_fc")] {
            let from = build(name, [3, 32, 32], 7, &device, 1).unwrap();
            safetensors::save(&path, &state_dict(&from), None).unwrap();
            assert_eq!(head(&from), head_name);
            let last = format!("{head_name}.weight");
            let same = build(name, [3, 32, 32], 7, &device, 2).unwrap();
            assert!(!transfer(&same, &path).unwrap());
            assert_eq!(first(&same, &last), first(&from, &last));
            let other = build(name, [3, 32, 32], 4, &device, 2).unwrap();
            let before = first(&other, &last);
            assert!(load(&other, &path).unwrap_err().to_string().contains(&last));
            assert!(transfer(&other, &path).unwrap());
            assert_eq!(first(&other, &last), before);
            let name = &named_parameters(&other)[0].0;
            assert_eq!(first(&other, name), first(&from, name));
        }
        // Another network differs in more than its head.
        let other = build("lenet5", [3, 32, 32], 4, &device, 2).unwrap();
        assert!(transfer(&other, &path).unwrap_err().to_string().contains("missing: conv1.weight"));
    }

    #[test]
    fn a_linear_layer_may_be_called_linear() {
        let device = Device::cpu(1).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let from = build("resnet8", [3, 8, 8], 3, &device, 1).unwrap();
        let renamed: Vec<_> = state_dict(&from).into_iter().map(|(name, t)| (name.replace("fc.", "linear."), t)).collect();
        safetensors::save(&path, &renamed, None).unwrap();
        let to = build("resnet8", [3, 8, 8], 3, &device, 2).unwrap();
        load(&to, &path).unwrap();
        assert_eq!(first(&to, "fc.weight"), first(&from, "fc.weight"));
    }
}
