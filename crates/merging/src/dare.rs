//! DARE: drop and rescale (Yu et al., ICML 2024, arXiv 2311.03099, section 3).
//!
//! ```text
//! D_i = W_i - W_0      each entry kept with probability d, what is kept divided by d
//! W = W_0 + lambda * sum_i a_i D_i
//! ```
//!
//! or, with sign election, the sum of the entries that agree in sign (`dare-ties`). mergekit restores the sum of
//! magnitudes instead of dividing by `d`: [`Rescale::L1`].

use burn::config::Config;
use regrow_sparse_core::Result;

use crate::draw;
use crate::params::{MergeParams, PerModel};
use crate::task_vectors::{Consensus, Rescale, Sparse};
use crate::tensors::{Operands, TensorMerge};

/// Settings of [`Dare`].
#[derive(Config, Debug, PartialEq)]
pub struct DareConfig {
    /// The weight of each model.
    #[config(default = "PerModel::All(1.0)")]
    pub weight: PerModel,
    /// The probability of keeping an entry of each model's task vector.
    #[config(default = "PerModel::All(1.0)")]
    pub density: PerModel,
    /// The factor of the merged task vector.
    #[config(default = 1.0)]
    pub lambda: f64,
    /// Whether the sum is divided by the sum of the weights.
    #[config(default = false)]
    pub normalize: bool,
    /// Whether signs are elected as in TIES.
    #[config(default = false)]
    pub elect: bool,
    /// How dropped entries are compensated.
    #[config(default = "Rescale::Density")]
    pub rescale: Rescale,
    /// The random seed; draws also depend on the names of tensor and model.
    #[config(default = 0)]
    pub seed: u64,
}

/// Task vectors of which random entries are dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Dare {
    densities: Vec<f64>,
    rescale: Rescale,
    seed: u64,
    consensus: Consensus,
}

impl DareConfig {
    /// The method for `models` models.
    ///
    /// # Errors
    /// Densities outside `[0, 1]`, another count of weights or densities than of models.
    pub fn init(&self, models: usize) -> Result<Dare> {
        Ok(Dare {
            densities: self.density.fractions(models, "density")?,
            rescale: self.rescale,
            seed: self.seed,
            consensus: Consensus::new(&self.weight, models, self.lambda, self.normalize, self.elect)?,
        })
    }

    /// From the registry's parameters.
    ///
    /// # Errors
    /// Parameters that are missing or of another kind.
    pub fn from_params(params: &MergeParams) -> Result<Self> {
        Ok(Self {
            weight: params.each("weight")?,
            density: params.each("density")?,
            lambda: params.number("lambda")?,
            normalize: params.flag("normalize")?,
            elect: false,
            rescale: params.choice("rescale", &Rescale::NAMES)?,
            seed: params.shared.integer("seed")?,
        })
    }
}

impl TensorMerge for Dare {
    fn name(&self) -> &'static str {
        if self.consensus.elect { "dare-ties" } else { "dare" }
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        self.consensus.merge(tensor, &|i, model, delta| {
            let density = self.densities[i];
            if density >= 1.0 {
                return Ok(Sparse::All);
            }
            let words = draw::bits(delta.len(), draw::seed(self.seed, tensor.name(), model.model), |_| density);
            let factor = self.rescale.factor(delta, &words, density);
            Ok(Sparse::Mask(words, factor))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task_arithmetic::TaskArithmeticConfig;
    use crate::tensors::Operand;
    use crate::testing::{merge, numbers};

    #[test]
    fn the_mean_over_draws_is_task_arithmetic() {
        let (base, a, b) = (numbers(50, 1), numbers(50, 2), numbers(50, 3));
        let whole =
            merge(&TaskArithmeticConfig::new().with_weight(0.5.into()).init(2).unwrap(), Some(&base), &[&a, &b]);
        let draws = 4000;
        let mut mean = vec![0.0f64; 50];
        for seed in 0..draws {
            let dare = DareConfig::new().with_weight(0.5.into()).with_density(0.4.into()).with_seed(seed);
            let dare = dare.init(2).unwrap();
            let drawn = merge(&dare, Some(&base), &[&a, &b]);
            mean.iter_mut().zip(drawn).for_each(|(m, v)| *m += f64::from(v) / draws as f64);
        }
        // An entry's deviation is below 1.8 (two task vectors within 2, a half of each, sqrt(0.6/0.4)).
        let bound = 5.0 * 1.8 / (draws as f64).sqrt();
        for (mean, whole) in mean.iter().zip(whole) {
            assert!((mean - f64::from(whole)).abs() < bound, "{mean} {whole}");
        }
    }

    #[test]
    fn magnitudes_add_up_as_before_with_l1() {
        let model = numbers(10_000, 5);
        let l1 = |values: &[f32]| values.iter().map(|v| f64::from(v.abs())).sum::<f64>();
        let dare = DareConfig::new().with_density(0.3.into()).with_seed(1).with_rescale(Rescale::L1);
        let merged = merge(&dare.init(1).unwrap(), Some(&vec![0.0; 10_000]), &[&model]);
        assert!((l1(&merged) / l1(&model) - 1.0).abs() < 1e-6);
        let none = merge(&dare.with_rescale(Rescale::None).init(1).unwrap(), Some(&vec![0.0; 10_000]), &[&model]);
        assert!(none.iter().zip(&model).all(|(n, m)| *n == 0.0 || n == m));
        // Three standard deviations of the number kept.
        let kept = none.iter().filter(|v| **v != 0.0).count() as f64;
        assert!((kept - 3000.0).abs() < 3.0 * 45.9, "{kept}");
    }

    #[test]
    fn the_order_of_the_models_does_not_matter() {
        let (base, a, b) = (vec![0.0; 100], numbers(100, 2), numbers(100, 3));
        let (first, second) = (Operand::new("a", &a), Operand::new("b", &b));
        let merged = |models: &[Operand<'_>]| {
            let dare = DareConfig::new().with_density(0.5.into()).with_seed(1).init(2).unwrap();
            dare.merge(&Operands::new("w", &[100], Some(&base), models).unwrap()).unwrap()
        };
        assert_eq!(merged(&[first, second]), merged(&[second, first]));
    }

    #[test]
    fn signs_are_elected_among_what_is_left() {
        let dare = DareConfig::new().with_elect(true).init(2).unwrap();
        // As TIES without trimming, but with the sum.
        assert_eq!(merge(&dare, Some(&[0.0; 3]), &[&[3.0, -1.0, 1.0], &[-1.0, -2.0, 2.0]]), [3.0, -3.0, 3.0]);
    }
}
