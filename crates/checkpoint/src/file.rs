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
    /// Opens `path` and gives its tensors, all with `file: 0`.
    pub fn open(path: &Path) -> Result<(Self, Vec<Entry>)> {
        let io = |e| Error::io(path, e);
        // Asked before opening: opening a pipe would wait for somebody to write.
        if !fs::metadata(path).map_err(io)?.is_file() {
            return Err(Error::format(path, "is no plain file"));
        }
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is only read, and only as bytes, of which every pattern is valid. Another
        // process that shortens the file meanwhile ends this one by signal; the module's page says so.
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

    /// Everything before the first tensor, as it lies in the file.
    pub fn header(&self) -> &[u8] {
        &self.map[..self.header_length]
    }

    /// The bytes of an entry of this file.
    pub fn data(&self, entry: &Entry) -> &[u8] {
        self.at(&entry.range)
    }

    /// The bytes at a place that an entry of this file has.
    pub fn at(&self, range: &Range<usize>) -> &[u8] {
        &self.map[range.clone()]
    }

    /// Lets the memory of an entry go until somebody looks at it again.
    pub fn release(&self, entry: &Entry) {
        // SAFETY: nothing is ever written through the map, so that what is read again from the file is
        // what was there, under the module's condition that nobody changes the file.
        #[cfg(unix)]
        let _kept =
            unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, entry.range.start, entry.range.len()) };
        #[cfg(not(unix))]
        let _ = entry;
    }
}
