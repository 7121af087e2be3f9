//! The merging step of Sparse Model Soups (Zimmer, Spiegel, Pokutta, ICLR 2024, arXiv 2306.16788, alg. 1) on
//! tensors: the average of models that share a mask, which is as sparse as each of them.
//!
//! ```text
//! W = sum_i a_i W_i / sum_i a_i         where W_i = 0 for one i, for all
//! ```
//!
//! Models whose zeros differ in a tensor of two or more dimensions are refused: their average would be denser.
//! [`crate::sms`] is the whole method, retraining included.

use regrow_sparse_core::Result;

use crate::linear::Linear;
use crate::masks::Masks;
use crate::tensors::{Operands, Parameters, TensorMerge};

/// The average of models with one mask.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseSoup(Linear);

impl SparseSoup {
    /// A weight for each model; their proportions matter.
    ///
    /// # Errors
    /// Weights that add up to 0.
    pub fn new(weights: Vec<f64>) -> Result<Self> {
        Linear::new(weights, true).map(Self)
    }

    /// From `weight` (1).
    ///
    /// # Errors
    /// As [`SparseSoup::new`].
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        Self::new(parameters.each("weight", 1.0)?)
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
        let soup = SparseSoup::new(vec![1.0, 3.0]).unwrap();
        let merged = |b: &[f32]| {
            let models = [Operand::new("a", &[0.0, 1.0, 2.0, 0.0]), Operand::new("b", b)];
            soup.merge(&Operands::new("w", &[2, 2], None, &models)?)
        };
        assert_eq!(merged(&[0.0, 5.0, 2.0, 0.0]).unwrap(), [0.0, 4.0, 2.0, 0.0]);
        let says = merged(&[0.0, 5.0, 2.0, 1.0]).unwrap_err().to_string();
        assert!(says.contains("a and b have different masks, first at index 3"), "{says}");
    }
}
