//! `regrow revert`: restores any of the reversibly merged adapters, as an adapter or in its base.

use std::io::Write;
use std::path::PathBuf;

use regrow_checkpoint::{Checkpoint, Dtype};
use regrow_lm::adapter::{Draft, Factors, Module, Rest, Target};

use super::{Layer, Merged, about, report, stored_rest};
use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::merge::tokenizer_files;
use crate::source::identity;
use crate::text;

/// Restore one of the models that were merged reversibly
///
/// DIR is the output of `regrow merge` with the method rmm. The result is an adapter that peft loads, or, with
/// --merged, the base with that adapter added.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  regrow revert MERGED --task imdb --out imdb-adapter\n  \
                        regrow revert MERGED --task imdb --merged BASE_DIR --out imdb-model\n  regrow revert MERGED --report")]
pub struct Args {
    /// The merged directory
    dir: PathBuf,
    /// The name of the model to restore
    #[arg(long, required_unless_present = "report", requires = "out")]
    task: Option<String>,
    /// The output path
    #[arg(long)]
    out: Option<PathBuf>,
    /// Add the adapter to this base, a checkpoint or Hugging Face directory
    #[arg(long, value_name = "BASE")]
    merged: Option<PathBuf>,
    /// Resume an interrupted run with the same settings
    #[arg(long, conflicts_with = "report")]
    resume: bool,
    /// Only print what is in DIR: its tasks, errors and storage
    #[arg(long, conflicts_with_all = ["task", "merged"])]
    report: bool,
    /// With --report: as JSON
    #[arg(long, requires = "report")]
    json: bool,
    /// With --report: also draw the errors by layer and task (SVG)
    #[arg(long, requires = "report")]
    picture: Option<PathBuf>,
}

/// Reads, rebuilds, writes.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let merged = Merged::open(&args.dir)?;
    let (Some(task), Some(target)) = (&args.task, &args.out) else {
        return report::show(&merged.manifest, args.json, args.picture.as_deref(), out);
    };
    let number = merged.task(task)?;
    let draft = draft(&merged, number)?;
    let bar = Bar::bytes();
    let watch = |done: usize, all: usize| bar.at(done, all);
    let base = args.merged.as_ref().map(Checkpoint::open).transpose()?;
    let files = identity([&merged.checkpoint].into_iter().chain(&base).flat_map(Checkpoint::files))?;
    let settings = format!("{task} {files}");
    let to = Target { out: target, inputs: vec![&merged.checkpoint], settings, resume: args.resume };
    match &base {
        None => draft.write(&to, &watch)?,
        Some(base) => draft.merge_into(base, &to, &watch)?,
    }
    let info = &merged.manifest.tasks[number];
    let modules = text::grouped(merged.manifest.layers.len());
    writeln!(out, "{}: {modules} modules, relative error {:.4}", info.name, info.relative_error)?;
    Ok(())
}

/// The adapter of a task.
fn draft(merged: &Merged, task: usize) -> Result<Draft<'_>> {
    let info = &merged.manifest.tasks[task];
    let dtype = match info.dtype.as_str() {
        "F16" => Dtype::F16,
        "BF16" => Dtype::BF16,
        _ => Dtype::F32,
    };
    let layers = &merged.manifest.layers;
    let modules = layers.iter().map(|layer| module(merged, layer)).collect::<Result<Vec<_>>>()?;
    let ranks: Vec<usize> = modules.iter().map(|m| m.shape[1]).collect();
    let factors = move |index: usize| {
        let layer: &Layer = &layers[index];
        let found = merged.space(layer)?.revert(task).map_err(|e| about(&layer.name, &e))?;
        let found = if found.rank() > ranks[index] { found.truncated(ranks[index])? } else { found };
        Ok(Factors { left: found.left().to_vec(), right: found.right().to_vec() })
    };
    let rest = info.rest.iter().map(|name| rest(merged, task, name)).collect::<Result<_>>()?;
    // A tokenizer in the merged directory is copied.
    let beside = tokenizer_files(&merged.path)?;
    Ok(Draft { config: info.config.clone(), dtype, modules, factors: Box::new(factors), rest, beside })
}

/// A module with the rank of the rebuilt difference: that of the factors, or, for a sum of basis models, at most what
/// all tasks together can span.
fn module(merged: &Merged, layer: &Layer) -> Result<Module> {
    let [m, d] = layer.shape;
    let own = format!("{}/", layer.name);
    let mut rank = 0;
    for entry in merged.checkpoint.entries() {
        let Some(part) = entry.name.strip_prefix(&own) else { continue };
        match (part, &entry.shape[..]) {
            ("left.basis", &[_, _, r]) | ("left.mean", &[_, r]) => rank = r,
            (part, &[_, r]) if part.ends_with(".left") => rank += r,
            _ => {}
        }
    }
    let by_factors = merged.manifest.granularity != "product";
    let most = if by_factors { rank } else { layer.ranks.iter().sum::<usize>().min(m).min(d) };
    match rank {
        0 => Err(Error::Argument(format!("{}: {} has no basis models", merged.path.display(), layer.name))),
        _ => Ok(Module { name: layer.name.clone(), kind: layer.kind(), shape: [m, rank.min(most), d] }),
    }
}

fn rest<'a>(merged: &'a Merged, task: usize, name: &str) -> Result<Rest<'a>> {
    let stored = stored_rest(task, name);
    let entry = merged.checkpoint.entry(&stored)?;
    let bytes = merged.checkpoint.raw(&stored)?;
    Ok(Rest { name: name.into(), dtype: entry.dtype, shape: entry.shape.clone(), bytes })
}
