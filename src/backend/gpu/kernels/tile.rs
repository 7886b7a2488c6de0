//! Tile sizes of `shaders/shared/tile.wgsl`, `shaders/shared/lanes.wgsl` and `shaders/shared/matrices.wgsl`.

use super::{Kernel, Limits};
use crate::backend::{Class, Product};
use crate::dtype::DType;

/// How a workgroup shares out a product.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tile {
    /// `wy*tm` rows and `wx*tn` columns, `tk` terms at a time staged in workgroup memory.
    Staged { tm: u32, tn: u32, wx: u32, wy: u32, tk: u32 },
    /// `tm` rows and `8*tn` columns, by one subgroup of eight lanes.
    Lanes { tm: u32, tn: u32 },
    /// `gy*tm*side` rows and `gx*tn*side` columns, by `gx*gy` subgroups of so many lanes with cooperative matrices.
    Matrices { side: u32, lanes: u32, tm: u32, tn: u32, gx: u32, gy: u32 },
}

/// How the matrices of a product, left and right, lie in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Whether neighbouring terms are neighbours there.
    pub along_k: [bool; 2],
    /// Whether neighbours come in whole vectors of four, in every line of the matrix and part of the sum.
    pub vectors: [bool; 2],
}

impl Tile {
    /// A tile for a result of `rows` x `cols`, of operands with this type. All but those of cooperative matrices fit WebGPU's default limits: 256 invocations,
    /// 16 KiB of workgroup memory.
    pub fn choose(rows: usize, cols: usize, dtype: DType, limits: &Limits) -> Tile {
        match (limits.kernels.product_of(dtype), limits.kernels.class) {
            (Product::Matrices, Class::Gpu { lanes, .. }) => return Tile::matrices(rows, cols, limits.kernels.matrices, lanes),
            (Product::Lanes, _) => return Tile::lanes(rows, cols),
            _ => {}
        }
        let (tm, tn, wx, wy, tk) = match (rows, cols) {
            // Few rows (output channels of a first layer, small batches): wide tiles waste less.
            (0..=16, _) => (4, 4, 32, 4, 8),
            (_, 0..=16) => (4, 4, 4, 32, 8),
            (0..=32, _) | (_, 0..=32) => (4, 4, 8, 8, 16),
            // Each number that is fetched serves 128 multiplications, not 64: where there are tiles enough for the largest GPUs, no emptier ones.
            _ if rows.div_ceil(128) * cols.div_ceil(128) >= 256 && [rows, cols].iter().all(|size| size.div_ceil(64).is_multiple_of(2)) => {
                (8, 8, 16, 16, 8)
            }
            _ => (8, 8, 8, 8, 16),
        };
        Tile::Staged { tm, tn, wx, wy, tk }
    }

    /// 128 sums a lane at most.
    fn lanes(rows: usize, cols: usize) -> Tile {
        let tm = match rows {
            0..=4 => rows.max(1) as u32,
            5..=8 => 8,
            _ => 16,
        };
        let tn = (cols.div_ceil(8) as u32).next_power_of_two().min(8);
        Tile::Lanes { tm, tn }
    }

    /// The larger, the fewer loads a multiplication: 128 rows and columns where a matrix has a side of 16, as far as the result fills them.
    fn matrices(rows: usize, cols: usize, side: u32, lanes: u32) -> Tile {
        let few = 2 * side as usize;
        let (tm, tn, gx, gy) = match (rows, cols) {
            _ if rows <= few => (2, 2, 8, 1),
            _ if cols <= few => (2, 2, 1, 8),
            // As for the staged tiles: enough of them for the largest GPUs first.
            _ if rows.div_ceil(4 * few) * cols.div_ceil(4 * few) < 256 => (2, 2, 2, 2),
            _ => (2, 4, 2, 4),
        };
        Tile::Matrices { side, lanes, tm, tn, gx, gy }
    }

    pub fn rows(&self) -> u32 {
        match *self {
            Tile::Matrices { side, tm, gy, .. } => gy * tm * side,
            Tile::Staged { tm, wy, .. } => tm * wy,
            Tile::Lanes { tm, .. } => tm,
        }
    }

    pub fn cols(&self) -> u32 {
        match *self {
            Tile::Matrices { side, tn, gx, .. } => gx * tn * side,
            Tile::Staged { tn, wx, .. } => tn * wx,
            Tile::Lanes { tn, .. } => 8 * tn,
        }
    }

    /// The kernel with this tile.
    pub fn apply(&self, mut kernel: Kernel, Layout { along_k, vectors }: Layout) -> Kernel {
        // Four terms at a time; the lanes take four columns of the right matrix where they do not take terms of both.
        let left = along_k[0] && vectors[0];
        let right = if let Tile::Lanes { tn, .. } = *self { if along_k[1] { left } else { tn >= 4 } } else { along_k[1] };
        kernel.variant.four = [left, right && vectors[1]];
        match *self {
            Tile::Staged { tm, tn, wx, wy, tk } => {
                staged(kernel.spec("TM", tm).spec("TN", tn).spec("WX", wx).spec("WY", wy).spec("TK", tk), along_k)
            }
            Tile::Matrices { side, lanes, tm, tn, gx, gy } => {
                kernel.variant.matrices = side;
                let kernel = kernel.spec("SIDE", side).spec("LANES", lanes);
                staged(kernel.spec("TM", tm).spec("TN", tn).spec("GX", gx).spec("GY", gy), along_k)
            }
            Tile::Lanes { tm, tn } => {
                kernel.variant.lanes = true;
                let terms = along_k[1] && kernel.variant.four[1];
                kernel.spec("TM", tm).spec("TN", tn).constant("B_ALONG_K", terms as u32)
            }
        }
    }
}

fn staged(kernel: Kernel, along_k: [bool; 2]) -> Kernel {
    kernel.constant("A_ALONG_K", along_k[0] as u32).constant("B_ALONG_K", along_k[1] as u32)
}
