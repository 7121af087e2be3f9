//! OPCM: models merged on the fly, one after another (Tang et al., NeurIPS 2025, arXiv 2501.09522).
//!
//! One merged difference to the parent, `D`, and two numbers are kept. When the difference `T` of model `t` arrives,
//! each of its matrices is projected away from the main directions of `D`:
//!
//! ```text
//! D = U diag(S) V^T            k the first index with S_0 + .. + S_k > alpha sum(S)
//! P = U^T T V                  P_ii <- 0, P[:k, :k] <- 0
//! T' = U P V^T
//! ```
//!
//! and then, over all parameters together (`T' = T` for those that are not matrices):
//!
//! ```text
//! M = lambda_{t-1} D + T'      nbar = mean of ||T_1|| .. ||T_t||
//! lambda_t = ||M|| / nbar      D <- M / lambda_t
//! ```
//!
//! so that `||D|| = nbar` after every model. `U` and `V` are square, complete bases: the part of `T` outside the rows
//! and columns of `D` stays. Here `T'` is `T` minus the entries of `P` that are cleared, which needs only the thin SVD.
//!
//! ```
//! use regrow_merging::opcm::{Difference, OpcmConfig};
//!
//! let mut merged = [Difference { values: vec![0.0; 4], matrix: Some([2, 2]) }];
//! let opcm = OpcmConfig::new().with_alpha(0.5).init()?;
//! let state = opcm.add(None, &mut merged, &[vec![3.0, 0.0, 0.0, 1.0]])?;
//! let state = opcm.add(Some(state), &mut merged, &[vec![0.0, 1.0, 1.0, 0.0]])?;
//! assert_eq!(state.models, 2);
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```
//!
//! The authors' code also clears the diagonal of `P` at directions that `D` does not have (`S_i = 0`), which the SVD
//! chooses arbitrarily. Here directions with `S_i` below 1e-6 of the largest do not count. Convolutions are added
//! unprojected, as in that code, unless [`OpcmConfig::convolutions`] is set.

use burn::config::Config;
use faer::Mat;
use rayon::prelude::*;
use regrow_sparse_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::low_rank::diverged;
use crate::params::MergeParams;
use crate::whole::{ModelMerge, WholeModels};

/// A singular value below this share of the largest counts as zero.
const NEGLIGIBLE: f64 = 1e-6;

/// Settings of [`Opcm`].
#[derive(Config, Debug, PartialEq)]
pub struct OpcmConfig {
    /// The share of the singular values' sum whose directions are protected; 0.5 in the authors' configuration.
    #[config(default = 0.5)]
    pub alpha: f64,
    /// Whether kernels of convolutions are projected too, as matrices `[out, rest]`.
    #[config(default = false)]
    pub convolutions: bool,
}

/// Merges models as they arrive.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Opcm {
    alpha: f64,
    convolutions: bool,
}

/// The state between two models besides the merged difference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpcmState {
    /// Models merged so far, t.
    pub models: usize,
    /// The last divisor of the difference.
    #[serde(with = "exact")]
    pub lambda: f64,
    /// The mean norm of the models' differences.
    #[serde(with = "exact")]
    pub norm: f64,
}

/// Numbers as text, so that every reader gets the same bits.
mod exact {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no number")))
    }
}

/// The merged difference of one parameter to the parent.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Row-major.
    pub values: Vec<f32>,
    /// Its sizes `[m, d]`, if it is a matrix that is projected.
    pub matrix: Option<[usize; 2]>,
}

impl OpcmConfig {
    /// The method.
    ///
    /// # Errors
    /// An `alpha` outside [0, 1).
    pub fn init(&self) -> Result<Opcm> {
        match (0.0..1.0).contains(&self.alpha) {
            true => Ok(Opcm { alpha: self.alpha, convolutions: self.convolutions }),
            false => {
                Err(Error::Argument(format!("alpha is a share of the singular values in [0, 1), not {}", self.alpha)))
            }
        }
    }

    /// From the registry's parameters.
    ///
    /// # Errors
    /// Parameters that are missing or of another kind.
    pub fn from_params(params: &MergeParams) -> Result<Self> {
        Ok(Self { alpha: params.number("alpha")?, convolutions: params.flag("convolutions")? })
    }
}

impl Default for Opcm {
    /// The defaults of [`OpcmConfig`].
    fn default() -> Self {
        Self { alpha: 0.5, convolutions: false }
    }
}

impl OpcmState {
    /// After the first model, whose difference has this norm: it is the merged model.
    pub fn first(norm: f64) -> Self {
        Self { models: 1, lambda: 1.0, norm }
    }

    /// After another model of norm `task`, with `merged` the norm of `M`; `M / lambda` is the new difference.
    ///
    /// # Errors
    /// If the differences cancel each other out.
    pub fn next(&self, task: f64, merged: f64) -> Result<Self> {
        let models = self.models + 1;
        let norm = self.norm + (task - self.norm) / models as f64;
        match (norm > 0.0, merged > 0.0) {
            (false, _) => Ok(Self { models, lambda: 1.0, norm }),
            (true, true) => Ok(Self { models, lambda: merged / norm, norm }),
            (true, false) => Err(Error::Argument("the models' differences to the parent cancel each other".into())),
        }
    }
}

impl Opcm {
    /// The sizes `[m, d]` of a tensor that is projected: the weight of a linear layer and, if enabled, of a
    /// convolution. Embeddings, whose rows are looked up, are added unprojected.
    pub fn projected_matrix(&self, name: &str, shape: &[usize]) -> Option<[usize; 2]> {
        let is_embedding = ["embed", "wte", "wpe", "shared.weight", "lookup"].iter().any(|mark| name.contains(mark));
        match *shape {
            _ if !name.ends_with("weight") || is_embedding => None,
            [m, d] => Some([m, d]),
            [m, ref rest @ ..] if rest.len() > 1 && self.convolutions => Some([m, rest.iter().product()]),
            _ => None,
        }
    }

    /// Merges one more model, given by its differences to the parent, into `merged`; for the first model `state` is
    /// `None`. Matrices are projected in parallel.
    ///
    /// # Errors
    /// Differences of other sizes than those before, values that are not finite; as [`OpcmState::next`] and
    /// [`Opcm::matrix`].
    pub fn add(&self, state: Option<OpcmState>, merged: &mut [Difference], task: &[Vec<f32>]) -> Result<OpcmState> {
        if merged.len() != task.len() || merged.iter().zip(task).any(|(m, t)| m.values.len() != t.len()) {
            return Err(Error::Argument("the model does not have the parameters of those before it".into()));
        }
        let norm = norm(task.iter().map(Vec::as_slice));
        if !norm.is_finite() {
            return Err(Error::Argument("the model holds NaN or infinity".into()));
        }
        let Some(state) = state else {
            merged.iter_mut().zip(task).for_each(|(m, t)| m.values.clone_from(t));
            return Ok(OpcmState::first(norm));
        };
        let step = |(m, t): (&Difference, &Vec<f32>)| match m.matrix {
            Some(shape) => self.matrix(&state, &m.values, t, shape),
            None => Ok(plain(&state, &m.values, t)),
        };
        let sums = merged.par_iter().zip(task).map(step).collect::<Result<Vec<_>>>()?;
        let next = state.next(norm, self::norm(sums.iter().map(Vec::as_slice)))?;
        for (m, sum) in merged.iter_mut().zip(sums) {
            m.values = sum;
            m.values.iter_mut().for_each(|v| *v = (f64::from(*v) / next.lambda) as f32);
        }
        Ok(next)
    }

    /// `lambda D + T'` of one matrix `[m, d]`, row-major; `difference` is `D`, `task` is `T`.
    ///
    /// # Errors
    /// Values that do not fill the matrix, an SVD that does not converge.
    pub fn matrix(&self, state: &OpcmState, difference: &[f32], task: &[f32], [m, d]: [usize; 2]) -> Result<Vec<f32>> {
        if difference.len() != m * d || task.len() != m * d {
            return Err(Error::Argument(format!(
                "{} and {} values for a {m}x{d} matrix",
                difference.len(),
                task.len()
            )));
        }
        let projected = self.projected(&matrix(difference, m, d), &matrix(task, m, d))?;
        let sum = |i: usize| (state.lambda * f64::from(difference[i]) + projected[(i / d, i % d)]) as f32;
        Ok((0..m * d).map(sum).collect())
    }

    /// `T'`: `T` minus the diagonal of `P` and its first `k` rows and columns.
    fn projected(&self, difference: &Mat<f64>, task: &Mat<f64>) -> Result<Mat<f64>> {
        let svd = difference.thin_svd().map_err(|_| diverged(difference.nrows(), difference.ncols()))?;
        let s = svd.S().column_vector();
        let there = s.iter().take_while(|value| **value > NEGLIGIBLE * s[0]).count();
        let k = self.split(&s.iter().copied().take(there).collect::<Vec<_>>());
        let (u, v) = (svd.U().subcols(0, there), svd.V().subcols(0, there));
        let across = task * v;
        let mut gone = Mat::zeros(task.nrows(), there);
        if k > 0 {
            let block = u.subcols(0, k).transpose() * across.subcols(0, k);
            gone.as_mut().subcols_mut(0, k).copy_from(u.subcols(0, k) * block);
        }
        for i in k..there {
            let along: f64 = (0..task.nrows()).map(|row| u[(row, i)] * across[(row, i)]).sum();
            (0..task.nrows()).for_each(|row| gone[(row, i)] = along * u[(row, i)]);
        }
        Ok(task - gone * v.transpose())
    }

    /// The first index at which the running sum exceeds `alpha` of the whole.
    fn split(&self, s: &[f64]) -> usize {
        let all: f64 = s.iter().sum();
        let sums = s.iter().scan(0.0, |sum, value| {
            *sum += value;
            Some(*sum)
        });
        sums.into_iter().position(|sum| sum > self.alpha * all).unwrap_or(0)
    }
}

impl ModelMerge for Opcm {
    fn name(&self) -> &'static str {
        "opcm"
    }

    fn merge(&self, models: &WholeModels<'_>) -> Result<Vec<Vec<f32>>> {
        let base = models.base()?;
        let difference = |(name, shape): &(String, Vec<usize>)| Difference {
            values: vec![0.0; shape.iter().product()],
            matrix: self.projected_matrix(name, shape),
        };
        let mut merged: Vec<Difference> = models.tensors().iter().map(difference).collect();
        let mut state = None;
        for model in models.all() {
            let task: Vec<Vec<f32>> = model
                .iter()
                .zip(base)
                .map(|(model, base)| model.iter().zip(base).map(|(m, b)| m - b).collect())
                .collect();
            state = Some(self.add(state, &mut merged, &task)?);
        }
        let sum = |(merged, base): (Difference, &Vec<f32>)| -> Vec<f32> {
            merged.values.iter().zip(base).map(|(m, b)| b + m).collect()
        };
        Ok(merged.into_iter().zip(base).map(sum).collect())
    }
}

/// `lambda D + T` of a parameter that is not a matrix.
pub fn plain(state: &OpcmState, difference: &[f32], task: &[f32]) -> Vec<f32> {
    difference.iter().zip(task).map(|(d, t)| (state.lambda * f64::from(*d) + f64::from(*t)) as f32).collect()
}

/// The Frobenius norm of all together.
pub fn norm<'a>(parameters: impl Iterator<Item = &'a [f32]>) -> f64 {
    parameters.map(|values| values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()).sum::<f64>().sqrt()
}

fn matrix(values: &[f32], m: usize, d: usize) -> Mat<f64> {
    Mat::from_fn(m, d, |i, j| f64::from(values[i * d + j]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::low_rank::tests::{gap, noise};

    const SHAPES: [Option<[usize; 2]>; 3] = [Some([8, 6]), None, Some([5, 9])];

    fn alpha_of(alpha: f64) -> Opcm {
        OpcmConfig::new().with_alpha(alpha).init().unwrap()
    }

    fn size(of: Option<[usize; 2]>) -> usize {
        of.map_or(7, |[m, d]| m * d)
    }

    fn task(seed: u64) -> Vec<Vec<f32>> {
        SHAPES.iter().enumerate().map(|(i, of)| noise(size(*of), seed * 10 + i as u64)).collect()
    }

    fn empty() -> Vec<Difference> {
        SHAPES.iter().map(|of| Difference { values: vec![0.0; size(*of)], matrix: *of }).collect()
    }

    fn length(merged: &[Difference]) -> f64 {
        norm(merged.iter().map(|m| m.values.as_slice()))
    }

    #[test]
    fn the_difference_keeps_the_mean_norm_and_the_first_model_is_itself() {
        let opcm = Opcm::default();
        let (mut merged, mut state, mut norms) = (empty(), None, Vec::new());
        for t in 1..=6 {
            let task: Vec<Vec<f32>> =
                task(t).iter().map(|values| values.iter().map(|v| v * t as f32).collect()).collect();
            norms.push(norm(task.iter().map(Vec::as_slice)));
            let now = opcm.add(state, &mut merged, &task).unwrap();
            if t == 1 {
                assert!(merged.iter().zip(&task).all(|(m, t)| m.values == *t));
            }
            let mean = norms.iter().sum::<f64>() / norms.len() as f64;
            assert!((length(&merged) / mean - 1.0).abs() < 1e-5 && (now.norm / mean - 1.0).abs() < 1e-12);
            assert_eq!((now.models, merged.len()), (t as usize, 3), "nothing is kept of a model but its sum");
            state = Some(now);
        }
    }

    #[test]
    fn what_is_added_stands_at_right_angles_to_what_is_there() {
        for alpha in [0.0, 0.3, 0.5, 0.99] {
            let (d, t) = (noise(48, 1), noise(48, 2));
            let projected = alpha_of(alpha).projected(&matrix(&d, 8, 6), &matrix(&t, 8, 6)).unwrap();
            let dot: f64 = (0..48).map(|i| f64::from(d[i]) * projected[(i / 6, i % 6)]).sum();
            assert!(dot.abs() < 1e-10, "{alpha}: {dot}");
        }
    }

    #[test]
    fn disjoint_rows_and_columns_are_left_alone() {
        // D in the upper left, T in the lower right: D lacks T's directions.
        let place = |rows: std::ops::Range<usize>, cols: std::ops::Range<usize>, seed: u64| -> Vec<f32> {
            let values = noise(64, seed);
            (0..64).map(|i| if rows.contains(&(i / 8)) && cols.contains(&(i % 8)) { values[i] } else { 0.0 }).collect()
        };
        let (d, t) = (place(0..4, 0..3, 1), place(4..8, 3..8, 2));
        let state = OpcmState { models: 3, lambda: 2.0, norm: 1.0 };
        let sum = Opcm::default().matrix(&state, &d, &t, [8, 8]).unwrap();
        let expected: Vec<f32> = d.iter().zip(&t).map(|(d, t)| 2.0 * d + t).collect();
        assert!(gap(&sum, &expected) < 1e-6);
        // Nothing is merged yet, so nothing is protected.
        assert!(gap(&Opcm::default().matrix(&state, &[0.0; 64], &t, [8, 8]).unwrap(), &t) < 1e-6);
    }

    #[test]
    fn by_hand() {
        // D = diag(3, 1): alpha 0.5 protects nothing beyond the diagonal, alpha 0.8 the first direction.
        let state = OpcmState::first(1.0);
        let (d, t) = ([3.0, 0.0, 0.0, 1.0], [1.0, 2.0, 3.0, 4.0]);
        let with = |alpha: f64| alpha_of(alpha).matrix(&state, &d, &t, [2, 2]).unwrap();
        assert!(gap(&with(0.5), &[3.0, 2.0, 3.0, 1.0]) < 1e-6);
        assert!(gap(&with(0.8), &[3.0, 2.0, 3.0, 1.0]) < 1e-6);
        let (d, t) = ([3.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 1.0], [1.0; 9]);
        let with = |alpha: f64| alpha_of(alpha).matrix(&state, &d, &t, [3, 3]).unwrap();
        assert!(gap(&with(0.5), &[3.0, 1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0]) < 1e-6);
        assert!(gap(&with(0.9), &[3.0, 0.0, 1.0, 0.0, 2.0, 1.0, 1.0, 1.0, 1.0]) < 1e-6);
    }

    #[test]
    fn the_same_models_give_the_same_bits_and_the_state_can_be_kept() {
        let run = |keep: bool| {
            let (mut merged, mut state) = (empty(), None);
            for t in 1..=4 {
                state = Some(Opcm::default().add(state, &mut merged, &task(t)).unwrap());
                if keep {
                    let text = serde_json::to_string(&state).unwrap();
                    state = serde_json::from_str(&text).unwrap();
                }
            }
            (merged, state)
        };
        assert_eq!(run(false), run(false));
        assert_eq!(run(false), run(true));
    }

    #[test]
    fn lambda_grows_like_the_root_for_tasks_that_share_nothing() {
        let (mut merged, mut state) = (vec![Difference { values: vec![0.0; 4000], matrix: None }], None);
        for t in 0..9 {
            let now = Opcm::default().add(state, &mut merged, &[noise(4000, t)]).unwrap();
            assert!((now.lambda / ((t + 1) as f64).sqrt() - 1.0).abs() < 0.05, "{t}: {}", now.lambda);
            state = Some(now);
        }
    }

    #[test]
    fn whole_models_are_merged_as_their_differences_are() {
        let tensors =
            [("a.weight".to_string(), vec![8, 6]), ("b".into(), vec![7]), ("embed.weight".into(), vec![5, 9])];
        let (base, models) = (task(9), vec![task(1), task(2), task(3)]);
        let whole = WholeModels::new(&tensors, Some(&base), &models).unwrap();
        let found = Opcm::default().merge(&whole).unwrap();
        let (mut merged, mut state) = (empty(), None);
        merged[2].matrix = None;
        for model in &models {
            let less = |(m, b): (&Vec<f32>, &Vec<f32>)| m.iter().zip(b).map(|(m, b)| m - b).collect();
            let task: Vec<Vec<f32>> = model.iter().zip(&base).map(less).collect();
            state = Some(Opcm::default().add(state, &mut merged, &task).unwrap());
        }
        for ((found, merged), base) in found.iter().zip(&merged).zip(&base) {
            let wanted: Vec<f32> = merged.values.iter().zip(base).map(|(m, b)| b + m).collect();
            assert_eq!(*found, wanted);
        }
        assert!(Opcm::default().merge(&WholeModels::new(&tensors, None, &models).unwrap()).is_err());
    }

    #[test]
    fn impossible_input_is_refused() {
        assert!(OpcmConfig::new().with_alpha(1.0).init().unwrap_err().to_string().contains("[0, 1)"));
        assert!([f64::NAN, -0.1].iter().all(|alpha| OpcmConfig::new().with_alpha(*alpha).init().is_err()));
        let (opcm, mut merged) = (Opcm::default(), empty());
        assert!(opcm.add(None, &mut merged, &task(1)[..2]).unwrap_err().to_string().contains("parameters"));
        let mut bad = task(1);
        bad[1][0] = f32::NAN;
        assert!(opcm.add(None, &mut merged, &bad).unwrap_err().to_string().contains("NaN"));
        assert!(opcm.matrix(&OpcmState::first(1.0), &[0.0; 4], &[0.0; 4], [2, 3]).is_err());
        let one = vec![vec![1.0f32; 4]];
        let mut merged = vec![Difference { values: vec![0.0; 4], matrix: None }];
        let state = opcm.add(None, &mut merged, &one).unwrap();
        let less = vec![vec![-1.0f32; 4]];
        assert!(opcm.add(Some(state), &mut merged, &less).unwrap_err().to_string().contains("cancel"));
        // Models that are the parent itself change nothing.
        let mut none = vec![Difference { values: vec![0.0; 4], matrix: Some([2, 2]) }];
        let state = opcm.add(None, &mut none, &[vec![0.0; 4]]).unwrap();
        assert_eq!(opcm.add(Some(state), &mut none, &[vec![0.0; 4]]).unwrap().models, 2);
    }
}
