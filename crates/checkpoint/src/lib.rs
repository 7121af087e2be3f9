//! Checkpoints on disk: safetensors files and Hugging Face directories, one tensor at a time.
//!
//! A [`Checkpoint`] is a `.safetensors` file, or a directory with `model.safetensors` or with shards and
//! `model.safetensors.index.json`. Files are memory-mapped: opening reads only the headers, and a tensor uses memory
//! only while it is read. Matrices that are [packed](crate::storage) appear unpacked.
//!
//! Three ways to write one: [`rewrite`] writes the same checkpoint with the bytes of some tensors changed and
//! everything else (names, shapes, types, order, metadata) identical to the byte; a [`Patch`] does so step by step and
//! can be resumed; a [`Writer`] makes a new checkpoint from a [`Plan`], several tensors at once, and can be resumed
//! too. [`convert()`] writes a copy with another type or storage.
//!
//! ```
//! use regrow_checkpoint::{Checkpoint, apply_mask, rewrite};
//! # let folder = tempfile::tempdir()?;
//! # let (path, out) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
//! # let header = br#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
//! # let data = [1.0f32.to_le_bytes(), 2.0f32.to_le_bytes()].concat();
//! # std::fs::write(&path, [&(header.len() as u64).to_le_bytes()[..], header, &data].concat())?;
//! let checkpoint = Checkpoint::open(&path)?;
//! rewrite(&checkpoint, &out, |tensor, bytes| {
//!     let mut bytes = bytes.to_vec();
//!     apply_mask(tensor, &mut bytes, |index| index != 0)?;
//!     Ok(Some(bytes))
//! })?;
//! assert_eq!(Checkpoint::open(&out)?.read_f32("w")?, [0.0, 2.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Other processes must not truncate the files while they are open: the system ends a process that reads a memory map
//! beyond the end of its file.

pub mod atomic;
mod config;
mod convert;
mod directory;
mod error;
mod file;
mod header;
mod packed;
mod partial;
mod patch;
mod plan;
mod rewrite;
pub mod storage;
#[cfg(test)]
mod tests;
mod values;
mod writer;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

pub use convert::{Converted, Form, convert};
pub use error::{Error, Result};
pub use header::Entry;
pub use patch::{Patch, Pruned};
pub use plan::{Plan, Planned};
pub use rewrite::rewrite;
pub use safetensors::Dtype;
pub use values::{Counts, apply_mask, rounded};
pub use writer::{Contents, Writer};

use file::TensorFile;

/// An open checkpoint: its parsed headers and its memory-mapped tensors.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    is_directory: bool,
    files: Vec<TensorFile>,
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
}

impl Checkpoint {
    /// Opens a safetensors file or a Hugging Face directory and checks its headers.
    ///
    /// # Errors
    /// A path that is missing or neither file nor directory; a file that is empty, truncated, or whose header is not
    /// JSON, too long, or describes tensors outside the file; an index that names a missing shard or a tensor absent
    /// from its shard; a duplicate tensor; parts of a packed matrix that do not fit together.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let found = fs::metadata(path).map_err(|e| Error::io(path, e))?;
        let checkpoint = match found.is_dir() {
            true => directory::open(path)?,
            false => Self::assemble(path, false, vec![TensorFile::open(path)?])?,
        };
        checkpoint.unfolded()
    }

    /// A checkpoint from its opened files, in this order.
    fn assemble(path: &Path, is_directory: bool, opened: Vec<(TensorFile, Vec<Entry>)>) -> Result<Self> {
        let mut checkpoint = Self {
            path: path.to_path_buf(),
            is_directory,
            files: Vec::new(),
            entries: Vec::new(),
            by_name: HashMap::new(),
        };
        for (index, (file, entries)) in opened.into_iter().enumerate() {
            for entry in entries {
                checkpoint.add(&file, Entry { file: index, ..entry })?;
            }
            checkpoint.files.push(file);
        }
        Ok(checkpoint)
    }

    fn add(&mut self, file: &TensorFile, entry: Entry) -> Result<()> {
        let position = self.entries.len();
        if let Some(first) = self.by_name.insert(entry.name.clone(), position) {
            let first = self.files[self.entries[first].file].path().display();
            let reason = format!("tensor {:?} is in {first} already", entry.name);
            return Err(Error::format(file.path(), reason));
        }
        self.entries.push(entry);
        Ok(())
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a directory was opened rather than a file.
    pub fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// The safetensors files, in the order in which [`Entry::file`] counts them.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.files.iter().map(TensorFile::path)
    }

    /// The `__metadata__` of each file, in the order of [`Checkpoint::files`]; empty if it has none.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = &BTreeMap<String, String>> {
        self.files.iter().map(TensorFile::metadata)
    }

    /// The tensors as described by the headers: file by file, in the order of the data.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// One tensor as described by the header.
    ///
    /// # Errors
    /// There is no tensor of this name.
    pub fn entry(&self, name: &str) -> Result<&Entry> {
        match self.by_name.get(name) {
            Some(&position) => Ok(&self.entries[position]),
            None => Err(Error::format(&self.path, format!("has no tensor {name:?}"))),
        }
    }

    /// Whether some tensors are packed.
    pub fn is_packed(&self) -> bool {
        self.entries.iter().any(|entry| entry.packed.is_some())
    }

    /// The bytes of one tensor, row-major, little-endian: as in the file, unpacked if it is packed.
    ///
    /// # Errors
    /// There is no tensor of this name, or it is packed and its parts do not fit together.
    pub fn raw(&self, name: &str) -> Result<Cow<'_, [u8]>> {
        self.entry(name).and_then(|entry| self.bytes_of(entry))
    }

    /// One tensor as `f32`, row-major over the shape in the file; rounded to nearest, an `f64` beyond the range of
    /// `f32` becomes infinite.
    ///
    /// # Errors
    /// There is no tensor of this name, or its type is none of F64, F32, F16, BF16.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        let entry = self.entry(name)?;
        values::decoded(entry.dtype, &self.bytes_of(entry)?).map_err(|reason| self.about(entry, &reason))
    }

    /// As [`Checkpoint::read_f32`], without a copy if the file holds `f32` values that this machine can read in place.
    ///
    /// # Errors
    /// As [`Checkpoint::read_f32`].
    pub fn values(&self, name: &str) -> Result<Cow<'_, [f32]>> {
        let entry = self.entry(name)?;
        if let Cow::Borrowed(bytes) = self.bytes_of(entry)?
            && let Some(values) = values::in_place(entry.dtype, bytes)
        {
            return Ok(Cow::Borrowed(values));
        }
        self.read_f32(name).map(Cow::Owned)
    }

    /// Tells the system that the memory of one tensor is not needed for now. It is read again from the file on the next
    /// access.
    pub fn release(&self, name: &str) {
        if let Ok(entry) = self.entry(name) {
            self.files[entry.file].release(entry);
        }
    }

    /// Passes each value of one tensor to `visit`, row-major, without a copy of the tensor unless it is packed.
    ///
    /// # Errors
    /// There is no tensor of this name, or its type is none of F64, F32, F16, BF16.
    pub fn for_each(&self, name: &str, visit: impl FnMut(f64)) -> Result<()> {
        let entry = self.entry(name)?;
        values::for_each(entry.dtype, &self.bytes_of(entry)?, visit).map_err(|reason| self.about(entry, &reason))
    }

    /// How many values of one tensor are zero, not a number, or infinite.
    ///
    /// # Errors
    /// There is no tensor of this name, or its type is none of F64, F32, F16, BF16.
    pub fn counts(&self, name: &str) -> Result<Counts> {
        let mut counts = Counts::default();
        self.for_each(name, |value| counts.add(value))?;
        Ok(counts)
    }

    /// Whether every value of one tensor is a finite number.
    ///
    /// # Errors
    /// There is no tensor of this name, or its type is none of F64, F32, F16, BF16.
    pub fn finite(&self, name: &str) -> Result<bool> {
        self.counts(name).map(|counts| counts.finite())
    }

    fn about(&self, entry: &Entry, reason: &str) -> Error {
        Error::format(self.files[entry.file].path(), format!("tensor {:?}: {reason}", entry.name))
    }

    fn bytes_of(&self, entry: &Entry) -> Result<Cow<'_, [u8]>> {
        let data = self.files[entry.file].data(entry);
        match &entry.packed {
            None => Ok(Cow::Borrowed(data)),
            Some(packed) => self.unpacked(entry, packed, data).map(Cow::Owned),
        }
    }
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
