//! The smallest network with a hidden layer.

use crate::device::Device;
use crate::error::Result;
use crate::nn::{Activation, Flatten, Linear, Sequential};

/// Flatten, `0` linear to 128, `1` relu, `2` linear to the classes.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn mlp(device: &Device, input_shape: [usize; 3], classes: usize) -> Result<Sequential> {
    Ok(Sequential::new()
        .named("flatten", Flatten)
        .named("0", Linear::new(device, input_shape.iter().product(), 128, true)?)
        .named("1", Activation::Relu)
        .named("2", Linear::new(device, 128, classes, true)?))
}
