//! Random pruning: scores are uniform noise. The baseline that every score must beat.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::Result;
use regrow_sparse_core::model::evidence::Evidence;
use regrow_sparse_core::model::score::{LayerView, Score};
use regrow_sparse_core::seed::mix;

/// Uniform noise in [0, 1), the same for the same seed and position of the layer.
#[derive(Clone, Copy, Debug, Default)]
pub struct Random {
    /// The seed of the noise.
    pub seed: u64,
}

impl Score for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn score(&self, layer: &LayerView<'_>, _evidence: &Evidence) -> Result<Vec<f32>> {
        let mut rng = ChaCha8Rng::seed_from_u64(mix(self.seed, layer.index as u64));
        Ok(layer.values.iter().map(|_| rng.random::<f32>()).collect())
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ParamId;
    use regrow_sparse_core::model::recipe::Recipe;
    use regrow_sparse_core::model::weight::Weight;

    use super::*;

    #[test]
    fn exact_seeded_and_blind_to_the_weights() {
        let weight = |value: f32| Weight {
            path: "a".into(),
            id: ParamId::new(),
            shape: vec![10, 10],
            values: vec![value; 100],
            mask: None,
        };
        let masks = |seed, value| Recipe::default().masks(&[weight(value)], &Random { seed }, 0.37).unwrap();
        assert_eq!(masks(1, 0.0).pruned(), 37);
        assert_eq!(masks(1, 0.0), masks(1, 5.0));
        assert_ne!(masks(1, 0.0), masks(2, 0.0));
    }
}
