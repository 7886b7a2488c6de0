//! Batch normalisation and its gradient.

use super::{Saves, no_gradient};
use crate::autodiff::{Grads, Recorded};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::op::{After, AvgPool2dOptions, Norm, Pool2dOptions, ReduceKind, Unary};
use crate::tensor::Tensor;

impl Tensor {
    /// Normalises each channel of `[N, C, ..]` with the batch's statistics and updates `running` (mean, variance) in place.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when sizes differ, or a channel has fewer than two values.
    pub fn batch_norm(
        &self,
        weight: &Tensor,
        bias: &Tensor,
        running: Option<(&Tensor, &Tensor)>,
        momentum: f64,
        eps: f64,
    ) -> Result<Tensor> {
        self.batch_norm_then(weight, bias, running, momentum, eps, (After::Nothing, None))
    }

    /// As [`Tensor::batch_norm`], and what follows in the same pass; [`After::AddRelu`] comes with the residual.
    ///
    /// # Errors
    /// As [`Tensor::batch_norm`].
    pub fn batch_norm_then(
        &self,
        weight: &Tensor,
        bias: &Tensor,
        running: Option<(&Tensor, &Tensor)>,
        momentum: f64,
        eps: f64,
        (after, residual): (After, Option<&Tensor>),
    ) -> Result<Tensor> {
        let op = Norm::BatchNorm { eps, momentum, running: running.is_some(), after };
        let running = running.map(|(mean, var)| [mean, var]);
        let inputs: Vec<&Tensor> = [self, weight, bias].into_iter().chain(running.into_iter().flatten()).chain(residual).collect();
        Tensor::apply1(op, &inputs)
    }

    /// Normalises each channel of `[N, C, ..]` with given statistics.
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when sizes differ.
    pub fn batch_norm_eval(&self, weight: &Tensor, bias: &Tensor, mean: &Tensor, var: &Tensor, eps: f64) -> Result<Tensor> {
        self.batch_norm_eval_then(weight, bias, [mean, var], eps, (After::Nothing, None))
    }

    /// As [`Tensor::batch_norm_eval`], and what follows in the same pass; [`After::AddRelu`] comes with the residual.
    ///
    /// # Errors
    /// As [`Tensor::batch_norm_eval`].
    pub fn batch_norm_eval_then(
        &self,
        weight: &Tensor,
        bias: &Tensor,
        [mean, var]: [&Tensor; 2],
        eps: f64,
        (after, residual): (After, Option<&Tensor>),
    ) -> Result<Tensor> {
        let inputs: Vec<&Tensor> = [self, weight, bias, mean, var].into_iter().chain(residual).collect();
        Tensor::apply1(Norm::BatchNormEval { eps, after }, &inputs)
    }

    /// Normalises each of `rows` parts of equal length: `(x - mean) / sqrt(var + eps)` with the biased variance.
    fn standardize(&self, rows: usize, eps: f64) -> Result<Tensor> {
        let len = self.shape().len().checked_div(rows).unwrap_or(0);
        if len <= 1 {
            // One value is its own mean.
            return self.sub(self);
        }
        // Batch normalisation of one image whose channels are the rows.
        let dtype = if self.dtype() == DType::F16 { DType::F32 } else { self.dtype() };
        let (one, zero) = (Tensor::full(self.device(), &[rows], dtype, 1.0)?, Tensor::full(self.device(), &[rows], dtype, 0.0)?);
        self.reshape(&[1, rows, len])?.batch_norm(&one, &zero, None, 0.0, eps)?.reshape(self.shape())
    }

    /// `self * weight + bias`, either of which may be absent, after both got the shape `dims`.
    fn scale_shift(&self, weight: Option<&Tensor>, bias: Option<&Tensor>, dims: &[usize]) -> Result<Tensor> {
        let scaled = match weight {
            Some(weight) => self.mul(&weight.reshape(dims)?)?,
            None => self.clone(),
        };
        match bias {
            Some(bias) => scaled.add(&bias.reshape(dims)?),
            None => Ok(scaled),
        }
    }

    /// Normalises over the last dimensions, which are `normalized_shape`; weight and bias have that shape (Ba et al. 2016, arXiv:1607.06450).
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when the last dimensions are others.
    pub fn layer_norm(&self, normalized_shape: &[usize], weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
        let rows = self.leading_rows(normalized_shape, "layer_norm")?;
        self.standardize(rows, eps)?.scale_shift(weight, bias, normalized_shape)
    }

    /// `x / sqrt(mean(x^2) + eps) * weight` over the last dimensions, which are `normalized_shape` (Zhang and Sennrich 2019, arXiv:1910.07467).
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) when the last dimensions are others.
    pub fn rms_norm(&self, normalized_shape: &[usize], weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
        self.leading_rows(normalized_shape, "rms_norm")?;
        let rank = self.shape().rank();
        let dims: Vec<i64> = (rank - normalized_shape.len()..rank).map(|d| d as i64).collect();
        let len: usize = normalized_shape.iter().product();
        let squares = self.reduce(ReduceKind::SumSquares, Some(&dims), true)?;
        let factor = squares.affine(1.0 / len.max(1) as f64, eps)?.unary(Unary::Rsqrt)?;
        self.mul(&factor)?.scale_shift(weight, None, normalized_shape)
    }

    /// The product of the dimensions before `normalized_shape`.
    fn leading_rows(&self, normalized_shape: &[usize], name: &str) -> Result<usize> {
        match self.shape().strip_suffix(normalized_shape) {
            Some(lead) if !normalized_shape.is_empty() => Ok(lead.iter().product()),
            _ => Err(Error::Shape(format!("{name}: the last dimensions of {} are not {normalized_shape:?}", self.shape()))),
        }
    }

    /// Normalises `num_groups` groups of channels of each image of `[N, C, ..]`; weight and bias are `[C]` (Wu and He 2018, arXiv:1803.08494).
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) unless `num_groups` divides the channels.
    pub fn group_norm(&self, num_groups: usize, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
        let &[n, c, ..] = &self.shape()[..] else {
            return Err(Error::Shape(format!("group_norm expects [N, C, ..], got {}", self.shape())));
        };
        if num_groups == 0 || c % num_groups != 0 {
            return Err(Error::Shape(format!("group_norm: {c} channels do not divide into {num_groups} groups")));
        }
        let mut channels = vec![1; self.shape().rank() - 1];
        channels[0] = c;
        self.standardize(n * num_groups, eps)?.scale_shift(weight, bias, &channels)
    }

    /// Normalises each channel of each image of `[N, C, ..]` with its own statistics; weight and bias are `[C]` (Ulyanov et al. 2016,
    /// arXiv:1607.08022).
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) unless there are at least two dimensions.
    pub fn instance_norm(&self, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Tensor> {
        self.group_norm(self.shape().get(1).copied().unwrap_or(0), weight, bias, eps)
    }

    /// `x / (k + alpha / size sum x^2)^beta`, the sum over `size` neighbouring channels of `[N, C, ..]`, which begin `size / 2` before the own
    /// (Krizhevsky et al. 2012).
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) unless there are at least two dimensions and `size` is at least 1.
    pub fn local_response_norm(&self, size: usize, alpha: f64, beta: f64, k: f64) -> Result<Tensor> {
        let &[n, c, ..] = &self.shape()[..] else {
            return Err(Error::Shape(format!("local_response_norm expects [N, C, ..], got {}", self.shape())));
        };
        if size == 0 {
            return Err(Error::Shape("local_response_norm: size must be at least 1".into()));
        }
        // Channels as the rows of one plane an image, and the window's mean down them.
        let pixels: usize = self.shape()[2..].iter().product();
        let before = (size / 2) as i64;
        let squares = self.unary(Unary::Square)?.reshape(&[n, 1, c, pixels])?.pad(&[0, 0, before, size as i64 - 1 - before], 0.0)?;
        let window = Pool2dOptions { kernel_size: [size, 1], stride: [1, 1], ..Pool2dOptions::new(1) };
        let mean = squares.avg_pool2d(AvgPool2dOptions { window, count_include_pad: true, divisor_override: None })?;
        self.mul(&mean.affine(alpha, k)?.powf(-beta)?.reshape(self.shape())?)
    }
}

pub(super) fn saves(op: &Norm) -> Saves {
    // Behind a ReLU the bias, of a residual block y: see [`Norm::BatchNormBackward`].
    match (op, op.after()) {
        (Norm::BatchNorm { .. }, After::Nothing) => (&[0, 1], &[1, 2]),
        (Norm::BatchNorm { .. }, After::Relu { .. }) => (&[0, 1, 2], &[1, 2]),
        (Norm::BatchNorm { .. }, After::AddRelu) => (&[0, 1], &[0, 1, 2]),
        (Norm::BatchNormEval { .. }, After::Nothing) => (&[0, 1, 3], &[1]),
        (Norm::BatchNormEval { .. }, After::Relu { .. }) => (&[0, 1, 2, 3], &[1]),
        (Norm::BatchNormEval { .. }, After::AddRelu) => (&[0, 1, 3], &[0, 1]),
        (Norm::BatchNormBackward { .. }, _) => (&[], &[]),
    }
}

pub(super) fn vjp(op: &Norm, r: &Recorded, dy: &Tensor, grads: &mut Grads) -> Result<()> {
    let (training, mean, invstd) = match op {
        Norm::BatchNorm { .. } => (true, r.output(1)?, r.output(2)?),
        Norm::BatchNormEval { .. } => (false, r.input(3)?, r.output(1)?),
        Norm::BatchNormBackward { .. } => return Err(no_gradient(&(*op).into())),
    };
    let after = op.after();
    let backward = Norm::BatchNormBackward { training, after };
    let inputs = [r.input(0)?, dy, r.input(1)?, mean, invstd];
    match after {
        After::Nothing => grads.op(&[0, 1, 2], backward, &inputs),
        After::Relu { .. } => grads.op(&[0, 1, 2], backward, &[&inputs[..], &[r.input(2)?]].concat()),
        After::AddRelu => grads.op(&[0, 1, 2, r.inputs() - 1], backward, &[&inputs[..], &[r.output(0)?]].concat()),
    }
}
