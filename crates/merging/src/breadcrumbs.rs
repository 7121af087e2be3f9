//! Model Breadcrumbs (Davari & Belilovsky, ECCV 2024, arXiv 2312.06795, section 3): task vectors without
//! their largest and their smallest entries.
//!
//! ```text
//! D_i = W_i - W_0      without the floor(gamma n) largest |D_i|; of the rest the largest floor(d n)
//! W = W_0 + lambda * sum_i a_i D_i
//! ```
//!
//! or, with TIES, the sum of the entries that agree in sign (`breadcrumbs-ties`). As in mergekit, the
//! density wins: where `(gamma + d) n` exceeds `n`, fewer of the largest go. mergekit empties a task vector
//! whose `floor(gamma n)` is 0; here nothing large is dropped from it then, as the formula says.

use regrow_sparse_core::Result;

use crate::task_vectors::{Kept, Mix, Rescale, check_densities, largest};
use crate::tensors::{Operands, Parameters, TensorMerge, check_fractions};

/// Task vectors without outliers and without small change.
#[derive(Clone, Debug, PartialEq)]
pub struct Breadcrumbs {
    densities: Vec<f64>,
    gammas: Vec<f64>,
    rescale: Rescale,
    mix: Mix,
}

impl Breadcrumbs {
    /// A weight, a density and a share of outliers for each model.
    ///
    /// # Errors
    /// Fractions outside `[0, 1]`, or other numbers of them than of weights.
    pub fn new(weights: Vec<f64>, densities: Vec<f64>, gammas: Vec<f64>, lambda: f64) -> Result<Self> {
        let mix = Mix { weights, lambda, normalize: false, elect: false };
        Self::checked(densities, gammas, Rescale::None, mix)
    }

    /// From `weight` (1), `density` (1), `gamma` (0.01), `lambda` (1), `normalize` (false) and `rescale` (none,
    /// density or l1).
    ///
    /// # Errors
    /// As [`Breadcrumbs::new`], or parameters of another kind.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        let (densities, gammas) = (parameters.each("density", 1.0)?, parameters.each("gamma", 0.01)?);
        let rescale = parameters.word("rescale", Rescale::None, &Rescale::WORDS)?;
        Self::checked(densities, gammas, rescale, Mix::from_parameters(parameters, false, false)?)
    }

    fn checked(densities: Vec<f64>, gammas: Vec<f64>, rescale: Rescale, mix: Mix) -> Result<Self> {
        check_densities(&gammas, &mix)?;
        check_fractions("gamma", &gammas)?;
        check_densities(&densities, &mix)?;
        Ok(Self { densities, gammas, rescale, mix })
    }

    /// With an election of signs, as in TIES.
    pub fn with_election(mut self) -> Self {
        self.mix.elect = true;
        self
    }
}

impl TensorMerge for Breadcrumbs {
    fn name(&self) -> &'static str {
        if self.mix.elect { "breadcrumbs-ties" } else { "breadcrumbs" }
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        self.mix.merge(tensor, &|i, _, delta| {
            let (n, density) = (delta.len(), self.densities[i]);
            if density >= 1.0 {
                return Ok(Kept::All);
            }
            let count = (density * n as f64) as usize;
            let outliers = ((self.gammas[i] * n as f64) as usize).min(n - count);
            let mut words = largest(tensor, delta, count + outliers)?;
            let dropped = largest(tensor, delta, outliers)?;
            words.iter_mut().zip(dropped).for_each(|(word, dropped)| *word &= !dropped);
            let factor = self.rescale.factor(delta, &words, density);
            Ok(Kept::Some(words, factor))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::merge;

    const MODEL: [f32; 5] = [5.0, -1.0, 3.0, -4.0, 2.0];

    fn of(density: f64, gamma: f64) -> Breadcrumbs {
        Breadcrumbs::new(vec![1.0], vec![density], vec![gamma], 1.0).unwrap()
    }

    #[test]
    fn neither_the_largest_nor_the_smallest_take_part() {
        let merged = |density, gamma| merge(&of(density, gamma), Some(&[0.0; 5]), &[&MODEL]);
        assert_eq!(merged(0.4, 0.2), [0.0, 0.0, 3.0, -4.0, 0.0]);
        assert_eq!(merged(0.4, 0.0), [5.0, 0.0, 0.0, -4.0, 0.0]);
        // The density wins over the outliers.
        assert_eq!(merged(0.8, 0.9), [0.0, -1.0, 3.0, -4.0, 2.0]);
        assert_eq!(merged(1.0, 0.9), MODEL);
    }

    #[test]
    fn with_and_without_an_election() {
        let two = Breadcrumbs::new(vec![1.0; 2], vec![0.5; 2], vec![0.25; 2], 1.0).unwrap();
        let models: [&[f32]; 2] = [&[9.0, 2.0, 1.0, 0.0], &[3.0, -1.0, 9.0, 0.0]];
        assert_eq!(merge(&two, Some(&[0.0; 4]), &models), [3.0, 1.0, 1.0, 0.0]);
        assert_eq!(merge(&two.with_election(), Some(&[0.0; 4]), &models), [3.0, 2.0, 1.0, 0.0]);
    }

    #[test]
    fn fractions_are_checked() {
        assert!(Breadcrumbs::new(vec![1.0], vec![0.5], vec![-0.1], 1.0).is_err());
        assert!(Breadcrumbs::new(vec![1.0], vec![0.5], vec![], 1.0).is_err());
    }
}
