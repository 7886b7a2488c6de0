//! [`Context`]: what a forward pass needs besides its input.

use super::{Module, Then, join};
use crate::error::{Error, Result};
use crate::rng::Stream;
use crate::tensor::Tensor;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Called after each layer with its path, the layer and its output, whose place what it returns takes: see [`Context::observe`].
pub type Observer = Box<dyn FnMut(&str, &dyn Module, &Tensor) -> Option<Tensor> + Send>;

/// Weights of convolutions that have the batch norm behind them in them, by the paths of the layers of one network: made when a layer first runs under
/// [`Context::folding`], and used by all contexts that share them.
#[derive(Clone, Default)]
pub struct Folded(Arc<Mutex<HashMap<String, (Tensor, Tensor)>>>);

/// Training or evaluation, the source of random numbers, and where in the network the pass is. One a step.
pub struct Context {
    training: bool,
    seed: u64,
    step: u64,
    micro_step: u64,
    path: String,
    /// How often each layer drew random numbers in this step.
    uses: HashMap<String, u64>,
    /// The error on its way out already names its layer.
    located: bool,
    observer: Option<Observer>,
    folded: Option<Folded>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Context({}, seed {}, step {}.{})", if self.training { "train" } else { "eval" }, self.seed, self.step, self.micro_step)
    }
}

impl Context {
    fn new(training: bool, seed: u64, step: u64) -> Self {
        Context {
            training,
            seed,
            step,
            micro_step: 0,
            path: String::new(),
            uses: HashMap::new(),
            located: false,
            observer: None,
            folded: None,
        }
    }

    /// A training pass: batch statistics, dropout. All its random numbers follow from `seed` and `step`.
    pub fn train(seed: u64, step: u64) -> Self {
        Self::new(true, seed, step)
    }

    /// An evaluation pass: running statistics, no dropout.
    pub fn eval() -> Self {
        Self::new(false, 0, 0)
    }

    /// The number of the batch within the step, where several batches make one step: each has random numbers of its own.
    pub fn micro_step(mut self, micro_step: u64) -> Self {
        self.micro_step = micro_step;
        self
    }

    /// Shows every layer's output to `observer`, children before their parent, and keeps layers from being computed in one pass: for tables of shapes, for comparing devices, for gradients in the midst of a network.
    pub fn observe(mut self, observer: Observer) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Multiplies batch norms into the convolutions before them, once for all contexts with the same `folded`: for evaluation alone, of a network that stays as
    /// it is meanwhile. Results differ from those of the layers one by one in their last bits. Nothing is folded in training, where gradients
    /// are recorded, or where somebody observes the layers.
    pub fn folding(mut self, folded: &Folded) -> Self {
        self.folded = Some(folded.clone());
        self
    }

    /// Whether the pass folds.
    pub(super) fn folds(&self) -> bool {
        self.folded.is_some() && !self.training && self.observer.is_none() && !crate::autodiff::is_recording()
    }

    /// The folded weight and bias of the running layer.
    pub(super) fn folded(&self, fold: impl FnOnce() -> Result<(Tensor, Tensor)>) -> Result<(Tensor, Tensor)> {
        let Some(Folded(layers)) = &self.folded else { return fold() };
        let mut layers = layers.lock().unwrap_or_else(PoisonError::into_inner);
        if !layers.contains_key(&self.path) {
            layers.insert(self.path.clone(), fold()?);
        }
        Ok(layers[&self.path].clone())
    }

    /// Whether this is a training pass.
    pub fn is_training(&self) -> bool {
        self.training
    }

    /// The path of the layer that is running, such as `layer1.0.conv1`; empty outside of all layers.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Runs `f` inside the layer `name` of the current one. An error that leaves it begins with the innermost layer's path.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn scope<T>(&mut self, name: &str, f: impl FnOnce(&mut Context) -> Result<T>) -> Result<T> {
        let outer = self.path.len();
        if outer == 0 {
            self.located = false;
        }
        self.path = join(&self.path, name);
        let result = f(self).map_err(|error| if std::mem::replace(&mut self.located, true) { error } else { locate(&self.path, error) });
        self.path.truncate(outer);
        result
    }

    /// Runs the child `module` under its name.
    ///
    /// # Errors
    /// Those of the module, with its path in front.
    pub fn call(&mut self, name: &str, module: &dyn Module, x: &Tensor) -> Result<Tensor> {
        self.call_then(name, module, x, None)
    }

    /// As [`Context::call`], and what follows, in one pass where the module can do that and nobody observes what lies between.
    ///
    /// # Errors
    /// Those of the module, with its path in front.
    pub fn call_then(&mut self, name: &str, module: &dyn Module, x: &Tensor, then: Option<Then>) -> Result<Tensor> {
        self.scope(name, |ctx| {
            if let (Some(then), false) = (then, ctx.is_observed()) {
                return module.forward_then(ctx, x, then);
            }
            let y = module.forward(ctx, x)?;
            let other = ctx.observer.as_mut().and_then(|observer| observer(&ctx.path, module, &y));
            let y = other.unwrap_or(y);
            match then {
                Some(then) => then.apply(&y),
                None => Ok(y),
            }
        })
    }

    /// Whether somebody looks at each layer's output: then each computes apart from the next.
    pub fn is_observed(&self) -> bool {
        self.observer.is_some()
    }

    /// Random numbers for the running layer, keyed by (seed, step, micro-step, layer path, n-th use of the layer in the step).
    ///
    /// The order in which layers run does not matter.
    pub fn stream(&mut self) -> Stream {
        let uses = self.uses.entry(self.path.clone()).or_insert(0);
        let stream = Stream::new(self.seed, &format!("layer/{}", self.path), self.step, self.micro_step << 32 | *uses);
        *uses += 1;
        stream
    }
}

/// Puts the layer's path in front of an error about what the layer was given, or computed.
fn locate(path: &str, error: Error) -> Error {
    match error {
        Error::Shape(message) => Error::Shape(format!("{path}: {message}")),
        Error::DType(message) => Error::DType(format!("{path}: {message}")),
        Error::Device(message) => Error::Device(format!("{path}: {message}")),
        Error::Diverged(message) => Error::Diverged(format!("{path}: {message}")),
        Error::Mismatch(message) => Error::Mismatch(format!("{path}: {message}")),
        Error::Unsupported { backend, op } => Error::Unsupported { backend, op: format!("{op} (in {path})") },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_keyed_by_seed_step_micro_step_path_and_use() {
        let draw = |mut ctx: Context, path: &str, uses: usize| {
            // Drawn one after the other: `last` of a range would skip all but one.
            let streams: Vec<Stream> = (0..uses).map(|_| ctx.scope(path, |ctx| Ok(ctx.stream())).unwrap()).collect();
            streams[uses - 1]
        };
        let streams = [
            draw(Context::train(1, 2), "a", 1),
            draw(Context::train(1, 2), "a", 2),
            draw(Context::train(1, 2), "b", 1),
            draw(Context::train(1, 3), "a", 1),
            draw(Context::train(2, 2), "a", 1),
            draw(Context::train(1, 2).micro_step(1), "a", 1),
        ];
        for (i, a) in streams.iter().enumerate() {
            assert!(streams[i + 1..].iter().all(|b| a != b), "stream {i} occurs twice");
        }
        assert_eq!(streams[0], draw(Context::train(1, 2), "a", 1));
    }

    #[test]
    fn the_order_of_layers_does_not_change_their_streams() {
        let mut ctx = Context::train(1, 2);
        let mut draw = |path: &str| ctx.scope(path, |ctx| Ok(ctx.stream())).unwrap();
        let (a, b) = (draw("a"), draw("b"));
        let mut ctx = Context::train(1, 2);
        let mut draw = |path: &str| ctx.scope(path, |ctx| Ok(ctx.stream())).unwrap();
        assert_eq!((b, a), (draw("b"), draw("a")));
    }

    #[test]
    fn an_error_names_the_innermost_layer_once() {
        let mut ctx = Context::eval();
        let mut fail = |error: Error| {
            ctx.scope("layer1", |ctx| ctx.scope("0", |ctx| ctx.scope("conv", |_| Err::<(), _>(error)))).unwrap_err().to_string()
        };
        assert_eq!(fail(Error::Shape("conv2d got nothing".into())), "layer1.0.conv: conv2d got nothing");
        // The context is as it was before the error, and a second error is located as well.
        assert_eq!(fail(Error::DType("not a float".into())), "layer1.0.conv: not a float");
        assert_eq!(fail(Error::Gpu("device lost".into())), "device lost");
        assert_eq!(ctx.path(), "");
    }
}
