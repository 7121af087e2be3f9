//! Gradual magnitude pruning (GMP; Zhu & Gupta, arXiv 1710.01878): a little at a time while training.
//!
//! At steps `t = t_0, t_0 + D, .., t_0 + n D` the smallest `|w|` are masked, to sparsity
//! `s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n D))^3` (eq. 1).

use regrow_sparse_core::mask::schedule::Curve;
use regrow_sparse_core::model::optimizer::Under;
use regrow_sparse_core::model::score::{Recipe, magnitudes};
use regrow_sparse_core::model::sparsify::{Change, Pruner, View};
use regrow_sparse_core::model::weight::{Select, Weight};
use regrow_sparse_core::{Result, Schedule};

/// Masks the smallest weights on a schedule, cubic as in the paper or any other.
///
/// As in the paper's code a masked weight keeps its value and gets no gradient; every mask is
/// chosen anew from the stored values, so a weight comes back when those around it have shrunk
/// below it. [`Gmp::for_good`] sets what is pruned to zero, once and for all.
pub struct Gmp {
    schedule: Schedule,
    recipe: Recipe,
    for_good: bool,
}

impl Gmp {
    /// To `sparsity` along the cubic curve from 0: first at step `begin`, then `updates` times, every
    /// `every` steps. All layers together, unstructured.
    ///
    /// # Errors
    /// Sparsity outside [0, 1), or `every` zero.
    pub fn new(sparsity: f64, begin: usize, every: usize, updates: usize) -> Result<Self> {
        Ok(Self::on(Schedule::new(Curve::Cubic, 0.0, sparsity, begin, every, updates)?))
    }

    /// On a schedule of one's own.
    pub fn on(schedule: Schedule) -> Self {
        Self { schedule, recipe: Recipe::default(), for_good: false }
    }

    /// With another budget, pattern or selection of weights.
    pub fn with_recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = recipe;
        self
    }

    /// What is pruned is zero and stays pruned.
    pub fn for_good(mut self) -> Self {
        self.for_good = true;
        self
    }
}

impl Pruner for Gmp {
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change> {
        let Some(sparsity) = self.schedule.due(step) else { return Ok(Change::None) };
        let weights: Vec<Weight> = match self.for_good {
            true => view.weights()?,
            false => view.stored()?.into_iter().map(Weight::unmasked).collect(),
        };
        let scores = weights.iter().map(magnitudes).collect();
        Ok(Change::Masks(self.recipe.masks_of(&weights, scores, sparsity)?))
    }

    fn select(&self) -> Select {
        self.recipe.select.clone()
    }

    fn under(&self) -> Under {
        if self.for_good { Under::Zero } else { Under::Frozen }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Still, bits, masks_over, weight};

    #[test]
    fn the_schedule_is_met_exactly() {
        let mut gmp = Gmp::new(0.9, 10, 5, 4).unwrap();
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
        // The third has shrunk below what the masked second still holds.
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
