//! BiP: pruning as a bi-level problem (Zhang et al., arXiv 2210.04092).
//!
//! The upper problem chooses the mask `m`, the lower one the weights `theta` under it:
//! `min_m L(m * theta*(m))`, `theta*(m) = argmin L(m * theta) + gamma/2 |theta|^2`. Mask and weights
//! meet only in `z = m * theta`, so the implicit gradient needs no second derivatives (eq. 5):
//! `dL/dm = (theta - (1/gamma) dL/dz) * dL/dz`. Steps alternate (algorithm 1): one of the optimizer on
//! the weights, mask fixed; one on the scores, `s <- |s - beta dL/dm|` on another batch, and the mask
//! is the top k of `s` again.
//!
//! Scores are magnitudes: the authors' are signed, and the mask is that of their absolute values, whose gradient
//! changes sign at zero. Their correction differs: it multiplies the gradient of the scores by itself (and by the
//! remainder of the previous step), not `dL/dz` by itself; with the published `1/gamma` of 1e-4 both are too small to
//! move a filter in the fixture.

use burn::config::Config;
use regrow_sparse_core::mask::schedule::{check_sparsity, half_cosine};
use regrow_sparse_core::model::evidence::Needs;
use regrow_sparse_core::model::masked::Gradient;
use regrow_sparse_core::model::optimizer::PrunedWeightUpdate;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::sparsify::{Change, Pruner, View};
use regrow_sparse_core::model::weight::{Select, Weight};
use regrow_sparse_core::state::State;
use regrow_sparse_core::{Error, Result};

/// The settings of [`Bip`].
#[derive(Config, Debug)]
pub struct BipConfig {
    /// The sparsity, in [0, 1).
    pub sparsity: f64,
    /// Steps of the training, half of them for the scores.
    pub steps: usize,
    /// The initial rate of the scores; it decays to zero along half a cosine.
    #[config(default = 0.1)]
    pub beta: f64,
    /// `1/gamma`; 0 alternates plain gradient steps, the authors' fast variant.
    #[config(default = 1e-4)]
    pub inverse_gamma: f64,
}

impl BipConfig {
    /// All layers together; scores start at `|theta|`.
    ///
    /// # Errors
    /// Sparsity outside [0, 1), no step, a rate that is negative or not finite.
    pub fn init(&self) -> Result<Bip> {
        let Self { sparsity, steps, beta, inverse_gamma } = *self;
        check_sparsity(sparsity)?;
        if steps == 0 {
            return Err(Error::Argument("BiP needs at least one step".into()));
        }
        if [beta, inverse_gamma].iter().any(|r| !r.is_finite() || *r < 0.0) {
            return Err(Error::Argument(format!("beta {beta} and 1/gamma {inverse_gamma} must not be negative")));
        }
        let (recipe, scores) = (Recipe::default(), Vec::new());
        Ok(Bip { sparsity, steps, beta, correction: inverse_gamma, recipe, scores })
    }
}

/// Learns mask and weights together, from a trained dense model; no retraining follows.
///
/// Every second step of the training belongs to the scores: the optimizer skips it. A pruned weight keeps its value.
#[derive(Clone, Debug)]
pub struct Bip {
    sparsity: f64,
    steps: usize,
    beta: f64,
    correction: f64,
    recipe: Recipe,
    scores: Vec<Vec<f32>>,
}

impl Bip {
    /// With another budget, pattern (rows for filters) or selection of weights.
    pub fn with_recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = recipe;
        self
    }

    /// `s <- |s - beta (theta - (1/gamma) g) * g|`.
    fn move_scores(&mut self, step: usize, weights: &[Weight], gradients: &[Vec<f32>]) {
        let beta = half_cosine(self.beta, 0.0, step as f64 / self.steps as f64);
        for (scores, (weight, gradient)) in self.scores.iter_mut().zip(weights.iter().zip(gradients)) {
            for (s, (theta, g)) in scores.iter_mut().zip(weight.values.iter().zip(gradient)) {
                let slope = hypergradient(f64::from(*theta), f64::from(*g), self.correction);
                *s = (f64::from(*s) - beta * slope).abs() as f32;
            }
        }
    }
}

/// `dL/dm` of one weight (eq. 5).
fn hypergradient(theta: f64, g: f64, inverse_gamma: f64) -> f64 {
    (theta - inverse_gamma * g) * g
}

impl Pruner for Bip {
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change> {
        let first = self.scores.is_empty();
        if !first && !self.replaces_optimizer_step(step) {
            return Ok(Change::None);
        }
        let weights = crate::scoring::unmasked(view)?;
        match first {
            true => self.scores = weights.iter().map(|w| w.values.iter().map(|v| v.abs()).collect()).collect(),
            false => self.move_scores(step, &weights, &view.gradients()?),
        }
        // Squares order like absolute values; their sum over a filter is its squared norm.
        let squares = self.scores.iter().map(|scores| scores.iter().map(|s| s * s).collect()).collect();
        let recipe = self.recipe.clone().with_evidence(view.evidence(&self.recipe.budget.needs())?);
        Ok(Change::Masks(recipe.masks_of(&weights, squares, self.sparsity)?))
    }

    fn needs(&self) -> Needs {
        self.recipe.budget.needs().and(Needs::GRADIENTS)
    }

    fn replaces_optimizer_step(&self, step: usize) -> bool {
        step % 2 == 1
    }

    fn select(&self) -> Select {
        self.recipe.select.clone()
    }

    fn gradient(&self) -> Gradient {
        Gradient::Dense
    }

    fn pruned_weight_update(&self) -> PrunedWeightUpdate {
        PrunedWeightUpdate::Frozen
    }

    fn state(&self) -> State {
        let mut state = State::default();
        state.set_integer("layers", self.scores.len() as u64);
        for (layer, scores) in self.scores.iter().enumerate() {
            state.set_reals(format!("scores.{layer}"), scores.clone());
        }
        state
    }

    fn restore(&mut self, mut state: State) -> Result<()> {
        let layers = state.integer("layers")?;
        self.scores = (0..layers).map(|layer| state.take_reals(&format!("scores.{layer}"))).collect::<Result<_>>()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Still, bits, masks_over, weight};

    /// With a linear loss `L(z) = c z` the lower problem's one step is `theta - (1/gamma) m c`, and
    /// the derivative of `L(m * that)` by `m` at 1 is the formula, exactly.
    #[test]
    fn the_correction_is_the_hypergradient_of_one_lower_step() {
        let (theta, c, inverse_gamma) = (0.7, -1.3, 0.2);
        let loss = |m: f64| c * m * (theta - inverse_gamma * m * c);
        let difference = (loss(1.0 + 1e-6) - loss(1.0 - 1e-6)) / 2e-6;
        let lower = theta - inverse_gamma * c;
        assert!((difference - hypergradient(lower, c, inverse_gamma)).abs() < 1e-8);
    }

    #[test]
    fn starts_with_the_magnitude_mask_and_keeps_the_count() {
        let mut view = Still(vec![weight("a", &[2, 3], |i| [0.1, -0.9, 0.3, 0.5, -0.2, 0.7][i])]);
        let masks = masks_over(&mut BipConfig::new(0.5, 20).init().unwrap(), &mut view, 20);
        assert_eq!(bits(masks[0].1.get("a").unwrap()), "010101");
        assert_eq!(masks.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19]);
        assert!(masks.iter().all(|(_, m)| m.pruned() == 3));
    }

    #[test]
    fn a_weight_that_hurts_loses_its_place() {
        // The gradient is the weight itself, so every s falls by beta w^2 (1 - 1/gamma): the large ones first.
        let mut view = Still(vec![weight("a", &[1, 2], |i| [1.0, 0.6][i])]);
        let masks = masks_over(
            &mut BipConfig::new(0.5, 1000).with_beta(0.5).with_inverse_gamma(0.0).init().unwrap(),
            &mut view,
            4,
        );
        let drawn: Vec<String> = masks.iter().map(|(_, m)| bits(m.get("a").unwrap())).collect();
        assert_eq!(drawn, ["10", "10", "01"]);
    }

    #[test]
    fn a_score_that_crosses_zero_does_not_come_back_as_a_large_one() {
        // Scores start at 1 and 0.2, gradients are the weights: the second falls to 0.2 - 3 * 0.04 = 0.08,
        // then to |0.08 - 0.12| = 0.04.
        let weights = [weight("a", &[1, 2], |i| [1.0, 0.2][i])];
        let mut bip = BipConfig::new(0.5, 1_000_000).with_beta(3.0).with_inverse_gamma(0.0).init().unwrap();
        bip.scores = vec![vec![1.0, 0.2]];
        for expected in [0.08, 0.04] {
            bip.move_scores(1, &weights, &[vec![0.0, 0.2]]);
            assert!((bip.scores[0][1] - expected).abs() < 1e-6 && bip.scores[0][0] == 1.0);
        }
    }

    #[test]
    fn filters_go_whole_and_bad_settings_are_refused() {
        let mut view = Still(vec![weight("a", &[4, 3], |i| (i as f32 * 1.7).sin())]);
        let recipe = Recipe::default().with_pattern(regrow_sparse_core::Pattern::Rows);
        let masks = masks_over(&mut BipConfig::new(0.5, 20).init().unwrap().with_recipe(recipe), &mut view, 6);
        assert!(
            masks
                .iter()
                .all(|(_, m)| bits(m.get("a").unwrap()).as_bytes().chunks(3).all(|r| r == b"000" || r == b"111"))
        );
        assert!(BipConfig::new(1.0, 5).init().is_err() && BipConfig::new(0.5, 0).init().is_err());
        assert!(BipConfig::new(0.5, 5).with_beta(-1.0).init().is_err());
    }
}
