//! One factor of all models, row by row: rows of the left factors, columns of the right ones.

use rayon::prelude::*;

use super::eigens::{Eigens, GramPreprocess};
use super::space::Basis;
use crate::jacobi::{LANES, Lane};
use crate::low_rank::LowRank;

/// The left factors of some models of one rank, or the right ones.
#[derive(Clone, Copy)]
pub(super) struct Factor<'a> {
    models: &'a [LowRank],
    left: bool,
    /// Rows of the left factors, columns of the right ones.
    pub rows: usize,
    /// Numbers in a row.
    pub rank: usize,
}

impl<'a> Factor<'a> {
    /// Left and right factors.
    pub fn both(models: &'a [LowRank], [m, d]: [usize; 2], rank: usize) -> [Self; 2] {
        [(true, m), (false, d)].map(|(left, rows)| Self { models, left, rows, rank })
    }

    /// How many models there are.
    pub fn count(&self) -> usize {
        self.models.len()
    }

    /// All values of one model, in storage order.
    pub fn values(&self, model: usize) -> &'a [f32] {
        if self.left { self.models[model].left() } else { self.models[model].right() }
    }

    /// Value `place` of the rows from `row` on; zeros past the end.
    #[inline]
    pub fn lane(&self, model: usize, row: usize, place: usize) -> Lane {
        let values = self.values(model);
        let end = self.rows.min(row + LANES);
        let mut lane = [0.0; LANES];
        match self.left {
            true => {
                let rows = values[row * self.rank..end * self.rank].chunks_exact(self.rank);
                lane.iter_mut().zip(rows).for_each(|(lane, row)| *lane = f64::from(row[place]));
            }
            false => {
                let columns = &values[place * self.rows..(place + 1) * self.rows];
                lane.iter_mut().zip(&columns[row..end]).for_each(|(lane, value)| *lane = f64::from(*value));
            }
        }
        lane
    }

    /// `fitted` basis vectors of each unit, a row or all rows, with their mean and coefficients.
    pub fn basis(&self, before: &GramPreprocess, eigens: &Eigens, fitted: usize) -> Basis {
        let size = self.rows * self.rank;
        let mut basis = vec![0.0f32; fitted * size];
        basis.par_chunks_mut(size.max(1)).enumerate().for_each(|(k, out)| {
            self.combined(out, &|unit| before.weights(eigens.vector(unit, k)).collect(), eigens.units());
        });
        let coefficients = (0..eigens.units()).flat_map(|unit| before.coefficients(eigens.first(unit, fitted)));
        Basis {
            units: eigens.units(),
            mean: before.centred.then(|| self.mean()),
            coefficients: coefficients.collect(),
            basis,
        }
    }

    /// The mean of all models, row by row.
    fn mean(&self) -> Vec<f32> {
        let (mut mean, share) = (vec![0.0; self.rows * self.rank], 1.0 / self.count() as f64);
        self.combined(&mut mean, &|_| vec![share; self.count()], 1);
        mean
    }

    /// Sums of the models row by row, weighted by `weights` of the row's unit.
    fn combined(&self, out: &mut [f32], weights: &(dyn Fn(usize) -> Vec<f64> + Sync), units: usize) {
        let shared = (units == 1).then(|| weights(0));
        let weights = |row: usize| match &shared {
            Some(shared) => shared.clone(),
            None => weights(row),
        };
        out.par_chunks_mut(LANES * self.rank).enumerate().for_each(|(block, out)| {
            let first = block * LANES;
            let own: Vec<Vec<f64>> = (first..self.rows.min(first + LANES)).map(weights).collect();
            let weight = |model: usize| -> Lane { std::array::from_fn(|t| own.get(t).map_or(0.0, |own| own[model])) };
            let weights: Vec<Lane> = (0..self.count()).map(weight).collect();
            for place in 0..self.rank {
                let mut sum = [0.0; LANES];
                for (model, weights) in weights.iter().enumerate() {
                    let lane = self.lane(model, first, place);
                    (0..LANES).for_each(|t| sum[t] += weights[t] * lane[t]);
                }
                out.chunks_exact_mut(self.rank).zip(sum).for_each(|(row, sum)| row[place] = sum as f32);
            }
        });
    }
}
