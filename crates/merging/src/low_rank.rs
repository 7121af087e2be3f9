//! Low-rank matrices as factors, `W = L R` with `L [m, r]` and `R [r, d]`, and computations on them without forming `L
//! R`:
//!
//! ```text
//! <L1 R1, L2 R2>    = sum over a, b of (L1^T L2)_ab (R1 R2^T)_ab            two r x r blocks
//! sum_i c_i L_i R_i = [c_1 L_1 .. c_n L_n] [R_1; ..; R_n]                   stays factored
//! rank r of L R:      L = Q1 T1, R^T = Q2 T2, T1 T2^T = U S V^T             one small SVD
//!                     L' = Q1 U_r sqrt(S_r), R' = sqrt(S_r) (Q2 V_r)^T      balanced
//! ```
//!
//! Factors are f32, sums are taken in f64. [`LowRank::approximate`] factorizes a dense matrix: by the Gram matrix if it
//! is small, by subspace iteration (Halko, Martinsson, Tropp, arXiv 0909.4061, algorithm 4.4) if it is large.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Side, get_global_parallelism};
use nalgebra::DMatrix;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::model::weight::transposed;
use regrow_sparse_core::{Error, Result};

/// Up to this many rows or columns a dense matrix is approximated by its Gram matrix.
const SMALL: usize = 256;
/// Subspace iteration ends when a step gains less than this share of the matrix' squared norm.
const GAIN: f64 = 1e-7;
/// Steps of subspace iteration after which the Gram matrix is used instead.
const STEPS: usize = 40;

/// A matrix `[m, d]` as the product of `left [m, r]` and `right [r, d]`, both row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct LowRank {
    rows: usize,
    rank: usize,
    cols: usize,
    left: Vec<f32>,
    right: Vec<f32>,
}

/// `U diag(S) V^T` of a low-rank matrix, `U [m, k]`, `V [d, k]`, `S` in descending order.
pub(crate) struct Svd {
    pub u: Mat<f64>,
    pub s: Vec<f64>,
    pub v: Mat<f64>,
}

impl LowRank {
    /// From its factors, row-major, and `[m, r, d]`.
    ///
    /// # Errors
    /// A size of zero, another number of values, a value that is not finite.
    pub fn new(left: Vec<f32>, right: Vec<f32>, [rows, rank, cols]: [usize; 3]) -> Result<Self> {
        if rows == 0 || rank == 0 || cols == 0 {
            return Err(Error::Argument(format!("factors {rows}x{rank} and {rank}x{cols} make no matrix")));
        }
        if left.len() != rows * rank || right.len() != rank * cols {
            return Err(Error::Argument(format!(
                "{} and {} values are no factors {rows}x{rank} and {rank}x{cols}",
                left.len(),
                right.len()
            )));
        }
        if left.iter().chain(&right).any(|v| !v.is_finite()) {
            return Err(Error::Argument(format!("a factor of a {rows}x{cols} matrix holds NaN or infinity")));
        }
        Ok(Self { rows, rank, cols, left, right })
    }

    /// `[m, d]`.
    pub fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// The number of columns of its left factor, at least the matrix' rank.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// `L [m, r]`, row-major.
    pub fn left(&self) -> &[f32] {
        &self.left
    }

    /// `R [r, d]`, row-major.
    pub fn right(&self) -> &[f32] {
        &self.right
    }

    /// How many values its factors have.
    pub fn numbers(&self) -> usize {
        self.rank * (self.rows + self.cols)
    }

    /// The matrix itself, `[m, d]`, row-major.
    pub fn dense(&self) -> Vec<f32> {
        let mut product = vec![0.0f32; self.rows * self.cols];
        let out = faer::MatMut::from_row_major_slice_mut(&mut product, self.rows, self.cols);
        let left = MatRef::from_row_major_slice(&self.left, self.rows, self.rank);
        let right = MatRef::from_row_major_slice(&self.right, self.rank, self.cols);
        matmul(out, Accum::Replace, left, right, 1.0f32, get_global_parallelism());
        product
    }

    /// The transpose, `[d, m]`.
    pub fn transposed(&self) -> Self {
        let Self { rows, rank, cols, .. } = *self;
        let (left, right) = (transposed(&self.right, rank, cols), transposed(&self.left, rows, rank));
        Self { rows: cols, rank, cols: rows, left, right }
    }

    /// The sum of the products of corresponding elements of both matrices.
    ///
    /// # Errors
    /// Another shape.
    pub fn dot(&self, other: &Self) -> Result<f64> {
        self.check_shape(other)?;
        let left = self.left64().transpose() * other.left64();
        let right = self.right64() * other.right64().transpose();
        Ok(elementwise(left.as_ref(), right.as_ref()))
    }

    /// The squared Frobenius norm.
    pub fn squared_norm(&self) -> f64 {
        let (left, right) = (self.left64(), self.right64());
        elementwise((left.transpose() * &left).as_ref(), (&right * right.transpose()).as_ref()).max(0.0)
    }

    /// The squared Frobenius norm of the difference; exact to 1e-15 of the squared norms.
    ///
    /// # Errors
    /// Another shape.
    pub fn squared_distance(&self, other: &Self) -> Result<f64> {
        Ok((self.squared_norm() - 2.0 * self.dot(other)? + other.squared_norm()).max(0.0))
    }

    /// The inner products of all pairs of `models`, `[n, n]`.
    ///
    /// # Errors
    /// No models, models of different shapes.
    pub fn gram(models: &[Self]) -> Result<DMatrix<f64>> {
        let first = models.first().ok_or_else(none)?;
        models.iter().try_for_each(|m| first.check_shape(m))?;
        let starts: Vec<usize> = models.iter().scan(0, |at, m| Some(std::mem::replace(at, *at + m.rank))).collect();
        let all = starts.last().map_or(0, |s| s + models[models.len() - 1].rank);
        let owner: Vec<usize> = models.iter().enumerate().flat_map(|(i, m)| std::iter::repeat_n(i, m.rank)).collect();
        let value = |k: usize| (&models[owner[k]], k - starts[owner[k]]);
        let left = Mat::from_fn(first.rows, all, |i, k| {
            let (model, at) = value(k);
            f64::from(model.left[i * model.rank + at])
        });
        let right = Mat::from_fn(first.cols, all, |j, k| {
            let (model, at) = value(k);
            f64::from(model.right[at * model.cols + j])
        });
        let (left, right) = (symmetric(left.as_ref()), symmetric(right.as_ref()));
        let n = models.len();
        let mut gram = DMatrix::zeros(n, n);
        for (b, j) in owner.iter().enumerate() {
            for (a, i) in owner.iter().enumerate().take(all) {
                gram[(*i, *j)] += left[(a.max(b), a.min(b))] * right[(a.max(b), a.min(b))];
            }
        }
        Ok(gram)
    }

    /// `sum_i c_i W_i`, of the sum of their ranks.
    ///
    /// # Errors
    /// No terms, terms of different shapes.
    pub fn sum(terms: &[(f64, &Self)]) -> Result<Self> {
        let (_, first) = terms.first().ok_or_else(none)?;
        terms.iter().try_for_each(|(_, m)| first.check_shape(m))?;
        let rank = terms.iter().map(|(_, m)| m.rank).sum();
        let mut left = Vec::with_capacity(first.rows * rank);
        for row in 0..first.rows {
            for (c, model) in terms {
                let values = &model.left[row * model.rank..(row + 1) * model.rank];
                left.extend(values.iter().map(|v| (c * f64::from(*v)) as f32));
            }
        }
        let right = terms.iter().flat_map(|(_, m)| m.right.iter().copied()).collect();
        Self::new(left, right, [first.rows, rank, first.cols])
    }

    /// The nearest matrix of rank `rank` in balanced factors (`L^T L = R R^T`, diagonal); of its own rank if that is
    /// not larger.
    ///
    /// # Errors
    /// A rank of zero, an SVD that does not converge.
    pub fn truncated(&self, rank: usize) -> Result<Self> {
        let Svd { u, s, v } = self.svd()?;
        self.balanced(&u, &s, &v, rank.min(self.rank))
    }

    /// As [`LowRank::truncated`], computed from the Gram matrices of its factors: components below 1e-7 of a factor's
    /// largest are lost, but no QR of many columns is needed.
    pub(crate) fn leading(&self, rank: usize) -> Result<Self> {
        let (left, right) = (self.left64(), self.right64());
        let (first, back_first) = root(&symmetric(left.as_ref()))?;
        let (second, back_second) = root(&symmetric(right.transpose()))?;
        let core = (&first * second.transpose()).thin_svd().map_err(|_| diverged(self.rank, self.rank))?;
        let rank = rank.min(self.rank);
        let scale = |vectors: MatRef<'_, f64>| {
            Mat::from_fn(vectors.nrows(), rank, |i, k| vectors[(i, k)] * core.S().column_vector()[k].max(0.0).sqrt())
        };
        let (mut u, mut v) =
            (left * (back_first * scale(core.U())), right.transpose() * (back_second * scale(core.V())));
        upright(&mut u, &mut v);
        Self::of(u.as_ref(), v.transpose())
    }

    /// From two factors.
    pub(crate) fn of(left: MatRef<'_, f64>, right: MatRef<'_, f64>) -> Result<Self> {
        let row_major = |m: MatRef<'_, f64>| -> Vec<f32> {
            let (rows, cols) = (m.nrows(), m.ncols());
            let mut values = Vec::with_capacity(rows * cols);
            (0..rows).for_each(|i| values.extend((0..cols).map(|j| m[(i, j)] as f32)));
            values
        };
        Self::new(row_major(left), row_major(right), [left.nrows(), left.ncols(), right.ncols()])
    }

    /// `U_r sqrt(S_r)` and `sqrt(S_r) V_r^T`, padded with zeros to rank `rank`.
    pub(crate) fn balanced(&self, u: &Mat<f64>, s: &[f64], v: &Mat<f64>, rank: usize) -> Result<Self> {
        let root = |k: usize| s.get(k).copied().unwrap_or(0.0).sqrt();
        let at = |m: &Mat<f64>, i: usize, k: usize| if k < s.len() { (m[(i, k)] * root(k)) as f32 } else { 0.0 };
        let left = (0..self.rows * rank).map(|i| at(u, i / rank.max(1), i % rank.max(1))).collect();
        let right = (0..rank * self.cols).map(|i| at(v, i % self.cols, i / self.cols)).collect();
        Self::new(left, right, [self.rows, rank, self.cols])
    }

    /// Its singular value decomposition by QR of both factors; each column of `U` has its largest entry
    /// positive.
    pub(crate) fn svd(&self) -> Result<Svd> {
        let (left, right) = (self.left64().qr(), self.right64().transpose().qr());
        let core = left.thin_R() * right.thin_R().transpose();
        let core = core.thin_svd().map_err(|_| diverged(self.rows, self.cols))?;
        let (mut u, mut v) = (left.compute_thin_Q() * core.U(), right.compute_thin_Q() * core.V());
        let s: Vec<f64> = core.S().column_vector().iter().copied().collect();
        upright(&mut u, &mut v);
        Ok(Svd { u, s, v })
    }

    /// The nearest matrix of rank `rank` to the dense `values [m, d]`, row-major, in balanced factors; its rank is at
    /// most the smaller size.
    ///
    /// Its squared error exceeds the minimum by at most about 1e-6 of the squared norm of `values`: only by rounding if
    /// a side is at most 256 or four times the rank, otherwise because subspace iteration stops when a step gains less
    /// than 1e-7 of it. The same values give the same factors.
    ///
    /// # Errors
    /// A size or rank of zero, another number of values, a value that is not finite, a decomposition that
    /// does not converge.
    pub fn approximate(values: &[f32], [rows, cols]: [usize; 2], rank: usize) -> Result<Self> {
        let least = rows.min(cols);
        if values.len() != rows * cols || least == 0 || rank == 0 {
            return Err(Error::Argument(format!("{} values of a {rows}x{cols} matrix, rank {rank}", values.len())));
        }
        if values.iter().any(|v| !v.is_finite()) {
            return Err(Error::Argument(format!("a {rows}x{cols} matrix holds NaN or infinity")));
        }
        let matrix = MatRef::from_row_major_slice(values, rows, cols);
        let rank = rank.min(least);
        if least > SMALL
            && rank * 4 < least
            && let Some(found) = by_iteration(matrix, rank)?
        {
            return Ok(found);
        }
        by_gram(matrix, rank)
    }

    pub(crate) fn left64(&self) -> Mat<f64> {
        Mat::from_fn(self.rows, self.rank, |i, k| f64::from(self.left[i * self.rank + k]))
    }

    pub(crate) fn right64(&self) -> Mat<f64> {
        // Filled along rows: column-major of the transpose.
        Mat::from_fn(self.cols, self.rank, |j, k| f64::from(self.right[k * self.cols + j])).transpose().to_owned()
    }

    fn check_shape(&self, other: &Self) -> Result<()> {
        match self.shape() == other.shape() {
            true => Ok(()),
            false => Err(Error::Argument(format!(
                "a {}x{} matrix and a {}x{} matrix do not go together",
                self.rows, self.cols, other.rows, other.cols
            ))),
        }
    }
}

fn none() -> Error {
    Error::Argument("there are no models to merge".into())
}

pub(crate) fn diverged(rows: usize, cols: usize) -> Error {
    Error::Argument(format!("the decomposition of a {rows}x{cols} matrix does not converge"))
}

/// Flips signs of columns of `u`, and of `v` with them, so that the largest entry of each column of `u` is positive.
fn upright(u: &mut Mat<f64>, v: &mut Mat<f64>) {
    for k in 0..u.ncols() {
        let largest = (0..u.nrows()).map(|i| u[(i, k)]).fold(0.0f64, |m, x| if x.abs() > m.abs() { x } else { m });
        if largest < 0.0 {
            (0..u.nrows()).for_each(|i| u[(i, k)] = -u[(i, k)]);
            (0..v.nrows()).for_each(|i| v[(i, k)] = -v[(i, k)]);
        }
    }
}

/// `T` with `T^T T` the Gram matrix, and `T^-1`, restricted to directions that are not negligible.
fn root(gram: &Mat<f64>) -> Result<(Mat<f64>, Mat<f64>)> {
    let (values, vectors) = eigen(gram)?;
    let (n, nothing) = (gram.nrows(), 1e-14 * values.first().copied().unwrap_or(0.0));
    let there = |k: usize| values[k] > nothing;
    let to = Mat::from_fn(n, n, |k, i| if there(k) { values[k].sqrt() * vectors[(i, k)] } else { 0.0 });
    let back = Mat::from_fn(n, n, |i, k| if there(k) { vectors[(i, k)] / values[k].sqrt() } else { 0.0 });
    Ok((to, back))
}

/// The sum of the products of corresponding elements.
fn elementwise(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> f64 {
    (0..a.ncols()).map(|j| (0..a.nrows()).map(|i| a[(i, j)] * b[(i, j)]).sum::<f64>()).sum()
}

/// `X^T X`, its lower half only.
pub(crate) fn symmetric(x: MatRef<'_, f64>) -> Mat<f64> {
    use faer::linalg::matmul::triangular::{BlockStructure, matmul};
    let mut gram = Mat::zeros(x.ncols(), x.ncols());
    let (lower, full) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
    matmul(gram.as_mut(), lower, Accum::Replace, x.transpose(), full, x, full, 1.0, get_global_parallelism());
    gram
}

/// Eigenvalues of a symmetric matrix, descending, and their eigenvectors as columns.
pub(crate) fn eigen(gram: &Mat<f64>) -> Result<(Vec<f64>, Mat<f64>)> {
    let n = gram.nrows();
    let found = gram.self_adjoint_eigen(Side::Lower).map_err(|_| diverged(n, n))?;
    let values: Vec<f64> = found.S().column_vector().iter().rev().map(|v| v.max(0.0)).collect();
    let vectors = Mat::from_fn(n, n, |i, k| found.U()[(i, n - 1 - k)]);
    Ok((values, vectors))
}

/// By the eigenvectors of the smaller of `W^T W` and `W W^T`: `W V_r V_r^T`.
fn by_gram(matrix: MatRef<'_, f32>, rank: usize) -> Result<LowRank> {
    if matrix.nrows() < matrix.ncols() {
        return Ok(by_gram(matrix.transpose(), rank)?.transposed());
    }
    let (rows, cols) = (matrix.nrows(), matrix.ncols());
    let dense = Mat::from_fn(rows, cols, |i, j| f64::from(matrix[(i, j)]));
    let (_, vectors) = eigen(&symmetric(dense.as_ref()))?;
    let chosen = vectors.submatrix(0, 0, cols, rank);
    let left = &dense * chosen;
    LowRank::of(left.as_ref(), chosen.transpose())?.truncated(rank)
}

/// By subspace iteration, if that converges.
fn by_iteration(matrix: MatRef<'_, f32>, rank: usize) -> Result<Option<LowRank>> {
    let (rows, cols) = (matrix.nrows(), matrix.ncols());
    let width = (rank + rank.clamp(16, 64)).min(rows.min(cols));
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut right = Mat::from_fn(cols, width, |_, _| random.random::<f32>() - 0.5);
    let norm: f64 = (0..cols).map(|j| (0..rows).map(|i| f64::from(matrix[(i, j)]).powi(2)).sum::<f64>()).sum();
    let mut captured = 0.0;
    for _ in 0..STEPS {
        let left = (matrix * &right).qr().compute_thin_Q();
        right = matrix.transpose() * &left;
        // Q is orthonormal: the singular values of Q^T W are those of its best part.
        let found = energy(&right, rank)?;
        if found - captured <= GAIN * norm {
            let left = Mat::from_fn(rows, width, |i, k| f64::from(left[(i, k)]));
            let right = Mat::from_fn(cols, width, |j, k| f64::from(right[(j, k)]));
            return LowRank::of(left.as_ref(), right.transpose())?.truncated(rank).map(Some);
        }
        captured = found;
        right = right.qr().compute_thin_Q();
    }
    Ok(None)
}

/// The sum of the `rank` largest squared singular values.
fn energy(matrix: &Mat<f32>, rank: usize) -> Result<f64> {
    let wide = Mat::from_fn(matrix.nrows(), matrix.ncols(), |i, j| f64::from(matrix[(i, j)]));
    Ok(eigen(&symmetric(wide.as_ref()))?.0.iter().take(rank).sum())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Reproducible values in [-1, 1).
    pub(crate) fn noise(count: usize, seed: u64) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        (0..count).map(|_| 2.0 * random.random::<f32>() - 1.0).collect()
    }

    pub(crate) fn random(shape: [usize; 3], seed: u64) -> LowRank {
        let [m, r, d] = shape;
        LowRank::new(noise(m * r, seed), noise(r * d, seed + 1000), shape).unwrap()
    }

    pub(crate) fn squares(values: &[f32]) -> f64 {
        values.iter().map(|v| f64::from(*v).powi(2)).sum()
    }

    pub(crate) fn gap(a: &[f32], b: &[f32]) -> f64 {
        assert_eq!(a.len(), b.len());
        let difference: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        (squares(&difference) / squares(b).max(1e-30)).sqrt()
    }

    #[test]
    fn small_factors_by_hand() {
        let one = LowRank::new(vec![1.0, 2.0], vec![3.0, 0.0, 1.0], [2, 1, 3]).unwrap();
        assert_eq!(one.dense(), [3.0, 0.0, 1.0, 6.0, 0.0, 2.0]);
        let other = LowRank::new(vec![1.0, 0.0], vec![0.0, 1.0, 1.0], [2, 1, 3]).unwrap();
        assert_eq!(one.dot(&other).unwrap(), 1.0);
        assert_eq!(one.squared_norm(), 50.0);
        assert_eq!(one.transposed().dense(), [3.0, 6.0, 0.0, 0.0, 1.0, 2.0]);
        assert_eq!(LowRank::sum(&[(2.0, &one), (-1.0, &other)]).unwrap().dense(), [6.0, -1.0, 1.0, 12.0, 0.0, 4.0]);
    }

    #[test]
    fn inner_products_are_those_of_the_dense_matrices() {
        let models = [random([9, 3, 7], 1), random([9, 2, 7], 2), random([9, 4, 7], 3)];
        let gram = LowRank::gram(&models).unwrap();
        for (i, a) in models.iter().enumerate() {
            for (j, b) in models.iter().enumerate() {
                let dense: f64 = a.dense().iter().zip(b.dense()).map(|(x, y)| f64::from(*x) * f64::from(y)).sum();
                assert!((a.dot(b).unwrap() - dense).abs() < 1e-5 * (1.0 + dense.abs()));
                assert!((gram[(i, j)] - dense).abs() < 1e-5 * (1.0 + dense.abs()), "{i} {j}");
            }
        }
        let apart: Vec<f32> = models[0].dense().iter().zip(models[1].dense()).map(|(a, b)| a - b).collect();
        let distance = models[0].squared_distance(&models[1]).unwrap();
        assert!((distance - squares(&apart)).abs() < 1e-4 * distance);
        assert!(models[0].squared_distance(&models[0]).unwrap() < 1e-12);
    }

    fn cut_of(whole: &LowRank) -> LowRank {
        whole.truncated(3).unwrap()
    }

    #[test]
    fn truncation_is_the_best_of_its_rank_and_balanced() {
        let whole = LowRank::sum(&[(1.0, &random([20, 3, 15], 1)), (0.3, &random([20, 3, 15], 2))]).unwrap();
        let s = whole.svd().unwrap().s;
        for rank in 1..=6 {
            let cut = whole.truncated(rank).unwrap();
            let tail: f64 = s[rank..].iter().map(|s| s * s).sum();
            let error = cut.squared_distance(&whole).unwrap();
            assert!((error - tail).abs() < 1e-5 * whole.squared_norm(), "{rank}: {error} {tail}");
            let (left, right) = (cut.left64().transpose() * cut.left64(), cut.right64() * cut.right64().transpose());
            for (i, want) in s.iter().enumerate().take(rank) {
                assert!((left[(i, i)] - want).abs() < 1e-5 * s[0] && (right[(i, i)] - want).abs() < 1e-5 * s[0]);
            }
        }
        assert_eq!(whole.truncated(99).unwrap().rank(), 6);
        // The same with Gram matrices, and if the factors have fewer directions than columns.
        for rank in 1..=4 {
            let (cut, other) = (whole.truncated(rank).unwrap(), whole.leading(rank).unwrap());
            assert!(gap(other.left(), cut.left()) < 1e-5 && gap(other.right(), cut.right()) < 1e-5, "{rank}");
        }
        let twice = LowRank::sum(&[(0.5, &cut_of(&whole)), (0.5, &cut_of(&whole))]).unwrap();
        assert!(gap(&twice.leading(3).unwrap().dense(), &cut_of(&whole).dense()) < 1e-5);
    }

    /// A matrix `[m, d]` of orthogonal directions with the given spectrum, and noise.
    fn spectrum(shape: [usize; 2], strengths: &[f32], noisy: f32) -> Vec<f32> {
        let [m, d] = shape;
        let mut values: Vec<f32> = noise(m * d, 7).iter().map(|v| v * noisy).collect();
        for (k, strength) in strengths.iter().enumerate() {
            let one = random([m, 1, d], 100 + k as u64);
            let scale = strength / one.squared_norm().sqrt() as f32;
            values.iter_mut().zip(one.dense()).for_each(|(v, o)| *v += scale * o);
        }
        values
    }

    #[test]
    fn approximations_of_dense_matrices_are_the_best_by_either_way() {
        let falling: Vec<f32> = (0..30).map(|k| 0.8f32.powi(k)).collect();
        for (shape, noisy) in [([300, 280], 0.001), ([280, 300], 0.02), ([40, 60], 0.01), ([300, 290], 1.0)] {
            let values = spectrum(shape, &falling, noisy);
            let dense = Mat::from_fn(shape[0], shape[1], |i, j| f64::from(values[i * shape[1] + j]));
            let s: Vec<f64> = dense.thin_svd().unwrap().S().column_vector().iter().copied().collect();
            let all = squares(&values);
            for rank in [1, 4, 12] {
                let best: f64 = s[rank..].iter().map(|s| s * s).sum();
                let matrix = MatRef::from_row_major_slice(&values, shape[0], shape[1]);
                let by_iteration = by_iteration(matrix, rank).unwrap();
                let ways = [by_gram(matrix, rank).ok(), by_iteration, LowRank::approximate(&values, shape, rank).ok()];
                for (way, found) in ways.into_iter().enumerate() {
                    let found = found.expect("converged");
                    assert_eq!((found.rank(), found.shape()), (rank, shape));
                    let rest: Vec<f32> = values.iter().zip(found.dense()).map(|(v, f)| v - f).collect();
                    let excess = (squares(&rest) - best) / all;
                    assert!(excess.abs() < 1e-6, "{shape:?} noise {noisy} rank {rank} way {way}: {excess:e}");
                }
            }
        }
    }

    #[test]
    fn a_matrix_of_low_rank_is_found_exactly() {
        let low = random([400, 8, 300], 5);
        let found = LowRank::approximate(&low.dense(), [400, 300], 8).unwrap();
        assert!(found.squared_distance(&low).unwrap() < 1e-10 * low.squared_norm());
        assert_eq!(LowRank::approximate(&[0.0; 6], [2, 3], 5).unwrap().dense(), [0.0; 6]);
    }

    #[test]
    fn what_makes_no_matrix_is_refused() {
        assert!(LowRank::new(vec![1.0], vec![], [1, 0, 1]).is_err());
        assert!(LowRank::new(vec![1.0; 3], vec![1.0; 2], [2, 1, 2]).is_err());
        assert!(LowRank::new(vec![f32::NAN; 2], vec![1.0; 2], [2, 1, 2]).unwrap_err().to_string().contains("NaN"));
        assert!(random([2, 1, 3], 1).dot(&random([3, 1, 2], 1)).unwrap_err().to_string().contains("2x3"));
        assert!(LowRank::gram(&[]).is_err());
        assert!(LowRank::sum(&[]).is_err());
        assert!(random([2, 1, 3], 1).truncated(0).is_err());
        assert!(LowRank::approximate(&[1.0, f32::INFINITY], [1, 2], 1).unwrap_err().to_string().contains("infinity"));
        assert!(LowRank::approximate(&[1.0], [1, 2], 1).is_err());
    }
}
