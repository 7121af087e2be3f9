//! Matrices that are stored in parts, shown as unpacked tensors.

use std::collections::{HashMap, HashSet};

use safetensors::Dtype;

use crate::Result;
use crate::header::Packed;
use crate::storage::{self, Part, Storage, packed_name, part_name};
use crate::{Checkpoint, Entry};

/// More dimensions than any weight has.
const MOST_DIMENSIONS: usize = 8;

impl Checkpoint {
    /// Replaces the parts of each packed matrix by one entry, in the place of its kept values.
    pub(super) fn unfolded(mut self) -> Result<Self> {
        let packed = self.entries.iter().filter_map(|entry| self.packed_entry(entry).transpose());
        let packed: HashMap<String, Entry> = packed.collect::<Result<_>>()?;
        if packed.is_empty() {
            return Ok(self);
        }
        let parts = |whole: &Entry| Part::ALL.map(|part| part_name(&whole.name, part));
        let hidden: HashSet<String> = packed.values().flat_map(parts).collect();
        let whole = |entry: Entry| match packed.get(&entry.name) {
            Some(whole) => Some(whole.clone()),
            None => (!hidden.contains(&entry.name)).then_some(entry),
        };
        self.entries = std::mem::take(&mut self.entries).into_iter().filter_map(whole).collect();
        self.by_name = self.entries.iter().enumerate().map(|(i, entry)| (entry.name.clone(), i)).collect();
        Ok(self)
    }

    /// If `entry` holds the kept values of a packed matrix: its name, and the entry of the matrix.
    fn packed_entry(&self, entry: &Entry) -> Result<Option<(String, Entry)>> {
        let Some(name) = packed_name(&entry.name) else { return Ok(None) };
        let find = |part| self.by_name.get(&part_name(&name, part)).map(|&position| &self.entries[position]);
        let (Some(bitmask), Some(shape)) = (find(Part::Bitmask), find(Part::Shape)) else { return Ok(None) };
        if self.by_name.contains_key(name.as_ref()) {
            return Err(self.about(entry, &format!("{name:?} is here packed and as it is")));
        }
        let offsets = find(Part::RowOffsets);
        let storage = if offsets.is_some() { Storage::Bitmask } else { Storage::TwoFour };
        let bytes = entry.range.len() + bitmask.range.len() + shape.range.len() + offsets.map_or(0, |o| o.range.len());
        let dims = self.dense_shape(shape, bitmask).map_err(|reason| self.about(entry, &reason))?;
        let place = (bitmask.file, bitmask.range.clone());
        let packed = Some(Packed { storage, bitmask: place, bytes });
        let whole = Entry { name: name.into_owned(), shape: dims, packed, ..entry.clone() };
        Ok(Some((entry.name.clone(), whole)))
    }

    /// The shape of a packed matrix, which its bitmask must fit.
    fn dense_shape(&self, shape: &Entry, bitmask: &Entry) -> Result<Vec<usize>, String> {
        let wrong = || "its shape is not given as a few 64-bit numbers".to_string();
        if shape.dtype != Dtype::I64 || !(1..=MOST_DIMENSIONS).contains(&shape.elements()) {
            return Err(wrong());
        }
        let numbers = self.files[shape.file].data(shape).as_chunks::<8>().0;
        let dims: Vec<usize> = numbers
            .iter()
            .map(|n| usize::try_from(i64::from_le_bytes(*n)))
            .collect::<Result<_, _>>()
            .map_err(|_| wrong())?;
        let (last, others) = dims.split_last().ok_or_else(wrong)?;
        let rows = others.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
        let bits = rows.and_then(|rows| rows.checked_mul(last.div_ceil(8)));
        match bits == Some(bitmask.range.len()) && bitmask.dtype == Dtype::U8 {
            true => Ok(dims),
            false => Err(format!("its bitmask does not fit its shape {dims:?}")),
        }
    }

    /// The bytes of a packed matrix, whose kept values are `values`.
    pub(super) fn unpacked(&self, entry: &Entry, packed: &Packed, values: &[u8]) -> Result<Vec<u8>> {
        let (file, place) = &packed.bitmask;
        let bits = self.files[*file].at(place);
        storage::unpack(entry.dtype, &entry.shape, values, bits).map_err(|reason| self.about(entry, &reason))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use safetensors::tensor::TensorView;

    use super::*;

    type Raw<'a> = (&'a str, Dtype, Vec<usize>, Vec<u8>);

    fn write(path: &Path, tensors: &[Raw<'_>]) {
        let view = |(name, dtype, shape, bytes): &Raw<'_>| {
            (name.to_string(), TensorView::new(*dtype, shape.clone(), bytes.clone().leak()).unwrap())
        };
        fs::write(path, safetensors::serialize(tensors.iter().map(view), None).unwrap()).unwrap();
    }

    /// `[0 1.5 0; 2 0 0]`.
    fn parts() -> [Raw<'static>; 3] {
        let values = [1.5f32, 2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let shape = [2i64, 3].iter().flat_map(|v| v.to_le_bytes()).collect();
        [
            ("a.compressed", Dtype::F32, vec![2], values),
            ("a.bitmask", Dtype::U8, vec![2, 1], vec![0b010, 0b001]),
            ("a.shape", Dtype::I64, vec![2], shape),
        ]
    }

    #[test]
    fn parts_are_one_tensor_wherever_they_lie() {
        let folder = tempfile::tempdir().unwrap();
        let [compressed, bitmask, shape] = parts();
        write(&folder.path().join("1.safetensors"), &[compressed, ("b", Dtype::U8, vec![1], vec![7])]);
        write(&folder.path().join("2.safetensors"), &[bitmask, shape]);
        let index = r#"{"weight_map": {"a.compressed": "1.safetensors", "b": "1.safetensors",
            "a.bitmask": "2.safetensors", "a.shape": "2.safetensors"}}"#;
        fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(checkpoint.entries().iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["a.weight", "b"]);
        let entry = checkpoint.entry("a.weight").unwrap();
        assert_eq!((entry.shape.as_slice(), entry.bytes(), entry.stored_bytes()), (&[2, 3][..], 24, 26));
        assert_eq!(checkpoint.read_f32("a.weight").unwrap(), [0.0, 1.5, 0.0, 2.0, 0.0, 0.0]);
        assert_eq!(checkpoint.counts("a.weight").unwrap().zeros, 4);
        assert!(checkpoint.is_packed() && checkpoint.entry("a.shape").is_err());
    }

    #[test]
    fn parts_that_do_not_fit_are_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let says = |change: &dyn Fn(&mut Vec<Raw<'static>>)| {
            let mut tensors = parts().to_vec();
            change(&mut tensors);
            write(&path, &tensors);
            let opened = Checkpoint::open(&path).and_then(|c| c.read_f32("a.weight").map(drop));
            opened.unwrap_err().to_string()
        };
        let huge = |n: i64| move |t: &mut Vec<Raw<'static>>| t[2].3[..8].copy_from_slice(&n.to_le_bytes());
        assert!(says(&huge(i64::MAX)).contains("does not fit its shape"));
        assert!(says(&huge(-1)).contains("64-bit numbers"));
        assert!(says(&|t| t[2].1 = Dtype::F64).contains("64-bit numbers"));
        assert!(says(&|t| t[1].3[0] = 0b111).contains("keeps more values"));
        assert!(says(&|t| t.push(("a.weight", Dtype::U8, vec![1], vec![0]))).contains("packed and as it is"));
        // Names alone do not make a tensor packed.
        assert!(says(&|t| drop(t.remove(1))).contains("has no tensor"));
    }
}
