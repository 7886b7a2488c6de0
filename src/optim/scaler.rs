//! Dynamic loss scaling: small gradients survive in f16, and a step whose gradients overflow is skipped on the device.

use crate::device::Device;
use crate::error::{Error, Result};
use crate::op::{LossScaleStep, Optimizer as Update};
use crate::tensor::Tensor;

/// Settings of dynamic loss scaling with the meaning and the defaults of torch.amp.GradScaler (Micikevicius et al. 2017, arXiv:1710.03740).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossScaling {
    /// The first factor of the loss.
    pub init_scale: f64,
    /// Factor of the scale after `growth_interval` steps in a row without overflow.
    pub growth_factor: f64,
    /// Factor of the scale after an overflow.
    pub backoff_factor: f64,
    /// Steps in a row without overflow until the scale grows.
    pub growth_interval: u32,
}

impl Default for LossScaling {
    fn default() -> Self {
        LossScaling { init_scale: 65536.0, growth_factor: 2.0, backoff_factor: 0.5, growth_interval: 2000 }
    }
}

/// The scale and what it depends on, all on the device: nothing is read back.
pub(super) struct Scaler {
    settings: LossScaling,
    /// `[3]`: the scale, the steps in a row without overflow, the steps skipped so far.
    pub state: Tensor,
}

impl Scaler {
    pub fn new(device: &Device, settings: LossScaling) -> Result<Self> {
        let LossScaling { init_scale, growth_factor, backoff_factor, growth_interval } = settings;
        let sound = init_scale.is_finite() && init_scale > 0.0 && growth_factor.is_finite() && growth_factor >= 1.0;
        if !(sound && backoff_factor > 0.0 && backoff_factor < 1.0 && growth_interval > 0) {
            return Err(Error::Config(format!(
                "loss scaling: init_scale and growth_interval must be above 0, growth_factor at least 1, backoff_factor between 0 and 1; got {settings:?}"
            )));
        }
        Ok(Scaler { settings, state: Tensor::from_slice(device, &[3], &[init_scale as f32, 0.0, 0.0])? })
    }

    /// The scale, `[1]`.
    pub fn scale(&self) -> Result<Tensor> {
        self.state.narrow(0, 0, 1)
    }

    /// From the sums of squares of all scaled gradients: what the step needs, `[4]`, see [`Update::LossScale`]; and the next step's scale.
    pub fn update(&self, sums: &Tensor, max_norm: f64) -> Result<Tensor> {
        let LossScaling { growth_factor, backoff_factor, growth_interval, .. } = self.settings;
        let step = LossScaleStep { max_norm, growth_factor, backoff_factor, growth_interval };
        Tensor::apply1(Update::LossScale(step), &[sums, &self.state])
    }
}
