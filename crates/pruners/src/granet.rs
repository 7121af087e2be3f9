//! GraNet: gradual pruning with neuroregeneration (Liu et al., arXiv 2106.10404).
//!
//! After every `T` steps: (1) all layers together are pruned by `|w|` to
//! `s_t = s_i + (s_f - s_i) (1 - (1 - (t - t_0) / (n T))^3)`; (2) each layer then drops the fraction
//! `r` of its weights with the smallest `|w|` and grows as many where `|dL/dw|` is largest (algorithm
//! 1). Any other score may take the place of `|w|` in (1). `r` falls by a cosine from 0.5 to 0.005 over the training. Regrown weights start at zero.

use burn::config::Config;
use regrow_sparse_core::mask::schedule::{Curve, half_cosine};
use regrow_sparse_core::model::drop_and_grow::{Candidates, drop_and_grow};
use regrow_sparse_core::model::evidence::Needs;
use regrow_sparse_core::model::masked::Gradient;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::score::Score;
use regrow_sparse_core::model::sparsify::{Change, Pruner, View};
use regrow_sparse_core::model::weight::{Select, Weight};
use regrow_sparse_core::{Error, MaskSet, Result, Schedule};

use crate::Magnitude;
use crate::moving::fraction;
use crate::scoring;

/// The settings of [`Granet`].
#[derive(Config, Debug)]
pub struct GranetConfig {
    /// The final sparsity, in [0, 1).
    pub sparsity: f64,
    /// Steps of the whole training; regeneration continues to its end.
    pub steps: usize,
    /// The initial sparsity: 0 for dense-to-sparse, the masks' for sparse-to-sparse.
    #[config(default = 0.0)]
    pub initial: f64,
    /// Steps between two updates.
    #[config(default = 100)]
    pub every: usize,
    /// Updates until the last sparsity is reached; by default as many as fit in 110 of 160 steps, like the authors'
    /// epochs.
    pub updates: Option<usize>,
    /// The fraction of each layer's weights that is regrown at the start.
    #[config(default = 0.5)]
    pub first_rate: f64,
    /// The same at the end of the training.
    #[config(default = 0.005)]
    pub last_rate: f64,
}

impl GranetConfig {
    /// By magnitude, all layers together.
    ///
    /// # Errors
    /// Sparsities outside [0, 1) or falling, `every` zero, a schedule that ends after the training, rates outside
    /// [0, 1].
    pub fn init(&self) -> Result<Granet> {
        self.init_with(Magnitude)
    }

    /// The same by another score.
    ///
    /// # Errors
    /// As [`GranetConfig::init`].
    pub fn init_with<S: Score>(&self, score: S) -> Result<Granet<S>> {
        let Self { sparsity, steps, initial, every, .. } = *self;
        let updates = self.updates.unwrap_or_else(|| (steps as f64 * 110.0 / 160.0) as usize / every.max(1));
        let schedule = Schedule::new(Curve::Cubic, initial, sparsity, 0, every, updates)?;
        if schedule.end() > steps {
            return Err(Error::Argument(format!(
                "a training of {steps} steps ends before the schedule does, at step {}",
                schedule.end()
            )));
        }
        let rate = (fraction(self.first_rate)?, fraction(self.last_rate)?);
        Ok(Granet { score, schedule, steps, rate, recipe: Recipe::default() })
    }
}

/// Prunes gradually and regrows at every update.
///
/// Dense-to-sparse starts from a model without masks; sparse-to-sparse from one that carries them
/// (the paper: random, with the ERK budget) at the schedule's first sparsity.
#[derive(Clone, Debug)]
pub struct Granet<S = Magnitude> {
    score: S,
    schedule: Schedule,
    steps: usize,
    rate: (f64, f64),
    recipe: Recipe,
}

impl<S: Score> Granet<S> {
    /// With another budget (uniform is the paper's other form) or selection of weights; the pattern
    /// must be unstructured.
    ///
    /// # Errors
    /// If it is not.
    pub fn with_recipe(mut self, recipe: Recipe) -> Result<Self> {
        if recipe.pattern != regrow_sparse_core::Pattern::Unstructured {
            return Err(Error::Argument(format!("weights regrow one by one, not in the pattern {}", recipe.pattern)));
        }
        self.recipe = recipe;
        Ok(self)
    }

    fn due(&self, step: usize) -> bool {
        (step + 1).is_multiple_of(self.schedule.every()) && step + 1 < self.steps
    }

    /// (1): the weights under the masks of the current sparsity, and these masks.
    fn pruned(&self, view: &mut dyn View, done: usize) -> Result<(Vec<Weight>, MaskSet)> {
        let weights = view.weights()?;
        let Some(sparsity) = self.schedule.due(done) else {
            let masks = weights.iter().map(|w| (w.path.clone(), w.mask_or_dense())).collect();
            return Ok((weights, masks));
        };
        let masks = scoring::masks(view, &self.recipe, &self.score, &weights, sparsity)?;
        let under = |w: Weight| match masks.get(&w.path) {
            Some(mask) => w.under(mask),
            None => Ok(w),
        };
        Ok((weights.into_iter().map(under).collect::<Result<_>>()?, masks))
    }
}

impl<S: Score + 'static> Pruner for Granet<S> {
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change> {
        if !self.due(step) {
            return Ok(Change::None);
        }
        let done = step + 1;
        let rate = half_cosine(self.rate.0, self.rate.1, done as f64 / self.steps as f64);
        let (weights, cleared) = self.pruned(view, done)?;
        let regrown = weights.iter().zip(view.gradients()?).map(|(weight, gradient)| {
            let count = (rate * weight.mask_or_dense().kept() as f64).ceil() as usize;
            let growth: Vec<f32> = gradient.iter().map(|g| g.abs()).collect();
            Ok((weight.path.clone(), drop_and_grow(weight, count, &growth, Candidates::PrunedAndDropped)?))
        });
        Ok(Change::Regrown { masks: regrown.collect::<Result<MaskSet>>()?, cleared })
    }

    fn needs(&self) -> Needs {
        self.recipe.needs(&self.score).and(Needs::GRADIENTS)
    }

    fn needs_gradients(&self, step: usize) -> bool {
        self.due(step)
    }

    fn select(&self) -> Select {
        self.recipe.select.clone()
    }

    fn gradient(&self) -> Gradient {
        Gradient::Dense
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Still, masks_over, weight};

    fn config() -> GranetConfig {
        GranetConfig::new(0.9, 80).with_every(10).with_updates(Some(4))
    }

    fn start() -> Still {
        Still(vec![
            weight("a", &[20, 10], |i| (i * 37 % 211) as f32 - 100.3),
            weight("b", &[10, 10], |i| (i * 53 % 107) as f32 - 50.7),
        ])
    }

    #[test]
    fn the_cubic_schedule_is_met_and_kept_to_the_end() {
        let mut granet = config().init().unwrap();
        let masks = masks_over(&mut granet, &mut start(), 80);
        let pruned: Vec<(usize, usize)> = masks.iter().map(|(step, m)| (*step, m.pruned())).collect();
        // 300 * 0.9 (1 - (1 - k/4)^3); halfway 0.7875 of all.
        assert_eq!(pruned, [(9, 156), (19, 236), (29, 266), (39, 270), (49, 270), (59, 270), (69, 270)]);
    }

    #[test]
    fn regeneration_keeps_the_count_of_every_layer() {
        let granet = config().init().unwrap();
        let (weights, masks) = granet.pruned(&mut start(), 20).unwrap();
        let change = config().init().unwrap().update(19, &mut start()).unwrap();
        let Change::Regrown { masks: after, cleared } = change else { panic!("an update is due") };
        assert_eq!(cleared, masks);
        for weight in weights {
            assert_eq!(after.get(&weight.path).unwrap().pruned(), masks.get(&weight.path).unwrap().pruned());
        }
    }

    #[test]
    fn without_regeneration_it_prunes_by_magnitude_alone() {
        let mut granet = config().with_first_rate(0.0).with_last_rate(0.0).init().unwrap();
        let mut plain = crate::GmpConfig::new(0.9).with_every(10).with_updates(4).init().unwrap().for_good();
        let ours = masks_over(&mut granet, &mut start(), 80);
        // The same updates one step earlier: there the first step is 0 and not 1.
        let theirs = masks_over(&mut plain, &mut start(), 80);
        assert_eq!(
            ours[..4].iter().map(|(_, m)| m).collect::<Vec<_>>(),
            theirs[1..].iter().map(|(_, m)| m).collect::<Vec<_>>()
        );
    }

    #[test]
    fn at_constant_density_it_moves_as_dynamic_sparse_training_does() {
        let sparse = || {
            let mut view = start();
            for weight in &mut view.0 {
                let mask = regrow_sparse_core::Mask::from_fn(weight.shape.clone(), |i| i % 5 == 0);
                weight.mask = Some(mask);
            }
            view
        };
        // A quarter of 40 and of 20 weights: neither rounds.
        let mut granet = GranetConfig::new(0.8, usize::MAX)
            .with_initial(0.8)
            .with_every(1)
            .with_updates(Some(0))
            .with_first_rate(0.25)
            .with_last_rate(0.25)
            .init()
            .unwrap();
        let rigl =
            crate::RiglConfig::new(usize::MAX).with_every(1).with_fraction(0.25).with_dropped_among_candidates(true);
        let ours = masks_over(&mut granet, &mut sparse(), 1);
        assert_eq!(ours, masks_over(&mut rigl.init().unwrap(), &mut sparse(), 1));
        assert_eq!(ours[0].1.pruned(), 240);
    }

    #[test]
    fn impossible_schedules_are_refused() {
        assert!(config().with_initial(0.95).init().is_err(), "the last density above the first");
        assert!(config().with_updates(Some(9)).init().is_err(), "ends after the training");
        let pattern = Recipe::default().with_pattern(regrow_sparse_core::Pattern::Rows);
        assert!(config().init().unwrap().with_recipe(pattern).is_err());
    }
}
