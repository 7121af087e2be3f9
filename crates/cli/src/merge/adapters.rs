//! Adapters merged reversibly (RMM).

use std::io::Write;

use regrow_merging::MergeEntry;

use super::output::Output;
use super::recipe::Recipe;
use super::{Args, refuse};
use crate::error::Result;
use crate::rmm::{self, AdapterInput};

/// Merges the recipe's adapters into a folder, from which `regrow revert` restores any of them.
pub fn run(args: &Args, recipe: &Recipe, method: &MergeEntry, out: &mut dyn Write) -> Result<()> {
    let (rmm, budget) = method.reversible(&recipe.params("", 0.0))?;
    let inputs: Vec<AdapterInput> =
        recipe.models.iter().map(|m| AdapterInput { name: m.name.clone(), path: m.path.clone() }).collect();
    if args.dry_run {
        return rmm::plan(&inputs, &rmm, out);
    }
    let output = Output::new(args, recipe, &method.info)?;
    refuse(output.is_file(), "rmm writes a folder, from which `regrow revert` gives any adapter back: --out DIR")?;
    let manifest = rmm::merge(&inputs, &rmm, budget, &output)?;
    writeln!(out, "{}", rmm::summary(&manifest))?;
    Ok(())
}
