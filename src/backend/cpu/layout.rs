//! Copies that move elements. All but index selection are one strided copy.

use super::{Args, outputs};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::layout::StridedCopy;
use crate::op::{Layout, Rows};
use crate::shape::Shape;

/// Performs a strided copy.
fn copy<E: Copy>(plan: &StridedCopy, x: &[E], y: &mut [E]) {
    let count: usize = plan.sizes.iter().product();
    let (last, rank) = (plan.sizes.len() - 1, plan.sizes.len());
    let mut index = vec![0usize; rank];
    let mut done = 0;
    while done < count {
        let at =
            |strides: &[i64], offset: usize| (index.iter().zip(strides).map(|(&i, &s)| i as i64 * s).sum::<i64>() + offset as i64) as usize;
        let (from, to) = (at(&plan.from, plan.from_offset), at(&plan.to, plan.to_offset));
        let n = plan.sizes[last];
        if plan.from[last] == 1 && plan.to[last] == 1 {
            y[to..to + n].copy_from_slice(&x[from..from + n]);
        } else {
            for i in 0..n {
                let step = |start: usize, stride: i64| (start as i64 + i as i64 * stride) as usize;
                y[step(to, plan.to[last])] = x[step(from, plan.from[last])];
            }
        }
        done += n;
        for d in (0..last).rev() {
            index[d] += 1;
            if index[d] < plan.sizes[d] {
                break;
            }
            index[d] = 0;
        }
    }
}

pub(super) fn run<T: Real>(op: &Layout, args: &mut Args) -> Result<()> {
    let shapes: Vec<Shape> = args.specs.iter().map(|s| s.shape).collect();
    let output = args.out_specs[0];
    match *op {
        Layout::IndexSelect { dim } => {
            let (from, to) = (Rows::new(&shapes[0], dim), Rows::new(&output.shape, dim));
            let index: &[i32] = bytemuck::cast_slice(args.ins[1]);
            // Moved as words, whatever they mean; f64 as pairs.
            let width = output.dtype.size() / 4 * to.inner;
            let (x, y): (&[u32], &mut [u32]) = (bytemuck::cast_slice(args.ins[0]), bytemuck::cast_slice_mut(&mut *args.outs[0]));
            for outer in 0..to.outer {
                for (i, &row) in index.iter().enumerate() {
                    let y = &mut y[(outer * to.len + i) * width..][..width];
                    match usize::try_from(row).ok().filter(|&r| r < from.len) {
                        Some(row) => y.copy_from_slice(&x[(outer * from.len + row) * width..][..width]),
                        None => y.fill(0),
                    }
                }
            }
        }
        Layout::IndexAdd { dim, .. } => {
            let (from, to) = (Rows::new(&shapes[0], dim), Rows::new(&output.shape, dim));
            let (dy, index): (&[T], &[i32]) = (bytemuck::cast_slice(args.ins[0]), bytemuck::cast_slice(args.ins[1]));
            let [dx] = outputs::<T, 1>(&mut args.outs);
            let mut sums = vec![0.0; dx.len()];
            for outer in 0..from.outer {
                for (i, &row) in index.iter().enumerate() {
                    let Some(row) = usize::try_from(row).ok().filter(|&r| r < to.len) else { continue };
                    for inner in 0..from.inner {
                        sums[(outer * to.len + row) * to.inner + inner] += dy[(outer * from.len + i) * from.inner + inner].to_f64();
                    }
                }
            }
            dx.iter_mut().zip(sums).for_each(|(dx, sum)| *dx = T::from_f64(sum));
        }
        Layout::Gather { dim } => {
            let index: &[i32] = bytemuck::cast_slice(args.ins[1]);
            let (len, stride) = (shapes[0][dim], shapes[0].strides()[dim]);
            let width = output.dtype.size() / 4;
            let (x, y): (&[u32], &mut [u32]) = (bytemuck::cast_slice(args.ins[0]), bytemuck::cast_slice_mut(&mut *args.outs[0]));
            each_outside(dim, &shapes[1], &shapes[0], |i, at| {
                let y = &mut y[i * width..][..width];
                match usize::try_from(index[i]).ok().filter(|&r| r < len) {
                    Some(row) => y.copy_from_slice(&x[(at + row * stride) * width..][..width]),
                    None => y.fill(0),
                }
            });
        }
        Layout::ScatterAdd { dim, ref shape } => {
            let (dy, index): (&[T], &[i32]) = (bytemuck::cast_slice(args.ins[0]), bytemuck::cast_slice(args.ins[1]));
            let [dx] = outputs::<T, 1>(&mut args.outs);
            let (len, stride) = (shape[dim], shape.strides()[dim]);
            let mut sums = vec![0.0; dx.len()];
            each_outside(dim, &shapes[1], shape, |i, at| {
                if let Some(row) = usize::try_from(index[i]).ok().filter(|&r| r < len) {
                    sums[at + row * stride] += dy[i].to_f64();
                }
            });
            dx.iter_mut().zip(sums).for_each(|(dx, sum)| *dx = T::from_f64(sum));
        }
        _ => {
            if let Some(value) = StridedCopy::background(op) {
                if output.dtype.is_float() {
                    outputs::<T, 1>(&mut args.outs)[0].fill(T::from_f64(value));
                } else {
                    outputs::<u32, 1>(&mut args.outs)[0].fill(value as i64 as u32);
                }
            }
            for input in 0..shapes.len() {
                let Some(plan) = StridedCopy::new(op, &shapes, &output.shape, input) else { continue };
                if output.dtype.size() == 8 {
                    copy::<u64>(&plan, bytemuck::cast_slice(args.ins[input]), bytemuck::cast_slice_mut(&mut *args.outs[0]));
                } else {
                    copy::<u32>(&plan, bytemuck::cast_slice(args.ins[input]), bytemuck::cast_slice_mut(&mut *args.outs[0]));
                }
            }
        }
    }
    Ok(())
}

/// Calls `f` with the number of each element of `index`, and with where the element of `x` with its coordinates but 0 along `dim` lies.
fn each_outside(dim: usize, index: &Shape, x: &Shape, mut f: impl FnMut(usize, usize)) {
    let strides = x.strides();
    for i in 0..index.len() {
        let (mut rest, mut at) = (i, 0);
        for d in (0..index.rank()).rev() {
            at += if d == dim { 0 } else { rest % index[d] * strides[d] };
            rest /= index[d];
        }
        f(i, at);
    }
}
