//! The weighted average (Wortsman et al., Model soups, arXiv 2203.05482; with custom weights).
//!
//! ```text
//! W = sum_i a_i W_i         normalize: / sum_i a_i
//! ```

use burn::config::Config;
use regrow_sparse_core::{Error, Result};

use crate::params::{MergeParams, PerModel};
use crate::sums::{terms, weighted_mean};
use crate::tensors::{Operands, TensorMerge};

/// Settings of [`WeightedAverage`].
#[derive(Config, Debug, PartialEq)]
pub struct WeightedAverageConfig {
    /// The weight of each model.
    #[config(default = "PerModel::All(1.0)")]
    pub weight: PerModel,
    /// Whether only the weights' proportions matter. Without it, they must add up to 1.
    #[config(default = true)]
    pub normalize: bool,
}

/// The weighted average. Entries that are zero in every model stay zero.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedAverage {
    weights: Vec<f64>,
    normalize: bool,
}

impl WeightedAverageConfig {
    /// The method for `models` models.
    ///
    /// # Errors
    /// Another count of weights than of models; a sum of 0 with normalization, or other than 1 without.
    pub fn init(&self, models: usize) -> Result<WeightedAverage> {
        let weights = self.weight.of(models, "weight")?;
        let sum: f64 = weights.iter().sum();
        match self.normalize {
            true if sum.abs() < 1e-8 => Err(Error::Argument("the weights add up to 0 and cannot be normalized".into())),
            false if (sum - 1.0).abs() > 1e-6 => Err(Error::Argument(format!(
                "the weights of an average add up to {sum}, not to 1; normalize them, or choose others"
            ))),
            normalize => Ok(WeightedAverage { weights, normalize }),
        }
    }

    /// From the registry's parameters.
    ///
    /// # Errors
    /// Parameters that are missing or of another kind.
    pub fn from_params(params: &MergeParams) -> Result<Self> {
        Ok(Self { weight: params.each("weight")?, normalize: params.flag("normalize")? })
    }
}

impl TensorMerge for WeightedAverage {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn propagates_nan(&self) -> bool {
        true
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        let models = tensor.models(self.weights.len())?;
        // Divided in f32 like the sum, so that merging equal models returns that model.
        let divisor = if self.normalize { self.weights.iter().map(|w| *w as f32).sum() } else { 1.0 };
        Ok(weighted_mean(&terms(models, &self.weights), divisor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::merge;

    #[test]
    fn weights_are_proportions_or_add_up_to_one() {
        let models: [&[f32]; 2] = [&[1.0, 0.0], &[4.0, 0.0]];
        let of = |weights: &[f64], normalize| {
            WeightedAverageConfig::new().with_weight(weights.into()).with_normalize(normalize).init(2)
        };
        assert_eq!(merge(&of(&[2.0, 4.0], true).unwrap(), None, &models), [3.0, 0.0]);
        assert_eq!(merge(&of(&[0.25, 0.75], false).unwrap(), None, &models), [3.25, 0.0]);
        assert!(of(&[0.5, 0.4], false).unwrap_err().to_string().contains("not to 1"));
        assert!(of(&[0.5, -0.5], true).unwrap_err().to_string().contains("add up to 0"));
    }

    #[test]
    fn equal_models_are_given_back() {
        let w: &[f32] = &[0.1, -3.7, 1e-8];
        assert_eq!(merge(&WeightedAverageConfig::new().init(4).unwrap(), None, &[w; 4]), w);
    }
}
