//! Magnitude pruning: `score = |w|`.
//!
//! Local (budget uniform) or global; the oldest method and still a strong baseline (Han et al., arXiv 1506.02626).

use burn::tensor::Tensor;
use regrow_sparse_core::Result;
use regrow_sparse_core::model::evidence::Evidence;
use regrow_sparse_core::model::score::{LayerView, Score, magnitudes};

/// The absolute value of each weight.
#[derive(Clone, Copy, Debug, Default)]
pub struct Magnitude;

impl Score for Magnitude {
    fn name(&self) -> &'static str {
        "magnitude"
    }

    fn score(&self, layer: &LayerView<'_>, _evidence: &Evidence) -> Result<Vec<f32>> {
        Ok(magnitudes(layer))
    }

    fn on_device(&self, values: Tensor<2>) -> Option<Tensor<2>> {
        Some(values.abs())
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ParamId;
    use regrow_sparse_core::model::recipe::Recipe;
    use regrow_sparse_core::model::weight::Weight;
    use regrow_sparse_core::{Budget, Mask};

    use super::*;

    fn weight(path: &str, values: [f32; 16]) -> Weight {
        Weight { path: path.into(), id: ParamId::new(), shape: vec![4, 4], values: values.to_vec(), mask: None }
    }

    fn drawn(mask: &Mask) -> String {
        let row = |r: usize| (0..4).map(|c| if mask.keeps(r * 4 + c) { '1' } else { '0' }).collect::<String>();
        (0..4).map(row).collect::<Vec<_>>().join(" ")
    }

    const A: [f32; 16] = [0.1, -0.9, 0.2, 0.3, -0.8, 0.0, 0.7, -0.1, 0.4, 0.5, -0.6, 0.0, 0.0, 0.0, 0.0, 1.0];

    #[test]
    fn the_largest_stay_whatever_their_sign() {
        let masks = Recipe::default().masks(&[weight("a", A)], &Magnitude, 0.5).unwrap();
        assert_eq!(drawn(masks.get("a").unwrap()), "0101 1010 1110 0001");
    }

    #[test]
    fn local_and_global_share_differently() {
        let small = weight("small", A.map(|w| w * 0.01));
        let layers = [weight("a", A), small];
        let recipe = |budget| Recipe::default().with_budget(budget);
        let local = recipe(Budget::Uniform).masks(&layers, &Magnitude, 0.5).unwrap();
        assert_eq!(local.get("a").unwrap().to_bools(), local.get("small").unwrap().to_bools());
        let global = recipe(Budget::Global).masks(&layers, &Magnitude, 0.75).unwrap();
        assert_eq!((global.get("a").unwrap().kept(), global.get("small").unwrap().kept()), (8, 0));
    }

    #[test]
    fn what_is_pruned_stays_pruned() {
        let mut again = weight("a", A);
        let first = Recipe::default().masks(&[again.clone()], &Magnitude, 0.5).unwrap();
        again.mask = first.get("a").cloned();
        again.values = vec![1.0; 16];
        let second = Recipe::default().masks(&[again.clone()], &Magnitude, 0.75).unwrap();
        assert!(second.is_within(&first));
        assert_eq!(second.pruned(), 12);
        assert!(
            Recipe::default().masks(&[again], &Magnitude, 0.25).unwrap_err().to_string().contains("only 8 are left")
        );
    }
}
