//! Language models in Hugging Face directories: pruned block by block, retrained, measured, heard.

mod eval;
mod form;
mod generate;
mod prune;
mod retrain;

use std::fs;
use std::path::Path;

use regrow_zoo::lm::{Transformer, Words};

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

fn read(file: &Path) -> Result<String> {
    Ok(fs::read_to_string(file).map_err(|e| regrow_sparse_core::Error::io(file, e))?)
}

fn words(folder: &Path, model: &Transformer) -> Result<Words> {
    Ok(Words::open(folder, model.config.vocab)?)
}
