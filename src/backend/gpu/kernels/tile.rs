//! Tile sizes of `shaders/shared/tile.wgsl`.

use super::Kernel;

/// A workgroup makes `wy*tm` rows and `wx*tn` columns, staging `tk` terms at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tile {
    tm: u32,
    tn: u32,
    wx: u32,
    wy: u32,
    tk: u32,
}

impl Tile {
    /// A tile for a result of `rows` x `cols`. All fit WebGPU's default limits: 256 invocations, 16 KiB of workgroup memory.
    pub fn choose(rows: usize, cols: usize) -> Tile {
        match (rows, cols) {
            // Few rows (output channels of a first layer, small batches): wide tiles waste less.
            (0..=16, _) => Tile { tm: 4, tn: 4, wx: 32, wy: 4, tk: 8 },
            (_, 0..=16) => Tile { tm: 4, tn: 4, wx: 4, wy: 32, tk: 8 },
            (0..=32, _) | (_, 0..=32) => Tile { tm: 4, tn: 4, wx: 8, wy: 8, tk: 16 },
            _ => Tile { tm: 8, tn: 8, wx: 8, wy: 8, tk: 8 },
        }
    }

    pub fn rows(&self) -> u32 {
        self.tm * self.wy
    }

    pub fn cols(&self) -> u32 {
        self.tn * self.wx
    }

    pub fn apply(&self, kernel: Kernel) -> Kernel {
        kernel.spec("TM", self.tm).spec("TN", self.tn).spec("WX", self.wx).spec("WY", self.wy).spec("TK", self.tk)
    }
}
