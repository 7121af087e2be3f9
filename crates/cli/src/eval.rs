//! `regrow eval`: the test accuracy of a checkpoint, the perplexity of a language model.

use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use indicatif::{ProgressBar, ProgressStyle};
use regrow_inference::{DenseExecutor, ForwardWith, Options, compress};
use regrow_train::classifier::{Examples, correct, probabilities};
use regrow_zoo::data::{self, Images, Part};
use regrow_zoo::{Arch, Net, load};

use crate::error::{Error, Result};
use crate::lm;
use crate::source::locate;
use crate::sparse::{self, Both, timed};

/// Measure the accuracy of a checkpoint on test images, or the perplexity of a language model
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  regrow eval resnet20.safetensors --arch resnet20 --dataset cifar10 --data DIR\n  \
                        regrow eval MODEL_DIR --text wikitext2-test.txt --window 256\n  \
                        regrow eval PRUNED_DIR --text wikitext2-test.txt --sparse\n  \
                        regrow eval PRUNED_ENCODER_DIR --text sentences.txt --against ENCODER_DIR"
)]
pub struct Args {
    /// A safetensors file with PyTorch's names, a Hugging Face directory, or a model's name on the hub
    /// (org/name)
    file: PathBuf,
    /// The branch, tag or commit of a model downloaded by name
    #[arg(long)]
    revision: Option<String>,
    /// The network: cifar-lenet, lenet5, mlp, mlp-residual, mlp-small, mnist-cnn, resnet20, resnet32, resnet56
    #[arg(long)]
    arch: Option<String>,
    /// cifar10, cifar100, digits (embedded), fashion-mnist or mnist
    #[arg(long)]
    dataset: Option<String>,
    /// For a language model: the text to predict
    #[arg(long, conflicts_with_all = ["arch", "dataset"])]
    text: Option<PathBuf>,
    /// For a language model: tokens in a window
    #[arg(long, default_value_t = 256)]
    window: usize,
    /// Start a window every this many tokens, each predicting only the tokens that no earlier window has; by default
    /// windows do not overlap
    #[arg(long, requires = "text")]
    stride: Option<usize>,
    /// For an encoder: another encoder's directory or name, to compare the two's embeddings of each line of the text
    #[arg(long, requires = "text", conflicts_with_all = ["stride", "window"])]
    against: Option<PathBuf>,
    /// The folder of the data set, or the folder that contains it under its name
    #[arg(long, env = "REGROW_DATA")]
    data: Option<PathBuf>,
    /// Images per forward pass
    #[arg(long, default_value_t = 200)]
    batch: usize,
    /// Measure each pruned layer dense and sparse, use the sparse form where it is faster, and show result and time of
    /// the whole model both ways
    #[arg(long, conflicts_with = "against")]
    sparse: bool,
}

/// Loads network and images, counts, prints.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let Some(text) = &args.text else { return images(args, out) };
    let folder = locate(&args.file, args.revision.as_deref())?;
    match &args.against {
        Some(other) => lm::cosine(&folder, &locate(other, None)?, text, out),
        None if args.sparse => lm::perplexity_sparse(&folder, text, args.window, args.stride, out),
        None => lm::perplexity(&folder, text, args.window, args.stride, out),
    }
}

fn images(args: &Args, out: &mut dyn Write) -> Result<()> {
    let missing = || Error::Argument("--arch and --dataset are missing; for a language model, --text".into());
    let (arch, dataset) = args.arch.as_ref().zip(args.dataset.as_ref()).ok_or_else(missing)?;
    if args.batch == 0 {
        return Err(Error::Argument("--batch must be at least 1".into()));
    }
    let arch = Arch::parse(arch)?;
    let device = regrow_device::current();
    let (net, classes) = load(arch, &args.file, &device)?;
    let images = data::open_part(dataset, args.data.as_deref(), Part::Test)?;
    fits(arch, classes, &images, dataset)?;
    let images = match arch.normalization() {
        Some(normalization) => images.with_normalization(normalization),
        None => images,
    };
    let net = net.valid();
    if args.sparse {
        return both(net, &images, args.batch, &device, out);
    }
    let right = count(&images, args.batch, |part| correct(&probabilities(&net, part, args.batch, &device), part));
    writeln!(out, "{}", accuracy(right, images.len()))?;
    Ok(())
}

fn accuracy(right: usize, total: usize) -> String {
    format!("accuracy {:.2} % ({right} of {total})", 100.0 * right as f64 / total.max(1) as f64)
}

/// The network dense and sparse, alternating batch by batch.
fn both(net: Net, images: &Images, batch: usize, device: &Device, out: &mut dyn Write) -> Result<()> {
    let sample: Vec<usize> = (0..batch.min(images.len())).collect();
    let (net, verdicts) = compress(net, images.images(&sample, device), &Options::default())?;
    sparse::report(&verdicts, out)?;
    let (mut times, mut dense_right) = (Both::default(), 0);
    let logits = |x: Tensor<2>| -> Vec<f32> { x.into_data().iter::<f32>().collect() };
    let right = count(images, batch, |part| {
        let x = part.images(&(0..part.len()).collect::<Vec<_>>(), device);
        let dense = timed(&mut times.dense, || logits(net.model.run(x.clone(), &mut DenseExecutor)));
        dense_right += correct(&dense, part);
        correct(&timed(&mut times.sparse, || logits(net.run(x))), part)
    });
    let total = images.len();
    writeln!(out, "dense:  {} in {:.2} s", accuracy(dense_right, total), times.dense.as_secs_f64())?;
    let (seconds, ratio) = (times.sparse.as_secs_f64(), times.ratio());
    writeln!(out, "sparse: {} in {seconds:.2} s, {ratio:.2} of the dense time", accuracy(right, total))?;
    Ok(())
}

fn fits(arch: Arch, classes: usize, images: &Images, dataset: &str) -> Result<()> {
    if images.size != arch.input() {
        return Err(Error::Argument(format!(
            "{dataset} images are {:?}, {arch} wants {:?}",
            images.size,
            arch.input()
        )));
    }
    if images.classes != classes {
        return Err(Error::Argument(format!("the checkpoint has {classes} classes, {dataset} has {}", images.classes)));
    }
    Ok(())
}

/// Sums `right` over all batches, with a progress bar after two seconds.
fn count(images: &Images, batch: usize, mut right: impl FnMut(&Images) -> usize) -> usize {
    let bar = ProgressBar::hidden();
    bar.set_length(images.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} images, {eta} left") {
        bar.set_style(style);
    }
    let started = Instant::now();
    let all: Vec<usize> = (0..images.len()).collect();
    let mut sum = 0;
    for indices in all.chunks(batch) {
        sum += right(&images.select(indices));
        bar.inc(indices.len() as u64);
        if bar.is_hidden() && started.elapsed() > Duration::from_secs(2) {
            bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
    }
    bar.finish_and_clear();
    sum
}
