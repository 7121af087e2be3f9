//! Pruning by any score on any schedule, for any training loop.

use regrow_sparse_core::model::evidence::Needs;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::score::Score;
use regrow_sparse_core::model::sparsify::{Change, Pruner, View};
use regrow_sparse_core::model::weight::Select;
use regrow_sparse_core::{Result, Schedule};

use crate::Magnitude;

/// Prunes by `score` according to the schedule; pruned weights stay pruned, at zero.
#[derive(Clone, Debug)]
pub struct Scheduled<S = Magnitude> {
    score: S,
    schedule: Schedule,
    recipe: Recipe,
}

impl<S: Score> Scheduled<S> {
    /// Global and unstructured, over the default selection of weights.
    pub fn new(score: S, schedule: Schedule) -> Self {
        Self { score, schedule, recipe: Recipe::default() }
    }

    /// With another budget, pattern or selection.
    pub fn with_recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = recipe;
        self
    }
}

impl<S: Score + 'static> Pruner for Scheduled<S> {
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change> {
        let due = self.schedule.due(step);
        let masks = due.map(|sparsity| view.masks(&self.recipe, &self.score, sparsity));
        Ok(masks.transpose()?.into())
    }

    fn needs(&self) -> Needs {
        self.recipe.needs(&self.score)
    }

    fn needs_gradients(&self, step: usize) -> bool {
        self.needs().gradients && self.schedule.due(step).is_some()
    }

    fn select(&self) -> Select {
        self.recipe.select.clone()
    }
}
