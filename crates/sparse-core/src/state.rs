//! What a method has learned so far, to resume a run: tensors and integers by name, in one file.
//!
//! ```
//! use regrow_sparse_core::state::State;
//!
//! let mut state = State::default();
//! state.set_integers("seen", vec![1 << 40]);
//! state.set_reals("momentum", vec![0.5, -1.0]);
//! let mut back = State::from_bytes(&state.to_bytes()?)?;
//! assert_eq!(back.integer("seen")?, 1 << 40);
//! assert_eq!(back.take_reals("momentum")?, [0.5, -1.0]);
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::{Error, Result};
use regrow_checkpoint::atomic;

/// Numbers of one kind.
#[derive(Clone, Debug, PartialEq)]
enum Numbers {
    F32(Vec<f32>),
    F64(Vec<f64>),
    U64(Vec<u64>),
}

/// Tensors and integers by name. Each name keeps its kind: a counter is an integer, exact to 2^64.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    entries: BTreeMap<String, Numbers>,
}

impl State {
    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Stores a list of 32-bit numbers under `name`.
    pub fn set_reals(&mut self, name: impl Into<String>, values: Vec<f32>) {
        self.entries.insert(name.into(), Numbers::F32(values));
    }

    /// Stores a list of 64-bit numbers under `name`.
    pub fn set_doubles(&mut self, name: impl Into<String>, values: Vec<f64>) {
        self.entries.insert(name.into(), Numbers::F64(values));
    }

    /// Stores integers under `name`.
    pub fn set_integers(&mut self, name: impl Into<String>, values: Vec<u64>) {
        self.entries.insert(name.into(), Numbers::U64(values));
    }

    /// Stores one integer under `name`.
    pub fn set_integer(&mut self, name: impl Into<String>, value: u64) {
        self.set_integers(name, vec![value]);
    }

    /// Stores everything of `inner` under `prefix.`, for a method composed of others.
    pub fn set_nested(&mut self, prefix: &str, inner: State) {
        self.entries.extend(inner.entries.into_iter().map(|(name, values)| (format!("{prefix}.{name}"), values)));
    }

    /// Whether `name` exists.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Removes and returns a list of 32-bit numbers.
    ///
    /// # Errors
    /// If there is none of that name and kind.
    pub fn take_reals(&mut self, name: &str) -> Result<Vec<f32>> {
        match self.entries.remove(name) {
            Some(Numbers::F32(values)) => Ok(values),
            _ => Err(missing(name, "32-bit numbers")),
        }
    }

    /// Removes and returns a list of 64-bit numbers.
    ///
    /// # Errors
    /// If there is none of that name and kind.
    pub fn take_doubles(&mut self, name: &str) -> Result<Vec<f64>> {
        match self.entries.remove(name) {
            Some(Numbers::F64(values)) => Ok(values),
            _ => Err(missing(name, "64-bit numbers")),
        }
    }

    /// Removes and returns integers.
    ///
    /// # Errors
    /// If there is none of that name and kind.
    pub fn take_integers(&mut self, name: &str) -> Result<Vec<u64>> {
        match self.entries.remove(name) {
            Some(Numbers::U64(values)) => Ok(values),
            _ => Err(missing(name, "whole numbers")),
        }
    }

    /// The one integer under `name`.
    ///
    /// # Errors
    /// If there is not exactly one.
    pub fn integer(&self, name: &str) -> Result<u64> {
        match self.entries.get(name) {
            Some(Numbers::U64(values)) if values.len() == 1 => Ok(values[0]),
            _ => Err(missing(name, "one whole number")),
        }
    }

    /// Removes and returns everything that [`State::set_nested`] stored under `prefix.`.
    pub fn take_nested(&mut self, prefix: &str) -> State {
        let dotted = format!("{prefix}.");
        let (inner, outer) =
            std::mem::take(&mut self.entries).into_iter().partition(|(name, _)| name.starts_with(&dotted));
        self.entries = outer;
        let inner: BTreeMap<String, Numbers> = inner;
        let short = |(name, values): (String, Numbers)| (name[dotted.len()..].to_string(), values);
        State { entries: inner.into_iter().map(short).collect() }
    }

    /// As a safetensors file in memory.
    ///
    /// # Errors
    /// None for states made by this type; errors of the format are passed on.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let raw: Vec<(&str, Dtype, usize, Vec<u8>)> = self
            .entries
            .iter()
            .map(|(name, numbers)| {
                let (dtype, len, bytes) = match numbers {
                    Numbers::F32(v) => (Dtype::F32, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect()),
                    Numbers::F64(v) => (Dtype::F64, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect()),
                    Numbers::U64(v) => (Dtype::U64, v.len(), v.iter().flat_map(|v| v.to_le_bytes()).collect()),
                };
                (name.as_str(), dtype, len, bytes)
            })
            .collect();
        let views = raw.iter().map(|(name, dtype, len, bytes)| {
            TensorView::new(*dtype, vec![*len], bytes).map(|view| (*name, view)).map_err(|e| bad(&e.to_string()))
        });
        safetensors::serialize(views.collect::<Result<Vec<_>>>()?, None).map_err(|e| bad(&e.to_string()))
    }

    /// Reads what [`State::to_bytes`] returned.
    ///
    /// # Errors
    /// If it is not a safetensors file of f32, f64 and u64 numbers.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let file = SafeTensors::deserialize(bytes).map_err(|e| bad(&e.to_string()))?;
        let one = |(name, view): (String, TensorView<'_>)| {
            let data = view.data();
            let eights = || data.as_chunks::<8>().0.iter();
            let numbers = match view.dtype() {
                Dtype::F32 => Numbers::F32(data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()),
                Dtype::F64 => Numbers::F64(eights().map(|b| f64::from_le_bytes(*b)).collect()),
                Dtype::U64 => Numbers::U64(eights().map(|b| u64::from_le_bytes(*b)).collect()),
                other => return Err(bad(&format!("`{name}` is {other:?}: a state holds f32, f64 and u64"))),
            };
            Ok((name, numbers))
        };
        Ok(Self { entries: file.tensors().into_iter().map(one).collect::<Result<_>>()? })
    }

    /// Writes the state to a file, completely or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let bytes = self.to_bytes()?;
        Ok(atomic::write_atomic(path, |out| out.write_all(&bytes))?)
    }

    /// Reads what [`State::save`] wrote.
    ///
    /// # Errors
    /// If the file cannot be read or is not a state.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        Self::from_bytes(&bytes).map_err(|e| Error::format(path, e.to_string()))
    }
}

fn missing(name: &str, kind: &str) -> Error {
    Error::tensor(name, format!("the saved state has no {kind} of this name: it belongs to another method or version"))
}

fn bad(reason: &str) -> Error {
    Error::Argument(format!("the saved state cannot be read: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_comes_back_to_the_last_bit() {
        let mut state = State::default();
        state.set_integers("seen", vec![(1 << 24) + 1, u64::MAX]);
        state.set_reals("w", vec![f32::MIN_POSITIVE, -0.0, f32::INFINITY]);
        state.set_doubles("d", vec![0.1, f64::MAX]);
        state.set_reals("empty", Vec::new());
        let mut outer = State::default();
        outer.set_nested("inner", state.clone());
        outer.set_integer("round", 3);
        let dir = tempfile::tempdir().unwrap();
        outer.save(&dir.path().join("state.safetensors")).unwrap();
        let mut back = State::load(&dir.path().join("state.safetensors")).unwrap();
        assert_eq!(back.integer("round").unwrap(), 3);
        assert_eq!(back.take_nested("inner"), state);
        assert_eq!(back.names().collect::<Vec<_>>(), ["round"]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let mut state = State::default();
        state.set_reals("w", vec![1.0]);
        for says in [state.take_integers("w"), state.take_integers("v")].map(|r| r.unwrap_err().to_string()) {
            assert!(says.contains("no whole numbers of this name"), "{says}");
        }
        assert!(State::from_bytes(b"no").is_err());
    }
}
