//! Which of several kernels computes an operation: the choices on which the last bits of a result depend, and which one may want to force.

use crate::dtype::DType;
use crate::error::{Error, Result};
use std::fmt;

/// How a GPU shares out a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// Staged in workgroup memory, `shaders/shared/tile.wgsl`: every GPU.
    Tile,
    /// In the registers of subgroups of eight lanes, `shaders/shared/lanes.wgsl`.
    Lanes,
    /// By cooperative matrices, `shaders/shared/matrices.wgsl`.
    Matrices,
}

/// What kind of device the choices are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The CPU.
    Cpu,
    /// A GPU, and what it has for them.
    Gpu {
        /// Lanes of each subgroup; 0 where they differ, or there are none.
        lanes: u32,
        /// The side of its cooperative matrices of f16 with sums in f32; 0 without them.
        matrices: u32,
    },
}

/// The choices. Written as `gpu product=tile filtering=32,32 matrices=0` or `cpu filtering=48,24 pixels=128 columns=8,16`: pairs are for the passes that make planes (forward, the
/// input's gradient) and for the weight's gradient. A run keeps the table that it was made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelTable {
    /// The kind of device.
    pub class: Class,
    /// Of a GPU: how products are shared out, but those that `matrices` is for.
    pub product: Product,
    /// Fewest channels on either side from which 3x3 convolutions with stride 1 go by minimal filtering, F(2x2, 3x3); 0 never.
    pub filtering: [usize; 2],
    /// Of a GPU: side of the cooperative matrices by which products of f16 go, `shaders/shared/matrices.wgsl`; 0 none. Off by itself: measured on no GPU that has
    /// hardware for it.
    pub matrices: u32,
    /// Of the CPU: fewest pixels of results, in all images, from which they do.
    pub pixels: usize,
    /// Of the CPU: strided convolutions are products of columns where a row of results has fewer pixels; 0 never.
    pub columns: [usize; 2],
}

impl KernelTable {
    /// What was measured to be the best on CPUs, see docs/performance.md.
    pub const CPU: KernelTable =
        KernelTable { class: Class::Cpu, product: Product::Tile, filtering: [48, 24], matrices: 0, pixels: 128, columns: [8, 16] };

    /// The same for GPUs, of what they have: see [`Class::Gpu`].
    pub const fn gpu(lanes: u32, matrices: u32) -> KernelTable {
        let product = if lanes == 8 { Product::Lanes } else { Product::Tile };
        KernelTable { class: Class::Gpu { lanes, matrices }, product, filtering: [32, 32], matrices: 0, pixels: 0, columns: [0, 0] }
    }

    /// This table with the choices of `text` in the place of its own. A text that begins with a class is a table that was saved: on a device of another class, or
    /// one that lacks the lanes or matrices which it asks for, the device's own choices hold.
    ///
    /// # Errors
    /// [`Error::Config`] for a word that is no choice of this class, or lanes or matrices that the device lacks.
    pub fn with(self, text: &str) -> Result<KernelTable> {
        let mut words = text.split_whitespace().peekable();
        let saved = words.next_if(|&word| word == "cpu" || word == "gpu");
        if saved.is_some_and(|class| class != self.class.to_string()) {
            return Ok(self);
        }
        let mut table = self;
        for word in words {
            let known = match self.class {
                Class::Cpu => "filtering=N,N, pixels=N and columns=N,N",
                Class::Gpu { .. } => "product=tile, product=lanes, matrices=N and filtering=N,N",
            };
            let place = if saved.is_some() { "kernels of the configuration," } else { "--kernels" };
            let wrong = || Error::Config(format!("{place} {text}: '{word}' is no choice of the {}; there are {known}", self.class));
            let (key, value) = word.split_once('=').ok_or_else(wrong)?;
            let pair = || -> Result<[usize; 2]> {
                let (planes, weights) = value.split_once(',').unwrap_or((value, value));
                Ok([planes.parse().map_err(|_| wrong())?, weights.parse().map_err(|_| wrong())?])
            };
            match (key, value, self.class) {
                ("filtering", ..) => table.filtering = pair()?,
                ("pixels", _, Class::Cpu) => table.pixels = value.parse().map_err(|_| wrong())?,
                ("columns", _, Class::Cpu) => table.columns = pair()?,
                ("product", "tile", Class::Gpu { .. }) => table.product = Product::Tile,
                ("product", "lanes", Class::Gpu { lanes: 8, .. }) => table.product = Product::Lanes,
                ("product", "lanes", Class::Gpu { .. }) if saved.is_some() => return Ok(self),
                ("product", "lanes", Class::Gpu { .. }) => {
                    return Err(Error::Config(format!("--kernels {text}: this device has no subgroups of eight lanes; use product=tile")));
                }
                ("matrices", _, Class::Gpu { matrices, .. }) => {
                    table.matrices = value.parse().map_err(|_| wrong())?;
                    if ![0, matrices].contains(&table.matrices) {
                        if saved.is_some() {
                            return Ok(self);
                        }
                        let has = if matrices == 0 { "none".to_owned() } else { format!("them with matrices={matrices}") };
                        return Err(Error::Config(format!(
                            "--kernels {text}: this device has no cooperative matrices of f16 with that side; it has {has}"
                        )));
                    }
                }
                _ => return Err(wrong()),
            }
        }
        Ok(table)
    }

    /// How a GPU shares out a product of operands with this type.
    pub fn product_of(&self, dtype: DType) -> Product {
        if dtype == DType::F16 && self.matrices > 0 { Product::Matrices } else { self.product }
    }

    /// Whether a pass over so many channels goes by minimal filtering; `weights` says that it is the weight's gradient.
    pub fn filters(&self, channels: usize, weights: bool) -> bool {
        let least = self.filtering[weights as usize];
        least > 0 && channels >= least
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Class::Cpu => "cpu",
            Class::Gpu { .. } => "gpu",
        })
    }
}

impl fmt::Display for KernelTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([planes, weights], [rows, rows_of_weights]) = (self.filtering, self.columns);
        let product = match (self.class, self.product) {
            (Class::Cpu, _) => {
                return write!(f, "cpu filtering={planes},{weights} pixels={} columns={rows},{rows_of_weights}", self.pixels);
            }
            (_, Product::Lanes) => "lanes",
            _ => "tile",
        };
        write!(f, "gpu product={product} filtering={planes},{weights} matrices={}", self.matrices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_as_they_are_written() {
        for table in [
            KernelTable::CPU,
            KernelTable::gpu(0, 0),
            KernelTable { matrices: 16, ..KernelTable::gpu(32, 16) },
            KernelTable::gpu(8, 8),
            KernelTable { filtering: [0, 7], ..KernelTable::CPU },
        ] {
            assert_eq!(KernelTable { filtering: [1, 1], matrices: 0, ..table }.with(&table.to_string()).unwrap(), table);
        }
        let forced = KernelTable::gpu(8, 8).with("product=tile filtering=5").unwrap();
        assert_eq!(forced, KernelTable { product: Product::Tile, filtering: [5, 5], ..KernelTable::gpu(8, 8) });
        assert_eq!(KernelTable::CPU.with("").unwrap(), KernelTable::CPU);
    }

    #[test]
    fn a_saved_table_does_not_hinder_another_device() {
        assert_eq!(KernelTable::CPU.with("gpu product=lanes filtering=9,9").unwrap(), KernelTable::CPU);
        assert_eq!(KernelTable::gpu(0, 0).with("gpu product=lanes filtering=9,9").unwrap(), KernelTable::gpu(0, 0));
        assert_eq!(KernelTable::gpu(8, 8).with("gpu product=lanes filtering=9,9").unwrap().filtering, [9, 9]);
        assert_eq!(KernelTable::gpu(8, 8).with("gpu filtering=9,9 matrices=16").unwrap(), KernelTable::gpu(8, 8));
        assert_eq!(KernelTable::gpu(8, 8).with("gpu filtering=9,9 matrices=8").unwrap().matrices, 8);
    }

    #[test]
    fn what_is_no_choice_is_named() {
        for (table, text, words) in [
            (KernelTable::CPU, "product=tile", ["'product=tile'", "filtering=N,N, pixels=N and columns=N,N"]),
            (KernelTable::CPU, "filtering=a", ["'filtering=a'", "the cpu"]),
            (KernelTable::CPU, "pixels=a", ["'pixels=a'", "the cpu"]),
            (KernelTable::CPU, "columns", ["'columns'", "the cpu"]),
            (KernelTable::gpu(8, 8), "pixels=3", ["'pixels=3'", "product=lanes"]),
            (KernelTable::gpu(0, 0), "product=lanes", ["no subgroups of eight lanes", "product=tile"]),
            (KernelTable::gpu(0, 0), "matrices=8", ["no cooperative matrices of f16 with that side", "it has none"]),
            (KernelTable::gpu(32, 16), "matrices=8", ["no cooperative matrices of f16 with that side", "matrices=16"]),
            (KernelTable::gpu(0, 0), "matrices=all", ["'matrices=all'", "matrices=N"]),
            (KernelTable::gpu(0, 0), "gpu product=warp", ["'product=warp'", "the gpu"]),
        ] {
            let error = table.with(text).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
        }
    }
}
