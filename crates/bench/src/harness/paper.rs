//! A paper's published figures and claims, from `published/<slug>.toml`.

use regrow_sparse_core::{Error, Result};
use serde::Deserialize;

use crate::harness::claim::Claim;
use crate::harness::picture;

/// What a paper says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paper {
    /// Its title.
    pub title: String,
    /// As `arXiv 2306.16788`.
    pub source: String,
    /// How its setting differs from ours.
    pub setting: String,
    /// What it says in words, with the place.
    #[serde(default)]
    pub statements: Vec<String>,
    /// What it claims of methods, as pairs to compare.
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
    /// The pattern of zeros, as `2:4`, where they do not stand anywhere.
    pub pattern: Option<String>,
    /// Candidates, where they matter.
    pub m: Option<usize>,
    /// Accuracy in percent, or perplexity.
    #[serde(alias = "accuracy")]
    pub value: f64,
    /// Its standard deviation.
    pub std: Option<f64>,
    /// Where it stands: table and page or address.
    pub source: String,
}

impl Figure {
    /// As `, 90 % zeros` or `, 2:4`; nothing of a network that is not pruned.
    pub fn zeros(&self) -> String {
        match &self.pattern {
            Some(pattern) => format!(", {pattern}"),
            None if self.sparsity == 0.0 => String::new(),
            None => format!(", {} % zeros", picture::number(self.sparsity * 100.0)),
        }
    }

    /// The value as it was published, with its spread if that was.
    pub fn text(&self) -> String {
        let std = self.std.map_or(String::new(), |std| format!(" ± {}", picture::number(std)));
        format!("{}{std}", picture::number(self.value))
    }
}

impl Paper {
    /// Reads one.
    ///
    /// # Errors
    /// If it is not one.
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
