//! One step of a recurrent net: all that is elementwise, in one operation, the products with the weights being matrix products before it; and an LSTM's
//! whole layer, whose steps a backend runs as it likes.

use super::{arity, float};
use crate::error::{Error, Result};
use crate::shape::{Shape, Spec};

/// The family's operations; N sequences, H hidden values, gates in PyTorch's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recurrent {
    /// Hochreiter and Schmidhuber 1997: `(gates_x [N, 4H], gates_h [N, 4H], state [2, N, H]) -> (state, act [N, 4H])`, the state being h and c.
    ///
    /// The sums of the gates are i, f, g, o: `c' = sigmoid(f) c + sigmoid(i) tanh(g)`, `h' = sigmoid(o) tanh(c')`. `act` holds the gates after
    /// their functions, for the gradient.
    Lstm,
    /// `(act, state, state', dstate') -> (dgates [N, 4H], dstate [2, N, H])`; the gradient of both summands of the gates is `dgates`.
    LstmBackward,
    /// Cho et al. 2014: `(gates_x [N, 3H], gates_h [N, 3H], h [N, H]) -> (h', act [N, 4H])`.
    ///
    /// `r = sigmoid(x_r + h_r)`, `z = sigmoid(x_z + h_z)`, `n = tanh(x_n + r h_n)`, `h' = (1 - z) n + z h`. `act` holds r, z, n and `h_n`.
    Gru,
    /// `(act, h, dh') -> (dgates_x [N, 3H], dgates_h [N, 3H], dh [N, H])`, where `dh` is the direct part `z dh'`.
    GruBackward,
    /// All T steps of an LSTM: `(gates_x [T, N, 4H], weight_hh [4H, H], state [2, N, H]) -> (states [T, 2, N, H], act [T, N, 4H])`, each step as
    /// [`Recurrent::Lstm`] with `gates_h = h weight_hh^T`.
    LstmLayer {
        /// From the last step to the first; results stay at their steps.
        reverse: bool,
    },
    /// `(act, weight_hh, state, states, dstates) -> (dgates [T, N, 4H], dstate [2, N, H])`.
    LstmLayerBackward {
        /// As in [`Recurrent::LstmLayer`].
        reverse: bool,
    },
}

impl Recurrent {
    pub(super) fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        float(self, inputs)?;
        if self.is_layer() {
            return self.infer_layer(inputs);
        }
        // The state says N and H.
        let state = match self {
            Recurrent::Lstm | Recurrent::Gru => arity::<3>(self, inputs)?[2],
            Recurrent::LstmBackward => arity::<4>(self, inputs)?[1],
            _ => arity::<3>(self, inputs)?[1],
        };
        let lstm = matches!(self, Recurrent::Lstm | Recurrent::LstmBackward);
        let (n, h) = match (lstm, &state.shape[..]) {
            (true, &[2, n, h]) | (false, &[n, h]) => (n, h),
            _ => {
                let want = if lstm { "[2, N, H]" } else { "[N, H]" };
                return Err(Error::Shape(format!("{self:?}: the state is {want}, got {}", state.shape)));
            }
        };
        let of = |gates: usize| -> Result<Spec> { Ok(Spec::new(Shape::new(&[n, h.saturating_mul(gates)])?, state.dtype)) };
        let (want, results) = match self {
            Recurrent::Lstm => (vec![of(4)?, of(4)?, state], vec![state, of(4)?]),
            Recurrent::LstmBackward => (vec![of(4)?, state, state, state], vec![of(4)?, state]),
            Recurrent::Gru => (vec![of(3)?, of(3)?, state], vec![state, of(4)?]),
            _ => (vec![of(4)?, state, state], vec![of(3)?, of(3)?, state]),
        };
        self.check(&want, inputs)?;
        Ok(results)
    }

    /// That of all steps.
    fn infer_layer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let backward = matches!(self, Recurrent::LstmLayerBackward { .. });
        let (gates, state) = if backward { (arity::<5>(self, inputs)?[0], inputs[2]) } else { (arity::<3>(self, inputs)?[0], inputs[2]) };
        let (&[steps, ..], &[2, n, h]) = (&gates.shape[..], &state.shape[..]) else {
            return Err(Error::Shape(format!(
                "{self:?}: gates are [T, N, 4H] and the state [2, N, H], got {} and {}",
                gates.shape, state.shape
            )));
        };
        if steps == 0 {
            return Err(Error::Shape(format!("{self:?}: there must be at least one step, got {}", gates.shape)));
        }
        let of = |dims: &[usize]| -> Result<Spec> { Ok(Spec::new(Shape::new(dims)?, state.dtype)) };
        let wide = h.saturating_mul(4);
        let (gates, weight, states) = (of(&[steps, n, wide])?, of(&[wide, h])?, of(&[steps, 2, n, h])?);
        let (want, results) = match backward {
            false => (vec![gates, weight, state], vec![states, gates]),
            true => (vec![gates, weight, state, states, states], vec![gates, state]),
        };
        self.check(&want, inputs)?;
        Ok(results)
    }

    fn check(&self, want: &[Spec], inputs: &[Spec]) -> Result<()> {
        if want != inputs {
            let list = |specs: &[Spec]| specs.iter().map(|s| s.shape.to_string()).collect::<Vec<_>>().join(", ");
            return Err(Error::Shape(format!("{self:?}: operands are {}, got {}", list(want), list(inputs))));
        }
        Ok(())
    }

    /// The steps of a layer in the order that they are done, each with the one before it.
    pub(crate) fn order(steps: usize, reverse: bool) -> impl DoubleEndedIterator<Item = (usize, Option<usize>)> {
        (0..steps).map(move |i| if reverse { (steps - 1 - i, (i > 0).then(|| steps - i)) } else { (i, i.checked_sub(1)) })
    }

    /// Whether it is a whole layer, whose work is its matrix products.
    pub(crate) fn is_layer(&self) -> bool {
        matches!(self, Recurrent::LstmLayer { .. } | Recurrent::LstmLayerBackward { .. })
    }

    /// Floating-point operations of a layer's matrix products, for `T N` rows of `H` hidden values; none of a step.
    pub(super) fn products(&self, inputs: &[Spec]) -> Option<u64> {
        self.is_layer().then(|| 2 * (inputs[0].shape.len() * inputs[1].shape[1]) as u64)
    }
}
