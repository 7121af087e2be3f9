//! Gradual magnitude pruning (GMP; Zhu & Gupta, arXiv 1710.01878): step by step during training.
//!
//! At steps `t = t_0, t_0 + D, .., t_0 + n D` the smallest `|w|` are masked, to sparsity
//! `s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n D))^3` (eq. 1). Any other score may take the place of `|w|`.

use burn::config::Config;
use regrow_sparse_core::mask::schedule::Curve;
use regrow_sparse_core::model::evidence::Needs;
use regrow_sparse_core::model::masked::Gradient;
use regrow_sparse_core::model::optimizer::PrunedWeightUpdate;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::score::Score;
use regrow_sparse_core::model::sparsify::{Change, Pruner, View};
use regrow_sparse_core::model::weight::Select;
use regrow_sparse_core::{Result, Schedule};

use crate::Magnitude;
use crate::scoring::{masks, unmasked};

/// The settings of [`Gmp`]: the cubic schedule.
#[derive(Config, Debug)]
pub struct GmpConfig {
    /// The final sparsity, in [0, 1).
    pub sparsity: f64,
    /// The initial sparsity.
    #[config(default = 0.0)]
    pub initial: f64,
    /// The step of the first update.
    #[config(default = 0)]
    pub begin: usize,
    /// Steps between two updates.
    #[config(default = 100)]
    pub every: usize,
    /// Updates after the first.
    #[config(default = 20)]
    pub updates: usize,
    /// Whether pruned weights are zero and stay pruned.
    #[config(default = false)]
    pub permanent: bool,
}

impl GmpConfig {
    /// By magnitude, all layers together, unstructured.
    ///
    /// # Errors
    /// Sparsities outside [0, 1) or falling, or `every` zero.
    pub fn init(&self) -> Result<Gmp> {
        self.init_with(Magnitude)
    }

    /// The same by another score.
    ///
    /// # Errors
    /// As [`GmpConfig::init`].
    pub fn init_with<S: Score>(&self, score: S) -> Result<Gmp<S>> {
        let Self { sparsity, initial, begin, every, updates, permanent } = *self;
        let schedule = Schedule::new(Curve::Cubic, initial, sparsity, begin, every, updates)?;
        let gmp = Gmp::on(schedule).with_score(score);
        Ok(if permanent { gmp.for_good() } else { gmp })
    }
}

/// Masks the weights of smallest score on a schedule, cubic as in the paper or any other.
///
/// As in the paper's code a masked weight keeps its value and is not trained; every mask is chosen again from the
/// stored values, so a weight grows back when others have shrunk below it. [`Gmp::for_good`] sets pruned weights to
/// zero permanently.
#[derive(Clone, Debug)]
pub struct Gmp<S = Magnitude> {
    score: S,
    schedule: Schedule,
    recipe: Recipe,
    for_good: bool,
}

impl Gmp {
    /// With a custom schedule, by magnitude.
    pub fn on(schedule: Schedule) -> Self {
        Self { score: Magnitude, schedule, recipe: Recipe::default(), for_good: false }
    }
}

impl<S: Score> Gmp<S> {
    /// By another score.
    pub fn with_score<T: Score>(self, score: T) -> Gmp<T> {
        let Self { schedule, recipe, for_good, .. } = self;
        Gmp { score, schedule, recipe, for_good }
    }

    /// With another budget, pattern or selection of weights.
    pub fn with_recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = recipe;
        self
    }

    /// Pruned weights are zero and stay pruned.
    pub fn for_good(mut self) -> Self {
        self.for_good = true;
        self
    }
}

impl<S: Score + 'static> Pruner for Gmp<S> {
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change> {
        let Some(sparsity) = self.schedule.due(step) else { return Ok(Change::None) };
        let weights = if self.for_good { view.weights()? } else { unmasked(view)? };
        Ok(Change::Masks(masks(view, &self.recipe, &self.score, &weights, sparsity)?))
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

    /// Dense if a score needs the gradients of pruned weights.
    fn gradient(&self) -> Gradient {
        if self.needs().gradients && !self.for_good { Gradient::Dense } else { Gradient::Masked }
    }

    fn pruned_weight_update(&self) -> PrunedWeightUpdate {
        if self.for_good { PrunedWeightUpdate::Zero } else { PrunedWeightUpdate::Frozen }
    }
}

#[cfg(test)]
mod tests {
    use regrow_sparse_core::model::weight::Weight;

    use super::*;
    use crate::testing::{Still, bits, masks_over, weight};

    #[test]
    fn the_schedule_is_met_exactly() {
        let mut gmp = GmpConfig::new(0.9).with_begin(10).with_every(5).with_updates(4).init().unwrap();
        let mut view = Still(vec![weight("a", &[100], |i| (i as f32 - 50.5) / 50.0)]);
        let sparsities = masks_over(&mut gmp, &mut view, 40);
        let pruned: Vec<(usize, usize)> = sparsities.iter().map(|(step, masks)| (*step, masks.pruned())).collect();
        // 90 (1 - (1 - k/4)^3) for k = 0, 1, 2, 3, 4.
        assert_eq!(pruned, [(10, 0), (15, 52), (20, 79), (25, 89), (30, 90)]);
    }

    #[test]
    fn pruned_weights_return_unless_pruned_for_good() {
        let first = weight("a", &[4], |i| [4.0, 1.0, 3.0, 2.0][i]);
        let mask = regrow_sparse_core::Mask::from_fn([4], |i| i != 1);
        // The third has shrunk below the value that the masked second still has.
        let later = Weight { values: vec![4.0, 1.0, 0.5, 2.0], mask: Some(mask), ..first };
        let schedule = || Schedule::one_shot(0.25, 0).unwrap();
        let chosen = |mut gmp: Gmp| {
            let masks = masks_over(&mut gmp, &mut Still(vec![later.clone()]), 1);
            bits(masks[0].1.get("a").unwrap())
        };
        assert_eq!(chosen(Gmp::on(schedule())), "1101");
        assert_eq!(chosen(Gmp::on(schedule()).for_good()), "1011");
    }
}
