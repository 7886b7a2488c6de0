//! Matrix products: the definition, and `gemm` or [`dots`] for speed.

mod dots;

use super::fast::{clip_all, relu};
use super::{Args, outputs, threads};
use crate::dtype::Real;
use crate::error::Result;
use crate::op::Matmul;
use gemm_common::Parallelism;

/// A matrix inside a slice: element (r, c) is at `r row + c col`.
#[derive(Clone, Copy)]
pub(super) struct Strides {
    pub row: usize,
    pub col: usize,
}

impl Strides {
    fn transposed(self) -> Strides {
        Strides { row: self.col, col: self.row }
    }
}

pub(super) fn run<T: Real>(op: &Matmul, args: &mut Args, fast: bool) -> Result<()> {
    let (sa, sb) = (args.specs[0].shape, args.specs[1].shape);
    let sizes = op.sizes(&sa, &sb)?;
    let (m, n, k) = (sizes.m, sizes.n, sizes.k);
    let lead = |s: &crate::shape::Shape| crate::shape::Shape::new(&s[..<[usize]>::len(s) - 2]);
    let (batch_a, batch_b) = (lead(&sa)?.broadcast_strides(&sizes.batch), lead(&sb)?.broadcast_strides(&sizes.batch));
    let stride_a = if op.transpose_a { Strides { row: 1, col: m } } else { Strides { row: k, col: 1 } };
    let stride_b = if op.transpose_b { Strides { row: 1, col: k } } else { Strides { row: n, col: 1 } };
    let [y] = outputs::<T, 1>(&mut args.outs);
    if y.is_empty() {
        return Ok(());
    }
    let (a, b): (&[T], &[T]) = (bytemuck::cast_slice(args.ins[0]), bytemuck::cast_slice(args.ins[1]));
    let bias: Option<&[T]> = if op.bias { Some(bytemuck::cast_slice(args.ins[2])) } else { None };
    for (i, y) in y.chunks_exact_mut(m * n).enumerate() {
        let (mut rest, mut ia, mut ib) = (i, 0, 0);
        for d in (0..<[usize]>::len(&sizes.batch)).rev() {
            let at = rest % sizes.batch[d];
            rest /= sizes.batch[d];
            ia += at * batch_a[d] * m * k;
            ib += at * batch_b[d] * k * n;
        }
        let (a, b) = (&a[ia..ia + m * k], &b[ib..ib + k * n]);
        if fast {
            let (a, b, y): (&[f32], &[f32], &mut [f32]) = (bytemuck::cast_slice(a), bytemuck::cast_slice(b), bytemuck::cast_slice_mut(y));
            let bias: Option<&[f32]> = bias.map(bytemuck::cast_slice);
            if let Some(bias) = bias {
                y.chunks_exact_mut(n).for_each(|row| row.copy_from_slice(bias));
            }
            sgemm([m, n, k], a, stride_a, b, stride_b, y, bias.is_some());
            if op.relu {
                clip_all(y, [0.0, f32::INFINITY]);
            }
            continue;
        }
        for (r, row) in y.chunks_exact_mut(n).enumerate() {
            for (c, y) in row.iter_mut().enumerate() {
                let mut sum = bias.map_or(0.0, |bias| bias[c].to_f64());
                for j in 0..k {
                    sum += a[r * stride_a.row + j * stride_a.col].to_f64() * b[j * stride_b.row + c * stride_b.col].to_f64();
                }
                *y = T::from_f64(if op.relu { relu(sum) } else { sum });
            }
        }
    }
    Ok(())
}

/// `y [m, n] (+)= a [m, k] b [k, n]` in f32, with [`dots`] or the `gemm-f32` crate, on the threads of the current pool.
pub(super) fn sgemm(sizes: [usize; 3], a: &[f32], sa: Strides, b: &[f32], sb: Strides, y: &mut [f32], add: bool) {
    if sa.col == 1 && sb.row == 1 && dots::pays(sizes) {
        return dots::product(sizes, a, sa.row, b, sb.col, y, add);
    }
    let parallelism = match threads() {
        1 => Parallelism::None,
        threads => Parallelism::Rayon(threads),
    };
    sgemm_with(parallelism, sizes, a, sa, b, sb, y, add);
}

/// As [`sgemm`], on the calling thread.
pub(super) fn serial_sgemm(sizes: [usize; 3], a: &[f32], sa: Strides, b: &[f32], sb: Strides, y: &mut [f32], add: bool) {
    sgemm_with(Parallelism::None, sizes, a, sa, b, sb, y, add);
}

/// As [`sgemm`], with the threads given.
#[allow(clippy::too_many_arguments)] // three matrices with their strides
fn sgemm_with(parallelism: Parallelism, [m, n, k]: [usize; 3], a: &[f32], sa: Strides, b: &[f32], sb: Strides, y: &mut [f32], add: bool) {
    assert!(y.len() >= m * n);
    assert!(m == 0 || k == 0 || a.len() > (m - 1) * sa.row + (k - 1) * sa.col);
    assert!(n == 0 || k == 0 || b.len() > (k - 1) * sb.row + (n - 1) * sb.col);
    // The kernels store columns: y^T = b^T a^T, whose columns are the rows of y. A single column is one already.
    let ([m, n], y_column, (a, sa), (b, sb)) = match n {
        1 => ([m, n], m, (a, sa), (b, sb)),
        _ => ([n, m], n, (b, sb.transposed()), (a, sa.transposed())),
    };
    // SAFETY: the assertions above bound every address of the three matrices; `y` is exclusive and row-major.
    unsafe {
        gemm_f32::gemm::f32::get_gemm_fn()(
            m,
            n,
            k,
            y.as_mut_ptr(),
            y_column as isize,
            1,
            add,
            a.as_ptr(),
            sa.col as isize,
            sa.row as isize,
            b.as_ptr(),
            sb.col as isize,
            sb.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}
