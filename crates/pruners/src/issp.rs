//! Iterative soft shrinkage (ISS-P; Wang et al., arXiv 2303.09650): unimportant weights fade.
//!
//! After every step of the first phase the `round(s n)` weights with the smallest `|w|` of each layer
//! are multiplied by a ratio below 1, chosen anew each time, so that they may come back; then the
//! mask of the last choice is fixed and training goes on. A ratio of 0 is iterative hard
//! thresholding.

use regrow_sparse_core::mask::schedule::check_sparsity;
use regrow_sparse_core::model::score::{Recipe, magnitudes};
use regrow_sparse_core::model::sparsify::{Change, Pruner, View};
use regrow_sparse_core::model::weight::Select;
use regrow_sparse_core::{Budget, Error, Result};

/// Shrinks the smallest weights of each layer a little after every step, then masks them.
///
/// The shrinking comes after the optimizer's step, which does not know of it (as published).
pub struct Issp {
    sparsity: f64,
    ratio: f32,
    steps: usize,
    recipe: Recipe,
}

impl Issp {
    /// To `sparsity` in every layer: shrinking for `steps` steps by the ratio 0.95 of the authors'
    /// commands, then fixed.
    ///
    /// # Errors
    /// Sparsity outside [0, 1), or no step.
    pub fn new(sparsity: f64, steps: usize) -> Result<Self> {
        check_sparsity(sparsity)?;
        match steps {
            0 => Err(Error::Argument("shrinking needs at least one step".into())),
            _ => Ok(Self { sparsity, ratio: 0.95, steps, recipe: Recipe::default().with_budget(Budget::Uniform) }),
        }
    }

    /// With another ratio: 1 trains on as if nothing were, 0 thresholds.
    ///
    /// # Errors
    /// If it is outside [0, 1].
    pub fn with_ratio(mut self, ratio: f32) -> Result<Self> {
        if !(0.0..=1.0).contains(&ratio) {
            return Err(Error::Argument(format!("a shrinking ratio of {ratio} is outside [0, 1]")));
        }
        self.ratio = ratio;
        Ok(self)
    }

    /// With another budget, pattern or selection of weights.
    pub fn with_recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = recipe;
        self
    }
}

impl Pruner for Issp {
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change> {
        if step > self.steps {
            return Ok(Change::None);
        }
        let weights = view.weights()?;
        let scores = weights.iter().map(magnitudes).collect();
        let masks = self.recipe.masks_of(&weights, scores, self.sparsity)?;
        Ok(if step < self.steps { Change::Scale(masks, self.ratio) } else { Change::Masks(masks) })
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
        let mut issp = Issp::new(0.5, 2).unwrap().with_ratio(0.9).unwrap();
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
        assert!(Issp::new(1.0, 2).is_err() && Issp::new(0.5, 0).is_err());
        assert!(Issp::new(0.5, 2).unwrap().with_ratio(1.1).is_err());
    }
}
