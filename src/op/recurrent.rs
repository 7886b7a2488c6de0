//! One step of a recurrent net: all that is elementwise, in one operation. The products with the weights are matrix products before it.

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
}

impl Recurrent {
    pub(super) fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        float(self, inputs)?;
        // The state says N and H.
        let state = match self {
            Recurrent::Lstm | Recurrent::Gru => arity::<3>(self, inputs)?[2],
            Recurrent::LstmBackward => arity::<4>(self, inputs)?[1],
            Recurrent::GruBackward => arity::<3>(self, inputs)?[1],
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
            Recurrent::GruBackward => (vec![of(4)?, state, state], vec![of(3)?, of(3)?, state]),
        };
        if want != inputs {
            let list = |specs: &[Spec]| specs.iter().map(|s| s.shape.to_string()).collect::<Vec<_>>().join(", ");
            return Err(Error::Shape(format!("{self:?}: operands are {}, got {}", list(&want), list(inputs))));
        }
        Ok(results)
    }
}
