//! Parses a safetensors header and checks it against the length of the file.

use std::collections::BTreeMap;
use std::ops::Range;

use indexmap::IndexMap;
use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde_json::Value;

use crate::storage::Storage;

/// Longest header accepted, in bytes; the limit of the reference implementation.
const LONGEST: u64 = 100_000_000;
/// Bytes of the header's length, which precedes the header.
const LENGTH: usize = 8;

/// One tensor of a checkpoint, as its header describes it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Name, such as `model.layers.0.mlp.up_proj.weight`.
    pub name: String,
    /// Type of the elements.
    pub dtype: Dtype,
    /// Sizes, outermost first; empty for a scalar. PyTorch's weights are `[out, in, ...]`.
    pub shape: Vec<usize>,
    /// Which of the checkpoint's files holds it, counted from 0.
    pub file: usize,
    /// Where its bytes are, counted from the start of the file; those of its kept values if it is packed.
    pub(super) range: Range<usize>,
    /// The other parts of a packed matrix.
    pub(super) packed: Option<Packed>,
}

/// A matrix that is not stored densely.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    pub storage: Storage,
    /// File and range of its bitmask.
    pub bitmask: (usize, Range<usize>),
    /// Bytes of all its parts.
    pub bytes: usize,
}

impl Entry {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Length of its data in bytes, once it is unpacked.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.bitsize() / 8
    }

    /// Length in bytes of what the files hold of it.
    pub fn stored_bytes(&self) -> usize {
        self.packed.as_ref().map_or(self.range.len(), |packed| packed.bytes)
    }

    /// How the files hold it.
    pub fn storage(&self) -> Storage {
        self.packed.as_ref().map_or(Storage::Dense, |packed| packed.storage)
    }
}

/// A parsed header.
pub(super) struct Header {
    /// Bytes before the first tensor: the length and the header itself.
    pub length: usize,
    /// The strings under `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// The tensors in the order of their data.
    pub entries: Vec<Entry>,
}

/// Parses the header of `file`, a whole safetensors file; the error is the reason only.
///
/// Implemented here instead of with the safetensors crate, for errors that name the tensor and for sums that cannot
/// overflow whatever the header contains.
pub(super) fn parse(file: &[u8]) -> Result<Header, String> {
    let json = json(file)?;
    let length = LENGTH + json.len();
    let mut map: IndexMap<String, Value> =
        serde_json::from_slice(json).map_err(|e| format!("the header is not a JSON object of tensors: {e}"))?;
    let metadata = match map.shift_remove("__metadata__") {
        Some(value) => serde_json::from_value(value)
            .map_err(|e| format!("the header's __metadata__ is not a map of strings: {e}"))?,
        None => BTreeMap::new(),
    };

    let mut infos = Vec::with_capacity(map.len());
    for (name, value) in map {
        let info: TensorInfo = serde_json::from_value(value)
            .map_err(|e| format!("the header's entry for tensor {name:?} is invalid: {e}"))?;
        infos.push((name, info));
    }
    infos.sort_by_key(|(_, info)| info.data_offsets);
    let entries = place(infos, length, file.len())?;
    Ok(Header { length, metadata, entries })
}

/// The header's JSON text.
fn json(file: &[u8]) -> Result<&[u8], String> {
    if file.is_empty() {
        return Err("the file is empty".into());
    }
    let Some((length, rest)) = file.split_first_chunk::<LENGTH>() else {
        return Err(format!("cut short: {} bytes are too few for a safetensors file", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    let after = rest.len();
    if length > after as u64 {
        return Err(format!(
            "not a safetensors file or cut short: it promises a header of {length} bytes, {after} bytes follow"
        ));
    }
    if length > LONGEST {
        return Err(format!("the header of {length} bytes is longer than the {LONGEST} allowed"));
    }
    Ok(&rest[..length as usize])
}

/// Checks that the tensors, sorted by offset, fill the file's data without gap or overlap.
fn place(infos: Vec<(String, TensorInfo)>, data_start: usize, file_length: usize) -> Result<Vec<Entry>, String> {
    let available = file_length - data_start;
    let mut entries = Vec::with_capacity(infos.len());
    let mut expected = 0;
    for (name, info) in infos {
        let (start, end) = info.data_offsets;
        let size = size_of(&info).ok_or_else(|| format!("tensor {name:?}: shape {:?} is impossible", info.shape))?;
        if start != expected || end.checked_sub(start) != Some(size) {
            return Err(format!(
                "tensor {name:?}: its data should start at {expected} and take {size} bytes, \
                 the header says {start}..{end}"
            ));
        }
        if end > available {
            return Err(format!(
                "cut short: tensor {name:?} ends at byte {end} of the data, the file holds {available}"
            ));
        }
        expected = end;
        let range = data_start + start..data_start + end;
        entries.push(Entry { name, dtype: info.dtype, shape: info.shape, file: 0, range, packed: None });
    }
    if expected != available {
        let extra = available - expected;
        return Err(format!("{extra} bytes follow the last tensor and belong to none"));
    }
    Ok(entries)
}

/// Bytes of a tensor; `None` if the count overflows or ends inside a byte.
fn size_of(info: &TensorInfo) -> Option<usize> {
    let elements = info.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    let bits = elements.checked_mul(info.dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}
