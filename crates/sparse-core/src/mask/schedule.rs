//! Sparsity over time.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How sparsity changes from its first to its last value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Curve {
    /// Equal steps: `s_i + (s_f - s_i) x`.
    Linear,
    /// Fast, then slow (Zhu & Gupta, arXiv 1710.01878, eq. 1): `s_f + (s_i - s_f)(1 - x)^3`.
    Cubic,
    /// An equal fraction of the remaining weights each time, as in iterative magnitude pruning:
    /// `1 - (1 - s_i) ((1 - s_f) / (1 - s_i))^x`.
    Geometric,
}

/// When masks are updated, and to which sparsity: at steps `begin + k * every` for `k` in
/// `0..=updates`, with `x = k / updates` on the curve. Nothing happens before `begin`; afterwards
/// the last sparsity stays.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    curve: Curve,
    initial: f64,
    last: f64,
    begin: usize,
    every: usize,
    updates: usize,
}

impl Schedule {
    /// All at once, at step `begin`.
    ///
    /// # Errors
    /// If `sparsity` is outside [0, 1).
    pub fn one_shot(sparsity: f64, begin: usize) -> Result<Self> {
        Self::new(Curve::Linear, sparsity, sparsity, begin, 1, 0)
    }

    /// From `initial` to `last` sparsity along `curve`, in `updates` updates after the first.
    ///
    /// # Errors
    /// Sparsities outside [0, 1), `last` below `initial`, or `every` zero.
    pub fn new(curve: Curve, initial: f64, last: f64, begin: usize, every: usize, updates: usize) -> Result<Self> {
        check_sparsity(initial)?;
        check_sparsity(last)?;
        if last < initial {
            return Err(Error::Argument(format!(
                "a schedule cannot end at sparsity {last}, below its start {initial}"
            )));
        }
        if every == 0 {
            return Err(Error::Argument("a schedule needs at least one step between updates".into()));
        }
        Ok(Self { curve, initial, last, begin, every, updates })
    }

    /// The sparsity at update number `k` (`updates` and beyond: the last).
    pub fn sparsity(&self, k: usize) -> f64 {
        if k >= self.updates {
            return self.last;
        }
        let (si, sf, x) = (self.initial, self.last, k as f64 / self.updates as f64);
        match self.curve {
            Curve::Linear => si + (sf - si) * x,
            Curve::Cubic => sf + (si - sf) * (1.0 - x).powi(3),
            Curve::Geometric => 1.0 - (1.0 - si) * ((1.0 - sf) / (1.0 - si)).powf(x),
        }
    }

    /// The sparsity that the masks should have at `step`; `None` if nothing changes.
    pub fn due(&self, step: usize) -> Option<f64> {
        let since = step.checked_sub(self.begin)?;
        let k = since / self.every;
        (since.is_multiple_of(self.every) && k <= self.updates).then(|| self.sparsity(k))
    }

    /// The sparsity at `step`: that of the last update so far, 0 before the first.
    pub fn in_force(&self, step: usize) -> f64 {
        step.checked_sub(self.begin).map_or(0.0, |since| self.sparsity(since / self.every))
    }

    /// The step of the first update.
    pub fn begin(&self) -> usize {
        self.begin
    }

    /// Steps between two updates.
    pub fn every(&self) -> usize {
        self.every
    }

    /// The step of the last update.
    pub fn end(&self) -> usize {
        self.begin + self.every * self.updates
    }
}

/// From `from` (at x = 0) to `to` (at x = 1 and beyond) along half a cosine.
pub fn half_cosine(from: f64, to: f64, x: f64) -> f64 {
    to + (from - to) * 0.5 * (1.0 + (std::f64::consts::PI * x.clamp(0.0, 1.0)).cos())
}

/// Refuses a sparsity outside [0, 1).
///
/// # Errors
/// If it is outside; NaN counts as outside.
pub fn check_sparsity(sparsity: f64) -> Result<()> {
    match (0.0..1.0).contains(&sparsity) {
        true => Ok(()),
        false => Err(Error::Argument(format!(
            "sparsity {sparsity} is outside [0, 1): it is the fraction of weights set to zero"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_phases_to_ninety_percent() {
        let s = Schedule::new(Curve::Geometric, 0.0, 0.9, 0, 1, 3).unwrap();
        let want = [0.0, 0.535841, 0.784557, 0.9];
        for (k, want) in want.into_iter().enumerate() {
            assert!((s.sparsity(k) - want).abs() < 1e-6, "phase {k}");
        }
    }

    #[test]
    fn cubic_starts_and_ends_where_it_says() {
        let s = Schedule::new(Curve::Cubic, 0.1, 0.9, 100, 10, 4).unwrap();
        assert_eq!((s.due(99), s.due(101), s.due(150)), (None, None, None));
        assert!((s.due(100).unwrap() - 0.1).abs() < 1e-12);
        assert!((s.due(120).unwrap() - (0.9 - 0.8 * 0.125)).abs() < 1e-12);
        assert_eq!((s.due(140), s.end()), (Some(0.9), 140));
    }

    #[test]
    fn curves_never_fall() {
        for curve in [Curve::Linear, Curve::Cubic, Curve::Geometric] {
            let s = Schedule::new(curve, 0.05, 0.98, 0, 1, 50).unwrap();
            assert!((0..50).all(|k| s.sparsity(k) <= s.sparsity(k + 1)), "{curve:?}");
        }
    }

    #[test]
    fn impossible_schedules_are_refused() {
        for bad in [1.0, -0.1, f64::NAN] {
            assert!(Schedule::one_shot(bad, 0).is_err());
        }
        assert!(Schedule::new(Curve::Linear, 0.5, 0.4, 0, 1, 3).is_err());
        assert!(Schedule::new(Curve::Linear, 0.5, 0.6, 0, 0, 3).is_err());
    }
}
