//! RigL (Evci et al., arXiv 1911.11134): sparse from the start, growing where the gradient is large.
//!
//! After every `D` steps `t` until `T_end`, each layer with `n` weights drops the
//! `alpha / 2 (1 + cos(pi t / T_end)) n` smallest `|w|` and grows as many where `|dL/dw|` is largest
//! among the others (algorithm 1), from zero and with zero momentum.

use burn::config::Config;
use regrow_sparse_core::mask::schedule::half_cosine;
use regrow_sparse_core::model::drop_and_grow::{Candidates, drop_and_grow};
use regrow_sparse_core::model::evidence::Needs;
use regrow_sparse_core::model::masked::Gradient;
use regrow_sparse_core::model::sparsify::{Change, Pruner, View};
use regrow_sparse_core::model::weight::Select;
use regrow_sparse_core::{MaskSet, Result};

use crate::moving::{Rhythm, fraction, sparse};

/// The settings of [`Rigl`].
#[derive(Config, Debug)]
pub struct RiglConfig {
    /// The step after which masks stay fixed; the paper: three quarters of the training.
    pub until: usize,
    /// Steps between two updates.
    #[config(default = 100)]
    pub every: usize,
    /// `alpha`, the fraction of each layer's weights that moves at first.
    #[config(default = 0.3)]
    pub fraction: f64,
    /// Whether weights just dropped may grow back at once, as in the authors' code; the paper excludes that.
    #[config(default = false)]
    pub dropped_among_candidates: bool,
}

impl RiglConfig {
    /// Over the default selection of weights.
    ///
    /// # Errors
    /// If `every` is zero, `until` comes before the first update, or the fraction is outside [0, 1].
    pub fn init(&self) -> Result<Rigl> {
        let candidates = if self.dropped_among_candidates { Candidates::PrunedAndDropped } else { Candidates::Pruned };
        let (rhythm, fraction) = (Rhythm::new(self.every, self.until)?, fraction(self.fraction)?);
        Ok(Rigl { rhythm, fraction, candidates, select: Select::default() })
    }
}

/// Drops the smallest, grows by gradient; every layer keeps its number of weights.
///
/// The model must have masks when training starts (the paper: random, with the ERK budget). The gradient is that of the
/// step's own batch; the optimizer also uses it for a step, which the paper skips.
#[derive(Clone, Debug)]
pub struct Rigl {
    rhythm: Rhythm,
    fraction: f64,
    candidates: Candidates,
    select: Select,
}

impl Rigl {
    /// Over another selection of weights.
    pub fn with_select(mut self, select: Select) -> Self {
        self.select = select;
        self
    }
}

impl Pruner for Rigl {
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change> {
        if !self.rhythm.due(step) {
            return Ok(Change::None);
        }
        let fraction = half_cosine(self.fraction, 0.0, (step + 1) as f64 / self.rhythm.until as f64);
        let (weights, gradients) = (sparse(view.weights()?)?, view.gradients()?);
        let moved = weights.iter().zip(gradients).map(|(weight, gradient)| {
            let count = (fraction * weight.mask_or_dense().kept() as f64) as usize;
            let growth: Vec<f32> = gradient.iter().map(|g| g.abs()).collect();
            Ok((weight.path.clone(), drop_and_grow(weight, count, &growth, self.candidates)?))
        });
        Ok(Change::Masks(moved.collect::<Result<MaskSet>>()?))
    }

    fn needs(&self) -> Needs {
        Needs::GRADIENTS
    }

    fn needs_gradients(&self, step: usize) -> bool {
        self.rhythm.due(step)
    }

    fn select(&self) -> Select {
        self.select.clone()
    }

    fn gradient(&self) -> Gradient {
        Gradient::Dense
    }
}

#[cfg(test)]
mod tests {
    use regrow_sparse_core::Mask;

    use super::*;
    use crate::testing::{Still, bits, masks_over, weight};

    fn start() -> Still {
        let mut layer = weight("a", &[2, 4], |i| [5.0, -1.0, 3.0, 9.0, 2.0, -7.0, 8.0, 6.0][i]);
        layer.mask = Some(Mask::from_fn([2, 4], |i| [0, 1, 2, 4].contains(&i)));
        Still(vec![layer])
    }

    #[test]
    fn grows_where_the_gradient_is_largest() {
        // Half of four weights move: -1 and 2 go, the gradients 9 and 8 come.
        let mut rigl = RiglConfig::new(1_000_000).with_every(1).with_fraction(0.5000001).init().unwrap();
        let masks = masks_over(&mut rigl, &mut start(), 1);
        assert_eq!(bits(masks[0].1.get("a").unwrap()), "10110010");
    }

    #[test]
    fn counts_stay_and_nothing_moves_at_alpha_zero_or_after_the_end() {
        let mut rigl = RiglConfig::new(6).with_every(1).with_fraction(0.9).init().unwrap();
        let masks = masks_over(&mut rigl, &mut start(), 20);
        assert_eq!(masks.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        assert!(masks.iter().all(|(_, m)| m.pruned() == 4));
        let mut still = RiglConfig::new(6).with_every(1).with_fraction(0.0).init().unwrap();
        let first = start().0[0].mask.clone().unwrap();
        assert!(masks_over(&mut still, &mut start(), 20).iter().all(|(_, m)| m.get("a") == Some(&first)));
    }
}
