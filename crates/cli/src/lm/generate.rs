//! `regrow generate`: what a language model says, so that a person can see what pruning did.

use std::io::Write;
use std::path::PathBuf;

use regrow_zoo::lm::{self, Choice, Transformer};

use super::words;
use crate::error::Result;
use crate::source::locate;

/// Continue a text with a language model
///
/// Every token is computed from the whole text before it, without a cache: for looking, not for serving.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  regrow generate MODEL_DIR --prompt \"The king\" --tokens 40")]
pub struct Args {
    /// A Hugging Face directory, or a model's name on the hub (org/name)
    folder: PathBuf,
    /// The branch, tag or commit of a model that is fetched by its name
    #[arg(long)]
    revision: Option<String>,
    /// The text to continue
    #[arg(long)]
    prompt: String,
    /// How many tokens to add
    #[arg(long, default_value_t = 40)]
    tokens: usize,
    /// 0 takes the likeliest token each time; above, tokens are drawn, the flatter the higher
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f64,
    /// The source of randomness
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// Prints the prompt and what follows, as it comes.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let folder = locate(&args.folder, args.revision.as_deref())?;
    let model = Transformer::open(&folder, &regrow_sparse_core::device::current())?;
    let words = words(&folder, &model)?;
    let prompt = words.encode(&args.prompt)?;
    let choice = Choice { temperature: args.temperature, seed: args.seed };
    let (mut tokens, mut said, mut failed) = (prompt.clone(), String::new(), Ok(()));
    lm::generate(&model, &prompt, args.tokens, choice, &mut |token| {
        tokens.push(token);
        let text = words.decode(&tokens)?;
        // A character may be cut between tokens: it is printed when it is whole.
        let whole = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        if let Some(more) = whole.strip_prefix(said.as_str()).filter(|more| !more.is_empty()) {
            failed = write!(out, "{more}").and_then(|()| out.flush());
            said = whole.to_string();
        }
        Ok(())
    })?;
    failed?;
    writeln!(out)?;
    Ok(())
}
