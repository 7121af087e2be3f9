//! Sums over tensors of several models, shared by the methods.

use rayon::prelude::*;

use crate::tensors::Operand;

/// Elements that a thread processes at a time: those of a few models fit in a cache.
pub(crate) const PIECE: usize = 1 << 13;

/// `factor_1 * values_1 + factor_2 * values_2 + ...`, each sum from left to right in f32.
pub(crate) fn weighted_sum(terms: &[(f32, &[f32])]) -> Vec<f32> {
    weighted_mean(terms, 1.0)
}

/// The same divided by `divisor`.
pub(crate) fn weighted_mean(terms: &[(f32, &[f32])], divisor: f32) -> Vec<f32> {
    let elements = terms.first().map_or(0, |(_, values)| values.len());
    let mut sum = vec![0.0f32; elements];
    sum.par_chunks_mut(PIECE).enumerate().for_each(|(piece, sum)| {
        let start = piece * PIECE;
        for (factor, values) in terms {
            let values = &values[start..start + sum.len()];
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
        }
        if divisor != 1.0 {
            sum.iter_mut().for_each(|sum| *sum /= divisor);
        }
    });
    sum
}

/// Inner products of all pairs of `vector(model, index)`, `count` models with `elements` values, in f64.
///
/// Pieces are added in order, so that the result does not depend on the number of threads.
pub(crate) fn inner_products(
    count: usize,
    elements: usize,
    vector: impl Fn(usize, usize) -> f32 + Sync,
) -> Vec<Vec<f64>> {
    let piece = |start: usize| {
        let end = elements.min(start + PIECE);
        let mut sums = vec![vec![0.0f64; count]; count];
        for (i, row) in sums.iter_mut().enumerate() {
            for (j, sum) in row.iter_mut().enumerate().take(i + 1) {
                *sum = (start..end).map(|k| f64::from(vector(i, k)) * f64::from(vector(j, k))).sum();
            }
        }
        sums
    };
    let starts: Vec<usize> = (0..elements).step_by(PIECE).collect();
    let pieces: Vec<_> = starts.into_par_iter().map(piece).collect();
    let mut total = vec![vec![0.0f64; count]; count];
    for sums in pieces {
        total.iter_mut().zip(sums).for_each(|(t, s)| t.iter_mut().zip(s).for_each(|(t, s)| *t += s));
    }
    (0..count).map(|i| (0..count).map(|j| total[i.max(j)][i.min(j)]).collect()).collect()
}

/// The models' values with their weights.
pub(crate) fn terms<'a>(models: &[Operand<'a>], weights: &[f64]) -> Vec<(f32, &'a [f32])> {
    models.iter().zip(weights).map(|(model, weight)| (*weight as f32, model.values)).collect()
}

/// Elements of the vectors whose products are summed at a time: those of several models stay in the nearest cache.
const STRETCH: usize = 1 << 10;

/// Inner products of all pairs of vectors of one length, `[n, n]`, in f64. As [`inner_products`], several sums at
/// once.
pub(crate) fn gram(vectors: &[&[f32]]) -> Vec<f64> {
    let (n, elements) = (vectors.len(), vectors.first().map_or(0, |v| v.len()));
    let stretch = |start: usize| {
        let end = elements.min(start + STRETCH);
        let mut sums = vec![0.0; n * n];
        for i in 0..n {
            (0..=i).for_each(|j| sums[i * n + j] = dot(&vectors[i][start..end], &vectors[j][start..end]));
        }
        sums
    };
    let starts: Vec<usize> = (0..elements).step_by(STRETCH).collect();
    let all: Vec<Vec<f64>> = starts.into_par_iter().map(stretch).collect();
    let mut total = vec![0.0; n * n];
    all.iter().for_each(|sums| total.iter_mut().zip(sums).for_each(|(t, s)| *t += s));
    (0..n * n).map(|k| total[(k / n).max(k % n) * n + (k / n).min(k % n)]).collect()
}

/// The inner product of two vectors, with eight independent sums.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let (a, b) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0f64; 8];
    for (a, b) in a.0.iter().zip(b.0) {
        (0..8).for_each(|t| sums[t] += f64::from(a[t]) * f64::from(b[t]));
    }
    let rest: f64 = a.1.iter().zip(b.1).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    #[test]
    fn inner_products_by_either_way_are_the_same() {
        for elements in [0, 1, 7, 8, 1029, 20_000] {
            let vectors: Vec<Vec<f32>> = (0..3).map(|seed| numbers(elements, seed)).collect();
            let slow = inner_products(3, elements, |i, k| vectors[i][k]);
            let fast = gram(&vectors.iter().map(Vec::as_slice).collect::<Vec<_>>());
            assert!((0..9).all(|k| (fast[k] - slow[k / 3][k % 3]).abs() < 1e-9), "{elements}");
        }
    }
}
