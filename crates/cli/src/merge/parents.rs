//! The models that a recipe names, opened and checked before any other work.

use std::collections::HashMap;
use std::path::PathBuf;

use regrow_checkpoint::Checkpoint;
use regrow_merging::MergeEntry;
use regrow_merging::stream::{ModelInput, densities_within};

use super::is_adapter;
use super::recipe::{Model, Recipe};
use super::setting::Setting;
use crate::error::{Error, Result};
use crate::parent;
use crate::source::identity;

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

    /// The base, or the first model: the source of names, configuration and tokenizer.
    pub fn lead(&self) -> &Checkpoint {
        self.base.as_ref().unwrap_or(&self.models[0].1)
    }

    /// All inputs.
    pub fn all(&self) -> impl Iterator<Item = &Checkpoint> {
        let models = self.models.iter().flat_map(|(_, weights, statistics)| [Some(weights), statistics.as_ref()]);
        models.chain([self.base.as_ref()]).flatten()
    }

    /// The models in the form the merge takes.
    pub fn inputs(&self) -> Vec<ModelInput<'_>> {
        self.models
            .iter()
            .map(|(name, checkpoint, statistics)| ModelInput { name, checkpoint, statistics: statistics.as_ref() })
            .collect()
    }

    /// Files, sizes and times of all inputs. An interrupted run is resumed only if these are unchanged.
    pub fn identity(&self) -> Result<String> {
        identity(self.all().flat_map(Checkpoint::files))
    }

    /// For each model the density of each tensor, if the recipe trims task vectors as a whole.
    pub fn trimmed(&self, recipe: &Recipe, method: &MergeEntry) -> Result<Vec<HashMap<String, f64>>> {
        if !method.has("scope") {
            return Ok(Vec::new());
        }
        let params = method.complete(&recipe.params("", 0.0))?;
        if params.shared.text("scope")? != "model" {
            return Ok(Vec::new());
        }
        let Some(base) = &self.base else { return Ok(Vec::new()) };
        let settings =
            recipe.models.iter().map(|m| m.parameters.get("density")).chain([recipe.parameters.get("density")]);
        if settings.flatten().any(|setting| !matches!(setting, Setting::One(_))) {
            let reason = "with `scope` model a `density` is one number: it is shared out among the tensors";
            return Err(Error::Argument(format!("{}: {reason}", recipe.path.display())));
        }
        let densities = params.each("density")?.of(self.models.len(), "density")?;
        let models = self.models.iter().zip(densities);
        models.map(|((_, model, _), density)| Ok(densities_within(base, model, density)?)).collect()
    }

    /// Rejects a base that has little in common with one of the models.
    pub fn check_base(&self, base: &Checkpoint) -> Result<()> {
        self.models.iter().try_for_each(|(name, model, _)| parent::check(base, name, model))
    }
}
