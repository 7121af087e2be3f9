//! Sums over tensors of several models: what the rules below have in common.

use rayon::prelude::*;

use crate::tensors::Operand;

/// Elements that a thread works on at a time: a few models' worth of them lie in a cache.
pub(crate) const PIECE: usize = 1 << 13;

/// `factor_1 * values_1 + factor_2 * values_2 + ...`, each sum from left to right in f32.
pub(crate) fn weighted_sum(terms: &[(f32, &[f32])]) -> Vec<f32> {
    let elements = terms.first().map_or(0, |(_, values)| values.len());
    let mut sum = vec![0.0f32; elements];
    sum.par_chunks_mut(PIECE).enumerate().for_each(|(piece, sum)| {
        let start = piece * PIECE;
        for (factor, values) in terms {
            let values = &values[start..start + sum.len()];
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += factor * value);
        }
    });
    sum
}

/// `divisor` goes through every element of `values`.
pub(crate) fn divide(values: &mut [f32], divisor: f32) {
    values.par_chunks_mut(PIECE).for_each(|piece| piece.iter_mut().for_each(|v| *v /= divisor));
}

/// Inner products of all pairs of `vector(model, index)`, `count` models with `elements` values, in f64.
///
/// Pieces are added up in order, so that the result does not depend on the number of threads.
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
