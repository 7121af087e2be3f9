//! Errors between a hub and its cache, and their one-line messages.

use std::io;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::ApiError;
use regrow_sparse_core::Error;

use super::Hub;

/// Why something could not be downloaded.
#[derive(Debug)]
pub(super) enum Failure {
    /// The hub does not answer, or is temporarily unavailable; a later attempt may succeed.
    Unreachable(String),
    /// There is no such model, or it is not visible to this user.
    Unknown,
    /// The model exists, but not this revision.
    Revision,
    /// The model's terms must be accepted first.
    Gated,
    /// The partial download is unusable; restart it.
    Spoilt(String),
    /// The cache cannot be written.
    Disk(PathBuf, io::Error),
    /// The model is not in a supported format.
    Unusable(String),
}

impl Failure {
    /// The meaning of a status other than 200; `code` is the hub's own error code.
    pub fn of_status(status: u16, code: Option<&str>) -> Self {
        match (status, code) {
            (_, Some("GatedRepo")) | (403, _) => Self::Gated,
            (_, Some("RevisionNotFound")) => Self::Revision,
            (401 | 404, _) => Self::Unknown,
            (416, _) => Self::Spoilt("the hub has less of it than is here".into()),
            _ => Self::Unreachable(format!("the answer was {status}")),
        }
    }

    /// Whether another attempt may succeed.
    pub fn passes(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Spoilt(_))
    }

    /// The error message about model `name` of `hub`.
    pub fn about(self, hub: &Hub, name: &str, revision: &str) -> Error {
        let Hub { endpoint, cache, token, .. } = hub;
        let asked = if token.is_some() { "with another token in HF_TOKEN" } else { "with a token in HF_TOKEN" };
        Error::Argument(match self {
            Self::Unreachable(reason) => format!(
                "{name}: no path here, not whole in the cache {}, and {endpoint} cannot be asked: {reason}",
                cache.display()
            ),
            Self::Unknown => format!(
                "{name}: neither a path here nor a model that {endpoint} shows us (revision {revision}); \
                 if it is private, ask {asked}"
            ),
            Self::Revision => format!("{name}: {endpoint} has no revision {revision:?} of it"),
            Self::Gated => format!("{name}: gated; accept its terms on {endpoint}/{name}, then ask {asked}"),
            Self::Spoilt(reason) => format!("{name}: a download cannot be finished: {reason}"),
            Self::Disk(path, source) => return Error::io(path, source),
            Self::Unusable(reason) => format!("{name}: {reason}"),
        })
    }

    /// Whether `error` comes from writing files, not from reading the network.
    fn is_of_disk(error: &io::Error) -> bool {
        use io::ErrorKind as Kind;
        matches!(
            error.kind(),
            Kind::StorageFull
                | Kind::QuotaExceeded
                | Kind::FileTooLarge
                | Kind::PermissionDenied
                | Kind::ReadOnlyFilesystem
                | Kind::NotADirectory
                | Kind::NotFound
                | Kind::AlreadyExists
        )
    }
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::StatusCode(status) => Self::of_status(status, None),
            ureq::Error::Json(e) => Self::Unreachable(format!("the answer is no list of files ({e})")),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

impl Failure {
    /// The failure of downloading a file to `path`.
    pub fn of(error: ApiError, path: &Path) -> Self {
        match error {
            ApiError::RequestError(e) => (*e).into(),
            ApiError::IoError(e) if Self::is_of_disk(&e) => Self::Disk(path.to_path_buf(), e),
            ApiError::IoError(e) => Self::Unreachable(e.to_string()),
            ApiError::InvalidResume => Self::Spoilt("more of it is here than the hub has".into()),
            ApiError::LockAcquisition(path) => {
                Self::Unusable(format!("another process is downloading it (it holds {})", path.display()))
            }
            other => Self::Unreachable(other.to_string()),
        }
    }
}
