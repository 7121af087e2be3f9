//! `regrow generate`: text from a language model, to see the effect of pruning.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use regrow_inference::{DenseExecutor, LayerExecutor, Options};
use regrow_lm::{self, Choice, Transformer, Words};

use super::words;
use crate::error::Result;
use crate::source::locate;
use crate::sparse::{Both, report, timed};

/// Continue a text with a language model
///
/// One text at a time, with a key/value cache: for inspection, not for serving
#[derive(clap::Args)]
#[command(after_help = "Example:\n  regrow generate MODEL_DIR --prompt \"The king\" --tokens 40")]
pub struct Args {
    /// A Hugging Face directory, or a model's name on the hub (org/name)
    folder: PathBuf,
    /// The branch, tag or commit of a model downloaded by name
    #[arg(long)]
    revision: Option<String>,
    /// The text to continue
    #[arg(long)]
    prompt: String,
    /// How many tokens to add
    #[arg(long, default_value_t = 40)]
    tokens: usize,
    /// 0 takes the most likely token each time; above 0, tokens are sampled, more evenly the higher it is
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f64,
    /// The random seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Measure dense and sparse, on one token, each layer that is pruned or whose weights fit in 16 bits, use the
    /// sparse form where it is faster, and show the speed of text generation both ways
    #[arg(long)]
    sparse: bool,
}

/// Prints the prompt and its continuation as it is generated.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let folder = locate(&args.folder, args.revision.as_deref())?;
    let model = Transformer::open(&folder, &regrow_device::current())?;
    let words = words(&folder, &model)?;
    let prompt = words.encode(&args.prompt)?;
    let choice = Choice { temperature: args.temperature, seed: args.seed };
    if args.sparse {
        return both(&model, &words, (&prompt, args.tokens, choice), out);
    }
    let (mut tokens, mut said, mut failed) = (prompt.clone(), String::new(), Ok(()));
    regrow_lm::generate(&model, &prompt, args.tokens, choice, &mut |token| {
        tokens.push(token);
        let text = words.decode(&tokens)?;
        // A character may be split between tokens: it is printed when it is complete.
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

/// Generates the text dense and sparse, three times alternating.
fn both(
    model: &Transformer,
    words: &Words,
    (prompt, tokens, choice): (&[u32], usize, Choice),
    out: &mut dyn Write,
) -> Result<()> {
    let (config, device) = (&model.config, model.device());
    let decoder = model.whole()?;
    // Invalid prompts are rejected before anything is measured.
    regrow_lm::generate_by((&decoder, &mut DenseExecutor), config, device, (prompt, 0, choice), &mut |_| Ok(()))?;
    let (decoder, verdicts) =
        decoder.compress(regrow_lm::batch(&[&prompt[..1]], device), config, &Options::default())?;
    let say = |layers: &mut dyn LayerExecutor, text: &mut Vec<u32>| {
        text.clear();
        let mut add = |token| {
            text.push(token);
            Ok(())
        };
        regrow_lm::generate_by((&decoder.model, layers), config, device, (prompt, tokens, choice), &mut add)
    };
    let mut least = Both { dense: Duration::MAX, sparse: Duration::MAX };
    let (mut dense, mut sparse) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let mut times = Both::default();
        timed(&mut times.dense, || say(&mut DenseExecutor, &mut dense))?;
        timed(&mut times.sparse, || say(&mut decoder.layers(), &mut sparse))?;
        least = Both { dense: least.dense.min(times.dense), sparse: least.sparse.min(times.sparse) };
    }
    writeln!(out, "{}", words.decode(&[prompt, &sparse].concat())?)?;
    report(&verdicts, out)?;
    let same = dense.iter().zip(&sparse).take_while(|(a, b)| a == b).count();
    let rate = |time: Duration| sparse.len() as f64 / time.as_secs_f64().max(1e-9);
    writeln!(out, "dense:  {:.1} tokens a second", rate(least.dense))?;
    let (now, ratio, all) = (rate(least.sparse), least.ratio(), sparse.len());
    writeln!(
        out,
        "sparse: {now:.1} tokens a second, {ratio:.2} of the dense time, the first {same} of {all} the same"
    )?;
    Ok(())
}
