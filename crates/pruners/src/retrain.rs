//! Learning rates for retraining after pruning, by the names of the literature.
//!
//! FT and LRW: Renda et al. (arXiv 2003.02389); SLR and CLR: Le & Hua (arXiv 2105.03193); LLR and
//! ALLR: Zimmer et al. (arXiv 2111.00843), as Sparse Model Soups uses them (arXiv 2306.16788).

use regrow_sparse_core::{Error, Result};
use regrow_train::lr::LrSchedule;

/// Fraction of the retraining steps that warm up in SLR, CLR, LLR and ALLR.
const WARMUP: f64 = 0.1;

/// The learning-rate schedule of retraining.
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

impl Retrain {
    /// The rates of a phase of `epochs` epochs after pretraining for `pretrained` epochs of
    /// `steps` steps with `original`.
    ///
    /// # Errors
    /// If there was no pretraining to take rates from.
    pub fn schedule(self, original: &LrSchedule, pretrained: usize, epochs: usize, steps: usize) -> Result<LrSchedule> {
        if pretrained == 0 || steps == 0 {
            return Err(Error::Argument(
                "retraining takes its learning rate from a pretraining of at least one epoch".into(),
            ));
        }
        let all = pretrained * steps;
        let largest = original.initial;
        Ok(match self {
            Self::FineTune => LrSchedule::constant(original.at(all - 1, all)),
            // A phase longer than pretraining gets the whole schedule, stretched.
            Self::Rewind => original.clone().after((1.0 - epochs as f64 / pretrained as f64).max(0.0)),
            Self::Scaled => original.clone().with_warmup(WARMUP),
            Self::Cyclic => LrSchedule::cosine(largest).with_warmup(WARMUP),
            Self::Linear => LrSchedule::linear(largest).with_warmup(WARMUP),
            Self::Adaptive { removed, weights, pruned } => {
                let least = (epochs as f64 / pretrained as f64).min(1.0);
                let share = (removed / (weights * pruned.sqrt())).clamp(least, 1.0);
                LrSchedule::linear(largest * share).with_warmup(WARMUP)
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
    fn rewinding_repeats_the_last_epochs_even_of_a_longer_phase() {
        let original = LrSchedule::linear(0.1);
        let rates = Retrain::Rewind.schedule(&original, 10, 2, 100).unwrap();
        (0..200).for_each(|step| assert_eq!(rates.at(step, 200), original.at(800 + step, 1000)));
        let longer = Retrain::Rewind.schedule(&original, 10, 20, 100).unwrap();
        assert!((0..2000).all(|step| longer.at(step, 2000) > 0.0));
    }

    #[test]
    fn adaptive_clips_on_both_sides() {
        let adaptive = |removed| first(Retrain::Adaptive { removed, weights: 10.0, pruned: 0.25 });
        assert!((adaptive(0.01) - 0.02).abs() < 1e-9, "never below E / E_pretrain");
        assert!((adaptive(2.5) - 0.05).abs() < 1e-9);
        assert!((adaptive(9.0) - 0.1).abs() < 1e-9, "never above the largest rate");
    }
}
