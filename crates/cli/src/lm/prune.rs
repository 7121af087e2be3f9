//! `regrow prune` on a Hugging Face directory: block by block.

use std::io::Write;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use regex::Regex;
use regrow_pruners::owl::mixed;
use regrow_pruners::{Owl, find_layerwise};
use regrow_sparse_core::blockwise::{BlockModel, Goal, LayerRef, Walk};
use regrow_sparse_core::checkpoint::{Patch, Pruned};
use regrow_sparse_core::{Pattern, schedule::check_sparsity};
use regrow_zoo::lm::{Transformer, batch, samples};

use super::{Bar, check_window, read, words};
use crate::error::{Error, Result};
use crate::text;

/// What `regrow prune` says of a language model.
pub struct Job<'a> {
    /// The directory.
    pub folder: &'a Path,
    /// The method's name.
    pub method: &'a str,
    /// The fraction of each layer's weights to prune.
    pub sparsity: f64,
    /// Unstructured or N:M.
    pub pattern: Pattern,
    /// Which layers, by name.
    pub selection: Selection,
    /// How sparsity differs between blocks; the same everywhere without it.
    pub owl: Option<Owl>,
    /// The text whose windows calibrate.
    pub calibration: Option<&'a Path>,
    /// How many windows.
    pub samples: usize,
    /// Tokens in a window; by default 2048, or the model's context.
    pub window: Option<usize>,
    /// Where windows begin at random; the first ones without it.
    pub seed: Option<u64>,
    /// Go on where an interrupted run stopped.
    pub resume: bool,
    /// Where the pruned model goes.
    pub out: &'a Path,
}

/// Which layers of the blocks are pruned, by patterns that their tensors' names match somewhere.
pub struct Selection {
    target: Option<Regex>,
    ignore: Option<Regex>,
}

impl Selection {
    /// Of layers that `target` matches, if it is given, those that `ignore` does not.
    pub fn new(target: Option<&str>, ignore: Option<&str>) -> Result<Self> {
        let parse =
            |pattern: &str| Regex::new(pattern).map_err(|e| Error::Argument(format!("the pattern {pattern:?}: {e}")));
        Ok(Self { target: target.map(parse).transpose()?, ignore: ignore.map(parse).transpose()? })
    }

    /// Whether the layer of this tensor is one.
    pub fn admits(&self, tensor: &str) -> bool {
        self.target.as_ref().is_none_or(|p| p.is_match(tensor))
            && !self.ignore.as_ref().is_some_and(|p| p.is_match(tensor))
    }

    /// Refuses a selection of nothing.
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
    let solver = (find_layerwise(job.method)?.make)(job.seed.unwrap_or(0));
    let device = Device::default();
    let model = Transformer::open(job.folder, &device)?;
    job.selection.check(&model)?;
    let (window, samples) = calibration(job, &model)?;
    let mut patch = patch(job, &model, window)?;
    let embedding = model.embedding()?;
    let hidden: Vec<Tensor<3>> = samples.iter().map(|sample| embedding.forward(batch(&[sample], &device))).collect();
    drop(embedding);
    let places = model.places(window);
    let sparsities = sparsities(job, &model, &places, &hidden)?;
    let patterns = match job.pattern {
        Pattern::NofM { m, .. } if job.owl.is_some() => mixed(&sparsities, m),
        pattern => vec![pattern; model.blocks()],
    };
    let goal = |block: usize, layer: &LayerRef| {
        let goal = Goal { sparsity: sparsities[block], pattern: patterns[block] };
        job.selection.admits(&layer.tensor).then_some(goal)
    };
    let walk = Walk { model: &model, source: model.checkpoint(), places, solver: solver.as_ref(), goal: &goal };
    let bar = Bar::new("blocks");
    let pruned = walk.prune(hidden, &mut patch, &mut |done| bar.at(done, model.blocks()))?;
    patch.finish()?;
    report(&pruned, out)
}

/// The sparsity of each block.
fn sparsities(
    job: &Job<'_>,
    model: &Transformer,
    places: &<Transformer as BlockModel>::Places,
    hidden: &[Tensor<3>],
) -> Result<Vec<f64>> {
    let Some(owl) = job.owl else { return Ok(vec![job.sparsity; model.blocks()]) };
    let bar = Bar::new("blocks looked at");
    let pruned = |tensor: &str| job.selection.admits(tensor);
    let mut watch = |done| bar.at(done, model.blocks());
    let found = owl.look(model, model.checkpoint(), places, hidden.to_vec(), &pruned, &mut watch)?;
    Ok(owl.sparsities(&found, job.sparsity)?)
}

/// The length of the calibration windows, and their tokens. Methods that look at weights alone get by
/// with a window of any tokens.
fn calibration(job: &Job<'_>, model: &Transformer) -> Result<(usize, Vec<Vec<u32>>)> {
    let window = job.window.unwrap_or_else(|| model.config.context.min(2048));
    check_window(model, window)?;
    let Some(file) = job.calibration else {
        return match job.method {
            "magnitude" | "random" if job.owl.is_none() => Ok((2, vec![vec![0, 0]])),
            "magnitude" | "random" => {
                Err(Error::Argument("OWL needs a text to calibrate on (--calibration FILE)".into()))
            }
            method => Err(Error::Argument(format!("{method} needs a text to calibrate on (--calibration FILE)"))),
        };
    };
    if job.samples == 0 {
        return Err(Error::Argument("--samples must be at least 1".into()));
    }
    let words = words(job.folder, model)?;
    let tokens = words.encode(&read(file)?)?;
    // An encoder has never seen a text without its special tokens.
    let (before, after) = if model.config.encoder { words.frame()? } else { Default::default() };
    let inner = window.saturating_sub(before.len() + after.len()).max(2);
    let samples = samples(&tokens, job.samples, inner, job.seed).map_err(|e| match e {
        regrow_sparse_core::Error::Argument(reason) => Error::Argument(format!("{}: {reason}", file.display())),
        other => other.into(),
    })?;
    let samples: Vec<Vec<u32>> = samples.into_iter().map(|s| [&before[..], s, &after[..]].concat()).collect();
    Ok((samples[0].len(), samples))
}

/// The copy to write to; what identifies the run goes with it.
fn patch(job: &Job<'_>, model: &Transformer, window: usize) -> Result<Patch> {
    let Job { method, sparsity, pattern, samples, seed, owl, selection: Selection { target, ignore }, .. } = job;
    let text = job.calibration.map_or_else(String::new, |file| file.display().to_string());
    let settings =
        format!("{method} {sparsity} {pattern} {text} {samples} {window} {seed:?} {owl:?} {target:?} {ignore:?}");
    let source = model.checkpoint();
    Ok(if job.resume { Patch::resume(source, job.out, &settings)? } else { Patch::create(source, job.out, &settings)? })
}

fn report(pruned: &[Pruned], out: &mut dyn Write) -> Result<()> {
    let (zeros, all) = pruned.iter().fold((0, 0), |(z, n), p| (z + p.zeros, n + p.weights));
    let counts =
        format!("{} of {} weights in {} layers are zero", text::grouped(zeros), text::grouped(all), pruned.len());
    writeln!(out, "sparsity {} ({counts})", text::percent(zeros, all))?;
    Ok(())
}
