//! Files beside the weights of a merged model: its recipe, its card, its tokenizer, its configuration.

use std::fs;
use std::path::{Path, PathBuf};

use regrow_checkpoint::{Checkpoint, Dtype, Plan, Planned, Writer};
use regrow_merging::MethodInfo;

use super::recipe::Recipe;
use super::{Args, card};
use crate::error::{Error, Result};

/// The output path of a merged model, and the files beside it.
pub struct Output {
    /// A directory, or a file that ends in .safetensors.
    pub path: PathBuf,
    /// The type of its floating-point tensors, if it differs from the models'.
    pub dtype: Option<Dtype>,
    /// Names and contents of the files beside the weights.
    pub beside: Vec<(String, Vec<u8>)>,
    shard_size: usize,
    resume: bool,
    recipe: String,
}

impl Output {
    /// From `args` and the recipe, merged with `method`.
    pub fn new(args: &Args, recipe: &Recipe, method: &MethodInfo) -> Result<Self> {
        let path = args.out().to_path_buf();
        let mut beside = tokenizer(recipe)?;
        beside.push(("README.md".into(), card::card(recipe, method, &path).into_bytes()));
        beside.push((card::recipe_name(&recipe.path).into(), recipe.text.clone().into_bytes()));
        let (shard_size, resume) = (args.shard_size, args.resume);
        Ok(Self { path, dtype: recipe.dtype, beside, shard_size, resume, recipe: recipe.text.clone() })
    }

    /// Whether it is a file.
    pub fn is_file(&self) -> bool {
        self.path.extension().is_some_and(|e| e == "safetensors")
    }

    /// Distributes the tensors over files; `lead` is the model whose names and configuration are used.
    pub fn plan(&self, tensors: Vec<Planned>, lead: &Checkpoint) -> Result<Plan> {
        if !self.is_file() && !lead.is_directory() {
            let reason = "the models are files: name a file that ends in .safetensors";
            return Err(Error::Argument(format!("{}: {reason}", self.path.display())));
        }
        let limit = if self.is_file() { usize::MAX } else { self.shard_size };
        let plan = Plan::sharded(tensors, limit)?;
        Ok(if self.is_file() { plan.with_metadata("regrow_recipe", &self.recipe) } else { plan })
    }

    /// Starts to write tensors, or resumes; `settings` identify the run together with the recipe.
    pub fn writer(&self, plan: Plan, inputs: &[&Checkpoint], settings: &str) -> Result<Writer> {
        let settings = format!("{settings} {} {}", self.shard_size, self.recipe);
        let begin = if self.resume { Writer::resume } else { Writer::create };
        Ok(begin(plan, &self.path, inputs, &settings)?)
    }

    /// As [`Output::writer`], with the files beside the tensors.
    pub fn begin(&self, plan: Plan, lead: &Checkpoint, inputs: &[&Checkpoint], settings: &str) -> Result<Writer> {
        let mut writer = self.writer(plan, inputs, settings)?;
        if self.is_file() {
            return Ok(writer);
        }
        writer.companions(lead)?;
        self.dtype.map_or(Ok(()), |dtype| writer.set_dtype(dtype))?;
        self.beside.iter().try_for_each(|(name, contents)| writer.add(name, contents))?;
        Ok(writer)
    }
}

/// The tokenizer files chosen by the recipe: its base's, a model's, or those of a directory.
fn tokenizer(recipe: &Recipe) -> Result<Vec<(String, Vec<u8>)>> {
    let Some(source) = recipe.tokenizer.as_deref() else { return Ok(Vec::new()) };
    let named = |name: &str| recipe.models.iter().find(|model| model.name == name).map(|model| model.path.clone());
    if source == "base" {
        // The lead model's own; a directory's tokenizer is copied anyway.
        let lead = recipe.base.clone().or_else(|| recipe.models.first().map(|model| model.path.clone()));
        return lead
            .filter(|path| path.is_dir())
            .map_or_else(|| Ok(Vec::new()), |path| files(&path).map_err(Error::from));
    }
    let folder = named(source).unwrap_or_else(|| recipe.beside(source));
    let found = files(&folder).map_err(|e| {
        let names = recipe.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", ");
        Error::Argument(format!("tokenizer {source:?}: {e}; it may be base, a directory, or a model: {names}"))
    })?;
    match found.is_empty() {
        true => Err(Error::Argument(format!("{}: holds no tokenizer", folder.display()))),
        false => Ok(found),
    }
}

/// The files of a tokenizer in a folder, if there are any.
pub fn files(folder: &Path) -> regrow_sparse_core::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for file in fs::read_dir(folder).map_err(|e| regrow_sparse_core::Error::io(folder, e))? {
        let file = file.map_err(|e| regrow_sparse_core::Error::io(folder, e))?;
        let name = file.file_name().to_string_lossy().into_owned();
        if is_of_tokenizer(&name) {
            let contents = fs::read(file.path()).map_err(|e| regrow_sparse_core::Error::io(file.path(), e))?;
            found.push((name, contents));
        }
    }
    Ok(found)
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
