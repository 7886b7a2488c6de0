//! Steps of recurrent nets.

use super::{Args, outputs};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::Recurrent;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(super) fn run<T: Real>(op: &Recurrent, args: &mut Args) -> Result<()> {
    let operands: Vec<&[T]> = args.ins.iter().map(|bytes| bytemuck::cast_slice(bytes)).collect();
    let state = match op {
        Recurrent::Lstm | Recurrent::Gru => args.specs[2].shape,
        Recurrent::LstmBackward | Recurrent::GruBackward => args.specs[1].shape,
    };
    let h = state[state.rank() - 1];
    let all = state[state.rank() - 2] * h;
    // Element k of hidden value `i` of `count` in a row.
    let gate = |i: usize, k: usize, count: usize| (i / h * count + k) * h + i % h;
    let at = |operand: usize, i: usize| operands[operand][i].to_f64();
    match op {
        Recurrent::Lstm => {
            let [next, act] = outputs::<T, 2>(&mut args.outs);
            for i in 0..all {
                let sum = |k: usize| at(0, gate(i, k, 4)) + at(1, gate(i, k, 4));
                let gates = [sigmoid(sum(0)), sigmoid(sum(1)), sum(2).tanh(), sigmoid(sum(3))];
                let c = gates[1] * at(2, all + i) + gates[0] * gates[2];
                next[i] = T::from_f64(gates[3] * c.tanh());
                next[all + i] = T::from_f64(c);
                (0..4).for_each(|k| act[gate(i, k, 4)] = T::from_f64(gates[k]));
            }
        }
        Recurrent::LstmBackward => {
            let [dgates, dstate] = outputs::<T, 2>(&mut args.outs);
            for i in 0..all {
                let [input, forget, cell, output] = [0, 1, 2, 3].map(|k| at(0, gate(i, k, 4)));
                let t = at(2, all + i).tanh();
                let dh = at(3, i);
                let dc = at(3, all + i) + dh * output * (1.0 - t * t);
                let grads = [
                    dc * cell * input * (1.0 - input),
                    dc * at(1, all + i) * forget * (1.0 - forget),
                    dc * input * (1.0 - cell * cell),
                    dh * t * output * (1.0 - output),
                ];
                (0..4).for_each(|k| dgates[gate(i, k, 4)] = T::from_f64(grads[k]));
                dstate[i] = T::from_f64(0.0);
                dstate[all + i] = T::from_f64(dc * forget);
            }
        }
        Recurrent::Gru => {
            let [next, act] = outputs::<T, 2>(&mut args.outs);
            for i in 0..all {
                let (x, hidden) = (|k: usize| at(0, gate(i, k, 3)), |k: usize| at(1, gate(i, k, 3)));
                let (r, z) = (sigmoid(x(0) + hidden(0)), sigmoid(x(1) + hidden(1)));
                let n = (x(2) + r * hidden(2)).tanh();
                next[i] = T::from_f64((1.0 - z) * n + z * at(2, i));
                for (k, value) in [r, z, n, hidden(2)].into_iter().enumerate() {
                    act[gate(i, k, 4)] = T::from_f64(value);
                }
            }
        }
        Recurrent::GruBackward => {
            let [dx, dhidden, direct] = outputs::<T, 3>(&mut args.outs);
            for i in 0..all {
                let [r, z, n, hidden] = [0, 1, 2, 3].map(|k| at(0, gate(i, k, 4)));
                let dh = at(2, i);
                let dn = dh * (1.0 - z) * (1.0 - n * n);
                let (dr, dz) = (dn * hidden * r * (1.0 - r), dh * (at(1, i) - n) * z * (1.0 - z));
                for (k, (x, own)) in [(dr, dr), (dz, dz), (dn, dn * r)].into_iter().enumerate() {
                    dx[gate(i, k, 3)] = T::from_f64(x);
                    dhidden[gate(i, k, 3)] = T::from_f64(own);
                }
                direct[i] = T::from_f64(dh * z);
            }
        }
    }
    Ok(())
}
