//! Iterative magnitude pruning (IMP), by magnitude or any other score: prune a fraction of the rest, retrain, repeat.
//!
//! Over K phases to sparsity S each phase prunes `p = 1 - (1 - S)^(1/K)` of the remaining weights (Han et al., arXiv
//! 1506.02626; Renda et al., arXiv 2003.02389). One phase is one-shot pruning with fine-tuning. With a rewind point,
//! the kept weights are reset to their values there before each retraining (lottery tickets, arXiv 1803.03635 and
//! 1903.01611).

use burn::module::Module;
use regrow_sparse_core::mask::schedule::Curve;
use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks};
use regrow_sparse_core::model::probe::Probe;
use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::score::Score;
use regrow_sparse_core::{Error, MaskSet, Result, Schedule};

use crate::Magnitude;
use crate::one_shot::step;

/// How a model is pruned in phases.
#[derive(Clone, Debug)]
pub struct Imp<S = Magnitude> {
    score: S,
    sparsity: f64,
    phases: usize,
    recipe: Recipe,
}

impl<S: Score> Imp<S> {
    /// To `sparsity` in `phases` phases: globally, unstructured, over the default selection.
    ///
    /// # Errors
    /// Sparsity outside [0, 1), or no phase.
    pub fn new(score: S, sparsity: f64, phases: usize) -> Result<Self> {
        regrow_sparse_core::mask::schedule::check_sparsity(sparsity)?;
        match phases {
            0 => Err(Error::Argument("pruning needs at least one phase".into())),
            _ => Ok(Self { score, sparsity, phases, recipe: Recipe::default() }),
        }
    }

    /// With another budget, pattern or selection of weights.
    pub fn with_recipe(mut self, recipe: Recipe) -> Self {
        self.recipe = recipe;
        self
    }

    /// The number of phases.
    pub fn phases(&self) -> usize {
        self.phases
    }

    /// The sparsity after phase `phase`, counted from 1: `1 - (1 - p)^phase`.
    ///
    /// # Errors
    /// None for the values that [`Imp::new`] accepts.
    pub fn sparsity(&self, phase: usize) -> Result<f64> {
        Ok(Schedule::new(Curve::Geometric, 0.0, self.sparsity, 0, 1, self.phases)?.sparsity(phase))
    }

    /// Prunes `model` to the sparsity of `phase` (from 1) and returns it with its masks. The new mask is a subset of
    /// the old one.
    ///
    /// # Errors
    /// If the model's weights cannot be scored or pruned that far.
    pub fn prune<M: Module>(&self, model: M, phase: usize) -> Result<(M, MaskSet)> {
        self.prune_with(model, phase, &Probe::new())
    }

    /// The same; `probe` provides what the score and the budget need besides weights.
    ///
    /// # Errors
    /// As [`Imp::prune`], or if the probe does not provide it.
    pub fn prune_with<M: Module>(&self, model: M, phase: usize, probe: &Probe<M>) -> Result<(M, MaskSet)> {
        step(&self.recipe, model, &self.score, probe, self.sparsity(phase)?)
    }

    /// Runs all phases from the trained `model`: prune, rewind to `rewind` if given, then `retrain(model, phase)`.
    ///
    /// # Errors
    /// Errors of pruning or `retrain`.
    pub fn run<M: Module, E: From<Error>>(
        &self,
        model: M,
        rewind: Option<&M>,
        retrain: impl FnMut(M, usize) -> Result<M, E>,
    ) -> Result<M, E> {
        self.run_with(model, &Probe::new(), rewind, retrain)
    }

    /// The same; `probe` provides what the score and the budget need besides weights.
    ///
    /// # Errors
    /// As [`Imp::run`], or if the probe does not provide it.
    pub fn run_with<M: Module, E: From<Error>>(
        &self,
        mut model: M,
        probe: &Probe<M>,
        rewind: Option<&M>,
        mut retrain: impl FnMut(M, usize) -> Result<M, E>,
    ) -> Result<M, E> {
        for phase in 1..=self.phases {
            let (pruned, masks) = self.prune_with(model, phase, probe)?;
            let start = match rewind {
                Some(early) => apply_masks(early.clone(), &masks, Gradient::Masked, Base::Zeroed)?,
                None => pruned,
            };
            model = retrain(start, phase)?;
        }
        Ok(model)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use regrow_sparse_core::model::masked::masks;
    use regrow_sparse_core::model::weight::{Select, weights};

    use super::*;

    fn layer() -> Linear {
        regrow_device::current().seed(1);
        LinearConfig::new(20, 30).init(&regrow_device::current())
    }

    #[test]
    fn three_phases_nest_and_end_exactly() {
        let imp = Imp::new(Magnitude, 0.9, 3).unwrap();
        let mut seen: Vec<MaskSet> = Vec::new();
        let end = imp
            .run::<_, Error>(layer(), None, |model, _| {
                seen.push(masks(&model)?);
                Ok(model)
            })
            .unwrap();
        assert_eq!(seen.iter().map(MaskSet::pruned).collect::<Vec<_>>(), [322, 471, 540]);
        assert!(seen[2].is_within(&seen[1]) && seen[1].is_within(&seen[0]));
        assert_eq!(masks(&end).unwrap(), seen[2]);
    }

    #[test]
    fn rewinding_gives_back_the_early_values() {
        let early = layer();
        let trained = Linear { weight: early.weight.clone().map(|w| w * 2.0), bias: early.bias.clone() };
        let imp = Imp::new(Magnitude, 0.5, 1).unwrap();
        let end = imp.run::<_, Error>(trained, Some(&early), |model, _| Ok(model)).unwrap();
        let all = weights(&end, &Select::default()).unwrap();
        let start = weights(&early, &Select::default()).unwrap();
        let kept = all[0].values.iter().zip(&start[0].values).filter(|(now, before)| now == before).count();
        assert_eq!(kept, 300);
        assert_eq!(all[0].values.iter().filter(|w| **w == 0.0).count(), 300);
    }

    #[test]
    fn no_phase_or_impossible_sparsity_is_refused() {
        assert!(Imp::new(Magnitude, 0.9, 0).is_err());
        assert!(Imp::new(Magnitude, 1.0, 1).is_err());
    }
}
