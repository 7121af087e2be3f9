//! Iterative soft shrinkage (ISS-P; Wang et al., arXiv 2303.09650): unimportant weights shrink.
//!
//! After every step of the first phase the `round(s n)` weights with the smallest `|w|` of each layer are multiplied by
//! a ratio below 1; they are chosen again each time, so weights can recover. Then the mask of the last choice is fixed
//! and training continues. A ratio of 0 is iterative hard thresholding.

use burn::config::Config;
use regrow_sparse_core::mask::schedule::check_sparsity;
use regrow_sparse_core::model::evidence::Needs;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::score::Score;
use regrow_sparse_core::model::sparsify::{Change, Pruner, View};
use regrow_sparse_core::model::weight::Select;
use regrow_sparse_core::{Budget, Error, Result};

use crate::Magnitude;
use crate::scoring::masks;

/// The settings of [`Issp`].
#[derive(Config, Debug)]
pub struct IsspConfig {
    /// The sparsity of every layer, in [0, 1).
    pub sparsity: f64,
    /// Steps that shrink; then the mask is fixed.
    pub steps: usize,
    /// The factor for a weight, in [0, 1]: 1 trains without shrinking, 0 thresholds. The default is that of the
    /// authors' commands.
    #[config(default = 0.95)]
    pub ratio: f32,
}

impl IsspConfig {
    /// By magnitude, the same sparsity in every layer.
    ///
    /// # Errors
    /// Sparsity outside [0, 1), no step, a ratio outside [0, 1].
    pub fn init(&self) -> Result<Issp> {
        self.init_with(Magnitude)
    }

    /// The same by another score.
    ///
    /// # Errors
    /// As [`IsspConfig::init`].
    pub fn init_with<S: Score>(&self, score: S) -> Result<Issp<S>> {
        let Self { sparsity, steps, ratio } = *self;
        check_sparsity(sparsity)?;
        if steps == 0 {
            return Err(Error::Argument("shrinking needs at least one step".into()));
        }
        if !(0.0..=1.0).contains(&ratio) {
            return Err(Error::Argument(format!("a shrinking ratio of {ratio} is outside [0, 1]")));
        }
        Ok(Issp { score, sparsity, ratio, steps, recipe: Recipe::default().with_budget(Budget::Uniform) })
    }
}

/// Shrinks the smallest weights of each layer a little after every step, then masks them.
///
/// The shrinking comes after the optimizer's step, which does not see it (as published).
#[derive(Clone, Debug)]
pub struct Issp<S = Magnitude> {
    score: S,
    sparsity: f64,
    ratio: f32,
    steps: usize,
    recipe: Recipe,
}

impl<S: Score> Issp<S> {
    /// With another budget, pattern or selection of weights.
    pub fn with_recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = recipe;
        self
    }
}

impl<S: Score + 'static> Pruner for Issp<S> {
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change> {
        if step > self.steps {
            return Ok(Change::None);
        }
        let weights = view.weights()?;
        let masks = masks(view, &self.recipe, &self.score, &weights, self.sparsity)?;
        Ok(if step < self.steps { Change::Scale(masks, self.ratio) } else { Change::Masks(masks) })
    }

    fn needs(&self) -> Needs {
        self.recipe.needs(&self.score)
    }

    fn needs_gradients(&self, step: usize) -> bool {
        self.needs().gradients && step <= self.steps
    }

    fn select(&self) -> Select {
        self.recipe.select.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Still, bits, weight};

    #[test]
    fn the_smaller_half_shrinks_and_is_masked_at_the_end() {
        let mut issp = IsspConfig::new(0.5, 2).with_ratio(0.9).init().unwrap();
        let mut view = Still(vec![weight("a", &[4], |i| [4.0, 1.0, -2.0, 0.5][i])]);
        for step in 0..2 {
            let Change::Scale(masks, ratio) = issp.update(step, &mut view).unwrap() else { panic!("shrinking") };
            assert_eq!((bits(masks.get("a").unwrap()).as_str(), ratio), ("1010", 0.9));
        }
        let Change::Masks(masks) = issp.update(2, &mut view).unwrap() else { panic!("fixing") };
        assert_eq!(bits(masks.get("a").unwrap()), "1010");
        assert!(matches!(issp.update(3, &mut view).unwrap(), Change::None));
    }

    #[test]
    fn impossible_settings_are_refused() {
        assert!(IsspConfig::new(1.0, 2).init().is_err() && IsspConfig::new(0.5, 0).init().is_err());
        assert!(IsspConfig::new(0.5, 2).with_ratio(1.1).init().is_err());
    }
}
