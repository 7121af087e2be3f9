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
//! A source that disagrees with the validation set is one on which `w`, pulled there, does worse than
//! `u`: its weight falls. `d_i` is measured before the step. The two models and their optimizers belong
//! to the caller; [`Sources::factors`] makes the loss of a batch.

use regrow_sparse_core::{Error, Result};

use super::{WeighSources, check, normalized, softmax};

/// How `lambda` moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Update {
    /// By the gradient.
    Descent,
    /// By Adam (0.9, 0.999, 1e-8).
    Adam,
    /// By Adam after a hundredth of the rate is taken off `lambda`, as in the authors' runs, which give AdamW
    /// no decay of its own.
    AdamW,
}

/// What PyTorch's AdamW takes off where nothing is said.
const DECAY: f64 = 0.01;

/// ScaleBiO's weights.
#[derive(Clone, Debug)]
pub struct ScaleBiO {
    alpha: f64,
    rate: f64,
    update: Update,
    lambda: Vec<f64>,
    weights: Vec<f64>,
    moments: Vec<(f64, f64)>,
    steps: i32,
}

impl ScaleBiO {
    /// Equal weights of `sources` sources; penalty `alpha` (the authors: 10, 100 for Llama-3-8B), learning
    /// rate of `lambda` (the authors: 0.01).
    ///
    /// # Errors
    /// No source, `alpha` or the rate not above zero.
    pub fn new(sources: usize, alpha: f64, rate: f64) -> Result<Self> {
        if sources == 0 {
            return Err(Error::Argument("there are no sources to weigh".into()));
        }
        for (value, name) in [(alpha, "penalty (alpha)"), (rate, "learning rate of the weights")] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::Argument(format!("{value} is no {name}: use a number above 0")));
            }
        }
        let (lambda, weights) = (vec![0.0; sources], vec![1.0 / sources as f64; sources]);
        Ok(Self { alpha, rate, update: Update::Adam, moments: vec![(0.0, 0.0); sources], lambda, weights, steps: 0 })
    }

    /// With another update of `lambda`.
    pub fn with_update(mut self, update: Update) -> Self {
        self.update = update;
        self
    }

    /// The penalty.
    pub fn alpha(&self) -> f64 {
        self.alpha
    }

    /// The gradient of `lambda`; sources that the batch lacks count with `d` 0.
    ///
    /// # Errors
    /// As [`WeighSources::learn`].
    pub fn gradient(&self, losses: &[Option<(f64, f64)>]) -> Result<Vec<f64>> {
        if losses.len() != self.weights.len() {
            let says = format!("{} losses do not fit {} sources", losses.len(), self.weights.len());
            return Err(Error::Argument(says));
        }
        let d: Vec<f64> = losses.iter().map(|l| l.map_or(0.0, |(w, u)| w - u)).collect();
        check(&d)?;
        let mean: f64 = d.iter().zip(&self.weights).map(|(d, p)| d * p).sum();
        Ok(d.iter().zip(&self.weights).map(|(d, p)| self.alpha * p * (d - mean)).collect())
    }
}

impl WeighSources for ScaleBiO {
    fn weights(&self) -> &[f64] {
        &self.weights
    }

    fn learn(&mut self, losses: &[Option<(f64, f64)>]) -> Result<()> {
        let gradient = self.gradient(losses)?;
        self.steps += 1;
        for ((lambda, (m, v)), g) in self.lambda.iter_mut().zip(&mut self.moments).zip(gradient) {
            (*m, *v) = (0.9 * *m + 0.1 * g, 0.999 * *v + 0.001 * g * g);
            let (mean, square) = (*m / (1.0 - 0.9f64.powi(self.steps)), *v / (1.0 - 0.999f64.powi(self.steps)));
            if self.update == Update::AdamW {
                *lambda *= 1.0 - self.rate * DECAY;
            }
            *lambda -= self.rate * if self.update == Update::Descent { g } else { mean / (square.sqrt() + 1e-8) };
        }
        self.weights = softmax(&self.lambda, 1.0);
        Ok(())
    }
}

/// Weights that stay: uniform, proportional to sizes, or any given.
#[derive(Clone, Debug)]
pub struct Fixed(Vec<f64>);

impl Fixed {
    /// All the same.
    ///
    /// # Errors
    /// No source.
    pub fn uniform(sources: usize) -> Result<Self> {
        normalized(&vec![1.0; sources]).map(Self)
    }

    /// By how much there is of each.
    ///
    /// # Errors
    /// No source, or all empty.
    pub fn proportional(sizes: &[usize]) -> Result<Self> {
        normalized(&sizes.iter().map(|n| *n as f64).collect::<Vec<_>>()).map(Self)
    }

    /// Those given, made to sum to 1.
    ///
    /// # Errors
    /// If one is negative or not finite, or all are zero.
    pub fn given(weights: &[f64]) -> Result<Self> {
        normalized(weights).map(Self)
    }
}

impl WeighSources for Fixed {
    fn weights(&self) -> &[f64] {
        &self.0
    }

    fn learn(&mut self, _losses: &[Option<(f64, f64)>]) -> Result<()> {
        Ok(())
    }
}

/// The source of each example of a batch.
#[derive(Clone, Debug)]
pub struct Sources<'a> {
    of: &'a [usize],
    counts: Vec<usize>,
}

impl<'a> Sources<'a> {
    /// Of examples that belong to `of`, each below `sources`.
    ///
    /// # Errors
    /// If one is not.
    pub fn new(of: &'a [usize], sources: usize) -> Result<Self> {
        let mut counts = vec![0; sources];
        for source in of {
            let known = counts.get_mut(*source);
            *known.ok_or_else(|| Error::Argument(format!("source {source} is not one of {sources}")))? += 1;
        }
        Ok(Self { of, counts })
    }

    /// What to multiply the losses of the batch with, so that their **mean** is
    /// `sum_i p_i (mean loss of source i)`; sources that the batch lacks contribute nothing.
    pub fn factors(&self, weights: &[f64]) -> Vec<f32> {
        let all = self.of.len() as f64;
        self.of.iter().map(|s| (all * weights[*s] / self.counts[*s] as f64) as f32).collect()
    }

    /// The mean loss of each source by two models, from their losses of each example.
    pub fn means(&self, by_w: &[f64], by_u: &[f64]) -> Vec<Option<(f64, f64)>> {
        let mut sums = vec![(0.0, 0.0); self.counts.len()];
        for ((source, w), u) in self.of.iter().zip(by_w).zip(by_u) {
            (sums[*source].0, sums[*source].1) = (sums[*source].0 + w, sums[*source].1 + u);
        }
        let mean = |((w, u), n): ((f64, f64), &usize)| (*n > 0).then(|| (w / *n as f64, u / *n as f64));
        sums.into_iter().zip(&self.counts).map(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sources `l_i(x) = (x - a_i)^2 / 2`, validation `(x - v)^2 / 2`; both models at their optimum.
    fn optimal(a: &[f64], v: f64, p: &[f64], alpha: f64) -> (f64, Vec<Option<(f64, f64)>>) {
        let u: f64 = a.iter().zip(p).map(|(a, p)| a * p).sum();
        let w = (v + alpha * u) / (1.0 + alpha);
        let l = |x: f64, a: f64| (x - a).powi(2) / 2.0;
        (u, a.iter().map(|a| Some((l(w, *a), l(u, *a)))).collect())
    }

    #[test]
    fn scalar_problems_have_the_hypergradient_in_closed_form() {
        let found = ScaleBiO::new(2, 10.0, 0.1).unwrap().gradient(&optimal(&[0.0, 1.0], 0.0, &[0.5; 2], 10.0).1);
        let found = found.unwrap();
        assert!((found[0] + 0.113636).abs() < 1e-6 && (found[1] - 0.113636).abs() < 1e-6, "{found:?}");
        let (a, v, alpha) = ([0.3, -1.0, 2.0, 0.9], 0.7, 25.0);
        let bilevel = ScaleBiO::new(4, alpha, 0.1).unwrap();
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
        for update in [Update::Descent, Update::Adam, Update::AdamW] {
            let a = [2.0, 0.0, -3.0];
            let mut bilevel = ScaleBiO::new(3, 10.0, 0.1).unwrap().with_update(update);
            for _ in 0..4000 {
                let losses = optimal(&a, 0.0, bilevel.weights(), 10.0).1;
                bilevel.learn(&losses).unwrap();
            }
            let p = bilevel.weights();
            let mean: f64 = a.iter().zip(p).map(|(a, p)| a * p).sum();
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12 && mean.abs() < 0.02, "{update:?}: {p:?}");
        }
        // Outside of the hull the nearest source takes all.
        let mut bilevel = ScaleBiO::new(2, 10.0, 0.1).unwrap().with_update(Update::Descent);
        for _ in 0..4000 {
            let losses = optimal(&[0.0, 1.0], 0.0, bilevel.weights(), 10.0).1;
            bilevel.learn(&losses).unwrap();
        }
        assert!(bilevel.weights()[0] > 0.95, "{:?}", bilevel.weights());
    }

    #[test]
    fn equal_models_move_nothing_and_doubles_share() {
        let mut bilevel = ScaleBiO::new(3, 10.0, 0.1).unwrap();
        bilevel.learn(&[Some((1.0, 1.0)), Some((2.0, 2.0)), None]).unwrap();
        assert_eq!(bilevel.weights(), Fixed::uniform(3).unwrap().weights());
        bilevel.learn(&[Some((1.0, 1.2)), Some((1.0, 1.2)), Some((3.0, 2.0))]).unwrap();
        let p = bilevel.weights();
        assert!(p[0] == p[1] && p[2] < p[0]);
    }

    #[test]
    fn a_batch_counts_each_source_by_its_mean() {
        let sources = Sources::new(&[0, 2, 0, 2, 2], 3).unwrap();
        let losses = [1.0, 2.0, 3.0, 4.0, 6.0];
        let factors = sources.factors(&[0.5, 0.3, 0.2]);
        let mean: f64 = losses.iter().zip(factors).map(|(l, f)| l * f64::from(f)).sum::<f64>() / 5.0;
        assert!((mean - (0.5 * 2.0 + 0.2 * 4.0)).abs() < 1e-6);
        assert_eq!(sources.means(&losses, &[0.0; 5]), [Some((2.0, 0.0)), None, Some((4.0, 0.0))]);
        assert!(Sources::new(&[3], 3).is_err());
    }

    #[test]
    fn bad_input_is_named() {
        assert!(ScaleBiO::new(0, 1.0, 1.0).is_err() && ScaleBiO::new(2, 0.0, 1.0).is_err());
        assert!(ScaleBiO::new(2, 1.0, f64::NAN).is_err());
        let mut bilevel = ScaleBiO::new(2, 1.0, 1.0).unwrap();
        assert!(bilevel.learn(&[None]).is_err() && bilevel.learn(&[Some((f64::NAN, 0.0)), None]).is_err());
        assert!(Fixed::given(&[0.0, 0.0]).is_err() && Fixed::uniform(0).is_err());
        assert_eq!(Fixed::proportional(&[1, 3]).unwrap().weights(), [0.25, 0.75]);
    }
}
