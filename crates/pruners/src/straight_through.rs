//! Straight-through pruning: STE, and dynamic pruning with feedback (DPF; Lin et al., arXiv 2006.07253).
//!
//! The forward pass uses the masked weights `m * w`; the gradient taken there updates all of the dense `w`, including
//! pruned ones: `w <- w - lr * grad L(m * w)` (DPF, eq. 2). The mask is chosen again by `|w|` (or any other score), so
//! a weight pruned too early grows back.

use regrow_sparse_core::model::evidence::Needs;
use regrow_sparse_core::model::masked::Gradient;
use regrow_sparse_core::model::optimizer::PrunedWeightUpdate;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::score::Score;
use regrow_sparse_core::model::sparsify::{Change, Pruner, View};
use regrow_sparse_core::model::weight::Select;
use regrow_sparse_core::{Error, Result, Schedule};

use crate::Magnitude;
use crate::scoring::{masks, unmasked};

/// Masks only in the forward pass; the dense weights underneath keep training.
#[derive(Clone, Debug)]
pub struct StraightThrough<S = Magnitude> {
    score: S,
    schedule: Schedule,
    every: usize,
    recipe: Recipe,
}

impl StraightThrough {
    /// STE: a new mask after every step, at the current sparsity of `schedule`.
    pub fn ste(schedule: Schedule) -> Self {
        Self { score: Magnitude, schedule, every: 1, recipe: Recipe::default() }
    }

    /// DPF: a new mask every 16 steps.
    pub fn dpf(schedule: Schedule) -> Self {
        Self { score: Magnitude, schedule, every: 16, recipe: Recipe::default() }
    }
}

impl<S: Score> StraightThrough<S> {
    /// By another score.
    pub fn with_score<T: Score>(self, score: T) -> StraightThrough<T> {
        let Self { schedule, every, recipe, .. } = self;
        StraightThrough { score, schedule, every, recipe }
    }

    /// A new mask every `every` steps, starting at the first.
    ///
    /// # Errors
    /// If `every` is zero.
    pub fn with_every(mut self, every: usize) -> Result<Self> {
        if every == 0 {
            return Err(Error::Argument("masks need at least one step between updates".into()));
        }
        self.every = every;
        Ok(self)
    }

    /// With another budget, pattern or selection of weights.
    pub fn with_recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = recipe;
        self
    }
}

impl<S> StraightThrough<S> {
    fn due(&self, step: usize) -> bool {
        step.checked_sub(self.schedule.begin()).is_some_and(|since| since.is_multiple_of(self.every))
    }
}

impl<S: Score + 'static> Pruner for StraightThrough<S> {
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change> {
        if !self.due(step) {
            return Ok(Change::None);
        }
        let (weights, sparsity) = (unmasked(view)?, self.schedule.in_force(step));
        Ok(Change::Masks(masks(view, &self.recipe, &self.score, &weights, sparsity)?))
    }

    fn needs(&self) -> Needs {
        self.recipe.needs(&self.score)
    }

    fn needs_gradients(&self, step: usize) -> bool {
        self.needs().gradients && self.due(step)
    }

    fn select(&self) -> Select {
        self.recipe.select.clone()
    }

    fn gradient(&self) -> Gradient {
        Gradient::Dense
    }

    fn pruned_weight_update(&self) -> PrunedWeightUpdate {
        PrunedWeightUpdate::Learning
    }
}

#[cfg(test)]
mod tests {
    use regrow_sparse_core::mask::schedule::Curve;

    use super::*;
    use crate::testing::{Still, masks_over, weight};

    fn counts(mut pruner: StraightThrough, steps: usize) -> Vec<(usize, usize)> {
        let mut view = Still(vec![weight("a", &[100], |i| i as f32)]);
        masks_over(&mut pruner, &mut view, steps).iter().map(|(step, masks)| (*step, masks.pruned())).collect()
    }

    #[test]
    fn exact_at_every_step_from_the_first_on() {
        let schedule = Schedule::new(Curve::Linear, 0.0, 0.8, 3, 2, 2).unwrap();
        assert_eq!(counts(StraightThrough::ste(schedule), 9), [(3, 0), (4, 0), (5, 40), (6, 40), (7, 80), (8, 80)]);
        let dpf = StraightThrough::dpf(schedule);
        assert_eq!(counts(dpf, 40), [(3, 0), (19, 80), (35, 80)]);
        assert!(StraightThrough::ste(schedule).with_every(0).is_err());
    }
}
