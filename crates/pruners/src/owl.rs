//! OWL: blocks with more outliers are pruned less (Yin et al., arXiv 2310.05175).
//!
//! `D_l` is the share of the weights of block `l` whose `|w_ij| ||x_j||` is more than `M` times the mean of
//! the block (sec. 3.2). Sparsities follow `1 - D_l` within `[S - lambda, S + lambda]`, their mean `S`; as
//! the authors' code has it: `density_l = 1 - S + 2 lambda (d_l - mean(d))`, `d_l` being `D_l` brought to
//! `[0, 1]`.

use regrow_sparse_core::blockwise::Squares;
use regrow_sparse_core::schedule::check_sparsity;
use regrow_sparse_core::weight::Weight;
use regrow_sparse_core::{Error, Result};

/// How far sparsities may differ, and what an outlier is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Owl {
    /// `lambda`: half the width of the range of sparsities.
    pub lambda: f64,
    /// `M`: an outlier is more than so many times the mean.
    pub outlier: f64,
}

impl Default for Owl {
    /// The paper's `lambda` 0.08 and `M` 5 (sec. 4).
    fn default() -> Self {
        Self { lambda: 0.08, outlier: 5.0 }
    }
}

impl Owl {
    /// With other settings.
    ///
    /// # Errors
    /// A range that is negative or not finite, an outlier that is not above zero times the mean.
    pub fn new(lambda: f64, outlier: f64) -> Result<Self> {
        if !lambda.is_finite() || lambda < 0.0 || !outlier.is_finite() || outlier <= 0.0 {
            return Err(Error::Argument(format!(
                "OWL with lambda {lambda} and outliers of {outlier} times is impossible"
            )));
        }
        Ok(Self { lambda, outlier })
    }

    /// `D_l`: the share of outliers among the weights of a block.
    ///
    /// # Errors
    /// Inputs that are not finite or do not fit their layer.
    pub fn share(&self, layers: &[(Weight, &Squares)]) -> Result<f64> {
        let norms = layers.iter().map(|(weight, squares)| squares.norms(weight)).collect::<Result<Vec<_>>>()?;
        let metrics = || {
            layers.iter().zip(&norms).flat_map(|((weight, _), norms)| {
                weight.values.iter().enumerate().map(|(i, w)| f64::from(w.abs() * norms[i % norms.len()]))
            })
        };
        let (sum, all) = metrics().fold((0.0, 0usize), |(sum, n), m| (sum + m, n + 1));
        let limit = self.outlier * sum / all.max(1) as f64;
        Ok(metrics().filter(|m| *m > limit).count() as f64 / all.max(1) as f64)
    }

    /// The sparsity of each block by its share of outliers; `weights` are the weights of each, so that
    /// the mean over all weights is `sparsity`.
    ///
    /// # Errors
    /// Sparsity outside [0, 1), a block's share beyond that, no block.
    pub fn sparsities(&self, shares: &[f64], weights: &[usize], sparsity: f64) -> Result<Vec<f64>> {
        check_sparsity(sparsity)?;
        let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
        let most = shares.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: usize = weights.iter().sum();
        if shares.is_empty() || shares.len() != weights.len() || total == 0 {
            return Err(Error::Argument("OWL needs the outliers and the weights of every block".into()));
        }
        // Blocks that are all alike share alike.
        let range = if most > least { most - least } else { 1.0 };
        let scaled: Vec<f64> = shares.iter().map(|s| 2.0 * self.lambda * (s - least) / range).collect();
        let mean = scaled.iter().zip(weights).map(|(d, n)| d * *n as f64).sum::<f64>() / total as f64;
        let found: Vec<f64> = scaled.iter().map(|d| sparsity - (d - mean)).collect();
        match found.iter().all(|s| (0.0..1.0).contains(s)) {
            true => Ok(found),
            false => Err(Error::Argument(format!(
                "at sparsity {sparsity} OWL with lambda {} would leave [0, 1) in a block: use a smaller lambda",
                self.lambda
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::testing::weight;

    #[test]
    fn as_the_authors_formula() {
        // (D - 1) / 3 * 0.16 = 0, 0.16, 0.08; mean 0.08.
        let found = Owl::default().sparsities(&[1.0, 4.0, 2.5], &[10, 10, 10], 0.7).unwrap();
        for (a, b) in found.iter().zip([0.78, 0.62, 0.70]) {
            assert!((a - b).abs() < 1e-12, "{found:?}");
        }
        let unlike = Owl::default().sparsities(&[0.0, 1.0], &[10, 30], 0.5).unwrap();
        assert!((unlike[0] * 10.0 + unlike[1] * 30.0 - 20.0).abs() < 1e-12);
    }

    #[test]
    fn like_blocks_share_alike_and_what_cannot_be_is_refused() {
        assert_eq!(Owl::default().sparsities(&[0.3, 0.3], &[5, 5], 0.5).unwrap(), [0.5, 0.5]);
        let says = Owl::default().sparsities(&[0.0, 1.0], &[5, 5], 0.95).unwrap_err().to_string();
        assert!(says.contains("smaller lambda"), "{says}");
        assert!(Owl::default().sparsities(&[], &[], 0.5).is_err());
    }

    #[test]
    fn outliers_are_counted_over_the_whole_block() {
        let mut squares = Squares::new(2);
        squares.add(Tensor::from_data([[1.0f32, 2.0]], &Device::default()));
        // |w| ||x||: 1 2 1 2, and 1 2 1 40: the mean is 6.25, the limit 31.25.
        let (a, b) = (weight("a", &[2, 2], |_| 1.0), weight("b", &[2, 2], |i| if i == 3 { -20.0 } else { 1.0 }));
        let share = Owl::default().share(&[(a, &squares), (b, &squares)]).unwrap();
        assert_eq!(share, 1.0 / 8.0);
    }
}
