//! A table's measurements, in long form: one record per method, setting and seed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The row's method.
    pub method: String,
    /// Fraction of the prunable weights that are zero.
    pub sparsity: f64,
    /// The pattern of zeros, such as `2:4`; empty if they are unrestricted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pattern: String,
    /// Candidates per phase; 1 if there is only one model.
    pub m: usize,
    /// The seed.
    pub seed: u64,
    /// What the table measures: test accuracy in percent, or perplexity.
    #[serde(alias = "accuracy")]
    pub value: f64,
    /// Seconds of wall time that this row took, without pretraining.
    pub seconds: f64,
    /// Multiplications and additions of one example with the remaining weights, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops: Option<u64>,
    /// Fraction of each layer's weights that remain, in model order, if known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub densities: Vec<(String, f64)>,
    /// Other measurements, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub findings: BTreeMap<String, f64>,
}

impl Record {
    /// With the values that every row has; the rest is empty.
    pub fn new(method: &str, sparsity: f64, seed: u64, value: f64, seconds: f64) -> Self {
        Self {
            method: method.into(),
            sparsity,
            pattern: String::new(),
            m: 1,
            seed,
            value,
            seconds,
            flops: None,
            densities: Vec::new(),
            findings: BTreeMap::new(),
        }
    }
}

/// What a table measures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// Test accuracy in percent: more is better.
    #[default]
    Accuracy,
    /// Perplexity of a text: less is better.
    Perplexity,
    /// Steps to a target: less is better.
    Steps,
}

impl Measure {
    /// In words, with its unit.
    pub fn name(self) -> &'static str {
        match self {
            Self::Accuracy => "Accuracy in percent",
            Self::Perplexity => "Perplexity",
            Self::Steps => "Steps",
        }
    }

    /// What pictures show of it, with its unit: [`Measure::drawn`].
    pub fn axis(self) -> &'static str {
        match self {
            Self::Accuracy => "test accuracy, %",
            Self::Perplexity => "loss, nats per token",
            Self::Steps => "steps, decimal logarithm",
        }
    }

    /// A value as pictures show it: perplexities may differ by orders of magnitude.
    pub fn drawn(self, value: f64) -> f64 {
        match self {
            Self::Accuracy => value,
            Self::Perplexity => value.ln(),
            Self::Steps => value.log10(),
        }
    }

    /// By how much `value` is better than `than`: in points of accuracy, or in percent of perplexity
    /// (100 times the difference of logarithms).
    pub fn gain(self, value: f64, than: f64) -> f64 {
        match self {
            Self::Accuracy => value - than,
            Self::Perplexity | Self::Steps => 100.0 * (than.ln() - value.ln()),
        }
    }

    /// The unit of [`Measure::gain`].
    pub fn unit(self) -> &'static str {
        match self {
            Self::Accuracy => "points",
            Self::Perplexity => "% of perplexity",
            Self::Steps => "% of steps",
        }
    }
}

/// The mean over seeds of the finding `name` of one method and sparsity, if there is any.
pub fn mean_finding(rows: &[Record], method: &str, sparsity: f64, name: &str) -> Option<f64> {
    let wanted = rows.iter().filter(|r| r.method == method && r.sparsity == sparsity);
    let values: Vec<f64> = wanted.filter_map(|r| r.findings.get(name).copied()).collect();
    (!values.is_empty()).then(|| mean_std(&values).0)
}

/// The mean and standard deviation (n - 1) of some numbers; 0 deviation for a single one.
pub fn mean_std(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>();
    (mean, if values.len() > 1 { (squares / (n - 1.0)).sqrt() } else { 0.0 })
}

/// The values of one method and setting, by seed.
pub fn values(rows: &[Record], method: &str, sparsity: f64, m: usize) -> Vec<(u64, f64)> {
    let wanted = |r: &&Record| r.method == method && r.sparsity == sparsity && r.m == m;
    rows.iter().filter(wanted).map(|r| (r.seed, r.value)).collect()
}

/// Such as `97.31 ± 0.42`: mean and standard deviation over seeds.
pub fn spread(by_seed: &[(u64, f64)]) -> String {
    if by_seed.is_empty() {
        return "-".into();
    }
    let (mean, std) = mean_std(&by_seed.iter().map(|(_, a)| *a).collect::<Vec<_>>());
    format!("{mean:.2} ± {std:.2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_deviation_by_hand() {
        assert_eq!(mean_std(&[1.0, 2.0, 3.0]), (2.0, 1.0));
        assert_eq!(mean_std(&[5.0]), (5.0, 0.0));
    }

    #[test]
    fn a_number_comes_back_from_a_file_as_it_was() {
        // Without serde_json's `float_roundtrip`, all of these are read with a different last digit.
        for (right, of) in [(1, 37), (34, 37), (47, 48), (58, 62), (61, 62)] {
            let value = 100.0 * f64::from(right) / f64::from(of);
            let record = Record::new("a method", 0.9, 0, value, 1.0);
            let text = serde_json::to_string(&record).expect("text");
            let back: Record = serde_json::from_str(&text).expect("a record");
            assert_eq!(back.value.to_bits(), value.to_bits(), "{text}");
        }
    }
}
