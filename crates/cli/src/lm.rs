//! `regrow eval` and `regrow prune` on Hugging Face directories: language models, block by block.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use regrow_pruners::{Magnitude, Random, SparseGpt, Wanda};
use regrow_sparse_core::blockwise::{BlockModel, Goal, LayerRef, LayerSolver, Unwatched, Walk};
use regrow_sparse_core::checkpoint::{Patch, Pruned};
use regrow_sparse_core::train::mix;
use regrow_sparse_core::{Pattern, schedule::check_sparsity};
use regrow_zoo::lm::{Transformer, Words, batch, perplexity, windows};

use crate::error::{Error, Result};
use crate::text;

/// The methods that prune language models.
const METHODS: &str = "magnitude, random, sparsegpt, wanda";

/// Perplexity of the model in `folder` on the text in `file`.
pub fn eval(folder: &Path, file: &Path, window: usize, out: &mut dyn Write) -> Result<()> {
    let decoder = Transformer::open(folder, &Device::default())?;
    let tokens = tokens(folder, &decoder, file)?;
    check_window(&decoder, window)?;
    let windows = windows(&tokens, window)?;
    let bar = Bar::new("tokens");
    let found = perplexity(&decoder, &windows, &mut |done, all| bar.at(done, all))?;
    writeln!(out, "perplexity {:.2} ({} tokens)", found.value(), found.tokens)?;
    Ok(())
}

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

/// Prunes a model block by block.
pub fn prune(job: &Job<'_>, out: &mut dyn Write) -> Result<()> {
    check_sparsity(job.sparsity)?;
    let solver = solver(job.method, job.seed.unwrap_or(0))?;
    let device = Device::default();
    let decoder = Transformer::open(job.folder, &device)?;
    let goal = Goal { sparsity: job.sparsity, pattern: job.pattern };
    let (window, samples) = calibration(job, &decoder)?;
    let mut patch = patch(job, &decoder, window)?;
    let embedding = decoder.embedding()?;
    let hidden = samples.iter().map(|sample| embedding.forward(batch(&[sample], &device))).collect();
    drop(embedding);
    let walk = Walk {
        model: &decoder,
        source: decoder.checkpoint(),
        places: decoder.places(window),
        solver: solver.as_ref(),
        goal: &|_: &LayerRef| Some(goal),
    };
    let bar = Bar::new("blocks");
    let pruned = walk.prune(hidden, &mut patch, &mut |done| bar.at(done, decoder.blocks()))?;
    patch.finish()?;
    report(&pruned, out)
}

fn solver(method: &str, seed: u64) -> Result<Box<dyn LayerSolver>> {
    match method {
        "magnitude" => Ok(Box::new(Unwatched(Magnitude))),
        "random" => Ok(Box::new(Unwatched(Random { seed }))),
        "sparsegpt" => Ok(Box::new(SparseGpt::default())),
        "wanda" => Ok(Box::new(Wanda::default())),
        other => Err(Error::Argument(format!("unknown method `{other}` for a language model: use {METHODS}"))),
    }
}

/// The length of the calibration windows, and their tokens. Methods that look at weights alone get by
/// with a window of any tokens.
fn calibration(job: &Job<'_>, decoder: &Transformer) -> Result<(usize, Vec<Vec<u32>>)> {
    let window = job.window.unwrap_or_else(|| decoder.config.context.min(2048));
    check_window(decoder, window)?;
    let Some(file) = job.calibration else {
        return match job.method {
            "magnitude" | "random" => Ok((2, vec![vec![0, 0]])),
            method => Err(Error::Argument(format!("{method} needs a text to calibrate on (--calibration FILE)"))),
        };
    };
    if job.samples == 0 {
        return Err(Error::Argument("--samples must be at least 1".into()));
    }
    let tokens = tokens(job.folder, decoder, file)?;
    let all = windows(&tokens, window)?;
    if all.len() < job.samples {
        return Err(Error::Argument(format!(
            "{} has {} windows of {window} tokens, fewer than the {} asked for (--samples)",
            file.display(),
            all.len(),
            job.samples
        )));
    }
    let starts = tokens.len() - window + 1;
    let sample = |i: usize| match job.seed {
        Some(seed) => {
            let start = (mix(seed, i as u64) % starts as u64) as usize;
            tokens[start..start + window].to_vec()
        }
        None => all[i].to_vec(),
    };
    Ok((window, (0..job.samples).map(sample).collect()))
}

/// The copy to write to; what identifies the run goes with it.
fn patch(job: &Job<'_>, decoder: &Transformer, window: usize) -> Result<Patch> {
    let Job { method, sparsity, pattern, samples, seed, .. } = job;
    let text = job.calibration.map_or_else(String::new, |file| file.display().to_string());
    let settings = format!("{method} {sparsity} {pattern} {text} {samples} {window} {seed:?}");
    let source = decoder.checkpoint();
    Ok(if job.resume { Patch::resume(source, job.out, &settings)? } else { Patch::create(source, job.out, &settings)? })
}

fn check_window(decoder: &Transformer, window: usize) -> Result<()> {
    match (2..=decoder.config.context).contains(&window) {
        true => Ok(()),
        false => Err(Error::Argument(format!(
            "a window of {window} tokens: this model takes 2 to {} (--window)",
            decoder.config.context
        ))),
    }
}

fn tokens(folder: &Path, decoder: &Transformer, file: &Path) -> Result<Vec<u32>> {
    let words = Words::open(folder, decoder.config.vocab)?;
    let text = fs::read_to_string(file).map_err(|e| regrow_sparse_core::Error::io(file, e))?;
    Ok(words.encode(&text)?)
}

fn report(pruned: &[Pruned], out: &mut dyn Write) -> Result<()> {
    let (zeros, all) = pruned.iter().fold((0, 0), |(z, n), p| (z + p.zeros, n + p.weights));
    let counts =
        format!("{} of {} weights in {} layers are zero", text::grouped(zeros), text::grouped(all), pruned.len());
    writeln!(out, "sparsity {} ({counts})", text::percent(zeros, all))?;
    Ok(())
}

/// A progress bar that shows once two seconds have passed.
struct Bar {
    bar: ProgressBar,
    started: Instant,
}

impl Bar {
    fn new(of: &str) -> Self {
        let bar = ProgressBar::hidden();
        if let Ok(style) = ProgressStyle::with_template(&format!("{{bar:30}} {{pos}}/{{len}} {of}, {{eta}} left")) {
            bar.set_style(style);
        }
        Self { bar, started: Instant::now() }
    }

    fn at(&self, done: usize, all: usize) {
        self.bar.set_length(all as u64);
        self.bar.set_position(done as u64);
        if self.bar.is_hidden() && self.started.elapsed() > Duration::from_secs(2) {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
        if done == all {
            self.bar.finish_and_clear();
        }
    }
}
