//! The table of reweighting: loss-based weights of examples (arXiv 2502.06733) and ScaleBiO's weights of
//! sources (arXiv 2406.19976).
//!
//! `squares`: on least squares, steps to a target. `language`: on a small language model over mixed texts, some of them
//! noisy; `texts` generates them.

mod language;
mod squares;
mod texts;

use std::path::PathBuf;

use regrow_sparse_core::Result;

use crate::harness::info::Info;
use crate::harness::paper::Paper;
use crate::harness::record::Measure;
use crate::harness::settings::Common;
use crate::harness::slurm;

/// The table's registry entry.
pub const INFO: Info = Info {
    name: "reweighting",
    summary: "Loss-based weights of examples, and ScaleBiO's of sources, on least squares",
    example: "bench reweighting\nbench reweighting --part language --texts real --data DIR --seeds 3",
    paper: include_str!("../../../published/reweighting.toml"),
    measure: Measure::Perplexity,
};

/// Loss-based weights of examples, and ScaleBiO's of sources, on least squares and a language model
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Options of every table.
    #[command(flatten)]
    pub common: Common,
    /// Only one part
    #[arg(long, value_enum)]
    pub part: Option<Part>,
    /// Learning rates to choose from (least squares)
    #[arg(long, value_delimiter = ',', default_values_t = [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0])]
    pub rates: Vec<f64>,
    /// Steps after which a run counts as not reaching the target (least squares)
    #[arg(long, default_value_t = 3000)]
    pub most: usize,
    /// The language model's texts: synthetic languages, or Shakespeare and WikiText as bytes (with --data)
    #[arg(long, value_enum, default_value_t = Texts::MadeUp)]
    pub texts: Texts,
    /// Steps of each training of the language model
    #[arg(long)]
    pub steps: Option<usize>,
    /// The share of a noisy text's tokens that are replaced by others of it
    #[arg(long, default_value_t = 0.5, allow_negative_numbers = true)]
    pub noise: f64,
    /// ScaleBiO's penalty
    #[arg(long, default_value_t = 10.0, allow_negative_numbers = true)]
    pub alpha: f64,
    /// Learning rate of ScaleBiO's weights (the authors: 0.01)
    #[arg(long, default_value_t = 0.01, allow_negative_numbers = true)]
    pub source_rate: f64,
}

/// A part of the table.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Least squares.
    Squares,
    /// A language model.
    Language,
}

/// Where the language model's texts come from.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Texts {
    /// Two synthetic languages.
    MadeUp,
    /// Shakespeare and WikiText.
    Real,
}

impl Args {
    /// The folder that holds the real texts.
    fn folder(&self) -> Option<PathBuf> {
        self.common.data.as_ref().map(|dir| {
            let inner = dir.join("text");
            if inner.is_dir() { inner } else { dir.clone() }
        })
    }
}

/// Runs the table.
///
/// # Errors
/// Impossible settings, texts that are missing, an output folder that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let language = language::Plan::new(args)?;
    if slurm::scripted(&args.common)? {
        return Ok(());
    }
    let paper = Paper::parse(INFO.paper)?;
    println!("{}\n{}\n", paper.title, paper.source);
    if args.part != Some(Part::Language) {
        squares::run(args)?;
        println!();
    }
    if args.part != Some(Part::Squares) {
        language::run(args, &language)?;
        println!();
    }
    paper.print_figures();
    Ok(())
}
