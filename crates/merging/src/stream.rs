//! Merges checkpoints tensor by tensor, in the memory of a few tensors.
//!
//! ```
//! use regrow_merging::stream::{Merge, ModelInput};
//! use regrow_merging::{Masks, TensorMerge, WeightedAverageConfig};
//! use regrow_checkpoint::{Checkpoint, Contents, Dtype, Plan, Planned, Writer};
//! # let folder = tempfile::tempdir()?;
//! # let tensor = Planned { name: "w".into(), dtype: Dtype::F32, shape: vec![2] };
//! # let write = |name: &str, values: [f32; 2]| -> regrow_sparse_core::Result<_> {
//! #     let path = folder.path().join(name);
//! #     let mut writer = Writer::create(Plan::one(name, vec![tensor.clone()])?, &path, &[], "")?;
//! #     writer.write::<regrow_sparse_core::Error>(&|_| Ok(Contents::Values(values.to_vec())), &|_, _| ())?;
//! #     writer.finish()?;
//! #     Ok(path)
//! # };
//! # let (a, b) = (write("a.safetensors", [1.0, 2.0])?, write("b.safetensors", [3.0, 6.0])?);
//! # let out = folder.path().join("out.safetensors");
//! let (a, b) = (Checkpoint::open(a)?, Checkpoint::open(b)?);
//! let models = vec![ModelInput::new("a", &a), ModelInput::new("b", &b)];
//! let method = |_: &str| Ok(Box::new(WeightedAverageConfig::new().init(2)?) as Box<dyn TensorMerge>);
//! let merge = Merge::new(None, models, Masks::Ignore, None, &method)?;
//!
//! let mut writer = Writer::create(Plan::one("merged", merge.planned())?, &out, &[&a, &b], "linear")?;
//! writer.write(&|tensor| merge.tensor(tensor), &|_, _| ())?;
//! writer.finish()?;
//! assert_eq!(Checkpoint::open(&out)?.read_f32("w")?, [2.0, 4.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::HashMap;

use regrow_checkpoint::{Checkpoint, Contents, Dtype, Entry, Plan, Planned};
use regrow_sparse_core::mask::top_k::shares_of;
use regrow_sparse_core::{Error, Result};

use crate::masks::Masks;
use crate::tensors::{Operand, Operands, TensorMerge};

/// A model to merge.
#[derive(Clone, Copy, Debug)]
pub struct ModelInput<'a> {
    /// Its name in messages; random draws depend on it too.
    pub name: &'a str,
    /// Its weights.
    pub checkpoint: &'a Checkpoint,
    /// Statistics of its weights (see [`Operand::statistic`]), under the same names.
    pub statistics: Option<&'a Checkpoint>,
}

impl<'a> ModelInput<'a> {
    /// A model without statistics.
    pub fn new(name: &'a str, checkpoint: &'a Checkpoint) -> Self {
        Self { name, checkpoint, statistics: None }
    }
}

/// Compatible checkpoints, and a method for each of their tensors.
pub struct Merge<'a> {
    base: Option<&'a Checkpoint>,
    models: Vec<ModelInput<'a>>,
    masks: Masks,
    planned: Vec<Planned>,
    methods: HashMap<String, Box<dyn TensorMerge>>,
}

impl<'a> Merge<'a> {
    /// Checks that all inputs have the same tensors. The result has those of the base, or of the first model without
    /// one, in its order; `dtype` is the type of its floating-point tensors, by default the inputs'. `method` is called
    /// for each of them.
    ///
    /// Tensors of other types are not merged: they must be the same in all inputs, except counters of one element,
    /// which are taken from the base or the first model.
    ///
    /// # Errors
    /// No models; tensors that are missing from one, or have another shape, or, without `dtype`, another type; integer
    /// tensors that differ; errors of `method`, with the tensor's name.
    pub fn new(
        base: Option<&'a Checkpoint>,
        models: Vec<ModelInput<'a>>,
        masks: Masks,
        dtype: Option<Dtype>,
        method: &dyn Fn(&str) -> Result<Box<dyn TensorMerge>>,
    ) -> Result<Self> {
        let mut inputs: Vec<(&str, &Checkpoint)> = base.into_iter().map(|base| ("the base", base)).collect();
        inputs.extend(models.iter().map(|model| (model.name, model.checkpoint)));
        if models.is_empty() {
            return Err(Error::Argument("there are no models to merge".into()));
        }
        inputs[1..].iter().try_for_each(|other| compare(inputs[0], *other, dtype.is_some()))?;
        let mut planned: Vec<Planned> = inputs[0].1.entries().iter().map(Planned::from).collect();
        let mut methods = HashMap::new();
        for tensor in planned.iter_mut().filter(|tensor| is_float(tensor.dtype)) {
            tensor.dtype = dtype.unwrap_or(tensor.dtype);
            methods.insert(tensor.name.clone(), method(&tensor.name).map_err(|e| about(&tensor.name, e))?);
        }
        Ok(Self { base, models, masks, planned, methods })
    }

    /// The tensors to write.
    pub fn planned(&self) -> Vec<Planned> {
        self.planned.clone()
    }

    /// The contents of one of the planned tensors.
    ///
    /// # Errors
    /// A value that is not finite in an input, different masks although they must be the same, or errors of the method.
    pub fn tensor(&self, planned: &Planned) -> Result<Contents<'a>> {
        let Some(method) = self.methods.get(&planned.name) else {
            let lead = self.base.unwrap_or(self.models[0].checkpoint);
            return Ok(lead.raw(&planned.name).map(Contents::Bytes)?);
        };
        let merged = self.merged(method.as_ref(), planned);
        self.checkpoints().for_each(|checkpoint| checkpoint.release(&planned.name));
        merged.map(Contents::Values)
    }

    fn merged(&self, method: &dyn TensorMerge, planned: &Planned) -> Result<Vec<f32>> {
        let name = planned.name.as_str();
        let read =
            |from: &'a Checkpoint| if method.propagates_nan() { Ok(from.values(name)?) } else { finite(from, name) };
        let base = self.base.map(read).transpose()?;
        let values = self.models.iter().map(|model| read(model.checkpoint)).collect::<Result<Vec<_>>>()?;
        let statistic = |model: &ModelInput<'a>| {
            let known = model.statistics.filter(|statistics| statistics.entry(name).is_ok());
            known.map(|statistics| finite(statistics, name)).transpose()
        };
        let statistics = self.models.iter().map(statistic).collect::<Result<Vec<_>>>()?;
        let operands: Vec<Operand<'_>> = self
            .models
            .iter()
            .zip(values.iter().zip(&statistics))
            .map(|(model, (values, statistic))| Operand { model: model.name, values, statistic: statistic.as_deref() })
            .collect();
        let transposed = self.models.iter().filter_map(|model| model.statistics).any(|of| is_transposed(of, name));
        let tensor = Operands::new(name, &planned.shape, base.as_deref(), &operands)?.with_transposed(transposed);
        self.masks.check(&tensor)?;
        let mut merged = method.merge(&tensor)?;
        if method.propagates_nan() && !all_finite(&merged) {
            // Finds out which input it was.
            self.base.map(|base| finite(base, name)).transpose()?;
            self.models.iter().try_for_each(|model| finite(model.checkpoint, name).map(drop))?;
        }
        self.masks.apply(&tensor, &mut merged);
        Ok(merged)
    }

    /// Expected bytes of memory while `plan` is written on `threads` threads, besides the program's own: the tensors of
    /// every input being processed, and the result.
    pub fn peak(&self, plan: &Plan, threads: usize) -> usize {
        let element = |dtype: Dtype| dtype.bitsize() / 8;
        let of_input = |checkpoint: &Checkpoint| {
            let widest = checkpoint.entries().iter().map(|entry| element(entry.dtype)).max().unwrap_or(4);
            // In the file's type, and as f32 too if that differs.
            if widest == 4 { 4 } else { widest + 4 }
        };
        let each = self.checkpoints().map(of_input).sum::<usize>() + 4;
        plan.in_work(threads) * each
    }

    fn checkpoints(&self) -> impl Iterator<Item = &'a Checkpoint> {
        let models = self.models.iter().flat_map(|model| [Some(model.checkpoint), model.statistics]);
        models.chain([self.base]).flatten()
    }
}

/// The density of each tensor if the share `density` of largest magnitude is kept of a model's task vector as a whole:
/// the number of entries kept of a tensor is `floor(density * n)` of the tensor's `n`.
///
/// The model is read twice, a tensor at a time.
///
/// # Errors
/// A density outside `[0, 1]`, a base with other tensors, or values that are not finite.
pub fn densities_within(base: &Checkpoint, model: &Checkpoint, density: f64) -> Result<HashMap<String, f64>> {
    crate::params::check_fractions("density", &[density])?;
    let entries: Vec<&Entry> = base.entries().iter().filter(|entry| is_float(entry.dtype)).collect();
    let total: usize = entries.iter().map(|entry| entry.elements()).sum();
    let magnitudes = |index: usize| -> Result<std::borrow::Cow<'static, [f32]>> {
        let name = &entries[index].name;
        let (from, to) = (finite(base, name)?, finite(model, name)?);
        if from.len() != to.len() {
            return Err(Error::tensor(name, "has another shape in the base"));
        }
        let magnitudes = to.iter().zip(from.iter()).map(|(to, from)| (to - from).abs()).collect::<Vec<f32>>();
        [base, model].iter().for_each(|checkpoint| checkpoint.release(name));
        Ok(magnitudes.into())
    };
    let kept = shares_of(entries.len(), (density * total as f64) as usize, magnitudes)?;
    // Half an entry more, to compensate the rounding of the quotient.
    let share = |(entry, kept): (&&Entry, usize)| match entry.elements() {
        n if n == kept => (entry.name.clone(), 1.0),
        n => (entry.name.clone(), (kept as f64 + 0.5) / n as f64),
    };
    Ok(entries.iter().zip(kept).map(share).collect())
}

/// The metadata key under which statistics list, one per line, the matrices that are stored `[in, out]`.
pub const TRANSPOSED: &str = "regrow_transposed";
/// The name in files of earlier versions.
const TURNED: &str = "regrow_turned";

/// Whether statistics mark a matrix as stored `[in, out]`.
fn is_transposed(statistics: &Checkpoint, name: &str) -> bool {
    let listed = statistics.metadata().flat_map(|lines| [lines.get(TRANSPOSED), lines.get(TURNED)]);
    listed.flatten().any(|names| names.lines().any(|line| line == name))
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// Adds the tensor's name to an error that names none.
fn about(tensor: &str, error: Error) -> Error {
    match error {
        Error::Argument(reason) => Error::tensor(tensor, reason),
        other => other,
    }
}

/// Rejects two checkpoints that do not have the same tensors.
fn compare(lead: (&str, &Checkpoint), other: (&str, &Checkpoint), any_type: bool) -> Result<()> {
    let lacks = |(name, of): (&str, &Checkpoint), (which, has): (&str, &Checkpoint)| {
        let missing = has.entries().iter().find(|entry| of.entry(&entry.name).is_err());
        missing.map_or(Ok(()), |entry| {
            Err(Error::tensor(&entry.name, format!("is in {which}, not in {name}: models of different architectures")))
        })
    };
    lacks(other, lead)?;
    lacks(lead, other)?;
    lead.1.entries().iter().try_for_each(|entry| same_kind(lead, entry, other, any_type))
}

fn same_kind(lead: (&str, &Checkpoint), entry: &Entry, other: (&str, &Checkpoint), any_type: bool) -> Result<()> {
    let found = other.1.entry(&entry.name)?;
    let says = |a: String, b: String, more: &str| {
        Err(Error::tensor(&entry.name, format!("is {a} in {}, {b} in {}{more}", lead.0, other.0)))
    };
    if entry.shape != found.shape {
        let vocabularies = entry.shape.len() == 2 && entry.shape[1..] == found.shape[1..] && is_word(&entry.name);
        let more = if vocabularies { ": models with different vocabularies are not merged" } else { "" };
        return says(format!("{:?}", entry.shape), format!("{:?}", found.shape), more);
    }
    let both_float = is_float(entry.dtype) && is_float(found.dtype);
    if entry.dtype != found.dtype && !(any_type && both_float) {
        let more = if both_float { ": say which type the result shall have (dtype)" } else { "" };
        return says(entry.dtype.to_string(), found.dtype.to_string(), more);
    }
    if !both_float && entry.elements() > 1 && lead.1.raw(&entry.name)? != other.1.raw(&entry.name)? {
        return says(entry.dtype.to_string(), "different".into(), ": only floating-point tensors can be merged");
    }
    Ok(())
}

/// Whether a tensor has a row for each token of the vocabulary, by its name.
fn is_word(name: &str) -> bool {
    ["embed", "wte", "lm_head"].iter().any(|part| name.contains(part))
}

/// One tensor's values, all of them finite.
fn finite<'c>(checkpoint: &'c Checkpoint, name: &str) -> Result<std::borrow::Cow<'c, [f32]>> {
    let values = checkpoint.values(name)?;
    if all_finite(&values) {
        return Ok(values);
    }
    let n = values.iter().filter(|v| !v.is_finite()).count();
    Err(Error::format(checkpoint.path(), format!("tensor {name:?} holds {n} values that are NaN or infinite")))
}

/// Whether all of them are finite: one bit per value, many at a time.
fn all_finite(values: &[f32]) -> bool {
    const BEYOND: u32 = f32::INFINITY.to_bits();
    let bad = |piece: &[f32]| piece.iter().fold(0u32, |bad, v| bad | u32::from(v.to_bits() & BEYOND == BEYOND)) != 0;
    !values.chunks(crate::sums::PIECE).any(bad)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use half::f16;
    use regrow_checkpoint::Writer;
    use safetensors::tensor::TensorView;

    use super::*;
    use crate::linear::WeightedAverageConfig;

    type Tensor<'a> = (&'a str, Dtype, Vec<usize>, Vec<f32>);

    fn w(values: &[f32]) -> Tensor<'static> {
        ("w", Dtype::F32, vec![values.len()], values.to_vec())
    }

    fn file(folder: &Path, name: &str, tensors: &[Tensor<'_>]) -> Checkpoint {
        let bytes = |(_, dtype, _, values): &Tensor<'_>| -> Vec<u8> {
            match dtype {
                Dtype::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
                Dtype::I64 => values.iter().flat_map(|v| (*v as i64).to_le_bytes()).collect(),
                _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            }
        };
        let bytes: Vec<Vec<u8>> = tensors.iter().map(bytes).collect();
        let views = tensors.iter().zip(&bytes).map(|(t, b)| (t.0, TensorView::new(t.1, t.2.clone(), b).unwrap()));
        let path: PathBuf = folder.join(name);
        std::fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
        Checkpoint::open(path).unwrap()
    }

    fn mean(_: &str) -> Result<Box<dyn TensorMerge>> {
        Ok(Box::new(WeightedAverageConfig::new().init(2)?))
    }

    fn merged(a: &Checkpoint, b: &Checkpoint, dtype: Option<Dtype>) -> Result<(TempFile, Checkpoint)> {
        let merge =
            Merge::new(None, vec![ModelInput::new("a", a), ModelInput::new("b", b)], Masks::Ignore, dtype, &mean)?;
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let mut writer = Writer::create(Plan::sharded(merge.planned(), 8)?, &out, &[a, b], "")?;
        writer.write(&|tensor| merge.tensor(tensor), &|_, _| ())?;
        writer.finish()?;
        Ok((folder, Checkpoint::open(&out)?))
    }

    type TempFile = tempfile::TempDir;

    #[test]
    fn types_may_differ_where_one_is_asked_for_and_counters_always() {
        let dir = tempfile::tempdir().unwrap();
        let half = ("h", Dtype::F16, vec![2, 1], vec![1.0, 2.0]);
        let single = ("h", Dtype::F32, vec![2, 1], vec![2.0, 3.0]);
        let count = |n: f32| ("steps", Dtype::I64, vec![], vec![n]);
        let a = file(dir.path(), "a", &[half.clone(), w(&[1.0, 5.0]), count(7.0)]);
        let b = file(dir.path(), "b", &[single, w(&[2.0, 7.0]), count(9.0)]);
        assert!(merged(&a, &b, None).err().unwrap().to_string().contains("h: is F16 in a, F32 in b: say which"));
        let (_folder, out) = merged(&a, &b, Some(Dtype::BF16)).unwrap();
        assert_eq!(out.read_f32("h").unwrap(), [1.5, 2.5]);
        assert_eq!(out.read_f32("w").unwrap(), [1.5, 6.0]);
        assert_eq!((out.entry("w").unwrap().dtype, out.raw("steps").unwrap()[0]), (Dtype::BF16, 7));
        let c = file(dir.path(), "c", &[half, w(&[2.0, 7.0]), count(9.0)]);
        let (_folder, out) = merged(&a, &c, None).unwrap();
        assert_eq!((out.entry("h").unwrap().dtype, out.entry("w").unwrap().dtype), (Dtype::F16, Dtype::F32));
    }

    #[test]
    fn what_does_not_fit_together_is_one_line_before_any_work() {
        let dir = tempfile::tempdir().unwrap();
        let says = |a: &[Tensor<'_>], b: &[Tensor<'_>]| {
            let (a, b) = (file(dir.path(), "a", a), file(dir.path(), "b", b));
            merged(&a, &b, None).err().unwrap().to_string()
        };
        let matrix = |name, rows: usize| (name, Dtype::F32, vec![rows, 2], vec![0.0; rows * 2]);
        assert_eq!(says(&[w(&[1.0])], &[w(&[1.0, 2.0])]), "w: is [1] in a, [2] in b");
        assert!(says(&[matrix("wte", 3)], &[matrix("wte", 2)]).contains("different vocabularies"));
        assert!(says(&[w(&[1.0]), matrix("x", 1)], &[w(&[1.0])]).contains("x: is in a, not in b"));
        assert!(says(&[w(&[1.0])], &[w(&[1.0]), matrix("x", 1)]).contains("x: is in b, not in a"));
        assert!(says(&[w(&[1.0, f32::NAN])], &[w(&[1.0, 2.0])]).contains("\"w\" holds 1 values that are NaN"));
        let ids = |n: f32| ("ids", Dtype::I64, vec![2], vec![0.0, n]);
        assert!(says(&[ids(1.0)], &[ids(2.0)]).contains("only floating-point"));
        assert!(Merge::new(None, vec![], Masks::Ignore, None, &mean).is_err());
    }

    #[test]
    fn a_model_is_trimmed_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        let two = |a: &[f32], b: &[f32]| {
            [("a", Dtype::F32, vec![a.len()], a.to_vec()), ("b", Dtype::F32, vec![b.len()], b.to_vec())]
        };
        let base = file(dir.path(), "base", &two(&[1.0; 4], &[0.0; 6]));
        let model = file(dir.path(), "m", &two(&[9.0, -7.0, 1.1, 6.0], &[0.2, 5.0, 0.3, 0.1, 0.0, 0.0]));
        let kept = |density| {
            let found = densities_within(&base, &model, density).unwrap();
            ((found["a"] * 4.0) as usize, (found["b"] * 6.0) as usize)
        };
        assert_eq!([0.0, 0.3, 0.4, 0.5, 1.0].map(kept), [(0, 0), (3, 0), (3, 1), (3, 2), (4, 6)]);
        assert!(densities_within(&base, &model, 1.5).is_err());
    }

    #[test]
    fn statistics_reach_the_method_and_masks_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let matrix = |values: &[f32]| ("w", Dtype::F32, vec![2, 1], values.to_vec());
        let (a, b) = (file(dir.path(), "a", &[matrix(&[0.0, 1.0])]), file(dir.path(), "b", &[matrix(&[0.0, 3.0])]));
        let (fa, fb) = (file(dir.path(), "fa", &[matrix(&[1.0, 3.0])]), file(dir.path(), "fb", &[matrix(&[1.0, 1.0])]));
        let models = || {
            let of = |name, checkpoint, statistics| ModelInput { name, checkpoint, statistics: Some(statistics) };
            vec![of("a", &a, &fa), of("b", &b, &fb)]
        };
        let fisher = |_: &str| Ok(Box::new(crate::FisherMergeConfig::new().init(2)?) as Box<dyn TensorMerge>);
        let merge = Merge::new(None, models(), Masks::Same, None, &fisher).unwrap();
        let Contents::Values(values) = merge.tensor(&merge.planned()[0]).unwrap() else { panic!("values") };
        crate::testing::close(&values, &[0.0, 1.5], 1e-5);
        assert_eq!(merge.peak(&Plan::one("x", merge.planned()).unwrap(), 2), 2 * (4 * 4 + 4));
        let denser = file(dir.path(), "d", &[matrix(&[1.0, 1.0])]);
        let models = vec![ModelInput::new("a", &a), ModelInput::new("d", &denser)];
        let merge = Merge::new(None, models, Masks::Same, None, &mean).unwrap();
        assert!(merge.tensor(&merge.planned()[0]).unwrap_err().to_string().contains("different masks"));
    }
}
