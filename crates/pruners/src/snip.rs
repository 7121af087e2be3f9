//! SNIP: connections whose removal changes the loss most (Lee et al., arXiv 1810.02340).
//!
//! `score = |w * dL/dw|`, divided by the sum over all weights (eq. 5 and 6). The paper: at initialization, from one
//! batch; the masks then stay fixed.

use regrow_sparse_core::Result;
use regrow_sparse_core::model::evidence::{Evidence, Needs};
use regrow_sparse_core::model::score::{LayerView, Score};

/// How much the loss changes with each weight, to first order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snip;

impl Score for Snip {
    fn name(&self) -> &'static str {
        "snip"
    }

    fn needs(&self) -> Needs {
        Needs::GRADIENTS
    }

    fn score(&self, layer: &LayerView<'_>, evidence: &Evidence) -> Result<Vec<f32>> {
        Ok(layer.values.iter().zip(evidence.gradients(layer)?).map(|(w, g)| (w * g).abs()).collect())
    }

    fn normalize(&self, scores: &mut [Vec<f32>]) {
        let sum: f64 = scores.iter().flatten().map(|s| f64::from(*s)).sum();
        if sum > 0.0 {
            scores.iter_mut().flatten().for_each(|s| *s = (f64::from(*s) / sum) as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Chain, scores};

    #[test]
    fn by_hand_on_two_layers() {
        // L = b (a . x) with a = (1, -2), b = 3, x = (1, 2): dL/da = (3, 6), dL/db = -3.
        let chain = Chain::new(&[1.0, -2.0], 3.0);
        let scores = scores(&chain, &Snip, |m| m.output(&[1.0, 2.0])).unwrap();
        let sum = 3.0 + 12.0 + 9.0;
        assert_eq!(scores, [vec![3.0 / sum, 12.0 / sum], vec![9.0 / sum]]);
    }

    #[test]
    fn scaling_a_layer_up_and_the_next_down_changes_nothing() {
        let scores = |c: f32| {
            let chain = Chain::new(&[1.0 * c, -2.0 * c], 3.0 / c);
            scores(&chain, &Snip, |m| m.output(&[1.0, 2.0])).unwrap()
        };
        assert_eq!(scores(1.0), scores(4.0));
    }

    #[test]
    fn a_model_without_gradients_is_refused() {
        let chain = burn::module::Module::valid(&Chain::new(&[1.0, -2.0], 3.0));
        let says = scores(&chain, &Snip, |m| m.output(&[1.0, 2.0])).unwrap_err().to_string();
        assert!(says.contains("autodiff"), "{says}");
    }
}
