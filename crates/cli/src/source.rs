//! Where a model comes from: a path, or a name that is downloaded.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Names, sizes and times of the input files. A run resumes only if these are unchanged.
pub fn identity<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<String> {
    let mut identity = String::new();
    for file in files {
        let found = std::fs::metadata(file).map_err(|e| regrow_sparse_core::Error::io(file, e))?;
        let changed = found.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        identity += &format!("{} {} {:?}; ", file.display(), found.len(), changed);
    }
    Ok(identity)
}

/// The local path for the user's `path`: itself, or where a model with this name was downloaded to.
pub fn locate(path: &Path, revision: Option<&str>) -> Result<PathBuf> {
    match (path.exists(), revision) {
        (true, None) => Ok(path.to_path_buf()),
        (true, Some(_)) => {
            Err(Error::Argument(format!("--revision is for a model's name; {} is a path here", path.display())))
        }
        (false, _) => by_name(path, revision),
    }
}

#[cfg(feature = "hub")]
fn by_name(path: &Path, revision: Option<&str>) -> Result<PathBuf> {
    use regrow_lm::hub::{Hub, is_name};

    let name = path.to_string_lossy();
    if revision.is_none() && !is_name(&name) {
        return Ok(path.to_path_buf());
    }
    let hub = Hub::from_env()?;
    let bar = crate::bar::Bar::bytes();
    let fetched = hub.fetch(&name, revision, &mut |done, all| bar.at(done as usize, all as usize))?;
    if let Some(reason) = fetched.unasked.filter(|_| !hub.offline) {
        eprintln!("note: {name} is taken from the cache, commit {}: {reason}", fetched.commit);
    }
    Ok(fetched.folder)
}

#[cfg(not(feature = "hub"))]
fn by_name(path: &Path, revision: Option<&str>) -> Result<PathBuf> {
    match revision {
        Some(_) => Err(Error::Argument("this regrow fetches no models: it was built without the feature hub".into())),
        None => Ok(path.to_path_buf()),
    }
}
