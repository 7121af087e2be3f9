//! The one error type of this crate: every variant names the file, tensor or parameter at fault.

use std::path::{Path, PathBuf};

/// Errors of `sparse-core`. Each message is one line that a binary can print as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be opened, read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file has the wrong format or is truncated.
    #[error("{path}: {reason}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor or parameter is unusable: its name and the reason.
    #[error("{name}: {reason}")]
    Tensor {
        /// The tensor's or parameter's name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] regrow_checkpoint::Error),
    /// A device is missing or was lost.
    #[error(transparent)]
    Device(#[from] regrow_device::Error),
    /// A sparsity outside [0, 1).
    #[error("a sparsity of {given} is outside [0, 1)")]
    InvalidSparsity {
        /// The given value.
        given: f64,
    },
    /// A tensor has the wrong shape.
    #[error("{tensor}: has shape {got:?}, expected {expected:?}")]
    ShapeMismatch {
        /// The tensor's or parameter's name.
        tensor: String,
        /// The expected shape.
        expected: Vec<usize>,
        /// The actual shape.
        got: Vec<usize>,
    },
    /// A method that is in no list.
    #[error("unknown {kind} `{name}`{hint}: use {known}")]
    UnknownMethod {
        /// The kind of method.
        kind: String,
        /// The requested name.
        name: String,
        /// The nearest name, in words; empty if none is near.
        hint: String,
        /// The known names.
        known: String,
    },
    /// A parameter that a method does not have.
    #[error("{method} has no parameter `{parameter}`: {known}")]
    UnknownParameter {
        /// The method.
        method: String,
        /// The given name.
        parameter: String,
        /// The known parameters, in words.
        known: String,
    },
    /// A value outside a parameter's range.
    #[error("{method}: `{parameter}` cannot be `{value}` ({range})")]
    InvalidParameter {
        /// The method.
        method: String,
        /// The parameter.
        parameter: String,
        /// The given value.
        value: String,
        /// The allowed values, in words.
        range: String,
    },
    /// An argument is outside its domain.
    #[error("{0}")]
    Argument(String),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`] about `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// An [`Error::Format`] about `path`.
    pub fn format(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Format { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }

    /// An [`Error::Tensor`] about `name`.
    pub fn tensor(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Tensor { name: name.into(), reason: reason.into() }
    }
}
