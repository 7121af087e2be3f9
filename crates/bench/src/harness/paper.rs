//! A paper's published figures and claims, from `published/<slug>.toml`.

use regrow_sparse_core::{Error, Result};
use serde::Deserialize;

use crate::harness::claim::Claim;
use crate::harness::picture;

/// A paper's published results.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paper {
    /// Its title.
    pub title: String,
    /// Such as `arXiv 2306.16788`.
    pub source: String,
    /// How its setting differs from ours.
    pub setting: String,
    /// Its statements in words, with the place.
    #[serde(default)]
    pub statements: Vec<String>,
    /// Its claims about methods, as pairs to compare.
    #[serde(default)]
    pub claims: Vec<Claim>,
    /// Published figures.
    #[serde(default)]
    pub figures: Vec<Figure>,
}

/// One published figure.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// Network and data.
    pub setting: String,
    /// The method.
    pub method: String,
    /// Fraction of zeros.
    pub sparsity: f64,
    /// The pattern of zeros, such as `2:4`, if they are restricted.
    pub pattern: Option<String>,
    /// Candidates, if relevant.
    pub m: Option<usize>,
    /// Accuracy in percent, or perplexity.
    #[serde(alias = "accuracy")]
    pub value: f64,
    /// Its standard deviation.
    pub std: Option<f64>,
    /// Where it is published: table and page or address.
    pub source: String,
}

impl Figure {
    /// Such as `, 90 % zeros` or `, 2:4`; empty for a network that is not pruned.
    pub fn zeros(&self) -> String {
        match &self.pattern {
            Some(pattern) => format!(", {pattern}"),
            None if self.sparsity == 0.0 => String::new(),
            None => format!(", {} % zeros", picture::number(self.sparsity * 100.0)),
        }
    }

    /// The value as published, with its spread if that was published.
    pub fn text(&self) -> String {
        let std = self.std.map_or(String::new(), |std| format!(" ± {}", picture::number(std)));
        format!("{}{std}", picture::number(self.value))
    }
}

impl Paper {
    /// Parses a paper file.
    ///
    /// # Errors
    /// If it has another format.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| Error::Argument(format!("paper.toml: {}", e.message())))
    }

    /// Whether it has anything to show beside our figures.
    pub fn has_figures(&self) -> bool {
        !self.figures.is_empty() || !self.statements.is_empty()
    }

    /// Prints the published figures with their sources, or that there are none.
    pub fn print_figures(&self) {
        println!("Published ({}):", self.setting);
        self.statements.iter().for_each(|statement| println!("  {statement}"));
        if self.figures.is_empty() {
            println!("  no figure of the paper's tables was found in a source that could be checked");
        }
        for f in &self.figures {
            let m = f.m.map_or(String::new(), |m| format!(", m = {m}"));
            let std = f.std.map_or(String::new(), |s| format!(" ± {s:.2}"));
            println!("  {}: {}{}{m}: {:.2}{std} ({})", f.setting, f.method, f.zeros(), f.value, f.source);
        }
        println!();
    }
}
