//! TIES: trim, elect sign, merge (Yadav et al., NeurIPS 2023, arXiv 2306.01708, algorithm 1).
//!
//! ```text
//! trim     of each task vector D_i = W_i - W_0 keep the largest |D_i|, a share d of them
//! elect    s = sign(sum_i a_i D_i) for each entry, 0 counting as +
//! merge    W = W_0 + lambda * (sum of the a_i D_i that have the sign s) / (sum of their a_i)
//! ```
//!
//! The paper trims a model's task vector as a whole. Here, as in mergekit, each tensor is trimmed separately, to
//! exactly `floor(d n)` entries. For the paper's variant, take each tensor's density from
//! [`crate::stream::densities_within`] (`scope = "model"` in a recipe). The authors' code keeps all entries from the
//! `floor(d n) + 1`-th largest on: [`Count::Authors`].

use burn::config::Config;
use regrow_sparse_core::Result;
use serde::{Deserialize, Serialize};

use crate::params::{MergeParams, PerModel};
use crate::task_vectors::{Consensus, Rescale, Sparse, largest};
use crate::tensors::{Operands, TensorMerge};

/// How many entries a density `d` keeps of `n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Count {
    /// `floor(d n)`; among equal entries, the earlier.
    Exact,
    /// The `floor(d n) + 1` largest and all that equal the smallest of them.
    Authors,
}

impl Count {
    /// Names in parameters.
    pub const NAMES: [(&'static str, Self); 2] = [("exact", Self::Exact), ("authors", Self::Authors)];
}

/// Settings of [`Ties`].
#[derive(Config, Debug, PartialEq)]
pub struct TiesConfig {
    /// The weight of each model.
    #[config(default = "PerModel::All(1.0)")]
    pub weight: PerModel,
    /// The share of entries that each model's task vector keeps.
    #[config(default = "PerModel::All(1.0)")]
    pub density: PerModel,
    /// The factor of the merged task vector.
    #[config(default = 1.0)]
    pub lambda: f64,
    /// Whether entries that agree are averaged, or added.
    #[config(default = true)]
    pub normalize: bool,
    /// How many entries a density keeps.
    #[config(default = "Count::Exact")]
    pub count: Count,
    /// How dropped entries are compensated.
    #[config(default = "Rescale::None")]
    pub rescale: Rescale,
}

/// Task vectors trimmed to their largest entries and merged where they agree in sign.
#[derive(Clone, Debug, PartialEq)]
pub struct Ties {
    densities: Vec<f64>,
    count: Count,
    rescale: Rescale,
    consensus: Consensus,
}

impl TiesConfig {
    /// The method for `models` models.
    ///
    /// # Errors
    /// Densities outside `[0, 1]`, another count of weights or densities than of models.
    pub fn init(&self, models: usize) -> Result<Ties> {
        Ok(Ties {
            densities: self.density.fractions(models, "density")?,
            count: self.count,
            rescale: self.rescale,
            consensus: Consensus::new(&self.weight, models, self.lambda, self.normalize, true)?,
        })
    }

    /// From the registry's parameters. Densities are per tensor; `scope` is not read.
    ///
    /// # Errors
    /// Parameters that are missing or of another kind.
    pub fn from_params(params: &MergeParams) -> Result<Self> {
        Ok(Self {
            weight: params.each("weight")?,
            density: params.each("density")?,
            lambda: params.number("lambda")?,
            normalize: params.flag("normalize")?,
            count: params.choice("count", &Count::NAMES)?,
            rescale: params.choice("rescale", &Rescale::NAMES)?,
        })
    }
}

impl Ties {
    fn trim(&self, tensor: &Operands<'_>, delta: &[f32], density: f64) -> Result<Sparse> {
        if density >= 1.0 {
            return Ok(Sparse::All);
        }
        let count = (density * delta.len() as f64) as usize;
        let words = match self.count {
            Count::Exact => largest(tensor, delta, count)?,
            Count::Authors => no_less(delta, &largest(tensor, delta, (count + 1).min(delta.len()))?),
        };
        let factor = self.rescale.factor(delta, &words, density);
        Ok(Sparse::Mask(words, factor))
    }
}

/// Bits of all entries whose magnitude is at least the smallest of those marked in `words`.
fn no_less(delta: &[f32], words: &[u64]) -> Vec<u64> {
    let marked = delta.iter().enumerate().filter(|(i, _)| words[i / 64] >> (i % 64) & 1 == 1);
    let least = marked.map(|(_, d)| d.abs()).fold(f32::INFINITY, f32::min);
    let word = |block: &[f32]| block.iter().enumerate().fold(0, |w, (b, d)| w | u64::from(d.abs() >= least) << b);
    delta.chunks(64).map(word).collect()
}

impl TensorMerge for Ties {
    fn name(&self) -> &'static str {
        "ties"
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        self.consensus.merge(tensor, &|i, _, delta| self.trim(tensor, delta, self.densities[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::WeightedAverageConfig;
    use crate::testing::{close, merge, numbers, try_merge};

    const BASE: [f32; 4] = [0.0; 4];
    const MODELS: [&[f32]; 2] = [&[3.0, -1.0, 0.5, 2.0], &[-1.0, -2.0, 0.2, 4.0]];

    fn of(density: f64) -> TiesConfig {
        TiesConfig::new().with_density(density.into())
    }

    #[test]
    fn trimmed_elected_merged() {
        // Trimmed: [3, 0, 0, 2] and [0, -2, 0, 4]; no conflict remains.
        let ties = of(0.5).init(2).unwrap();
        assert_eq!(merge(&ties, Some(&BASE), &MODELS), [3.0, -2.0, 0.0, 3.0]);
        // Untrimmed, the first entry's sum 2 is positive: 3 alone.
        let all = TiesConfig::new().with_lambda(2.0).init(2).unwrap();
        close(&merge(&all, Some(&BASE), &MODELS), &[6.0, -3.0, 0.7, 6.0], 1e-6);
        // The second model has more weight and wins it; the mean of the rest is weighted.
        let weighted = TiesConfig::new().with_weight([1.0, 4.0].into()).init(2).unwrap();
        close(&merge(&weighted, Some(&BASE), &MODELS), &[-1.0, -1.8, 0.26, 3.6], 1e-6);
    }

    #[test]
    fn the_authors_keep_one_more_and_all_its_equals() {
        let ties = of(0.5).with_count(Count::Authors).init(2).unwrap();
        // [3, -1, 0, 2] and [-1, -2, 0, 4].
        assert_eq!(merge(&ties, Some(&BASE), &MODELS), [3.0, -1.5, 0.0, 3.0]);
        let equal: [&[f32]; 1] = [&[1.0, -1.0, 1.0, 2.0]];
        assert_eq!(merge(&of(0.25).init(1).unwrap(), Some(&BASE), &equal), [0.0, 0.0, 0.0, 2.0]);
        let authors = of(0.25).with_count(Count::Authors).init(1).unwrap();
        assert_eq!(merge(&authors, Some(&BASE), &equal), equal[0]);
    }

    #[test]
    fn a_tie_of_signs_is_positive_and_zeros_have_no_part() {
        let ties = of(1.0).init(3).unwrap();
        assert_eq!(merge(&ties, Some(&[0.0; 2]), &[&[1.0, 0.0], &[-1.0, 0.0], &[0.0, 3.0]]), [1.0, 3.0]);
    }

    #[test]
    fn without_conflict_or_trimming_it_is_the_mean() {
        let base: Vec<f32> = numbers(10_000, 1);
        let up =
            |seed| -> Vec<f32> { base.iter().zip(numbers(10_000, seed)).map(|(b, d)| b + d.abs() + 0.1).collect() };
        let (a, b) = (up(2), up(3));
        let mean = merge(&WeightedAverageConfig::new().init(2).unwrap(), None, &[&a, &b]);
        let ties = of(1.0).init(2).unwrap();
        close(&merge(&ties, Some(&base), &[&a, &b]), &mean, 1e-6);
    }

    #[test]
    fn exactly_so_many_entries_change() {
        let (base, model) = (vec![0.0; 1000], numbers(1000, 4));
        for density in [0.0, 0.0001, 0.3, 0.999] {
            let ties = of(density).init(1).unwrap();
            let changed = merge(&ties, Some(&base), &[&model]).iter().filter(|w| **w != 0.0).count();
            assert_eq!(changed, (density * 1000.0) as usize);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(of(1.5).init(1).is_err() && TiesConfig::new().with_density(vec![].into()).init(1).is_err());
        let ties = of(0.5).init(1).unwrap();
        let says = try_merge(&ties, Some(&[0.0; 2]), &[&[f32::NAN, 1.0]]).unwrap_err().to_string();
        assert!(says.starts_with("w: ") && says.contains("NaN"), "{says}");
        assert!(try_merge(&ties, None, &[&[1.0]]).unwrap_err().to_string().contains("needs a base"));
    }
}
