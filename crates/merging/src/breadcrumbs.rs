//! Model Breadcrumbs (Davari & Belilovsky, ECCV 2024, arXiv 2312.06795, section 3): task vectors without
//! their largest and their smallest entries.
//!
//! ```text
//! D_i = W_i - W_0      without the floor(gamma n) largest |D_i|; of the rest the largest floor(d n)
//! W = W_0 + lambda * sum_i a_i D_i
//! ```
//!
//! or, with sign election, the sum of the entries that agree in sign (`breadcrumbs-ties`). As in mergekit, the density
//! takes precedence: if `(gamma + d) n` exceeds `n`, fewer of the largest are dropped. If `floor(gamma n)` is 0, no
//! large entry is dropped, as the formula says; mergekit empties such a task vector.

use burn::config::Config;
use regrow_sparse_core::Result;

use crate::params::{MergeParams, PerModel};
use crate::task_vectors::{Consensus, Rescale, Sparse, largest};
use crate::tensors::{Operands, TensorMerge};

/// Settings of [`Breadcrumbs`].
#[derive(Config, Debug, PartialEq)]
pub struct BreadcrumbsConfig {
    /// The weight of each model.
    #[config(default = "PerModel::All(1.0)")]
    pub weight: PerModel,
    /// The share of entries that each model's task vector keeps.
    #[config(default = "PerModel::All(1.0)")]
    pub density: PerModel,
    /// The share of largest entries that are dropped.
    #[config(default = "PerModel::All(0.01)")]
    pub gamma: PerModel,
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
    #[config(default = "Rescale::None")]
    pub rescale: Rescale,
}

/// Task vectors without their largest and smallest entries.
#[derive(Clone, Debug, PartialEq)]
pub struct Breadcrumbs {
    densities: Vec<f64>,
    gammas: Vec<f64>,
    rescale: Rescale,
    consensus: Consensus,
}

impl BreadcrumbsConfig {
    /// The method for `models` models.
    ///
    /// # Errors
    /// Fractions outside `[0, 1]`, another count of weights or fractions than of models.
    pub fn init(&self, models: usize) -> Result<Breadcrumbs> {
        Ok(Breadcrumbs {
            densities: self.density.fractions(models, "density")?,
            gammas: self.gamma.fractions(models, "gamma")?,
            rescale: self.rescale,
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
            gamma: params.each("gamma")?,
            lambda: params.number("lambda")?,
            normalize: params.flag("normalize")?,
            elect: false,
            rescale: params.choice("rescale", &Rescale::NAMES)?,
        })
    }
}

impl TensorMerge for Breadcrumbs {
    fn name(&self) -> &'static str {
        if self.consensus.elect { "breadcrumbs-ties" } else { "breadcrumbs" }
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        self.consensus.merge(tensor, &|i, _, delta| {
            let (n, density) = (delta.len(), self.densities[i]);
            if density >= 1.0 {
                return Ok(Sparse::All);
            }
            let count = (density * n as f64) as usize;
            let outliers = ((self.gammas[i] * n as f64) as usize).min(n - count);
            let mut words = largest(tensor, delta, count + outliers)?;
            let dropped = largest(tensor, delta, outliers)?;
            words.iter_mut().zip(dropped).for_each(|(word, dropped)| *word &= !dropped);
            let factor = self.rescale.factor(delta, &words, density);
            Ok(Sparse::Mask(words, factor))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::merge;

    const MODEL: [f32; 5] = [5.0, -1.0, 3.0, -4.0, 2.0];

    fn of(density: f64, gamma: f64) -> BreadcrumbsConfig {
        BreadcrumbsConfig::new().with_density(density.into()).with_gamma(gamma.into())
    }

    #[test]
    fn neither_the_largest_nor_the_smallest_take_part() {
        let merged = |density, gamma| merge(&of(density, gamma).init(1).unwrap(), Some(&[0.0; 5]), &[&MODEL]);
        assert_eq!(merged(0.4, 0.2), [0.0, 0.0, 3.0, -4.0, 0.0]);
        assert_eq!(merged(0.4, 0.0), [5.0, 0.0, 0.0, -4.0, 0.0]);
        // The density takes precedence over the outliers.
        assert_eq!(merged(0.8, 0.9), [0.0, -1.0, 3.0, -4.0, 2.0]);
        assert_eq!(merged(1.0, 0.9), MODEL);
    }

    #[test]
    fn with_and_without_an_election() {
        let two = of(0.5, 0.25);
        let models: [&[f32]; 2] = [&[9.0, 2.0, 1.0, 0.0], &[3.0, -1.0, 9.0, 0.0]];
        assert_eq!(merge(&two.init(2).unwrap(), Some(&[0.0; 4]), &models), [3.0, 1.0, 1.0, 0.0]);
        assert_eq!(merge(&two.with_elect(true).init(2).unwrap(), Some(&[0.0; 4]), &models), [3.0, 2.0, 1.0, 0.0]);
    }

    #[test]
    fn fractions_are_checked() {
        assert!(of(0.5, -0.1).init(1).is_err());
        assert!(of(0.5, 0.1).with_gamma(vec![].into()).init(1).is_err());
    }
}
