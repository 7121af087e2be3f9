//! Language models in Hugging Face directories: pruned block by block, retrained, evaluated, used to generate text.

mod eval;
mod form;
mod generate;
mod prune;
mod retrain;

use std::fs;
use std::path::Path;

use regrow_lm::{Transformer, Words, samples};

use crate::bar::Bar;
use crate::error::{Error, Result};

pub use eval::{cosine, loss, perplexity, perplexity_sparse};
pub use form::form;
pub use generate::{Args as GenerateArgs, run as generate};
pub use prune::{Job, Options as PruneOptions, Selection, prune};
pub use retrain::{Args as RetrainArgs, run as retrain};

fn check_window(model: &Transformer, window: usize) -> Result<()> {
    match (2..=model.config.context).contains(&window) {
        true => Ok(()),
        false => Err(Error::Argument(format!(
            "a window of {window} tokens: this model takes 2 to {} (--window)",
            model.config.context
        ))),
    }
}

/// Windows of a text for calibration, `count` of `window` tokens each, by default 2048 or the model's context: the
/// first ones, or random ones with a seed.
pub fn calibration(
    model: &Transformer,
    file: &Path,
    count: usize,
    window: Option<usize>,
    seed: Option<u64>,
) -> Result<Vec<Vec<u32>>> {
    let window = window.unwrap_or_else(|| model.config.context.min(2048));
    check_window(model, window)?;
    if count == 0 {
        return Err(Error::Argument("--samples must be at least 1".into()));
    }
    let words = words(model.checkpoint().path(), model)?;
    let tokens = words.encode(&read(file)?)?;
    // An encoder was trained only on texts with special tokens.
    let (before, after) = if model.config.encoder { words.frame()? } else { Default::default() };
    let inner = window.saturating_sub(before.len() + after.len()).max(2);
    let samples = samples(&tokens, count, inner, seed).map_err(|e| match e {
        regrow_sparse_core::Error::Argument(reason) => Error::Argument(format!("{}: {reason}", file.display())),
        other => other.into(),
    })?;
    Ok(samples.into_iter().map(|s| [&before[..], s, &after[..]].concat()).collect())
}

fn read(file: &Path) -> Result<String> {
    Ok(fs::read_to_string(file).map_err(|e| regrow_sparse_core::Error::io(file, e))?)
}

fn words(folder: &Path, model: &Transformer) -> Result<Words> {
    Ok(Words::open(folder, model.config.vocab)?)
}
