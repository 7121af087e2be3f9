//! `OUT.partial`, an unfinished folder that becomes `OUT` when it is finished.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::atomic::{self, folder_of, sync_folder};
use crate::{Error, Result};

pub(super) const JOURNAL: &str = "regrow-progress.json";

/// Progress saved beside the files, so that they can be resumed.
pub(super) trait Journal: Serialize + DeserializeOwned {
    /// What identifies the run.
    fn settings(&self) -> &str;
}

/// The folder; it is removed if dropped before it is finished.
#[derive(Debug)]
pub(super) struct Partial {
    out: PathBuf,
    folder: PathBuf,
    kept: bool,
}

impl Partial {
    fn at(out: &Path) -> Result<Self> {
        let name = out.file_name().ok_or_else(|| Error::format(out, "is not the name of a file or folder"))?;
        let folder = out.with_file_name(format!("{}.partial", name.to_string_lossy()));
        folder_of(out)?;
        Ok(Self { out: out.to_path_buf(), folder, kept: true })
    }

    /// An empty folder for `out`, with its journal in it; the remains of an interrupted run are removed.
    pub fn create(out: &Path, journal: &impl Journal) -> Result<Self> {
        let mut partial = Self::at(out)?;
        remove_own(&partial.folder)?;
        fs::create_dir(&partial.folder).map_err(|e| Error::io(&partial.folder, e))?;
        partial.kept = false;
        partial.write_journal(journal)?;
        Ok(partial)
    }

    /// What an interrupted run with these settings left for `out`, if anything.
    pub fn left<J: Journal>(out: &Path, settings: &str) -> Result<Option<(Self, J)>> {
        let mut partial = Self::at(out)?;
        let path = partial.path(JOURNAL);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let journal: J = serde_json::from_slice(&text).map_err(|e| Error::format(&path, e.to_string()))?;
        if journal.settings() != settings {
            return Err(Error::format(&path, "belongs to a run with other settings; remove its folder to start anew"));
        }
        partial.kept = false;
        Ok(Some((partial, journal)))
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes the journal to disk.
    pub fn write_journal(&self, journal: &impl Journal) -> Result<()> {
        let path = self.path(JOURNAL);
        let text = serde_json::to_vec(journal).map_err(|e| Error::format(&path, e.to_string()))?;
        atomic::write_atomic(&path, |out| out.write_all(&text))
    }

    /// Keeps the folder when this is dropped.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// Renames the folder to its final name.
    pub fn finish(mut self) -> Result<()> {
        let journal = self.path(JOURNAL);
        fs::remove_file(&journal).map_err(|e| Error::io(&journal, e))?;
        fs::rename(&self.folder, &self.out).map_err(|e| Error::io(&self.out, e))?;
        self.kept = true;
        self.sync();
        Ok(())
    }

    /// Renames one file or folder of the folder to the final name, and removes the rest.
    pub fn finish_file(self, name: &str) -> Result<()> {
        fs::rename(self.path(name), &self.out).map_err(|e| Error::io(&self.out, e))?;
        self.sync();
        Ok(())
    }

    fn sync(&self) {
        if let Ok(parent) = folder_of(&self.out) {
            sync_folder(parent);
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.kept {
            let _gone = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Removes the remains of an interrupted run in `folder`; anything else with that name is left alone.
fn remove_own(folder: &Path) -> Result<()> {
    match (folder.exists(), folder.join(JOURNAL).exists()) {
        (false, _) => Ok(()),
        (true, true) => fs::remove_dir_all(folder).map_err(|e| Error::io(folder, e)),
        (true, false) => Err(Error::format(folder, "is in the way and was not left by an interrupted run; move it")),
    }
}
