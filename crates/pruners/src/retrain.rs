//! Learning rates for retraining after pruning, by the names of the literature.
//!
//! FT and LRW: Renda et al. (arXiv 2003.02389); SLR and CLR: Le & Hua (arXiv 2105.03193); LLR and
//! ALLR: Zimmer et al. (arXiv 2111.00843), as Sparse Model Soups uses them (arXiv 2306.16788).

use regrow_sparse_core::lr::{Decay, LrSchedule};
use regrow_sparse_core::{Error, Result};

/// Fraction of the retraining steps that warm up in SLR, CLR, LLR and ALLR.
const WARMUP: f64 = 0.1;

/// How the learning rate runs while retraining.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Retrain {
    /// Fine-tuning: constant at the last rate of pretraining.
    FineTune,
    /// Learning-rate rewinding: the last epochs of pretraining's schedule again.
    Rewind,
    /// The whole schedule of pretraining, compressed, from its largest rate.
    Scaled,
    /// A cosine from pretraining's largest rate to zero.
    Cyclic,
    /// A line from pretraining's largest rate to zero.
    #[default]
    Linear,
    /// As linear, from `largest * clip(|removed| / (|weights| * sqrt(p)), min(1, E / E_pretrain), 1)`:
    /// the more pruning took, the larger. `p` is the fraction of weights pruned in this phase.
    Adaptive {
        /// Norm of the weights that this phase removed.
        removed: f64,
        /// Norm of the weights before.
        weights: f64,
        /// Fraction of the remaining weights that this phase pruned.
        pruned: f64,
    },
}

/// A schedule for one phase: pretraining's, or a piece of it.
#[derive(Clone, Debug, PartialEq)]
pub struct RetrainLr {
    schedule: LrSchedule,
    /// First step on the schedule's own scale, and that scale's number of steps.
    window: Option<(usize, usize)>,
}

impl RetrainLr {
    /// The rate of step `step` of `total`.
    pub fn at(&self, step: usize, total: usize) -> f64 {
        match self.window {
            Some((first, all)) => self.schedule.at(first + step, all),
            None => self.schedule.at(step, total),
        }
    }

    /// As a schedule for the training loop, where it is one.
    pub fn as_schedule(&self) -> Option<&LrSchedule> {
        self.window.is_none().then_some(&self.schedule)
    }
}

impl Retrain {
    /// The rates of a phase of `epochs` epochs after pretraining for `pretrained` epochs of
    /// `steps` steps with `original`.
    ///
    /// # Errors
    /// If there was no pretraining to take rates from.
    pub fn schedule(self, original: &LrSchedule, pretrained: usize, epochs: usize, steps: usize) -> Result<RetrainLr> {
        if pretrained == 0 || steps == 0 {
            return Err(Error::Argument(
                "retraining takes its learning rate from a pretraining of at least one epoch".into(),
            ));
        }
        let whole = |schedule: LrSchedule| RetrainLr { schedule, window: None };
        let all = pretrained * steps;
        let largest = original.initial;
        Ok(match self {
            Self::FineTune => whole(LrSchedule::constant(original.at(all - 1, all))),
            Self::Rewind => {
                RetrainLr { schedule: original.clone(), window: Some((pretrained.saturating_sub(epochs) * steps, all)) }
            }
            Self::Scaled => whole(original.clone().with_warmup(WARMUP)),
            Self::Cyclic => whole(LrSchedule::cosine(largest).with_warmup(WARMUP)),
            Self::Linear => whole(LrSchedule::linear(largest).with_warmup(WARMUP)),
            Self::Adaptive { removed, weights, pruned } => {
                let least = (epochs as f64 / pretrained as f64).min(1.0);
                let share = (removed / (weights * pruned.sqrt())).clamp(least, 1.0);
                whole(LrSchedule { initial: largest * share, decay: Decay::Linear { end: 0.0 }, warmup: WARMUP })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(retrain: Retrain) -> f64 {
        let rates = retrain.schedule(&LrSchedule::linear(0.1), 10, 2, 100).unwrap();
        (0..200).map(|step| rates.at(step, 200)).fold(0.0, f64::max)
    }

    #[test]
    fn the_largest_rate_of_each() {
        assert!((first(Retrain::FineTune) - 0.0001).abs() < 1e-9);
        assert!((first(Retrain::Rewind) - 0.02).abs() < 1e-9);
        for retrain in [Retrain::Scaled, Retrain::Cyclic, Retrain::Linear] {
            assert!((first(retrain) - 0.1).abs() < 1e-9, "{retrain:?}");
        }
    }

    #[test]
    fn adaptive_clips_on_both_sides() {
        let adaptive = |removed| first(Retrain::Adaptive { removed, weights: 10.0, pruned: 0.25 });
        assert!((adaptive(0.01) - 0.02).abs() < 1e-9, "never below E / E_pretrain");
        assert!((adaptive(2.5) - 0.05).abs() < 1e-9);
        assert!((adaptive(9.0) - 0.1).abs() < 1e-9, "never above the largest rate");
    }
}
