//! Directories of reversibly merged adapters (RMM): made from adapters, revertible to any of them.
//!
//! `regrow-rmm.safetensors` holds the basis models and coefficients, `MODULE/PART`, and each task's other tensors,
//! `tasks/NUMBER/NAME`; `regrow-rmm.json` records the settings and the errors.

mod merge;
mod report;
mod revert;

use std::path::{Path, PathBuf};

use regrow_checkpoint::{Checkpoint, Dtype};
use regrow_lm::adapter::{Kind, Module};
use regrow_merging::rmm::{Space, SpacePart};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};

pub use merge::{AdapterInput, merge, plan};
pub use report::summary;
pub use revert::{Args, run};

/// The tensors' file name.
const MODEL: &str = "regrow-rmm.safetensors";
/// The description's file name.
const MANIFEST: &str = "regrow-rmm.json";
/// The version of the format.
const FORMAT: usize = 1;

/// The description of a directory of merged adapters.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Manifest {
    format: usize,
    /// The type of basis models and coefficients.
    #[serde(default = "single")]
    dtype: String,
    /// Which vectors share coefficients.
    granularity: String,
    /// How factors were aligned.
    align: String,
    /// Whether the first basis model is the mean.
    centred: bool,
    /// Whether tasks were normalized to the same norm.
    normalized: bool,
    /// The rank to which basis models are truncated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rank: Option<usize>,
    /// Basis models.
    basis: usize,
    /// The adapters, in merge order.
    tasks: Vec<Task>,
    /// The adapted modules.
    layers: Vec<Layer>,
    /// Number of values in all adapters' factors together.
    numbers_of_all: usize,
    /// Number of values in the basis models and coefficients.
    numbers: usize,
}

/// One adapter.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Task {
    name: String,
    /// The type of its factors.
    dtype: String,
    /// Frobenius norm of the loss over that of its difference.
    relative_error: f64,
    /// Names of its other tensors.
    rest: Vec<String>,
    /// Its `adapter_config.json`.
    config: Value,
}

/// One adapted module.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Layer {
    name: String,
    kind: String,
    /// The sizes of a convolution's kernel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kernel: Vec<usize>,
    /// `[m, d]`.
    shape: [usize; 2],
    /// The rank of each task's factors.
    ranks: Vec<usize>,
    /// The relative error of each task.
    relative_errors: Vec<f64>,
}

impl Layer {
    fn of(module: &Module, ranks: Vec<usize>) -> Self {
        let (kind, kernel) = match &module.kind {
            Kind::Linear => ("linear", Vec::new()),
            Kind::Embedding => ("embedding", Vec::new()),
            Kind::Convolution(kernel) => ("convolution", kernel.clone()),
        };
        let [m, _, d] = module.shape;
        let name = module.name.clone();
        Self { name, kind: kind.into(), kernel, shape: [m, d], ranks, relative_errors: Vec::new() }
    }

    /// `[m, r, d]` of each task.
    fn factors(&self) -> Vec<[usize; 3]> {
        let [m, d] = self.shape;
        self.ranks.iter().map(|r| [m, *r, d]).collect()
    }

    /// The number of values in all tasks' factors.
    fn numbers(&self) -> usize {
        (self.shape[0] + self.shape[1]) * self.ranks.iter().sum::<usize>()
    }

    fn kind(&self) -> Kind {
        match self.kind.as_str() {
            "embedding" => Kind::Embedding,
            "convolution" => Kind::Convolution(self.kernel.clone()),
            _ => Kind::Linear,
        }
    }
}

fn single() -> String {
    Dtype::F32.to_string()
}

/// An open directory of merged adapters.
struct Merged {
    path: PathBuf,
    manifest: Manifest,
    checkpoint: Checkpoint,
}

impl Merged {
    fn open(path: &Path) -> Result<Self> {
        let file = path.join(MANIFEST);
        if path.is_dir() && !file.exists() {
            let reason = format!("{} holds no {MANIFEST}: it was not made by RMM", path.display());
            return Err(Error::Argument(reason));
        }
        let text = std::fs::read(&file).map_err(|e| regrow_sparse_core::Error::io(&file, e))?;
        let bad = |reason: String| regrow_sparse_core::Error::format(&file, reason);
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
        if manifest.format != FORMAT {
            return Err(bad(format!("has format {}, this program reads {FORMAT}", manifest.format)).into());
        }
        let checkpoint = Checkpoint::open(path.join(MODEL))?;
        Ok(Self { path: path.to_path_buf(), manifest, checkpoint })
    }

    /// The index of the task with that name.
    fn task(&self, name: &str) -> Result<usize> {
        let names = || self.manifest.tasks.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = self.manifest.tasks.iter().position(|t| t.name == name);
        found.ok_or_else(|| Error::Argument(format!("{} has no task `{name}`: use {}", self.path.display(), names())))
    }

    /// The basis models of a module.
    fn space(&self, layer: &Layer) -> regrow_sparse_core::Result<Space> {
        space(&self.checkpoint, &layer.name, self.manifest.tasks.len())
    }
}

/// The basis models of a module with `tasks` tasks.
fn space(checkpoint: &Checkpoint, module: &str, tasks: usize) -> regrow_sparse_core::Result<Space> {
    let mut find = |part: &str| {
        let name = stored(module, part);
        let Ok(entry) = checkpoint.entry(&name) else { return Ok(None) };
        let (shape, values) = (entry.shape.clone(), checkpoint.read_f32(&name)?);
        Ok(Some(SpacePart { name: part.into(), shape, values }))
    };
    Space::from_parts(tasks, &mut find).map_err(|e| about(module, &e))
}

/// The stored name of a part of a module's space.
fn stored(module: &str, part: &str) -> String {
    format!("{module}/{part}")
}

/// The stored name of a task's tensor that is not a factor.
fn stored_rest(task: usize, name: &str) -> String {
    format!("tasks/{task}/{name}")
}

/// An error that names its module.
fn about(module: &str, error: &regrow_sparse_core::Error) -> regrow_sparse_core::Error {
    regrow_sparse_core::Error::tensor(module, error.to_string())
}
