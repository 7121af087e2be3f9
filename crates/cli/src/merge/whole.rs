//! Merges whole models: in memory, or, with OPCM, one after another into a folder.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use regrow_checkpoint::{Checkpoint, Contents, Planned};
use regrow_merging::{BaseRole, MergeEntry, OpcmConfig, WholeModels};

use super::output::Output;
use super::parents::Parents;
use super::recipe::{Model, Recipe};
use super::{Args, count, is_adapter, refuse};
use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::opcm::{self, Arrival};
use crate::{parent, text};

type Core<T> = regrow_sparse_core::Result<T>;

/// Merges the recipe's models.
pub fn run(args: &Args, recipe: &Recipe, method: &MergeEntry, out: &mut dyn Write) -> Result<()> {
    let reason = format!("{} has no --dry-run: it merges whole models", method.info.name);
    refuse(args.dry_run, &reason)?;
    match &args.into {
        Some(into) => into_folder(args, into, recipe, method, out),
        None => in_memory(args, recipe, method, out),
    }
}

/// Merges whole models in memory and writes the result.
fn in_memory(args: &Args, recipe: &Recipe, method: &MergeEntry, out: &mut dyn Write) -> Result<()> {
    let (started, params) = (Instant::now(), recipe.params("", 0.0));
    let merge = method.whole(&params)?;
    let parents = Parents::open(recipe)?;
    let lead = parents.lead();
    if let Some(base) = parents.base.as_ref().filter(|_| method.base == BaseRole::Parent && !args.any_base) {
        parents.check_base(base)?;
    }
    let checkpoints: Vec<(&str, &Checkpoint)> = parents.models.iter().map(|(name, c, _)| (name.as_str(), c)).collect();
    checkpoints.iter().try_for_each(|(name, model)| opcm::comparable(lead, name, model))?;
    let output = Output::new(args, recipe, &method.info)?;
    let plan = output.plan(opcm::planned(lead, recipe.dtype), lead)?;

    let floating = || lead.entries().iter().filter(|entry| opcm::is_floating(entry));
    let tensors: Vec<(String, Vec<usize>)> = floating().map(|e| (e.name.clone(), e.shape.clone())).collect();
    let read = |from: &Checkpoint| -> Result<Vec<Vec<f32>>> {
        tensors.iter().map(|(name, _)| Ok(from.read_f32(name)?)).collect()
    };
    let base = parents.base.as_ref().map(read).transpose()?;
    let models = checkpoints.iter().map(|(_, model)| read(model)).collect::<Result<Vec<_>>>()?;
    let merged = merge.merge(&WholeModels::new(&tensors, base.as_deref(), &models)?)?;
    let merged: HashMap<&str, Vec<f32>> = tensors.iter().map(|(name, _)| name.as_str()).zip(merged).collect();

    let (files, bytes) = (count(plan.files(), "file"), text::grouped(plan.bytes()));
    let inputs: Vec<&Checkpoint> = parents.all().collect();
    let mut writer = output.begin(plan, lead, &inputs, &parents.identity()?)?;
    let bar = Bar::bytes();
    let make = |tensor: &Planned| match merged.get(tensor.name.as_str()) {
        Some(values) => Core::Ok(Contents::Values(values.clone())),
        None => Ok(Contents::Bytes(lead.raw(&tensor.name)?)),
    };
    writer.write(&make, &|done, all| bar.at(done, all))?;
    writer.finish()?;
    let (models, seconds) = (count(recipe.models.len(), "model"), started.elapsed().as_secs_f64());
    writeln!(out, "{models} merged by {}: {bytes} bytes in {files}, {seconds:.1} s", method.info.name)?;
    Ok(())
}

/// Merges the recipe's models, in order, into a folder; with `--resume` those that are not in it yet.
fn into_folder(args: &Args, into: &Path, recipe: &Recipe, method: &MergeEntry, out: &mut dyn Write) -> Result<()> {
    let base = recipe.base.as_deref().ok_or_else(|| {
        Error::Argument(format!("{}: opcm needs a `base`, the models' common parent", recipe.path.display()))
    })?;
    let config = OpcmConfig::from_params(&method.complete(&recipe.params("", 0.0))?)?;
    let base = open(base)?;
    let there = opcm::merged(into)?;
    let wanted = recipe.models.iter().filter(|m| !(args.resume && there.iter().any(|(name, _)| *name == m.name)));
    let models = wanted.map(|m| Ok((m, open(&m.path)?))).collect::<Result<Vec<_>>>()?;
    if !args.any_base {
        models.iter().try_for_each(|(model, found)| parent::check(&base, &model.name, found))?;
    }
    let arrival = |(model, checkpoint)| -> Arrival<'_> {
        let (model, checkpoint): (&Model, &Checkpoint) = (model, checkpoint);
        Arrival { name: &model.name, path: &model.path, checkpoint }
    };
    let arrivals: Vec<Arrival<'_>> = models.iter().map(|(model, found)| arrival((*model, found))).collect();
    if args.out.is_some() {
        // Problems with the output are reported before a model is merged.
        Output::new(args, recipe, &method.info)?.plan(opcm::planned(&base, recipe.dtype), &base)?;
    }
    opcm::add(into, &base, &arrivals, config, out)?;
    match &args.out {
        Some(_) => {
            let whole = of_all(recipe, &opcm::merged(into)?)?;
            opcm::write(into, &base, &Output::new(args, &whole, &method.info)?)
        }
        None => Ok(()),
    }
}

/// The recipe that merges all of a folder's models at once.
fn of_all(recipe: &Recipe, models: &[(String, PathBuf)]) -> Result<Recipe> {
    if recipe.models.iter().map(|m| &m.name).eq(models.iter().map(|(name, _)| name)) {
        return Ok(recipe.clone());
    }
    let model = |(name, path): &(String, PathBuf)| Model {
        name: name.clone(),
        path: path.clone(),
        statistics: None,
        parameters: Default::default(),
    };
    let mut whole = Recipe { models: models.iter().map(model).collect(), ..recipe.clone() };
    whole.text = whole.to_toml()?;
    // It is written as TOML, whatever format it was read from.
    whole.path.set_extension("toml");
    Ok(whole)
}

fn open(path: &Path) -> Result<Checkpoint> {
    refuse(is_adapter(path), &format!("{}: is an adapter; opcm merges whole models", path.display()))?;
    Ok(Checkpoint::open(path)?)
}
