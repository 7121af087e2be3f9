//! DELLA (Deep et al., arXiv 2406.11617, section 3): task vectors thinned out at random, large entries less.
//!
//! ```text
//! r = rank of |D| in its row, 0 for the smallest of c to c - 1 for the largest
//! p = d - epsilon + 2 epsilon r / (c - 1)        each entry is kept with probability p and divided by it
//! ```
//!
//! and the rest as in TIES without trimming (`della`), or as in task arithmetic (`della-linear`). Rows are
//! those of the tensor as a matrix `[out, rest]`; a row of one entry has `p = d`. mergekit restores the sum
//! of magnitudes of the whole tensor instead of dividing: `rescale = "l1"`.

use rayon::prelude::*;
use regrow_sparse_core::{Error, Result};

use crate::draw;
use crate::task_vectors::{Kept, Mix, Rescale, check_densities};
use crate::tensors::{Operands, Parameters, TensorMerge};

/// Task vectors thinned out at random by rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Della {
    densities: Vec<f64>,
    epsilons: Vec<f64>,
    rescale: Rescale,
    seed: u64,
    mix: Mix,
}

impl Della {
    /// A weight, a density and half the width of the probabilities for each model.
    ///
    /// # Errors
    /// Probabilities that leave `[0, 1]`, or other numbers of them than of weights.
    pub fn new(weights: Vec<f64>, densities: Vec<f64>, epsilons: Vec<f64>, lambda: f64, seed: u64) -> Result<Self> {
        let mix = Mix { weights, lambda, normalize: true, elect: true };
        Self::checked(densities, epsilons, Rescale::Density, seed, mix)
    }

    /// From `weight` (1), `density` (1), `epsilon` (0.15), `lambda` (1), `normalize` (true with an election,
    /// false without), `seed` (0) and `rescale` (density, l1 or none).
    ///
    /// # Errors
    /// As [`Della::new`], or parameters of another kind.
    pub fn from_parameters(parameters: &Parameters, elect: bool) -> Result<Self> {
        let (densities, epsilons) = (parameters.each("density", 1.0)?, parameters.each("epsilon", 0.15)?);
        let rescale = parameters.word("rescale", Rescale::Density, &Rescale::WORDS)?;
        let seed = parameters.number("seed", 0.0)? as u64;
        Self::checked(densities, epsilons, rescale, seed, Mix::from_parameters(parameters, elect, elect)?)
    }

    fn checked(densities: Vec<f64>, epsilons: Vec<f64>, rescale: Rescale, seed: u64, mix: Mix) -> Result<Self> {
        check_densities(&densities, &mix)?;
        check_densities(&epsilons, &mix)?;
        for (density, epsilon) in densities.iter().zip(&epsilons) {
            // At 0 and 1 there is nothing to draw.
            if (density - epsilon < 0.0 || density + epsilon > 1.0) && *density > 0.0 && *density < 1.0 {
                let reason = format!("`epsilon` {epsilon} takes `density` {density} out of [0, 1]");
                return Err(Error::Argument(reason));
            }
        }
        Ok(Self { densities, epsilons, rescale, seed, mix })
    }

    fn thinned(&self, tensor: &Operands<'_>, i: usize, model: &str, delta: &[f32]) -> Kept {
        let density = self.densities[i];
        if density >= 1.0 {
            return Kept::All;
        }
        let epsilon = if density > 0.0 { self.epsilons[i] } else { 0.0 };
        let probabilities = probabilities(delta, tensor.matrix().1, density, epsilon);
        let seed = draw::seed(self.seed, tensor.name(), model);
        let words = draw::bits(delta.len(), seed, |k| f64::from(probabilities[k]));
        if self.rescale != Rescale::Density {
            let factor = self.rescale.factor(delta, &words, density);
            return Kept::Some(words, factor);
        }
        let kept = |k: usize| words[k / 64] >> (k % 64) & 1 == 1;
        let value = |(k, d): (usize, &f32)| if kept(k) { d / probabilities[k] } else { 0.0 };
        Kept::Values(delta.par_iter().enumerate().map(value).collect())
    }
}

/// The probability of keeping each entry.
fn probabilities(delta: &[f32], cols: usize, density: f64, epsilon: f64) -> Vec<f32> {
    let mut all = vec![density as f32; delta.len()];
    if cols < 2 {
        return all;
    }
    all.par_chunks_mut(cols).zip(delta.par_chunks(cols)).for_each(|(probabilities, row)| {
        let mut order: Vec<u32> = (0..cols as u32).collect();
        order.sort_by(|a, b| row[*a as usize].abs().total_cmp(&row[*b as usize].abs()));
        for (rank, k) in order.into_iter().enumerate() {
            let share = rank as f64 / (cols - 1) as f64;
            probabilities[k as usize] = (density - epsilon + 2.0 * epsilon * share) as f32;
        }
    });
    all
}

impl TensorMerge for Della {
    fn name(&self) -> &'static str {
        if self.mix.elect { "della" } else { "della-linear" }
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        self.mix.merge(tensor, &|i, model, delta| Ok(self.thinned(tensor, i, model.model, delta)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{close, merge, numbers};

    #[test]
    fn probabilities_rise_with_the_rank_in_the_row() {
        let found = probabilities(&[3.0, -1.0, 2.0, 0.5, 0.7, -0.9], 3, 0.5, 0.2);
        close(&found, &[0.7, 0.3, 0.5, 0.3, 0.5, 0.7], 1e-6);
        close(&probabilities(&[3.0, 1.0], 1, 0.5, 0.2), &[0.5, 0.5], 1e-6);
    }

    #[test]
    fn the_mean_over_draws_is_the_task_vector() {
        let model = numbers(40, 1);
        let mut mean = vec![0.0f64; 40];
        for seed in 0..4000 {
            let della = Della::new(vec![1.0], vec![0.5], vec![0.2], 1.0, seed).unwrap();
            let drawn = merge(&della, Some(&[0.0; 40]), &[&model]);
            mean.iter_mut().zip(drawn).for_each(|(m, v)| *m += f64::from(v) / 4000.0);
        }
        // An entry's deviation is at most sqrt(0.7/0.3).
        mean.iter().zip(model).for_each(|(m, v)| assert!((m - f64::from(v)).abs() < 5.0 * 1.53 / 4000f64.sqrt()));
    }

    #[test]
    fn more_of_the_large_is_kept_and_l1_restores_the_magnitudes() {
        let model: Vec<f32> = (1..=10_000).map(|i| i as f32).collect();
        let mut parameters = Parameters::defaults(1).with_each("density", &[0.5]);
        parameters = parameters.with("rescale", crate::tensors::Value::Text("l1".into()));
        let della = Della::from_parameters(&parameters, false).unwrap();
        let merged = merge(&della, Some(&vec![0.0; 10_000]), &[&model]);
        let kept = |range: std::ops::Range<usize>| merged[range].iter().filter(|v| **v != 0.0).count();
        assert!(kept(0..5000) + 200 < kept(5000..10_000), "{} {}", kept(0..5000), kept(5000..10_000));
        let l1 = |values: &[f32]| values.iter().map(|v| f64::from(*v)).sum::<f64>();
        assert!((l1(&merged) / l1(&model) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn probabilities_outside_are_refused() {
        assert!(Della::new(vec![1.0], vec![0.1], vec![0.2], 1.0, 0).is_err());
        assert!(Della::new(vec![1.0], vec![1.0], vec![0.2], 1.0, 0).is_ok());
    }
}
