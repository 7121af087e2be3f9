//! The methods that go their own ways: adapters merged reversibly, models merged one after another.

use std::io::Write;
use std::path::{Path, PathBuf};

use regrow_checkpoint::Checkpoint;
use regrow_merging::rmm::{ALIGNMENTS, Align, Amount, GRANULARITIES, Granularity, Rmm};
use regrow_merging::{About, Parameters, WHOLE};

use super::output::Output;
use super::recipe::{Model, Recipe};
use super::{Args, is_adapter};
use crate::error::{Error, Result};
use crate::parent;
use crate::reversible::{self, Source};
use crate::sequential::{self, Arrival, Settings};

/// Reads what the recipe names and merges it.
type Run = fn(&Args, &Recipe, &About, &mut dyn Write) -> Result<()>;

/// How they are run.
const WAYS: [(&str, Run); 2] = [("opcm", opcm), ("rmm", rmm)];

/// The method of that name, if it is one of these.
pub fn find(name: &str) -> Option<(Run, &'static About)> {
    let (_, run) = WAYS.iter().find(|(known, _)| *known == name)?;
    Some((*run, WHOLE.iter().find(|about| about.name == name)?))
}

/// Merges the recipe's adapters reversibly.
fn rmm(args: &Args, recipe: &Recipe, about: &About, out: &mut dyn Write) -> Result<()> {
    recipe.check(about.parameters)?;
    refuse(args.into.is_some(), "--into is for opcm, not for rmm")?;
    let parameters = recipe.parameters("", 0.0);
    let (rmm, amount) = (space(&parameters)?, amount(&parameters)?);
    let sources: Vec<Source> =
        recipe.models.iter().map(|m| Source { name: m.name.clone(), path: m.path.clone() }).collect();
    if args.dry_run {
        return reversible::plan(&sources, &rmm, out);
    }
    let output = Output::new(args, recipe, about)?;
    refuse(output.is_file(), "rmm writes a folder, from which `regrow revert` gives any adapter back: --out DIR")?;
    let manifest = reversible::merge(&sources, &rmm, amount, &output)?;
    writeln!(out, "{}", reversible::summary(&manifest))?;
    Ok(())
}

fn space(parameters: &Parameters) -> Result<Rmm> {
    let granularity = parameters.word("granularity", Granularity::Position, &GRANULARITIES)?;
    let align = parameters.word("align", Align::None, &ALIGNMENTS)?;
    let rmm = Rmm::new(granularity).with_align(align).with_centred(parameters.flag("centred", false)?);
    let rmm = rmm.with_normalized(parameters.flag("normalize", false)?);
    match parameters.number("rank", 0.0)? {
        0.0 => Ok(rmm),
        rank => Ok(rmm.with_rank(whole("rank", rank)?)?),
    }
}

/// How many basis models: exactly one of three parameters says.
fn amount(parameters: &Parameters) -> Result<Amount> {
    let given: Vec<&str> =
        ["basis", "storage", "error"].into_iter().filter(|name| parameters.shared.contains_key(*name)).collect();
    match given[..] {
        [name] => {
            let number = parameters.required(name)?;
            Ok(match name {
                "basis" => Amount::Basis(whole(name, number)?),
                "storage" => Amount::Storage(number),
                _ => Amount::Error(number),
            })
        }
        [] => Ok(Amount::Basis(2)),
        _ => Err(Error::Argument(format!("{} say the same thing: choose one", given.join(" and ")))),
    }
}

fn whole(name: &str, number: f64) -> Result<usize> {
    match number >= 1.0 && number.fract() == 0.0 && number < 1e9 {
        true => Ok(number as usize),
        false => Err(Error::Argument(format!("`{name}` must be a whole number from 1, not {number}"))),
    }
}

/// Merges the recipe's models, in their order, into a folder; with `--resume` those that are not in it yet.
fn opcm(args: &Args, recipe: &Recipe, about: &About, out: &mut dyn Write) -> Result<()> {
    recipe.check(about.parameters)?;
    let into = args.into.as_deref().ok_or_else(|| Error::Argument("opcm merges --into a folder: name one".into()))?;
    let base = recipe.base.as_deref().ok_or_else(|| {
        Error::Argument(format!("{}: opcm needs a `base`, the models' common parent", recipe.path.display()))
    })?;
    refuse(args.dry_run, "opcm has no --dry-run: a model at a time is in memory, a matrix at a time in work")?;
    let (base, parameters) = (open(base)?, recipe.parameters("", 0.0));
    let settings =
        Settings { alpha: parameters.number("alpha", 0.5)?, convolutions: parameters.flag("convolutions", false)? };
    let there = sequential::merged(into)?;
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
        // What can be wrong with the result is known before a model is merged.
        Output::new(args, recipe, about)?.plan(sequential::planned(&base, recipe.dtype), &base)?;
    }
    sequential::add(into, &base, &arrivals, settings, out)?;
    match &args.out {
        Some(_) => {
            let whole = of_all(recipe, &sequential::merged(into)?)?;
            sequential::write(into, &base, &Output::new(args, &whole, about)?)
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
    // As it is written now, whatever it was read from.
    whole.path.set_extension("toml");
    Ok(whole)
}

fn open(path: &Path) -> Result<Checkpoint> {
    refuse(is_adapter(path), &format!("{}: is an adapter; opcm merges whole models", path.display()))?;
    Ok(Checkpoint::open(path)?)
}

fn refuse(wrong: bool, reason: &str) -> Result<()> {
    if wrong { Err(Error::Argument(reason.into())) } else { Ok(()) }
}
