//! The one error type of the crate.

use std::path::PathBuf;

/// Shorthand for a result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong. Messages say what was given, what was expected, where, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Shapes, ranks or attributes of an operation do not fit together.
    #[error("{0}")]
    Shape(String),
    /// An operand has the wrong element type.
    #[error("{0}")]
    DType(String),
    /// Operands live on different devices, or a device cannot do what was asked.
    #[error("{0}")]
    Device(String),
    /// No usable device of the kind that was asked for.
    #[error("{0}")]
    NoDevice(String),
    /// The backend has no kernel for this operation; nothing is copied to the CPU behind the caller's back.
    #[error("backend {backend} does not support {op}; run it on --device cpu")]
    Unsupported {
        /// The backend's name.
        backend: String,
        /// The operation with its attributes.
        op: String,
    },
    /// The operation has no gradient.
    #[error("{0}")]
    Autodiff(String),
    /// The GPU reported a validation error, out of memory or loss of the device. Sticky: every later call returns it.
    #[error("{0}")]
    Gpu(String),
    /// Two operands of one operation overlap in memory in a way that the device forbids.
    #[error("{0}")]
    Alias(String),
    /// The `checked` device found that two devices disagree.
    #[error("{0}")]
    Mismatch(String),
    /// A flag, a configuration key or an argument is wrong.
    #[error("{0}")]
    Config(String),
    /// A data set, picture or checkpoint is missing, truncated or corrupt.
    #[error("{}: {message}", .path.display())]
    Data {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it, and what was expected.
        message: String,
    },
    /// Reading or writing a file failed.
    #[error("{}: {message}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's message.
        message: String,
    },
    /// Training ran away: the loss is infinite or not a number.
    #[error("{0}")]
    Diverged(String),
    /// The run was interrupted after saving its state.
    #[error("{0}")]
    Interrupted(String),
}

impl Error {
    /// An [`Error::Io`] for `path`.
    pub fn io(path: impl Into<PathBuf>, error: std::io::Error) -> Self {
        Error::Io { path: path.into(), message: error.to_string() }
    }

    /// An [`Error::Data`] for `path`.
    pub fn data(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Error::Data { path: path.into(), message: message.into() }
    }

    /// True when the caller's input is at fault (exit code 2 of the command line), false when the run failed (1).
    pub fn is_bad_input(&self) -> bool {
        matches!(self, Error::Shape(_) | Error::DType(_) | Error::NoDevice(_) | Error::Config(_) | Error::Data { .. })
    }
}
