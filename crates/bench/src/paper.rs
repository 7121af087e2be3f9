//! A paper's published figures and claims, from `papers/<slug>/paper.toml`.

use regrow_sparse_core::{Error, Result};
use serde::Deserialize;

use crate::picture;

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
    /// The value as it was published, with its spread if that was.
    pub fn text(&self) -> String {
        let std = self.std.map_or(String::new(), |std| format!(" ± {}", picture::number(std)));
        format!("{}{std}", picture::number(self.value))
    }
}

impl Paper {
    /// Reads a `paper.toml`.
    ///
    /// # Errors
    /// If it is not one.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| Error::Argument(format!("paper.toml: {}", e.message())))
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
            let zeros = match &f.pattern {
                Some(pattern) => pattern.clone(),
                None => format!("{} % zeros", picture::number(f.sparsity * 100.0)),
            };
            println!("  {}: {}, {zeros}{m}: {:.2}{std} ({})", f.setting, f.method, f.value, f.source);
        }
        println!();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn ours_are_read() {
        let texts = [
            (include_str!("../../../papers/llm/paper.toml"), "2306.11695"),
            (include_str!("../../../papers/opcm/paper.toml"), "2501.09522"),
            (include_str!("../../../papers/rd/paper.toml"), "2308.10438"),
            (include_str!("../../../papers/rmm/paper.toml"), "2510.14163"),
            (include_str!("../../../papers/sms/paper.toml"), "2306.16788"),
        ];
        for (text, id) in texts {
            let paper = super::Paper::parse(text).unwrap();
            assert!(paper.source.contains(id));
            assert!(paper.figures.iter().all(|f| !f.source.is_empty()));
        }
    }
}
