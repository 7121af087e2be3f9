//! Task arithmetic (Ilharco et al., ICLR 2023, arXiv 2212.04089, section 2):
//!
//! ```text
//! W = W_0 + lambda * sum_i a_i (W_i - W_0)       normalize: sum / sum_i a_i
//! ```

use regrow_sparse_core::Result;

use crate::task_vectors::Mix;
use crate::tensors::{Operands, Parameters, TensorMerge};

/// The base and a weighted sum of task vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskArithmetic(Mix);

impl TaskArithmetic {
    /// A weight for each model and a factor for their sum.
    pub fn new(weights: Vec<f64>, lambda: f64) -> Self {
        Self(Mix { weights, lambda, normalize: false, elect: false })
    }

    /// From `weight` (1), `lambda` (1) and `normalize` (false).
    ///
    /// # Errors
    /// Parameters of another kind.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        Mix::from_parameters(parameters, false, false).map(Self)
    }
}

impl TensorMerge for TaskArithmetic {
    fn name(&self) -> &'static str {
        "task-arithmetic"
    }

    fn passes_on(&self) -> bool {
        true
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        self.0.merge_whole(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::Value;
    use crate::testing::{close, merge, numbers, try_merge};

    #[test]
    fn the_sum_of_what_was_learnt() {
        let base: &[f32] = &[1.0, 1.0];
        let models: [&[f32]; 2] = [&[2.0, 1.0], &[1.0, -1.0]];
        assert_eq!(merge(&TaskArithmetic::new(vec![1.0, 1.0], 1.0), Some(base), &models), [2.0, -1.0]);
        assert_eq!(merge(&TaskArithmetic::new(vec![1.0, 0.5], 0.5), Some(base), &models), [1.5, 0.5]);
        assert_eq!(merge(&TaskArithmetic::new(vec![1.0, 1.0], 0.0), Some(base), &models), base);
        let parameters = Parameters::defaults(2).with("normalize", Value::Flag(true)).with_each("weight", &[3.0, 1.0]);
        assert_eq!(merge(&TaskArithmetic::from_parameters(&parameters).unwrap(), Some(base), &models), [1.75, 0.5]);
        assert!(try_merge(&TaskArithmetic::new(vec![1.0; 2], 1.0), None, &models).is_err());
    }

    #[test]
    fn one_model_is_given_back_and_lengths_beyond_a_block_too() {
        let (base, model) = (numbers(20_000, 1), numbers(20_000, 2));
        close(&merge(&TaskArithmetic::new(vec![1.0], 1.0), Some(&base), &[&model]), &model, 1e-6);
    }
}
