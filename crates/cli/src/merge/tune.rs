//! `regrow tune`: optimizes the coefficients of a merge on validation data.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::module::Module;
use regrow_checkpoint::atomic;
use regrow_checkpoint::{Checkpoint, Plan, Writer};
use regrow_merging::search::{Evaluation, Search, Solver};
use regrow_merging::{MergeEntry, MergeForm, find};
use regrow_train::classifier::{Examples, mean_loss};
use regrow_zoo::data::{self, Images, Part};
use regrow_zoo::{Arch, load};
use serde::{Deserialize, Serialize};

use super::parents::Parents;
use super::recipe::Recipe;
use super::setting::{Scalar, Setting};
use super::{check_counts, planned};
use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::lm;

/// Choose the coefficients of a recipe by the merged model's loss on validation data
///
/// Merges and evaluates repeatedly, guided by Nelder and Mead's simplex or a particle swarm, and writes the recipe with
/// the best coefficients found. The data are training images, evenly spaced, or a text.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  regrow tune recipe.toml --arch mnist-cnn --dataset mnist --out best.toml\n  \
                        regrow tune recipe.toml --over density --text validation.txt --solver particle-swarm --out best.toml\n  \
                        regrow tune soup.toml --solver greedy-soup --arch resnet20 --dataset cifar10 --out greedy.toml")]
pub struct Args {
    /// The initial recipe
    recipe: PathBuf,
    /// The parameter to choose: a number for each model (weight, density, gamma, epsilon) or one (lambda, t, ..)
    #[arg(long, default_value = "weight")]
    over: String,
    /// Its minimum
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    lower: f64,
    /// Its maximum
    #[arg(long, default_value_t = 1.0, allow_negative_numbers = true)]
    upper: f64,
    /// nelder-mead, particle-swarm, or greedy-soup, which includes or excludes models
    #[arg(long, default_value = "nelder-mead")]
    solver: String,
    /// How many merges to evaluate
    #[arg(long, default_value_t = 50)]
    evaluations: usize,
    /// The seed of the particles
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The network of files
    #[arg(long, requires = "dataset")]
    arch: Option<String>,
    /// Its images: digits (embedded), mnist, fashion-mnist, cifar10
    #[arg(long, requires = "arch")]
    dataset: Option<String>,
    /// The folder of the data set, or the folder that contains it under its name
    #[arg(long, env = "REGROW_DATA")]
    data: Option<PathBuf>,
    /// How many training images to evaluate on
    #[arg(long, default_value_t = 1000)]
    images: usize,
    /// For language models: the text to predict
    #[arg(long, conflicts_with_all = ["arch", "dataset"])]
    text: Option<PathBuf>,
    /// For language models: tokens in a window
    #[arg(long, default_value_t = 256)]
    window: usize,
    /// Resume an interrupted search with the same settings
    #[arg(long)]
    resume: bool,
    /// The output path of the recipe with the coefficients
    #[arg(long)]
    out: PathBuf,
}

/// Evaluations so far, in a file beside the result, so that a search can be resumed.
#[derive(Serialize, Deserialize)]
struct Journal {
    settings: String,
    evaluations: Vec<(Vec<f64>, f64)>,
}

/// Searches and writes the recipe.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let mut recipe = Recipe::read(&args.recipe)?;
    let method = find(&recipe.method)?;
    let name = method.info.name;
    if !matches!(method.form, MergeForm::Tensor(_)) {
        return Err(Error::Argument(format!("tune is for methods that merge tensor by tensor, not for {name}")));
    }
    recipe.check(method)?;
    check_counts(&recipe, method)?;
    if !method.has(&args.over) {
        let known = method.info.param_names().join(", ");
        return Err(Error::Argument(format!("--over {}: the parameters of {name} are {known}", args.over)));
    }
    let per_model = method.per_model.contains(&args.over.as_str());
    let parents = Parents::open(&recipe)?;
    let judge = Judge::new(args, &parents)?;
    let search = search(args, &recipe, per_model)?;
    let mut journal = journal(args, &recipe, &parents)?;
    let known: Vec<Evaluation> =
        journal.evaluations.iter().map(|(point, loss)| Evaluation { point: point.clone(), loss: *loss }).collect();
    let bar = Bar::new("merges");
    let found = search.run(&known, &mut |point: &[f64]| -> Result<f64> {
        set(&mut recipe, &args.over, per_model, point);
        let loss = judge.loss(&recipe, method, &parents)?;
        journal.evaluations.push((point.to_vec(), loss));
        write_journal(args, &journal)?;
        bar.at(journal.evaluations.len(), args.evaluations);
        Ok(loss)
    })?;
    bar.at(found.evaluations, found.evaluations);
    set(&mut recipe, &args.over, per_model, &found.point);
    let first = journal.evaluations.first().map_or(f64::NAN, |(_, loss)| *loss);
    let text = format!("# {} chosen in {} merges, loss {:.6}\n", args.over, found.evaluations, found.loss);
    let text = text + &recipe.to_toml()?;
    atomic::write_atomic(&args.out, |file| file.write_all(text.as_bytes()))?;
    let _removed = fs::remove_file(journal_path(args));
    let point: Vec<String> = found.point.iter().map(|x| format!("{x:.4}")).collect();
    writeln!(out, "{} {}: loss {:.6}, {first:.6} at first", args.over, point.join(" "), found.loss)?;
    Ok(())
}

fn search(args: &Args, recipe: &Recipe, per_model: bool) -> Result<Search> {
    let solver = match args.solver.as_str() {
        "nelder-mead" => Solver::NelderMead,
        "particle-swarm" => Solver::ParticleSwarm,
        "greedy-soup" => greedy(args, recipe.models.len())?,
        other => {
            let known = "nelder-mead, particle-swarm, greedy-soup";
            return Err(Error::Argument(format!("unknown solver `{other}`: use {known}")));
        }
    };
    let middle = (args.lower + args.upper) / 2.0;
    let number = |setting: Option<&Setting>| match setting {
        Some(Setting::One(Scalar::Number(number))) => number.clamp(args.lower, args.upper),
        _ => middle,
    };
    let shared = recipe.parameters.get(&args.over);
    let start = match per_model {
        true => recipe.models.iter().map(|m| number(m.parameters.get(&args.over).or(shared))).collect(),
        false => vec![number(shared)],
    };
    if args.lower >= args.upper || !(args.lower.is_finite() && args.upper.is_finite()) {
        return Err(Error::Argument(format!("--lower {} is not below --upper {}", args.lower, args.upper)));
    }
    let search = Search::within(start, args.lower, args.upper)?;
    Ok(search.with_solver(solver, args.seed).with_evaluations(args.evaluations))
}

/// A greedy soup, if requested with settings that give one.
fn greedy(args: &Args, models: usize) -> Result<Solver> {
    let merges = 2 * models - 1;
    match (args.over.as_str(), args.evaluations) {
        ("weight", n) if n >= merges => Ok(Solver::GreedySoup),
        ("weight", n) => Err(Error::Argument(format!(
            "a greedy soup of {models} models takes {merges} merges, not {n} (--evaluations)"
        ))),
        (other, _) => Err(Error::Argument(format!("a greedy soup chooses models by their weight, not by {other}"))),
    }
}

/// Writes a point into the recipe.
fn set(recipe: &mut Recipe, name: &str, per_model: bool, point: &[f64]) {
    let one = |number: f64| Setting::One(Scalar::Number(number));
    if !per_model {
        recipe.parameters.insert(name.into(), one(point[0]));
        return;
    }
    for (model, number) in recipe.models.iter_mut().zip(point) {
        model.parameters.insert(name.into(), one(*number));
    }
}

fn journal_path(args: &Args) -> PathBuf {
    args.out.with_added_extension("progress.json")
}

fn journal(args: &Args, recipe: &Recipe, parents: &Parents) -> Result<Journal> {
    let Args { over, lower, upper, solver, seed, arch, dataset, images, text, window, .. } = args;
    let settings = format!(
        "{over} {lower} {upper} {solver} {seed} {arch:?} {dataset:?} {images} {text:?} {window} {} {}",
        parents.identity()?,
        recipe.text
    );
    let path = journal_path(args);
    if !args.resume || !path.exists() {
        return Ok(Journal { settings, evaluations: Vec::new() });
    }
    let text = fs::read(&path).map_err(|e| regrow_sparse_core::Error::io(&path, e))?;
    let journal: Journal =
        serde_json::from_slice(&text).map_err(|e| Error::Argument(format!("{}: {e}", path.display())))?;
    match journal.settings == settings {
        true => Ok(journal),
        false => {
            Err(Error::Argument(format!("{}: belongs to a search with other settings; remove it", path.display())))
        }
    }
}

fn write_journal(args: &Args, journal: &Journal) -> Result<()> {
    let text = serde_json::to_vec(journal)?;
    Ok(atomic::write_atomic(journal_path(args), |file| file.write_all(&text))?)
}

/// How a merged model is evaluated.
enum Judge<'a> {
    Images { arch: Arch, images: Box<Images>, classes: usize },
    Text { text: &'a Path, window: usize },
}

impl<'a> Judge<'a> {
    fn new(args: &'a Args, parents: &Parents) -> Result<Self> {
        if let Some(text) = &args.text {
            return match parents.lead().is_directory() {
                true => Ok(Self::Text { text, window: args.window }),
                false => Err(Error::Argument("--text is for directories of language models".into())),
            };
        }
        let missing = || Error::Argument("what to measure with is missing: --arch and --dataset, or --text".into());
        let (arch, dataset) = args.arch.as_ref().zip(args.dataset.as_ref()).ok_or_else(missing)?;
        let arch = Arch::parse(arch)?;
        let images = data::open_part(dataset, args.data.as_deref(), Part::Train)?;
        if images.size != arch.input() {
            let reason = format!("{dataset} images are {:?}, {arch} wants {:?}", images.size, arch.input());
            return Err(Error::Argument(reason));
        }
        let (all, wanted) = (images.len(), args.images.clamp(1, images.len()));
        let images = images.select(&(0..wanted).map(|i| i * all / wanted).collect::<Vec<_>>());
        let classes = images.classes;
        let images = match arch.normalization() {
            Some(normalization) => images.with_normalization(normalization),
            None => images,
        };
        Ok(Self::Images { arch, images: Box::new(images), classes })
    }

    /// The mean loss of the recipe's merge, in nats per image or token.
    fn loss(&self, recipe: &Recipe, method: &MergeEntry, parents: &Parents) -> Result<f64> {
        let folder = tempfile::tempdir().map_err(|e| regrow_sparse_core::Error::io(std::env::temp_dir(), e))?;
        match self {
            Self::Images { arch, images, classes } => {
                let file = folder.path().join("merged.safetensors");
                merge(recipe, method, parents, &file)?;
                let device = regrow_device::current();
                let (net, found) = load(*arch, &file, &device)?;
                match found == *classes {
                    true => Ok(mean_loss(&net.valid(), images.as_ref(), 200, &device)),
                    false => Err(Error::Argument(format!("the models have {found} classes, the images {classes}"))),
                }
            }
            Self::Text { text, window } => {
                let merged = folder.path().join("merged");
                merge(recipe, method, parents, &merged)?;
                lm::loss(&merged, text, *window)
            }
        }
    }
}

fn merge(recipe: &Recipe, method: &MergeEntry, parents: &Parents, out: &Path) -> Result<()> {
    let merge = planned(recipe, method, parents, true)?;
    let inputs: Vec<&Checkpoint> = parents.all().collect();
    let mut writer = Writer::create(Plan::sharded(merge.planned(), usize::MAX)?, out, &inputs, "")?;
    writer.companions(parents.lead())?;
    writer.write(&|tensor| merge.tensor(tensor), &|_, _| ())?;
    Ok(writer.finish()?)
}
