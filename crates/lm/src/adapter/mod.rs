//! LoRA adapters in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.
//!
//! For every adapted module the file holds `lora_A [r, in]` and `lora_B [out, r]`; the module's weight `[out, in]` is
//! the base's plus `scale B A`, with `scale = alpha / r`, or `alpha / sqrt(r)` for rsLoRA. Here such a difference is
//! two factors, `left [m, r]`, which includes the scale, and `right [r, d]`:
//!
//! | module | `left` | `right` | their product |
//! | --- | --- | --- | --- |
//! | linear, `Conv1D` | `scale B` | `A` | `[out, in]`, whichever way the base stores it |
//! | convolution | `scale B` | `A` as `[r, in kh kw]` | `[out, in kh kw]` |
//! | embedding | `scale A^T` | `B^T` | `[entries, width]` |
//!
//! Everything else in an adapter (heads and norms in `modules_to_save`, biases) is in [`Adapter::rest`]. A [`Draft`] is
//! an adapter to write to a [`Target`], or to merge into its base.

mod base;
mod config;
mod write;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regrow_checkpoint::{Checkpoint, Dtype, Entry};
use regrow_sparse_core::model::weight::transposed;
use regrow_sparse_core::{Error, Result};
use serde_json::Value;

pub use base::tensor_of;
use config::Config;
pub use write::{Draft, Target};

/// The configuration's file name.
pub const CONFIG: &str = "adapter_config.json";
/// The tensors' file name.
pub const MODEL: &str = "adapter_model.safetensors";
/// The prefix that peft puts before every name.
const PREFIX: &str = "base_model.model.";
/// What peft puts between an adapted module and its own parameters.
const BASE_LAYER: &str = ".base_layer.";

/// What kind of layer a module is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A linear layer, GPT-2's `Conv1D` included.
    Linear,
    /// A convolution with the sizes of its kernel.
    Convolution(Vec<usize>),
    /// An embedding.
    Embedding,
}

/// An adapted module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name in the base model, such as `transformer.h.0.attn.c_attn`.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// `[m, r, d]` of its factors.
    pub shape: [usize; 3],
}

/// A module as stored in a file.
#[derive(Debug)]
struct Stored {
    module: Module,
    /// The factor of the product of the stored factors.
    scale: f64,
    /// The tensors' names.
    a: String,
    b: String,
}

/// The two factors of a difference, row-major: `left [m, r]`, `right [r, d]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Factors {
    /// `[m, r]`.
    pub left: Vec<f32>,
    /// `[r, d]`.
    pub right: Vec<f32>,
}

/// A tensor of an adapter that is not a factor.
#[derive(Clone, Debug)]
pub struct Rest<'a> {
    /// Its name in the base model, such as `classifier.weight`.
    pub name: String,
    /// Its type.
    pub dtype: Dtype,
    /// Its sizes.
    pub shape: Vec<usize>,
    /// Its data, row-major, little-endian.
    pub bytes: Cow<'a, [u8]>,
}

/// An open adapter.
#[derive(Debug)]
pub struct Adapter {
    path: PathBuf,
    config: Value,
    transposed: bool,
    checkpoint: Checkpoint,
    stored: Vec<Stored>,
    rest: Vec<Entry>,
}

impl Adapter {
    /// Whether `path` is a directory with an adapter's configuration in it.
    pub fn is_at(path: &Path) -> bool {
        path.join(CONFIG).is_file()
    }

    /// Opens the directory `path`: its configuration and the headers of its tensors.
    ///
    /// # Errors
    /// A directory without `adapter_config.json` or a single safetensors file; an adapter that is not plain LoRA; a
    /// module with one factor, with factors of impossible shapes, or with another rank than in the configuration; no
    /// module.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = path.join(CONFIG);
        let text = std::fs::read(&file).map_err(|e| Error::io(&file, e))?;
        let config: Value =
            serde_json::from_slice(&text).map_err(|e| Error::format(&file, format!("is no JSON: {e}")))?;
        let parsed = Config::parse(&config).map_err(|reason| Error::format(&file, reason))?;
        let checkpoint = Checkpoint::open(path)?;
        let (stored, rest) = modules(&checkpoint, &parsed).map_err(|reason| Error::format(path, reason))?;
        if stored.is_empty() {
            return Err(Error::format(path, "holds no factors of a LoRA adapter"));
        }
        let transposed = parsed.transposed();
        Ok(Self { path: path.to_path_buf(), config, transposed, checkpoint, stored, rest })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration as read.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Whether the base stores the adapted layers' weights `[in, out]`.
    pub fn transposed(&self) -> bool {
        self.transposed
    }

    /// The adapted modules, in the order of their names.
    pub fn modules(&self) -> impl ExactSizeIterator<Item = &Module> {
        self.stored.iter().map(|stored| &stored.module)
    }

    /// The tensors that are not factors, with their names in the base model.
    ///
    /// # Errors
    /// If one holds NaN or infinity.
    pub fn rest(&self) -> Result<Vec<Rest<'_>>> {
        let one = |entry: &Entry| {
            let floating = matches!(entry.dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16);
            if floating && !self.checkpoint.finite(&entry.name)? {
                return Err(self.not_finite(&entry.name));
            }
            let bytes = self.checkpoint.raw(&entry.name)?;
            Ok(Rest { name: plain(&entry.name), dtype: entry.dtype, shape: entry.shape.clone(), bytes })
        };
        self.rest.iter().map(one).collect()
    }

    /// The type of its factors.
    pub fn dtype(&self) -> Dtype {
        self.checkpoint.entry(&self.stored[0].b).map_or(Dtype::F32, |entry| entry.dtype)
    }

    /// Its tensors.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The factors of module `index`, as [`Adapter::modules`] counts them.
    ///
    /// # Errors
    /// If there is no such module, or a factor holds NaN or infinity.
    pub fn factors(&self, index: usize) -> Result<Factors> {
        let none = || Error::format(&self.path, format!("has no module number {index}"));
        let Stored { module, scale, a, b } = self.stored.get(index).ok_or_else(none)?;
        let (a, b) = (self.read(a)?, self.read(b)?);
        let [m, r, d] = module.shape;
        let scaled = |values: &[f32]| values.iter().map(|v| (scale * f64::from(*v)) as f32).collect();
        let (left, right) = match module.kind {
            Kind::Embedding => (scaled(&transposed(&a, r, m)), transposed(&b, d, r)),
            Kind::Linear | Kind::Convolution(_) => (scaled(&b), a),
        };
        Ok(Factors { left, right })
    }

    /// The adapter as a draft, to write again or merge into its base.
    ///
    /// # Errors
    /// As [`Adapter::rest`].
    pub fn draft(&self) -> Result<Draft<'_>> {
        Ok(Draft {
            config: self.config.clone(),
            dtype: self.dtype(),
            modules: self.modules().cloned().collect(),
            factors: Box::new(|index| self.factors(index)),
            rest: self.rest()?,
            beside: Vec::new(),
        })
    }

    fn read(&self, name: &str) -> Result<Vec<f32>> {
        let values = self.checkpoint.read_f32(name)?;
        match values.iter().all(|v| v.is_finite()) {
            true => Ok(values),
            false => Err(self.not_finite(name)),
        }
    }

    fn not_finite(&self, tensor: &str) -> Error {
        Error::format(&self.path, format!("tensor {tensor:?} holds NaN or infinity"))
    }
}

/// A name without what peft adds to it.
fn plain(name: &str) -> String {
    name.strip_prefix(PREFIX).unwrap_or(name).replace(BASE_LAYER, ".")
}

/// Which factor a tensor is: its module, whether it is `A`, and whether the module is an embedding.
fn role(name: &str) -> Option<(&str, bool, bool)> {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    for (mark, is_a, embedding) in [
        (".lora_A", true, false),
        (".lora_B", false, false),
        (".lora_embedding_A", true, true),
        (".lora_embedding_B", false, true),
    ] {
        if let Some((module, after)) = name.rsplit_once(mark)
            && (after.is_empty() || after.starts_with('.'))
        {
            return Some((module, is_a, embedding));
        }
    }
    None
}

/// The modules and the other tensors; the error is the reason only.
fn modules(checkpoint: &Checkpoint, config: &Config) -> Result<(Vec<Stored>, Vec<Entry>), String> {
    let mut halves: BTreeMap<&str, [Option<&Entry>; 2]> = BTreeMap::new();
    let (mut rest, mut embeddings) = (Vec::new(), Vec::new());
    for entry in checkpoint.entries() {
        match role(&entry.name) {
            None => rest.push(entry.clone()),
            Some((module, is_a, embedding)) => {
                if halves.entry(module).or_default()[usize::from(!is_a)].replace(entry).is_some() {
                    return Err(format!("module {module} has a factor twice"));
                }
                embeddings.extend(embedding.then_some(module));
            }
        }
    }
    let mut found = Vec::with_capacity(halves.len());
    for (name, pair) in halves {
        let [Some(a), Some(b)] = pair else { return Err(format!("module {name} lacks one of its factors")) };
        found.push(module(name, a, b, embeddings.contains(&name), config)?);
    }
    Ok((found, rest))
}

fn module(name: &str, a: &Entry, b: &Entry, embedding: bool, config: &Config) -> Result<Stored, String> {
    let bad = || format!("module {name}: factors of shapes {:?} and {:?} do not go together", a.shape, b.shape);
    let (kind, shape) = match (&a.shape[..], &b.shape[..]) {
        (&[r, entries], &[width, rank]) if embedding && r == rank => (Kind::Embedding, [entries, r, width]),
        (&[r, d], &[m, rank]) if r == rank => (Kind::Linear, [m, r, d]),
        (&[r, input, ref kernel @ ..], &[m, rank, ref ones @ ..])
            if r == rank && kernel.len() == ones.len() && ones.iter().all(|one| *one == 1) =>
        {
            (Kind::Convolution(kernel.to_vec()), [m, r, input * kernel.iter().product::<usize>()])
        }
        _ => return Err(bad()),
    };
    if shape.contains(&0) {
        return Err(bad());
    }
    let (rank, scale) = config.scale(name)?;
    match rank == shape[1] {
        true => {
            let module = Module { name: name.into(), kind, shape };
            Ok(Stored { module, scale, a: a.name.clone(), b: b.name.clone() })
        }
        false => Err(format!("module {name}: its factors have rank {}, the configuration says {rank}", shape[1])),
    }
}
