//! Learning rate over the steps of a training run.

use serde::{Deserialize, Serialize};

use regrow_sparse_core::mask::schedule::half_cosine;

/// How the rate decays after the warm-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Decay {
    /// It stays constant.
    Constant,
    /// Half a cosine from the initial rate to `end`.
    Cosine {
        /// The last rate.
        end: f64,
    },
    /// A straight line from the initial rate to `end`.
    Linear {
        /// The last rate.
        end: f64,
    },
    /// Times `factor` at each of `milestones`, fractions of the run in [0, 1].
    Step {
        /// Fractions of the run.
        milestones: Vec<f64>,
        /// Multiplier at each.
        factor: f64,
    },
}

/// A learning-rate schedule: `warmup` (a fraction of the steps) linearly from 0, then a decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LrSchedule {
    /// The rate after the warm-up.
    pub initial: f64,
    /// The decay after the warm-up.
    pub decay: Decay,
    /// Fraction of the steps that warm up, in [0, 1).
    pub warmup: f64,
    /// Fraction of the schedule that was run before and is left out, in [0, 1): the rest is spread over all steps.
    #[serde(default)]
    pub skip: f64,
    /// Fraction of the schedule at which it is cut off, in (0, 1].
    #[serde(default = "whole")]
    pub stop: f64,
}

fn whole() -> f64 {
    1.0
}

impl LrSchedule {
    /// A constant rate.
    pub fn constant(rate: f64) -> Self {
        Self { initial: rate, decay: Decay::Constant, warmup: 0.0, skip: 0.0, stop: 1.0 }
    }

    /// From `initial` straight to zero.
    pub fn linear(initial: f64) -> Self {
        Self { initial, decay: Decay::Linear { end: 0.0 }, warmup: 0.0, skip: 0.0, stop: 1.0 }
    }

    /// From `initial` to zero along half a cosine.
    pub fn cosine(initial: f64) -> Self {
        Self { initial, decay: Decay::Cosine { end: 0.0 }, warmup: 0.0, skip: 0.0, stop: 1.0 }
    }

    /// The same with the first `fraction` of the steps rising from 0.
    pub fn with_warmup(mut self, fraction: f64) -> Self {
        self.warmup = fraction;
        self
    }

    /// Only what comes after the first `fraction` of the schedule.
    pub fn after(self, fraction: f64) -> Self {
        self.between(fraction, 1.0)
    }

    /// Only the part from `first` to `last`, fractions of the schedule.
    pub fn between(mut self, first: f64, last: f64) -> Self {
        (self.skip, self.stop) = (first, last);
        self
    }

    /// The rate of step `step` (from 0) of `total`.
    pub fn at(&self, step: usize, total: usize) -> f64 {
        let whole = (total as f64 / (self.stop - self.skip)).round();
        self.of_whole(step + (self.skip * whole).round() as usize, whole as usize)
    }

    fn of_whole(&self, step: usize, total: usize) -> f64 {
        let warm = (self.warmup * total as f64).floor() as usize;
        if step < warm {
            return self.initial * (step + 1) as f64 / (warm + 1) as f64;
        }
        let x = (step - warm) as f64 / total.saturating_sub(warm).max(1) as f64;
        match &self.decay {
            Decay::Constant => self.initial,
            Decay::Cosine { end } => half_cosine(self.initial, *end, x),
            Decay::Linear { end } => self.initial + (end - self.initial) * x,
            Decay::Step { milestones, factor } => {
                let passed = milestones.iter().filter(|m| step as f64 >= **m * total as f64).count();
                self.initial * factor.powi(passed as i32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_by_hand() {
        let linear = LrSchedule::linear(0.1);
        assert_eq!((linear.at(0, 10), linear.at(5, 10)), (0.1, 0.05));
        let warm = LrSchedule::linear(0.1).with_warmup(0.2);
        assert!((warm.at(0, 10) - 0.1 / 3.0).abs() < 1e-12 && warm.at(2, 10) == 0.1);
        assert!((LrSchedule::cosine(0.2).at(5, 10) - 0.1).abs() < 1e-12);
        let step = LrSchedule {
            initial: 1.0,
            decay: Decay::Step { milestones: vec![0.5, 0.75], factor: 0.1 },
            warmup: 0.0,
            skip: 0.0,
            stop: 1.0,
        };
        assert_eq!((step.at(4, 10), step.at(5, 10)), (1.0, 0.1));
        assert!((step.at(9, 10) - 0.01).abs() < 1e-12);
        assert_eq!(LrSchedule::constant(0.3).at(99, 100), 0.3);
    }

    #[test]
    fn the_rest_of_a_schedule_has_the_rates_of_the_whole() {
        let whole = LrSchedule::cosine(0.1).with_warmup(0.1);
        let rest = whole.clone().after(0.75);
        (0..25).for_each(|step| assert_eq!(rest.at(step, 25), whole.at(75 + step, 100)));
        let part = whole.clone().between(0.2, 0.6);
        (0..40).for_each(|step| assert_eq!(part.at(step, 40), whole.at(20 + step, 100)));
    }
}
