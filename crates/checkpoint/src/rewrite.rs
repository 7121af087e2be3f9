//! The same checkpoint with other bytes in its tensors.

use std::fs;
use std::path::Path;

use crate::atomic::{create_folder_with, write_with};
use crate::{Checkpoint, Entry, directory};
use crate::{Error, Result};

/// Writes `checkpoint` to `out` with each tensor's bytes passed through `edit`.
///
/// `edit` gets the entry and its bytes and returns as many new ones, or `None` for a tensor that stays unchanged.
/// Header, order and metadata are copied to the byte. One tensor at a time is in memory.
///
/// A file becomes a file, a directory a directory with its configuration, tokenizer and index copied, also those of its
/// folders; hidden files and weights in other formats are not copied. Everything is written beside `out` and renamed at
/// the end: after an error nothing is left, and an existing `out` is unchanged.
///
/// # Errors
/// `out` is the input itself, a non-empty directory where a directory is written, or cannot be written; a checkpoint
/// with packed matrices; `edit` failed or returned another number of bytes.
pub fn rewrite<F>(checkpoint: &Checkpoint, out: impl AsRef<Path>, mut edit: F) -> Result<()>
where
    F: FnMut(&Entry, &[u8]) -> Result<Option<Vec<u8>>>,
{
    let out = out.as_ref();
    refuse_input(checkpoint, out)?;
    if checkpoint.is_packed() {
        return Err(Error::format(checkpoint.path(), "holds packed matrices, which are not rewritten in place"));
    }
    if !checkpoint.is_directory {
        return write_file(checkpoint, 0, out, &mut edit);
    }
    create_folder_with(out, |temporary| {
        for (index, file) in checkpoint.files.iter().enumerate() {
            let name = file.path().file_name().unwrap_or_default();
            write_file(checkpoint, index, &temporary.join(name), &mut edit)?;
        }
        copy_companions(checkpoint, temporary)
    })
}

/// Refuses to overwrite a file that is being read.
pub(super) fn refuse_input(checkpoint: &Checkpoint, out: &Path) -> Result<()> {
    let Ok(out_file) = fs::canonicalize(out) else {
        return Ok(()); // nothing is there yet
    };
    let inputs = checkpoint.files().chain([checkpoint.path()]);
    for input in inputs {
        if fs::canonicalize(input).is_ok_and(|input| input == out_file) {
            return Err(Error::format(out, "is the input itself; choose another output"));
        }
    }
    Ok(())
}

/// Writes the checkpoint's file number `index` to `path`.
fn write_file<F>(checkpoint: &Checkpoint, index: usize, path: &Path, edit: &mut F) -> Result<()>
where
    F: FnMut(&Entry, &[u8]) -> Result<Option<Vec<u8>>>,
{
    let file = &checkpoint.files[index];
    let entries = checkpoint.entries.iter().filter(|entry| entry.file == index);
    write_with(path, |out| {
        let mut put = |bytes: &[u8]| out.write_all(bytes).map_err(|e| Error::io(path, e));
        put(file.header())?;
        for entry in entries {
            let old = file.data(entry);
            put(edited(entry, old, edit)?.as_deref().unwrap_or(old))?;
        }
        Ok(())
    })
}

/// The new bytes of one tensor, or `None` for the old ones.
fn edited<F>(entry: &Entry, bytes: &[u8], edit: &mut F) -> Result<Option<Vec<u8>>>
where
    F: FnMut(&Entry, &[u8]) -> Result<Option<Vec<u8>>>,
{
    let new = edit(entry, bytes)?;
    match &new {
        Some(new) if new.len() != bytes.len() => {
            let reason = format!("{} bytes instead of {} came back", new.len(), bytes.len());
            Err(Error::tensor(&entry.name, reason))
        }
        _ => Ok(new),
    }
}

/// Copies configuration, tokenizer and the like into the folder `out`.
pub(super) fn copy_companions(checkpoint: &Checkpoint, out: &Path) -> Result<()> {
    for name in directory::companions(&checkpoint.path)? {
        let copy = out.join(&name);
        if let Some(folder) = copy.parent() {
            fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        }
        fs::copy(checkpoint.path.join(&name), &copy).map_err(|e| Error::io(copy, e))?;
    }
    Ok(())
}
