//! Fisher merging (Matena & Raffel, NeurIPS 2022, arXiv 2111.09832, equation 4): each entry is
//! weighted by its Fisher information.
//!
//! ```text
//! W = sum_i a_i F_i W_i / sum_i a_i F_i
//! ```
//!
//! with the diagonal Fisher information `F_i`, of the tensor's shape, as each model's statistic
//! ([`information`](crate::information) gathers it). A small floor is added to it, so that entries without
//! information are averaged.

use burn::config::Config;
use rayon::prelude::*;
use regrow_sparse_core::Result;

use crate::params::{MergeParams, PerModel, check_positive};
use crate::sums::{PIECE, terms, weighted_mean};
use crate::tensors::{Operands, TensorMerge};

/// Settings of [`FisherMerge`].
#[derive(Config, Debug, PartialEq)]
pub struct FisherMergeConfig {
    /// The weight of each model.
    #[config(default = "PerModel::All(1.0)")]
    pub weight: PerModel,
    /// What is added to the Fisher information of every entry.
    #[config(default = 1e-6)]
    pub floor: f64,
}

/// The average weighted by Fisher information; tensors without it are averaged plainly.
#[derive(Clone, Debug, PartialEq)]
pub struct FisherMerge {
    weights: Vec<f64>,
    floor: f64,
}

impl FisherMergeConfig {
    /// The method for `models` models.
    ///
    /// # Errors
    /// Weights or a floor that are not positive, another count of weights than of models.
    pub fn init(&self, models: usize) -> Result<FisherMerge> {
        let weights = self.weight.of(models, "weight")?;
        check_positive("weight", &weights)?;
        check_positive("floor", &[self.floor])?;
        Ok(FisherMerge { weights, floor: self.floor })
    }

    /// From the registry's parameters.
    ///
    /// # Errors
    /// Parameters that are missing or of another kind.
    pub fn from_params(params: &MergeParams) -> Result<Self> {
        Ok(Self { weight: params.each("weight")?, floor: params.number("floor")? })
    }
}

impl TensorMerge for FisherMerge {
    fn name(&self) -> &'static str {
        "fisher"
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        let models = tensor.models(self.weights.len())?;
        let Some(information) = models.iter().map(|m| m.statistic).collect::<Option<Vec<_>>>() else {
            return Ok(weighted_mean(&terms(models, &self.weights), self.weights.iter().map(|w| *w as f32).sum()));
        };
        for (model, information) in models.iter().zip(&information) {
            if information.len() != tensor.elements() || information.iter().any(|f| !(*f >= 0.0 && f.is_finite())) {
                let reason = format!("the Fisher information of {} has another shape or is negative", model.model);
                return Err(tensor.error(reason));
            }
        }
        let mut out = vec![0.0f32; tensor.elements()];
        out.par_chunks_mut(PIECE).enumerate().for_each(|(piece, out)| {
            for (k, out) in (piece * PIECE..).zip(out) {
                let (mut sum, mut share) = (0.0f64, 0.0f64);
                for ((model, information), weight) in models.iter().zip(&information).zip(&self.weights) {
                    let counts = weight * (f64::from(information[k]) + self.floor);
                    sum += counts * f64::from(model.values[k]);
                    share += counts;
                }
                *out = (sum / share) as f32;
            }
        });
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::Operand;
    use crate::testing::{close, merge};

    fn merged(weights: &[f64], information: [&[f32]; 2]) -> Result<Vec<f32>> {
        let models = [(&[1.0f32][..], information[0]), (&[3.0], information[1])];
        let models = models.map(|(values, f)| Operand { model: "m", values, statistic: Some(f) });
        FisherMergeConfig::new().with_weight(weights.into()).init(2)?.merge(&Operands::new("w", &[1], None, &models)?)
    }

    #[test]
    fn who_knows_more_counts_more() {
        close(&merged(&[1.0, 1.0], [&[3.0], &[1.0]]).unwrap(), &[1.5], 1e-5);
        close(&merged(&[1.0, 3.0], [&[3.0], &[1.0]]).unwrap(), &[2.0], 1e-5);
        // Without information in any model, the mean.
        close(&merged(&[1.0, 1.0], [&[0.0], &[0.0]]).unwrap(), &[2.0], 1e-5);
        close(&merge(&FisherMergeConfig::new().init(2).unwrap(), None, &[&[1.0], &[3.0]]), &[2.0], 1e-6);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(merged(&[1.0, 0.0], [&[1.0], &[1.0]]).is_err());
        assert!(merged(&[1.0, 1.0], [&[-1.0], &[1.0]]).is_err());
        assert!(merged(&[1.0, 1.0], [&[1.0, 1.0], &[1.0]]).is_err());
    }
}
