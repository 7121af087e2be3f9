//! SNIP: connections whose removal changes the loss most (Lee et al., arXiv 1810.02340).
//!
//! `score = |w * dL/dw|`, divided by the sum over all weights (eq. 5 and 6), at initialization, from
//! one batch; the masks then stay.

use burn::module::Module;
use burn::tensor::Tensor;
use regrow_sparse_core::Result;
use regrow_sparse_core::model::gradients::{gradient, times};
use regrow_sparse_core::model::weight::{Select, weights};

/// The scores of the prunable weights of `model`, one list for each, for
/// [`Recipe::masks_of`](regrow_sparse_core::model::score::Recipe::masks_of).
///
/// `loss` is that of the scoring examples. Batch norms take part as the model has them: with the
/// batch's statistics as in the paper's code, or with fixed ones
/// ([`with_fixed_statistics`](regrow_sparse_core::model::gradients::with_fixed_statistics)), as
/// Synaptic-Flow's harness has it.
///
/// # Errors
/// If the model is on a device without gradients, or a weight or gradient is not finite.
pub fn snip<M: Module>(model: &M, select: &Select, loss: impl Fn(&M) -> Tensor<1>) -> Result<Vec<Vec<f32>>> {
    let mut scores = times(&weights(model, select)?, gradient(model, select, loss)?);
    scores.iter_mut().flatten().for_each(|s| *s = s.abs());
    let sum: f64 = scores.iter().flatten().map(|s| f64::from(*s)).sum();
    if sum > 0.0 {
        scores.iter_mut().flatten().for_each(|s| *s = (f64::from(*s) / sum) as f32);
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Chain;

    #[test]
    fn by_hand_on_two_layers() {
        // L = b (a . x) with a = (1, -2), b = 3, x = (1, 2): dL/da = (3, 6), dL/db = -3.
        let chain = Chain::new(&[1.0, -2.0], 3.0);
        let scores = snip(&chain, &Select::default().with_head(), |m| m.output(&[1.0, 2.0])).unwrap();
        let sum = 3.0 + 12.0 + 9.0;
        assert_eq!(scores, [vec![3.0 / sum, 12.0 / sum], vec![9.0 / sum]]);
    }

    #[test]
    fn scaling_a_layer_up_and_the_next_down_changes_nothing() {
        let scores = |c: f32| {
            let chain = Chain::new(&[1.0 * c, -2.0 * c], 3.0 / c);
            snip(&chain, &Select::default().with_head(), |m| m.output(&[1.0, 2.0])).unwrap()
        };
        assert_eq!(scores(1.0), scores(4.0));
    }

    #[test]
    fn a_model_without_gradients_is_refused() {
        let chain = Chain::new(&[1.0, -2.0], 3.0).valid();
        let says = snip(&chain, &Select::default(), |m| m.output(&[1.0, 2.0])).unwrap_err().to_string();
        assert!(says.contains("autodiff"), "{says}");
    }
}
