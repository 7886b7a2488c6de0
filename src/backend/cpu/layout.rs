//! Copies that move elements. All but index selection are one strided copy.

use super::fast::{self, for_each};
use super::{Args, in_parallel, outputs};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::layout::StridedCopy;
use crate::op::{Layout, Rows};
use crate::shape::Shape;

/// Performs a strided copy, on all threads where the parts of its first dimension lie one after the other in `y`.
fn copy<E: Copy + Send + Sync>(plan: &StridedCopy, x: &[E], y: &mut [E]) {
    // Several for each thread, since some are slower than others.
    const PARTS: usize = 64;
    let part_len = 1 + plan.sizes.iter().zip(&plan.to).skip(1).map(|(&size, stride)| (size as i64 - 1) * stride).sum::<i64>();
    let one_after_the_other = plan.to.iter().all(|&stride| stride >= 0) && part_len <= plan.to[0];
    if plan.sizes.contains(&0) || !one_after_the_other || !in_parallel() {
        return copy_part(plan, x, y);
    }
    let each = plan.sizes[0].div_ceil(PARTS);
    let parts = y[plan.to_offset..].chunks_mut(each * plan.to[0] as usize).take(plan.sizes[0].div_ceil(each));
    for_each(parts.enumerate().collect(), |(i, y): (usize, &mut [E])| {
        let first = i * each;
        let mut sizes = plan.sizes.clone();
        sizes[0] = each.min(sizes[0] - first);
        let from_offset = (plan.from_offset as i64 + first as i64 * plan.from[0]) as usize;
        copy_part(&StridedCopy { sizes, from: plan.from.clone(), from_offset, to: plan.to.clone(), to_offset: 0 }, x, y);
    });
}

/// Performs a strided copy on this thread.
fn copy_part<E: Copy>(plan: &StridedCopy, x: &[E], y: &mut [E]) {
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
                    fast::fill(outputs::<T, 1>(&mut args.outs)[0], T::from_f64(value));
                } else {
                    fast::fill(outputs::<u32, 1>(&mut args.outs)[0], value as i64 as u32);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::op::Op;
    use crate::shape::Spec;

    #[test]
    fn copies_on_several_threads_are_those_on_one() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let shape = |dims: &[usize]| Shape::new(dims).unwrap();
        let ops = [
            (vec![shape(&[150, 4, 5])], Layout::Permute { dims: vec![1, 2, 0] }),
            (vec![shape(&[150, 4, 5])], Layout::Permute { dims: vec![0, 2, 1] }),
            (vec![shape(&[150, 4, 5])], Layout::Slice { starts: vec![149, 0, 1], steps: vec![-2, 1, 2], sizes: vec![70, 3, 2] }),
            (
                vec![shape(&[70, 3, 2])],
                Layout::SliceBackward { starts: vec![149, 0, 1], steps: vec![-2, 1, 2], shape: shape(&[150, 4, 5]) },
            ),
            (vec![shape(&[70, 3, 2])], Layout::SliceBackward { starts: vec![3, 0, 1], steps: vec![2, 1, 2], shape: shape(&[150, 4, 5]) }),
            (vec![shape(&[70, 3, 2])], Layout::Pad { before: vec![1, 0, 2], after: vec![0, 3, 1], value: 7.0 }),
            (vec![shape(&[9, 2, 5]), shape(&[9, 70, 5])], Layout::Concat { dim: 1 }),
            (vec![shape(&[70, 1, 2])], Layout::Expand { shape: shape(&[70, 3, 2]) }),
            (vec![shape(&[1000])], Layout::Permute { dims: vec![0] }),
            (vec![shape(&[0, 3])], Layout::Permute { dims: vec![1, 0] }),
        ];
        for (inputs, op) in ops {
            let specs: Vec<Spec> = inputs.iter().map(|&shape| Spec::new(shape, DType::F32)).collect();
            let output = Op::from(op.clone()).infer(&specs).unwrap()[0].shape;
            for input in 0..inputs.len() {
                let plan = StridedCopy::new(&op, &inputs, &output, input).unwrap();
                let x: Vec<u32> = (1..=inputs[input].len() as u32).collect();
                let (mut alone, mut together) = (vec![0; output.len()], vec![0; output.len()]);
                copy_part(&plan, &x, &mut alone);
                pool.install(|| copy(&plan, &x, &mut together));
                assert_eq!(alone, together, "{op:?}");
            }
        }
    }
}
