//! Steps of recurrent nets: the definition, and loops that vectorise over the hidden values.

use super::fast::{sigmoid as fast_sigmoid, tanh, vectorized};
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

/// The `N` parts of `h` values of row `row`.
fn parts<const N: usize>(values: &[f32], row: usize, h: usize) -> [&[f32]; N] {
    std::array::from_fn(|k| &values[(row * N + k) * h..][..h])
}

/// As [`parts`].
fn parts_mut<const N: usize>(values: &mut [f32], row: usize, h: usize) -> [&mut [f32]; N] {
    let mut parts = values[row * N * h..(row + 1) * N * h].chunks_exact_mut(h.max(1));
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

/// [`run`] in f32, a row of hidden values at a time.
pub(super) fn run_fast(op: &Recurrent, args: &mut Args) -> Result<()> {
    let operands: Vec<&[f32]> = args.ins.iter().map(|bytes| bytemuck::cast_slice(bytes)).collect();
    let state = match op {
        Recurrent::Lstm | Recurrent::Gru => args.specs[2].shape,
        Recurrent::LstmBackward | Recurrent::GruBackward => args.specs[1].shape,
    };
    let (rows, h) = (state[state.rank() - 2], state[state.rank() - 1]);
    let all = rows * h;
    match op {
        Recurrent::Lstm => {
            let [next, act] = outputs::<f32, 2>(&mut args.outs);
            let (next_h, next_c) = next.split_at_mut(all);
            for row in 0..rows {
                let (x, g) = (parts::<4>(operands[0], row, h), parts::<4>(operands[1], row, h));
                let c = &operands[2][all + row * h..][..h];
                let [input, forget, cell, output] = parts_mut::<4>(act, row, h);
                let (next_h, next_c) = (&mut next_h[row * h..][..h], &mut next_c[row * h..][..h]);
                vectorized(
                    #[inline(always)]
                    || {
                        // Slices of one length, so that the loop has no checks and vectorises.
                        let (x, g, c) = (x.map(|part| &part[..h]), g.map(|part| &part[..h]), &c[..h]);
                        let (input, forget, cell, output) = (&mut input[..h], &mut forget[..h], &mut cell[..h], &mut output[..h]);
                        let (next_h, next_c) = (&mut next_h[..h], &mut next_c[..h]);
                        for j in 0..h {
                            let gates = [
                                fast_sigmoid(x[0][j] + g[0][j]),
                                fast_sigmoid(x[1][j] + g[1][j]),
                                tanh(x[2][j] + g[2][j]),
                                fast_sigmoid(x[3][j] + g[3][j]),
                            ];
                            let c = gates[1] * c[j] + gates[0] * gates[2];
                            (next_h[j], next_c[j]) = (gates[3] * tanh(c), c);
                            (input[j], forget[j], cell[j], output[j]) = (gates[0], gates[1], gates[2], gates[3]);
                        }
                    },
                );
            }
        }
        Recurrent::LstmBackward => {
            let [dgates, dstate] = outputs::<f32, 2>(&mut args.outs);
            let (dstate_h, dstate_c) = dstate.split_at_mut(all);
            dstate_h.fill(0.0);
            for row in 0..rows {
                let [input, forget, cell, output] = parts::<4>(operands[0], row, h);
                let c = &operands[1][all + row * h..][..h];
                let next_c = &operands[2][all + row * h..][..h];
                let (dh, dc) = (&operands[3][row * h..][..h], &operands[3][all + row * h..][..h]);
                let [d_input, d_forget, d_cell, d_output] = parts_mut::<4>(dgates, row, h);
                let d_c = &mut dstate_c[row * h..][..h];
                vectorized(
                    #[inline(always)]
                    || {
                        let (input, forget, cell, output) = (&input[..h], &forget[..h], &cell[..h], &output[..h]);
                        let (c, next_c, dh, dc) = (&c[..h], &next_c[..h], &dh[..h], &dc[..h]);
                        let (d_input, d_forget, d_cell, d_output) =
                            (&mut d_input[..h], &mut d_forget[..h], &mut d_cell[..h], &mut d_output[..h]);
                        let d_c = &mut d_c[..h];
                        for j in 0..h {
                            let t = tanh(next_c[j]);
                            let dc = dc[j] + dh[j] * output[j] * (1.0 - t * t);
                            d_input[j] = dc * cell[j] * input[j] * (1.0 - input[j]);
                            d_forget[j] = dc * c[j] * forget[j] * (1.0 - forget[j]);
                            d_cell[j] = dc * input[j] * (1.0 - cell[j] * cell[j]);
                            d_output[j] = dh[j] * t * output[j] * (1.0 - output[j]);
                            d_c[j] = dc * forget[j];
                        }
                    },
                );
            }
        }
        Recurrent::Gru => {
            let [next, act] = outputs::<f32, 2>(&mut args.outs);
            for row in 0..rows {
                let (x, g) = (parts::<3>(operands[0], row, h), parts::<3>(operands[1], row, h));
                let before = &operands[2][row * h..][..h];
                let [reset, update, new, hidden] = parts_mut::<4>(act, row, h);
                let next = &mut next[row * h..][..h];
                vectorized(
                    #[inline(always)]
                    || {
                        let (x, g, before, next) = (x.map(|part| &part[..h]), g.map(|part| &part[..h]), &before[..h], &mut next[..h]);
                        let (reset, update, new, hidden) = (&mut reset[..h], &mut update[..h], &mut new[..h], &mut hidden[..h]);
                        for j in 0..h {
                            let (r, z) = (fast_sigmoid(x[0][j] + g[0][j]), fast_sigmoid(x[1][j] + g[1][j]));
                            let n = tanh(x[2][j] + r * g[2][j]);
                            next[j] = (1.0 - z) * n + z * before[j];
                            (reset[j], update[j], new[j], hidden[j]) = (r, z, n, g[2][j]);
                        }
                    },
                );
            }
        }
        Recurrent::GruBackward => {
            let [dx, dhidden, direct] = outputs::<f32, 3>(&mut args.outs);
            for row in 0..rows {
                let [r, z, n, hidden] = parts::<4>(operands[0], row, h);
                let (before, dh) = (&operands[1][row * h..][..h], &operands[2][row * h..][..h]);
                let ([dx_r, dx_z, dx_n], [dh_r, dh_z, dh_n]) = (parts_mut::<3>(dx, row, h), parts_mut::<3>(dhidden, row, h));
                let direct = &mut direct[row * h..][..h];
                vectorized(
                    #[inline(always)]
                    || {
                        for j in 0..h {
                            let dn = dh[j] * (1.0 - z[j]) * (1.0 - n[j] * n[j]);
                            let dr = dn * hidden[j] * r[j] * (1.0 - r[j]);
                            let dz = dh[j] * (before[j] - n[j]) * z[j] * (1.0 - z[j]);
                            (dx_r[j], dx_z[j], dx_n[j]) = (dr, dz, dn);
                            (dh_r[j], dh_z[j], dh_n[j]) = (dr, dz, dn * r[j]);
                            direct[j] = dh[j] * z[j];
                        }
                    },
                );
            }
        }
    }
    Ok(())
}
