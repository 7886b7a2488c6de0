//! Reductions over any set of dimensions.

use super::{Args, outputs};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::{Reduce, ReduceKind};
use crate::shape::{Shape, collapse};
use rayon::prelude::*;

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
    let [y] = outputs::<T, 1>(&mut args.outs);
    let one = |(i, y): (usize, &mut T)| {
        let base = offset(i, &plan.kept);
        *y = T::from_f64(reduce(op.kind, n, |j| x[base + offset(j, &plan.reduced)].to_f64()));
    };
    // Outputs are independent; the sum of each is the reference's own loop, so threads cannot change a bit.
    if fast && super::in_parallel() {
        y.par_iter_mut().enumerate().for_each(one)
    } else {
        y.iter_mut().enumerate().for_each(one)
    }
    Ok(())
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
