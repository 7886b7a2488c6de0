//! [`Device`]: a shared handle to a backend, and the choice of one.

use crate::backend::checked::Checked;
use crate::backend::cpu::Cpu;
use crate::backend::finite::Finite;
#[cfg(feature = "gpu")]
use crate::backend::gpu::{Gpu, GpuOptions};
use crate::backend::null::{Counts, Null};
use crate::backend::profile::{Costs, Profile};
use crate::backend::{Backend, KernelTable};
use crate::error::{Error, Result};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

/// A device that computes: the CPU, a GPU, or a decorator around them. Cloning shares it.
#[derive(Clone)]
pub struct Device(Arc<dyn Backend>);

impl std::ops::Deref for Device {
    type Target = dyn Backend;
    fn deref(&self) -> &dyn Backend {
        &*self.0
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({})", self.name())
    }
}

/// Which device is asked for: `auto`, `cpu`, `gpu`, `gpu:N`, `checked`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// A GPU if there is a real one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The best adapter, or the one with this number in `mappa devices`. A software adapter counts.
    Gpu(Option<usize>),
    /// A GPU whose every operation is compared with the CPU reference.
    Checked,
}

impl std::str::FromStr for DeviceChoice {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "gpu" => Ok(DeviceChoice::Gpu(None)),
            "checked" => Ok(DeviceChoice::Checked),
            _ => text
                .strip_prefix("gpu:")
                .and_then(|n| n.parse().ok())
                .map(|n| DeviceChoice::Gpu(Some(n)))
                .ok_or_else(|| Error::Config(format!("unknown device '{text}'; use auto, cpu, gpu, gpu:N or checked"))),
        }
    }
}

impl Device {
    /// Wraps a backend.
    pub fn new(backend: impl Backend) -> Device {
        Device(Arc::new(backend))
    }

    /// The CPU on `threads` threads (0: one a core).
    ///
    /// # Errors
    /// [`Error::Device`] when threads cannot be started.
    pub fn cpu(threads: usize) -> Result<Device> {
        Ok(Device::new(Cpu::new(threads)?))
    }

    /// The CPU's plain reference loops, which judge the other devices.
    ///
    /// # Errors
    /// [`Error::Device`] when the thread cannot be started.
    pub fn reference() -> Result<Device> {
        Ok(Device::new(Cpu::reference()?))
    }

    /// A device that counts instead of computing, and its counts.
    pub fn null() -> (Device, Arc<Mutex<Counts>>) {
        let null = Null::default();
        let counts = null.counts();
        (Device::new(null), counts)
    }

    /// This device with every operation timed, and the table of times.
    pub fn profiled(&self) -> (Device, Costs) {
        let profile = Profile::new(Arc::clone(&self.0));
        let costs = profile.costs();
        (Device::new(profile), costs)
    }

    /// This device with every operation compared with the CPU reference, and how many were found right so far.
    ///
    /// # Errors
    /// [`Error::Device`] when the reference cannot start.
    pub fn checked(&self) -> Result<(Device, Arc<AtomicU64>)> {
        let checked = Checked::new(Arc::clone(&self.0))?;
        let operations = checked.operations();
        Ok((Device::new(checked), operations))
    }

    /// This device, stopping at the first operation whose result is NaN or infinite.
    pub fn watched(&self) -> Device {
        Device::new(Finite::new(Arc::clone(&self.0)))
    }

    /// A GPU: the best adapter, or number `index` of [`gpu::adapters`](crate::backend::gpu::adapters).
    ///
    /// # Errors
    /// [`Error::NoDevice`] when there is none.
    #[cfg(feature = "gpu")]
    pub async fn gpu(index: Option<usize>) -> Result<Device> {
        Ok(Device::new(Gpu::open(index).await?))
    }

    /// Opens the device asked for. The second value says in one line what was chosen and why.
    ///
    /// `MAPPA_REQUIRE_GPU=1` makes `auto` take any adapter, also a software one, and fail where there is none.
    ///
    /// # Errors
    /// [`Error::NoDevice`] when there is no such device.
    pub async fn open(choice: DeviceChoice, threads: usize) -> Result<(Device, String)> {
        Device::open_with(choice, threads, &[]).await
    }

    /// As [`Device::open`], with the kernels that texts name, later ones before earlier ones, in the place of the device's own choice: see [`KernelTable::with`].
    ///
    /// # Errors
    /// As [`Device::open`] and [`KernelTable::with`].
    pub async fn open_with(choice: DeviceChoice, threads: usize, kernels: &[&str]) -> Result<(Device, String)> {
        let cpu = || {
            let table = kernels.iter().try_fold(KernelTable::CPU, |table, text| table.with(text))?;
            Ok::<_, Error>(Device::new(Cpu::with_kernels(threads, table)?))
        };
        #[cfg(feature = "gpu")]
        let gpu = |index| GpuOptions { index, kernels: kernels.iter().map(|&text| text.to_owned()).collect(), ..Default::default() };
        match choice {
            DeviceChoice::Cpu => {
                let device = cpu()?;
                let line = format!("CPU, {}", device.name());
                Ok((device, line))
            }
            #[cfg(feature = "gpu")]
            DeviceChoice::Gpu(index) => {
                let device = Device::new(Gpu::open_with(gpu(index)).await?);
                let line = format!("GPU, {}", device.name());
                Ok((device, line))
            }
            #[cfg(feature = "gpu")]
            DeviceChoice::Checked => {
                let device = Device::new(Checked::new(Arc::new(Gpu::open_with(gpu(None)).await?))?);
                let line = device.name().to_owned();
                Ok((device, line))
            }
            #[cfg(feature = "gpu")]
            DeviceChoice::Auto => {
                let required = std::env::var("MAPPA_REQUIRE_GPU").is_ok_and(|v| v == "1");
                let adapters = crate::backend::gpu::adapters().await;
                let reason = match adapters.first() {
                    Some(best) if required || !best.software => match Gpu::open_checked(gpu(Some(best.index))).await {
                        Ok(gpu) => {
                            let device = Device::new(gpu);
                            let line = format!("GPU, {}", device.name());
                            return Ok((device, line));
                        }
                        Err(error @ Error::Config(_)) => return Err(error),
                        Err(error) if required => return Err(error),
                        Err(error) => format!("the GPU is not usable: {error}"),
                    },
                    Some(best) => format!("only a software GPU was found ({}); --device gpu takes it", best.name),
                    None if required => {
                        return Err(Error::NoDevice(
                            "MAPPA_REQUIRE_GPU=1 but no GPU adapter was found; install a Vulkan driver (Debian: mesa-vulkan-drivers)"
                                .into(),
                        ));
                    }
                    None => "no GPU was found".into(),
                };
                let device = cpu()?;
                let line = format!("CPU, {}: {reason}", device.name());
                Ok((device, line))
            }
            #[cfg(not(feature = "gpu"))]
            DeviceChoice::Auto => {
                let device = cpu()?;
                let line = format!("CPU, {}: built without the gpu feature", device.name());
                Ok((device, line))
            }
            #[cfg(not(feature = "gpu"))]
            DeviceChoice::Gpu(_) | DeviceChoice::Checked => {
                Err(Error::NoDevice("this build has no GPU support; build with the feature gpu".into()))
            }
        }
    }

    /// A GPU if there is one, else the CPU; `MAPPA_DEVICE` overrides.
    ///
    /// # Errors
    /// As [`Device::open`].
    pub async fn auto() -> Result<Device> {
        let choice = match std::env::var("MAPPA_DEVICE") {
            Ok(text) => text.parse()?,
            Err(_) => DeviceChoice::Auto,
        };
        let (device, line) = Device::open(choice, 0).await?;
        log::info!("device: {line}");
        Ok(device)
    }

    /// Blocking twin of [`Device::auto`].
    ///
    /// # Errors
    /// As [`Device::open`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn auto_blocking() -> Result<Device> {
        pollster::block_on(Device::auto())
    }

    /// The device that the variable `MAPPA_DEVICE` names (`cpu`, `gpu`, `gpu:N`, `checked`), else the one that [`Device::auto`] takes.
    ///
    /// # Errors
    /// [`Error::Config`] for another word in the variable; as [`Device::open`].
    #[cfg(not(target_arch = "wasm32"))]
    pub fn from_env_blocking() -> Result<Device> {
        let choice = std::env::var("MAPPA_DEVICE").map_or(Ok(DeviceChoice::Auto), |text| text.parse())?;
        pollster::block_on(Device::open(choice, 0)).map(|(device, _)| device)
    }

    /// The adapter's or processor's name.
    pub fn name(&self) -> &str {
        &self.capabilities().name
    }

    /// True when both handles are the same device.
    pub fn same(&self, other: &Device) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.0), Arc::as_ptr(&other.0))
    }
}
