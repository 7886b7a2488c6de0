//! Choices of kernels other than a device's own: each way wherever it can go, and nowhere.

pub const CPU_KERNELS: [&str; 3] =
    ["filtering=0 columns=0", "filtering=1 pixels=0 columns=0", "filtering=1 pixels=1000000 columns=1000000"];
#[cfg(feature = "gpu")]
pub const GPU_KERNELS: [&str; 4] = ["filtering=0", "filtering=1", "product=tile filtering=0", "product=tile filtering=1"];
