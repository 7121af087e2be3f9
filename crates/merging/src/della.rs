//! DELLA (Deep et al., arXiv 2406.11617, section 3): random entries of task vectors are dropped, large ones less often.
//!
//! ```text
//! r = rank of |D| in its row, 0 for the smallest of c to c - 1 for the largest
//! p = d - epsilon + 2 epsilon r / (c - 1)        each entry is kept with probability p and divided by it
//! ```
//!
//! and the rest as in TIES without trimming (`della`), or as in task arithmetic (`della-linear`). Rows are those of the
//! tensor as a matrix `[out, rest]`; a row of one entry has `p = d`. mergekit restores the sum of magnitudes of the
//! whole tensor instead of dividing: `rescale = "l1"`.

use burn::config::Config;
use rayon::prelude::*;
use regrow_sparse_core::{Error, Result};

use crate::draw;
use crate::params::{MergeParams, PerModel};
use crate::task_vectors::{Consensus, Rescale, Sparse};
use crate::tensors::{Operands, TensorMerge};

/// Settings of [`Della`].
#[derive(Config, Debug, PartialEq)]
pub struct DellaConfig {
    /// The weight of each model.
    #[config(default = "PerModel::All(1.0)")]
    pub weight: PerModel,
    /// The mean probability of keeping an entry of each model's task vector.
    #[config(default = "PerModel::All(1.0)")]
    pub density: PerModel,
    /// How far the probabilities of the smallest and the largest entry are from the mean.
    #[config(default = "PerModel::All(0.15)")]
    pub epsilon: PerModel,
    /// The factor of the merged task vector.
    #[config(default = 1.0)]
    pub lambda: f64,
    /// Whether the sum is divided by the sum of the weights.
    #[config(default = true)]
    pub normalize: bool,
    /// Whether signs are elected as in TIES.
    #[config(default = true)]
    pub elect: bool,
    /// How dropped entries are compensated.
    #[config(default = "Rescale::Density")]
    pub rescale: Rescale,
    /// The random seed; draws also depend on the names of tensor and model.
    #[config(default = 0)]
    pub seed: u64,
}

/// Task vectors of which random entries are dropped, small ones more often.
#[derive(Clone, Debug, PartialEq)]
pub struct Della {
    densities: Vec<f64>,
    epsilons: Vec<f64>,
    rescale: Rescale,
    seed: u64,
    consensus: Consensus,
}

impl DellaConfig {
    /// The method for `models` models.
    ///
    /// # Errors
    /// Probabilities outside `[0, 1]`, another count of weights, densities or epsilons than of models.
    pub fn init(&self, models: usize) -> Result<Della> {
        let (densities, epsilons) =
            (self.density.fractions(models, "density")?, self.epsilon.fractions(models, "epsilon")?);
        for (density, epsilon) in densities.iter().zip(&epsilons) {
            // At 0 and 1 nothing is random.
            if (density - epsilon < 0.0 || density + epsilon > 1.0) && *density > 0.0 && *density < 1.0 {
                let reason = format!("`epsilon` {epsilon} takes `density` {density} out of [0, 1]");
                return Err(Error::Argument(reason));
            }
        }
        let consensus = Consensus::new(&self.weight, models, self.lambda, self.normalize, self.elect)?;
        Ok(Della { densities, epsilons, rescale: self.rescale, seed: self.seed, consensus })
    }

    /// From the registry's parameters, with sign election or without.
    ///
    /// # Errors
    /// Parameters that are missing or of another kind.
    pub fn from_params(params: &MergeParams, elect: bool) -> Result<Self> {
        Ok(Self {
            weight: params.each("weight")?,
            density: params.each("density")?,
            epsilon: params.each("epsilon")?,
            lambda: params.number("lambda")?,
            normalize: params.flag("normalize")?,
            elect,
            rescale: params.choice("rescale", &Rescale::NAMES)?,
            seed: params.shared.integer("seed")?,
        })
    }
}

impl Della {
    fn sparse(&self, tensor: &Operands<'_>, i: usize, model: &str, delta: &[f32]) -> Sparse {
        let density = self.densities[i];
        if density >= 1.0 {
            return Sparse::All;
        }
        let epsilon = if density > 0.0 { self.epsilons[i] } else { 0.0 };
        let probabilities = probabilities(delta, tensor.matrix().1, density, epsilon);
        let seed = draw::seed(self.seed, tensor.name(), model);
        let words = draw::bits(delta.len(), seed, |k| f64::from(probabilities[k]));
        if self.rescale != Rescale::Density {
            let factor = self.rescale.factor(delta, &words, density);
            return Sparse::Mask(words, factor);
        }
        let kept = |k: usize| words[k / 64] >> (k % 64) & 1 == 1;
        let value = |(k, d): (usize, &f32)| if kept(k) { d / probabilities[k] } else { 0.0 };
        Sparse::Values(delta.par_iter().enumerate().map(value).collect())
    }
}

/// The probability of keeping each entry.
fn probabilities(delta: &[f32], cols: usize, density: f64, epsilon: f64) -> Vec<f32> {
    let mut all = vec![density as f32; delta.len()];
    if cols < 2 {
        return all;
    }
    all.par_chunks_mut(cols).zip(delta.par_chunks(cols)).for_each(|(probabilities, row)| {
        let mut order: Vec<u32> = (0..cols as u32).collect();
        order.sort_by(|a, b| row[*a as usize].abs().total_cmp(&row[*b as usize].abs()));
        for (rank, k) in order.into_iter().enumerate() {
            let share = rank as f64 / (cols - 1) as f64;
            probabilities[k as usize] = (density - epsilon + 2.0 * epsilon * share) as f32;
        }
    });
    all
}

impl TensorMerge for Della {
    fn name(&self) -> &'static str {
        if self.consensus.elect { "della" } else { "della-linear" }
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        self.consensus.merge(tensor, &|i, model, delta| Ok(self.sparse(tensor, i, model.model, delta)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{close, merge, numbers};

    #[test]
    fn probabilities_rise_with_the_rank_in_the_row() {
        let found = probabilities(&[3.0, -1.0, 2.0, 0.5, 0.7, -0.9], 3, 0.5, 0.2);
        close(&found, &[0.7, 0.3, 0.5, 0.3, 0.5, 0.7], 1e-6);
        close(&probabilities(&[3.0, 1.0], 1, 0.5, 0.2), &[0.5, 0.5], 1e-6);
    }

    #[test]
    fn the_mean_over_draws_is_the_task_vector() {
        let model = numbers(40, 1);
        let mut mean = vec![0.0f64; 40];
        for seed in 0..4000 {
            let della = DellaConfig::new().with_density(0.5.into()).with_epsilon(0.2.into()).with_seed(seed);
            let della = della.init(1).unwrap();
            let drawn = merge(&della, Some(&[0.0; 40]), &[&model]);
            mean.iter_mut().zip(drawn).for_each(|(m, v)| *m += f64::from(v) / 4000.0);
        }
        // An entry's deviation is at most sqrt(0.7/0.3).
        mean.iter().zip(model).for_each(|(m, v)| assert!((m - f64::from(v)).abs() < 5.0 * 1.53 / 4000f64.sqrt()));
    }

    #[test]
    fn more_of_the_large_is_kept_and_l1_restores_the_magnitudes() {
        let model: Vec<f32> = (1..=10_000).map(|i| i as f32).collect();
        let della = DellaConfig::new().with_density(0.5.into()).with_elect(false).with_normalize(false);
        let della = della.with_rescale(Rescale::L1).init(1).unwrap();
        let merged = merge(&della, Some(&vec![0.0; 10_000]), &[&model]);
        let kept = |range: std::ops::Range<usize>| merged[range].iter().filter(|v| **v != 0.0).count();
        assert!(kept(0..5000) + 200 < kept(5000..10_000), "{} {}", kept(0..5000), kept(5000..10_000));
        let l1 = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>();
        assert!((l1(&merged) / l1(&model) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn probabilities_outside_are_refused() {
        let of = |density: f64| DellaConfig::new().with_density(density.into()).with_epsilon(0.2.into()).init(1);
        assert!(of(0.1).is_err() && of(1.0).is_ok());
    }
}
