//! Layers that take the results of any earlier ones.

use super::{Context, Module, Owned, join};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// How a step of a [`Graph`] combines its inputs.
pub enum Step {
    /// A layer of one input.
    Layer(Box<dyn Module>),
    /// The sum.
    Add,
    /// The product of elements.
    Mul,
    /// Joined along the channels, dimension 1.
    Concat,
}

/// Steps in the order of computation. Each takes the graph's own input (number 0) or results of steps before it (from 1); the last result is the graph's.
#[derive(Default)]
pub struct Graph {
    steps: Vec<(String, Vec<usize>, Step)>,
}

impl Graph {
    /// No steps: the identity.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a step; its result has the number that is returned.
    ///
    /// # Errors
    /// [`Error::Shape`] for inputs that are not computed before it, or of another number than the step takes.
    pub fn push(&mut self, name: &str, inputs: &[usize], step: Step) -> Result<usize> {
        let fits = match step {
            Step::Layer(_) => inputs.len() == 1,
            _ => !inputs.is_empty(),
        };
        if !fits || inputs.iter().any(|&input| input > self.steps.len()) {
            return Err(Error::Shape(format!("step {name} cannot take the results {inputs:?} of {} steps", self.steps.len())));
        }
        self.steps.push((name.to_owned(), inputs.to_vec(), step));
        Ok(self.steps.len())
    }
}

impl Step {
    /// What the step makes of its inputs.
    ///
    /// # Errors
    /// [`Error::Shape`] where they do not fit together.
    pub fn apply(&self, ctx: &mut Context, name: &str, inputs: &[&Tensor]) -> Result<Tensor> {
        let Some((first, rest)) = inputs.split_first() else {
            return Err(Error::Shape(format!("{name} has no input")));
        };
        match self {
            Step::Layer(layer) => ctx.call(name, &**layer, first),
            Step::Add => ctx.scope(name, |_| rest.iter().try_fold((*first).clone(), |sum, x| sum.add(x))),
            Step::Mul => ctx.scope(name, |_| rest.iter().try_fold((*first).clone(), |product, x| product.mul(x))),
            Step::Concat => ctx.scope(name, |_| Tensor::concat(inputs, 1)),
        }
    }
}

impl Module for Graph {
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        // The last step that reads each result: behind it the result may go.
        let mut last = vec![0; self.steps.len() + 1];
        for (i, (_, inputs, _)) in self.steps.iter().enumerate() {
            inputs.iter().for_each(|&input| last[input] = i);
        }
        let mut results: Vec<Option<Tensor>> = vec![Some(x.clone())];
        for (i, (name, inputs, step)) in self.steps.iter().enumerate() {
            let y = {
                let read: Vec<&Tensor> = inputs.iter().filter_map(|&input| results[input].as_ref()).collect();
                step.apply(ctx, name, &read)?
            };
            inputs.iter().filter(|&&input| last[input] == i).for_each(|&input| results[input] = None);
            results.push(Some(y));
        }
        Ok(results.pop().flatten().unwrap_or_else(|| x.clone()))
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        for (name, _, step) in &self.steps {
            if let Step::Layer(layer) = step {
                layer.visit(&join(path, name), visitor);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::nn::Activation;

    #[test]
    fn steps_take_any_earlier_result() {
        let device = Device::cpu(1).unwrap();
        let x = Tensor::from_slice(&device, &[1, 2], &[-1.0f32, 3.0]).unwrap();
        let mut graph = Graph::new();
        let relu = graph.push("relu", &[0], Step::Layer(Box::new(Activation::Relu))).unwrap();
        let sum = graph.push("sum", &[0, relu], Step::Add).unwrap();
        let product = graph.push("product", &[sum, sum], Step::Mul).unwrap();
        graph.push("all", &[product, 0], Step::Concat).unwrap();
        assert_eq!(graph.forward(&mut Context::eval(), &x).unwrap().to_vec_blocking::<f32>().unwrap(), [1.0, 36.0, -1.0, 3.0]);
        assert!(
            graph.push("late", &[9], Step::Add).is_err() && graph.push("two", &[0, 1], Step::Layer(Box::new(Activation::Relu))).is_err()
        );
        assert_eq!(Graph::new().forward(&mut Context::eval(), &x).unwrap().to_vec_blocking::<f32>().unwrap(), [-1.0, 3.0]);
    }
}
