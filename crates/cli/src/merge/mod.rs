//! `regrow merge`: several checkpoints become one, tensor by tensor.

mod adapters;
mod card;
mod mergekit;
mod output;
mod parents;
mod recipe;
mod setting;
mod tune;
mod whole;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use regrow_checkpoint::{Checkpoint, Plan};
use regrow_merging::{ALL, BaseRole, Merge, MergeEntry, MergeForm, TensorMerge, find};

use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::text;
use parents::Parents;
use recipe::Recipe;

pub use output::{Output, files as tokenizer_files};
pub use tune::{Args as TuneArgs, run as tune};

/// Merge models that share an architecture into one
///
/// The recipe specifies what to merge and how: a TOML file, or a mergekit configuration in YAML. Models are safetensors
/// files or Hugging Face directories; a few tensors at a time are in memory. rmm merges adapters so that `regrow
/// revert` restores any of them; opcm can also merge models one after another --into a folder.
#[derive(clap::Args)]
#[command(after_help = help())]
pub struct Args {
    /// The recipe: method, base, models, parameters, dtype, tokenizer, masks
    recipe: PathBuf,
    /// The output path of the merged model: a directory, or a file that ends in .safetensors
    #[arg(long, required_unless_present = "into")]
    out: Option<PathBuf>,
    /// For opcm: the folder to which the recipe's models are added
    #[arg(long)]
    into: Option<PathBuf>,
    /// Show what would be done, sizes and the expected memory use, without doing it
    #[arg(long)]
    dry_run: bool,
    /// Resume an interrupted run with the same recipe; with opcm, continue with the models that are not yet in --into
    #[arg(long)]
    resume: bool,
    /// The maximum size of an output file, such as 500MB or 5GB
    #[arg(long, default_value = "5GB", value_parser = bytes)]
    shard_size: usize,
    /// Merge even if the base does not look like the models' parent
    #[arg(long)]
    any_base: bool,
}

impl Args {
    /// The output path; clap guarantees one.
    fn out(&self) -> &Path {
        self.out.as_deref().unwrap_or(Path::new(""))
    }
}

/// Recipes and methods, for `--help`.
fn help() -> String {
    let width = ALL.iter().map(|method| method.info.name.len()).max().unwrap_or(0);
    let methods: String =
        ALL.iter().map(|method| format!("\n  {:width$}  {}", method.info.name, method.info.summary)).collect();
    format!(
        "Example: regrow merge recipe.toml --out MERGED\n\n  \
         # recipe.toml\n  \
         method = \"ties\"\n  \
         base = \"path/to/base\"\n  \
         models = [{{ path = \"path/to/a\", weight = 0.5, density = 0.3 }}, {{ path = \"path/to/b\" }}]\n  \
         parameters = {{ lambda = 1.0, normalize = true }}\n  \
         dtype = \"float16\"\n\n  \
         A parameter may be a list of numbers, from the first layer to the last, or depend on parts of names:\n  \
         weight = [{{ filter = \"mlp\", value = 0.5 }}, {{ value = 0.2 }}]\n\n  \
         opcm one after another: regrow merge recipe.toml --into STATE --out MERGED\n  \
         fisher, regmean: models = [{{ path = \"path/to/a\", statistics = \"a.safetensors\" }}, ..], made by regrow \
         statistics\n\n\
         Methods (`regrow methods merge NAME` shows parameters):{methods}"
    )
}

/// Reads the recipe, checks everything, merges.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let recipe = Recipe::read(&args.recipe)?;
    let method = find(&recipe.method)?;
    recipe.check(method)?;
    if args.into.is_some() && method.info.name != "opcm" {
        return Err(Error::Argument(format!("--into is for opcm, not for {}", recipe.method)));
    }
    check_counts(&recipe, method)?;
    match method.form {
        MergeForm::Tensor(_) => tensors(args, &recipe, method, out),
        MergeForm::Whole(_) => whole::run(args, &recipe, method, out),
        MergeForm::Reversible(_) => adapters::run(args, &recipe, method, out),
    }
}

/// Merges tensor by tensor.
fn tensors(args: &Args, recipe: &Recipe, method: &MergeEntry, out: &mut dyn Write) -> Result<()> {
    let parents = Parents::open(recipe)?;
    let merge = planned(recipe, method, &parents, args.any_base)?;
    let output = Output::new(args, recipe, &method.info)?;
    let plan = output.plan(merge.planned(), parents.lead())?;
    if args.dry_run {
        return dry_run(recipe, method, &merge, &plan, out);
    }
    let started = Instant::now();
    let (files, bytes, tensors) = (plan.files(), text::grouped(plan.bytes()), plan.tensors().count());
    write(&output, &parents, &merge, plan)?;
    let (models, files) = (count(recipe.models.len(), "model"), count(files, "file"));
    let seconds = started.elapsed().as_secs_f64();
    writeln!(
        out,
        "{models} merged by {}: {tensors} tensors, {bytes} bytes in {files}, {seconds:.1} s",
        method.info.name
    )?;
    Ok(())
}

fn check_counts(recipe: &Recipe, method: &MergeEntry) -> Result<()> {
    let checked = method.check(recipe.models.len(), recipe.base.is_some());
    checked.map_err(|e| Error::Argument(format!("{}: {e}", recipe.path.display())))
}

/// The merge, after all checks that can be done before it.
fn planned<'a>(recipe: &Recipe, method: &MergeEntry, parents: &'a Parents, any_base: bool) -> Result<Merge<'a>> {
    let names: Vec<&str> = parents.lead().entries().iter().map(|entry| entry.name.as_str()).collect();
    let places = setting::places(names.iter().copied());
    if let Some(layers) = recipe.layers.filter(|layers| setting::layers(names.iter().copied()) != *layers) {
        let found = setting::layers(names.iter().copied());
        let reason = format!("a slice takes {layers} layers, the models have {found}: only whole models are merged");
        return Err(Error::Argument(format!("{}: {reason}", recipe.path.display())));
    }
    let trimmed = parents.trimmed(recipe, method)?;
    let make = |tensor: &str| -> regrow_sparse_core::Result<Box<dyn TensorMerge>> {
        let mut params = recipe.params(tensor, places.get(tensor).copied().unwrap_or(0.0));
        for (own, densities) in params.models.iter_mut().zip(&trimmed) {
            if let Some(density) = densities.get(tensor) {
                *own = std::mem::take(own).set("density", density);
            }
        }
        method.tensor(&params)
    };
    // A base that the method does not use is not read.
    let base = parents.base.as_ref().filter(|_| method.reads_base(parents.models.len()));
    let merge = Merge::new(base, parents.inputs(), recipe.masks, recipe.dtype, &make)?;
    if let Some(base) = base.filter(|_| method.base == BaseRole::Parent && !any_base) {
        parents.check_base(base)?;
    }
    Ok(merge)
}

fn dry_run(recipe: &Recipe, method: &MergeEntry, merge: &Merge<'_>, plan: &Plan, out: &mut dyn Write) -> Result<()> {
    let header = ["model", "path"];
    let mut rows: Vec<Vec<String>> =
        recipe.models.iter().map(|m| vec![text::one_line(&m.name), m.path.display().to_string()]).collect();
    rows.extend(recipe.base.iter().map(|base| vec!["(base)".into(), base.display().to_string()]));
    writeln!(out, "{}: {} ({})\n", method.info.name, method.info.summary, method.info.paper)?;
    writeln!(out, "{}\n", text::table(&header, 2, rows))?;
    let largest = plan.tensors().max_by_key(|tensor| tensor.elements());
    if let Some(largest) = largest {
        writeln!(out, "largest tensor {}, {}", text::one_line(&largest.name), text::shape(&largest.shape))?;
    }
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let (bytes, peak) = (text::grouped(plan.bytes()), text::grouped(merge.peak(plan, threads)));
    writeln!(out, "{} tensors, {bytes} bytes in {}", plan.tensors().count(), count(plan.files(), "file"))?;
    writeln!(out, "about {peak} bytes of memory for tensors, on {threads} threads")?;
    Ok(())
}

fn write(output: &Output, parents: &Parents, merge: &Merge<'_>, plan: Plan) -> Result<()> {
    let inputs: Vec<&Checkpoint> = parents.all().collect();
    let mut writer = output.begin(plan, parents.lead(), &inputs, &parents.identity()?)?;
    let bar = Bar::bytes();
    writer.write(&|tensor| merge.tensor(tensor), &|done, all| bar.at(done, all))?;
    Ok(writer.finish()?)
}

/// `1 file`, `2 files`.
fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{} {what}s", text::grouped(n)) }
}

/// `5GB` as bytes.
fn bytes(size: &str) -> Result<usize, String> {
    let wrong = || format!("{size:?} is no size such as 500MB or 5GB");
    let digits = size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match size[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => 1.0,
        "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        _ => return Err(wrong()),
    };
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    if number > 0.0 && number.is_finite() { Ok((number * factor) as usize) } else { Err(wrong()) }
}

/// Whether a path is a directory with an adapter.
fn is_adapter(path: &Path) -> bool {
    path.join("adapter_config.json").exists()
}

fn refuse(wrong: bool, reason: &str) -> Result<()> {
    if wrong { Err(Error::Argument(reason.into())) } else { Ok(()) }
}
