//! A recurrent net that reads an image row by row, or a sequence step by step, then a linear layer.

use crate::device::Device;
use crate::error::Result;
use crate::nn::recurrent::{Cell, RecurrentOptions, RowReader};
use crate::nn::{Linear, Sequential};

/// `rnn` with 128 hidden values over the rows of `[C, H, W]`, `fc` linear from its last state to the classes.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for impossible sizes; out of memory.
pub fn recurrent(device: &Device, cell: Cell, input_shape: [usize; 3], classes: usize, masked: bool) -> Result<Sequential> {
    let options = RecurrentOptions::new(0, 128);
    Ok(Sequential::new()
        .named("rnn", RowReader::new(device, cell, input_shape, options, masked)?)
        .named("fc", Linear::new(device, 128, classes, true)?))
}
