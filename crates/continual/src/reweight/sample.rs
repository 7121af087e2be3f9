//! Weights of examples from their losses (Sow et al., arXiv 2502.06733): losses are stretched over
//! `[-1, 1]`, shaped, and weighed by a softmax.
//!
//! ```text
//! h_i = (2 l_i - (l_max + l_min)) / (l_max - l_min)                within the batch
//! f   = min(h + 1, 1)       linear-upper: low losses count less, high ones no more than others
//!     = 1 - h^2             quadratic: losses in the middle
//!     = |h|                 extremes: both ends
//!     = (h + 1) / 2         upper: the higher the more
//! w   = softmax(f / r)      the maximum of sum_i w_i f_i - r KL(w || uniform) over the simplex
//! ```
//!
//! This is the paper's with `delta` 1. `r` to infinity weighs all alike. The first `warm_up` batches are
//! weighed alike (the authors': 1000 of 20000 steps). Losses of the whole effective batch belong in one
//! call; of fewer than about eight, range and weights are mostly noise.

use regrow_sparse_core::{Error, Result};

use super::{WeighSamples, check, softmax};

/// What a loss within the range of its batch counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// All the same.
    Uniform,
    /// `min(h + 1, 1)`, the paper's choice.
    #[default]
    LinearUpper,
    /// `1 - h^2`.
    Quadratic,
    /// `|h|`.
    Extremes,
    /// `(h + 1) / 2`; in the authors' code only.
    Upper,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Uniform, Self::LinearUpper, Self::Quadratic, Self::Extremes, Self::Upper];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::LinearUpper => "linear-upper",
            Self::Quadratic => "quadratic",
            Self::Extremes => "extremes",
            Self::Upper => "upper",
        }
    }

    /// The shape of that name.
    ///
    /// # Errors
    /// If there is none, naming those there are.
    pub fn parse(name: &str) -> Result<Self> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|s| s.name() == name);
        found.ok_or_else(|| Error::Argument(format!("unknown weighing `{name}`: use {}", known())))
    }

    /// `f` of a loss at `h` in [-1, 1].
    fn of(self, h: f64) -> f64 {
        match self {
            Self::Uniform => 0.0,
            Self::LinearUpper => (h + 1.0).min(1.0),
            Self::Quadratic => 1.0 - h * h,
            Self::Extremes => h.abs(),
            Self::Upper => 0.5 * (h + 1.0),
        }
    }
}

/// Weights from losses alone; nothing is remembered but how many batches there were.
#[derive(Clone, Debug)]
pub struct LossBased {
    shape: Shape,
    temperature: f64,
    warm_up: usize,
    clip: Option<f64>,
    batches: usize,
}

/// A range below this is none: all losses count the same.
const RANGE: f64 = 1e-6;

impl LossBased {
    /// Of `shape`, with temperature `r` (the authors: 0.4 for larger networks, 1 for small ones).
    ///
    /// # Errors
    /// If the temperature is not above zero.
    pub fn new(shape: Shape, temperature: f64) -> Result<Self> {
        match temperature > 0.0 {
            true => Ok(Self { shape, temperature, warm_up: 0, clip: None, batches: 0 }),
            false => Err(Error::Argument(format!("{temperature} is no temperature (r): use a number above 0"))),
        }
    }

    /// With so many batches weighed alike first.
    pub fn with_warm_up(mut self, batches: usize) -> Self {
        self.warm_up = batches;
        self
    }

    /// With losses outside of the quantiles `q` and `1 - q` of their batch brought to these: one outlier
    /// makes all others look low. Not in the paper.
    ///
    /// # Errors
    /// If `q` is outside [0, 0.5).
    pub fn with_clipping(mut self, q: f64) -> Result<Self> {
        match (0.0..0.5).contains(&q) {
            true => {
                self.clip = Some(q);
                Ok(self)
            }
            false => Err(Error::Argument(format!("{q} is no quantile to clip at: use 0 to below 0.5"))),
        }
    }

    /// The bounds of `losses`, those that are clipped to.
    fn range(&self, losses: &[f64]) -> (f64, f64) {
        let mut sorted = losses.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        let off = (self.clip.unwrap_or(0.0) * last as f64).round() as usize;
        (sorted[off], sorted[last - off])
    }
}

impl WeighSamples for LossBased {
    fn weigh(&mut self, losses: &[f64]) -> Result<Vec<f64>> {
        check(losses)?;
        self.batches += 1;
        let (low, high) = self.range(losses);
        if self.batches <= self.warm_up || self.shape == Shape::Uniform || high - low < RANGE {
            return Ok(vec![1.0 / losses.len() as f64; losses.len()]);
        }
        let place = |l: &f64| (2.0 * l.clamp(low, high) - (high + low)) / (high - low);
        let shaped: Vec<f64> = losses.iter().map(|l| self.shape.of(place(l))).collect();
        Ok(softmax(&shaped, self.temperature))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weigh(shape: Shape, r: f64, losses: &[f64]) -> Vec<f64> {
        LossBased::new(shape, r).unwrap().weigh(losses).unwrap()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5), "{a:?} {b:?}");
    }

    #[test]
    fn by_hand() {
        let l = [1.0, 2.0, 3.0];
        close(&weigh(Shape::LinearUpper, 1.0, &l), &[0.15536, 0.42232, 0.42232]);
        close(&weigh(Shape::Quadratic, 1.0, &l), &[0.21194, 0.57612, 0.21194]);
        close(&weigh(Shape::Extremes, 1.0, &l), &[0.42232, 0.15536, 0.42232]);
        close(&weigh(Shape::Upper, 1.0, &l), &[0.18632, 0.30720, 0.50648]);
    }

    #[test]
    fn equal_losses_warm_up_and_heat_weigh_alike() {
        for shape in Shape::ALL {
            assert_eq!(weigh(shape, 0.4, &[2.0; 4]), [0.25; 4]);
            assert_eq!(weigh(shape, 0.4, &[7.0]), [1.0]);
            close(&weigh(shape, 1e6, &[1.0, 5.0, 2.0, 9.0]), &[0.25; 4]);
            assert_eq!(Shape::parse(shape.name()).unwrap(), shape);
        }
        let mut late = LossBased::new(Shape::LinearUpper, 1.0).unwrap().with_warm_up(2);
        let weights: Vec<Vec<f64>> = (0..3).map(|_| late.weigh(&[1.0, 2.0]).unwrap()).collect();
        assert_eq!((weights[1][0], weights[2][0] < 0.5), (0.5, true));
    }

    #[test]
    fn an_outlier_is_clipped_where_asked() {
        let l: Vec<f64> = (0..10).map(f64::from).chain([1000.0]).collect();
        let plain = weigh(Shape::LinearUpper, 1.0, &l);
        let clipped = LossBased::new(Shape::LinearUpper, 1.0).unwrap().with_clipping(0.1).unwrap().weigh(&l).unwrap();
        assert!(plain[9] / plain[0] < 1.05 && clipped[9] / clipped[0] > 2.0);
    }

    #[test]
    fn bad_input_is_named() {
        let mut w = LossBased::new(Shape::LinearUpper, 1.0).unwrap();
        assert!(w.weigh(&[]).unwrap_err().to_string().contains("no losses"));
        assert!(w.weigh(&[1.0, f64::NAN]).unwrap_err().to_string().contains("loss 1 is NaN"));
        assert!(LossBased::new(Shape::Upper, 0.0).is_err() && LossBased::new(Shape::Upper, f64::NAN).is_err());
        assert!(LossBased::new(Shape::Upper, 1.0).unwrap().with_clipping(0.5).is_err());
        assert!(Shape::parse("magic").unwrap_err().to_string().contains("linear-upper"));
    }

    proptest! {
        #[test]
        fn on_the_simplex_whatever_the_scale_and_order(
            losses in prop::collection::vec(-50.0f64..50.0, 1..40), scale in 0.1f64..10.0, shift in -9.0f64..9.0, r in 0.2f64..3.0,
        ) {
            for shape in Shape::ALL {
                let w = weigh(shape, r, &losses);
                prop_assert!((w.iter().sum::<f64>() - 1.0).abs() < 1e-9 && w.iter().all(|w| *w > 0.0));
                let ratio = w.iter().copied().fold(0.0, f64::max) / w.iter().copied().fold(1.0, f64::min);
                prop_assert!(ratio <= (1.0 / r).exp() * (1.0 + 1e-9));
                let backward: Vec<f64> = losses.iter().rev().copied().collect();
                let mut turned = weigh(shape, r, &backward);
                turned.reverse();
                prop_assert!(turned.iter().zip(&w).all(|(a, b)| (a - b).abs() < 1e-12));
                let range = losses.iter().fold((f64::MAX, f64::MIN), |(a, b), l| (a.min(*l), b.max(*l)));
                if range.1 - range.0 > 1e-3 {
                    let other: Vec<f64> = losses.iter().map(|l| scale * l + shift).collect();
                    prop_assert!(weigh(shape, r, &other).iter().zip(&w).all(|(a, b)| (a - b).abs() < 1e-6));
                }
            }
        }

        #[test]
        fn linear_upper_never_counts_a_lower_loss_more_and_none_above_the_middle(
            losses in prop::collection::vec(0.0f64..9.0, 3..40),
        ) {
            let w = weigh(Shape::LinearUpper, 0.4, &losses);
            let range = losses.iter().fold((f64::MAX, f64::MIN), |(a, b), l| (a.min(*l), b.max(*l)));
            for (i, a) in losses.iter().enumerate() {
                for (j, b) in losses.iter().enumerate() {
                    prop_assert!(a > b || w[i] <= w[j] + 1e-12);
                    if a.min(*b) >= (range.0 + range.1) / 2.0 {
                        prop_assert!((w[i] - w[j]).abs() < 1e-12);
                    }
                }
            }
        }
    }
}
