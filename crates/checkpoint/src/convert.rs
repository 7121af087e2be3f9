//! A copy of a checkpoint with weights of another type, or stored in another way.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;

use rayon::prelude::*;
use safetensors::Dtype;

use crate::config::{Config, Packing};
use crate::storage::{Matrix, Part, Storage, part_name};
use crate::{Checkpoint, Contents, Entry, Plan, Planned, Writer, values};
use crate::{Error, Result};

/// The maximum size of a file in a directory, in bytes; transformers' own limit was the same for years.
const SHARD: usize = 5_000_000_000;
/// The module of a head that is tied to the embedding, of which no file holds a weight.
const TIED: &str = "lm_head";

/// The form of a copy.
#[derive(Clone, Debug, Default)]
pub struct Form {
    /// The type of all tensors that are F64, F32, F16 or BF16; without it, each keeps its own.
    pub dtype: Option<Dtype>,
    /// How matrices are stored.
    pub storage: Storage,
    /// The weights of linear layers, by name: those that may be packed. Everything else stays dense.
    pub layers: HashSet<String>,
}

/// The result of a conversion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Converted {
    /// Matrices that are packed.
    pub packed: usize,
    /// Bytes of all tensors as they are stored.
    pub bytes: usize,
    /// Bytes that they would take dense.
    pub dense: usize,
}

/// Changes the bytes of a tensor during conversion, as for [`rewrite`](crate::rewrite).
pub type Edit<'a> = dyn Fn(&Entry, &[u8]) -> Result<Option<Vec<u8>>> + Sync + 'a;

impl Form {
    /// Whether a copy of `source` would equal the source.
    pub fn is_that_of(&self, source: &Checkpoint) -> bool {
        let same = |entry: &Entry| self.dtype_of(entry) == entry.dtype;
        self.storage == Storage::Dense && !source.is_packed() && source.entries().iter().all(same)
    }

    /// Checks that the source can take this form, before any work: refuses weights beyond the range of the new type,
    /// and quantized ones if they are to be packed. It takes as long as reading the tensors that change their type.
    ///
    /// # Errors
    /// The first such tensor by name, or one with NaN; a configuration with such a setting.
    pub fn check(&self, source: &Checkpoint) -> Result<()> {
        if self.storage != Storage::Dense && source.is_directory() {
            let packable = Config::read(source.path())?.map_or(Ok(()), |config| config.check_packable());
            packable.map_err(|reason| Error::format(source.path().join("config.json"), reason))?;
        }
        let narrower = |entry: &&Entry| match (entry.dtype, self.dtype_of(entry)) {
            (from, to) if from == to || !is_float(from) => false,
            (Dtype::F16, _) | (_, Dtype::F64) | (Dtype::BF16, Dtype::F32) => false,
            _ => true,
        };
        let entries: Vec<&Entry> = source.entries().iter().filter(narrower).collect();
        entries.par_iter().try_for_each(|entry| {
            let bytes = source.bytes_of(entry)?;
            self.typed(entry, bytes).map(|_| source.release(&entry.name))
        })
    }

    fn dtype_of(&self, entry: &Entry) -> Dtype {
        self.dtype.filter(|_| is_float(entry.dtype)).unwrap_or(entry.dtype)
    }

    /// The bytes of a tensor in the new type.
    fn typed<'b>(&self, entry: &Entry, bytes: Cow<'b, [u8]>) -> Result<Cow<'b, [u8]>> {
        let dtype = self.dtype_of(entry);
        if dtype == entry.dtype {
            return Ok(bytes);
        }
        let wide = values::decoded(entry.dtype, &bytes).map_err(|reason| Error::tensor(&entry.name, reason))?;
        Ok(Cow::Owned(values::encoded(&entry.name, dtype, &wide)?.into_owned()))
    }
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// Writes `source` to `out` in another form: values rounded to nearest (from `F64` through `F32`), matrices packed or
/// unpacked, `config.json` updated. Matrices that would take more space packed, or cannot be packed, stay dense. `edit`
/// changes tensors before that. `watch` is called with the bytes written and the total.
///
/// A directory becomes a directory with files of at most 5 GB, everything beside the weights copied; an `out` that ends
/// in `.safetensors` becomes one file. Everything is written beside `out` and renamed at the end: after an error
/// nothing is left.
///
/// # Errors
/// As [`Writer::create`]; values that are NaN or beyond the range of their new type (the message names the tensor); a
/// 2:4 storage that no layer conforms to; a quantized model; errors of `edit`.
pub fn convert(
    source: &Checkpoint,
    out: impl AsRef<Path>,
    form: &Form,
    edit: Option<&Edit<'_>>,
    watch: &(dyn Fn(usize, usize) + Sync),
) -> Result<Converted> {
    let conversion = Conversion { source, form, edit };
    let layout = conversion.layout()?;
    let config = conversion.config(&layout)?;
    let is_file = out.as_ref().extension().is_some_and(|e| e == "safetensors");
    let mut plan = Plan::sharded(layout.planned, if is_file { usize::MAX } else { SHARD })?;
    for (key, value) in source.metadata().next().into_iter().flatten() {
        plan = plan.with_metadata(key, value);
    }
    let done = Converted { bytes: plan.bytes(), ..layout.done };
    let mut writer = Writer::create(plan, out, &[source], "")?;
    writer.companions(source)?;
    if let Some(config) = config.filter(|_| !is_file) {
        writer.add("config.json", &config)?;
    }
    writer.write(&|tensor| conversion.contents(&layout.origins[&tensor.name]), watch)?;
    writer.finish()?;
    Ok(done)
}

struct Conversion<'a> {
    source: &'a Checkpoint,
    form: &'a Form,
    edit: Option<&'a Edit<'a>>,
}

/// A tensor to write: which part it is, if any, its type and shape.
type Stored = (Option<Part>, Dtype, Vec<usize>);

/// What to write.
struct Layout<'a> {
    planned: Vec<Planned>,
    /// By planned name: the tensor it comes from, and its part if it is packed.
    origins: HashMap<String, (&'a Entry, Option<Part>)>,
    done: Converted,
    /// Values in tensors of floating-point numbers, and how many are zero, if anything is packed.
    weights: usize,
    zeros: usize,
}

impl<'a> Conversion<'a> {
    /// The tensors to write. Those to be packed are read once for their sizes.
    fn layout(&self) -> Result<Layout<'a>> {
        let entries = self.source.entries();
        let sized = entries.par_iter().map(|entry| self.parts(entry)).collect::<Result<Vec<_>>>()?;
        let mut layout =
            Layout { planned: vec![], origins: HashMap::new(), done: Converted::default(), weights: 0, zeros: 0 };
        for (entry, (parts, zeros)) in entries.iter().zip(sized) {
            layout.done.packed += usize::from(parts.is_some());
            layout.done.dense += entry.elements() * self.form.dtype_of(entry).bitsize() / 8;
            layout.weights += if is_float(entry.dtype) { entry.elements() } else { 0 };
            layout.zeros += zeros;
            let whole = || vec![(None, self.form.dtype_of(entry), entry.shape.clone())];
            for (part, dtype, shape) in parts.unwrap_or_else(whole) {
                let name = part.map_or_else(|| entry.name.clone(), |part| part_name(&entry.name, part));
                layout.origins.insert(name.clone(), (entry, part));
                layout.planned.push(Planned { name, dtype, shape });
            }
        }
        match self.form.storage == Storage::TwoFour && layout.done.packed == 0 {
            true => {
                Err(Error::format(self.source.path(), "has no layer that is 2:4 along the rows as they are stored"))
            }
            false => Ok(layout),
        }
    }

    /// The parts of a tensor that is to be packed, and how many of its values are zero.
    fn parts(&self, entry: &Entry) -> Result<(Option<Vec<Stored>>, usize)> {
        if self.form.storage == Storage::Dense || !is_float(entry.dtype) {
            return Ok((None, 0));
        }
        let bytes = self.bytes(entry)?;
        let matrix = match Matrix::new(self.form.dtype_of(entry), &entry.shape, &bytes) {
            Ok(matrix) => matrix,
            // A scalar.
            Err(_) => return Ok((None, 0)),
        };
        let zeros = entry.elements() - matrix.nonzero();
        let may = entry.shape.len() == 2 && self.form.layers.contains(&entry.name);
        let parts = if may { self.form.storage.parts(&matrix) } else { None };
        self.source.release(&entry.name);
        let size = |parts: &[(Part, Dtype, Vec<usize>)]| -> usize {
            parts.iter().map(|(_, dtype, shape)| shape.iter().product::<usize>() * dtype.bitsize() / 8).sum()
        };
        let smaller = parts.filter(|parts| size(parts) < bytes.len());
        let named = |(part, dtype, shape)| (Some(part), dtype, shape);
        Ok((smaller.map(|parts| parts.into_iter().map(named).collect()), zeros))
    }

    /// The bytes of a tensor, edited and in the new type.
    fn bytes(&self, entry: &Entry) -> Result<Cow<'a, [u8]>> {
        let bytes = self.source.bytes_of(entry)?;
        let edited = self.edit.map(|edit| edit(entry, &bytes)).transpose()?.flatten();
        self.form.typed(entry, edited.map_or(bytes, Cow::Owned))
    }

    fn contents(&self, (entry, part): &(&Entry, Option<Part>)) -> Result<Contents<'a>> {
        if *part == Some(Part::Shape) {
            let shape: Vec<u8> = entry.shape.iter().flat_map(|d| (*d as i64).to_le_bytes()).collect();
            return Ok(Contents::Bytes(shape.into()));
        }
        let bytes = self.bytes(entry)?;
        let Some(part) = part else { return Ok(Contents::Bytes(bytes)) };
        let matrix = Matrix::new(self.form.dtype_of(entry), &entry.shape, &bytes);
        let matrix = matrix.map_err(|reason| Error::tensor(&entry.name, reason))?;
        let contents = self.form.storage.part(&matrix, *part);
        self.source.release(&entry.name);
        Ok(Contents::Bytes(contents.into()))
    }

    /// The configuration of the copy.
    fn config(&self, layout: &Layout<'_>) -> Result<Option<Vec<u8>>> {
        let folder = self.source.path();
        let Some(mut config) = Config::read(folder)?.filter(|_| self.source.is_directory()) else { return Ok(None) };
        if let Some(dtype) = self.form.dtype {
            config.set_dtype(dtype);
        }
        let config = match layout.done.packed {
            0 => config.unpacked(),
            _ => config
                .packed(&self.packing(layout))
                .map_err(|reason| Error::format(folder.join("config.json"), reason))?,
        };
        config.text().map(Some)
    }

    fn packing(&self, layout: &Layout<'_>) -> Packing {
        let module = |name: &str| name.strip_suffix(".weight").map(str::to_string);
        let matrices = layout.origins.values().filter(|(entry, part)| part.is_none() && entry.shape.len() == 2);
        let mut dense: Vec<String> = matrices.filter_map(|(entry, _)| module(&entry.name)).collect();
        dense.extend(self.source.entry("lm_head.weight").is_err().then(|| TIED.to_string()));
        dense.sort_unstable();
        let sparsity = layout.zeros as f64 / layout.weights.max(1) as f64;
        Packing { storage: self.form.storage, sparsity, dense }
    }
}
