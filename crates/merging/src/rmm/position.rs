//! By position, the paper's: `x_i` is one row of `L_i`, or one column of `R_i`.
//!
//! ```text
//! X [r, n] for each of m rows and d columns       X^T X = V diag(S^2) V^T, n x n
//! ```
//!
//! A layer has thousands of these small problems: several are solved in parallel.

use rayon::prelude::*;

use super::eigens::{Eigens, GramPreprocess};
use super::factor::Factor;
use crate::jacobi::{LANES, Lane, eigen};

/// The decomposition of every row.
pub(super) fn eigens(factor: &Factor<'_>, before: &GramPreprocess) -> Eigens {
    let n = factor.count();
    let (mut values, mut vectors) = (vec![0.0; factor.rows * n], vec![0.0; factor.rows * n * n]);
    let blocks = values.par_chunks_mut(LANES * n).zip(vectors.par_chunks_mut(LANES * n * n)).enumerate();
    blocks.for_each_init(
        || Work::new(n, factor.rank),
        |work, (block, (values, vectors))| {
            work.gram(factor, block * LANES);
            work.prepare(before);
            eigen(&mut work.gram, &mut work.vectors, n);
            work.sorted(values, vectors);
        },
    );
    Eigens { n, values, vectors }
}

/// A thread's buffers.
struct Work {
    n: usize,
    rows: Vec<Lane>,
    gram: Vec<Lane>,
    vectors: Vec<Lane>,
    order: Vec<usize>,
}

impl Work {
    fn new(n: usize, rank: usize) -> Self {
        let empty = |size: usize| vec![[0.0; LANES]; size];
        Self { n, rows: empty(n * rank), gram: empty(n * n), vectors: empty(n * n), order: (0..n).collect() }
    }

    /// The upper halves of the Gram matrices of the rows from `first` on.
    fn gram(&mut self, factor: &Factor<'_>, first: usize) {
        let (n, rank) = (self.n, factor.rank);
        for model in 0..n {
            (0..rank).for_each(|place| self.rows[model * rank + place] = factor.lane(model, first, place));
        }
        for i in 0..n {
            for j in i..n {
                let (a, b) = (&self.rows[i * rank..(i + 1) * rank], &self.rows[j * rank..(j + 1) * rank]);
                let mut sum = [0.0; LANES];
                for (a, b) in a.iter().zip(b) {
                    (0..LANES).for_each(|t| sum[t] += a[t] * b[t]);
                }
                (self.gram[i * n + j], self.gram[j * n + i]) = (sum, sum);
            }
        }
    }

    fn prepare(&mut self, before: &GramPreprocess) {
        if before.is_identity() {
            return;
        }
        for t in 0..LANES {
            let mut one: Vec<f64> = self.gram.iter().map(|lane| lane[t]).collect();
            before.apply(&mut one);
            self.gram.iter_mut().zip(one).for_each(|(lane, value)| lane[t] = value);
        }
    }

    /// Stores eigenvalues, descending, and eigenvectors in the places of their rows.
    fn sorted(&mut self, values: &mut [f64], vectors: &mut [f64]) {
        let Self { n, gram, vectors: columns, order, .. } = self;
        let n = *n;
        for (t, (values, vectors)) in values.chunks_exact_mut(n).zip(vectors.chunks_exact_mut(n * n)).enumerate() {
            order.sort_unstable_by(|a, b| gram[b * n + b][t].total_cmp(&gram[a * n + a][t]));
            for (k, column) in order.iter().enumerate() {
                values[k] = gram[column * n + column][t].max(0.0);
                (0..n).for_each(|i| vectors[k * n + i] = columns[i * n + column][t]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::LowRank;
    use crate::rmm::testing::{SHAPE, dense_fit, models, near};
    use crate::rmm::{Granularity, Rmm};

    #[test]
    fn every_position_equals_the_dense_svd() {
        let models = models(4);
        let [m, r, d] = SHAPE;
        for p in 1..=3 {
            let space = Rmm::new(Granularity::Position).solve(models.clone()).unwrap().space(p).unwrap();
            for task in 0..4 {
                let back = space.revert(task).unwrap();
                for row in 0..m {
                    let x: Vec<_> = models.iter().map(|o| o.left()[row * r..(row + 1) * r].to_vec()).collect();
                    near(&back.left()[row * r..(row + 1) * r], &dense_fit(&x, p)[task]);
                }
                for col in 0..d {
                    let column = |o: &LowRank| (0..r).map(|k| o.right()[k * d + col]).collect::<Vec<f32>>();
                    let x: Vec<_> = models.iter().map(column).collect();
                    near(&column(&back), &dense_fit(&x, p)[task]);
                }
            }
        }
    }

    #[test]
    fn two_vectors_by_hand() {
        // m = 1: the left factor is one row of two numbers; the right factors are the same.
        let with = |row: [f32; 2]| LowRank::new(row.to_vec(), vec![1.0, 0.0, 0.0, 1.0], [1, 2, 2]).unwrap();
        let dropped = |a, b| Rmm::default().solve(vec![with(a), with(b)]).unwrap().dropped()[0].sqrt();
        assert!((dropped([1.0, 0.0], [0.0, 1.0]) - 1.0).abs() < 1e-9);
        assert!(dropped([2.0, 0.0], [1.0, 0.0]) < 1e-7);
    }
}
