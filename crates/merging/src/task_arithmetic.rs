//! Task arithmetic (Ilharco et al., ICLR 2023, arXiv 2212.04089, section 2):
//!
//! ```text
//! W = W_0 + lambda * sum_i a_i (W_i - W_0)       normalize: sum / sum_i a_i
//! ```

use burn::config::Config;
use regrow_sparse_core::Result;

use crate::params::{MergeParams, PerModel};
use crate::task_vectors::Consensus;
use crate::tensors::{Operands, TensorMerge};

/// Settings of [`TaskArithmetic`].
#[derive(Config, Debug, PartialEq)]
pub struct TaskArithmeticConfig {
    /// The weight of each model.
    #[config(default = "PerModel::All(1.0)")]
    pub weight: PerModel,
    /// The factor of the merged task vector.
    #[config(default = 1.0)]
    pub lambda: f64,
    /// Whether the sum is divided by the sum of the weights.
    #[config(default = false)]
    pub normalize: bool,
}

/// The base and a weighted sum of task vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskArithmetic(Consensus);

impl TaskArithmeticConfig {
    /// The method for `models` models.
    ///
    /// # Errors
    /// Another count of weights than of models, numbers that are not finite.
    pub fn init(&self, models: usize) -> Result<TaskArithmetic> {
        Consensus::new(&self.weight, models, self.lambda, self.normalize, false).map(TaskArithmetic)
    }

    /// From the registry's parameters.
    ///
    /// # Errors
    /// Parameters that are missing or of another kind.
    pub fn from_params(params: &MergeParams) -> Result<Self> {
        let (weight, lambda, normalize) = (params.each("weight")?, params.number("lambda")?, params.flag("normalize")?);
        Ok(Self { weight, lambda, normalize })
    }
}

impl TensorMerge for TaskArithmetic {
    fn name(&self) -> &'static str {
        "task-arithmetic"
    }

    fn propagates_nan(&self) -> bool {
        true
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        self.0.merge_whole(tensor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{close, merge, numbers, try_merge};

    #[test]
    fn the_sum_of_what_was_learnt() {
        let base: &[f32] = &[1.0, 1.0];
        let models: [&[f32]; 2] = [&[2.0, 1.0], &[1.0, -1.0]];
        let of =
            |weights: [f64; 2], lambda| TaskArithmeticConfig::new().with_weight(weights.into()).with_lambda(lambda);
        let merged = |config: TaskArithmeticConfig| merge(&config.init(2).unwrap(), Some(base), &models);
        assert_eq!(merged(of([1.0, 1.0], 1.0)), [2.0, -1.0]);
        assert_eq!(merged(of([1.0, 0.5], 0.5)), [1.5, 0.5]);
        assert_eq!(merged(of([1.0, 1.0], 0.0)), base);
        assert_eq!(merged(of([3.0, 1.0], 1.0).with_normalize(true)), [1.75, 0.5]);
        assert!(try_merge(&TaskArithmeticConfig::new().init(2).unwrap(), None, &models).is_err());
    }

    #[test]
    fn one_model_is_given_back_and_lengths_beyond_a_block_too() {
        let (base, model) = (numbers(20_000, 1), numbers(20_000, 2));
        close(&merge(&TaskArithmeticConfig::new().init(1).unwrap(), Some(&base), &[&model]), &model, 1e-6);
    }
}
