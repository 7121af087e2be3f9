//! ScaleBiO (Pan et al., arXiv 2406.19976): weights of sources by bilevel optimization without second
//! derivatives.
//!
//! ```text
//! min over lambda, w  max over u   L1(w) + alpha (L2(lambda, w) - L2(lambda, u))
//! L2(lambda, theta) = sum_i p_i l_i(theta),  p = softmax(lambda)        l_i: mean loss of source i
//! each step, on one training batch and one of the validation set (L1):
//!   u <- u - rate alpha dL2/du
//!   w <- w - rate (alpha dL2/dw + dL1/dw)
//!   lambda_i <- lambda_i - rate_lambda g_i,   g_i = alpha p_i (d_i - sum_j p_j d_j),  d_i = l_i(w) - l_i(u)
//! ```
//!
//! On a source that conflicts with the validation set, `w`, which also follows that set, does worse than `u`: the
//! source's weight falls. `d_i` is measured before the step. The two models and their optimizers belong to the caller;
//! [`BatchSources::factors`](crate::BatchSources::factors) gives the loss of a batch.

use burn::config::Config;
use regrow_sparse_core::registry::{MethodInfo, Param, Params, Range};
use regrow_sparse_core::state::State;
use regrow_sparse_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::weights::check_losses;
use crate::{PairedLoss, SourceWeighter, softmax};

/// The registry's entry.
pub const INFO: MethodInfo = MethodInfo {
    kind: "weighter",
    name: "scalebio",
    summary: "weights of data sources by first-order bilevel optimization against a validation set",
    paper: "arXiv 2406.19976",
    needs: "data sources, a validation set, losses of two models",
    params: &[
        crate::registry::SOURCES,
        Param { name: "alpha", meaning: "penalty (100 for Llama-3-8B)", default: "10", range: Range::POSITIVE },
        Param {
            name: "learning-rate",
            meaning: "learning rate of the weights",
            default: "0.01",
            range: Range::POSITIVE,
        },
        Param {
            name: "update",
            meaning: "how the weights' logits move",
            default: "adam",
            range: Range::Choice(&["descent", "adam", "adamw"]),
        },
    ],
};

/// How `lambda` is updated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LambdaUpdate {
    /// By the gradient.
    Descent,
    /// By Adam (0.9, 0.999, 1e-8).
    #[default]
    Adam,
    /// With Adam after a hundredth of the rate is subtracted from `lambda`, as in the authors' runs, which use AdamW's
    /// default decay.
    AdamW,
}

/// The default weight decay of PyTorch's AdamW.
const DECAY: f64 = 0.01;

/// Settings of [`ScaleBiO`].
#[derive(Config, Debug, PartialEq)]
pub struct ScaleBiOConfig {
    /// How many sources there are.
    pub sources: usize,
    /// The penalty. The authors take 10, and 100 for Llama-3-8B.
    #[config(default = 10.0)]
    pub alpha: f64,
    /// The learning rate of `lambda`.
    #[config(default = 0.01)]
    pub learning_rate: f64,
    /// How `lambda` is updated.
    #[config(default = "LambdaUpdate::Adam")]
    pub update: LambdaUpdate,
}

impl ScaleBiOConfig {
    /// Equal weights of all sources.
    ///
    /// # Errors
    /// No source, a penalty or rate that is not above zero.
    pub fn init(&self) -> Result<ScaleBiO> {
        INFO.check("sources", self.sources)?;
        INFO.check("alpha", self.alpha)?;
        INFO.check("learning-rate", self.learning_rate)?;
        Ok(ScaleBiO {
            config: self.clone(),
            lambda: vec![0.0; self.sources],
            weights: vec![1.0 / self.sources as f64; self.sources],
            moments: vec![(0.0, 0.0); self.sources],
            steps: 0,
        })
    }

    /// From the registry's parameters.
    pub(crate) fn from_params(params: &Params) -> Result<Self> {
        let update = match params.text("update")?.as_str() {
            "descent" => LambdaUpdate::Descent,
            "adamw" => LambdaUpdate::AdamW,
            _ => LambdaUpdate::Adam,
        };
        let config = Self::new(params.count("sources")?).with_alpha(params.real("alpha")?);
        Ok(config.with_learning_rate(params.real("learning-rate")?).with_update(update))
    }
}

/// ScaleBiO's weights; made by [`ScaleBiOConfig::init`].
#[derive(Clone, Debug)]
pub struct ScaleBiO {
    config: ScaleBiOConfig,
    lambda: Vec<f64>,
    weights: Vec<f64>,
    moments: Vec<(f64, f64)>,
    steps: u64,
}

impl ScaleBiO {
    /// The penalty.
    pub fn alpha(&self) -> f64 {
        self.config.alpha
    }

    /// The gradient of `lambda`; sources that the batch lacks count with `d` 0.
    ///
    /// # Errors
    /// As [`SourceWeighter::update`].
    pub fn gradient(&self, losses: &[Option<PairedLoss>]) -> Result<Vec<f64>> {
        if losses.len() != self.weights.len() {
            let says = format!("{} losses do not fit {} sources", losses.len(), self.weights.len());
            return Err(Error::Argument(says));
        }
        let d: Vec<f64> = losses.iter().map(|l| l.map_or(0.0, |l| l.guided - l.plain)).collect();
        check_losses(&d)?;
        let mean: f64 = d.iter().zip(&self.weights).map(|(d, p)| d * p).sum();
        Ok(d.iter().zip(&self.weights).map(|(d, p)| self.config.alpha * p * (d - mean)).collect())
    }
}

impl SourceWeighter for ScaleBiO {
    fn weights(&self) -> &[f64] {
        &self.weights
    }

    fn update(&mut self, losses: &[Option<PairedLoss>]) -> Result<()> {
        let gradient = self.gradient(losses)?;
        self.steps += 1;
        let steps = i32::try_from(self.steps).unwrap_or(i32::MAX);
        for ((lambda, (m, v)), g) in self.lambda.iter_mut().zip(&mut self.moments).zip(gradient) {
            (*m, *v) = (0.9 * *m + 0.1 * g, 0.999 * *v + 0.001 * g * g);
            let (mean, square) = (*m / (1.0 - 0.9f64.powi(steps)), *v / (1.0 - 0.999f64.powi(steps)));
            if self.config.update == LambdaUpdate::AdamW {
                *lambda *= 1.0 - self.config.learning_rate * DECAY;
            }
            *lambda -= self.config.learning_rate
                * if self.config.update == LambdaUpdate::Descent { g } else { mean / (square.sqrt() + 1e-8) };
        }
        self.weights = softmax(&self.lambda, 1.0);
        Ok(())
    }

    fn state(&self) -> State {
        let mut state = State::default();
        state.set_integer("steps", self.steps);
        state.set_doubles("lambda", self.lambda.clone());
        state.set_doubles("first_moment", self.moments.iter().map(|(m, _)| *m).collect());
        state.set_doubles("second_moment", self.moments.iter().map(|(_, v)| *v).collect());
        state
    }

    fn restore(&mut self, mut state: State) -> Result<()> {
        let (steps, lambda) = (state.integer("steps")?, state.take_doubles("lambda")?);
        let (first, second) = (state.take_doubles("first_moment")?, state.take_doubles("second_moment")?);
        if [&lambda, &first, &second].iter().any(|values| values.len() != self.lambda.len()) {
            return Err(Error::ShapeMismatch {
                tensor: "lambda".into(),
                expected: vec![self.lambda.len()],
                got: vec![lambda.len()],
            });
        }
        self.weights = softmax(&lambda, 1.0);
        (self.lambda, self.steps) = (lambda, steps);
        self.moments = first.into_iter().zip(second).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FixedWeights;

    fn pair(guided: f64, plain: f64) -> Option<PairedLoss> {
        Some(PairedLoss { guided, plain })
    }

    fn scalebio(sources: usize, alpha: f64, learning_rate: f64) -> ScaleBiO {
        ScaleBiOConfig::new(sources).with_alpha(alpha).with_learning_rate(learning_rate).init().unwrap()
    }

    /// Sources `l_i(x) = (x - a_i)^2 / 2`, validation `(x - v)^2 / 2`; both models at their optimum.
    fn optimal(a: &[f64], v: f64, p: &[f64], alpha: f64) -> (f64, Vec<Option<PairedLoss>>) {
        let u: f64 = a.iter().zip(p).map(|(a, p)| a * p).sum();
        let w = (v + alpha * u) / (1.0 + alpha);
        let l = |x: f64, a: f64| (x - a).powi(2) / 2.0;
        (u, a.iter().map(|a| pair(l(w, *a), l(u, *a))).collect())
    }

    #[test]
    fn scalar_problems_have_the_hypergradient_in_closed_form() {
        let found = scalebio(2, 10.0, 0.1).gradient(&optimal(&[0.0, 1.0], 0.0, &[0.5; 2], 10.0).1);
        let found = found.unwrap();
        assert!((found[0] + 0.113636).abs() < 1e-6 && (found[1] - 0.113636).abs() < 1e-6, "{found:?}");
        let (a, v, alpha) = ([0.3, -1.0, 2.0, 0.9], 0.7, 25.0);
        let bilevel = scalebio(4, alpha, 0.1);
        let (u, losses) = optimal(&a, v, bilevel.weights(), alpha);
        let g = bilevel.gradient(&losses).unwrap();
        assert!(g.iter().sum::<f64>().abs() < 1e-12);
        for (g, a) in g.iter().zip(a) {
            let want = alpha / (1.0 + alpha) * 0.25 * (v - u) * (u - a);
            assert!((g - want).abs() < 1e-12, "{g} {want}");
        }
    }

    #[test]
    fn descent_finds_the_source_that_agrees_with_the_validation_set() {
        for update in [LambdaUpdate::Descent, LambdaUpdate::Adam, LambdaUpdate::AdamW] {
            let a = [2.0, 0.0, -3.0];
            let mut bilevel =
                ScaleBiOConfig::new(3).with_alpha(10.0).with_learning_rate(0.1).with_update(update).init().unwrap();
            for _ in 0..4000 {
                let losses = optimal(&a, 0.0, bilevel.weights(), 10.0).1;
                bilevel.update(&losses).unwrap();
            }
            let p = bilevel.weights();
            let mean: f64 = a.iter().zip(p).map(|(a, p)| a * p).sum();
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12 && mean.abs() < 0.02, "{update:?}: {p:?}");
        }
        // Outside of the hull the nearest source gets all the weight.
        let mut bilevel = ScaleBiOConfig::new(2)
            .with_alpha(10.0)
            .with_learning_rate(0.1)
            .with_update(LambdaUpdate::Descent)
            .init()
            .unwrap();
        for _ in 0..4000 {
            let losses = optimal(&[0.0, 1.0], 0.0, bilevel.weights(), 10.0).1;
            bilevel.update(&losses).unwrap();
        }
        assert!(bilevel.weights()[0] > 0.95, "{:?}", bilevel.weights());
    }

    #[test]
    fn equal_models_move_nothing_and_doubles_share() {
        let mut bilevel = scalebio(3, 10.0, 0.1);
        bilevel.update(&[pair(1.0, 1.0), pair(2.0, 2.0), None]).unwrap();
        assert_eq!(bilevel.weights(), FixedWeights::uniform(3).unwrap().weights());
        bilevel.update(&[pair(1.0, 1.2), pair(1.0, 1.2), pair(3.0, 2.0)]).unwrap();
        let p = bilevel.weights();
        assert!(p[0] == p[1] && p[2] < p[0]);
    }

    #[test]
    fn bad_input_is_named() {
        let config = ScaleBiOConfig::new(2);
        for bad in [ScaleBiOConfig::new(0), config.clone().with_alpha(0.0), config.with_learning_rate(f64::NAN)] {
            assert!(matches!(bad.init(), Err(Error::InvalidParameter { .. })), "{bad}");
        }
        let mut bilevel = scalebio(2, 1.0, 1.0);
        assert!(bilevel.update(&[None]).is_err() && bilevel.update(&[pair(f64::NAN, 0.0), None]).is_err());
    }

    #[test]
    fn a_resumed_run_goes_on_as_if_it_had_never_stopped() {
        let step = |bilevel: &mut ScaleBiO| bilevel.update(&[pair(1.0, 1.2), pair(3.0, 2.0)]).unwrap();
        let mut whole = scalebio(2, 10.0, 0.1);
        step(&mut whole);
        let mut resumed = scalebio(2, 10.0, 0.1);
        resumed.restore(State::from_bytes(&whole.state().to_bytes().unwrap()).unwrap()).unwrap();
        step(&mut whole);
        step(&mut resumed);
        assert_eq!(resumed.weights(), whole.weights());
        assert!(scalebio(3, 10.0, 0.1).restore(whole.state()).is_err());
    }
}
