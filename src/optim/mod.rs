//! Optimisers and learning-rate schedules.
//!
//! An [`Optimizer`] gathers its parameters into arenas, so that a step is one operation per group and chunk however many parameters there are.

mod arena;
mod composed;
mod scaler;
mod schedule;

pub use composed::{Ema, Rule};
pub use scaler::LossScaling;
pub use schedule::{Cycle, Decay, Plateau, Schedule};

use crate::autodiff::no_grad;
use crate::error::{Error, Result};
use crate::nn::{NamedArray, Parameter, misfits, write_arrays};
use crate::op::{AdamStep, Layout, Op, Optimizer as Update, Reduce, ReduceKind, SgdStep, Unary};
use crate::tensor::Tensor;
use arena::Chunk;
use scaler::Scaler;

/// Which optimiser, with its settings and PyTorch's meaning of each. `lr` is the base learning rate of a [`Schedule`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptimizerConfig {
    /// Stochastic gradient descent, `torch.optim.SGD`.
    Sgd {
        /// Learning rate.
        lr: f64,
        /// Momentum; 0 keeps no buffer.
        momentum: f64,
        /// Dampening of the gradient in the momentum buffer.
        dampening: f64,
        /// L2 penalty.
        weight_decay: f64,
        /// Nesterov's variant; needs momentum and no dampening.
        nesterov: bool,
        /// Ascend instead of descend.
        maximize: bool,
    },
    /// Kingma and Ba 2014, arXiv:1412.6980, `torch.optim.Adam`.
    Adam {
        /// Learning rate.
        lr: f64,
        /// Decay of the two moments.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        eps: f64,
        /// L2 penalty.
        weight_decay: f64,
        /// Ascend instead of descend.
        maximize: bool,
    },
    /// Adam with decoupled weight decay: Loshchilov and Hutter 2017, arXiv:1711.05101, `torch.optim.AdamW`.
    AdamW {
        /// Learning rate.
        lr: f64,
        /// Decay of the two moments.
        betas: [f64; 2],
        /// Added to the root of the second moment.
        eps: f64,
        /// Weights shrink by `lr weight_decay` a step.
        weight_decay: f64,
        /// Ascend instead of descend.
        maximize: bool,
    },
    /// Any other rule: a composition of tensor operations, some ten dispatches where the rules above take one.
    Composed {
        /// Learning rate.
        lr: f64,
        /// The rule's own weight decay.
        weight_decay: f64,
        /// Ascend instead of descend.
        maximize: bool,
        /// The formula and its settings.
        rule: Rule,
    },
}

impl OptimizerConfig {
    /// The names that [`OptimizerConfig::named`] knows.
    pub const NAMES: [&str; 12] =
        ["sgd", "adam", "adamw", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam", "lion", "lamb", "lars"];

    /// Plain gradient descent.
    pub fn sgd(lr: f64) -> Self {
        OptimizerConfig::Sgd { lr, momentum: 0.0, dampening: 0.0, weight_decay: 0.0, nesterov: false, maximize: false }
    }

    /// Adam with PyTorch's defaults.
    pub fn adam(lr: f64) -> Self {
        OptimizerConfig::Adam { lr, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0, maximize: false }
    }

    /// AdamW with PyTorch's defaults: `weight_decay` is 0.01.
    pub fn adamw(lr: f64) -> Self {
        OptimizerConfig::AdamW { lr, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01, maximize: false }
    }

    /// An optimiser by name with PyTorch's defaults, but `sgd` with momentum 0.9.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown name.
    pub fn named(name: &str, lr: f64) -> Result<Self> {
        match name {
            "sgd" => Ok(OptimizerConfig::Sgd { lr, momentum: 0.9, dampening: 0.0, weight_decay: 0.0, nesterov: false, maximize: false }),
            "adam" => Ok(Self::adam(lr)),
            "adamw" => Ok(Self::adamw(lr)),
            _ => {
                let (weight_decay, rule) = match name {
                    "rmsprop" => (0.0, Rule::RmsProp { alpha: 0.99, eps: 1e-8, momentum: 0.0, centered: false }),
                    "adagrad" => (0.0, Rule::Adagrad { lr_decay: 0.0, eps: 1e-10, initial_accumulator_value: 0.0 }),
                    "adadelta" => (0.0, Rule::Adadelta { rho: 0.9, eps: 1e-6 }),
                    "adamax" => (0.0, Rule::Adamax { betas: [0.9, 0.999], eps: 1e-8 }),
                    "nadam" => (0.0, Rule::NAdam { betas: [0.9, 0.999], eps: 1e-8, momentum_decay: 0.004 }),
                    "radam" => (0.0, Rule::RAdam { betas: [0.9, 0.999], eps: 1e-8 }),
                    "lion" => (0.0, Rule::Lion { betas: [0.9, 0.99] }),
                    "lamb" => (0.01, Rule::Lamb { betas: [0.9, 0.999], eps: 1e-6 }),
                    "lars" => (0.0, Rule::Lars { momentum: 0.9, trust_coefficient: 0.001 }),
                    _ => return Err(Error::Config(format!("unknown optimizer '{name}'; use {}", Self::NAMES.join(", ")))),
                };
                Ok(OptimizerConfig::Composed { lr, weight_decay, maximize: false, rule })
            }
        }
    }

    /// The base learning rate.
    pub fn lr(&self) -> f64 {
        let (OptimizerConfig::Sgd { lr, .. }
        | OptimizerConfig::Adam { lr, .. }
        | OptimizerConfig::AdamW { lr, .. }
        | OptimizerConfig::Composed { lr, .. }) = *self;
        lr
    }

    /// The weight decay of groups that give none.
    pub fn weight_decay(&self) -> f64 {
        let (OptimizerConfig::Sgd { weight_decay, .. }
        | OptimizerConfig::Adam { weight_decay, .. }
        | OptimizerConfig::AdamW { weight_decay, .. }
        | OptimizerConfig::Composed { weight_decay, .. }) = *self;
        weight_decay
    }

    fn check(&self) -> Result<()> {
        let non_negative = |name: &str, value: f64| {
            if value >= 0.0 && value.is_finite() {
                Ok(())
            } else {
                Err(Error::Config(format!("optimizer: {name} = {value} must be a number of at least 0")))
            }
        };
        non_negative("lr", self.lr())?;
        non_negative("weight_decay", self.weight_decay())?;
        match *self {
            OptimizerConfig::Sgd { momentum, dampening, nesterov, .. } => {
                non_negative("momentum", momentum)?;
                if nesterov && (momentum == 0.0 || dampening != 0.0) {
                    return Err(Error::Config(format!(
                        "optimizer: nesterov needs momentum above 0 and no dampening, got momentum = {momentum}, dampening = {dampening}"
                    )));
                }
                if !dampening.is_finite() {
                    return Err(Error::Config(format!("optimizer: dampening = {dampening} must be a number")));
                }
            }
            OptimizerConfig::Adam { betas, eps, .. } | OptimizerConfig::AdamW { betas, eps, .. } => {
                non_negative("eps", eps)?;
                if betas.iter().any(|beta| !(0.0..1.0).contains(beta)) {
                    return Err(Error::Config(format!("optimizer: betas = {betas:?} must lie in [0, 1)")));
                }
            }
            OptimizerConfig::Composed { rule, .. } => rule.check()?,
        }
        Ok(())
    }

    /// The arenas beside weights and gradients, by PyTorch's names.
    fn state_names(&self) -> &'static [&'static str] {
        match self {
            OptimizerConfig::Sgd { momentum, .. } if *momentum == 0.0 => &[],
            OptimizerConfig::Sgd { .. } => &["momentum_buffer"],
            OptimizerConfig::Adam { .. } | OptimizerConfig::AdamW { .. } => &["exp_avg", "exp_avg_sq"],
            OptimizerConfig::Composed { rule, .. } => rule.state_names(),
        }
    }

    /// The operation of step number `step`, from 1; `None` for a composed rule.
    fn update(&self, lr: f64, weight_decay: f64, step: u64) -> Option<Update> {
        // The bias corrections are 1 long before the largest i32.
        let step = step.min(i32::MAX as u64) as u32;
        Some(match *self {
            OptimizerConfig::Composed { .. } => return None,
            OptimizerConfig::Sgd { momentum, dampening, nesterov, maximize, .. } => {
                Update::Sgd(SgdStep { lr, momentum, dampening, weight_decay, nesterov, maximize, step })
            }
            OptimizerConfig::Adam { betas, eps, maximize, .. } | OptimizerConfig::AdamW { betas, eps, maximize, .. } => {
                let decoupled = matches!(self, OptimizerConfig::AdamW { .. });
                Update::Adam(AdamStep { lr, beta1: betas[0], beta2: betas[1], eps, weight_decay, decoupled, maximize, step })
            }
        })
    }
}

/// Parameters that share a learning rate and a weight decay.
#[derive(Debug, Clone)]
pub struct ParamGroup {
    /// Names (for messages and checkpoints) and parameters.
    pub parameters: Vec<(String, Parameter)>,
    /// Factor of the step's learning rate.
    pub lr_factor: f64,
    /// Replaces the optimiser's weight decay.
    pub weight_decay: Option<f64>,
}

impl ParamGroup {
    /// A group with the optimiser's own settings.
    pub fn new(parameters: Vec<(String, Parameter)>) -> Self {
        ParamGroup { parameters, lr_factor: 1.0, weight_decay: None }
    }

    /// The trainable parameters in two groups: weights, and without weight decay what has fewer than two dimensions (biases, norms).
    pub fn split_decay(parameters: Vec<(String, Parameter)>) -> Vec<Self> {
        let trainable = parameters.into_iter().filter(|(_, parameter)| parameter.is_trainable());
        let (decay, other): (Vec<_>, Vec<_>) = trainable.partition(|(_, parameter)| parameter.shape().iter().count() >= 2);
        let groups = [Self::new(decay), ParamGroup { weight_decay: Some(0.0), ..Self::new(other) }];
        groups.into_iter().filter(|group| !group.parameters.is_empty()).collect()
    }
}

struct Group {
    lr_factor: f64,
    weight_decay: f64,
    chunks: Vec<Chunk>,
}

/// Updates parameters from their gradients, in arenas: one operation per group and chunk, and nothing is read back.
///
/// A parameter that no gradient reached counts as having gradient 0 (PyTorch skips it: there weight decay and momentum rest too).
pub struct Optimizer {
    config: OptimizerConfig,
    groups: Vec<Group>,
    steps: u64,
    ones: Tensor,
    /// Factor of the gradients in the next step, left by [`Optimizer::clip_grad_norm`].
    clip: Option<Tensor>,
    /// With loss scaling, which the gradients then carry.
    scaler: Option<Scaler>,
}

impl std::fmt::Debug for Optimizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Optimizer({:?}, step {}, {} parameters)", self.config, self.steps, self.members().count())
    }
}

impl Optimizer {
    /// Gathers the parameters into arenas. Their values stay, their gradients are forgotten. Leave frozen parameters out.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, no parameters, or a parameter given twice; [`Error::Device`] when parameters live on
    /// different devices or do not fit a buffer of theirs.
    pub fn new(config: OptimizerConfig, groups: Vec<ParamGroup>) -> Result<Self> {
        config.check()?;
        let all: Vec<&(String, Parameter)> = groups.iter().flat_map(|group| &group.parameters).collect();
        let Some((first_name, first)) = all.first().map(|(name, parameter)| (name, parameter.data())) else {
            return Err(Error::Config("optimizer: there is no parameter to train; all are frozen, or the model has none".into()));
        };
        for (i, (name, parameter)) in all.iter().enumerate() {
            if let Some((other, _)) = all[..i].iter().find(|(other, p)| p.same(parameter) || other == name) {
                return Err(Error::Config(format!("optimizer: parameter {name} is given twice (also as {other}); give each once")));
            }
            let data = parameter.data();
            if !data.device().same(first.device()) || data.dtype() != first.dtype() {
                return Err(Error::Device(format!(
                    "optimizer: {first_name} is {} on {} but {name} is {} on {}; use one device and type",
                    first.dtype(),
                    first.device().name(),
                    data.dtype(),
                    data.device().name()
                )));
            }
        }
        let ones = Tensor::full(first.device(), &[1], first.dtype(), 1.0)?;
        let state_count = config.state_names().len();
        let gather = |group: ParamGroup| -> Result<Group> {
            let weight_decay = group.weight_decay.unwrap_or(config.weight_decay());
            if !(weight_decay >= 0.0 && group.lr_factor >= 0.0) {
                return Err(Error::Config(format!(
                    "optimizer: a group has lr_factor = {} and weight_decay = {weight_decay}; both must be at least 0",
                    group.lr_factor
                )));
            }
            Ok(Group { lr_factor: group.lr_factor, weight_decay, chunks: arena::gather(group.parameters, state_count)? })
        };
        let groups = groups.into_iter().map(gather).collect::<Result<_>>()?;
        Ok(Optimizer { config, groups, steps: 0, ones, clip: None, scaler: None })
    }

    /// Scales losses ([`Optimizer::scale_loss`]) so that gradients in f16 neither vanish nor overflow; a step whose gradients overflow is skipped.
    ///
    /// # Errors
    /// [`Error::Config`] for settings out of range, or a rule that is composed of tensor operations: those cannot skip a step.
    pub fn with_loss_scaling(mut self, settings: LossScaling) -> Result<Self> {
        if let OptimizerConfig::Composed { rule, .. } = self.config {
            return Err(Error::Config(format!("loss scaling (precision f16) works with sgd, adam and adamw, not with {rule:?}")));
        }
        self.scaler = Some(Scaler::new(self.ones.device(), settings)?);
        Ok(self)
    }

    /// The loss to call [`Tensor::backward`] on: with loss scaling the scaled one, else the loss itself.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn scale_loss(&self, loss: &Tensor) -> Result<Tensor> {
        match &self.scaler {
            Some(scaler) => loss.mul(&scaler.scale()?.reshape(&[])?),
            None => Ok(loss.clone()),
        }
    }

    /// With loss scaling: the scale, the steps in a row without overflow, and the steps skipped so far, `[3]`.
    pub fn loss_scale(&self) -> Option<&Tensor> {
        self.scaler.as_ref().map(|scaler| &scaler.state)
    }

    /// The settings.
    pub fn config(&self) -> &OptimizerConfig {
        &self.config
    }

    /// Number of steps done.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.groups.iter().flat_map(|group| &group.chunks)
    }

    fn members(&self) -> impl Iterator<Item = &(String, Parameter)> {
        self.chunks().flat_map(|chunk| chunk.members.iter().map(|member| &member.named))
    }

    /// Updates every parameter from its gradient with learning rate `lr` (times the group's factor).
    ///
    /// # Errors
    /// [`Error::Config`] when another optimiser has gathered a parameter since; errors of the device.
    pub fn step(&mut self, lr: f64) -> Result<()> {
        self.chunks().try_for_each(Chunk::check)?;
        let scale = match (self.clip.take(), &self.scaler) {
            (Some(clip), _) => clip,
            (None, Some(scaler)) => scaler.update(&self.sums_of_squares()?, f64::INFINITY)?,
            (None, None) => self.ones.clone(),
        };
        let step = self.steps + 1;
        for group in &self.groups {
            let lr = lr * group.lr_factor;
            let op = self.config.update(lr, group.weight_decay, step).map(Op::from);
            for chunk in &group.chunks {
                chunk.fill_missing()?;
                let Some(op) = &op else {
                    self.compose(lr, group.weight_decay, step, chunk, &scale)?;
                    continue;
                };
                let operands: Vec<&Tensor> = [&chunk.weights, &chunk.gradients, &scale].into_iter().chain(&chunk.state).collect();
                Tensor::apply(op.clone(), &operands)?;
            }
        }
        self.steps = step;
        Ok(())
    }

    /// A step by a [`Rule`], of the whole chunk or parameter by parameter.
    fn compose(&self, lr: f64, weight_decay: f64, step: u64, chunk: &Chunk, scale: &Tensor) -> Result<()> {
        let OptimizerConfig::Composed { rule, maximize, .. } = self.config else { return Ok(()) };
        let _guard = no_grad();
        // The factor is the first value of what clipping left.
        let factor = scale.narrow(0, 0, 1)?.affine(if maximize { -1.0 } else { 1.0 }, 0.0)?;
        let gradients = chunk.gradients.mul(&factor)?;
        if !rule.per_tensor() {
            return rule.step(lr, weight_decay, step, &chunk.weights, &gradients, &chunk.state.iter().collect::<Vec<_>>());
        }
        let states: Vec<Vec<Tensor>> = chunk.state.iter().map(|arena| chunk.slices(arena)).collect();
        for (i, (w, g)) in chunk.slices(&chunk.weights).iter().zip(chunk.slices(&gradients)).enumerate() {
            rule.step(lr, weight_decay, step, w, &g, &states.iter().map(|state| &state[i]).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Clips every element of the gradients to `[-clip_value, clip_value]`, in place.
    ///
    /// # Errors
    /// [`Error::Config`] unless `clip_value` is above 0; errors of the device.
    pub fn clip_grad_value(&mut self, clip_value: f64) -> Result<()> {
        if !(clip_value > 0.0) {
            return Err(Error::Config(format!("clip_grad_value: clip_value = {clip_value} must be above 0")));
        }
        self.unscaled("clip_grad_value")?;
        let _guard = no_grad();
        for chunk in self.chunks() {
            chunk.check()?;
            chunk.fill_missing()?;
            let clipped = chunk.gradients.clamp(Some(-clip_value), Some(clip_value))?;
            let copy = Op::from(Layout::Expand { shape: *clipped.shape() });
            clipped.device().run(&copy, &[clipped.operand().clone()], &[chunk.gradients.operand().clone()])?;
        }
        Ok(())
    }

    /// As [`Optimizer::clip_grad_norm`] for another norm: `(sum |g|^p)^(1/p)` of all gradients together, infinite `p` the largest `|g|`.
    ///
    /// # Errors
    /// [`Error::Config`] unless `max_norm` and `norm_type` are above 0; errors of the device.
    pub fn clip_grad_norm_of(&mut self, max_norm: f64, norm_type: f64) -> Result<Tensor> {
        if norm_type == 2.0 {
            return self.clip_grad_norm(max_norm);
        }
        if !(max_norm > 0.0 && norm_type > 0.0) {
            return Err(Error::Config(format!("clip_grad_norm: max_norm = {max_norm} and norm_type = {norm_type} must be above 0")));
        }
        self.unscaled("clip_grad_norm_of")?;
        let _guard = no_grad();
        let of = |chunk: &Chunk| {
            chunk.check()?;
            chunk.fill_missing()?;
            chunk.gradients.norm(norm_type, None, false)?.reshape(&[1])
        };
        let norms = self.chunks().map(of).collect::<Result<Vec<_>>>()?;
        // The norm of the norms is the norm of all.
        let norm = Tensor::concat(&norms.iter().collect::<Vec<_>>(), 0)?.norm(norm_type, None, false)?.reshape(&[1])?;
        let factor = norm.affine(1.0, 1e-6)?.unary(Unary::Reciprocal)?.affine(max_norm, 0.0)?.clamp(None, Some(1.0))?;
        self.clip = Some(Tensor::concat(&[&factor, &norm], 0)?);
        Ok(norm)
    }

    /// Forgets all gradients; the next backward pass overwrites them. To be called before each step's first backward pass.
    pub fn zero_grad(&mut self) {
        self.members().for_each(|(_, parameter)| parameter.clear_grad());
        self.clip = None;
    }

    /// Makes the next step scale all gradients so that the norm of all together is at most `max_norm` (Pascanu et al. 2013).
    ///
    /// The factor is `min(1, max_norm / (norm + 1e-6))` as in PyTorch and stays on the device. Returns the norm before, `[1]`.
    ///
    /// # Errors
    /// [`Error::Config`] unless `max_norm` is above 0; errors of the device.
    pub fn clip_grad_norm(&mut self, max_norm: f64) -> Result<Tensor> {
        if max_norm.is_nan() || max_norm <= 0.0 {
            return Err(Error::Config(format!("clip_grad_norm: max_norm = {max_norm} must be above 0")));
        }
        self.chunks().try_for_each(Chunk::check)?;
        let sums = self.sums_of_squares()?;
        let factor_and_norm = match &self.scaler {
            Some(scaler) => scaler.update(&sums, max_norm)?,
            None => Tensor::apply1(Update::ClipFactor { max_norm }, &[&sums])?,
        };
        let norm = factor_and_norm.slice(&[1], &[2], &[1])?;
        self.clip = Some(factor_and_norm);
        Ok(norm)
    }

    /// The sum of squares of each chunk's gradients.
    fn sums_of_squares(&self) -> Result<Tensor> {
        let sum = |chunk: &Chunk| {
            chunk.fill_missing()?;
            // Padding is 0, so the arena's sum is the gradients' sum.
            Tensor::apply1(Reduce { kind: ReduceKind::SumSquares, dims: vec![0], keepdim: true }, &[&chunk.gradients])
        };
        let sums = self.chunks().map(sum).collect::<Result<Vec<_>>>()?;
        Tensor::concat(&sums.iter().collect::<Vec<_>>(), 0)
    }

    /// What looks at the gradients themselves cannot know their scale.
    fn unscaled(&self, what: &str) -> Result<()> {
        match self.scaler {
            Some(_) => Err(Error::Config(format!("{what}: the gradients are scaled with the loss; use clip_grad_norm"))),
            None => Ok(()),
        }
    }

    /// What must be saved beside the weights to go on later: `exp_avg.conv1.weight` and so on. The tensors share the arenas' memory.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        for (i, kind) in self.config.state_names().iter().enumerate() {
            for chunk in self.chunks() {
                let names = chunk.members.iter().map(|member| format!("{kind}.{}", member.named.0));
                state.extend(names.zip(chunk.slices(&chunk.state[i])));
            }
        }
        state.extend(self.loss_scale().map(|scale| ("loss_scale".to_owned(), scale.clone())));
        state
    }

    /// Goes on from a saved [`Optimizer::state`] after `steps` steps. Nothing is changed unless all names and shapes fit.
    ///
    /// # Errors
    /// [`Error::Config`] that lists what is missing, unexpected or misshapen.
    pub fn load_state(&mut self, steps: u64, arrays: &[NamedArray]) -> Result<()> {
        let state = self.state();
        if let Some(message) = misfits(&state, arrays) {
            return Err(Error::Config(format!("the optimizer's state does not fit: {message}")));
        }
        write_arrays(&state, arrays)?;
        self.steps = steps;
        Ok(())
    }
}
