//! Pruning by any score on any schedule, beside any training loop.

use regrow_sparse_core::masked::{Base, Gradient};
use regrow_sparse_core::score::{Recipe, Score};
use regrow_sparse_core::sparsify::Pruner;
use regrow_sparse_core::weight::{Select, Weight};
use regrow_sparse_core::{MaskSet, Result, Schedule};

/// Prunes by `score` whenever the schedule says so; what is pruned stays pruned, at zero.
pub struct Scheduled<S> {
    score: S,
    schedule: Schedule,
    recipe: Recipe,
    select: Select,
}

impl<S: Score> Scheduled<S> {
    /// Global and unstructured, over the default selection of weights.
    pub fn new(score: S, schedule: Schedule) -> Self {
        Self { score, schedule, recipe: Recipe::default(), select: Select::default() }
    }

    /// With another budget or pattern.
    pub fn with_recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = recipe;
        self
    }

    /// Over another selection of weights.
    pub fn with_select(mut self, select: Select) -> Self {
        self.select = select;
        self
    }
}

impl<S: Score + 'static> Pruner for Scheduled<S> {
    fn update(&mut self, step: usize, weights: &mut dyn FnMut() -> Result<Vec<Weight>>) -> Result<Option<MaskSet>> {
        let due = self.schedule.due(step);
        due.map(|sparsity| self.recipe.masks(&weights()?, &self.score, sparsity)).transpose()
    }

    fn select(&self) -> Select {
        self.select.clone()
    }

    fn gradient(&self) -> Gradient {
        Gradient::Masked
    }

    fn base(&self) -> Base {
        Base::Zeroed
    }
}
