//! The methods that go their own ways: adapters merged reversibly, models merged one after another.

use std::io::Write;
use std::path::Path;

use regrow_merging::Parameters;
use regrow_merging::rmm::{ALIGNMENTS, Align, Amount, GRANULARITIES, Granularity, Rmm};
use regrow_sparse_core::checkpoint::Checkpoint;

use super::recipe::Recipe;
use super::{Args, is_adapter};
use crate::error::{Error, Result};
use crate::reversible::{self, Source};
use crate::sequential::{self, Arrival, Settings};

/// What RMM understands.
const RMM: [&str; 8] = ["basis", "storage", "error", "granularity", "align", "centred", "normalize", "rank"];
/// What OPCM understands.
const OPCM: [&str; 2] = ["alpha", "convolutions"];

/// Merges the recipe's adapters reversibly.
pub fn rmm(args: &Args, recipe: &Recipe, out: &mut dyn Write) -> Result<()> {
    recipe.check(&RMM)?;
    refuse(args.into.is_some(), "--into is for opcm, not for rmm")?;
    let target = args.out.as_deref().ok_or_else(|| Error::Argument("rmm needs --out".into()))?;
    let parameters = recipe.parameters("", 0.0);
    let (rmm, amount) = (space(&parameters)?, amount(&parameters)?);
    let sources: Vec<Source> =
        recipe.models.iter().map(|m| Source { name: m.name.clone(), path: m.path.clone() }).collect();
    if args.dry_run {
        return reversible::plan(&sources, &rmm, out);
    }
    let manifest = reversible::merge(&sources, &rmm, amount, target)?;
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
    let given: Vec<&str> = RMM[..3].iter().copied().filter(|name| parameters.shared.contains_key(*name)).collect();
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

/// Merges the recipe's models, in their order, into a folder.
pub fn opcm(args: &Args, recipe: &Recipe, out: &mut dyn Write) -> Result<()> {
    recipe.check(&OPCM)?;
    let into = args.into.as_deref().ok_or_else(|| Error::Argument("opcm merges --into a folder: name one".into()))?;
    let base = recipe.base.as_deref().ok_or_else(|| {
        Error::Argument(format!("{}: opcm needs a `base`, the models' common parent", recipe.path.display()))
    })?;
    let (base, parameters) = (open(base)?, recipe.parameters("", 0.0));
    let settings =
        Settings { alpha: parameters.number("alpha", 0.5)?, convolutions: parameters.flag("convolutions", false)? };
    let models = recipe.models.iter().map(|m| open(&m.path)).collect::<Result<Vec<_>>>()?;
    let named = recipe.models.iter().zip(&models);
    let arrivals: Vec<Arrival<'_>> = named.map(|(m, checkpoint)| Arrival { name: &m.name, checkpoint }).collect();
    refuse(args.dry_run, "opcm has no --dry-run: a model at a time is in memory, a matrix at a time in work")?;
    sequential::add(into, &base, &arrivals, settings, out)?;
    match &args.out {
        Some(target) => sequential::write(into, &base, recipe.dtype, target),
        None => Ok(()),
    }
}

fn open(path: &Path) -> Result<Checkpoint> {
    refuse(is_adapter(path), &format!("{}: is an adapter; opcm merges whole models", path.display()))?;
    Ok(Checkpoint::open(path)?)
}

fn refuse(wrong: bool, reason: &str) -> Result<()> {
    if wrong { Err(Error::Argument(reason.into())) } else { Ok(()) }
}
