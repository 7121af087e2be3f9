//! Sparse Model Soups (Zimmer, Spiegel, Pokutta, ICLR 2024, arXiv 2306.16788, alg. 1).
//!
//! Iterative pruning in K phases. In each, the model is pruned, m copies are retrained from the
//! same pruned weights with something varied, and their average starts the next phase:
//!
//! ```text
//! theta <- trained model
//! for k = 1..K:   M_k, theta' <- prune(theta)
//!                 theta_1..theta_m <- retrain(theta') with m variations
//!                 theta <- merge(theta_1..theta_m), batch norm recomputed
//! ```
//!
//! All copies carry the mask `M_k`, so the average is as sparse as each of them.

use burn::module::Module;
use regrow_device::parallel::side_by_side;
use regrow_sparse_core::model::deep_copy::apart;
use regrow_sparse_core::model::masked;
use regrow_sparse_core::{Error, MaskSet, Result};

use crate::soup::Soup;

/// How many phases and candidates, and how candidates are merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sms {
    /// Prune-retrain phases, K.
    pub phases: usize,
    /// Candidates per phase, m.
    pub candidates: usize,
    /// How they are merged.
    pub soup: Soup,
    /// How many candidates are retrained at the same time.
    pub parallel: usize,
}

/// What one phase did.
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

/// What a soup needs from outside: how to prune, retrain, recompute batch norm, validate.
pub trait Kitchen<M, E>: Sync {
    /// Prunes `model` for phase `phase` (from 1) and returns it with its masks.
    ///
    /// # Errors
    /// If it cannot be pruned so far.
    fn prune(&self, model: M, phase: usize) -> Result<(M, MaskSet), E>;

    /// Retrains the pruned `model` as candidate `candidate` (from 0) of phase `phase`.
    ///
    /// # Errors
    /// If training fails.
    fn retrain(&self, model: M, phase: usize, candidate: usize) -> Result<M, E>;

    /// [`Kitchen::retrain`] for all `candidates` of a phase, in order: here up to `parallel` side by side. One who
    /// has several devices gives each some.
    ///
    /// # Errors
    /// If any training fails.
    fn retrain_all(&self, model: &M, phase: usize, candidates: usize, parallel: usize) -> Result<Vec<M>, E>
    where
        M: Module + Sync,
        E: From<Error> + Send,
    {
        // Side by side, candidates must not share the statistics that training changes.
        side_by_side(candidates, parallel, |candidate| self.retrain(apart(model), phase, candidate))
    }

    /// Recomputes the batch-norm statistics of an average.
    ///
    /// # Errors
    /// If that fails.
    fn recalibrate(&self, model: M) -> Result<M, E> {
        Ok(model)
    }

    /// A score on held-out data, larger is better; only the greedy soup asks.
    ///
    /// # Errors
    /// If the model cannot be judged.
    fn validate(&self, model: &M) -> Result<f64, E>;
}

impl Sms {
    /// `phases` phases of `candidates` candidates, merged uniformly, one after another.
    ///
    /// # Errors
    /// If either is zero.
    pub fn new(phases: usize, candidates: usize) -> Result<Self> {
        match (phases, candidates) {
            (0, _) => Err(Error::Argument("a sparse model soup needs at least one phase".into())),
            (_, 0) => Err(Error::Argument("a sparse model soup needs at least one candidate per phase (m)".into())),
            _ => Ok(Self { phases, candidates, soup: Soup::Uniform, parallel: 1 }),
        }
    }

    /// With another way of merging.
    pub fn with_soup(mut self, soup: Soup) -> Self {
        self.soup = soup;
        self
    }

    /// With up to `threads` candidates retrained side by side.
    pub fn with_parallel(mut self, threads: usize) -> Self {
        self.parallel = threads.max(1);
        self
    }

    /// Runs all phases from the trained `model` and returns the last soup. `watch` sees each phase.
    ///
    /// # Errors
    /// What the kitchen runs into, or a candidate whose masks are not the phase's.
    pub fn run<M: Module + Sync, E: From<Error> + Send>(
        &self,
        mut model: M,
        kitchen: &impl Kitchen<M, E>,
        watch: &mut dyn FnMut(&Phase<M>),
    ) -> Result<M, E> {
        for number in 1..=self.phases {
            let phase = self.phase(model, number, kitchen)?;
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
        kitchen: &impl Kitchen<M, E>,
    ) -> Result<Phase<M>, E> {
        let (pruned, masks) = kitchen.prune(model, number)?;
        let candidates = kitchen.retrain_all(&pruned, number, self.candidates, self.parallel)?;
        for (i, candidate) in candidates.iter().enumerate() {
            if let Some(place) = masks.difference(&masked::masks(candidate)?) {
                return Err(Error::Argument(format!("candidate {i} left the mask of phase {number}: {place}")).into());
            }
        }
        let finish = &mut |soup| kitchen.recalibrate(soup);
        let (soup, ingredients) = self.soup.cook(&candidates, finish, &mut |m| kitchen.validate(m))?;
        Ok(Phase { number, masks, candidates, soup, ingredients })
    }
}
