//! The weighted average (Wortsman et al., Model soups, arXiv 2203.05482; weights of one's own choice).
//!
//! ```text
//! W = sum_i a_i W_i         normalize: / sum_i a_i
//! ```

use regrow_sparse_core::{Error, Result};

use crate::sums::{terms, weighted_mean};
use crate::tensors::{Operands, Parameters, TensorMerge};

/// The weighted average. Entries that are zero in every model stay zero.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    weights: Vec<f64>,
    normalize: bool,
}

impl Linear {
    /// A weight for each model; with `normalize` only their proportions matter.
    ///
    /// # Errors
    /// Weights that add up to 0 and are to be normalized, or that do not add up to 1 and are not.
    pub fn new(weights: Vec<f64>, normalize: bool) -> Result<Self> {
        let sum: f64 = weights.iter().sum();
        match normalize {
            true if sum.abs() < 1e-8 => Err(Error::Argument("the weights add up to 0 and cannot be normalized".into())),
            false if (sum - 1.0).abs() > 1e-6 => Err(Error::Argument(format!(
                "the weights of an average add up to {sum}, not to 1; normalize them, or choose others"
            ))),
            _ => Ok(Self { weights, normalize }),
        }
    }

    /// From `weight` (1) and `normalize` (true).
    ///
    /// # Errors
    /// As [`Linear::new`].
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        Self::new(parameters.each("weight", 1.0)?, parameters.flag("normalize", true)?)
    }
}

impl TensorMerge for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn passes_on(&self) -> bool {
        true
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        let models = tensor.models(self.weights.len())?;
        // Divided in f32 as the sum is, so that equal models are given back.
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
        let of = |weights: &[f64], normalize| Linear::new(weights.to_vec(), normalize);
        assert_eq!(merge(&of(&[2.0, 4.0], true).unwrap(), None, &models), [3.0, 0.0]);
        assert_eq!(merge(&of(&[0.25, 0.75], false).unwrap(), None, &models), [3.25, 0.0]);
        assert!(of(&[0.5, 0.4], false).unwrap_err().to_string().contains("not to 1"));
        assert!(of(&[0.5, -0.5], true).unwrap_err().to_string().contains("add up to 0"));
    }

    #[test]
    fn equal_models_are_given_back() {
        let w: &[f32] = &[0.1, -3.7, 1e-8];
        assert_eq!(merge(&Linear::new(vec![1.0; 4], true).unwrap(), None, &[w; 4]), w);
    }
}
