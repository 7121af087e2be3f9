//! The merging step of Sparse Model Soups (Zimmer, Spiegel, Pokutta, ICLR 2024, arXiv 2306.16788, alg. 1) on
//! tensors: the average of models that share a mask, which is as sparse as each of them.
//!
//! ```text
//! W = sum_i a_i W_i / sum_i a_i         where W_i = 0 for one i, for all
//! ```
//!
//! Models whose zeros differ in a tensor of two or more dimensions are rejected: their average would be denser.
//! [`crate::sms`] is the whole method, including retraining.

use burn::config::Config;
use regrow_sparse_core::Result;

use crate::linear::{WeightedAverage, WeightedAverageConfig};
use crate::masks::Masks;
use crate::params::{MergeParams, PerModel};
use crate::tensors::{Operands, TensorMerge};

/// Settings of [`SparseSoup`].
#[derive(Config, Debug, PartialEq)]
pub struct SparseSoupConfig {
    /// The weight of each model; proportions matter.
    #[config(default = "PerModel::All(1.0)")]
    pub weight: PerModel,
}

/// The average of models with one mask.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseSoup(WeightedAverage);

impl SparseSoupConfig {
    /// The method for `models` models.
    ///
    /// # Errors
    /// Weights that add up to 0, another count of them than of models.
    pub fn init(&self, models: usize) -> Result<SparseSoup> {
        WeightedAverageConfig::new().with_weight(self.weight.clone()).init(models).map(SparseSoup)
    }

    /// From the registry's parameters.
    ///
    /// # Errors
    /// Parameters that are missing or of another kind.
    pub fn from_params(params: &MergeParams) -> Result<Self> {
        Ok(Self { weight: params.each("weight")? })
    }
}

impl TensorMerge for SparseSoup {
    fn name(&self) -> &'static str {
        "sms"
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        Masks::Same.check(tensor)?;
        self.0.merge(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::Operand;

    #[test]
    fn as_sparse_as_each_or_refused() {
        let soup = SparseSoupConfig::new().with_weight([1.0, 3.0].into()).init(2).unwrap();
        let merged = |b: &[f32]| {
            let models = [Operand::new("a", &[0.0, 1.0, 2.0, 0.0]), Operand::new("b", b)];
            soup.merge(&Operands::new("w", &[2, 2], None, &models)?)
        };
        assert_eq!(merged(&[0.0, 5.0, 2.0, 0.0]).unwrap(), [0.0, 4.0, 2.0, 0.0]);
        let says = merged(&[0.0, 5.0, 2.0, 1.0]).unwrap_err().to_string();
        assert!(says.contains("a and b have different masks, first at index 3"), "{says}");
    }
}
