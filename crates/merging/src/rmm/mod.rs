//! RMM: reversible merging of low-rank models (Alipour, Amiri, arXiv 2510.14163).
//!
//! Instead of one merged model, `p` basis models and small coefficients, from which each of `n` task models `D_i = L_i
//! R_i` is rebuilt. For `X = [x_1 .. x_n]`, corresponding vectors of the models, the optimum has a closed form (Eckart,
//! Young):
//!
//! ```text
//! X^T X = V diag(S^2) V^T        basis X V_p, coefficients V_p^T, error sqrt(sum of the dropped S^2)
//! x_i'  = sum over k of V_ik (X V_p)_k
//! ```
//!
//! | granularity | vectors that share coefficients | numbers kept of `n r (m + d)` |
//! | --- | --- | --- |
//! | [`Granularity::Position`], the paper's | a row of every `L_i`; a column of every `R_i` | `p (r + n) (m + d)` |
//! | [`Granularity::Layer`] | every `L_i` whole; every `R_i` whole | `p r (m + d) + 2 p n` |
//! | [`Granularity::Product`] | every `D_i`, by `r x r` blocks | `p n r (m + d) + p n`; truncated, `p r (m + d) + p n` |
//!
//! The first two depend on how `D_i` is split into factors, since `L Q` and `Q^-1 R` are factors of the same `D_i`.
//! [`Align`] aligns the factors of all tasks first. The third does not depend on the split, but its basis models have
//! the rank of all models together, which takes more space than the models. [`RmmConfig::rank`] truncates them, and
//! coefficients are then refitted by least squares. With [`RmmConfig::centred`], the mean of the `x_i` is the first
//! basis model and the others are fitted to the rest.
//!
//! ```
//! use regrow_merging::LowRank;
//! use regrow_merging::rmm::{Granularity, RmmConfig};
//!
//! let task = |x: f32| LowRank::new(vec![x, 1.0], vec![1.0, 0.0, 2.0], [2, 1, 3]);
//! let rmm = RmmConfig::new().with_granularity(Granularity::Layer).init()?;
//! let space = rmm.solve(vec![task(1.0)?, task(-1.0)?, task(0.5)?])?.space(2)?;
//! assert!(space.revert(1)?.squared_distance(&task(-1.0)?)? < 1e-10);
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```
//!
//! Only the abstract and a summary of the paper were available. They do not say whether `X` is centred: both variants
//! exist, and [`Granularity::Position`] without centring is assumed to be the paper's method.

mod align;
mod eigens;
mod factor;
mod layer;
mod position;
mod product;
mod settings;
mod space;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use rayon::prelude::*;
use regrow_sparse_core::{Error, Result};

use crate::low_rank::LowRank;
use eigens::{Eigens, GramPreprocess};
use factor::Factor;
use space::Bases;

pub use settings::{ALIGNMENTS, Align, BasisBudget, GRANULARITIES, Granularity, RmmConfig};
pub use space::{Space, SpacePart};

/// Merges low-rank models reversibly; created by [`RmmConfig`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rmm {
    granularity: Granularity,
    align: Align,
    centred: bool,
    normalized: bool,
    rank: Option<usize>,
}

/// The models of one layer, decomposed: [`Solved::space`] gives any number of basis models.
pub struct Solved {
    models: Vec<LowRank>,
    centred: bool,
    decomposition: Decomposition,
}

enum Decomposition {
    /// Rank, and the decompositions of the left factors and of the right.
    Factors(usize, [(GramPreprocess, Eigens); 2]),
    /// The decomposition of the products, and the rank that they are truncated to.
    Products((GramPreprocess, Eigens), Option<usize>),
}

impl Rmm {
    /// With this granularity and everything else as in [`RmmConfig`].
    pub fn new(granularity: Granularity) -> Self {
        Self { granularity, ..Self::default() }
    }

    /// Which vectors share coefficients.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// How factors are aligned.
    pub fn align(&self) -> Align {
        self.align
    }

    /// Whether the mean is the first basis model.
    pub fn centred(&self) -> bool {
        self.centred
    }

    /// Whether tasks are scaled to the same norm first.
    pub fn normalized(&self) -> bool {
        self.normalized
    }

    /// The rank to which basis models are truncated.
    pub fn rank(&self) -> Option<usize> {
        self.rank
    }

    /// Decomposes the models of one layer, each `[m, d]`.
    ///
    /// # Errors
    /// No models; models of different shapes or, unless they are aligned or merged by product, different
    /// ranks; a decomposition that does not converge.
    pub fn solve(&self, models: Vec<LowRank>) -> Result<Solved> {
        let shape = check(models.iter().map(LowRank::shape))?;
        if self.granularity == Granularity::Product {
            let found = product::eigens(&models, self.centred, self.normalized)?;
            return Ok(Solved {
                models,
                centred: self.centred,
                decomposition: Decomposition::Products(found, self.rank),
            });
        }
        let models = align::aligned(models, self.align)?;
        let rank = same_rank(&models)?;
        let [left, right] = Factor::both(&models, shape, rank).map(|factor| self.decomposed(&factor));
        let decomposition = Decomposition::Factors(rank, [left?, right?]);
        Ok(Solved { models, centred: self.centred, decomposition })
    }

    /// Decomposes one factor of all models.
    fn decomposed(&self, factor: &Factor<'_>) -> Result<(GramPreprocess, Eigens)> {
        let norm = |i: usize| squared_norm(factor.values(i)).sqrt();
        let before = GramPreprocess::new(factor.count(), self.centred, self.normalized, norm);
        let eigens = match self.granularity {
            Granularity::Layer => layer::eigens(factor, &before)?,
            _ => position::eigens(factor, &before),
        };
        Ok((before, eigens))
    }

    /// How many values `basis` basis models of these take.
    ///
    /// # Errors
    /// As [`Rmm::outline`].
    pub fn numbers(&self, models: &[[usize; 3]], basis: usize) -> Result<usize> {
        let outline = self.outline(models, basis)?;
        Ok(outline.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum())
    }

    /// Names and shapes of the stored parts of one layer with `basis` basis models, the parts of its [`Space`]; the
    /// layer's models have factors of the shapes `[m, r, d]`.
    ///
    /// # Errors
    /// No models, or models of different `m` and `d`.
    pub fn outline(&self, models: &[[usize; 3]], basis: usize) -> Result<Vec<(String, Vec<usize>)>> {
        let ([m, d], n) = (check(models.iter().map(|[m, _, d]| [*m, *d]))?, models.len());
        let fitted = basis.saturating_sub(usize::from(self.centred));
        let largest = models.iter().map(|[_, r, _]| *r).max().unwrap_or(0);
        let mut parts = Vec::new();
        if self.granularity == Granularity::Product {
            let all = models.iter().map(|[_, r, _]| r).sum::<usize>();
            let rank = self.rank.map_or(all, |r| r.min(all));
            let names = self.centred.then(|| "mean".to_string()).into_iter();
            for name in names.chain((0..fitted).map(|k| format!("basis.{k}"))) {
                parts.extend([(format!("{name}.left"), vec![m, rank]), (format!("{name}.right"), vec![rank, d])]);
            }
            parts.extend((fitted > 0).then(|| ("coefficients".into(), vec![fitted, n])));
            return Ok(parts);
        }
        for (side, rows) in [("left", m), ("right", d)] {
            let units = if self.granularity == Granularity::Layer { 1 } else { rows };
            parts.extend(self.centred.then(|| (format!("{side}.mean"), vec![rows, largest])));
            if fitted > 0 {
                parts.push((format!("{side}.basis"), vec![fitted, rows, largest]));
                parts.push((format!("{side}.coefficients"), vec![units, fitted, n]));
            }
        }
        Ok(parts)
    }

    /// The number of basis models for `layers` layers of `models` models, read one by one by `load`.
    /// `watch` is called after each layer.
    ///
    /// # Errors
    /// An impossible budget, or one that no number of basis models reaches; as [`Rmm::solve`]; errors of `load`.
    pub fn choose(
        &self,
        budget: BasisBudget,
        models: usize,
        layers: usize,
        load: impl Fn(usize) -> Result<Vec<LowRank>> + Sync,
        watch: impl Fn() + Sync,
    ) -> Result<usize> {
        let sums = |measure: &(dyn Fn(Vec<LowRank>) -> Result<Vec<f64>> + Sync)| -> Result<Vec<f64>> {
            let one = |layer: usize| {
                let found = measure(load(layer)?);
                watch();
                found
            };
            let all = (0..layers).into_par_iter().map(one).collect::<Result<Vec<_>>>()?;
            Ok((0..=models).map(|p| all.iter().map(|layer| layer[p]).sum()).collect())
        };
        match budget {
            BasisBudget::Basis(p) if (1..=models).contains(&p) => Ok(p),
            BasisBudget::Basis(p) => {
                Err(Error::Argument(format!("{p} basis models for {models} models: use 1 to {models}")))
            }
            BasisBudget::Storage(share) if share > 0.0 && share.is_finite() => {
                let sizes = sums(&|tasks| self.sizes(&tasks))?;
                let fits = |p: &usize| sizes[*p] <= share * sizes[0];
                (1..=models).rev().find(fits).ok_or_else(|| {
                    let least = sizes[1.min(models)] / sizes[0].max(1.0);
                    Error::Argument(format!("one basis model takes {least:.3} of all models' storage, not {share}"))
                })
            }
            BasisBudget::Error(most) if most >= 0.0 && most.is_finite() => {
                let errors = sums(&|tasks| self.errors(tasks))?;
                // Rounding leaves an error of about 1e-7 even if the result is exact.
                let fits = |p: &usize| errors[*p] <= most.max(1e-6).powi(2) * errors[0];
                (1..=models).find(fits).ok_or_else(|| {
                    let least = (errors[models] / errors[0]).sqrt();
                    Error::Argument(format!("{models} basis models have a relative error of {least:.3}, not {most}"))
                })
            }
            BasisBudget::Storage(wrong) | BasisBudget::Error(wrong) => {
                Err(Error::Argument(format!("{wrong} is neither a share of the storage nor a relative error")))
            }
        }
    }

    /// Number of values of all models, then of 1, 2, .. n basis models.
    fn sizes(&self, models: &[LowRank]) -> Result<Vec<f64>> {
        let all = models.iter().map(LowRank::numbers).sum::<usize>();
        let shapes: Vec<[usize; 3]> = models.iter().map(shape).collect();
        let some = (1..=models.len()).map(|p| self.numbers(&shapes, p));
        [Ok(all)].into_iter().chain(some).map(|n| Ok(n? as f64)).collect()
    }

    /// The squared norm of all models, then the squared errors with 1, 2, .. n basis models.
    fn errors(&self, models: Vec<LowRank>) -> Result<Vec<f64>> {
        let solved = self.solve(models.clone())?;
        let of = |p: usize| Ok(solved.space(p)?.squared_errors(&models)?.iter().sum());
        let norm = models.iter().map(LowRank::squared_norm).sum();
        [Ok(norm)].into_iter().chain((1..=models.len()).map(of)).collect()
    }
}

/// `[m, r, d]`.
fn shape(model: &LowRank) -> [usize; 3] {
    let [m, d] = model.shape();
    [m, model.rank(), d]
}

/// The common shape.
fn check(mut shapes: impl Iterator<Item = [usize; 2]>) -> Result<[usize; 2]> {
    let [m, d] = shapes.next().ok_or_else(|| Error::Argument("there are no models to merge".into()))?;
    match shapes.find(|other| *other != [m, d]) {
        None => Ok([m, d]),
        Some([rows, cols]) => Err(Error::Argument(format!("the models are {m}x{d} and {rows}x{cols}"))),
    }
}

fn same_rank(models: &[LowRank]) -> Result<usize> {
    let rank = models[0].rank();
    match models.iter().find(|model| model.rank() != rank) {
        None => Ok(rank),
        Some(other) => Err(Error::Argument(format!(
            "factors of ranks {rank} and {} have no common positions: align them or merge by product",
            other.rank()
        ))),
    }
}

fn squared_norm(values: &[f32]) -> f64 {
    crate::sums::dot(values, values)
}

impl Solved {
    /// The space of `basis` basis models, including the mean of a centred merge.
    ///
    /// # Errors
    /// No basis models or more than models; a decomposition that does not converge.
    pub fn space(&self, basis: usize) -> Result<Space> {
        let n = self.models.len();
        if basis == 0 || basis > n {
            return Err(Error::Argument(format!("{basis} basis models for {n} models: use 1 to {n}")));
        }
        let fitted = basis - usize::from(self.centred);
        let form = match &self.decomposition {
            Decomposition::Factors(rank, found) => {
                let [m, d] = self.models[0].shape();
                let sides = Factor::both(&self.models, [m, d], *rank);
                let of = |side: usize| sides[side].basis(&found[side].0, &found[side].1, fitted);
                Bases::Factors { shape: [m, *rank, d], left: of(0), right: of(1) }
            }
            Decomposition::Products((before, eigens), rank) => {
                product::form(&self.models, before, eigens, *rank, fitted)?
            }
        };
        Ok(Space { models: n, form })
    }

    /// The squared errors of the vectors that are fitted with 1, 2, .. basis models: sums of the dropped
    /// `S^2`. They are those of the factors for [`Granularity::Position`] and [`Granularity::Layer`], and of
    /// the differences themselves, before truncation, for [`Granularity::Product`].
    pub fn dropped(&self) -> Vec<f64> {
        let found = match &self.decomposition {
            Decomposition::Factors(_, found) => &found[..],
            Decomposition::Products(found, _) => std::slice::from_ref(found),
        };
        let tail = |from: usize| found.iter().map(|(_, eigens)| eigens.tail(from)).sum();
        (1..=self.models.len()).map(|p| tail(p - usize::from(self.centred))).collect()
    }
}
