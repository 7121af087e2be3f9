//! Whether a paper's claim holds here: paired differences over seeds, with confidence intervals.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::harness::record::{Measure, Record, mean_std};

/// A claim that method `better` beats method `than` at equal sparsity, pattern and m.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// In the paper's sense.
    pub text: String,
    /// The method that should be better.
    pub better: String,
    /// The one it is compared with.
    pub than: String,
}

/// The verdict on a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The 95 % interval of the mean difference is above zero.
    Holds,
    /// It includes zero.
    NotResolved,
    /// It is below zero.
    DoesNotHold,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Holds => "holds",
            Self::NotResolved => "not resolved",
            Self::DoesNotHold => "does not hold",
        })
    }
}

/// A judged claim.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The claim.
    pub claim: String,
    /// Mean over seeds of [`Measure::gain`]; each seed counts once, with the mean of its gains over all
    /// settings.
    pub difference: f64,
    /// Its unit.
    pub unit: &'static str,
    /// Standard deviation of that over seeds.
    pub spread: f64,
    /// Half the width of the 95 % interval around it (Student's t); infinite for one seed.
    pub reach: f64,
    /// How many seeds.
    pub seeds: usize,
    /// The verdict.
    pub outcome: Outcome,
}

impl Claim {
    /// Judges the claim on `rows` of this measure; `None` without a seed that has both methods.
    pub fn judge(&self, rows: &[Record], measure: Measure) -> Option<Verdict> {
        let mut by_seed: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for better in rows.iter().filter(|r| r.method == self.better) {
            let pair = rows.iter().find(|r| {
                let of = |r: &Record| (r.sparsity, r.pattern.clone(), r.m, r.seed);
                r.method == self.than && of(r) == of(better)
            });
            if let Some(than) = pair {
                by_seed.entry(better.seed).or_default().push(measure.gain(better.value, than.value));
            }
        }
        let differences: Vec<f64> = by_seed.values().map(|d| mean_std(d).0).collect();
        if differences.is_empty() {
            return None;
        }
        let (difference, spread) = mean_std(&differences);
        let reach = reach(spread, differences.len());
        let outcome = outcome(difference, reach);
        let (claim, unit, seeds) = (self.text.clone(), measure.unit(), differences.len());
        Some(Verdict { claim, difference, unit, spread, reach, seeds, outcome })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { claim, difference, unit, spread, reach, seeds, outcome } = self;
        let (low, high) = (difference - reach, difference + reach);
        write!(f, "{outcome:>13}: {claim} ({difference:+.2} {unit}, [{low:+.2}, {high:+.2}]; ")?;
        write!(f, "standard deviation {spread:.2} over {seeds} seeds)")
    }
}

/// Half the width of the 95 % interval of a mean over `n` seeds.
fn reach(spread: f64, n: usize) -> f64 {
    if n < 2 { f64::INFINITY } else { student(n - 1) * spread / (n as f64).sqrt() }
}

fn outcome(mean: f64, reach: f64) -> Outcome {
    match (mean - reach > 0.0, mean + reach < 0.0) {
        (true, _) => Outcome::Holds,
        (_, true) => Outcome::DoesNotHold,
        _ => Outcome::NotResolved,
    }
}

/// The two-sided 95 % quantile of Student's t; between the tabulated values the next larger one.
fn student(freedom: usize) -> f64 {
    const T: [f64; 10] = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
    T.get(freedom - 1).copied().unwrap_or(if freedom < 30 { 2.228 } else { 2.042 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(better: &str, than: &str) -> Claim {
        Claim { text: String::new(), better: better.into(), than: than.into() }
    }

    fn rows(pairs: &[(f64, f64)]) -> Vec<Record> {
        let record =
            |method: &str, seed: usize, value| Record { m: 3, ..Record::new(method, 0.9, seed as u64, value, 0.0) };
        pairs.iter().enumerate().flat_map(|(s, (a, b))| [record("a", s, *a), record("b", s, *b)]).collect()
    }

    #[test]
    fn differences_are_paired_and_judged() {
        let measure = Measure::Accuracy;
        let judge = |pairs: &[(f64, f64)]| claim("a", "b").judge(&rows(pairs), measure).unwrap();
        // The seeds vary widely, the pairs agree.
        let clear = judge(&[(91.0, 90.0), (81.1, 80.0), (70.9, 70.0)]);
        assert!((clear.difference - 1.0).abs() < 1e-9);
        assert_eq!(clear.outcome, Outcome::Holds);
        assert_eq!(judge(&[(90.0, 91.0), (80.0, 81.1), (70.0, 70.9)]).outcome, Outcome::DoesNotHold);
        assert_eq!(judge(&[(91.0, 90.0), (80.0, 81.0), (70.5, 70.0)]).outcome, Outcome::NotResolved);
        assert_eq!(judge(&[(91.0, 90.0)]).outcome, Outcome::NotResolved);
        assert!(claim("a", "c").judge(&rows(&[(1.0, 2.0)]), measure).is_none());
    }

    #[test]
    fn of_perplexities_the_smaller_wins() {
        let rows = rows(&[(20.0, 22.0), (30.0, 33.1), (40.0, 43.9)]);
        let verdict = claim("a", "b").judge(&rows, Measure::Perplexity).unwrap();
        assert!((verdict.difference - 100.0 * 1.1f64.ln()).abs() < 0.1, "{verdict}");
        assert_eq!(verdict.outcome, Outcome::Holds);
    }
}
