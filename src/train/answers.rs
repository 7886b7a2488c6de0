//! What a network answers on a part of a data set.

use crate::autodiff::no_grad;
use crate::data::{Batch, Dataset, Loader, LoaderOptions, Part};
use crate::device::Device;
use crate::error::Result;
use crate::metrics::{Measured, Numbers, Predictions};
use crate::nn::{Context, Folded, Module};
use crate::tensor::Tensor;
use std::sync::Arc;

/// What a module answers on a part of a data set.
#[derive(Debug, Clone)]
pub enum Answers {
    /// Where classes were asked for.
    Classes(Predictions),
    /// Where numbers were.
    Numbers(Numbers),
}

impl Answers {
    /// How good they are.
    ///
    /// # Errors
    /// None: numbers and their targets are as many.
    pub fn measure(&self) -> Result<Measured> {
        match self {
            Answers::Classes(predictions) => Ok(Measured::Classes(predictions.scores())),
            Answers::Numbers(numbers) => numbers.measure(),
        }
    }
}

/// Shows what a module makes of each batch of a part.
fn each_batch(
    module: &dyn Module,
    data: &Dataset,
    part: &Arc<Part>,
    device: &Device,
    [batch_size, workers]: [usize; 2],
    mut show: impl FnMut(&[f32], &Batch),
) -> Result<()> {
    let (_guard, folded) = (no_grad(), Folded::default());
    for batch in Loader::new(data, part, LoaderOptions { batch_size, workers, ..Default::default() })? {
        let batch = batch?;
        let x = Tensor::from_slice(device, &[batch.len(), data.channels, data.height, data.width], &batch.images)?;
        show(&module.forward(&mut Context::eval().folding(&folded), &x)?.to_vec_blocking::<f32>()?, &batch);
    }
    Ok(())
}

/// What a module answers on a part of a data set of classes, in its order.
///
/// # Errors
/// Errors of the device; [`Error::Shape`](crate::Error::Shape) when the images do not fit the module.
pub fn evaluate(
    module: &dyn Module,
    data: &Dataset,
    part: &Arc<Part>,
    device: &Device,
    batch_size: usize,
    workers: usize,
) -> Result<Predictions> {
    let mut predictions = Predictions::new(data.classes.len());
    each_batch(module, data, part, device, [batch_size, workers], |logits, batch| predictions.add(logits, &batch.targets))?;
    Ok(predictions)
}

/// What a module answers on a part of a data set of classes or of numbers, in its order.
///
/// # Errors
/// As [`evaluate`].
pub fn answers(
    module: &dyn Module,
    data: &Dataset,
    part: &Arc<Part>,
    device: &Device,
    batch_size: usize,
    workers: usize,
) -> Result<Answers> {
    let Some(table) = data.table.as_ref().filter(|table| table.regression) else {
        return evaluate(module, data, part, device, batch_size, workers).map(Answers::Classes);
    };
    let mut numbers = Numbers { scale: table.target_std, ..Numbers::default() };
    each_batch(module, data, part, device, [batch_size, workers], |answers, batch| {
        numbers.answers.extend(answers.iter().map(|&v| table.number(v as f64)));
        numbers.targets.extend(batch.numbers.iter().map(|&v| table.number(v as f64)));
    })?;
    Ok(Answers::Numbers(numbers))
}
