//! Tile sizes of `shaders/shared/tile.wgsl` and `shaders/shared/lanes.wgsl`.

use super::{Kernel, Limits};
use crate::backend::Product;

/// How a workgroup shares out a product.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tile {
    /// `wy*tm` rows and `wx*tn` columns, `tk` terms at a time staged in workgroup memory.
    Staged { tm: u32, tn: u32, wx: u32, wy: u32, tk: u32 },
    /// `tm` rows and `8*tn` columns, by one subgroup of eight lanes; `four` columns at a time where they lie side by side.
    Lanes { tm: u32, tn: u32, four: bool },
}

impl Tile {
    /// A tile for a result of `rows` x `cols`. All fit WebGPU's default limits: 256 invocations, 16 KiB of workgroup memory.
    /// `side_by_side` says that neighbouring columns of the right matrix are neighbours in memory, in whole vectors of four.
    pub fn choose(rows: usize, cols: usize, side_by_side: bool, limits: &Limits) -> Tile {
        if limits.kernels.product == Product::Lanes {
            return Tile::lanes(rows, cols, side_by_side);
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
    fn lanes(rows: usize, cols: usize, side_by_side: bool) -> Tile {
        let tm = match rows {
            0..=4 => rows.max(1) as u32,
            5..=8 => 8,
            _ => 16,
        };
        let tn = (cols.div_ceil(8) as u32).next_power_of_two().min(8);
        Tile::Lanes { tm, tn, four: side_by_side && tn >= 4 }
    }

    pub fn rows(&self) -> u32 {
        match *self {
            Tile::Staged { tm, wy, .. } => tm * wy,
            Tile::Lanes { tm, .. } => tm,
        }
    }

    pub fn cols(&self) -> u32 {
        match *self {
            Tile::Staged { tn, wx, .. } => tn * wx,
            Tile::Lanes { tn, .. } => 8 * tn,
        }
    }

    /// The kernel with this tile. `along_k` says of both matrices whether it is contiguous along the sum.
    pub fn apply(&self, mut kernel: Kernel, along_k: [bool; 2]) -> Kernel {
        match *self {
            Tile::Staged { tm, tn, wx, wy, tk } => kernel
                .spec("TM", tm)
                .spec("TN", tn)
                .spec("WX", wx)
                .spec("WY", wy)
                .spec("TK", tk)
                .constant("A_ALONG_K", along_k[0] as u32)
                .constant("B_ALONG_K", along_k[1] as u32),
            Tile::Lanes { tm, tn, four } => {
                kernel.variant.lanes = true;
                kernel.variant.four = four;
                kernel.spec("TM", tm).spec("TN", tn)
            }
        }
    }
}
