//! Reductions over any set of dimensions.

use super::fast::{for_each, parts, sum, vectorized};
use super::{Args, outputs};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::{Reduce, ReduceKind};
use crate::shape::{Shape, collapse};

/// A reduction as two index spaces: kept dimensions give the outputs, reduced ones the terms of each.
pub(crate) struct Plan {
    /// Sizes and input strides of the kept dimensions.
    pub kept: (Vec<usize>, Vec<i64>),
    /// Sizes and input strides of the reduced dimensions.
    pub reduced: (Vec<usize>, Vec<i64>),
}

impl Plan {
    pub(crate) fn new(shape: &Shape, dims: &[usize]) -> Self {
        let strides = shape.strides();
        let part = |reduced: bool| {
            let chosen: Vec<usize> = (0..<[usize]>::len(shape)).filter(|d| dims.contains(d) == reduced).collect();
            let sizes: Vec<usize> = chosen.iter().map(|&d| shape[d]).collect();
            let steps: Vec<i64> = chosen.iter().map(|&d| strides[d] as i64).collect();
            let (sizes, mut lists) = collapse(&sizes, &[&steps]);
            (sizes, lists.swap_remove(0))
        };
        Plan { kept: part(false), reduced: part(true) }
    }
}

/// The offset of element `i` of an index space.
fn offset(i: usize, (sizes, strides): &(Vec<usize>, Vec<i64>)) -> usize {
    let (mut rest, mut at) = (i, 0);
    for d in (0..sizes.len()).rev() {
        at += rest % sizes[d] * strides[d] as usize;
        rest /= sizes[d];
    }
    at
}

pub(super) fn run<T: Real>(op: &Reduce, args: &mut Args, fast: bool) -> Result<()> {
    let shape = args.specs[0].shape;
    let plan = Plan::new(&shape, &op.dims);
    let n: usize = op.dims.iter().map(|&d| shape[d]).product();
    let x: &[T] = bytemuck::cast_slice(args.ins[0]);
    if op.is_index() {
        let [y] = outputs::<u32, 1>(&mut args.outs);
        for (i, y) in y.iter_mut().enumerate() {
            let base = offset(i, &plan.kept);
            let at = |j: usize| x[base + offset(j, &plan.reduced)].to_f64();
            let (mut best, mut index) = (at(0), 0);
            for j in 1..n {
                let v = at(j);
                let wins = if op.kind == ReduceKind::ArgMax { v > best } else { v < best };
                if wins || v.is_nan() && !best.is_nan() {
                    (best, index) = (v, j as u32);
                }
            }
            *y = index;
        }
        return Ok(());
    }
    if fast && run_fast(op.kind, n, &plan, args) {
        return Ok(());
    }
    let x: &[T] = bytemuck::cast_slice(args.ins[0]);
    let [y] = outputs::<T, 1>(&mut args.outs);
    let one = |(i, y): (usize, &mut T)| {
        let base = offset(i, &plan.kept);
        *y = T::from_f64(reduce(op.kind, n, |j| x[base + offset(j, &plan.reduced)].to_f64()));
    };
    // Outputs are independent; the sum of each is the reference's own loop, so threads cannot change a bit.
    parts(y, 1, 1, |first, y| (first..).zip(y).for_each(&one));
    Ok(())
}

/// Columns that a thread sums side by side.
const COLUMNS: usize = 256;

/// Sums whose terms, or whose results, lie side by side. False: not one of those.
fn run_fast(kind: ReduceKind, n: usize, plan: &Plan, args: &mut Args) -> bool {
    let [y] = outputs::<f32, 1>(&mut args.outs);
    let x: &[f32] = bytemuck::cast_slice(args.ins[0]);
    let scale = match kind {
        ReduceKind::Sum | ReduceKind::SumSquares => 1.0,
        ReduceKind::Mean => 1.0 / n as f64,
        _ => return false,
    };
    let term = |v: f64| if kind == ReduceKind::SumSquares { v * v } else { v };
    let all_but_last = |(sizes, strides): &(Vec<usize>, Vec<i64>)| {
        let last = sizes.len().saturating_sub(1);
        (sizes[..last].to_vec(), strides[..last].to_vec())
    };
    if let ([.., run], [.., 1]) = (&plan.reduced.0[..], &plan.reduced.1[..]) {
        let outer = all_but_last(&plan.reduced);
        let runs = n / run.max(&1);
        let one = |(i, y): (usize, &mut f32)| {
            let base = offset(i, &plan.kept);
            let sums = (0..runs).map(|j| vectorized(|| sum(&x[base + offset(j, &outer)..][..*run], term)));
            *y = (scale * sums.sum::<f64>()) as f32;
        };
        parts(y, 1, 1, |first, y| (first..).zip(y).for_each(&one));
        return true;
    }
    if let ([.., columns], [.., 1]) = (&plan.kept.0[..], &plan.kept.1[..]) {
        let outer = all_but_last(&plan.kept);
        let mut tasks: Vec<(usize, &mut [f32])> = Vec::new();
        for (i, row) in y.chunks_exact_mut((*columns).max(1)).enumerate() {
            tasks.extend(row.chunks_mut(COLUMNS).enumerate().map(|(part, y)| (offset(i, &outer) + part * COLUMNS, y)));
        }
        let one = |(base, y): (usize, &mut [f32])| {
            let mut sums = [0.0f64; COLUMNS];
            for j in 0..n {
                let row = &x[base + offset(j, &plan.reduced)..][..y.len()];
                vectorized(|| sums.iter_mut().zip(row).for_each(|(sum, &v)| *sum += term(v as f64)));
            }
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y = (scale * sum) as f32);
        };
        for_each(tasks, one);
        return true;
    }
    false
}

fn reduce(kind: ReduceKind, n: usize, x: impl Fn(usize) -> f64) -> f64 {
    let sum = || (0..n).map(&x).sum::<f64>();
    match kind {
        ReduceKind::Sum => sum(),
        ReduceKind::SumSquares => (0..n).map(|j| x(j) * x(j)).sum(),
        ReduceKind::Mean => sum() / n as f64,
        // NaN wins, so that it is not hidden.
        ReduceKind::Min | ReduceKind::ArgMin => (1..n).map(&x).fold(x(0), |best, v| if v < best || v.is_nan() { v } else { best }),
        ReduceKind::Prod => (0..n).map(&x).product(),
        ReduceKind::Max | ReduceKind::ArgMax => (1..n).map(&x).fold(x(0), |best, v| if v > best || v.is_nan() { v } else { best }),
        ReduceKind::Var { correction } => {
            let mean = sum() / n as f64;
            let squares: f64 = (0..n).map(|j| (x(j) - mean).powi(2)).sum();
            squares / (n as f64 - correction as f64).max(0.0)
        }
    }
}
