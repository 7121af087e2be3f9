//! `regrow statistics`: what Fisher merging and RegMean need besides a model's weights.

mod kept;
mod language;
mod networks;

use std::io::Write;
use std::path::{Path, PathBuf};

use regrow_checkpoint::{Checkpoint, Contents, Plan, Planned, Writer};

use crate::error::{Error, Result};
use crate::source::identity;

/// Gather what Fisher merging and RegMean need besides a model's weights
///
/// fisher: the diagonal Fisher information, a number for each parameter: the mean squared gradient of log p(y | x), for
/// an image classifier over images and over classes y as the model predicts them; for a language model over the tokens
/// of a text, y sampled from the model (the whole model and its gradients are in memory). moments: the second moment of
/// each layer's inputs, X^T X over the number of rows: tokens of a language model, block by block; images and windows
/// of them for a classifier. Name the file beside its model in a recipe of `regrow merge`: statistics = "FILE".
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  regrow statistics a.safetensors --kind fisher --arch mnist-cnn --dataset mnist --data DIR --out a-fisher.safetensors\n  \
                        regrow statistics MODEL_DIR --kind moments --calibration text.txt --out moments.safetensors\n  \
                        regrow statistics MODEL_DIR --kind fisher --calibration text.txt --window 128 --out fisher.safetensors\n  \
                        regrow statistics MODEL_DIR --kind fisher --calibration text.txt --window 128 --out fisher.safetensors --resume\n\n  \
                        # recipe.toml\n  \
                        method = \"regmean\"\n  \
                        models = [{ path = \"MODEL_DIR\", statistics = \"moments.safetensors\" }, ..]"
)]
pub struct Args {
    /// A safetensors file with PyTorch's names, a Hugging Face directory with a language model, or such a model's
    /// name on the hub (org/name)
    model: PathBuf,
    /// The branch, tag or commit of a model downloaded by name
    #[arg(long, conflicts_with = "arch")]
    revision: Option<String>,
    /// fisher or moments
    #[arg(long)]
    kind: String,
    /// For image classifiers: the network of the file
    #[arg(long, requires = "dataset")]
    arch: Option<String>,
    /// Its images: digits (embedded), mnist, fashion-mnist, cifar10, cifar100
    #[arg(long, requires = "arch")]
    dataset: Option<String>,
    /// The folder of the data set, or the folder that contains it under its name
    #[arg(long, env = "REGROW_DATA")]
    data: Option<PathBuf>,
    /// How many training images, evenly spaced
    #[arg(long, default_value_t = 256)]
    images: usize,
    /// For language models: a text to run
    #[arg(long, conflicts_with = "arch")]
    calibration: Option<PathBuf>,
    /// Windows of that text
    #[arg(long, default_value_t = 128)]
    samples: usize,
    /// Tokens in a window; by default 2048, or the model's context if that is shorter
    #[arg(long)]
    window: Option<usize>,
    /// The seed for random windows and sampled tokens; by default the first windows are used
    #[arg(long)]
    seed: Option<u64>,
    /// For moments of language models: keep hidden states in a file in this folder, not in memory
    #[arg(long)]
    spill: Option<PathBuf>,
    /// The output path of the statistics: a file that ends in .safetensors
    #[arg(long)]
    out: PathBuf,
    /// Resume an interrupted run from the files beside --out
    #[arg(long)]
    resume: bool,
}

impl Args {
    /// What identifies a run on `source`. A run resumes only if its settings and files are unchanged.
    fn settings(&self, source: &Checkpoint) -> Result<String> {
        let Self { kind, arch, dataset, images, calibration, samples, window, seed, .. } = self;
        let files = identity(source.files().map(Path::new).chain(calibration.as_deref()))?;
        Ok(format!("{kind} {arch:?} {dataset:?} {images} {calibration:?} {samples} {window:?} {seed:?} {files}"))
    }
}

/// Reads, sums, writes.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    if args.out.extension().is_none_or(|e| e != "safetensors") {
        return Err(Error::Argument(format!(
            "{}: statistics are a file that ends in .safetensors",
            args.out.display()
        )));
    }
    let network = args.arch.as_deref().zip(args.dataset.as_deref());
    let text = args.calibration.as_deref();
    match (args.kind.as_str(), network, text) {
        ("fisher", Some(network), _) => networks::fisher(args, network, out),
        ("fisher", None, Some(text)) => language::fisher(args, text, out),
        ("moments", Some(_), _) if args.resume => {
            Err(Error::Argument("moments of image classifiers are gathered in one go: there is no --resume".into()))
        }
        ("moments", Some(network), _) => networks::moments(args, network, out),
        ("moments", None, Some(text)) => language::moments(args, text, out),
        ("fisher" | "moments", None, None) => Err(Error::Argument(
            "statistics want the images of a classifier (--arch, --dataset) or the text of a language model \
             (--calibration FILE)"
                .into(),
        )),
        (other, ..) => Err(Error::Argument(format!("unknown statistics `{other}`: use fisher, moments (--kind)"))),
    }
}

/// Tensors in the form of the file.
type Tensors = Vec<(Planned, Vec<f32>)>;

/// Writes statistics that are in memory.
fn write(tensors: &Tensors, args: &Args, source: &Checkpoint, kind: &str) -> Result<()> {
    let plan = Plan::one("statistics", tensors.iter().map(|(planned, _)| planned.clone()).collect())?;
    let mut writer = Writer::create(plan, &args.out, &[source], kind)?;
    let make = |tensor: &Planned| -> regrow_sparse_core::Result<Contents<'static>> {
        let found = tensors.iter().find(|(planned, _)| planned.name == tensor.name);
        Ok(Contents::Values(found.map(|(_, values)| values.clone()).unwrap_or_default()))
    };
    writer.write(&make, &|_, _| ())?;
    Ok(writer.finish()?)
}

/// The total number of values.
fn count(tensors: &Tensors) -> usize {
    tensors.iter().map(|(planned, _)| planned.elements()).sum()
}
