//! The models that a recipe names, opened and looked at before any work.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use regrow_merging::stream::{Source, densities_within};
use regrow_sparse_core::checkpoint::{Checkpoint, Dtype, Entry};

use super::is_adapter;
use super::recipe::{Model, Recipe};
use super::setting::Setting;
use crate::error::{Error, Result};

/// Cosine between a model's largest tensor and the base's below which the base is taken for a stranger:
/// independently trained weights have cosines near 0, fine-tuned ones near 1 with their parent's.
const STRANGER: f64 = 0.1;

/// The opened inputs.
pub struct Parents {
    /// The common parent.
    pub base: Option<Checkpoint>,
    /// Name, weights and statistics of each model.
    pub models: Vec<(String, Checkpoint, Option<Checkpoint>)>,
}

impl Parents {
    /// Opens everything.
    pub fn open(recipe: &Recipe) -> Result<Self> {
        let open = |path: &PathBuf| -> Result<Checkpoint> {
            if is_adapter(path) {
                let reason = format!("is an adapter; {} merges whole models", recipe.method);
                return Err(Error::Argument(format!("{}: {reason}", path.display())));
            }
            Ok(Checkpoint::open(path)?)
        };
        let base = recipe.base.as_ref().map(open).transpose()?;
        let model = |model: &Model| {
            let statistics = model.statistics.as_ref().map(Checkpoint::open).transpose()?;
            Ok((model.name.clone(), open(&model.path)?, statistics))
        };
        Ok(Self { base, models: recipe.models.iter().map(model).collect::<Result<_>>()? })
    }

    /// The base, or the first model: names, configuration and tokenizer are its.
    pub fn lead(&self) -> &Checkpoint {
        self.base.as_ref().unwrap_or(&self.models[0].1)
    }

    /// All that is read.
    pub fn all(&self) -> impl Iterator<Item = &Checkpoint> {
        let models = self.models.iter().flat_map(|(_, weights, statistics)| [Some(weights), statistics.as_ref()]);
        models.chain([self.base.as_ref()]).flatten()
    }

    /// The models as the merge takes them.
    pub fn sources(&self) -> Vec<Source<'_>> {
        self.models
            .iter()
            .map(|(name, checkpoint, statistics)| Source { name, checkpoint, statistics: statistics.as_ref() })
            .collect()
    }

    /// Files, sizes and times of all that is read: with others, an interrupted run is not gone on with.
    pub fn identity(&self) -> Result<String> {
        let mut identity = String::new();
        for file in self.all().flat_map(Checkpoint::files) {
            let found = fs::metadata(file).map_err(|e| regrow_sparse_core::Error::io(file, e))?;
            let changed = found.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
            identity += &format!("{} {} {:?}; ", file.display(), found.len(), changed);
        }
        Ok(identity)
    }

    /// For each model the density of each tensor, where the recipe has task vectors trimmed as a whole.
    pub fn trimmed(&self, recipe: &Recipe) -> Result<Vec<HashMap<String, f64>>> {
        let parameters = recipe.parameters("", 0.0);
        if !parameters.word("scope", false, &[("tensor", false), ("model", true)])? {
            return Ok(Vec::new());
        }
        let Some(base) = &self.base else { return Ok(Vec::new()) };
        let settings =
            recipe.models.iter().map(|m| m.parameters.get("density")).chain([recipe.parameters.get("density")]);
        if settings.flatten().any(|setting| !matches!(setting, Setting::One(_))) {
            let reason = "with `scope` model a `density` is one number: it is shared out among the tensors";
            return Err(Error::Argument(format!("{}: {reason}", recipe.path.display())));
        }
        let densities = parameters.each("density", 1.0)?;
        let models = self.models.iter().zip(densities);
        models.map(|((_, model, _), density)| Ok(densities_within(base, model, density)?)).collect()
    }

    /// Refuses a base that has nothing in common with one of the models.
    pub fn check_base(&self, base: &Checkpoint) -> Result<()> {
        let float = |entry: &&Entry| matches!(entry.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64);
        let matrices = base.entries().iter().filter(float).filter(|entry| entry.shape.len() > 1);
        let Some(largest) = matrices.max_by_key(|entry| entry.elements()) else { return Ok(()) };
        let values = base.values(&largest.name)?;
        for (name, checkpoint, _) in &self.models {
            let cosine = cosine(&values, &checkpoint.values(&largest.name)?);
            if cosine < STRANGER {
                return Err(Error::Argument(format!(
                    "{}: does not look like the parent of {name}: the cosine of their {} is {cosine:.3} (--any-base \
                     merges all the same)",
                    base.path().display(),
                    largest.name
                )));
            }
            checkpoint.release(&largest.name);
        }
        drop(values);
        base.release(&largest.name);
        Ok(())
    }

    /// The files of the tokenizer that the recipe asks for, where it is not the lead's own.
    pub fn tokenizer(&self, recipe: &Recipe) -> Result<Vec<(String, Vec<u8>)>> {
        let Some(source) = recipe.tokenizer.as_deref().filter(|source| *source != "base") else { return Ok(vec![]) };
        let named = self.models.iter().find(|(name, ..)| name == source).map(|(_, weights, _)| weights.path());
        let folder = named.unwrap_or(Path::new(source));
        let files = fs::read_dir(folder).map_err(|e| {
            let names = self.models.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(", ");
            Error::Argument(format!("tokenizer {source:?}: {e}; it may be base, a directory, or a model: {names}"))
        })?;
        let mut found = Vec::new();
        for file in files {
            let file = file.map_err(|e| regrow_sparse_core::Error::io(folder, e))?;
            let name = file.file_name().to_string_lossy().into_owned();
            if is_of_tokenizer(&name) {
                let contents = fs::read(file.path()).map_err(|e| regrow_sparse_core::Error::io(file.path(), e))?;
                found.push((name, contents));
            }
        }
        match found.is_empty() {
            true => Err(Error::Argument(format!("{}: holds no tokenizer", folder.display()))),
            false => Ok(found),
        }
    }
}

/// Whether a file belongs to a tokenizer, by its name.
fn is_of_tokenizer(name: &str) -> bool {
    const NAMES: [&str; 7] = [
        "added_tokens.json",
        "chat_template.jinja",
        "merges.txt",
        "special_tokens_map.json",
        "vocab.json",
        "vocab.txt",
        "spiece.model",
    ];
    name.starts_with("tokenizer") || NAMES.contains(&name)
}

/// Of the first million of values: strangers show by fewer.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let (a, b) = (&a[..a.len().min(1 << 20)], &b[..b.len().min(1 << 20)]);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let norms = (dot(a, a) * dot(b, b)).sqrt();
    // Nothing is known of zeros.
    if norms > 0.0 { dot(a, b) / norms } else { 1.0 }
}
