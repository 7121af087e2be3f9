//! Evaluates language models: perplexity of a decoder, sentence embeddings of an encoder compared with another's.

use std::io::Write;
use std::path::Path;

use regrow_inference::{DenseExecutor, LayerExecutor, Options};
use regrow_lm::{self, Perplexity, Transformer, Window, sliding};

use super::{Bar, check_window, read, words};
use crate::error::{Error, Result};
use crate::sparse::{self, Both, timed};

/// Perplexity of the model in `folder` on the text in `file`, in windows every `stride` tokens.
pub fn perplexity(folder: &Path, file: &Path, window: usize, stride: Option<usize>, out: &mut dyn Write) -> Result<()> {
    let bar = Bar::new("tokens");
    let found = measured(folder, file, window, stride, &mut |done, all| bar.at(done, all))?;
    writeln!(out, "perplexity {:.2} ({} tokens)", found.value(), found.tokens)?;
    Ok(())
}

/// The loss of the model in `folder` on the text in `file`, in nats per token.
pub fn loss(folder: &Path, file: &Path, window: usize) -> Result<f64> {
    let found = measured(folder, file, window, None, &mut |_, _| ())?;
    Ok(found.loss / found.tokens.max(1) as f64)
}

/// Perplexity of the model in `folder`, alternating between dense and sparse; layers are sparse where that is faster.
pub fn perplexity_sparse(
    folder: &Path,
    file: &Path,
    window: usize,
    stride: Option<usize>,
    out: &mut dyn Write,
) -> Result<()> {
    let (model, tokens) = opened(folder, file, window)?;
    let windows: Vec<Window<'_>> = sliding(&tokens, window, stride.unwrap_or(window))?;
    let (config, device) = (&model.config, model.device());
    let (model, verdicts) =
        model.whole()?.compress(regrow_lm::together(&windows, device), config, &Options::default())?;
    sparse::report(&verdicts, out)?;
    let (bar, all) = (Bar::new("tokens"), windows.iter().map(|w| w.scored).sum::<usize>());
    let (mut times, mut dense, mut sparse) = (Both::default(), NONE, NONE);
    for part in windows.chunks(TURN.div_ceil(window)) {
        let run = |layers: &mut dyn LayerExecutor| {
            regrow_lm::perplexity_by((&model.model, layers), config, part, device, &mut |_, _| ())
        };
        add(&mut dense, timed(&mut times.dense, || run(&mut DenseExecutor))?);
        add(&mut sparse, timed(&mut times.sparse, || run(&mut model.layers()))?);
        bar.at(dense.tokens, all);
    }
    let line = |found: Perplexity| format!("perplexity {:.2} ({} tokens)", found.value(), found.tokens);
    writeln!(out, "dense:  {} in {:.2} s", line(dense), times.dense.as_secs_f64())?;
    let (seconds, ratio) = (times.sparse.as_secs_f64(), times.ratio());
    writeln!(out, "sparse: {} in {seconds:.2} s, {ratio:.2} of the dense time", line(sparse))?;
    Ok(())
}

/// Tokens per turn when dense and sparse alternate.
const TURN: usize = 1 << 13;

const NONE: Perplexity = Perplexity { loss: 0.0, tokens: 0 };

fn add(sum: &mut Perplexity, part: Perplexity) {
    sum.loss += part.loss;
    sum.tokens += part.tokens;
}

/// The decoder in `folder` and the tokens of the text in `file`.
fn opened(folder: &Path, file: &Path, window: usize) -> Result<(Transformer, Vec<u32>)> {
    let model = Transformer::open(folder, &regrow_device::current())?;
    if model.config.encoder {
        let family = &model.config.family;
        return Err(Error::Argument(format!("{family} is an encoder: compare its sentences (--against MODEL_DIR)")));
    }
    let tokens = words(folder, &model)?.encode(&read(file)?)?;
    check_window(&model, window)?;
    Ok((model, tokens))
}

fn measured(
    folder: &Path,
    file: &Path,
    window: usize,
    stride: Option<usize>,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<regrow_lm::Perplexity> {
    let (model, tokens) = opened(folder, file, window)?;
    let windows: Vec<Window<'_>> = sliding(&tokens, window, stride.unwrap_or(window))?;
    Ok(regrow_lm::perplexity(&model, &windows, watch)?)
}

/// Mean cosine of two encoders' embeddings of the lines of `file`; the encoders are in `folder` and `other`.
pub fn cosine(folder: &Path, other: &Path, file: &Path, out: &mut dyn Write) -> Result<()> {
    let text = read(file)?;
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() {
        return Err(Error::Argument(format!("{} has no line that is not empty", file.display())));
    }
    let (ours, theirs) = (embeddings(folder, &lines)?, embeddings(other, &lines)?);
    if ours[0].len() != theirs[0].len() {
        let (a, b) = (ours[0].len(), theirs[0].len());
        return Err(Error::Argument(format!("the models' embeddings have {a} and {b} numbers: nothing to compare")));
    }
    let cosines: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| regrow_lm::cosine(a, b)).collect();
    let least = cosines.iter().copied().fold(f64::INFINITY, f64::min);
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    writeln!(out, "cosine {mean:.4} ({} sentences, the least {least:.4})", cosines.len())?;
    Ok(())
}

fn embeddings(folder: &Path, lines: &[&str]) -> Result<Vec<Vec<f32>>> {
    let model = Transformer::open(folder, &regrow_device::current())?;
    if !model.config.encoder {
        let reason = format!(
            "{} holds a {}, which is no encoder: use --text without --against",
            folder.display(),
            model.config.family
        );
        return Err(Error::Argument(reason));
    }
    let words = words(folder, &model)?;
    let sentence = |line: &&str| words.sentence(line, model.config.context);
    let sentences = lines.iter().map(sentence).collect::<regrow_sparse_core::Result<Vec<_>>>()?;
    let bar = Bar::new("sentences");
    Ok(regrow_lm::embeddings(&model, &sentences, &mut |done, all| bar.at(done, all))?)
}
