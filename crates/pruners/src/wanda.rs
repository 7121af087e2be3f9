//! Wanda: weights times activations (Sun et al., arXiv 2306.11695). No weight changes.
//!
//! `score_ij = |w_ij| * ||x_j||` (eq. 1), `||x_j||^2` the mean over calibration sequences of the summed squares of
//! input `j`; within each output (row) the smallest are pruned, or the smallest of each group of N:M.

use burn::tensor::{Bool, Device, Tensor, TensorData};
use rayon::prelude::*;
use regrow_sparse_core::layerwise::{InputObserver, LayerSolver, LayerTarget, PrunedLayer, Squares};
use regrow_sparse_core::mask::budget::rounded;
use regrow_sparse_core::mask::top_k::{Scores, top_k_rows};
use regrow_sparse_core::model::evidence::{Evidence, Needs};
use regrow_sparse_core::model::score::{LayerView, Score};
use regrow_sparse_core::model::weight::Weight;
use regrow_sparse_core::{Error, Mask, Pattern, Result};

/// The weights that a weight is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Group {
    /// Those of the same output, as published.
    #[default]
    Row,
    /// Those of the same layer.
    Layer,
}

/// Prunes by `|w| ||x||`.
///
/// At sparsity `s` every row loses exactly `round(s d_in)` weights; among equal scores the lower column stays (in the
/// authors' code it is pruned first).
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanda {
    group: Group,
}

impl Wanda {
    /// With another group of comparison.
    pub fn with_group(mut self, group: Group) -> Self {
        self.group = group;
        self
    }
}

/// In memory weights are compared according to the recipe's budget and pattern, independent of the group.
impl Score for Wanda {
    fn name(&self) -> &'static str {
        "wanda"
    }

    fn needs(&self) -> Needs {
        Needs::INPUT_NORMS
    }

    fn score(&self, layer: &LayerView<'_>, evidence: &Evidence) -> Result<Vec<f32>> {
        let norms = evidence.input_norms(layer)?;
        Ok(layer.values.iter().enumerate().map(|(i, w)| w.abs() * norms[i % norms.len()]).collect())
    }
}

impl LayerSolver for Wanda {
    fn name(&self) -> &'static str {
        "wanda"
    }

    fn observe(&self, d_in: usize, _device: &Device) -> Box<dyn InputObserver> {
        Box::new(Norms { group: self.group, squares: Squares::new(d_in) })
    }
}

/// What the layers of one input need to know about it.
struct Norms {
    group: Group,
    squares: Squares,
}

impl InputObserver for Norms {
    fn add(&mut self, sequence: Tensor<2>) {
        self.squares.add(sequence);
    }

    fn solve(&self, weight: &Weight, goal: &LayerTarget) -> Result<PrunedLayer> {
        let (_, cols) = weight.dims();
        let norms = self.squares.norms(weight)?;
        // eq. 1, for a row.
        let score = |values: &[f32], scores: &mut [f32]| {
            scores.iter_mut().zip(values).zip(&norms).for_each(|((score, w), norm)| *score = w.abs() * norm);
        };
        let mask = match (goal.pattern, self.group) {
            (Pattern::Unstructured, Group::Row) => {
                let keep = cols - rounded(goal.sparsity, cols);
                let words = top_k_rows(&weight.values, cols, keep, score)
                    .map_err(|e| Error::tensor(&weight.path, e.to_string()))?;
                Mask::from_words(weight.shape.clone(), words)?
            }
            _ => {
                let mut scores = vec![0.0; weight.values.len()];
                let rows = weight.values.par_chunks(cols.max(1)).zip(scores.par_chunks_mut(cols.max(1)));
                rows.for_each(|(values, scores)| score(values, scores));
                goal.mask(weight, &scores)?
            }
        };
        Ok(PrunedLayer { mask, values: None })
    }

    fn kept_on_device(&self, values: &Tensor<2>, outputs: usize, goal: &LayerTarget) -> Option<Tensor<2, Bool>> {
        let (len, cols) = (values.shape().num_elements(), values.dims()[1 - outputs]);
        let along = if outputs == 0 { [1, cols] } else { [cols, 1] };
        let norms = TensorData::new(self.squares.roots(cols)?, along);
        // eq. 1, for all rows.
        let scores = values.clone().abs() * Tensor::<2>::from_data(norms, &values.device());
        let scores = Scores::new(scores, outputs);
        match (goal.pattern, self.group) {
            (Pattern::Unstructured, Group::Row) => scores.kept_by_row(cols - rounded(goal.sparsity, cols)),
            (Pattern::Unstructured, Group::Layer) => scores.kept(len - rounded(goal.sparsity, len)),
            (Pattern::NofM { n, m }, _) => scores.n_of_m(n, m),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::LinearConfig;
    use burn::tensor::Distribution;
    use regrow_sparse_core::layerwise::prune_layer;
    use regrow_sparse_core::model::masked::masks;
    use regrow_sparse_core::model::weight::{Select, weights};

    use super::*;
    use crate::testing::{bits, weight};

    fn solve(inputs: &[[f32; 4]], values: [f32; 8], goal: LayerTarget, wanda: Wanda) -> String {
        let device = regrow_device::current();
        let mut observer = wanda.observe(4, &device);
        for row in inputs {
            observer.add(Tensor::from_data(TensorData::new(row.to_vec(), [1, 4]), &device));
        }
        bits(&observer.solve(&weight("a", &[2, 4], |i| values[i]), &goal).unwrap().mask)
    }

    const HALF: LayerTarget = LayerTarget { sparsity: 0.5, pattern: Pattern::Unstructured };
    const VALUES: [f32; 8] = [1.0, -2.0, 3.0, 4.0, 9.0, 8.0, -7.0, 6.0];

    #[test]
    fn like_inputs_give_magnitudes_by_row_and_a_scaled_one_gives_the_same() {
        assert_eq!(solve(&[[1.0; 4], [-1.0; 4]], VALUES, HALF, Wanda::default()), "00111100");
        let mut scaled = VALUES;
        (scaled[0], scaled[4]) = (1.0 / 4.0, 9.0 / 4.0);
        assert_eq!(solve(&[[4.0, 1.0, 1.0, 1.0]], scaled, HALF, Wanda::default()), "00111100");
        // Of the whole layer: 9, 8, 7, 6 stay.
        assert_eq!(solve(&[[1.0; 4]], VALUES, HALF, Wanda::default().with_group(Group::Layer)), "00001111");
    }

    #[test]
    fn on_its_device_a_layer_keeps_the_same() {
        let device = regrow_device::current();
        let draw = |n: usize, by: usize| (0..n).map(|i| (i * by % 101) as f32 / 32.0 - 1.5).collect::<Vec<_>>();
        let (inputs, values) = (draw(3 * 24, 37), draw(10 * 24, 89));
        for (group, pattern) in [
            (Group::Row, Pattern::Unstructured),
            (Group::Layer, Pattern::Unstructured),
            (Group::Row, Pattern::NofM { n: 2, m: 4 }),
        ] {
            let goal = LayerTarget { pattern, ..HALF };
            let mut observer = Wanda::default().with_group(group).observe(24, &device);
            observer.add(Tensor::from_data(TensorData::new(inputs.clone(), [3, 24]), &device));
            let want = observer.solve(&weight("a", &[10, 24], |i| values[i]), &goal).unwrap().mask.to_bools();
            let rows = Tensor::<2>::from_data(TensorData::new(values.clone(), [10, 24]), &device);
            for (placed, outputs) in [(rows.clone(), 0), (rows.swap_dims(0, 1), 1)] {
                let kept = observer.kept_on_device(&placed, outputs, &goal).unwrap();
                let kept = if outputs == 1 { kept.swap_dims(0, 1) } else { kept };
                assert_eq!(kept.into_data().convert::<bool>().iter::<bool>().collect::<Vec<_>>(), want);
            }
            let narrow = Tensor::<2>::ones([10, 23], &device);
            assert!(observer.kept_on_device(&narrow, 0, &goal).is_none());
        }
    }

    #[test]
    fn a_large_layer_of_a_model_is_pruned_as_one_on_disk() {
        let device = regrow_device::current();
        let mut observer = Wanda::default().observe(1024, &device);
        observer.add(Tensor::random([16, 1024], Distribution::Normal(0.0, 1.0), &device));
        let layer = LinearConfig::new(1024, 1040).init(&device);
        let want = observer.solve(&weights(&layer, &Select::default()).unwrap()[0], &HALF).unwrap().mask;
        let (layer, mask) = prune_layer(layer, "weight", observer.as_ref(), &HALF).unwrap();
        assert_eq!(mask.first_difference(&want), None);
        assert_eq!(masks(&layer).unwrap().get("weight"), Some(&want));
    }

    #[test]
    fn a_dead_input_goes_first_and_two_of_four_stay() {
        let goal = LayerTarget { sparsity: 0.25, ..HALF };
        assert_eq!(solve(&[[1.0, 1.0, 1.0, 0.0]], VALUES, goal, Wanda::default()), "11101110");
        let two_of_four = LayerTarget { sparsity: 0.5, pattern: Pattern::NofM { n: 2, m: 4 } };
        assert_eq!(solve(&[[1.0, 1.0, 0.1, 0.1]], VALUES, two_of_four, Wanda::default()), "11001100");
        let odd = LayerTarget { sparsity: 0.5, pattern: Pattern::NofM { n: 2, m: 3 } };
        let device = regrow_device::current();
        let refused = Wanda::default().observe(4, &device).solve(&weight("a", &[2, 4], |_| 1.0), &odd).unwrap_err();
        assert!(refused.to_string().contains("does not divide"), "{refused}");
    }
}
