//! RegMean (Jin et al., ICLR 2023, arXiv 2212.09849, equation 2): the linear layer whose outputs are nearest
//! to those of every model on that model's own inputs.
//!
//! ```text
//! W = (sum_i a_i W_i G_i) (sum_i a_i G_i)^-1         W_i [out, in],  G_i = X_i^T X_i / rows [in, in]
//! ```
//!
//! with the off-diagonal entries of `G_i` times `alpha`, which stabilizes it. The second moment `G_i` of the layer's
//! inputs is each model's statistic; tensors without it are averaged, as in the paper. A ridge of a millionth of the
//! mean of the diagonal is added; the authors' code inverts without one.

use burn::config::Config;
use faer::linalg::solvers::Solve;
use faer::{Mat, Side};
use regrow_sparse_core::Result;

use crate::params::{MergeParams, PerModel, check_fractions, check_positive};
use crate::sums::{terms, weighted_mean};
use crate::tensors::{Operands, TensorMerge};

/// Settings of [`RegMean`].
#[derive(Config, Debug, PartialEq)]
pub struct RegMeanConfig {
    /// The weight of each model.
    #[config(default = "PerModel::All(1.0)")]
    pub weight: PerModel,
    /// The factor of the off-diagonal entries of the second moments.
    #[config(default = 1.0)]
    pub alpha: f64,
}

/// The regression of linear layers.
#[derive(Clone, Debug, PartialEq)]
pub struct RegMean {
    weights: Vec<f64>,
    alpha: f64,
    ridge: f64,
}

impl RegMeanConfig {
    /// The method for `models` models.
    ///
    /// # Errors
    /// Weights that are not positive, another count of them than of models, an `alpha` outside `[0, 1]`.
    pub fn init(&self, models: usize) -> Result<RegMean> {
        let weights = self.weight.of(models, "weight")?;
        check_positive("weight", &weights)?;
        check_fractions("alpha", &[self.alpha])?;
        Ok(RegMean { weights, alpha: self.alpha, ridge: 1e-6 })
    }

    /// From the registry's parameters.
    ///
    /// # Errors
    /// Parameters that are missing or of another kind.
    pub fn from_params(params: &MergeParams) -> Result<Self> {
        Ok(Self { weight: params.each("weight")?, alpha: params.number("alpha")? })
    }
}

impl RegMean {
    /// `sum_i a_i G_i` and `sum_i a_i G_i W_i^T`, in f64.
    fn equations(&self, tensor: &Operands<'_>, moments: &[&[f32]], rows: usize, cols: usize) -> (Mat<f64>, Mat<f64>) {
        let place = |r: usize, i: usize| if tensor.transposed() { i * rows + r } else { r * cols + i };
        let (mut left, mut right) = (Mat::zeros(cols, cols), Mat::zeros(cols, rows));
        for ((model, moment), weight) in tensor.all().iter().zip(moments).zip(&self.weights) {
            let scaled = |i: usize, j: usize| {
                let factor = if i == j { 1.0 } else { self.alpha };
                weight * factor * f64::from(moment[i * cols + j])
            };
            let g = Mat::from_fn(cols, cols, scaled);
            let w = Mat::from_fn(cols, rows, |i, r| f64::from(model.values[place(r, i)]));
            right += &g * &w;
            left += g;
        }
        (left, right)
    }
}

impl TensorMerge for RegMean {
    fn name(&self) -> &'static str {
        "regmean"
    }

    fn merge(&self, tensor: &Operands<'_>) -> Result<Vec<f32>> {
        let models = tensor.models(self.weights.len())?;
        let Some(moments) = models.iter().map(|m| m.statistic).collect::<Option<Vec<_>>>() else {
            return Ok(weighted_mean(&terms(models, &self.weights), self.weights.iter().map(|w| *w as f32).sum()));
        };
        let (rows, cols) = match (tensor.transposed(), tensor.matrix()) {
            (true, (input, output)) => (output, input),
            (false, matrix) => matrix,
        };
        if let Some((model, found)) = models.iter().zip(&moments).find(|(_, m)| m.len() != cols * cols) {
            let reason =
                format!("the second moment of {} has {} values, not {cols} x {cols}", model.model, found.len());
            return Err(tensor.error(reason));
        }
        let (mut left, right) = self.equations(tensor, &moments, rows, cols);
        let mean = (0..cols).map(|i| left[(i, i)]).sum::<f64>() / cols.max(1) as f64;
        (0..cols).for_each(|i| left[(i, i)] += self.ridge * mean);
        let llt = left.llt(Side::Lower);
        let llt = llt.map_err(|_| tensor.error("the second moments of the inputs are not positive definite"))?;
        let solved = llt.solve(&right);
        let (outer, inner) = if tensor.transposed() { (cols, rows) } else { (rows, cols) };
        let at = |a: usize, b: usize| if tensor.transposed() { solved[(a, b)] } else { solved[(b, a)] };
        Ok((0..outer).flat_map(|a| (0..inner).map(move |b| (a, b))).map(|(a, b)| at(a, b) as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::Operand;
    use crate::testing::{close, merge, numbers};

    fn merged<'a>(alpha: f64, models: &[(&'a [f32], &'a [f32])], shape: &[usize]) -> Result<Vec<f32>> {
        let operand = |m: &(&'a [f32], &'a [f32])| Operand { model: "m", values: m.0, statistic: Some(m.1) };
        let models: Vec<Operand<'_>> = models.iter().map(operand).collect();
        RegMeanConfig::new().with_alpha(alpha).init(models.len())?.merge(&Operands::new("w", shape, None, &models)?)
    }

    #[test]
    fn each_input_counts_by_how_much_it_was_used() {
        let identity = [1.0, 0.0, 0.0, 1.0];
        let models: [(&[f32], &[f32]); 2] = [(&[1.0, 0.0], &[3.0, 0.0, 0.0, 1.0]), (&[0.0, 1.0], &identity)];
        close(&merged(1.0, &models, &[1, 2]).unwrap(), &[0.75, 0.5], 1e-5);
    }

    #[test]
    fn it_is_the_least_squares_solution() {
        // Two models, inputs of 6 rows each; the normal equations hold: sum_i (W - W_i) G_i = 0.
        let (rows, cols) = (2, 3);
        let moment = |seed| -> Vec<f32> {
            let x = numbers(6 * cols, seed);
            let entry = |i: usize, j: usize| (0..6).map(|r| x[r * cols + i] * x[r * cols + j]).sum::<f32>() / 6.0;
            (0..cols * cols).map(|k| entry(k / cols, k % cols)).collect()
        };
        let (a, b, ga, gb) = (numbers(6, 1), numbers(6, 2), moment(3), moment(4));
        let w = merged(1.0, &[(&a, &ga), (&b, &gb)], &[rows, cols]).unwrap();
        for r in 0..rows {
            for j in 0..cols {
                let pull = |m: &[f32], g: &[f32]| -> f32 {
                    (0..cols).map(|k| (w[r * cols + k] - m[r * cols + k]) * g[k * cols + j]).sum()
                };
                assert!((pull(&a, &ga) + pull(&b, &gb)).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn a_matrix_that_is_stored_transposed_is_merged_like_one_that_is_not() {
        let (rows, cols) = (2, 3);
        let diagonal = |d: [f32; 3]| -> Vec<f32> { (0..9).map(|k| if k % 4 == 0 { d[k / 4] } else { 0.1 }).collect() };
        let (a, b) = (numbers(6, 1), numbers(6, 2));
        let (ga, gb) = (diagonal([1.0, 2.0, 3.0]), diagonal([3.0, 1.0, 0.5]));
        let turn = |w: &[f32], rows: usize, cols: usize| -> Vec<f32> {
            (0..rows * cols).map(|k| w[k % rows * cols + k / rows]).collect()
        };
        let plain = merged(0.9, &[(&a, &ga), (&b, &gb)], &[rows, cols]).unwrap();
        let (ta, tb) = (turn(&a, rows, cols), turn(&b, rows, cols));
        let models = [(&ta, &ga), (&tb, &gb)].map(|(w, g)| Operand { model: "m", values: w, statistic: Some(g) });
        let shape = [cols, rows];
        let tensor = Operands::new("w", &shape, None, &models).unwrap().with_transposed(true);
        close(
            &RegMeanConfig::new().with_alpha(0.9).init(2).unwrap().merge(&tensor).unwrap(),
            &turn(&plain, rows, cols),
            1e-6,
        );
    }

    #[test]
    fn equal_models_are_given_back_and_layers_without_statistics_averaged() {
        let w = [0.5, -1.0];
        let models: [(&[f32], &[f32]); 2] = [(&w, &[2.0, 0.5, 0.5, 1.0]), (&w, &[1.0, 0.0, 0.0, 3.0])];
        close(&merged(0.9, &models, &[1, 2]).unwrap(), &w, 1e-5);
        close(&merge(&RegMeanConfig::new().init(2).unwrap(), None, &[&[1.0], &[3.0]]), &[2.0], 1e-6);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(RegMeanConfig::new().with_alpha(2.0).init(1).is_err());
        assert!(RegMeanConfig::new().with_weight((-1.0).into()).init(1).is_err());
        assert!(merged(1.0, &[(&[1.0, 2.0], &[1.0])], &[1, 2]).unwrap_err().to_string().contains("2 x 2"));
        assert!(merged(1.0, &[(&[1.0, 2.0], &[0.0; 4])], &[1, 2]).is_err());
    }
}
