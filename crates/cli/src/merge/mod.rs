//! `regrow merge`: several checkpoints become one, tensor by tensor.

mod card;
mod mergekit;
mod own;
mod parents;
mod recipe;
mod setting;
mod tune;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use regrow_merging::{Entry, Merge, TensorMerge, Value, find};
use regrow_sparse_core::checkpoint::{Checkpoint, Dtype, Plan, Writer};

use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::text;
use parents::Parents;
use recipe::Recipe;

pub use tune::{Args as TuneArgs, run as tune};

/// Merge models that share an architecture into one
///
/// The recipe says what and how: a TOML file, or a mergekit configuration in YAML. Models are safetensors
/// files or Hugging Face directories; a few tensors at a time are in memory. Methods: breadcrumbs,
/// breadcrumbs-ties, dare, dare-ties, della, della-linear, fisher, linear, model-stock, opcm, regmean, rmm,
/// slerp, sms, task-arithmetic, ties. Two go their own ways: rmm merges adapters so that `regrow revert` gives any
/// of them back; opcm merges models one after another --into a folder.
#[derive(clap::Args)]
#[command(after_help = "Example: regrow merge recipe.toml --out MERGED\n\n  \
                        # recipe.toml\n  \
                        method = \"ties\"\n  \
                        base = \"path/to/base\"\n  \
                        models = [{ path = \"path/to/a\", weight = 0.5, density = 0.3 }, { path = \"path/to/b\" }]\n  \
                        parameters = { lambda = 1.0, normalize = true }\n  \
                        dtype = \"float16\"\n\n  \
                        A parameter may be a list of numbers, from the first layer to the last, or go by parts of names:\n  \
                        weight = [{ filter = \"mlp\", value = 0.5 }, { value = 0.2 }]\n\n  \
                        rmm: parameters = { basis = 2 }, or { storage = 0.5 } or { error = 0.05 }; besides granularity (position,\n  \
                        layer, product), align (none, balanced, procrustes), centred, normalize, rank\n  \
                        opcm: parameters = { alpha = 0.5, convolutions = false }; regrow merge r.toml --into STATE --out MERGED")]
pub struct Args {
    /// The recipe: method, base, models, parameters, dtype, tokenizer, masks
    recipe: PathBuf,
    /// Where the merged model goes: a directory, or a file that ends in .safetensors
    #[arg(long, required_unless_present = "into")]
    out: Option<PathBuf>,
    /// For opcm: the folder to which the recipe's models are added
    #[arg(long)]
    into: Option<PathBuf>,
    /// Show what would be done, sizes and the memory to expect, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Go on where an interrupted run with the same recipe stopped
    #[arg(long)]
    resume: bool,
    /// The most that a file of the result holds, as 500MB or 5GB
    #[arg(long, default_value = "5GB", value_parser = bytes)]
    shard_size: usize,
    /// Merge even where the base does not look like the models' parent
    #[arg(long)]
    any_base: bool,
}

impl Args {
    /// Where the result goes; clap has seen to it that there is one where it is asked for.
    fn out(&self) -> &Path {
        self.out.as_deref().unwrap_or(Path::new(""))
    }
}

/// Reads the recipe, checks everything, merges.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let recipe = Recipe::read(&args.recipe)?;
    match recipe.method.as_str() {
        "rmm" => return own::rmm(args, &recipe, out),
        "opcm" => return own::opcm(args, &recipe, out),
        other if args.into.is_some() => {
            return Err(Error::Argument(format!("--into is for opcm, not for {other}")));
        }
        _ => {}
    }
    let method = find(&recipe.method)?;
    recipe.check(method.parameters)?;
    check_counts(&recipe, method)?;
    let parents = Parents::open(&recipe)?;
    let merge = planned(&recipe, method, &parents, args.any_base)?;
    let plan = plan(args, &recipe, &parents, &merge)?;
    if args.dry_run {
        return dry_run(&recipe, method, &merge, &plan, out);
    }
    let started = Instant::now();
    write(args, &recipe, method, &parents, &merge, plan.clone())?;
    let (models, files) = (count(recipe.models.len(), "model"), count(plan.files(), "file"));
    let seconds = started.elapsed().as_secs_f64();
    let bytes = text::grouped(plan.bytes());
    writeln!(
        out,
        "{models} merged by {}: {} tensors, {bytes} bytes in {files}, {seconds:.1} s",
        method.name,
        plan.tensors().count()
    )?;
    Ok(())
}

fn check_counts(recipe: &Recipe, method: &Entry) -> Result<()> {
    let says = |reason: String| Err(Error::Argument(format!("{}: {reason}", recipe.path.display())));
    let (models, (fewest, most)) = (recipe.models.len(), method.models);
    if method.base && recipe.base.is_none() {
        return says(format!("{} needs a `base`, the models' common parent", method.name));
    }
    if method.name == "slerp" && models == 1 && recipe.base.is_none() {
        return says("slerp needs two models, or a `base` and one".into());
    }
    match models {
        n if n < fewest => says(format!("{} needs at least {fewest} models, the recipe has {n}", method.name)),
        n if n > most => says(format!("{} takes at most {most} models, the recipe has {n}", method.name)),
        _ => Ok(()),
    }
}

/// The merge, after all that can be checked before work has been.
fn planned<'a>(recipe: &Recipe, method: &Entry, parents: &'a Parents, any_base: bool) -> Result<Merge<'a>> {
    let names: Vec<&str> = parents.lead().entries().iter().map(|entry| entry.name.as_str()).collect();
    let places = setting::places(names.iter().copied());
    if let Some(layers) = recipe.layers.filter(|layers| setting::layers(names.iter().copied()) != *layers) {
        let found = setting::layers(names.iter().copied());
        let reason = format!("a slice takes {layers} layers, the models have {found}: only whole models are merged");
        return Err(Error::Argument(format!("{}: {reason}", recipe.path.display())));
    }
    let trimmed = parents.trimmed(recipe)?;
    let make = |tensor: &str| -> regrow_sparse_core::Result<Box<dyn TensorMerge>> {
        let mut parameters = recipe.parameters(tensor, places.get(tensor).copied().unwrap_or(0.0));
        for (own, densities) in parameters.models.iter_mut().zip(&trimmed) {
            own.extend(densities.get(tensor).map(|density| ("density".to_string(), Value::Number(*density))));
        }
        (method.make)(&parameters)
    };
    // A base that the method does not look at need not be read.
    let base = parents.base.as_ref().filter(|_| method.base || (method.name == "slerp" && parents.models.len() == 1));
    let merge = Merge::new(base, parents.sources(), recipe.masks, recipe.dtype, &make)?;
    if let Some(base) = base.filter(|_| method.base && !any_base) {
        parents.check_base(base)?;
    }
    Ok(merge)
}

fn plan(args: &Args, recipe: &Recipe, parents: &Parents, merge: &Merge<'_>) -> Result<Plan> {
    let file = args.out().extension().is_some_and(|e| e == "safetensors");
    if !file && !parents.lead().is_directory() {
        let reason = "the models are files: name a file that ends in .safetensors";
        return Err(Error::Argument(format!("{}: {reason}", args.out().display())));
    }
    let limit = if file { usize::MAX } else { args.shard_size };
    let plan = Plan::sharded(merge.planned(), limit)?;
    Ok(if file { plan.with_metadata("regrow_recipe", &recipe.text) } else { plan })
}

fn dry_run(recipe: &Recipe, method: &Entry, merge: &Merge<'_>, plan: &Plan, out: &mut dyn Write) -> Result<()> {
    let header = ["model", "path"];
    let mut rows: Vec<Vec<String>> =
        recipe.models.iter().map(|m| vec![text::one_line(&m.name), m.path.display().to_string()]).collect();
    rows.extend(recipe.base.iter().map(|base| vec!["(base)".into(), base.display().to_string()]));
    writeln!(out, "{}: {} ({})\n", method.name, method.about, method.paper)?;
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

fn write(args: &Args, recipe: &Recipe, method: &Entry, parents: &Parents, merge: &Merge<'_>, plan: Plan) -> Result<()> {
    let inputs: Vec<&Checkpoint> = parents.all().collect();
    let settings = format!("{} {} {}", parents.identity()?, args.shard_size, recipe.text);
    let begin = if args.resume { Writer::resume } else { Writer::create };
    let mut writer = begin(plan, args.out(), &inputs, &settings)?;
    if args.out().extension().is_none_or(|e| e != "safetensors") {
        writer.companions(parents.lead())?;
        for (name, contents) in parents.tokenizer(recipe)? {
            writer.add(&name, &contents)?;
        }
        if let Some(config) = recipe.dtype.map(|dtype| config(parents.lead(), dtype)).transpose()?.flatten() {
            writer.add("config.json", &config)?;
        }
        writer.add("README.md", card::card(recipe, method, args.out()).as_bytes())?;
        writer.add(card::recipe_name(&recipe.path), recipe.text.as_bytes())?;
    }
    let bar = Bar::bytes();
    writer.write(&|tensor| merge.tensor(tensor), &|done, all| bar.at(done, all))?;
    Ok(writer.finish()?)
}

/// The configuration of `lead`, if it has one, saying that weights are of this type.
fn config(lead: &Checkpoint, dtype: Dtype) -> Result<Option<Vec<u8>>> {
    let path = lead.path().join("config.json");
    if !path.exists() {
        return Ok(None);
    }
    let text = std::fs::read(&path).map_err(|e| regrow_sparse_core::Error::io(&path, e))?;
    let mut config: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|e| Error::Argument(format!("{}: is not a configuration: {e}", path.display())))?;
    let name = match dtype {
        Dtype::F16 => "float16",
        Dtype::BF16 => "bfloat16",
        _ => "float32",
    };
    for key in ["torch_dtype", "dtype"] {
        if let Some(slot) = config.get_mut(key) {
            *slot = name.into();
        }
    }
    Ok(Some(serde_json::to_vec_pretty(&config)?))
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
