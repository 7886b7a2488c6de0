//! Copies that move elements: permute, slice, pad, concatenate, expand, select.

use super::arity;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::shape::{Shape, Spec, collapse};

/// The family's operations; lists have one entry a dimension.
#[derive(Debug, Clone, PartialEq)]
pub enum Layout {
    /// Output dimension i is input dimension `dims[i]`.
    Permute {
        /// A permutation of `0..rank`.
        dims: Vec<usize>,
    },
    /// `y[i] = x[starts + i steps]`.
    Slice {
        /// First index.
        starts: Vec<usize>,
        /// Distance of indices, not 0; negative ones walk backwards.
        steps: Vec<isize>,
        /// Output sizes.
        sizes: Vec<usize>,
    },
    /// The gradient of `Slice`: zeros of `shape`, with `dy` at `starts + i steps`.
    SliceBackward {
        /// First index.
        starts: Vec<usize>,
        /// Distance of indices.
        steps: Vec<isize>,
        /// Shape of the slice's input.
        shape: Shape,
    },
    /// Constant padding.
    Pad {
        /// Elements added before each dimension.
        before: Vec<usize>,
        /// Elements added after each dimension.
        after: Vec<usize>,
        /// Their value.
        value: f64,
    },
    /// Any number of tensors joined along `dim`.
    Concat {
        /// The dimension that may differ.
        dim: usize,
    },
    /// Broadcasting to `shape`, written out.
    Expand {
        /// The result's shape.
        shape: Shape,
    },
    /// `(x, index u32 or i32 [n]) -> y`, `y[.., i, ..] = x[.., index[i], ..]`. An index outside the dimension gives zeros.
    IndexSelect {
        /// The dimension selected from.
        dim: usize,
    },
    /// `(dy, index) -> dx`, the gradient of `IndexSelect`: rows of equal index are summed in the order of `index`, without atomics.
    IndexAdd {
        /// The dimension selected from.
        dim: usize,
        /// Its size in the result.
        size: usize,
    },
    /// `(x, index) -> y` of the index's shape (u32 or i32): `y[i0, .., i, ..] = x[i0, .., index[i0, .., i, ..], ..]`, with `i` along `dim`. Sizes of
    /// the index are at most those of `x` in the other dimensions. An index outside the dimension gives 0.
    Gather {
        /// The dimension that is indexed.
        dim: usize,
    },
    /// `(dy, index) -> dx` of `shape`, the gradient of `Gather`: zeros, to which `dx[.., index[.., i, ..], ..] += dy[.., i, ..]`; summed in the
    /// order of `i`, without atomics.
    ScatterAdd {
        /// The dimension that is indexed.
        dim: usize,
        /// Shape of the result.
        shape: Shape,
    },
}

impl Layout {
    pub(super) fn infer(&self, inputs: &[Spec]) -> Result<Vec<Spec>> {
        let rank = |x: &Spec, n: usize| -> Result<()> {
            if <[usize]>::len(&x.shape) != n {
                return Err(Error::Shape(format!(
                    "{self:?} has {n} entries but the input {} has rank {}",
                    x.shape,
                    <[usize]>::len(&x.shape)
                )));
            }
            Ok(())
        };
        let (shape, dtype) = match self {
            Layout::Permute { dims } => {
                let [x] = arity(self, inputs)?;
                rank(&x, dims.len())?;
                let mut sorted = dims.clone();
                sorted.sort_unstable();
                if sorted.iter().enumerate().any(|(i, &d)| i != d) {
                    return Err(Error::Shape(format!("permute: {dims:?} is not a permutation of the dimensions of {}", x.shape)));
                }
                (Shape::new(&dims.iter().map(|&d| x.shape[d]).collect::<Vec<_>>())?, x.dtype)
            }
            Layout::Slice { starts, steps, sizes } => {
                let [x] = arity(self, inputs)?;
                rank(&x, starts.len())?;
                rank(&x, steps.len())?;
                rank(&x, sizes.len())?;
                check_slice(starts, steps, sizes, &x.shape)?;
                (Shape::new(sizes)?, x.dtype)
            }
            Layout::SliceBackward { starts, steps, shape } => {
                let [dy] = arity(self, inputs)?;
                rank(&dy, starts.len())?;
                rank(&dy, steps.len())?;
                rank(&dy, <[usize]>::len(shape))?;
                check_slice(starts, steps, &dy.shape, shape)?;
                (*shape, dy.dtype)
            }
            Layout::Pad { before, after, .. } => {
                let [x] = arity(self, inputs)?;
                rank(&x, before.len())?;
                rank(&x, after.len())?;
                let dims: Vec<usize> =
                    x.shape.iter().zip(before.iter().zip(after)).map(|(d, (b, a))| d.saturating_add(*b).saturating_add(*a)).collect();
                (Shape::new(&dims)?, x.dtype)
            }
            Layout::Concat { dim } => {
                let Some(first) = inputs.first() else {
                    return Err(Error::Shape("concat needs at least one tensor".into()));
                };
                first.shape.dim(*dim as i64, "concat")?;
                let mut dims = first.shape.to_vec();
                dims[*dim] = 0;
                for x in inputs {
                    let fits = <[usize]>::len(&x.shape) == dims.len() && (0..dims.len()).all(|d| d == *dim || x.shape[d] == first.shape[d]);
                    if !fits || x.dtype != first.dtype {
                        return Err(Error::Shape(format!("concat along {dim}: {x} does not fit {first}; all other sizes must be equal")));
                    }
                    dims[*dim] = dims[*dim].saturating_add(x.shape[*dim]);
                }
                (Shape::new(&dims)?, first.dtype)
            }
            Layout::Expand { shape } => {
                let [x] = arity(self, inputs)?;
                if Shape::broadcast(&x.shape, shape, "expand")? != *shape {
                    return Err(Error::Shape(format!("expand: {} does not broadcast to {shape}", x.shape)));
                }
                (*shape, x.dtype)
            }
            Layout::IndexSelect { dim } => {
                let [x, index] = arity(self, inputs)?;
                check_index(&index, "index_select")?;
                let mut dims = x.shape.to_vec();
                dims[x.shape.dim(*dim as i64, "index_select")?] = index.shape[0];
                (Shape::new(&dims)?, x.dtype)
            }
            Layout::IndexAdd { dim, size } => {
                let [dy, index] = arity(self, inputs)?;
                super::float(self, &[dy])?;
                check_index(&index, "index_add")?;
                let mut dims = dy.shape.to_vec();
                let d = dy.shape.dim(*dim as i64, "index_add")?;
                if dims[d] != index.shape[0] {
                    return Err(Error::Shape(format!("index_add: {} rows but {} indices", dims[d], index.shape[0])));
                }
                dims[d] = *size;
                (Shape::new(&dims)?, dy.dtype)
            }
            Layout::Gather { dim } => {
                let [x, index] = arity(self, inputs)?;
                check_gather(&x.shape, &index, *dim, "gather")?;
                (index.shape, x.dtype)
            }
            Layout::ScatterAdd { dim, shape } => {
                let [dy, index] = arity(self, inputs)?;
                super::float(self, &[dy])?;
                check_gather(shape, &index, *dim, "scatter_add")?;
                super::same(self, &dy.shape, &index.shape)?;
                (*shape, dy.dtype)
            }
        };
        Ok(vec![Spec::new(shape, dtype)])
    }
}

fn check_index(index: &Spec, name: &str) -> Result<()> {
    if !matches!(index.dtype, DType::U32 | DType::I32) || <[usize]>::len(&index.shape) != 1 {
        return Err(Error::DType(format!("{name}: indices are u32 or i32 [n], got {index}")));
    }
    Ok(())
}

/// `index` has the sizes of what is gathered, and no dimension but `dim` is longer than in `x`.
fn check_gather(x: &Shape, index: &Spec, dim: usize, name: &str) -> Result<()> {
    if !matches!(index.dtype, DType::U32 | DType::I32) {
        return Err(Error::DType(format!("{name}: indices are u32 or i32, got {index}")));
    }
    x.dim(dim as i64, name)?;
    if x.rank() != index.shape.rank() || (0..x.rank()).any(|d| d != dim && index.shape[d] > x[d]) {
        return Err(Error::Shape(format!(
            "{name} along {dim}: index {} must have the rank of {x}, and no larger size elsewhere",
            index.shape
        )));
    }
    Ok(())
}

fn check_slice(starts: &[usize], steps: &[isize], sizes: &[usize], full: &Shape) -> Result<()> {
    for d in 0..starts.len() {
        let last = sizes[d].checked_sub(1).map(|n| (n as isize).saturating_mul(steps[d]).saturating_add_unsigned(starts[d]));
        let leaves = last.is_some_and(|last| last < 0 || last as usize >= full[d] || starts[d] >= full[d]);
        if steps[d] == 0 || leaves {
            return Err(Error::Shape(format!(
                "slice: start {}, step {}, size {} leave dimension {d} of {full}",
                starts[d], steps[d], sizes[d]
            )));
        }
    }
    Ok(())
}

/// A copy of `sizes` elements from strided positions of the input to strided positions of the output.
pub(crate) struct StridedCopy {
    /// Elements in each dimension.
    pub sizes: Vec<usize>,
    /// Input strides.
    pub from: Vec<i64>,
    /// First input element.
    pub from_offset: usize,
    /// Output strides.
    pub to: Vec<i64>,
    /// First output element.
    pub to_offset: usize,
}

fn signed(strides: Vec<usize>) -> Vec<i64> {
    strides.into_iter().map(|s| s as i64).collect()
}

impl StridedCopy {
    /// The copy of input number `input` that a layout operation consists of. Index selection and gathering are no strided copies: `None`.
    pub(crate) fn new(op: &Layout, inputs: &[Shape], output: &Shape, input: usize) -> Option<Self> {
        let x = &inputs[input];
        let (own, out) = (signed(x.strides()), signed(output.strides()));
        let dot = |starts: &[usize], strides: &[i64]| starts.iter().zip(strides).map(|(&s, &t)| s * t as usize).sum::<usize>();
        let scaled = |steps: &[isize], strides: &[i64]| steps.iter().zip(strides).map(|(&s, &t)| s as i64 * t).collect::<Vec<i64>>();
        let (sizes, from, from_offset, to, to_offset) = match op {
            Layout::Permute { dims } => (output.to_vec(), dims.iter().map(|&d| own[d]).collect(), 0, out, 0),
            Layout::Slice { starts, steps, sizes } => (sizes.clone(), scaled(steps, &own), dot(starts, &own), out, 0),
            Layout::SliceBackward { starts, steps, .. } => {
                let (to, to_offset) = (scaled(steps, &out), dot(starts, &out));
                (x.to_vec(), own, 0, to, to_offset)
            }
            Layout::Pad { before, .. } => {
                let to_offset = dot(before, &out);
                (x.to_vec(), own, 0, out, to_offset)
            }
            Layout::Concat { dim } => {
                let before: usize = inputs[..input].iter().map(|s| s[*dim]).sum();
                let to_offset = before * out[*dim] as usize;
                (x.to_vec(), own, 0, out, to_offset)
            }
            Layout::Expand { shape } => (shape.to_vec(), signed(x.broadcast_strides(shape)), 0, out, 0),
            Layout::IndexSelect { .. } | Layout::IndexAdd { .. } | Layout::Gather { .. } | Layout::ScatterAdd { .. } => return None,
        };
        let (sizes, mut lists) = collapse(&sizes, &[&from, &to]);
        let to = lists.pop()?;
        Some(StridedCopy { sizes, from: lists.pop()?, from_offset, to, to_offset })
    }

    /// What the output holds where nothing is copied to; `None` when the copy covers it.
    pub(crate) fn background(op: &Layout) -> Option<f64> {
        match op {
            Layout::Pad { value, .. } => Some(*value),
            Layout::SliceBackward { .. } => Some(0.0),
            _ => None,
        }
    }
}
