//! Steps of recurrent nets: the definition, and loops that vectorise over the hidden values.

use super::fast::{sigmoid as fast_sigmoid, tanh, vectorized};
use super::matmul::{Strides, serial_sgemm};
use super::{Args, outputs};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::Recurrent;

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

pub(super) fn run<T: Real>(op: &Recurrent, args: &mut Args) -> Result<()> {
    if let Recurrent::LstmLayer { reverse } | Recurrent::LstmLayerBackward { reverse } = *op {
        return layer::<T>(op, reverse, args);
    }
    let operands: Vec<&[T]> = args.ins.iter().map(|bytes| bytemuck::cast_slice(bytes)).collect();
    let state = match op {
        Recurrent::Lstm | Recurrent::Gru => args.specs[2].shape,
        _ => args.specs[1].shape,
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
        Recurrent::LstmLayer { .. } | Recurrent::LstmLayerBackward { .. } => {}
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
    match *op {
        Recurrent::LstmLayer { reverse } => return fast_layer(reverse, args),
        Recurrent::LstmLayerBackward { reverse } => return fast_layer_backward(reverse, args),
        _ => {}
    }
    let operands: Vec<&[f32]> = args.ins.iter().map(|bytes| bytemuck::cast_slice(bytes)).collect();
    let state = match op {
        Recurrent::Lstm | Recurrent::Gru => args.specs[2].shape,
        _ => args.specs[1].shape,
    };
    let (rows, h) = (state[state.rank() - 2], state[state.rank() - 1]);
    let all = rows * h;
    match op {
        Recurrent::Lstm => {
            let [next, act] = outputs::<f32, 2>(&mut args.outs);
            let (next_h, next_c) = next.split_at_mut(all);
            for row in 0..rows {
                let (x, g) = (parts::<4>(operands[0], row, h), parts::<4>(operands[1], row, h));
                let act = parts_mut::<4>(act, row, h);
                for ((act, x), g) in act.into_iter().zip(x).zip(g) {
                    act.iter_mut().zip(x).zip(g).for_each(|((act, x), g)| *act = x + g);
                }
            }
            let c = &operands[2][all..];
            (0..rows).for_each(|row| cell(row, h, act, &c[row * h..][..h], &mut next_h[row * h..][..h], &mut next_c[row * h..][..h]));
        }
        Recurrent::LstmBackward => {
            let [dgates, dstate] = outputs::<f32, 2>(&mut args.outs);
            let (dstate_h, dstate_c) = dstate.split_at_mut(all);
            dstate_h.fill(0.0);
            for row in 0..rows {
                let at = |values: &'_ [f32], half: usize| -> std::ops::Range<usize> {
                    debug_assert!(values.len() == 2 * all);
                    half * all + row * h..half * all + (row + 1) * h
                };
                let [state, next, d] = [operands[1], operands[2], operands[3]];
                let (c, next_c, dh) = (&state[at(state, 1)], &next[at(next, 1)], &d[at(d, 0)]);
                let d_c = &mut dstate_c[row * h..][..h];
                d_c.copy_from_slice(&d[at(d, 1)]);
                cell_backward(row, h, operands[0], [c, next_c, dh], dgates, d_c);
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
        Recurrent::LstmLayer { .. } | Recurrent::LstmLayerBackward { .. } => {}
    }
    Ok(())
}

/// One row of [`Recurrent::Lstm`], whose sums of gates lie in `act`, which then holds the gates.
fn cell(row: usize, h: usize, act: &mut [f32], c: &[f32], next_h: &mut [f32], next_c: &mut [f32]) {
    let [input, forget, cell, output] = parts_mut::<4>(act, row, h);
    vectorized(
        #[inline(always)]
        || {
            // Slices of one length, so that the loop has no checks and vectorises.
            let (input, forget, cell, output) = (&mut input[..h], &mut forget[..h], &mut cell[..h], &mut output[..h]);
            let (c, next_h, next_c) = (&c[..h], &mut next_h[..h], &mut next_c[..h]);
            for j in 0..h {
                let gates = [fast_sigmoid(input[j]), fast_sigmoid(forget[j]), tanh(cell[j]), fast_sigmoid(output[j])];
                let c = gates[1] * c[j] + gates[0] * gates[2];
                (next_h[j], next_c[j]) = (gates[3] * tanh(c), c);
                (input[j], forget[j], cell[j], output[j]) = (gates[0], gates[1], gates[2], gates[3]);
            }
        },
    );
}

/// One row of [`Recurrent::LstmBackward`]: `d_c` is the gradient of the cell after the step, then of that before it.
fn cell_backward(row: usize, h: usize, act: &[f32], [c, next_c, dh]: [&[f32]; 3], dgates: &mut [f32], d_c: &mut [f32]) {
    let [input, forget, cell, output] = parts::<4>(act, row, h);
    let [d_input, d_forget, d_cell, d_output] = parts_mut::<4>(dgates, row, h);
    vectorized(
        #[inline(always)]
        || {
            let (input, forget, cell, output) = (&input[..h], &forget[..h], &cell[..h], &output[..h]);
            let (c, next_c, dh, d_c) = (&c[..h], &next_c[..h], &dh[..h], &mut d_c[..h]);
            let (d_input, d_forget, d_cell, d_output) = (&mut d_input[..h], &mut d_forget[..h], &mut d_cell[..h], &mut d_output[..h]);
            for j in 0..h {
                let t = tanh(next_c[j]);
                let dc = d_c[j] + dh[j] * output[j] * (1.0 - t * t);
                d_input[j] = dc * cell[j] * input[j] * (1.0 - input[j]);
                d_forget[j] = dc * c[j] * forget[j] * (1.0 - forget[j]);
                d_cell[j] = dc * input[j] * (1.0 - cell[j] * cell[j]);
                d_output[j] = dh[j] * t * output[j] * (1.0 - output[j]);
                d_c[j] = dc * forget[j];
            }
        },
    );
}

/// T, N and H of a layer.
fn sizes(args: &Args) -> [usize; 3] {
    let gates = args.specs[0].shape;
    [gates[0], gates[1], args.specs[1].shape[1]]
}

/// The definition of [`Recurrent::LstmLayer`] and of its gradient: step by step.
fn layer<T: Real>(op: &Recurrent, reverse: bool, args: &mut Args) -> Result<()> {
    let [steps, n, h] = sizes(args);
    let (all, wide) = (n * h, 4 * h);
    let operands: Vec<&[T]> = args.ins.iter().map(|bytes| bytemuck::cast_slice(bytes)).collect();
    let at = |operand: usize, i: usize| operands[operand][i].to_f64();
    if let Recurrent::LstmLayer { .. } = op {
        let [states, act] = outputs::<T, 2>(&mut args.outs);
        for (t, before) in Recurrent::order(steps, reverse) {
            // Hidden value or cell `i` before the step.
            let old = |states: &[T], half: usize, i: usize| match before {
                Some(before) => states[(2 * before + half) * all + i].to_f64(),
                None => at(2, half * all + i),
            };
            for i in 0..all {
                let (row, j) = (i / h, i % h);
                let sum = |k: usize| {
                    let products = (0..h).map(|x| at(1, (k * h + j) * h + x) * old(states, 0, row * h + x));
                    at(0, (t * n + row) * wide + k * h + j) + products.sum::<f64>()
                };
                let gates = [sigmoid(sum(0)), sigmoid(sum(1)), sum(2).tanh(), sigmoid(sum(3))];
                let c = gates[1] * old(states, 1, i) + gates[0] * gates[2];
                states[2 * t * all + i] = T::from_f64(gates[3] * c.tanh());
                states[(2 * t + 1) * all + i] = T::from_f64(c);
                (0..4).for_each(|k| act[(t * n + row) * wide + k * h + j] = T::from_f64(gates[k]));
            }
        }
        return Ok(());
    }
    let [dgates, dstate] = outputs::<T, 2>(&mut args.outs);
    // What the step after passes on to h and c.
    let mut carry = vec![0.0; 2 * all];
    for (t, before) in Recurrent::order(steps, reverse).rev() {
        for i in 0..all {
            let (row, j) = (i / h, i % h);
            let gate = |k: usize| (t * n + row) * wide + k * h + j;
            let [input, forget, cell, output] = [0, 1, 2, 3].map(|k| at(0, gate(k)));
            let old = before.map_or_else(|| at(2, all + i), |before| at(3, (2 * before + 1) * all + i));
            let tangent = at(3, (2 * t + 1) * all + i).tanh();
            let dh = at(4, 2 * t * all + i) + carry[i];
            let dc = at(4, (2 * t + 1) * all + i) + carry[all + i] + dh * output * (1.0 - tangent * tangent);
            let grads = [
                dc * cell * input * (1.0 - input),
                dc * old * forget * (1.0 - forget),
                dc * input * (1.0 - cell * cell),
                dh * tangent * output * (1.0 - output),
            ];
            (0..4).for_each(|k| dgates[gate(k)] = T::from_f64(grads[k]));
            carry[all + i] = dc * forget;
        }
        for i in 0..all {
            let (row, j) = (i / h, i % h);
            carry[i] = (0..wide).map(|k| dgates[(t * n + row) * wide + k].to_f64() * at(1, k * h + j)).sum();
        }
    }
    dstate.iter_mut().zip(carry).for_each(|(d, value)| *d = T::from_f64(value));
    Ok(())
}

/// Rows of a batch that one thread takes through all steps: threads meet once a layer, not once a step.
const ROWS: usize = 32;

/// Values between the rows of the turned weight, which would fall into a few sets of the first-level cache at a distance of a power of two
/// (`train_lstm` 5 % faster in three rounds of five, else the same).
const PAD: usize = 16;

/// The values of every step by blocks of rows, each of `row` values: element `[block][step]`.
fn by_rows(values: &mut [f32], steps: usize, row: usize, n: usize) -> Vec<Vec<&mut [f32]>> {
    let mut blocks: Vec<Vec<&mut [f32]>> = (0..n.div_ceil(ROWS)).map(|_| Vec::with_capacity(steps)).collect();
    for step in values.chunks_exact_mut((n * row).max(1)).take(steps) {
        step.chunks_mut(ROWS * row).zip(&mut blocks).for_each(|(part, block)| block.push(part));
    }
    blocks
}

/// Runs `f` for each block of rows, on the threads that there are.
fn each_block<B: Send>(blocks: Vec<B>, f: impl Fn(usize, B) + Sync) {
    if super::in_parallel() {
        use rayon::prelude::*;
        blocks.into_par_iter().enumerate().for_each(|(i, block)| f(i, block));
    } else {
        blocks.into_iter().enumerate().for_each(|(i, block)| f(i, block));
    }
}

fn fast_layer(reverse: bool, args: &mut Args) -> Result<()> {
    let [steps, n, h] = sizes(args);
    let (all, wide) = (n * h, 4 * h);
    let [gates_x, weight, first]: [&[f32]; 3] = std::array::from_fn(|i| bytemuck::cast_slice(args.ins[i]));
    let [states, act] = outputs::<f32, 2>(&mut args.outs);
    if states.is_empty() {
        return Ok(());
    }
    // Transposed once: the products of all steps then read it as it lies, without packing it again.
    let stride = wide + PAD;
    let mut turned = vec![0.0; h * stride];
    weight.chunks_exact(h).enumerate().for_each(|(k, row)| row.iter().enumerate().for_each(|(x, &w)| turned[x * stride + k] = w));
    // The states of step t are the parts 2 t (h) and 2 t + 1 (c).
    let blocks: Vec<_> = by_rows(states, 2 * steps, h, n).into_iter().zip(by_rows(act, steps, wide, n)).collect();
    each_block(blocks, |block, (mut states, mut act)| {
        let from = block * ROWS;
        let rows = act[0].len() / wide;
        for (t, before) in Recurrent::order(steps, reverse) {
            let gates = &mut *act[t];
            gates.copy_from_slice(&gates_x[(t * n + from) * wide..][..rows * wide]);
            let (mut next_h, mut next_c) = (std::mem::take(&mut states[2 * t]), std::mem::take(&mut states[2 * t + 1]));
            let (old_h, old_c): (&[f32], &[f32]) = match before {
                Some(before) => (states[2 * before], states[2 * before + 1]),
                None => (&first[from * h..][..rows * h], &first[all + from * h..][..rows * h]),
            };
            serial_sgemm([rows, wide, h], old_h, Strides { row: h, col: 1 }, &turned, Strides { row: stride, col: 1 }, gates, true);
            for row in 0..rows {
                let own = row * h..(row + 1) * h;
                cell(row, h, gates, &old_c[own.clone()], &mut next_h[own.clone()], &mut next_c[own]);
            }
            std::mem::swap(&mut states[2 * t], &mut next_h);
            std::mem::swap(&mut states[2 * t + 1], &mut next_c);
        }
    });
    Ok(())
}

fn fast_layer_backward(reverse: bool, args: &mut Args) -> Result<()> {
    let [steps, n, h] = sizes(args);
    let (all, wide) = (n * h, 4 * h);
    let [act, weight, first, states, dstates]: [&[f32]; 5] = std::array::from_fn(|i| bytemuck::cast_slice(args.ins[i]));
    let [dgates, dstate] = outputs::<f32, 2>(&mut args.outs);
    if dstate.is_empty() {
        return Ok(());
    }
    let blocks: Vec<_> = by_rows(dgates, steps, wide, n).into_iter().zip(by_rows(dstate, 2, h, n)).collect();
    each_block(blocks, |block, (mut dgates, mut carry)| {
        let from = block * ROWS;
        let rows = dgates[0].len() / wide;
        let [dh, dc] = &mut carry[..] else { return };
        dh.fill(0.0);
        dc.fill(0.0);
        for (t, before) in Recurrent::order(steps, reverse).rev() {
            let part = |step: usize, half: usize| (2 * step + half) * all + from * h..(2 * step + half) * all + (from + rows) * h;
            dh.iter_mut().zip(&dstates[part(t, 0)]).for_each(|(carry, d)| *carry += d);
            dc.iter_mut().zip(&dstates[part(t, 1)]).for_each(|(carry, d)| *carry += d);
            let old_c = before.map_or_else(|| &first[all + from * h..][..rows * h], |before| &states[part(before, 1)]);
            let next_c = &states[part(t, 1)];
            let gates = &act[(t * n + from) * wide..][..rows * wide];
            for row in 0..rows {
                let own = row * h..(row + 1) * h;
                cell_backward(row, h, gates, [&old_c[own.clone()], &next_c[own.clone()], &dh[own.clone()]], dgates[t], &mut dc[own]);
            }
            serial_sgemm([rows, h, wide], dgates[t], Strides { row: wide, col: 1 }, weight, Strides { row: h, col: 1 }, dh, false);
        }
    });
    Ok(())
}
