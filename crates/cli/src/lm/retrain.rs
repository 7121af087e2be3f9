//! `regrow retrain`: retrains a few parameters of a pruned language model, keeping its zeros.

use std::io::Write;
use std::path::PathBuf;

use burn::module::Module;
use regrow_checkpoint::Patch;
use regrow_lm::{Decoder, NextToken, Transformer, samples};
use regrow_pruners::Perp;
use regrow_pruners::perp::{Form, rate};
use regrow_train::{Checkpointing, Training};

use super::{Bar, check_window, read, words};
use crate::error::{Error, Result};
use crate::source::locate;
use crate::text;

/// Retrain a few parameters of a pruned language model and merge them back without losing a zero
///
/// PERP (arXiv 2312.15230): biases, norms, or low-rank terms under the mask of each layer, trained with
/// AdamW to predict the next token. The whole model is in memory, in f32.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  regrow retrain PRUNED_DIR --text train.txt --form mask-lora --out OUT_DIR")]
pub struct Args {
    /// A Hugging Face directory with a decoder, or a model's name on the hub (org/name)
    folder: PathBuf,
    /// The branch, tag or commit of a model downloaded by name
    #[arg(long)]
    revision: Option<String>,
    /// What is trained: biases, norms, biases-norms, lora-prune, mask-lora, scale-lora, or full
    #[arg(long, default_value = "mask-lora")]
    form: String,
    /// The text to train on
    #[arg(long)]
    text: PathBuf,
    /// Windows of that text; by default all
    #[arg(long)]
    samples: Option<usize>,
    /// Tokens in a window; by default 256, or the model's context if that is shorter
    #[arg(long)]
    window: Option<usize>,
    /// Windows per step
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Passes over the windows
    #[arg(long, default_value_t = 1)]
    epochs: usize,
    /// The highest learning rate: reached after a tenth of the steps, then decaying to zero
    #[arg(long, default_value_t = 5e-4, allow_negative_numbers = true)]
    lr: f64,
    /// The rank of the low-rank terms; alpha is twice the rank
    #[arg(long, default_value_t = 16)]
    rank: usize,
    /// Train the head too, if it has its own matrix: with plain low-rank terms, or whole for the forms without them
    #[arg(long)]
    include_head: bool,
    /// The random seed
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Steps between two saves of the run, for --resume
    #[arg(long, default_value_t = 50)]
    save_every: usize,
    /// Resume an interrupted run with the same settings
    #[arg(long)]
    resume: bool,
    /// The output path of the retrained model
    #[arg(long)]
    out: PathBuf,
}

/// Trains, merges, writes.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let form = Form::parse(&args.form)?;
    if form == Form::Lora {
        return Err(Error::Argument("lora cannot be merged without filling the zeros: use mask-lora".into()));
    }
    if !args.lr.is_finite() || args.lr <= 0.0 || args.epochs == 0 || args.save_every == 0 {
        return Err(Error::Argument("--lr, --epochs and --save-every must be above zero".into()));
    }
    let folder = locate(&args.folder, args.revision.as_deref())?;
    let model = Transformer::open(&folder, &regrow_device::current())?;
    let window = args.window.unwrap_or_else(|| model.config.context.min(256));
    check_window(&model, window)?;
    let tokens = words(&folder, &model)?.encode(&read(&args.text)?)?;
    let count = args.samples.unwrap_or((tokens.len() / window).max(1));
    let problem = NextToken::new(&model.config, samples(&tokens, count, window, None)?)?;
    let decoder = model.whole()?;
    let perp = Perp::new(form).with_rank(args.rank, 2.0 * args.rank as f64)?.with_pruned(decoder.layers());
    let perp = if args.include_head { perp.with_head() } else { perp };
    let mut patch = Patch::create(model.checkpoint(), &args.out, "retrain")?;
    let trained = perp.merge(args.train(&perp, decoder.clone(), &problem)?)?;
    model.store(&trained, &mut patch)?;
    patch.finish()?;
    let counts = perp.trained(&perp.prepare(decoder, args.seed)?)?;
    let share = text::percent(counts.trained, counts.all);
    writeln!(out, "retrained {} of {} parameters ({share})", text::grouped(counts.trained), text::grouped(counts.all))?;
    Ok(())
}

impl Args {
    fn train(&self, perp: &Perp, decoder: Decoder, problem: &NextToken<'_>) -> Result<Decoder> {
        let save = Checkpointing { dir: self.saves()?, every: self.save_every };
        let settings = Training { epochs: self.epochs, batch: self.batch, lr: rate(self.lr), seed: self.seed };
        let (bar, mut last) = (Bar::new("steps"), None);
        let trained = perp.retrain(decoder, problem, &settings, Some(&save), &mut |at| {
            bar.at(at.step, at.total);
            if at.step == at.total {
                last = Some(at.loss.clone());
            }
        })?;
        let finite = last.is_none_or(|loss| loss.into_data().iter::<f32>().all(f32::is_finite));
        match finite {
            true => Ok(trained.valid()),
            false => Err(Error::Argument(format!("the loss is not finite any more: a lower --lr than {}?", self.lr))),
        }
    }

    /// The folder of the run's saves, beside the output; emptied unless the run is resumed.
    fn saves(&self) -> Result<PathBuf> {
        let none = || Error::Argument(format!("{} is not the name of a folder", self.out.display()));
        let name = self.out.file_name().ok_or_else(none)?.to_string_lossy();
        let dir = self.out.with_file_name(format!("{name}.training"));
        if dir.exists() && !self.resume {
            std::fs::remove_dir_all(&dir).map_err(|e| regrow_sparse_core::Error::io(&dir, e))?;
        }
        Ok(dir)
    }
}
