//! `regrow prune` on a Hugging Face directory: block by block.

use std::io::Write;
use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use regex::Regex;
use regrow_checkpoint::storage::Storage;
use regrow_checkpoint::{Dtype, Patch, Pruned};
use regrow_lm::{Transformer, batch};
use regrow_pruners::perp::{Form, rate};
use regrow_pruners::registry::{BUDGETS, LAYER_SOLVERS, Params, find};
use regrow_pruners::{Allocate, Head, Layerwise, Perp, Reconstruction, Stage};
use regrow_sparse_core::Pattern;
use regrow_sparse_core::layerwise::{BlockModel, BlockReconstruction, HiddenStates, LayerSolver};
use regrow_sparse_core::mask::schedule::check_sparsity;
use regrow_sparse_core::registry::Entry;
use regrow_train::Training;

use super::{Bar, check_window, form};
use crate::convert;
use crate::error::{Error, Result};
use crate::text;

/// The parameters of the layer solvers, as the registry lists them.
fn with_help() -> String {
    let of = |entry: &Entry<dyn LayerSolver>| {
        let params = entry.info.params.iter().map(|param| format!("{} ({})", param.name, param.default));
        let params = params.collect::<Vec<_>>().join(", ");
        (!params.is_empty()).then(|| format!("{} has {params}", entry.info.name))
    };
    let all = LAYER_SOLVERS.iter().filter_map(of).collect::<Vec<_>>().join("; ");
    format!("Parameters of the method: {all} (see `regrow methods layer-solver`)")
}

/// Options that only language models have.
#[derive(clap::Args)]
#[command(next_help_heading = "Language models")]
pub struct Options {
    #[arg(long, value_name = "NAME=VALUE,..", help = with_help())]
    with: Option<String>,
    /// A text to calibrate on
    #[arg(long)]
    calibration: Option<PathBuf>,
    /// Windows of that text to run
    #[arg(long, default_value_t = 128)]
    samples: usize,
    /// Tokens in a window; by default 2048, or the model's context if that is shorter
    #[arg(long)]
    window: Option<usize>,
    /// Only layers whose tensor names match this regular expression somewhere
    #[arg(long)]
    target: Option<String>,
    /// No layers whose tensor names match this one
    #[arg(long)]
    ignore: Option<String>,
    /// How far OWL lets blocks differ from the requested sparsity
    #[arg(long, default_value_t = 0.08, allow_negative_numbers = true)]
    owl_lambda: f64,
    /// OWL's threshold for an outlier, as a multiple of the mean
    #[arg(long, default_value_t = 5.0, allow_negative_numbers = true)]
    owl_outlier: f64,
    /// At how many sparsities RD measures each layer, on the first eight windows
    #[arg(long, default_value_t = 20)]
    rd_amounts: usize,
    /// Keep hidden states in a file in this folder, not in memory
    #[arg(long)]
    spill: Option<PathBuf>,
    /// After pruning a block, reconstruct its outputs by training biases, norms, biases-norms, lora-prune, mask-lora,
    /// scale-lora (PERP) or full
    #[arg(long)]
    reconstruct: Option<String>,
    /// Passes over the windows in reconstruction
    #[arg(long, default_value_t = 4)]
    reconstruct_epochs: usize,
    /// The highest learning rate in reconstruction
    #[arg(long, default_value_t = 1e-3, allow_negative_numbers = true)]
    reconstruct_lr: f64,
    /// The rank of the low-rank terms in reconstruction
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// Resume an interrupted run with the same settings
    #[arg(long)]
    resume: bool,
}

/// The arguments of `regrow prune` for a language model.
pub struct Job<'a> {
    /// The directory.
    pub folder: &'a Path,
    /// The method's name.
    pub method: &'a str,
    /// The fraction of each layer's weights to prune.
    pub sparsity: f64,
    /// Unstructured or N:M.
    pub pattern: Pattern,
    /// How sparsity is distributed over layers.
    pub budget: Option<&'a str>,
    /// The seed for random windows; without it, the first ones are used.
    pub seed: Option<u64>,
    /// Whether the head is pruned too.
    pub head: bool,
    /// Whether the embedding is pruned too.
    pub embedding: bool,
    /// The other options.
    pub options: &'a Options,
    /// Type and storage of the output.
    pub form: (Option<Dtype>, Storage),
    /// The output path of the pruned model.
    pub out: &'a Path,
}

/// Which layers of the blocks are pruned, by patterns that match their tensors' names somewhere.
pub struct Selection {
    target: Option<Regex>,
    ignore: Option<Regex>,
}

impl Selection {
    /// Layers that match the target, if it is given, and are not ignored.
    pub fn new(target: Option<&str>, ignore: Option<&str>) -> Result<Self> {
        let parse =
            |pattern: &str| Regex::new(pattern).map_err(|e| Error::Argument(format!("the pattern {pattern:?}: {e}")));
        Ok(Self { target: target.map(parse).transpose()?, ignore: ignore.map(parse).transpose()? })
    }

    /// Whether the layer of this tensor is selected.
    pub fn admits(&self, tensor: &str) -> bool {
        self.target.as_ref().is_none_or(|p| p.is_match(tensor))
            && !self.ignore.as_ref().is_some_and(|p| p.is_match(tensor))
    }

    /// Rejects an empty selection.
    fn check(&self, model: &Transformer) -> Result<()> {
        let layers = (0..model.blocks()).flat_map(|index| model.layers(index));
        match layers.into_iter().any(|layer| self.admits(&layer.tensor)) {
            true => Ok(()),
            false => Err(Error::Argument("--target and --ignore leave no layer to prune".into())),
        }
    }
}

/// Prunes a model block by block.
pub fn prune(job: &Job<'_>, out: &mut dyn Write) -> Result<()> {
    check_sparsity(job.sparsity)?;
    let solver = find(LAYER_SOLVERS, job.method)?.build(&job.settings()?)?;
    let by_magnitude = find(LAYER_SOLVERS, "magnitude")?.build(&Params::default())?;
    let (budget, selection, mending) = (job.budget()?, job.selection()?, job.reconstruction()?);
    let device = regrow_device::current();
    let model = Transformer::open(job.folder, &device)?;
    selection.check(&model)?;
    let looks = budget.needs();
    let blind = !solver.needs_inputs() && looks.is_none() && mending.is_none();
    let (window, samples) = calibration(job, &model, blind)?;
    let form = form(&model, job.form.0, job.form.1);
    form.check(model.checkpoint())?;
    let mut patch = job.patch(&model, window)?;
    let hidden = embedded(&model, &samples, job.options.spill.as_deref())?;
    let ends = match job.head || looks.distortions.is_some() {
        true => Some((model.embedding()?, model.head()?, model.head_layer()?)),
        false => None,
    };
    let outputs = |x: Tensor<3>| match &ends {
        Some((embedding, head, _)) => head.forward(x, embedding),
        None => x,
    };
    let read_by_head = |x: Tensor<3>| match &ends {
        Some((_, head, _)) => head.input(x),
        None => x.flatten(0, 1),
    };
    let run = Layerwise {
        model: &model,
        source: model.checkpoint(),
        solver: solver.as_ref(),
        sparsity: job.sparsity,
        pattern: job.pattern,
        budget: budget.as_ref(),
        outputs: looks.distortions.is_some().then_some(&outputs as &dyn Fn(Tensor<3>) -> Tensor<3>),
        admits: &|tensor| selection.admits(tensor),
        mend: mending.as_ref().map(|m| m as &dyn BlockReconstruction<Transformer>),
        head: ends
            .as_ref()
            .filter(|_| job.head)
            .map(|(_, _, layer)| Head { layer: layer.clone(), input: &read_by_head }),
        embedding: job.embedding.then(|| (model.embedding_layer(), by_magnitude.as_ref())),
    };
    let (looking, pruning) = (Bar::new("blocks looked at"), Bar::new("blocks"));
    let pruned = run.prune(model.context(window), hidden, &mut patch, &mut |stage, done, all| match stage {
        Stage::Looking => looking.at(done, all),
        Stage::Pruning => pruning.at(done, all),
    })?;
    let plain = form.is_that_of(&patch.checkpoint()?);
    let bar = Bar::bytes();
    let converted = match plain {
        true => patch.finish().map(|()| None)?,
        false => Some(patch.finish_as(&form, &|done, all| bar.at(done, all))?),
    };
    report(&pruned, mending.as_ref(), out)?;
    converted.map_or(Ok(()), |done| convert::report(&done, form.storage, out))
}

impl Job<'_> {
    fn selection(&self) -> Result<Selection> {
        Selection::new(self.options.target.as_deref(), self.options.ignore.as_deref())
    }

    /// The method's parameters.
    fn settings(&self) -> Result<Params> {
        Ok(Params::new(self.seed.unwrap_or(0)).with(self.options.with.as_deref().unwrap_or(""))?)
    }

    fn budget(&self) -> Result<Box<dyn Allocate>> {
        let (options, name) = (self.options, self.budget.unwrap_or("uniform"));
        let params = match name {
            "owl" => Params::new(0).set("lambda", options.owl_lambda).set("outlier", options.owl_outlier),
            "rd" => Params::new(0).set("amounts", options.rd_amounts),
            _ => Params::new(0),
        };
        Ok(find(BUDGETS, name)?.build(&params)?)
    }

    /// How blocks are reconstructed, if they are.
    fn reconstruction(&self) -> Result<Option<Reconstruction>> {
        let Options { reconstruct, reconstruct_epochs, reconstruct_lr, rank, .. } = self.options;
        let Some(form) = reconstruct else { return Ok(None) };
        let perp = Perp::new(Form::parse(form)?).with_rank(*rank, 2.0 * *rank as f64)?;
        let (epochs, lr, seed) = (*reconstruct_epochs, rate(*reconstruct_lr), self.seed.unwrap_or(0));
        Ok(Some(Reconstruction::new(perp, Training { epochs, batch: 4, lr, seed })?))
    }

    /// The copy to write to, with the settings that identify the run.
    fn patch(&self, model: &Transformer, window: usize) -> Result<Patch> {
        let Self { method, sparsity, pattern, budget, seed, head, embedding, options, out, .. } = self;
        let Options { samples, target, ignore, owl_lambda, owl_outlier, rd_amounts, .. } = options;
        let Options { reconstruct, reconstruct_epochs, reconstruct_lr, rank, with, .. } = options;
        let text = options.calibration.as_ref().map_or_else(String::new, |file| file.display().to_string());
        let settings = format!(
            "{method} {with:?} {sparsity} {pattern} {text} {samples} {window} {seed:?} {target:?} {ignore:?} {budget:?} \
             {head} {embedding} {owl_lambda} {owl_outlier} {rd_amounts} {reconstruct:?} {reconstruct_epochs} {reconstruct_lr} {rank}"
        );
        let source = model.checkpoint();
        Ok(if options.resume { Patch::resume(source, out, &settings)? } else { Patch::create(source, out, &settings)? })
    }
}

/// The calibration windows as the first block sees them, in memory or in a file in `spill`.
fn embedded(model: &Transformer, samples: &[Vec<u32>], spill: Option<&Path>) -> Result<HiddenStates> {
    let (embedding, device) = (model.embedding()?, model.device());
    let hidden = samples.iter().map(|sample| embedding.forward(batch(&[sample], device)));
    Ok(match spill {
        Some(folder) => HiddenStates::on_disk(folder, device, hidden)?,
        None => HiddenStates::in_memory(hidden.collect()),
    })
}

/// The length of the calibration windows, and their tokens. A run that uses weights only needs just one window of any
/// tokens.
fn calibration(job: &Job<'_>, model: &Transformer, blind: bool) -> Result<(usize, Vec<Vec<u32>>)> {
    let Options { calibration, samples: count, window, .. } = job.options;
    let window = window.unwrap_or_else(|| model.config.context.min(2048));
    check_window(model, window)?;
    let Some(file) = calibration else {
        let who = match job.budget {
            _ if job.options.reconstruct.is_some() => "reconstruction",
            Some("owl") => "OWL",
            Some("rd") => "RD",
            _ => job.method,
        };
        return match blind {
            true => Ok((2, vec![vec![0, 0]])),
            false => Err(Error::Argument(format!("{who} needs a text to calibrate on (--calibration FILE)"))),
        };
    };
    let samples = super::calibration(model, file, *count, Some(window), job.seed)?;
    Ok((samples[0].len(), samples))
}

fn report(pruned: &[Pruned], mending: Option<&Reconstruction>, out: &mut dyn Write) -> Result<()> {
    for e in mending.map(Reconstruction::errors).unwrap_or_default() {
        let kept = 100.0 * e.reconstructed / e.pruned.max(f64::MIN_POSITIVE);
        writeln!(
            out,
            "block {}: error {:.3e} after pruning, {:.3e} after reconstruction ({kept:.1} %)",
            e.block, e.pruned, e.reconstructed
        )?;
    }
    let (zeros, all) = pruned.iter().fold((0, 0), |(z, n), p| (z + p.zeros, n + p.weights));
    let counts =
        format!("{} of {} weights in {} layers are zero", text::grouped(zeros), text::grouped(all), pruned.len());
    writeln!(out, "sparsity {} ({counts})", text::percent(zeros, all))?;
    Ok(())
}
