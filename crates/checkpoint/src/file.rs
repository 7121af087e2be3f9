//! One memory-mapped safetensors file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use crate::header::{self, Entry};
use crate::{Error, Result};

/// A file whose header has been checked: every entry's range lies inside `map`.
#[derive(Debug)]
pub(super) struct TensorFile {
    path: PathBuf,
    map: Mmap,
    header_length: usize,
    metadata: BTreeMap<String, String>,
}

impl TensorFile {
    /// Opens `path` and returns its tensors, all with `file: 0`.
    pub fn open(path: &Path) -> Result<(Self, Vec<Entry>)> {
        let io = |e| Error::io(path, e);
        // Checked before opening: opening a pipe would wait for a writer.
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(Error::format(path, "is no plain file"));
        }
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is only read, and only as bytes, for which every pattern is valid. If another process
        // truncates the file meanwhile, this process is ended by a signal; the module's page says so.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let header = header::parse(&map).map_err(|reason| Error::format(path, reason))?;
        let file = Self { path: path.to_path_buf(), map, header_length: header.length, metadata: header.metadata };
        Ok((file, header.entries))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Everything before the first tensor, as it is in the file.
    pub fn header(&self) -> &[u8] {
        &self.map[..self.header_length]
    }

    /// The bytes of an entry of this file.
    pub fn data(&self, entry: &Entry) -> &[u8] {
        self.at(&entry.range)
    }

    /// The bytes at the range of an entry of this file.
    pub fn at(&self, range: &Range<usize>) -> &[u8] {
        &self.map[range.clone()]
    }

    /// Releases the memory of an entry until it is read again.
    pub fn release(&self, entry: &Entry) {
        // SAFETY: nothing is ever written through the map, so reading the file again gives the same bytes, provided
        // that no process changes the file, as the module's page requires.
        #[cfg(unix)]
        let _kept =
            unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, entry.range.start, entry.range.len()) };
        #[cfg(not(unix))]
        let _ = entry;
    }
}
