//! DARE: drop and rescale (Yu et al., ICML 2024, arXiv 2311.03099, section 3).
//!
//! ```text
//! D_i = W_i - W_0      each entry kept with probability d, what is kept divided by d
//! W = W_0 + lambda * sum_i a_i D_i
//! ```
//!
//! or, with TIES, the sum of the entries that agree in sign (`dare-ties`). mergekit restores the sum of
//! magnitudes instead of dividing by `d`: [`Rescale::L1`].

use regrow_sparse_core::Result;

pub use crate::task_vectors::Rescale;

use crate::draw;
use crate::task_vectors::{Kept, Mix, check_densities};
use crate::tensors::{Operands, Parameters, TensorMerge};

/// Task vectors thinned out at random.
#[derive(Clone, Debug, PartialEq)]
pub struct Dare {
    densities: Vec<f64>,
    rescale: Rescale,
    seed: u64,
    mix: Mix,
}

impl Dare {
    /// A weight and a density for each model; entries are drawn by `seed`, the tensor's and the model's name.
    ///
    /// # Errors
    /// Densities outside `[0, 1]`, or another number of them than of weights.
    pub fn new(weights: Vec<f64>, densities: Vec<f64>, lambda: f64, seed: u64) -> Result<Self> {
        let mix = Mix { weights, lambda, normalize: false, elect: false };
        check_densities(&densities, &mix)?;
        Ok(Self { densities, rescale: Rescale::Density, seed, mix })
    }

    /// With another rescaling.
    pub fn with_rescale(mut self, rescale: Rescale) -> Self {
        self.rescale = rescale;
        self
    }

    /// With an election of signs, as in TIES.
    pub fn with_election(mut self) -> Self {
        self.mix.elect = true;
        self
    }

    /// From `weight` (1), `density` (1), `lambda` (1), `normalize` (false), `seed` (0) and `rescale`
    /// (density, l1 or none).
    ///
    /// # Errors
    /// As [`Dare::new`], or parameters of another kind.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        let mix = Mix::from_parameters(parameters, false, false)?;
        let densities = parameters.each("density", 1.0)?;
        check_densities(&densities, &mix)?;
        let rescale = parameters.word("rescale", Rescale::Density, &Rescale::WORDS)?;
        Ok(Self { densities, rescale, seed: parameters.number("seed", 0.0)? as u64, mix })
    }
}

impl TensorMerge for Dare {
    fn name(&self) -> &'static str {
        if self.mix.elect { "dare-ties" } else { "dare" }
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        self.mix.merge(tensor, &|i, model, delta| {
            let density = self.densities[i];
            if density >= 1.0 {
                return Ok(Kept::All);
            }
            let words = draw::bits(delta.len(), draw::seed(self.seed, tensor.name(), model.model), |_| density);
            let factor = self.rescale.factor(delta, &words, density);
            Ok(Kept::Some(words, factor))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task_arithmetic::TaskArithmetic;
    use crate::tensors::Operand;
    use crate::testing::{merge, numbers};

    #[test]
    fn the_mean_over_draws_is_task_arithmetic() {
        let (base, a, b) = (numbers(50, 1), numbers(50, 2), numbers(50, 3));
        let whole = merge(&TaskArithmetic::new(vec![0.5; 2], 1.0), Some(&base), &[&a, &b]);
        let draws = 4000;
        let mut mean = vec![0.0f64; 50];
        for seed in 0..draws {
            let dare = Dare::new(vec![0.5; 2], vec![0.4; 2], 1.0, seed).unwrap();
            let drawn = merge(&dare, Some(&base), &[&a, &b]);
            mean.iter_mut().zip(drawn).for_each(|(m, v)| *m += f64::from(v) / draws as f64);
        }
        // An entry's deviation is below 1.8 (two task vectors within 2, a half of each, sqrt(0.6/0.4)).
        let bound = 5.0 * 1.8 / (draws as f64).sqrt();
        for (mean, whole) in mean.iter().zip(whole) {
            assert!((mean - f64::from(whole)).abs() < bound, "{mean} {whole}");
        }
    }

    #[test]
    fn magnitudes_add_up_as_before_with_l1() {
        let model = numbers(10_000, 5);
        let l1 = |values: &[f32]| values.iter().map(|v| f64::from(v.abs())).sum::<f64>();
        let dare = Dare::new(vec![1.0], vec![0.3], 1.0, 1).unwrap().with_rescale(Rescale::L1);
        let merged = merge(&dare, Some(&vec![0.0; 10_000]), &[&model]);
        assert!((l1(&merged) / l1(&model) - 1.0).abs() < 1e-6);
        let none = merge(&dare.with_rescale(Rescale::None), Some(&vec![0.0; 10_000]), &[&model]);
        assert!(none.iter().zip(&model).all(|(n, m)| *n == 0.0 || n == m));
        // Three standard deviations of the number kept.
        let kept = none.iter().filter(|v| **v != 0.0).count() as f64;
        assert!((kept - 3000.0).abs() < 3.0 * 45.9, "{kept}");
    }

    #[test]
    fn the_order_of_the_models_does_not_matter() {
        let (base, a, b) = (vec![0.0; 100], numbers(100, 2), numbers(100, 3));
        let (first, second) = (Operand::new("a", &a), Operand::new("b", &b));
        let merged = |models: &[Operand<'_>]| {
            let dare = Dare::new(vec![1.0; 2], vec![0.5; 2], 1.0, 1).unwrap();
            dare.merge(&Operands::new("w", &[100], Some(&base), models).unwrap()).unwrap()
        };
        assert_eq!(merged(&[first, second]), merged(&[second, first]));
    }

    #[test]
    fn signs_are_elected_among_what_is_left() {
        let dare = Dare::new(vec![1.0; 2], vec![1.0; 2], 1.0, 1).unwrap().with_election();
        // As TIES without trimming, but the sum.
        assert_eq!(merge(&dare, Some(&[0.0; 3]), &[&[3.0, -1.0, 1.0], &[-1.0, -2.0, 2.0]]), [3.0, -3.0, 3.0]);
    }
}
