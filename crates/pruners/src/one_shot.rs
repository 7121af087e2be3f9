//! Pruning at once by any score, or in rounds without training between them.
//!
//! In round `k` of `n` the density goes to `d^(k/n)` and the scores are recomputed on the remaining weights, as in
//! SynFlow (arXiv 2006.05467, algorithm 1); one round is one-shot pruning.

use burn::module::Module;
use burn::tensor::Device;
use regrow_sparse_core::mask::schedule::{Curve, check_sparsity};
use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks};
use regrow_sparse_core::model::probe::Probe;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::score::Score;
use regrow_sparse_core::{Error, MaskSet, Result, Schedule};

use crate::Magnitude;

/// Prunes a model by a score, without training.
#[derive(Clone, Debug)]
pub struct OneShot<S = Magnitude> {
    score: S,
    sparsity: f64,
    rounds: usize,
    recipe: Recipe,
}

impl<S: Score> OneShot<S> {
    /// To `sparsity` in one round: globally, unstructured, over the default selection.
    ///
    /// # Errors
    /// Sparsity outside [0, 1).
    pub fn new(score: S, sparsity: f64) -> Result<Self> {
        check_sparsity(sparsity)?;
        Ok(Self { score, sparsity, rounds: 1, recipe: Recipe::default() })
    }

    /// In `rounds` rounds.
    ///
    /// # Errors
    /// If there is none.
    pub fn with_rounds(mut self, rounds: usize) -> Result<Self> {
        if rounds == 0 {
            return Err(Error::Argument("pruning needs at least one round".into()));
        }
        self.rounds = rounds;
        Ok(self)
    }

    /// With another budget, pattern or selection of weights.
    pub fn with_recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = recipe;
        self
    }

    /// Prunes `model` with a score that uses weights only.
    ///
    /// # Errors
    /// As [`OneShot::prune_with`].
    pub fn prune<M: Module>(&self, model: M) -> Result<(M, MaskSet)> {
        self.prune_with(model, &Probe::new())
    }

    /// Prunes `model`; `probe` provides what the score and the budget need besides weights.
    ///
    /// # Errors
    /// Evidence that the probe does not provide, and errors of the recipe.
    pub fn prune_with<M: Module>(&self, model: M, probe: &Probe<M>) -> Result<(M, MaskSet)> {
        if self.rounds == 1 {
            return step(&self.recipe, model, &self.score, probe, self.sparsity);
        }
        let masks = self.masks(&model, probe)?;
        Ok((apply_masks(model, &masks, Gradient::Masked, Base::Zeroed)?, masks))
    }

    /// The masks that [`OneShot::prune_with`] would apply; the model is not changed.
    ///
    /// # Errors
    /// As [`OneShot::prune_with`].
    pub fn masks<M: Module>(&self, model: &M, probe: &Probe<M>) -> Result<MaskSet> {
        let schedule = Schedule::new(Curve::Geometric, 0.0, self.sparsity, 0, 1, self.rounds)?;
        let (mut model, mut masks) = (model.clone(), MaskSet::new());
        for round in 1..=self.rounds {
            (model, masks) = step(&self.recipe, model, &self.score, probe, schedule.sparsity(round))?;
        }
        Ok(masks)
    }
}

/// One pruning step with evidence about the current `model` from `probe`.
pub(crate) fn step<M: Module>(
    recipe: &Recipe,
    model: M,
    score: &dyn Score,
    probe: &Probe<M>,
    sparsity: f64,
) -> Result<(M, MaskSet)> {
    let needs = recipe.needs(score);
    if needs.is_none() {
        return recipe.prune(model, score, sparsity);
    }
    needs.check(&probe.offers(), score.name())?;
    // A model after training is on a device without gradients.
    let trains = !(needs.gradients || needs.hessian_gradient) || model.devices().iter().all(Device::is_autodiff);
    let evidence = match trains {
        true => probe.evidence(&model, &recipe.select, &needs)?,
        false => probe.evidence(&model.clone().train(), &recipe.select, &needs)?,
    };
    recipe.clone().with_evidence(evidence).prune(model, score, sparsity)
}

#[cfg(test)]
mod tests {
    use regrow_sparse_core::model::weight::Select;

    use super::*;
    use crate::testing::Chain;
    use crate::{Random, Snip};

    fn recipe() -> Recipe {
        Recipe::default().with_select(Select::default().with_head())
    }

    #[test]
    fn rounds_end_at_the_sparsity_and_nest() {
        let chain = Chain::new(&[0.5, -1.0, 2.0, 4.0, 0.1, 0.2, 0.3], 3.0);
        let masks = |rounds| {
            let one = OneShot::new(Magnitude, 0.5).unwrap().with_rounds(rounds).unwrap().with_recipe(recipe());
            one.masks(&chain, &Probe::new()).unwrap()
        };
        assert_eq!(masks(1), masks(4));
        let again = OneShot::new(Random { seed: 1 }, 0.75).unwrap().with_rounds(3).unwrap().with_recipe(recipe());
        assert_eq!(again.prune(chain).unwrap().1.pruned(), 6);
        assert!(OneShot::new(Magnitude, 0.5).unwrap().with_rounds(0).is_err() && OneShot::new(Magnitude, 1.0).is_err());
    }

    #[test]
    fn evidence_that_nobody_brings_is_named() {
        let chain = Chain::new(&[0.5, -1.0], 3.0);
        let says = OneShot::new(Snip, 0.5).unwrap().prune(chain).unwrap_err().to_string();
        assert!(says.starts_with("snip needs gradients of the loss (`Probe::with_loss`)"), "{says}");
    }
}
