//! `regrow convert`: the same model with another type or storage.

use std::collections::HashSet;
use std::io::Write;
use std::path::PathBuf;

use regrow_checkpoint::storage::Storage;
use regrow_checkpoint::{Checkpoint, Converted, Dtype, Form, convert};
use regrow_lm::Transformer;

use crate::bar::Bar;
use crate::error::{Error, Result};
use crate::lm;
use crate::source::locate;
use crate::text;

/// Write a checkpoint with weights of another type, or sparse ones in less space
///
/// Packed matrices use the format of the compressed-tensors package (up to version 0.14): it unpacks both formats, and
/// transformers loads 2:4 through it. Every command here reads them too; --format dense unpacks them. Only linear
/// layers of language models are packed, and only if that makes them smaller.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  regrow convert PRUNED_DIR --format bitmask --out PACKED_DIR\n  \
                        regrow convert MODEL_DIR --dtype bf16 --out OUT_DIR\n  \
                        regrow convert PACKED_DIR --format dense --out DENSE_DIR")]
pub struct Args {
    /// A Hugging Face directory, a safetensors file, or a model's name on the hub (org/name)
    path: PathBuf,
    /// The branch, tag or commit of a model downloaded by name
    #[arg(long)]
    revision: Option<String>,
    #[command(flatten)]
    form: FormArgs,
    /// The output path: a directory, or a file that ends in .safetensors
    #[arg(long)]
    out: PathBuf,
}

/// The form of the output.
#[derive(clap::Args)]
pub struct FormArgs {
    /// The type of the weights: f32, f16 or bf16, rounded to nearest; by default each keeps its own
    #[arg(long, value_parser = dtype)]
    dtype: Option<Dtype>,
    /// How sparse matrices are stored: dense, bitmask, or 2:4
    #[arg(long, default_value = "dense")]
    format: String,
}

impl FormArgs {
    /// The type, if given.
    pub fn dtype(&self) -> Option<Dtype> {
        self.dtype
    }

    /// The storage.
    pub fn storage(&self) -> Result<Storage> {
        Ok(Storage::parse(&self.format)?)
    }
}

/// Opens, converts, reports.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let path = locate(&args.path, args.revision.as_deref())?;
    let storage = args.form.storage()?;
    let checkpoint = Checkpoint::open(&path)?;
    let form = match storage {
        Storage::Dense => Form { dtype: args.form.dtype, storage, layers: HashSet::new() },
        _ if checkpoint.is_directory() => {
            lm::form(&Transformer::open(&path, &regrow_device::current())?, args.form.dtype, storage)
        }
        _ => {
            return Err(Error::Argument(format!(
                "{}: only a model's directory says what may be packed",
                path.display()
            )));
        }
    };
    let bar = Bar::bytes();
    let done = convert(&checkpoint, &args.out, &form, None, &|done, all| bar.at(done, all))?;
    report(&done, storage, out)
}

/// Reports how much space a checkpoint takes.
pub fn report(done: &Converted, storage: Storage, out: &mut dyn Write) -> Result<()> {
    let (bytes, dense) = (text::grouped(done.bytes), text::grouped(done.dense));
    match done.packed {
        0 => writeln!(out, "{bytes} bytes")?,
        packed => writeln!(
            out,
            "{bytes} bytes instead of {dense} ({}), {packed} matrices packed as {storage}",
            text::percent(done.bytes, done.dense)
        )?,
    }
    Ok(())
}

fn dtype(name: &str) -> Result<Dtype, String> {
    match name {
        "f32" => Ok(Dtype::F32),
        "f16" => Ok(Dtype::F16),
        "bf16" => Ok(Dtype::BF16),
        _ => Err("use bf16, f16 or f32".into()),
    }
}
