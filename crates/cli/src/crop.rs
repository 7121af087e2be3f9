//! `regrow crop`: a narrower untrained network, to train from scratch.

use std::cell::Cell;
use std::io::Write;
use std::path::PathBuf;

use regrow_pruners::{OneShot, Probe, Random, SynFlow, precrop, synflow};
use regrow_sparse_core::model::channel_graph::ChannelGraph;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::weight::Select;
use regrow_sparse_core::{Budget, MaskSet};
use regrow_train::classifier::Classifier;
use regrow_zoo::{Arch, Net, save};

use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::text;

/// Write an untrained network with narrower layers (PreCropping, arXiv 2203.02549)
///
/// How much of each layer remains is decided before training, without data; the result is a small dense network with
/// new random weights, to train as usual.
#[derive(clap::Args)]
#[command(after_help = "Example: regrow crop --arch resnet20 --sparsity 0.75 --out small.safetensors")]
pub struct Args {
    /// The network: cifar-lenet, lenet5, mlp, mlp-small, mnist-cnn, resnet20, resnet32, resnet56
    #[arg(long)]
    arch: String,
    /// The fraction of weights to remove, in [0, 1)
    #[arg(long, allow_negative_numbers = true)]
    sparsity: f64,
    /// How the remaining weights are distributed over layers: proxy (water-filling), erk, synflow, uniform
    #[arg(long, default_value = "proxy")]
    densities: String,
    /// Widths are multiples of this
    #[arg(long, default_value_t = 1)]
    multiple: usize,
    /// Number of classes
    #[arg(long, default_value_t = 10)]
    classes: usize,
    /// The random seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The output path of the network
    #[arg(long)]
    out: PathBuf,
}

/// Chooses widths, initializes the network, writes it.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let arch = Arch::parse(&args.arch)?;
    if args.classes == 0 || args.multiple == 0 {
        return Err(Error::Argument("--classes and --multiple must be at least 1".into()));
    }
    let layout = arch.layout(args.classes);
    let budget = precrop::left(&layout, args.sparsity)?;
    let densities = densities(args, arch, &layout, budget)?;
    let widths = precrop::widths(&layout, &densities, budget, args.multiple)?;
    save(&arch.init_narrow(&widths, args.seed, &regrow_device::current())?, &args.out)?;
    let (left, all) = (layout.weights(&widths), layout.weights(&layout.widths()));
    let list = widths.iter().map(usize::to_string).collect::<Vec<_>>().join(" ");
    writeln!(out, "widths {list}")?;
    writeln!(out, "{} of {} weights are left ({})", text::grouped(left), text::grouped(all), text::percent(left, all))?;
    Ok(())
}

fn densities(args: &Args, arch: Arch, layout: &ChannelGraph, budget: usize) -> Result<Vec<f64>> {
    let full = layout.widths();
    match args.densities.as_str() {
        "proxy" => Ok(precrop::densities(&layout.sizes(&full), budget)?),
        "uniform" => Ok(vec![1.0 - args.sparsity; layout.layers.len()]),
        "erk" | "synflow" => Ok(precrop::densities_of(&masks(args, arch)?)),
        other => Err(Error::Argument(format!("unknown densities `{other}`: use erk, proxy, synflow, uniform"))),
    }
}

/// The masks of a method that prunes before training and needs no data.
fn masks(args: &Args, arch: Arch) -> Result<MaskSet> {
    let recipe = Recipe::default().with_select(Select::default().with_head());
    let net = arch.init(args.classes, args.seed, &regrow_device::current().autodiff());
    if args.densities == "erk" {
        let random = Random { seed: args.seed };
        return Ok(recipe.with_budget(Budget::Erk).prune(net, &random, args.sparsity)?.1);
    }
    let [channels, height, width] = arch.input();
    let example = [1, channels, height, width];
    // Each round computes the outputs twice: for their sum, and for its gradient.
    let (bar, asked) = (Bar::new("rounds"), Cell::new(0));
    let outputs = move |net: &Net, ones| {
        asked.set(asked.get() + 1);
        bar.at(asked.get() / 2, synflow::ROUNDS);
        net.logits(ones)
    };
    let probe = Probe::new().with_response(example, outputs);
    let rounds = OneShot::new(SynFlow, args.sparsity)?.with_rounds(synflow::ROUNDS)?.with_recipe(recipe);
    Ok(rounds.masks(&net, &probe)?)
}
