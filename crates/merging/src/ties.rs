//! TIES: trim, elect sign, merge (Yadav et al., NeurIPS 2023, arXiv 2306.01708, algorithm 1).
//!
//! ```text
//! trim     of each task vector D_i = W_i - W_0 keep the largest |D_i|, a share d of them
//! elect    s = sign(sum_i a_i D_i) for each entry, 0 counting as +
//! merge    W = W_0 + lambda * (sum of the a_i D_i that have the sign s) / (sum of their a_i)
//! ```
//!
//! The paper trims a model's task vector as a whole; here, as in mergekit, each tensor is trimmed by itself,
//! to `floor(d n)` entries exactly. For the paper's way, ask [`crate::stream::densities_within`] for each
//! tensor's density first (`scope = "model"` in a recipe). The authors' code keeps all entries from the `floor(d n) + 1`-th largest
//! on: [`Count::Authors`].

use regrow_sparse_core::Result;

use crate::task_vectors::{Kept, Mix, Rescale, check_densities, largest};
use crate::tensors::{Operands, Parameters, TensorMerge};

/// How many entries a density stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// `floor(d n)`; of equal entries, the earlier.
    Exact,
    /// The `floor(d n) + 1` largest and all that equal the least of them.
    Authors,
}

/// Task vectors trimmed to their largest entries and merged where they agree in sign.
#[derive(Clone, Debug, PartialEq)]
pub struct Ties {
    densities: Vec<f64>,
    count: Count,
    rescale: Rescale,
    mix: Mix,
}

impl Ties {
    /// A weight and a density for each model; the mean of the entries that agree, times `lambda`.
    ///
    /// # Errors
    /// Densities outside `[0, 1]`, or another number of them than of weights.
    pub fn new(weights: Vec<f64>, densities: Vec<f64>, lambda: f64) -> Result<Self> {
        let mix = Mix { weights, lambda, normalize: true, elect: true };
        check_densities(&densities, &mix)?;
        Ok(Self { densities, count: Count::Exact, rescale: Rescale::None, mix })
    }

    /// From `weight` (1), `density` (1), `lambda` (1), `normalize` (true), `count` (exact or authors) and
    /// `rescale` (none, density or l1). Densities are those of the tensor, whatever the `scope`.
    ///
    /// # Errors
    /// As [`Ties::new`], or parameters of another kind.
    pub fn from_parameters(parameters: &Parameters) -> Result<Self> {
        let mix = Mix::from_parameters(parameters, true, true)?;
        let densities = parameters.each("density", 1.0)?;
        check_densities(&densities, &mix)?;
        let count = parameters.word("count", Count::Exact, &[("exact", Count::Exact), ("authors", Count::Authors)])?;
        let rescale = parameters.word("rescale", Rescale::None, &Rescale::WORDS)?;
        Ok(Self { densities, count, rescale, mix })
    }

    /// With another way of counting.
    pub fn with_count(mut self, count: Count) -> Self {
        self.count = count;
        self
    }

    fn trim(&self, tensor: &Operands<'_>, delta: &[f32], density: f64) -> Result<Kept> {
        if density >= 1.0 {
            return Ok(Kept::All);
        }
        let count = (density * delta.len() as f64) as usize;
        let words = match self.count {
            Count::Exact => largest(tensor, delta, count)?,
            Count::Authors => no_less(delta, &largest(tensor, delta, (count + 1).min(delta.len()))?),
        };
        let factor = self.rescale.factor(delta, &words, density);
        Ok(Kept::Some(words, factor))
    }
}

/// Bits of all entries that are no smaller in magnitude than the least of those marked in `words`.
fn no_less(delta: &[f32], words: &[u64]) -> Vec<u64> {
    let marked = delta.iter().enumerate().filter(|(i, _)| words[i / 64] >> (i % 64) & 1 == 1);
    let least = marked.map(|(_, d)| d.abs()).fold(f32::INFINITY, f32::min);
    let word = |block: &[f32]| block.iter().enumerate().fold(0, |w, (b, d)| w | u64::from(d.abs() >= least) << b);
    delta.chunks(64).map(word).collect()
}

impl TensorMerge for Ties {
    fn name(&self) -> &'static str {
        "ties"
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        self.mix.merge(tensor, &|i, _, delta| self.trim(tensor, delta, self.densities[i]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::Linear;
    use crate::testing::{close, merge, numbers, try_merge};

    const BASE: [f32; 4] = [0.0; 4];
    const MODELS: [&[f32]; 2] = [&[3.0, -1.0, 0.5, 2.0], &[-1.0, -2.0, 0.2, 4.0]];

    #[test]
    fn trimmed_elected_merged() {
        // Trimmed: [3, 0, 0, 2] and [0, -2, 0, 4]; no conflict is left.
        let ties = Ties::new(vec![1.0; 2], vec![0.5; 2], 1.0).unwrap();
        assert_eq!(merge(&ties, Some(&BASE), &MODELS), [3.0, -2.0, 0.0, 3.0]);
        // Untrimmed, the first entry's sum 2 is positive: 3 alone.
        let all = Ties::new(vec![1.0; 2], vec![1.0; 2], 2.0).unwrap();
        close(&merge(&all, Some(&BASE), &MODELS), &[6.0, -3.0, 0.7, 6.0], 1e-6);
        // The second model weighs more and wins it; the mean of the rest is weighted.
        let weighted = Ties::new(vec![1.0, 4.0], vec![1.0; 2], 1.0).unwrap();
        close(&merge(&weighted, Some(&BASE), &MODELS), &[-1.0, -1.8, 0.26, 3.6], 1e-6);
    }

    #[test]
    fn the_authors_keep_one_more_and_all_its_equals() {
        let ties = Ties::new(vec![1.0; 2], vec![0.5; 2], 1.0).unwrap().with_count(Count::Authors);
        // [3, -1, 0, 2] and [-1, -2, 0, 4].
        assert_eq!(merge(&ties, Some(&BASE), &MODELS), [3.0, -1.5, 0.0, 3.0]);
        let equal: [&[f32]; 1] = [&[1.0, -1.0, 1.0, 2.0]];
        let ties = Ties::new(vec![1.0], vec![0.25], 1.0).unwrap();
        assert_eq!(merge(&ties, Some(&BASE), &equal), [0.0, 0.0, 0.0, 2.0]);
        assert_eq!(merge(&ties.with_count(Count::Authors), Some(&BASE), &equal), equal[0]);
    }

    #[test]
    fn a_tie_of_signs_is_positive_and_zeros_have_no_part() {
        let ties = Ties::new(vec![1.0; 3], vec![1.0; 3], 1.0).unwrap();
        assert_eq!(merge(&ties, Some(&[0.0; 2]), &[&[1.0, 0.0], &[-1.0, 0.0], &[0.0, 3.0]]), [1.0, 3.0]);
    }

    #[test]
    fn without_conflict_or_trimming_it_is_the_mean() {
        let base: Vec<f32> = numbers(10_000, 1);
        let up =
            |seed| -> Vec<f32> { base.iter().zip(numbers(10_000, seed)).map(|(b, d)| b + d.abs() + 0.1).collect() };
        let (a, b) = (up(2), up(3));
        let mean = merge(&Linear::new(vec![1.0; 2], true).unwrap(), None, &[&a, &b]);
        let ties = Ties::new(vec![1.0; 2], vec![1.0; 2], 1.0).unwrap();
        close(&merge(&ties, Some(&base), &[&a, &b]), &mean, 1e-6);
    }

    #[test]
    fn exactly_so_many_entries_change() {
        let (base, model) = (vec![0.0; 1000], numbers(1000, 4));
        for density in [0.0, 0.0001, 0.3, 0.999] {
            let ties = Ties::new(vec![1.0], vec![density], 1.0).unwrap();
            let changed = merge(&ties, Some(&base), &[&model]).iter().filter(|w| **w != 0.0).count();
            assert_eq!(changed, (density * 1000.0) as usize);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Ties::new(vec![1.0], vec![1.5], 1.0).is_err() && Ties::new(vec![1.0], vec![], 1.0).is_err());
        let ties = Ties::new(vec![1.0], vec![0.5], 1.0).unwrap();
        let says = try_merge(&ties, Some(&[0.0; 2]), &[&[f32::NAN, 1.0]]).unwrap_err().to_string();
        assert!(says.starts_with("w: ") && says.contains("NaN"), "{says}");
        assert!(try_merge(&ties, None, &[&[1.0]]).unwrap_err().to_string().contains("needs a base"));
    }
}
