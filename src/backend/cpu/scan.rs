//! Cumulative sums and the largest elements along a dimension.

use super::Args;
use crate::dtype::Real;
use crate::error::Result;
use crate::op::{Rows, Scan};
use std::cmp::Ordering;

pub(super) fn run<T: Real>(op: &Scan, args: &mut Args) -> Result<()> {
    let x: &[T] = bytemuck::cast_slice(args.ins[0]);
    match *op {
        Scan::Cumsum { dim, reverse } => {
            let rows = Rows::new(&args.specs[0].shape, dim);
            let [y] = super::outputs::<T, 1>(&mut args.outs);
            for row in 0..rows.outer * rows.inner {
                let mut sum = 0.0;
                for step in 0..rows.len {
                    let i = if reverse { rows.len - 1 - step } else { step };
                    let at = (row / rows.inner * rows.len + i) * rows.inner + row % rows.inner;
                    sum += x[at].to_f64();
                    y[at] = T::from_f64(sum);
                }
            }
        }
        Scan::TopK { dim, k, largest } => {
            let rows = Rows::new(&args.specs[0].shape, dim);
            let [values, index] = &mut args.outs[..] else { return Ok(()) };
            let (values, index): (&mut [T], &mut [u32]) = (bytemuck::cast_slice_mut(values), bytemuck::cast_slice_mut(index));
            for row in 0..rows.outer * rows.inner {
                let (outer, inner) = (row / rows.inner, row % rows.inner);
                let at = |i: usize| x[(outer * rows.len + i) * rows.inner + inner].to_f64();
                let mut order: Vec<usize> = (0..rows.len).collect();
                // Stable, so that of equal ones the first stays first.
                order.sort_by(|&i, &j| if largest { ascending(at(j), at(i)) } else { ascending(at(i), at(j)) });
                for (place, &i) in order[..k].iter().enumerate() {
                    let to = (outer * k + place) * rows.inner + inner;
                    (values[to], index[to]) = (T::from_f64(at(i)), i as u32);
                }
            }
        }
    }
    Ok(())
}

/// NaN last; zeros of both signs are equal.
fn ascending(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}
