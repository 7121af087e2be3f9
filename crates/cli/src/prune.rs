//! `regrow prune`: zeroes weights of a checkpoint and writes it back, otherwise unchanged.

use std::io::Write;
use std::path::{Path, PathBuf};

use burn::module::ParamId;
use regrow_checkpoint::atomic;
use regrow_checkpoint::storage::Storage;
use regrow_checkpoint::{Checkpoint, Entry, Form, apply_mask, convert, rewrite};
use regrow_pruners::registry::{BUDGETS, LAYER_SOLVERS, Params, SCORES, find};
use regrow_pruners::{Allocate, Needs, Score};
use regrow_sparse_core::mask::schedule::check_sparsity;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::report::Report;
use regrow_sparse_core::model::weight::Weight;
use regrow_sparse_core::registry;
use regrow_sparse_core::{MaskSet, Pattern};
use regrow_zoo::{Arch, Role, TensorSpec, check};

use crate::convert::FormArgs;
use crate::error::{Error, Result};
use crate::lm;
use crate::source::locate;
use crate::text;

/// Prune a checkpoint without retraining
///
/// Names, shapes, types, order and metadata of the tensors stay unchanged unless --dtype or --format are given, so that
/// any program that loads the original loads the result. Exactly round(sparsity x weights) become zero; ties keep the
/// earlier.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  regrow prune resnet20.safetensors --arch resnet20 --sparsity 0.8 --out pruned.safetensors\n  \
                        regrow prune MODEL_DIR --method wanda --sparsity 0.5 --calibration text.txt --out OUT_DIR\n  \
                        regrow prune org/name --pattern 2:4 --out OUT_DIR"
)]
pub struct Args {
    /// A safetensors file with PyTorch's names, a Hugging Face directory with a language model, or such a
    /// model's name on the hub (org/name)
    file: PathBuf,
    /// The branch, tag or commit of a model downloaded by name
    #[arg(long, conflicts_with = "arch")]
    revision: Option<String>,
    /// The network of a file: cifar-lenet, lenet5, mlp, mlp-residual, mlp-small, mnist-cnn, resnet20,
    /// resnet32, resnet56
    #[arg(long)]
    arch: Option<String>,
    #[arg(long, default_value = "magnitude", help = method_help())]
    method: String,
    #[arg(long, help = budget_help())]
    budget: Option<String>,
    /// The fraction of weights to set to zero, in [0, 1); an N:M pattern implies its own
    #[arg(long, allow_negative_numbers = true)]
    sparsity: Option<f64>,
    /// Where zeros may be: unstructured, N:M (such as 2:4), block:RxC, rows, columns
    #[arg(long, default_value = "unstructured")]
    pattern: String,
    /// Prune the last layer too; in a language model this is the head, which may share the embedding's matrix
    #[arg(long)]
    include_head: bool,
    /// Prune a language model's embedding too, by magnitude for every method: it reads no activations. If the head
    /// shares its matrix, --include-head takes precedence
    #[arg(long, conflicts_with = "arch")]
    include_embedding: bool,
    /// The random seed, for methods that use randomness; if given, calibration windows start at random positions
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    form: FormArgs,
    /// The output path of the pruned checkpoint
    #[arg(long)]
    out: PathBuf,
    /// Also write the layers' densities as an image (SVG)
    #[arg(long)]
    picture: Option<PathBuf>,
    #[command(flatten)]
    model: lm::PruneOptions,
}

/// Reads, scores, masks, writes, reports.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    if args.arch.is_none() {
        let folder = locate(&args.file, args.revision.as_deref())?;
        let found = std::fs::metadata(&folder).map_err(|e| regrow_sparse_core::Error::io(&folder, e))?;
        if found.is_dir() {
            return model(args, &folder, out);
        }
    }
    let seed = Params::new(args.seed.unwrap_or(0));
    let score = find(SCORES, &args.method)?.build(&seed)?;
    let recipe = Recipe::default()
        .with_budget(find(BUDGETS, args.budget.as_deref().unwrap_or("global"))?.build(&seed)?)
        .with_pattern(Pattern::parse(&args.pattern)?);
    recipe.needs(&score).check(&Needs::NONE, &args.method)?;
    let sparsity = sparsity(args, recipe.pattern)?;
    check_sparsity(sparsity)?;
    let missing = || Error::Argument("--arch is missing; only a Hugging Face directory brings its own".into());
    let arch = Arch::parse(args.arch.as_ref().ok_or_else(missing)?)?;
    let checkpoint = Checkpoint::open(&args.file)?;
    let tensors = check(arch, &checkpoint)?.tensors;
    let chosen: Vec<&(TensorSpec, Entry)> = tensors
        .iter()
        .filter(|(spec, _)| spec.role == Role::Weight || (args.include_head && spec.role == Role::Head))
        .collect();
    let weights = chosen.iter().map(|(_, entry)| read(&checkpoint, entry)).collect::<Result<Vec<_>>>()?;
    let masks = recipe.masks(&weights, &score, sparsity)?;
    write(&checkpoint, &masks, args)?;
    let positions =
        |name: &str| chosen.iter().find(|(_, entry)| entry.name == name).map_or(0, |(spec, _)| spec.positions);
    let report = Report::new(&masks, positions);
    if let Some(path) = &args.picture {
        atomic::write_atomic(path, |file| file.write_all(report.svg().as_bytes()))?;
    }
    writeln!(out, "{report}")?;
    let (zeros, all) = (report.total.zeros, report.total.weights);
    let counts = format!("{} of {} prunable weights are zero", text::grouped(zeros), text::grouped(all));
    writeln!(out, "sparsity {} ({counts})", text::percent(zeros, all))?;
    Ok(())
}

/// The methods of the registry: scores that need weights alone, and those for language models.
fn method_help() -> String {
    let alone = |entry: &&registry::Entry<dyn Score>| {
        entry.build(&Params::new(0)).is_ok_and(|score| score.needs() == Needs::NONE)
    };
    let scores: Vec<&str> = SCORES.iter().filter(alone).map(|entry| entry.info.name).collect();
    let solvers = LAYER_SOLVERS.iter().map(|entry| entry.info.name).filter(|name| !scores.contains(name));
    let (scores, solvers) = (scores.join(", "), solvers.collect::<Vec<_>>().join(", "));
    format!("What is kept: {scores}; for a language model also {solvers} (see `regrow methods layer-solver`)")
}

/// The budgets of the registry: those that need weights alone, and those for language models.
fn budget_help() -> String {
    let (alone, more): (Vec<_>, Vec<_>) = BUDGETS
        .iter()
        .filter(|entry| entry.info.params.iter().all(|param| !param.default.is_empty()))
        .partition(|entry| entry.build(&Params::new(0)).is_ok_and(|budget| budget.needs() == Needs::NONE));
    let names = |entries: &[&registry::Entry<dyn Allocate>]| {
        entries.iter().map(|entry| entry.info.name).collect::<Vec<_>>().join(", ")
    };
    let (alone, more) = (names(&alone), names(&more));
    format!(
        "How the total is shared among layers: {alone}, by default global; for a language model also {more}, by \
         default uniform (see `regrow methods budget`)"
    )
}

fn sparsity(args: &Args, pattern: Pattern) -> Result<f64> {
    let missing = || Error::Argument("--sparsity is missing (only an N:M pattern brings its own)".into());
    args.sparsity.or(pattern.fixed_sparsity()).ok_or_else(missing)
}

/// Prunes a language model.
fn model(args: &Args, folder: &Path, out: &mut dyn Write) -> Result<()> {
    if args.picture.is_some() {
        return Err(Error::Argument("of a language model, regrow inspect draws the picture (--picture)".into()));
    }
    let pattern = Pattern::parse(&args.pattern)?;
    lm::prune(
        &lm::Job {
            folder,
            method: &args.method,
            sparsity: sparsity(args, pattern)?,
            pattern,
            budget: args.budget.as_deref(),
            seed: args.seed,
            head: args.include_head,
            embedding: args.include_embedding,
            options: &args.model,
            form: (args.form.dtype(), storage(args, pattern)?),
            out: &args.out,
        },
        out,
    )
}

/// How the weights of a language model are stored.
fn storage(args: &Args, pattern: Pattern) -> Result<Storage> {
    let storage = args.form.storage()?;
    match (storage, pattern) {
        (Storage::TwoFour, Pattern::NofM { n: 0..=2, m: 4 }) => Ok(storage),
        (Storage::TwoFour, _) => Err(Error::Argument("--format 2:4 is for what --pattern 2:4 prunes".into())),
        _ => Ok(storage),
    }
}

fn read(checkpoint: &Checkpoint, entry: &Entry) -> Result<Weight> {
    let values = checkpoint.read_f32(&entry.name)?;
    Ok(Weight { path: entry.name.clone(), id: ParamId::new(), shape: entry.shape.clone(), values, mask: None })
}

fn write(checkpoint: &Checkpoint, masks: &MaskSet, args: &Args) -> Result<()> {
    if args.form.storage()? != Storage::Dense {
        return Err(Error::Argument("only matrices of language models are packed: --format dense".into()));
    }
    let edit = |entry: &Entry, bytes: &[u8]| {
        let Some(mask) = masks.get(&entry.name) else { return Ok(None) };
        let mut bytes = bytes.to_vec();
        apply_mask(entry, &mut bytes, |index| mask.keeps(index))?;
        Ok(Some(bytes))
    };
    let form = Form { dtype: args.form.dtype(), ..Form::default() };
    match form.is_that_of(checkpoint) {
        true => rewrite(checkpoint, &args.out, edit)?,
        false => drop(convert(checkpoint, &args.out, &form, Some(&edit), &|_, _| ())?),
    }
    Ok(())
}
