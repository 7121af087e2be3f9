//! The one error type of this crate: every variant names the file, tensor or parameter at fault.

use std::path::{Path, PathBuf};

/// What can go wrong in `sparse-core`. Each message is one line that a binary can print as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be opened, read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is not what its name promises, or is cut short.
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
    /// A device is not there, or was lost.
    #[error(transparent)]
    Device(#[from] regrow_device::Error),
    /// A sparsity outside [0, 1).
    #[error("a sparsity of {given} is outside [0, 1)")]
    InvalidSparsity {
        /// What was given.
        given: f64,
    },
    /// A tensor of another shape than it must have.
    #[error("{tensor}: has shape {got:?}, expected {expected:?}")]
    ShapeMismatch {
        /// The tensor's or parameter's name.
        tensor: String,
        /// The shape it must have.
        expected: Vec<usize>,
        /// The shape it has.
        got: Vec<usize>,
    },
    /// A method that no list has.
    #[error("unknown {kind} `{name}`{hint}: use {known}")]
    UnknownMethod {
        /// The kind of method.
        kind: String,
        /// What was asked for.
        name: String,
        /// The nearest name, in words; empty where none is near.
        hint: String,
        /// The names there are.
        known: String,
    },
    /// A parameter that a method does not have.
    #[error("{method} has no parameter `{parameter}`: {known}")]
    UnknownParameter {
        /// The method.
        method: String,
        /// What was given.
        parameter: String,
        /// The parameters there are, in words.
        known: String,
    },
    /// A value outside a parameter's range.
    #[error("{method}: `{parameter}` cannot be `{value}` ({range})")]
    InvalidParameter {
        /// The method.
        method: String,
        /// The parameter.
        parameter: String,
        /// What was given.
        value: String,
        /// What it may be, in words.
        range: String,
    },
    /// An argument lies outside its domain.
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
