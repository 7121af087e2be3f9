//! `regrow statistics`: what Fisher merging and RegMean want to know of a model besides its weights.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use regrow_merging::{information, stream};
use regrow_sparse_core::blockwise::{BlockModel, LayerRef};
use regrow_sparse_core::checkpoint::{Checkpoint, Contents, Dtype, Plan, Planned, Writer};
use regrow_sparse_core::classifier::Examples;
use regrow_sparse_core::hidden::Hidden;
use regrow_sparse_core::survey::{SecondMoment, Seen, Statistic, Survey};
use regrow_zoo::data::{self, Images, Part};
use regrow_zoo::lm::{Head, Transformer, batch};
use regrow_zoo::names::{Role, visit_names, visit_values};
use regrow_zoo::{Arch, load};

use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::lm;
use crate::source::locate;
use crate::text;

type Core<T> = regrow_sparse_core::Result<T>;

/// Gather what Fisher merging and RegMean want to know of a model
///
/// fisher: the diagonal Fisher information of an image classifier, a number for each parameter: the mean over
/// images of the squared gradient of log p(y | image), over classes y as the model expects them. moments: the second
/// moment of what each linear layer of a language model reads, X^T X over the number of tokens, block by block.
/// The file goes into a recipe of `regrow merge` beside its model: statistics = "FILE".
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  regrow statistics a.safetensors --kind fisher --arch mnist-cnn --dataset mnist --data DIR --out a-fisher.safetensors\n  \
                        regrow statistics MODEL_DIR --kind moments --calibration text.txt --out moments.safetensors\n\n  \
                        # recipe.toml\n  \
                        method = \"regmean\"\n  \
                        models = [{ path = \"MODEL_DIR\", statistics = \"moments.safetensors\" }, ..]"
)]
pub struct Args {
    /// A safetensors file with PyTorch's names, a Hugging Face directory with a language model, or such a model's
    /// name on the hub (org/name)
    model: PathBuf,
    /// The branch, tag or commit of a model that is fetched by its name
    #[arg(long, conflicts_with = "arch")]
    revision: Option<String>,
    /// fisher or moments
    #[arg(long)]
    kind: String,
    /// For fisher: the network of the file
    #[arg(long, requires = "dataset")]
    arch: Option<String>,
    /// Its images: digits (embedded), mnist, fashion-mnist, cifar10, cifar100
    #[arg(long, requires = "arch")]
    dataset: Option<String>,
    /// The folder of the data set, or one that holds it under its name
    #[arg(long, env = "REGROW_DATA")]
    data: Option<PathBuf>,
    /// How many training images, evenly spaced
    #[arg(long, default_value_t = 256)]
    images: usize,
    /// For moments: a text to run
    #[arg(long, conflicts_with = "arch")]
    calibration: Option<PathBuf>,
    /// Windows of that text
    #[arg(long, default_value_t = 128)]
    samples: usize,
    /// Tokens in a window; by default 2048, or the model's context if that is shorter
    #[arg(long)]
    window: Option<usize>,
    /// Begin windows at random, from this seed; by default the first ones
    #[arg(long)]
    seed: Option<u64>,
    /// Keep what blocks see in a file in this folder, not in memory
    #[arg(long)]
    spill: Option<PathBuf>,
    /// Where the statistics go: a file that ends in .safetensors
    #[arg(long)]
    out: PathBuf,
}

/// Looks, sums, writes.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    if args.out.extension().is_none_or(|e| e != "safetensors") {
        return Err(Error::Argument(format!(
            "{}: statistics are a file that ends in .safetensors",
            args.out.display()
        )));
    }
    match args.kind.as_str() {
        "fisher" => fisher(args, out),
        "moments" => moments(args, out),
        other => Err(Error::Argument(format!("unknown statistics `{other}`: use fisher, moments (--kind)"))),
    }
}

/// The Fisher information of an image classifier.
fn fisher(args: &Args, out: &mut dyn Write) -> Result<()> {
    let missing = || Error::Argument("fisher is of image classifiers here: --arch and --dataset are missing".into());
    let (arch, dataset) = args.arch.as_ref().zip(args.dataset.as_ref()).ok_or_else(missing)?;
    let (arch, device) = (Arch::parse(arch)?, regrow_sparse_core::device::current().autodiff());
    let source = Checkpoint::open(&args.model)?;
    let (net, classes) = load(arch, &args.model, &device)?;
    let images = images(args, arch, dataset, classes)?;
    let bar = Bar::new("images");
    let each = (0..images.len()).map(|i| images.images(&[i], &device));
    let information = information::gather(&net, each, |done| bar.at(done, images.len()))?;
    let mut parameters = std::collections::BTreeSet::new();
    visit_names(&net, &mut |name, _, role| {
        if role != Role::Statistic {
            parameters.insert(name);
        }
    });
    let mut tensors = Vec::new();
    visit_values(&information, &mut |name, shape, values| {
        if parameters.contains(&name) {
            // As the file calls it, which may have a prefix.
            let is_own = |own: &str| own.strip_suffix(name.as_str()).is_some_and(|p| p.is_empty() || p == "module.");
            let own = source.entries().iter().find(|entry| is_own(&entry.name)).map(|entry| entry.name.clone());
            let name = own.unwrap_or(name);
            tensors.push((Planned { name, dtype: Dtype::F32, shape }, values));
        }
    });
    let plan = Plan::one("statistics", tensors.iter().map(|(planned, _)| planned.clone()).collect())?;
    let mut writer = Writer::create(plan, &args.out, &[&source], "fisher")?;
    let make = |tensor: &Planned| {
        let found = tensors.iter().find(|(planned, _)| planned.name == tensor.name);
        Core::Ok(Contents::Values(found.map(|(_, values)| values.clone()).unwrap_or_default()))
    };
    writer.write(&make, &|_, _| ())?;
    writer.finish()?;
    let numbers: usize = tensors.iter().map(|(planned, _)| planned.elements()).sum();
    writeln!(out, "Fisher information of {} parameters over {} images", text::grouped(numbers), images.len())?;
    Ok(())
}

/// Training images that fit the network, evenly spaced.
fn images(args: &Args, arch: Arch, dataset: &str, classes: usize) -> Result<Images> {
    let images = data::open_part(dataset, args.data.as_deref(), Part::Train)?;
    if images.size != arch.input() {
        let reason = format!("{dataset} images are {:?}, {arch} wants {:?}", images.size, arch.input());
        return Err(Error::Argument(reason));
    }
    if images.classes != classes {
        let reason = format!("the checkpoint has {classes} classes, {dataset} has {}", images.classes);
        return Err(Error::Argument(reason));
    }
    if args.images == 0 {
        return Err(Error::Argument("--images must be at least 1".into()));
    }
    let (all, wanted) = (images.len(), args.images.min(images.len()));
    let images = images.select(&(0..wanted).map(|i| i * all / wanted).collect::<Vec<_>>());
    Ok(match arch.normalization() {
        Some(normalization) => images.with_normalization(normalization),
        None => images,
    })
}

/// The second moments of what a language model's linear layers read.
fn moments(args: &Args, out: &mut dyn Write) -> Result<()> {
    if args.arch.is_some() {
        return Err(Error::Argument("moments are of language models here: a directory and --calibration TEXT".into()));
    }
    let missing = || Error::Argument("moments need a text to run (--calibration FILE)".into());
    let file = args.calibration.as_ref().ok_or_else(missing)?;
    let model =
        Transformer::open(locate(&args.model, args.revision.as_deref())?, &regrow_sparse_core::device::current())?;
    let windows = lm::calibration(&model, file, args.samples, args.window, args.seed)?;
    let embedding = model.embedding()?;
    let hidden = windows.iter().map(|window| embedding.forward(batch(&[window], model.device())));
    let hidden = match &args.spill {
        Some(folder) => Hidden::spilled(folder, model.device(), hidden)?,
        None => Hidden::held(hidden.collect()),
    };
    drop(embedding);
    let places = model.places(windows[0].len());
    let walk = Walk::new(&model, Survey::new(&model, model.checkpoint(), &places, hidden))?;
    let plan = walk.plan()?;
    let (tensors, tokens) = (plan.tensors().count(), windows.len() * windows[0].len());
    let mut writer = Writer::create(plan, &args.out, &[model.checkpoint()], "moments")?.with_threads(1);
    writer.write(&|tensor| walk.moment(tensor), &|_, _| ())?;
    writer.finish()?;
    writeln!(out, "second moments of the inputs of {tensors} layers over {} tokens", text::grouped(tokens))?;
    Ok(())
}

/// A calibration text on its way through a model: moments are asked for in the order of its blocks.
struct Walk<'a> {
    model: &'a Transformer,
    /// The layer behind the last block, if it has a matrix of its own.
    head: Option<(LayerRef, Head)>,
    at: Mutex<At<'a>>,
    bar: Bar,
}

/// How far it has come, and what the last block has seen.
struct At<'a> {
    survey: Survey<'a, Transformer>,
    seen: Option<Seen<SecondMoment>>,
}

impl<'a> Walk<'a> {
    fn new(model: &'a Transformer, survey: Survey<'a, Transformer>) -> Result<Self> {
        let head = if model.config.encoder { None } else { Some((model.head_layer()?, model.head()?)) };
        let head = head.filter(|(_, head)| head.has_own());
        Ok(Self { model, head, at: Mutex::new(At { survey, seen: None }), bar: Bar::new("blocks") })
    }

    /// All layers, block by block.
    fn layers(&self) -> impl Iterator<Item = LayerRef> {
        let blocks = (0..self.model.blocks()).flat_map(|index| self.model.layers(index));
        blocks.chain(self.head.iter().map(|(layer, _)| layer.clone()))
    }

    fn plan(&self) -> Result<Plan> {
        let planned = |layer: LayerRef| {
            let shape = &self.model.checkpoint().entry(&layer.tensor)?.shape;
            let input = if layer.transposed { shape.first() } else { shape.last() }.copied().unwrap_or(0);
            Core::Ok(Planned { name: layer.tensor, dtype: Dtype::F32, shape: vec![input, input] })
        };
        let turned: Vec<String> = self.layers().filter(|layer| layer.transposed).map(|layer| layer.tensor).collect();
        let plan = Plan::one("statistics", self.layers().map(planned).collect::<Core<_>>()?)?;
        Ok(if turned.is_empty() { plan } else { plan.with_metadata(stream::TURNED, turned.join("\n")) })
    }

    /// The moment of one layer's input.
    fn moment(&self, tensor: &Planned) -> Core<Contents<'static>> {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(seen) = &at.seen
                && let Some(layer) = seen.layers.iter().find(|layer| layer.tensor == tensor.name)
            {
                return Ok(Contents::Values(seen.of(layer)?.values(layer)?));
            }
            at.seen = None;
            at.seen = at.survey.advance()?;
            match &at.seen {
                Some(_) => self.bar.at(at.survey.index(), self.model.blocks()),
                None => return self.of_head(tensor, at.survey.hidden()),
            }
        }
    }

    /// The moment of what the head reads, after all blocks.
    fn of_head(&self, tensor: &Planned, hidden: &Hidden) -> Core<Contents<'static>> {
        let none = || regrow_sparse_core::Error::tensor(&tensor.name, "is no linear layer of this model");
        let (layer, head) = self.head.as_ref().filter(|(layer, _)| layer.tensor == tensor.name).ok_or_else(none)?;
        let mut sum: Option<SecondMoment> = None;
        hidden.each(|x| {
            let values = head.input(x);
            sum.get_or_insert_with(|| SecondMoment::begin(values.dims()[1], &values.device())).add(values);
        })?;
        Ok(Contents::Values(sum.ok_or_else(none)?.values(layer)?))
    }
}
