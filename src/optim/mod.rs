//! Optimisers and learning-rate schedules.
//!
//! An [`Optimizer`] gathers its parameters into arenas, so that a step is one operation per group and chunk however many parameters there are.

mod arena;
mod schedule;

pub use schedule::{Decay, Schedule};

use crate::error::{Error, Result};
use crate::nn::{NamedArray, Parameter, misfits, write_arrays};
use crate::op::{AdamStep, Op, Optimizer as Update, Reduce, ReduceKind, SgdStep};
use crate::tensor::Tensor;
use arena::Chunk;

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
}

impl OptimizerConfig {
    /// The names that [`OptimizerConfig::named`] knows.
    pub const NAMES: [&str; 3] = ["sgd", "adam", "adamw"];

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
            _ => Err(Error::Config(format!("unknown optimizer '{name}'; use {}", Self::NAMES.join(", ")))),
        }
    }

    /// The base learning rate.
    pub fn lr(&self) -> f64 {
        let (OptimizerConfig::Sgd { lr, .. } | OptimizerConfig::Adam { lr, .. } | OptimizerConfig::AdamW { lr, .. }) = *self;
        lr
    }

    /// The weight decay of groups that give none.
    pub fn weight_decay(&self) -> f64 {
        let (OptimizerConfig::Sgd { weight_decay, .. }
        | OptimizerConfig::Adam { weight_decay, .. }
        | OptimizerConfig::AdamW { weight_decay, .. }) = *self;
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
        }
        Ok(())
    }

    /// The arenas beside weights and gradients, by PyTorch's names.
    fn state_names(&self) -> &'static [&'static str] {
        match self {
            OptimizerConfig::Sgd { momentum, .. } if *momentum == 0.0 => &[],
            OptimizerConfig::Sgd { .. } => &["momentum_buffer"],
            OptimizerConfig::Adam { .. } | OptimizerConfig::AdamW { .. } => &["exp_avg", "exp_avg_sq"],
        }
    }

    /// The operation of step number `step`, from 1.
    fn update(&self, lr: f64, weight_decay: f64, step: u64) -> Update {
        match *self {
            OptimizerConfig::Sgd { momentum, dampening, nesterov, maximize, .. } => {
                Update::Sgd(SgdStep { lr, momentum, dampening, weight_decay, nesterov, maximize, first: step == 1 })
            }
            OptimizerConfig::Adam { betas, eps, maximize, .. } | OptimizerConfig::AdamW { betas, eps, maximize, .. } => {
                let decoupled = matches!(self, OptimizerConfig::AdamW { .. });
                // The bias corrections are 1 long before the largest i32.
                let step = step.min(i32::MAX as u64) as u32;
                Update::Adam(AdamStep { lr, beta1: betas[0], beta2: betas[1], eps, weight_decay, decoupled, maximize, step })
            }
        }
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
        Ok(Optimizer { config, groups, steps: 0, ones, clip: None })
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
        let scale = self.clip.take().unwrap_or_else(|| self.ones.clone());
        let step = self.steps + 1;
        for group in &self.groups {
            let op = Op::from(self.config.update(lr * group.lr_factor, group.weight_decay, step));
            for chunk in &group.chunks {
                chunk.fill_missing()?;
                let operands: Vec<&Tensor> = [&chunk.weights, &chunk.gradients, &scale].into_iter().chain(&chunk.state).collect();
                Tensor::apply(op.clone(), &operands)?;
            }
        }
        self.steps = step;
        Ok(())
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
        let sum = |chunk: &Chunk| {
            chunk.fill_missing()?;
            // Padding is 0, so the arena's sum is the gradients' sum.
            Tensor::apply1(Reduce { kind: ReduceKind::SumSquares, dims: vec![0], keepdim: true }, &[&chunk.gradients])
        };
        let sums = self.chunks().map(sum).collect::<Result<Vec<_>>>()?;
        let sums = Tensor::concat(&sums.iter().collect::<Vec<_>>(), 0)?;
        let factor_and_norm = Tensor::apply1(Update::ClipFactor { max_norm }, &[&sums])?;
        let norm = factor_and_norm.slice(&[1], &[2], &[1])?;
        self.clip = Some(factor_and_norm);
        Ok(norm)
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
