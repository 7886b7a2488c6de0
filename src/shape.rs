//! Shapes, and the few computations on them that every layer needs.

use crate::dtype::DType;
use crate::error::{Error, Result};

/// The largest rank of a tensor.
pub const MAX_RANK: usize = 8;

/// The sizes of a tensor, outermost first; rank 0 is a scalar, a size may be 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// A shape from its sizes.
    ///
    /// # Errors
    /// [`Error::Shape`] above rank 8, or where the number of elements overflows `usize`.
    pub fn new(dims: &[usize]) -> Result<Self> {
        if dims.len() > MAX_RANK {
            return Err(Error::Shape(format!("shape {dims:?} has rank {}, the largest is {MAX_RANK}", dims.len())));
        }
        // Sizes of 0 are left out, so that strides cannot overflow either.
        if dims.iter().filter(|&&d| d > 0).try_fold(8usize, |n, &d| n.checked_mul(d)).is_none() {
            return Err(Error::Shape(format!("shape {dims:?} has more elements than memory can address")));
        }
        let mut own = [1; MAX_RANK];
        own[..dims.len()].copy_from_slice(dims);
        Ok(Shape { dims: own, rank: dims.len() as u8 })
    }

    /// The scalar shape `[]`.
    pub const fn scalar() -> Self {
        Shape { dims: [1; MAX_RANK], rank: 0 }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.iter().product()
    }

    /// True when some size is 0.
    pub fn is_empty(&self) -> bool {
        self.contains(&0)
    }

    /// Row-major strides in elements.
    pub fn strides(&self) -> Vec<usize> {
        let mut strides = vec![1; self.rank()];
        for d in (1..self.rank()).rev() {
            strides[d - 1] = strides[d] * self[d];
        }
        strides
    }

    /// The number of dimensions; `len` is the number of elements.
    pub fn rank(&self) -> usize {
        self.rank as usize
    }

    /// The four sizes of an image batch.
    ///
    /// # Errors
    /// [`Error::Shape`] unless the rank is 4.
    pub fn nchw(&self, op: &str) -> Result<[usize; 4]> {
        <[usize; 4]>::try_from(&self[..]).map_err(|_| Error::Shape(format!("{op} expects [N, C, H, W], got {self} (rank {})", self.rank)))
    }

    /// Resolves a dimension that may be negative (from the end), as in PyTorch.
    ///
    /// # Errors
    /// [`Error::Shape`] when it is out of range.
    pub fn dim(&self, dim: i64, op: &str) -> Result<usize> {
        let rank = self.rank as i64;
        let resolved = if dim < 0 { dim + rank } else { dim };
        if resolved < 0 || resolved >= rank {
            return Err(Error::Shape(format!("{op}: dimension {dim} is out of range for shape {self}")));
        }
        Ok(resolved as usize)
    }

    /// The shape both broadcast to (NumPy's rule).
    ///
    /// # Errors
    /// [`Error::Shape`] when two sizes differ and neither is 1.
    pub fn broadcast(a: &Shape, b: &Shape, op: &str) -> Result<Shape> {
        let rank = a.rank.max(b.rank) as usize;
        let mut dims = vec![1; rank];
        for (i, out) in dims.iter_mut().enumerate() {
            let size = |s: &Shape| if i + s.rank() >= rank { s[i + s.rank() - rank] } else { 1 };
            *out = match (size(a), size(b)) {
                (x, y) if x == y => x,
                (1, y) => y,
                (x, 1) => x,
                (x, y) => {
                    return Err(Error::Shape(format!(
                        "{op}: shapes {a} and {b} do not broadcast: dimension {i} has sizes {x} and {y}; make them equal or 1"
                    )));
                }
            };
        }
        Shape::new(&dims)
    }

    /// Strides with which a tensor of this shape is read as one of shape `to`: 0 along broadcast dimensions.
    pub fn broadcast_strides(&self, to: &Shape) -> Vec<usize> {
        let own = self.strides();
        let lead = to.rank() - self.rank();
        (0..to.rank()).map(|i| if i < lead || self[i - lead] == 1 { 0 } else { own[i - lead] }).collect()
    }
}

impl std::ops::Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.dims[..self.rank as usize]
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", &self[..])
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", &self[..])
    }
}

/// Shape and element type: all that an operation needs to know of an operand to compute its result's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Spec {
    /// The sizes.
    pub shape: Shape,
    /// The element type.
    pub dtype: DType,
}

impl Spec {
    /// A spec from its parts.
    pub fn new(shape: Shape, dtype: DType) -> Self {
        Spec { shape, dtype }
    }

    /// Bytes of the data.
    pub fn len_bytes(&self) -> usize {
        self.shape.len() * self.dtype.size()
    }
}

impl std::fmt::Display for Spec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.dtype, self.shape)
    }
}

/// Drops dimensions of size 1 and merges neighbours that every stride list walks as one; returns the sizes and the lists.
///
/// Kernels then decompose an index over two or three dimensions where the tensors have four. At least one dimension remains.
pub fn collapse(dims: &[usize], strides: &[&[i64]]) -> (Vec<usize>, Vec<Vec<i64>>) {
    let mut sizes: Vec<usize> = Vec::new();
    let mut lists: Vec<Vec<i64>> = vec![Vec::new(); strides.len()];
    for (d, &size) in dims.iter().enumerate() {
        if size == 1 {
            continue;
        }
        let merges =
            !sizes.is_empty() && lists.iter().zip(strides).all(|(list, s)| list.last().is_some_and(|&outer| outer == s[d] * size as i64));
        if merges {
            if let Some(last) = sizes.last_mut() {
                *last *= size;
            }
            for (list, s) in lists.iter_mut().zip(strides) {
                if let Some(last) = list.last_mut() {
                    *last = s[d];
                }
            }
        } else {
            sizes.push(size);
            for (list, s) in lists.iter_mut().zip(strides) {
                list.push(s[d]);
            }
        }
    }
    if sizes.is_empty() {
        sizes.push(1);
        lists.iter_mut().for_each(|l| l.push(0));
    }
    (sizes, lists)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broadcasting_follows_numpy() {
        let s = |d: &[usize]| Shape::new(d).unwrap();
        assert_eq!(Shape::broadcast(&s(&[2, 1, 3]), &s(&[4, 1]), "add").unwrap(), s(&[2, 4, 3]));
        assert_eq!(Shape::broadcast(&s(&[0]), &s(&[1]), "add").unwrap(), s(&[0]));
        let error = Shape::broadcast(&s(&[2, 3]), &s(&[2]), "add").unwrap_err().to_string();
        assert_eq!(error, "add: shapes [2, 3] and [2] do not broadcast: dimension 1 has sizes 3 and 2; make them equal or 1");
        assert_eq!(s(&[4, 1]).broadcast_strides(&s(&[2, 4, 3])), [0, 1, 0]);
    }

    #[test]
    fn collapsing_merges_what_all_lists_walk_as_one() {
        let (dims, lists) = collapse(&[2, 3, 4], &[&[12, 4, 1], &[0, 4, 1]]);
        assert_eq!((dims, lists), (vec![2, 12], vec![vec![12, 1], vec![0, 1]]));
        assert_eq!(collapse(&[1, 1], &[&[5, 5]]), (vec![1], vec![vec![0]]));
    }

    #[test]
    fn shapes_that_overflow_are_refused() {
        assert!(Shape::new(&[usize::MAX, 2]).is_err());
        assert!(Shape::new(&[1; 9]).is_err());
    }
}
