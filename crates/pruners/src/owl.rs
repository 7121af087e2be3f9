//! OWL: blocks with more outliers are pruned less (Yin et al., arXiv 2310.05175).
//!
//! `D_l` is the share of the weights of block `l` whose `|w_ij| ||x_j||` is more than `M` times the mean of the block
//! (sec. 3.2). Sparsities follow `1 - D_l` within `[S - lambda, S + lambda]`, with mean `S`; as in the authors' code:
//! `density_l = 1 - S + 2 lambda (d_l - mean(d))`, where `d_l` is `D_l` scaled to `[0, 1]`.

use regrow_checkpoint::Checkpoint;
use regrow_sparse_core::Pattern;
use regrow_sparse_core::layerwise::HiddenStates;
use regrow_sparse_core::layerwise::{BlockModel, Squares, calibrate};
use regrow_sparse_core::mask::budget::{Allocate, Layer, Share, rounded};
use regrow_sparse_core::mask::schedule::check_sparsity;
use regrow_sparse_core::model::evidence::{Evidence, Needs};
use regrow_sparse_core::model::probe::outlier_share;
use regrow_sparse_core::model::weight::Weight;
use regrow_sparse_core::{Error, Result};

/// How far sparsities may differ, and what an outlier is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Owl {
    /// `lambda`: half the width of the range of sparsities.
    pub lambda: f64,
    /// `M`: an outlier is more than this many times the mean.
    pub outlier: f64,
}

/// OWL's measurements of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outliers {
    /// `D_l` of each block.
    pub shares: Vec<f64>,
    /// The weights of each block that will be pruned.
    pub weights: Vec<usize>,
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
        let with_norms = |(weight, squares): &'_ (Weight, &Squares)| squares.norms(weight);
        let norms = layers.iter().map(with_norms).collect::<Result<Vec<_>>>()?;
        let layers: Vec<(&Weight, Vec<f32>)> = layers.iter().map(|(weight, _)| weight).zip(norms).collect();
        Ok(outlier_share(&layers, self.outlier))
    }

    /// Runs `model` unchanged over calibration inputs, as in [`calibrate`], and counts outliers among all linear layers
    /// of each block; layers whose names `pruned` accepts count as weights to prune. `watch` is called with the number
    /// of finished blocks after each block.
    ///
    /// # Errors
    /// As [`calibrate`] and [`Owl::share`].
    pub fn look<M: BlockModel>(
        &self,
        model: &M,
        source: &Checkpoint,
        context: &M::SequenceContext,
        hidden: &HiddenStates,
        pruned: &dyn Fn(&str) -> bool,
        watch: &mut dyn FnMut(usize),
    ) -> Result<Outliers> {
        let mut found = Outliers::default();
        calibrate(model, source, context, hidden, &mut |index, layers| {
            found.shares.push(self.share(layers)?);
            let admitted = layers.iter().filter(|(weight, _)| pruned(&weight.path));
            found.weights.push(admitted.map(|(weight, _)| weight.values.len()).sum());
            watch(index + 1);
            Ok(())
        })?;
        Ok(found)
    }

    /// The sparsity of each block by its share of outliers; their mean over all weights is `sparsity`.
    ///
    /// # Errors
    /// Sparsity outside [0, 1), a block's share beyond that, no block.
    pub fn by_block(&self, Outliers { shares, weights }: &Outliers, sparsity: f64) -> Result<Vec<f64>> {
        check_sparsity(sparsity)?;
        let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
        let most = shares.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: usize = weights.iter().sum();
        if shares.is_empty() || shares.len() != weights.len() || total == 0 {
            return Err(Error::Argument("OWL needs the outliers and the weights of every block".into()));
        }
        // Blocks with equal shares get equal sparsities.
        let range = if most > least { most - least } else { 1.0 };
        let scaled: Vec<f64> = shares.iter().map(|s| 2.0 * self.lambda * (s - least) / range).collect();
        let mean = scaled.iter().zip(weights.iter()).map(|(d, n)| d * *n as f64).sum::<f64>() / total as f64;
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

/// In a Burn model each layer is its own block.
impl Allocate for Owl {
    fn name(&self) -> &'static str {
        "owl"
    }

    fn needs(&self) -> Needs {
        Needs::outliers(self.outlier)
    }

    fn allocate(&self, layers: &[Layer<'_>], evidence: &Evidence, sparsity: f64) -> Result<Vec<usize>> {
        let sparsities = self.sparsities(layers, evidence, sparsity)?;
        Ok(layers.iter().zip(sparsities).map(|(layer, s)| rounded(s, layer.len())).collect())
    }

    fn sparsities(&self, layers: &[Layer<'_>], evidence: &Evidence, sparsity: f64) -> Result<Vec<f64>> {
        let (mut found, mut blocks) = (Outliers::default(), Vec::new());
        for (layer, share) in layers.iter().zip(evidence.outliers(layers.len())?) {
            if blocks.last() != Some(&layer.block) {
                blocks.push(layer.block);
                found.shares.push(*share);
                found.weights.push(0);
            }
            let last = blocks.len() - 1;
            found.weights[last] += layer.len();
        }
        let of_block = self.by_block(&found, sparsity)?;
        let place = |layer: &Layer<'_>| blocks.iter().position(|block| *block == layer.block).unwrap_or_default();
        Ok(layers.iter().map(|layer| of_block[place(layer)]).collect())
    }

    fn shares(&self) -> Share {
        Share::ByShape
    }
}

/// Mixed N:M sparsity: for each block how many of every `m` weights are kept at its sparsity, rounded so that their sum
/// is the rounded sum (largest remainders), like the paper's mixed N:8.
pub fn mixed(sparsities: &[f64], m: usize) -> Vec<Pattern> {
    let exact: Vec<f64> = sparsities.iter().map(|s| (1.0 - s) * m as f64).collect();
    let mut kept: Vec<usize> = exact.iter().map(|e| e.floor() as usize).collect();
    let mut order: Vec<usize> = (0..exact.len()).collect();
    order.sort_by(|a, b| exact[*b].fract().total_cmp(&exact[*a].fract()));
    let left = exact.iter().sum::<f64>().round() as usize - kept.iter().sum::<usize>();
    order.iter().take(left).for_each(|block| kept[*block] += 1);
    kept.into_iter().map(|n| Pattern::NofM { n, m }).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::*;
    use crate::testing::weight;

    fn sparsities(shares: &[f64], weights: &[usize], sparsity: f64) -> Result<Vec<f64>> {
        Owl::default().by_block(&Outliers { shares: shares.into(), weights: weights.into() }, sparsity)
    }

    #[test]
    fn mixed_patterns_keep_the_sum() {
        let kept = |sparsities: &[f64], m: usize| -> Vec<usize> {
            let n = |p: Pattern| if let Pattern::NofM { n, .. } = p { n } else { 0 };
            mixed(sparsities, m).into_iter().map(n).collect()
        };
        assert_eq!(kept(&[0.5, 0.5, 0.5], 4), [2, 2, 2]);
        // 3.36, 4.0 and 4.64 of 8: the sum is 12.
        assert_eq!(kept(&[0.58, 0.5, 0.42], 8), [3, 4, 5]);
        assert_eq!(kept(&[0.55, 0.5, 0.45], 4), [2, 2, 2]);
    }

    #[test]
    fn as_the_authors_formula() {
        // (D - 1) / 3 * 0.16 = 0, 0.16, 0.08; mean 0.08.
        let found = sparsities(&[1.0, 4.0, 2.5], &[10, 10, 10], 0.7).unwrap();
        regrow_testing::assert_close(&found, &[0.78, 0.62, 0.70], 1e-12);
        let unlike = sparsities(&[0.0, 1.0], &[10, 30], 0.5).unwrap();
        assert!((unlike[0] * 10.0 + unlike[1] * 30.0 - 20.0).abs() < 1e-12);
    }

    #[test]
    fn like_blocks_share_alike_and_what_cannot_be_is_refused() {
        assert_eq!(sparsities(&[0.3, 0.3], &[5, 5], 0.5).unwrap(), [0.5, 0.5]);
        let says = sparsities(&[0.0, 1.0], &[5, 5], 0.95).unwrap_err().to_string();
        assert!(says.contains("smaller lambda"), "{says}");
        assert!(sparsities(&[], &[], 0.5).is_err());
    }

    #[test]
    fn outliers_are_counted_over_the_whole_block() {
        let mut squares = Squares::new(2);
        squares.add(Tensor::from_data([[1.0f32, 2.0]], &regrow_device::current()));
        // |w| ||x||: 1 2 1 2, and 1 2 1 40: the mean is 6.25, the limit 31.25.
        let (a, b) = (weight("a", &[2, 2], |_| 1.0), weight("b", &[2, 2], |i| if i == 3 { -20.0 } else { 1.0 }));
        let share = Owl::default().share(&[(a, &squares), (b, &squares)]).unwrap();
        assert_eq!(share, 1.0 / 8.0);
    }
}
