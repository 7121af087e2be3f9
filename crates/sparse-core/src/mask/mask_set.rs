//! Which weights are kept: one bit per weight, in PyTorch's order of the tensor.

use std::path::Path;

use indexmap::IndexMap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::mask::bitpack as words;
use crate::mask::matrix_dims;
use crate::{Error, Result};
use regrow_checkpoint::atomic;

/// Which weights of one tensor are kept (true) and which are pruned (false).
///
/// Bits are in row-major order of `shape`, the tensor's shape as PyTorch stores it (`[d_out, d_in]`, `[out, in, kh,
/// kw]`), independent of the layout in the Burn module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    shape: Vec<usize>,
    words: Vec<u64>,
}

impl Mask {
    /// A mask of `shape` that keeps everything.
    pub fn dense(shape: impl Into<Vec<usize>>) -> Self {
        Self::from_fn(shape, |_| true)
    }

    /// The mask of `shape` that keeps the indices for which `keep` is true.
    pub fn from_fn(shape: impl Into<Vec<usize>>, keep: impl Fn(usize) -> bool) -> Self {
        let shape = shape.into();
        let len: usize = shape.iter().product();
        let word = |w: usize| {
            let end = (len - w * 64).min(64);
            (0..end).fold(0u64, |bits, b| bits | (u64::from(keep(w * 64 + b)) << b))
        };
        Self { words: (0..len.div_ceil(64)).map(word).collect(), shape }
    }

    /// The mask of `shape` from one bool per weight, row-major, true = kept.
    ///
    /// # Errors
    /// If their number does not fit `shape`.
    pub fn from_bools(shape: impl Into<Vec<usize>>, keep: &[bool]) -> Result<Self> {
        let shape = shape.into();
        let len: usize = shape.iter().product();
        if keep.len() != len {
            return Err(Error::Argument(format!("a mask of shape {shape:?} needs {len} bools, not {}", keep.len())));
        }
        Self::from_words(shape, words::words(keep))
    }

    /// The mask of `shape` whose packed words, low bit first, are `words`.
    ///
    /// # Errors
    /// If the number of words does not fit `shape`. Bits past the end are cleared.
    pub fn from_words(shape: impl Into<Vec<usize>>, words: Vec<u64>) -> Result<Self> {
        let shape = shape.into();
        let len: usize = shape.iter().product();
        if words.len() != len.div_ceil(64) {
            return Err(Error::Argument(format!(
                "a mask of shape {shape:?} needs {} words, not {}",
                len.div_ceil(64),
                words.len()
            )));
        }
        Ok(Self::cut(shape, words))
    }

    /// As many words as `shape` needs, with the bits past the end cleared.
    fn cut(shape: Vec<usize>, mut words: Vec<u64>) -> Self {
        let len: usize = shape.iter().product();
        if let Some(last) = words.last_mut().filter(|_| !len.is_multiple_of(64)) {
            *last &= (1u64 << (len % 64)) - 1;
        }
        Self { shape, words }
    }

    /// The shape, as PyTorch stores the tensor.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of weights, kept and pruned.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there are no weights at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether weight `index` (row-major) is kept; false past the end.
    pub fn keeps(&self, index: usize) -> bool {
        self.words.get(index / 64).is_some_and(|w| w >> (index % 64) & 1 == 1)
    }

    /// The number of weights kept.
    pub fn kept(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// The number of weights pruned.
    pub fn pruned(&self) -> usize {
        self.len() - self.kept()
    }

    /// The fraction of weights pruned, in [0, 1]; 0 for an empty mask.
    pub fn sparsity(&self) -> f64 {
        if self.is_empty() { 0.0 } else { self.pruned() as f64 / self.len() as f64 }
    }

    /// Kept in both.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn and(&self, other: &Self) -> Result<Self> {
        self.zip(other, |a, b| a & b)
    }

    /// Kept in at least one.
    ///
    /// # Errors
    /// If the shapes differ.
    pub fn or(&self, other: &Self) -> Result<Self> {
        self.zip(other, |a, b| a | b)
    }

    /// Kept exactly where `self` is pruned.
    pub fn inverted(&self) -> Self {
        Self::cut(self.shape.clone(), self.words.iter().map(|word| !word).collect())
    }

    /// Whether everything kept here is kept in `other` too.
    pub fn is_within(&self, other: &Self) -> bool {
        self.shape == other.shape && self.words.iter().zip(&other.words).all(|(a, b)| a & !b == 0)
    }

    /// The first index at which the masks differ.
    pub fn first_difference(&self, other: &Self) -> Option<usize> {
        (0..self.len().max(other.len())).find(|&i| self.keeps(i) != other.keeps(i))
    }

    /// One bool per weight, true = kept, row-major.
    pub fn to_bools(&self) -> Vec<bool> {
        words::bools(&self.words, self.len())
    }

    /// The same for the transpose of the matrix `[d_out, everything else]`.
    pub(crate) fn to_bools_transposed(&self) -> Vec<bool> {
        let (rows, cols) = matrix_dims(&self.shape);
        words::bools_transposed(&self.words, rows, cols)
    }

    /// Sets to `value` those of `values`, one per weight, row-major, that are pruned. Values past the
    /// last weight stay.
    pub fn fill_pruned(&self, values: &mut [f32], value: f32) {
        let len = self.len().min(values.len());
        words::fill_unset(&self.words, &mut values[..len], value);
    }

    /// Packed bits, 64 a word, low bit first.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    fn zip(&self, other: &Self, f: impl Fn(u64, u64) -> u64) -> Result<Self> {
        if self.shape != other.shape {
            return Err(Error::Argument(format!(
                "masks of shapes {:?} and {:?} cannot be combined",
                self.shape, other.shape
            )));
        }
        let words = self.words.iter().zip(&other.words).map(|(a, b)| f(*a, *b)).collect();
        Ok(Self { shape: self.shape.clone(), words })
    }
}

/// Masks by parameter path, in model order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaskSet(IndexMap<String, Mask>);

impl MaskSet {
    /// No masks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds or replaces the mask of parameter `path`.
    pub fn insert(&mut self, path: impl Into<String>, mask: Mask) {
        self.0.insert(path.into(), mask);
    }

    /// The mask of parameter `path`.
    pub fn get(&self, path: &str) -> Option<&Mask> {
        self.0.get(path)
    }

    /// Paths and masks, in model order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Mask)> {
        self.0.iter().map(|(path, mask)| (path.as_str(), mask))
    }

    /// The number of masks.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no masks.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of weights pruned in all masks together.
    pub fn pruned(&self) -> usize {
        self.0.values().map(Mask::pruned).sum()
    }

    /// The number of weights in all masks together.
    pub fn weights(&self) -> usize {
        self.0.values().map(Mask::len).sum()
    }

    /// The fraction of weights pruned in all masks together; 0 without masks.
    pub fn sparsity(&self) -> f64 {
        if self.weights() == 0 { 0.0 } else { self.pruned() as f64 / self.weights() as f64 }
    }

    /// Whether every mask exists in `other` too and keeps nothing that `other` prunes.
    pub fn is_within(&self, other: &Self) -> bool {
        self.iter().all(|(path, mask)| other.get(path).is_some_and(|o| mask.is_within(o)))
    }

    /// Where `self` and `other` first differ, in words; `None` if they are equal.
    pub fn difference(&self, other: &Self) -> Option<String> {
        for (path, mask) in self.iter() {
            match other.get(path) {
                None => return Some(format!("{path} has a mask in one and none in the other")),
                Some(o) if o.shape() != mask.shape() => {
                    return Some(format!("{path} is {:?} in one, {:?} in the other", mask.shape(), o.shape()));
                }
                Some(o) => {
                    if let Some(index) = mask.first_difference(o) {
                        return Some(format!("{path} differs, first at index {index}"));
                    }
                }
            }
        }
        let extra = other.iter().find(|(path, _)| self.get(path).is_none());
        extra.map(|(path, _)| format!("{path} has a mask in one and none in the other"))
    }

    /// Writes the masks to a safetensors file, eight weights per byte (low bit first), with the shapes in the file's
    /// metadata. The file is either complete or absent.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let bytes: Vec<_> = self.iter().map(|(name, mask)| (name, mask.shape(), pack(mask))).collect();
        let views = bytes
            .iter()
            .map(|(name, _, data)| TensorView::new(Dtype::U8, vec![data.len()], data).map(|view| (*name, view)));
        let views =
            views.collect::<std::result::Result<Vec<_>, _>>().map_err(|e| Error::format(path, e.to_string()))?;
        let shapes: Vec<_> = bytes.iter().map(|(name, shape, _)| (*name, *shape)).collect();
        let shapes = serde_json::to_string(&shapes).map_err(|e| Error::format(path, e.to_string()))?;
        let metadata = [(SHAPES.to_string(), shapes)].into();
        let file = safetensors::serialize(views, Some(metadata)).map_err(|e| Error::format(path, e.to_string()))?;
        Ok(atomic::write_atomic(path, |out| out.write_all(&file))?)
    }

    /// Reads masks that [`MaskSet::save`] wrote.
    ///
    /// # Errors
    /// If the file is missing, truncated, or contains no masks.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let bad = |reason: String| Error::format(path, reason);
        let file = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let tensors = SafeTensors::deserialize(&file).map_err(|e| bad(e.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&file).map_err(|e| bad(e.to_string()))?;
        let shapes =
            header.metadata().as_ref().and_then(|m| m.get(SHAPES)).ok_or_else(|| bad("holds no masks".into()))?;
        let shapes: Vec<(String, Vec<usize>)> = serde_json::from_str(shapes).map_err(|e| bad(e.to_string()))?;
        let mut masks = Self::new();
        for (name, shape) in shapes {
            let view = tensors.tensor(&name).map_err(|e| bad(e.to_string()))?;
            let mask = unpack(shape, view.data()).map_err(|e| bad(format!("{name}: {e}")))?;
            masks.insert(name, mask);
        }
        Ok(masks)
    }
}

impl FromIterator<(String, Mask)> for MaskSet {
    fn from_iter<T: IntoIterator<Item = (String, Mask)>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

/// The metadata key of the shapes.
const SHAPES: &str = "regrow.masks";

fn pack(mask: &Mask) -> Vec<u8> {
    let bytes = mask.words.iter().flat_map(|w| w.to_le_bytes());
    bytes.take(mask.len().div_ceil(8)).collect()
}

fn unpack(shape: Vec<usize>, bytes: &[u8]) -> Result<Mask> {
    let len = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    if len.map(|n| n.div_ceil(8)) != Some(bytes.len()) {
        return Err(Error::Argument(format!("{} bytes do not hold a mask of shape {shape:?}", bytes.len())));
    }
    let words = bytes.chunks(8).map(|c| c.iter().rev().fold(0u64, |w, b| w << 8 | u64::from(*b)));
    Mask::from_words(shape, words.collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(rows: usize, cols: usize, keep: &str) -> Mask {
        let keep: Vec<bool> = keep.chars().filter(|c| !c.is_whitespace()).map(|c| c == '1').collect();
        Mask::from_fn([rows, cols], |i| keep[i])
    }

    #[test]
    fn counts_what_the_eye_counts() {
        let m = mask(2, 4, "1001 0111");
        assert_eq!((m.kept(), m.pruned(), m.sparsity()), (5, 3, 0.375));
        assert_eq!(m.inverted(), mask(2, 4, "0110 1000"));
        assert_eq!(m.and(&mask(2, 4, "1100 0011")).unwrap(), mask(2, 4, "1000 0011"));
        assert_eq!(m.or(&mask(2, 4, "1100 0011")).unwrap(), mask(2, 4, "1101 0111"));
        assert!(m.and(&Mask::dense([4, 2])).is_err());
    }

    #[test]
    fn says_where_two_sets_differ() {
        let set = |keep: &str| MaskSet::from_iter([("a.weight".to_string(), mask(1, 4, keep))]);
        assert_eq!(set("1010").difference(&set("1010")), None);
        assert_eq!(set("1010").difference(&set("1011")).unwrap(), "a.weight differs, first at index 3");
        assert!(set("1010").difference(&MaskSet::new()).unwrap().contains("a.weight"));
        assert!(MaskSet::new().difference(&set("1010")).unwrap().contains("a.weight"));
    }

    #[test]
    fn a_file_that_holds_no_masks_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.safetensors");
        assert!(MaskSet::load(&path).unwrap_err().to_string().contains("m.safetensors"));
        std::fs::write(&path, b"short").unwrap();
        assert!(MaskSet::load(&path).is_err());
    }

    proptest! {
        #[test]
        fn saving_and_loading_is_the_identity(sizes in prop::collection::vec(0usize..200, 1..4), seed in any::<u64>()) {
            let set: MaskSet = sizes.iter().enumerate().map(|(i, n)| {
                let bit = |k: usize| (seed ^ (k as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)).count_ones().is_multiple_of(2);
                (format!("layer{i}.weight"), Mask::from_fn([*n], bit))
            }).collect();
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("m.safetensors");
            set.save(&path).unwrap();
            prop_assert_eq!(MaskSet::load(&path).unwrap(), set);
        }

        #[test]
        fn kept_and_pruned_add_up(bits in prop::collection::vec(any::<bool>(), 0..300)) {
            let m = Mask::from_fn([bits.len()], |i| bits[i]);
            prop_assert_eq!(m.to_bools(), bits.clone());
            prop_assert_eq!(&Mask::from_bools([bits.len()], &bits).unwrap(), &m);
            let mut values = vec![1.0; bits.len()];
            m.fill_pruned(&mut values, 0.0);
            prop_assert!(values.iter().zip(&bits).all(|(v, keep)| (*v == 1.0) == *keep));
            prop_assert_eq!(m.inverted().to_bools(), bits.iter().map(|b| !b).collect::<Vec<_>>());
            prop_assert_eq!(m.kept(), bits.iter().filter(|b| **b).count());
            prop_assert_eq!(m.inverted().kept(), m.pruned());
            prop_assert!(m.is_within(&m.or(&m.inverted()).unwrap()));
        }
    }
}
