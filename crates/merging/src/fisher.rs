//! Fisher merging (Matena & Raffel, NeurIPS 2022, arXiv 2111.09832, equation 4): each entry counts as much
//! as the model's loss bends along it.
//!
//! ```text
//! W = sum_i a_i F_i W_i / sum_i a_i F_i
//! ```
//!
//! with the diagonal Fisher information `F_i`, of the tensor's shape, as each model's statistic
//! ([`information`](crate::information) gathers it). A small
//! floor is added to it, so that entries that no model has learnt from are averaged.

use rayon::prelude::*;
use regrow_sparse_core::{Error, Result};

use crate::sums::{PIECE, terms, weighted_mean};
use crate::tensors::{Operands, Parameters, TensorMerge};

/// The average weighted by Fisher information; tensors without it are averaged plainly.
#[derive(Clone, Debug, PartialEq)]
pub struct Fisher {
    weights: Vec<f64>,
    floor: f64,
}

impl Fisher {
    /// A weight for each model and what is added to its Fisher information.
    ///
    /// # Errors
    /// Weights that are not positive, or a floor that is not.
    pub fn new(weights: Vec<f64>, floor: f64) -> Result<Self> {
        let positive = floor > 0.0 && weights.iter().all(|w| *w > 0.0);
        match positive {
            true => Ok(Self { weights, floor }),
            false => Err(Error::Argument("weights and floor of Fisher merging must be positive".into())),
        }
    }

    /// From `weight` (1) and `floor` (1e-6).
    ///
    /// # Errors
    /// As [`Fisher::new`].
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        Self::new(parameters.each("weight", 1.0)?, parameters.number("floor", 1e-6)?)
    }
}

impl TensorMerge for Fisher {
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
        Fisher::new(weights.to_vec(), 1e-6)?.merge(&Operands::new("w", &[1], None, &models)?)
    }

    #[test]
    fn who_knows_more_counts_more() {
        close(&merged(&[1.0, 1.0], [&[3.0], &[1.0]]).unwrap(), &[1.5], 1e-5);
        close(&merged(&[1.0, 3.0], [&[3.0], &[1.0]]).unwrap(), &[2.0], 1e-5);
        // Where nobody knows anything, the mean.
        close(&merged(&[1.0, 1.0], [&[0.0], &[0.0]]).unwrap(), &[2.0], 1e-5);
        close(&merge(&Fisher::new(vec![1.0; 2], 1e-6).unwrap(), None, &[&[1.0], &[3.0]]), &[2.0], 1e-6);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(merged(&[1.0, 0.0], [&[1.0], &[1.0]]).is_err());
        assert!(merged(&[1.0, 1.0], [&[-1.0], &[1.0]]).is_err());
        assert!(merged(&[1.0, 1.0], [&[1.0, 1.0], &[1.0]]).is_err());
    }
}
