//! The tensors of a checkpoint to write, and their files: sizes are known before any value is.

use std::collections::{BTreeMap, HashSet};

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::json;

use crate::Entry;
use crate::{Error, Result};

/// Elements that each thread may process at a time, a matrix of 4096 x 4096; a larger tensor is processed alone.
const PER_THREAD: usize = 1 << 24;

/// A tensor to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its name.
    pub name: String,
    /// Its type in the file.
    pub dtype: Dtype,
    /// Its sizes, outermost first.
    pub shape: Vec<usize>,
}

impl Planned {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Length of its data in bytes.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.bitsize() / 8
    }

    /// Bytes, or `None` if the count overflows or ends inside a byte.
    fn checked(&self) -> Option<usize> {
        let elements = self.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        let bits = elements.checked_mul(self.dtype.bitsize())?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

impl From<&Entry> for Planned {
    fn from(entry: &Entry) -> Self {
        Self { name: entry.name.clone(), dtype: entry.dtype, shape: entry.shape.clone() }
    }
}

/// The tensors of a checkpoint to write, file by file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub(super) files: Vec<PlannedFile>,
    metadata: BTreeMap<String, String>,
}

/// One file of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PlannedFile {
    pub name: String,
    /// In the order of their data.
    pub tensors: Vec<Planned>,
}

impl Plan {
    /// The tensors in this order, in files of at most `limit` bytes (a larger tensor has one to itself):
    /// `model.safetensors`, or `model-00001-of-00003.safetensors` and so on.
    ///
    /// # Errors
    /// No tensors, a duplicate name, or an impossible shape.
    pub fn sharded(tensors: Vec<Planned>, limit: usize) -> Result<Self> {
        check(&tensors)?;
        let mut shards: Vec<Vec<Planned>> = Vec::new();
        let mut filled = 0;
        for tensor in tensors {
            let bytes = tensor.bytes();
            match shards.last_mut() {
                Some(shard) if bytes <= limit.saturating_sub(filled) => {
                    filled += bytes;
                    shard.push(tensor);
                }
                _ => {
                    filled = bytes;
                    shards.push(vec![tensor]);
                }
            }
        }
        let count = shards.len();
        let name = |i: usize| match count {
            1 => "model.safetensors".to_string(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        let files = shards.into_iter().enumerate().map(|(i, tensors)| PlannedFile::new(name(i), tensors)).collect();
        Ok(Self { files, metadata: metadata() })
    }

    /// All tensors in one file of this name, such as `adapter_model.safetensors`.
    ///
    /// # Errors
    /// As [`Plan::sharded`].
    pub fn one(file: impl Into<String>, tensors: Vec<Planned>) -> Result<Self> {
        check(&tensors)?;
        Ok(Self { files: vec![PlannedFile::new(file.into(), tensors)], metadata: metadata() })
    }

    /// With an entry under `__metadata__` of every file; transformers requires `format` to be `pt`, which is the
    /// default.
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Everything before the first tensor of a file.
    pub(super) fn header(&self, file: &PlannedFile) -> Result<Vec<u8>> {
        file.header(&self.metadata)
    }

    /// All tensors, file by file.
    pub fn tensors(&self) -> impl Iterator<Item = &Planned> {
        self.files.iter().flat_map(|file| &file.tensors)
    }

    /// Number of files.
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// Bytes of all tensors.
    pub fn bytes(&self) -> usize {
        self.tensors().map(Planned::bytes).sum()
    }

    /// The most elements that are processed at a time on `threads` threads: those of the largest tensor, or about 16
    /// million for each thread.
    pub fn in_work(&self, threads: usize) -> usize {
        let sizes: Vec<usize> = self.tensors().map(Planned::elements).collect();
        let largest = sizes.iter().copied().max().unwrap_or(0);
        largest.max(sizes.iter().sum::<usize>().min(threads.saturating_mul(PER_THREAD)))
    }

    /// `model.safetensors.index.json`, if there are several files.
    pub(super) fn index(&self) -> Option<serde_json::Value> {
        let place = |file: &PlannedFile| -> Vec<(String, String)> {
            file.tensors.iter().map(|t| (t.name.clone(), file.name.clone())).collect()
        };
        let map: BTreeMap<String, String> = self.files.iter().flat_map(place).collect();
        (self.files.len() > 1).then(|| json!({ "metadata": { "total_size": self.bytes() }, "weight_map": map }))
    }
}

impl PlannedFile {
    /// Wider types come first, so that every tensor starts at a multiple of its element's width.
    fn new(name: String, mut tensors: Vec<Planned>) -> Self {
        tensors.sort_by_key(|t| std::cmp::Reverse(t.dtype.bitsize()));
        Self { name, tensors }
    }

    pub fn bytes(&self) -> usize {
        self.tensors.iter().map(Planned::bytes).sum()
    }

    /// Everything before the first tensor, a multiple of 8 bytes.
    fn header(&self, metadata: &BTreeMap<String, String>) -> Result<Vec<u8>> {
        let mut start = 0;
        let info = |tensor: &Planned| {
            let data_offsets = (start, start + tensor.bytes());
            start = data_offsets.1;
            (tensor.name.clone(), TensorInfo { dtype: tensor.dtype, shape: tensor.shape.clone(), data_offsets })
        };
        let infos = self.tensors.iter().map(info).collect();
        let tensors = Metadata::new(None, infos).map_err(|e| Error::format(&self.name, e.to_string()))?;
        let text = |json: serde_json::Result<String>| json.map_err(|e| Error::format(&self.name, e.to_string()));
        let (metadata, tensors) = (text(serde_json::to_string(metadata))?, text(serde_json::to_string(&tensors))?);
        // Not by the library, which does not order metadata: every run writes the same bytes.
        let tensors = tensors.trim_start_matches('{');
        let mut json = format!("{{\"__metadata__\":{metadata},{tensors}").into_bytes();
        json.resize(json.len().next_multiple_of(8), b' ');
        Ok([&(json.len() as u64).to_le_bytes()[..], &json].concat())
    }
}

fn metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".into(), "pt".into())])
}

fn check(tensors: &[Planned]) -> Result<()> {
    if tensors.is_empty() {
        return Err(Error::Argument("there are no tensors to write".into()));
    }
    let mut names = HashSet::new();
    let mut total = 0usize;
    for tensor in tensors {
        let added = tensor.checked().and_then(|bytes| total.checked_add(bytes));
        total = added.ok_or_else(|| Error::tensor(&tensor.name, format!("shape {:?} is impossible", tensor.shape)))?;
        if tensor.name == "__metadata__" || !names.insert(&tensor.name) {
            return Err(Error::tensor(&tensor.name, "cannot be written twice, nor under this name if it is reserved"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, dtype: Dtype, n: usize) -> Planned {
        Planned { name: name.into(), dtype, shape: vec![n] }
    }

    #[test]
    fn shards_are_filled_in_order_and_named_for_transformers() {
        let tensors = [3, 1, 5, 1, 1].map(|n| tensor(&format!("t{n}"), Dtype::F32, n)).to_vec();
        let twice = Plan::sharded(tensors.clone(), 16).unwrap_err();
        assert!(twice.to_string().contains("t1"), "{twice}");
        let tensors: Vec<Planned> =
            tensors.into_iter().enumerate().map(|(i, t)| Planned { name: format!("{i}"), ..t }).collect();
        let plan = Plan::sharded(tensors.clone(), 16).unwrap();
        let names: Vec<_> = plan.files.iter().map(|f| (f.name.as_str(), f.tensors.len())).collect();
        let expected = [
            ("model-00001-of-00003.safetensors", 2),
            ("model-00002-of-00003.safetensors", 1),
            ("model-00003-of-00003.safetensors", 2),
        ];
        assert_eq!(names, expected);
        let index = plan.index().unwrap();
        assert_eq!(index["weight_map"]["2"], "model-00002-of-00003.safetensors");
        assert_eq!(index["metadata"]["total_size"], 44);
        let one = Plan::sharded(tensors, usize::MAX).unwrap();
        assert_eq!((one.files[0].name.as_str(), one.index()), ("model.safetensors", None));
    }

    #[test]
    fn metadata_are_in_order_and_read_by_safetensors() {
        let plan = Plan::one("x", vec![tensor("w", Dtype::F32, 1)]).unwrap();
        let plan = ["z", "a", "m\"\n{"].into_iter().fold(plan, |plan, key| plan.with_metadata(key, format!("{key}!")));
        let mut file = plan.header(&plan.files[0]).unwrap();
        let text = String::from_utf8(file[8..].to_vec()).unwrap();
        let places = ["\"a\"", "\"format\"", "\"m\\\"", "\"z\"", "\"w\""].map(|key| text.find(key).unwrap());
        assert!(places.is_sorted(), "{text}");
        file.extend(1f32.to_le_bytes());
        let (_, header) = safetensors::SafeTensors::read_metadata(&file).unwrap();
        let said = header.metadata().as_ref().unwrap();
        assert_eq!((said.len(), said["m\"\n{"].as_str()), (4, "m\"\n{!"));
        assert_eq!(safetensors::SafeTensors::deserialize(&file).unwrap().tensor("w").unwrap().shape(), [1]);
    }

    #[test]
    fn every_tensor_lies_at_a_multiple_of_its_width() {
        let plan = Plan::one("x", vec![tensor("a", Dtype::F16, 3), tensor("b", Dtype::F32, 1)]).unwrap();
        assert_eq!(plan.tensors().map(|t| t.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert!(plan.header(&plan.files[0]).unwrap().len().is_multiple_of(8));
    }

    #[test]
    fn impossible_plans_are_refused() {
        assert!(Plan::sharded(vec![], 1).is_err());
        assert!(Plan::one("x", vec![tensor("a", Dtype::F32, usize::MAX)]).is_err());
        assert!(Plan::one("x", vec![tensor("__metadata__", Dtype::F32, 1)]).is_err());
    }

    #[test]
    fn one_large_tensor_or_several_small_ones_are_in_work() {
        let plan = |sizes: &[usize]| {
            let tensors = sizes.iter().enumerate().map(|(i, n)| tensor(&i.to_string(), Dtype::F32, *n));
            Plan::one("x", tensors.collect()).unwrap()
        };
        assert_eq!(plan(&[100, 50]).in_work(4), 150);
        assert_eq!(plan(&[PER_THREAD; 5]).in_work(2), 2 * PER_THREAD);
        assert_eq!(plan(&[PER_THREAD * 3, 9]).in_work(2), 3 * PER_THREAD);
    }
}
