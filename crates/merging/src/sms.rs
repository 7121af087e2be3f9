//! Sparse Model Soups (Zimmer, Spiegel, Pokutta, ICLR 2024, arXiv 2306.16788, alg. 1).
//!
//! Iterative pruning in K phases. In each, the model is pruned, m copies are retrained from the same pruned weights
//! with a varied setting, and their average starts the next phase:
//!
//! ```text
//! theta <- trained model
//! for k = 1..K:   M_k, theta' <- prune(theta)
//!                 theta_1..theta_m <- retrain(theta') with m variations
//!                 theta <- merge(theta_1..theta_m), batch norm recomputed
//! ```
//!
//! All copies have the mask `M_k`, so the average is as sparse as each of them.

use burn::config::Config;
use burn::module::Module;
use regrow_device::parallel::side_by_side;
use regrow_sparse_core::model::deep_copy::deep_clone;
use regrow_sparse_core::model::masked;
use regrow_sparse_core::{Error, MaskSet, Result};

use crate::soup::Soup;

/// Settings of [`Sms`].
#[derive(Config, Debug, PartialEq, Eq)]
pub struct SmsConfig {
    /// Prune-retrain phases, K.
    #[config(default = 3)]
    pub phases: usize,
    /// Candidates per phase, m.
    #[config(default = 3)]
    pub candidates: usize,
    /// How they are merged.
    #[config(default = "Soup::Uniform")]
    pub soup: Soup,
    /// How many candidates are retrained at the same time.
    #[config(default = 1)]
    pub parallel: usize,
}

/// Phases of pruning, retraining and merging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sms {
    phases: usize,
    candidates: usize,
    soup: Soup,
    parallel: usize,
}

/// The result of one phase.
#[derive(Clone, Debug)]
pub struct Phase<M> {
    /// From 1.
    pub number: usize,
    /// The mask of all candidates and of the soup.
    pub masks: MaskSet,
    /// The retrained candidates.
    pub candidates: Vec<M>,
    /// Their soup.
    pub soup: M,
    /// How many candidates went into it.
    pub ingredients: usize,
}

/// The steps of a soup that depend on model and data: how to prune, retrain, recompute batch norm, validate.
pub trait SoupTrainer<M, E>: Sync {
    /// Prunes `model` for phase `phase` (from 1) and returns it with its masks.
    ///
    /// # Errors
    /// If it cannot be pruned that far.
    fn prune(&self, model: M, phase: usize) -> Result<(M, MaskSet), E>;

    /// Retrains the pruned `model` as candidate `candidate` (from 0) of phase `phase`.
    ///
    /// # Errors
    /// If training fails.
    fn retrain(&self, model: M, phase: usize, candidate: usize) -> Result<M, E>;

    /// [`SoupTrainer::retrain`] for all `candidates` of a phase, in order: up to `parallel` at a time. An
    /// implementation with several devices may distribute them.
    ///
    /// # Errors
    /// If any training fails.
    fn retrain_all(&self, model: &M, phase: usize, candidates: usize, parallel: usize) -> Result<Vec<M>, E>
    where
        M: Module + Sync,
        E: From<Error> + Send,
    {
        // In parallel, candidates must not share the statistics that training changes.
        side_by_side(candidates, parallel, |candidate| self.retrain(deep_clone(model), phase, candidate))
    }

    /// Recomputes the batch-norm statistics of an average.
    ///
    /// # Errors
    /// If that fails.
    fn recalibrate(&self, model: M) -> Result<M, E> {
        Ok(model)
    }

    /// A score on held-out data, larger is better; needed only by the greedy soup.
    ///
    /// # Errors
    /// If the model cannot be evaluated.
    fn validate(&self, model: &M) -> Result<f64, E>;
}

impl SmsConfig {
    /// The method.
    ///
    /// # Errors
    /// No phases, no candidates, none at a time.
    pub fn init(&self) -> Result<Sms> {
        let Self { phases, candidates, soup, parallel } = *self;
        match (phases, candidates, parallel) {
            (0, ..) => Err(Error::Argument("a sparse model soup needs at least one phase".into())),
            (_, 0, _) => Err(Error::Argument("a sparse model soup needs at least one candidate per phase (m)".into())),
            (.., 0) => Err(Error::Argument("a sparse model soup retrains at least one candidate at a time".into())),
            _ => Ok(Sms { phases, candidates, soup, parallel }),
        }
    }
}

impl Sms {
    /// Prune-retrain phases, K.
    pub fn phases(&self) -> usize {
        self.phases
    }

    /// Candidates per phase, m.
    pub fn candidates(&self) -> usize {
        self.candidates
    }

    /// Runs all phases from the trained `model` and returns the last soup. `watch` is called after each phase.
    ///
    /// # Errors
    /// Errors of `trainer`, or a candidate whose masks differ from the phase's.
    pub fn run<M: Module + Sync, E: From<Error> + Send>(
        &self,
        mut model: M,
        trainer: &impl SoupTrainer<M, E>,
        watch: &mut dyn FnMut(&Phase<M>),
    ) -> Result<M, E> {
        for number in 1..=self.phases {
            let phase = self.phase(model, number, trainer)?;
            watch(&phase);
            model = phase.soup;
        }
        Ok(model)
    }

    /// One phase from `model`.
    ///
    /// # Errors
    /// As [`Sms::run`].
    pub fn phase<M: Module + Sync, E: From<Error> + Send>(
        &self,
        model: M,
        number: usize,
        trainer: &impl SoupTrainer<M, E>,
    ) -> Result<Phase<M>, E> {
        let (pruned, masks) = trainer.prune(model, number)?;
        let candidates = trainer.retrain_all(&pruned, number, self.candidates, self.parallel)?;
        for (i, candidate) in candidates.iter().enumerate() {
            if let Some(place) = masks.difference(&masked::masks(candidate)?) {
                return Err(Error::Argument(format!("candidate {i} left the mask of phase {number}: {place}")).into());
            }
        }
        let finish = &mut |soup| trainer.recalibrate(soup);
        let (soup, ingredients) = self.soup.cook(&candidates, finish, &mut |m| trainer.validate(m))?;
        Ok(Phase { number, masks, candidates, soup, ingredients })
    }
}
