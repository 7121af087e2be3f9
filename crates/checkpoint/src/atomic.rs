//! Files that are either complete or absent: written beside the target, then renamed over it.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempDir};

use crate::{Error, Result};

/// Writes the file `path` through `write` so that a partial file is never visible.
///
/// The bytes go to a temporary file in the same folder, which is flushed, synced to disk and then renamed to `path`.
/// After any error the temporary file is removed and an existing `path` is unchanged. A symbolic link is followed: the
/// link stays and the file behind it changes.
///
/// # Errors
/// [`Error::Io`] naming `path` or its folder; [`Error::Format`] if `path` is a folder or a device.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("masks.bin");
/// regrow_checkpoint::atomic::write_atomic(&path, |out| out.write_all(b"kept"))?;
/// assert_eq!(std::fs::read(&path)?, b"kept");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_atomic(path: impl AsRef<Path>, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let path = path.as_ref();
    write_with(path, |out| write(out).map_err(|e| Error::io(path, e)))
}

/// [`write_atomic`] for a secret: only its owner may read the file.
///
/// # Errors
/// As [`write_atomic`].
pub fn write_private(path: impl AsRef<Path>, secret: &[u8]) -> Result<()> {
    let path = path.as_ref();
    write_to(path, true, |out| out.write_all(secret).map_err(|e| Error::io(path, e)))
}

/// [`write_atomic`] for writers with other errors than I/O.
pub(crate) fn write_with(path: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    write_to(path, false, write)
}

fn write_to(path: &Path, private: bool, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let target = resolve_file(path)?;
    let folder = folder_of(&target)?;
    let temporary = temporary_file(folder)?;
    if let Ok(old) = fs::metadata(&target) {
        // A private file stays private.
        let _unsupported = temporary.as_file().set_permissions(old.permissions());
    }
    if private {
        owner_only(temporary.as_file()).map_err(|e| Error::io(path, e))?;
    }

    // The file itself, not the `NamedTempFile`, whose errors name the temporary file.
    let mut out = BufWriter::new(temporary.as_file());
    write(&mut out)?;
    out.flush().map_err(|e| Error::io(path, e))?;
    drop(out);
    temporary.as_file().sync_all().map_err(|e| Error::io(path, e))?;

    temporary.persist(&target).map_err(|e| Error::io(path, e.error))?;
    sync_folder(folder);
    Ok(())
}

/// Fills the new folder `path` through `fill`, which gets a temporary folder beside it.
///
/// `path` must not exist or be an empty folder. After any error nothing is left behind.
pub(crate) fn create_folder_with(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    refuse_occupied(path)?;
    let parent = folder_of(path)?;
    let temporary = temporary_folder(parent)?;
    fill(temporary.path()).map_err(|e| renamed(e, temporary.path(), path))?;
    sync_folder(temporary.path());
    fs::rename(temporary.path(), path).map_err(|e| Error::io(path, e))?;
    let _renamed = temporary.keep();
    sync_folder(parent);
    Ok(())
}

#[cfg(unix)]
fn owner_only(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    file.set_permissions(Permissions::from_mode(0o600))
}

/// On other systems a file is as private as its folder.
#[cfg(not(unix))]
fn owner_only(_: &File) -> io::Result<()> {
    Ok(())
}

/// The file that `path` refers to: the target of a link; an error if it is not a regular file.
fn resolve_file(path: &Path) -> Result<PathBuf> {
    if path.file_name().is_none() {
        return Err(Error::format(path, "is not the name of a file"));
    }
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => Err(Error::format(path, "is a folder, not a file")),
        // A rename would replace a device such as /dev/null by a regular file.
        Ok(found) if !found.is_file() => Err(Error::format(path, "exists and is no plain file")),
        Ok(_) => fs::canonicalize(path).map_err(|e| Error::io(path, e)),
        Err(_) => Ok(path.to_path_buf()),
    }
}

/// The existing folder in which `path` lies.
pub(crate) fn folder_of(path: &Path) -> Result<&Path> {
    let folder = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(Error::format(path, "is not the name of a file or folder")),
    };
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(folder),
        Ok(_) => Err(Error::format(folder, "is not a folder")),
        Err(e) => Err(Error::io(folder, e)),
    }
}

/// Refuses a `path` that already exists, except an empty folder.
pub(crate) fn refuse_occupied(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(_) => Ok(()),
        Ok(found) if found.is_dir() => match fs::read_dir(path).map(|mut list| list.next()) {
            Ok(None) => Ok(()),
            Ok(Some(_)) => Err(Error::format(path, "exists and is not empty")),
            Err(e) => Err(Error::io(path, e)),
        },
        Ok(_) => Err(Error::format(path, "exists and is not a folder")),
    }
}

/// A temporary file with the permissions of any newly created file (tempfile's own are private).
fn temporary_file(folder: &Path) -> Result<NamedTempFile> {
    let mut builder = builder();
    if let Some(open_to_all) = permissions(0o666) {
        builder.permissions(open_to_all);
    }
    builder.tempfile_in(folder).map_err(|e| without_temporary_name(folder, &e))
}

/// A temporary folder with the permissions of any newly created folder.
fn temporary_folder(parent: &Path) -> Result<TempDir> {
    let mut builder = builder();
    if let Some(open_to_all) = permissions(0o777) {
        builder.permissions(open_to_all);
    }
    builder.tempdir_in(parent).map_err(|e| without_temporary_name(parent, &e))
}

fn builder() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(".regrow-").suffix(".partial");
    builder
}

/// `mode` combined with the user's umask; `None` if the system has no modes.
#[cfg(unix)]
fn permissions(mode: u32) -> Option<Permissions> {
    use std::os::unix::fs::PermissionsExt;
    Some(Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn permissions(_mode: u32) -> Option<Permissions> {
    None
}

/// `error` with the user's path in place of the temporary one.
fn renamed(mut error: Error, temporary: &Path, chosen: &Path) -> Error {
    if let Error::Io { path, .. } | Error::Format { path, .. } = &mut error
        && let Ok(below) = path.strip_prefix(temporary)
    {
        *path = chosen.join(below);
    }
    error
}

/// The error about `folder`, without the name of a temporary file that the user never chose.
fn without_temporary_name(folder: &Path, error: &io::Error) -> Error {
    Error::io(folder, io::Error::from(error.kind()))
}

/// Makes a rename durable. Not every file system can, and the rename has happened: errors are ignored.
pub(crate) fn sync_folder(folder: &Path) {
    if cfg!(unix) {
        let _unsupported = File::open(folder).and_then(|f| f.sync_all());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn writes_and_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_atomic(&path, |out| out.write_all(b"old")).unwrap();
        write_atomic(&path, |out| out.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_full_disk_leaves_the_old_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "old").unwrap();
        let error = write_atomic(&path, |out| {
            out.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        })
        .unwrap_err();
        assert!(error.to_string().starts_with(&path.display().to_string()));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn folders_devices_and_missing_parents_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "x").unwrap();
        let below_a_file = file.join("b");
        let missing = folder.path().join("missing/b");
        for path in [folder.path(), &below_a_file, &missing, Path::new("/")] {
            assert!(write_atomic(path, |_| panic!("nothing may be written")).is_err(), "{}", path.display());
        }
        if cfg!(unix) {
            assert!(write_atomic("/dev/null", |_| Ok(())).is_err());
        }
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_links_and_permissions_follow_the_umask() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let (real, link, plain) = (folder.path().join("real"), folder.path().join("link"), folder.path().join("plain"));
        fs::write(&real, "old").unwrap();
        fs::write(&plain, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_atomic(&link, |out| out.write_all(b"new")).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read(&real).unwrap(), b"new");
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode();
        assert_eq!(mode(&real), mode(&plain));
    }

    #[test]
    fn folders_appear_whole_or_not_at_all() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("model");
        let fill = |temporary: &Path| fs::write(temporary.join("a"), "x").map_err(|e| Error::io(temporary, e));
        let failed = create_folder_with(&path, |temporary| {
            fill(temporary)?;
            Err(Error::format(temporary.join("b"), "no"))
        });
        let expected = format!("{}: no", path.join("b").display());
        assert_eq!(failed.unwrap_err().to_string(), expected);
        assert!(names(parent.path()).is_empty());

        create_folder_with(&path, fill).unwrap();
        assert_eq!(names(&path), ["a"]);
        assert_eq!(names(parent.path()), ["model"]);
        let again = create_folder_with(&path, fill).unwrap_err();
        assert!(again.to_string().ends_with("not empty"), "{again}");
    }
}
