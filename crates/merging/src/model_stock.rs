//! Model stock (Jang et al., ECCV 2024, arXiv 2403.19522, section 4 and its appendix for N models): between
//! the base and the mean of the models, by the angle of their task vectors.
//!
//! ```text
//! c = mean over pairs i < j of cos(D_i, D_j)        t = N c / (1 + (N - 1) c)
//! W = t mean_i(W_i) + (1 - t) W_0
//! ```
//!
//! The paper has two models and one angle; the mean of the cosines for more models is mergekit's interpretation. `t` is
//! clamped to `[0, 1]` unless disabled: for angles above 90 degrees the formula leaves this range (at N = 2, c = -0.5
//! gives t = -2) and has a pole.

use burn::config::Config;
use rayon::prelude::*;
use regrow_sparse_core::{Error, Result};

use crate::params::MergeParams;
use crate::sums::{inner_products, weighted_sum};
use crate::tensors::{Operands, TensorMerge};

/// Products of norms below this count as this.
const SHORT: f64 = 1e-6;

/// Settings of [`ModelStock`].
#[derive(Config, Debug, PartialEq, Eq)]
pub struct ModelStockConfig {
    /// Whether each row of the tensor as a matrix `[out, rest]` has its own angle, or the tensor has one.
    #[config(default = false)]
    pub filter_wise: bool,
    /// Whether `t` is clamped to `[0, 1]`.
    #[config(default = true)]
    pub clamp: bool,
}

/// Between the base and the mean of the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelStock {
    models: usize,
    filter_wise: bool,
    clamp: bool,
}

impl ModelStockConfig {
    /// The method for `models` models.
    ///
    /// # Errors
    /// Fewer than two models: there is no angle.
    pub fn init(&self, models: usize) -> Result<ModelStock> {
        match models {
            0 | 1 => Err(Error::Argument("model stock needs at least two models and a base".into())),
            _ => Ok(ModelStock { models, filter_wise: self.filter_wise, clamp: self.clamp }),
        }
    }

    /// From the registry's parameters.
    ///
    /// # Errors
    /// Parameters that are missing or of another kind.
    pub fn from_params(params: &MergeParams) -> Result<Self> {
        Ok(Self { filter_wise: params.flag("filter_wise")?, clamp: params.flag("clamp")? })
    }
}

impl ModelStock {
    /// `t` for the rows of values in `range`.
    fn ratio(&self, tensor: &Operands<'_>, base: &[f32], range: std::ops::Range<usize>) -> Result<f64> {
        let models = tensor.models(self.models)?;
        let (n, start) = (self.models, range.start);
        let products = inner_products(n, range.len(), |i, k| models[i].values[start + k] - base[start + k]);
        let cosine = |i: usize, j: usize| {
            let norms = (products[i][i] * products[j][j]).sqrt().max(SHORT);
            (products[i][j] / norms).clamp(-1.0, 1.0)
        };
        let pairs = (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j)));
        let mean = pairs.map(|(i, j)| cosine(i, j)).sum::<f64>() / (n * (n - 1) / 2) as f64;
        let t = n as f64 * mean / (1.0 + (n as f64 - 1.0) * mean);
        match self.clamp {
            true if mean <= 0.0 => Ok(0.0),
            true => Ok(t.clamp(0.0, 1.0)),
            false if t.is_finite() => Ok(t),
            false => Err(tensor.error("the models' task vectors cancel out, model stock has no answer")),
        }
    }
}

impl TensorMerge for ModelStock {
    fn name(&self) -> &'static str {
        "model-stock"
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        let (base, models) = (tensor.base()?, tensor.models(self.models)?);
        let terms: Vec<(f32, &[f32])> = models.iter().map(|m| (1.0, m.values)).collect();
        let mut out = weighted_sum(&terms);
        let cols = if self.filter_wise { tensor.matrix().1 } else { tensor.elements() }.max(1);
        let count = self.models as f32;
        out.par_chunks_mut(cols).enumerate().try_for_each(|(row, out)| {
            let range = row * cols..row * cols + out.len();
            let t = self.ratio(tensor, base, range.clone())? as f32;
            out.iter_mut().zip(&base[range]).for_each(|(out, base)| *out = t * (*out / count) + (1.0 - t) * base);
            Ok::<(), regrow_sparse_core::Error>(())
        })?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::Operand;
    use crate::testing::{close, merge, try_merge};

    #[test]
    fn equal_task_vectors_are_taken_and_orthogonal_ones_are_not() {
        let stock = ModelStockConfig::new().init(2).unwrap();
        let base: &[f32] = &[1.0, 1.0];
        close(&merge(&stock, Some(base), &[&[2.0, 3.0], &[2.0, 3.0]]), &[2.0, 3.0], 1e-6);
        close(&merge(&stock, Some(base), &[&[2.0, 1.0], &[1.0, 3.0]]), base, 1e-6);
        close(&merge(&stock, Some(base), &[base, base]), base, 1e-6);
    }

    #[test]
    fn the_formula_at_sixty_degrees() {
        // c = 0.5: t = 2 * 0.5 / 1.5 = 2/3 for two, 3 * 0.5 / 2 = 3/4 for three.
        let height = 3.0f32.sqrt() / 2.0;
        let two = merge(&ModelStockConfig::new().init(2).unwrap(), Some(&[0.0, 0.0]), &[&[1.0, 0.0], &[0.5, height]]);
        close(&two, &[0.5, height / 3.0], 1e-6);
        let third = [0.5, height / 3.0, (2.0f32 / 3.0).sqrt()];
        let three = [&[1.0, 0.0, 0.0], &[0.5, height, 0.0], &third[..]];
        let merged = merge(&ModelStockConfig::new().init(3).unwrap(), Some(&[0.0; 3]), &three);
        close(&merged, &[0.5, height / 3.0, (2.0f32 / 3.0).sqrt() / 4.0], 1e-6);
    }

    #[test]
    fn beyond_a_right_angle_the_base_or_the_bare_formula() {
        let height = 3.0f32.sqrt() / 2.0;
        let models: [&[f32]; 2] = [&[1.0, 0.0], &[-0.5, height]];
        close(&merge(&ModelStockConfig::new().init(2).unwrap(), Some(&[0.0; 2]), &models), &[0.0; 2], 1e-6);
        let bare = ModelStockConfig::new().with_clamp(false).init(2).unwrap();
        close(&merge(&bare, Some(&[0.0; 2]), &models), &[-0.5, -height], 1e-5);
        assert!(ModelStockConfig::new().init(1).is_err());
        assert!(try_merge(&bare, None, &models).is_err());
    }

    #[test]
    fn filters_have_angles_of_their_own() {
        let (a, b) = ([1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]);
        let models = [Operand::new("a", &a), Operand::new("b", &b)];
        let tensor = Operands::new("w", &[2, 2], Some(&[0.0; 4]), &models).unwrap();
        close(
            &ModelStockConfig::new().with_filter_wise(true).init(2).unwrap().merge(&tensor).unwrap(),
            &[1.0, 0.0, 0.0, 0.0],
            1e-6,
        );
    }
}
