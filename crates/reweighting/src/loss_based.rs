//! Weights of examples from their losses (Sow et al., arXiv 2502.06733): losses are scaled to `[-1, 1]`, shaped, and
//! weighted by a softmax.
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
//! This is the paper's method with `delta` 1. As `r` goes to infinity, all weights become equal. The first `warm_up`
//! batches have equal weights (the authors': 1000 of 20000 steps). Pass the losses of the whole effective batch in one
//! call; with fewer than about eight, range and weights are mostly noise.

use burn::config::Config;
use regrow_sparse_core::Result;
use regrow_sparse_core::registry::{MethodInfo, Param, Params, Range, unknown_method};
use regrow_sparse_core::state::State;
use serde::{Deserialize, Serialize};

use crate::weights::check_losses;
use crate::{SampleWeighter, softmax};

/// The registry's entry of a shape.
const fn info(name: &'static str, summary: &'static str) -> MethodInfo {
    MethodInfo {
        kind: "weighter",
        name,
        summary,
        paper: "arXiv 2502.06733",
        needs: "losses of a batch's examples",
        params: &[
            Param {
                name: "temperature",
                meaning: "r: high weighs all alike (the authors: 0.4 for larger networks, 1 for small ones)",
                default: "1",
                range: Range::POSITIVE,
            },
            Param { name: "warm-up", meaning: "batches weighed alike first", default: "0", range: WARM_UP },
            Param {
                name: "clip",
                meaning: "losses outside this quantile and its opposite are brought to them (not in the paper)",
                default: "0",
                range: Range::Below { min: 0.0, below: 0.5 },
            },
        ],
    }
}

const WARM_UP: Range = Range::Integer { min: 0, max: u64::MAX };

/// The registry's entries, one for each shape, in the order of [`LossShape::ALL`].
pub const INFOS: [MethodInfo; 5] = [
    info("uniform", "every example weighs the same"),
    info("linear-upper", "low losses weigh less, losses above the middle all the same"),
    info("quadratic", "losses in the middle weigh most"),
    info("extremes", "the lowest and the highest losses weigh most"),
    info("upper", "the higher the loss, the more it weighs"),
];

/// How a loss within the range of its batch is weighted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossShape {
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

impl LossShape {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Uniform, Self::LinearUpper, Self::Quadratic, Self::Extremes, Self::Upper];

    /// Its registry entry.
    pub fn info(self) -> MethodInfo {
        INFOS[self as usize]
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// The shape with that name.
    ///
    /// # Errors
    /// If there is none; the message lists the known names.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name).ok_or_else(|| unknown_method(name, &INFOS))
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

/// Settings of [`LossBased`].
#[derive(Config, Debug, PartialEq)]
pub struct LossBasedConfig {
    /// How a loss is weighted.
    #[config(default = "LossShape::LinearUpper")]
    pub shape: LossShape,
    /// The temperature `r`. The authors take 0.4 for larger networks and 1 for small ones.
    #[config(default = 1.0)]
    pub temperature: f64,
    /// Number of first batches with equal weights.
    #[config(default = 0)]
    pub warm_up: usize,
    /// Losses outside of the quantiles `clip` and `1 - clip` of their batch are clipped to these: one outlier makes all
    /// others look low. Not in the paper.
    #[config(default = 0.0)]
    pub clip: f64,
}

impl LossBasedConfig {
    /// The weighter.
    ///
    /// # Errors
    /// If the temperature is not above zero, or the quantile is outside [0, 0.5).
    pub fn init(&self) -> Result<LossBased> {
        let info = self.shape.info();
        info.check("temperature", self.temperature)?;
        info.check("clip", self.clip)?;
        Ok(LossBased { config: self.clone(), batches: 0 })
    }

    /// From the registry's parameters.
    pub(crate) fn from_params(shape: LossShape, params: &Params) -> Result<Self> {
        let config = Self::new().with_shape(shape).with_temperature(params.real("temperature")?);
        Ok(config.with_warm_up(params.count("warm-up")?).with_clip(params.real("clip")?))
    }
}

/// Weights from losses only; created by [`LossBasedConfig::init`]. Its only state is the number of batches.
#[derive(Clone, Debug)]
pub struct LossBased {
    config: LossBasedConfig,
    batches: u64,
}

/// A range below this counts as zero: all losses are weighted equally.
const RANGE: f64 = 1e-6;

impl LossBased {
    /// The bounds of `losses`, those that are clipped to.
    fn range(&self, losses: &[f64]) -> (f64, f64) {
        let mut sorted = losses.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len() - 1;
        let off = (self.config.clip * last as f64).round() as usize;
        (sorted[off], sorted[last - off])
    }
}

impl SampleWeighter for LossBased {
    fn weigh(&mut self, losses: &[f64]) -> Result<Vec<f64>> {
        check_losses(losses)?;
        self.batches += 1;
        let (low, high) = self.range(losses);
        let warms = self.batches <= self.config.warm_up as u64;
        if warms || self.config.shape == LossShape::Uniform || high - low < RANGE {
            return Ok(vec![1.0 / losses.len() as f64; losses.len()]);
        }
        let place = |l: &f64| (2.0 * l.clamp(low, high) - (high + low)) / (high - low);
        let shaped: Vec<f64> = losses.iter().map(|l| self.config.shape.of(place(l))).collect();
        Ok(softmax(&shaped, self.config.temperature))
    }

    fn state(&self) -> State {
        let mut state = State::default();
        state.set_integer("batches", self.batches);
        state
    }

    fn restore(&mut self, state: State) -> Result<()> {
        self.batches = state.integer("batches")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regrow_testing::assert_close;

    use super::*;
    use crate::Error;

    fn config(shape: LossShape, r: f64) -> LossBasedConfig {
        LossBasedConfig::new().with_shape(shape).with_temperature(r)
    }

    fn weigh(shape: LossShape, r: f64, losses: &[f64]) -> Vec<f64> {
        config(shape, r).init().unwrap().weigh(losses).unwrap()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert_close(a, b, 1e-5);
    }

    #[test]
    fn by_hand() {
        let l = [1.0, 2.0, 3.0];
        close(&weigh(LossShape::LinearUpper, 1.0, &l), &[0.15536, 0.42232, 0.42232]);
        close(&weigh(LossShape::Quadratic, 1.0, &l), &[0.21194, 0.57612, 0.21194]);
        close(&weigh(LossShape::Extremes, 1.0, &l), &[0.42232, 0.15536, 0.42232]);
        close(&weigh(LossShape::Upper, 1.0, &l), &[0.18632, 0.30720, 0.50648]);
    }

    #[test]
    fn equal_losses_warm_up_and_heat_weigh_alike() {
        for shape in LossShape::ALL {
            assert_eq!(weigh(shape, 0.4, &[2.0; 4]), [0.25; 4]);
            assert_eq!(weigh(shape, 0.4, &[7.0]), [1.0]);
            close(&weigh(shape, 1e6, &[1.0, 5.0, 2.0, 9.0]), &[0.25; 4]);
            assert_eq!(LossShape::parse(shape.name()).unwrap(), shape);
        }
        let mut late = config(LossShape::LinearUpper, 1.0).with_warm_up(2).init().unwrap();
        let weights: Vec<Vec<f64>> = (0..3).map(|_| late.weigh(&[1.0, 2.0]).unwrap()).collect();
        assert_eq!((weights[1][0], weights[2][0] < 0.5), (0.5, true));
    }

    #[test]
    fn an_outlier_is_clipped_where_asked() {
        let l: Vec<f64> = (0..10).map(f64::from).chain([1000.0]).collect();
        let plain = weigh(LossShape::LinearUpper, 1.0, &l);
        let clipped = config(LossShape::LinearUpper, 1.0).with_clip(0.1).init().unwrap().weigh(&l).unwrap();
        assert!(plain[9] / plain[0] < 1.05 && clipped[9] / clipped[0] > 2.0);
    }

    #[test]
    fn bad_input_is_named() {
        let mut w = LossBasedConfig::new().init().unwrap();
        assert!(w.weigh(&[]).unwrap_err().to_string().contains("no losses"));
        assert!(w.weigh(&[1.0, f64::NAN]).unwrap_err().to_string().contains("loss 1 is NaN"));
        let upper = |r| config(LossShape::Upper, r);
        for bad in [upper(0.0), upper(f64::NAN), upper(1.0).with_clip(0.5)] {
            assert!(matches!(bad.init(), Err(Error::InvalidParameter { .. })), "{bad}");
        }
        assert!(LossShape::parse("magic").unwrap_err().to_string().contains("linear-upper"));
    }

    proptest! {
        #[test]
        fn on_the_simplex_whatever_the_scale_and_order(
            losses in prop::collection::vec(-50.0f64..50.0, 1..40), scale in 0.1f64..10.0, shift in -9.0f64..9.0, r in 0.2f64..3.0,
        ) {
            for shape in LossShape::ALL {
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
            let w = weigh(LossShape::LinearUpper, 0.4, &losses);
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
