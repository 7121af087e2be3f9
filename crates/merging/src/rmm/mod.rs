//! RMM: reversible merging of low-rank models (Alipour, Amiri, arXiv 2510.14163).
//!
//! Not one merged model but `p` basis models and small coefficients, from which each of `n` task models
//! `D_i = L_i R_i` is rebuilt. For `X = [x_1 .. x_n]`, vectors that belong together, the best is closed
//! (Eckart, Young):
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
//! The first two depend on how `D_i` is split into factors (`L Q`, `Q^-1 R` are factors of the same
//! `D_i`): [`Align`] brings the factors of all tasks into one form first. The third does not, but its
//! basis models have the rank of all models together, more than these take, until they are truncated
//! ([`Rmm::with_rank`], after which coefficients are refitted by least squares). Centred, the mean of the
//! `x_i` is the first basis model and the others are fitted to what is left.
//!
//! ```
//! use regrow_merging::LowRank;
//! use regrow_merging::rmm::{Granularity, Rmm};
//!
//! let task = |x: f32| LowRank::new(vec![x, 1.0], vec![1.0, 0.0, 2.0], [2, 1, 3]);
//! let space = Rmm::new(Granularity::Layer).solve(vec![task(1.0)?, task(-1.0)?, task(0.5)?])?.space(2)?;
//! assert!(space.revert(1)?.squared_distance(&task(-1.0)?)? < 1e-10);
//! # Ok::<(), regrow_sparse_core::Error>(())
//! ```
//!
//! Of the paper's text the abstract and a summary were available, not whether its `X` is centred: both
//! are here, and [`Granularity::Position`] uncentred is taken for its method.

use std::fmt;

use faer::Mat;
use rayon::prelude::*;
use regrow_sparse_core::{Error, Result};

use crate::low_rank::{LowRank, diverged, eigen};

/// Which vectors share coefficients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// The rows at one position of the left factors, the columns at one of the right.
    #[default]
    Position,
    /// The left factors of a layer, and the right ones.
    Layer,
    /// The products.
    Product,
}

/// Every granularity by name.
pub const GRANULARITIES: [(&str, Granularity); 3] =
    [("position", Granularity::Position), ("layer", Granularity::Layer), ("product", Granularity::Product)];

/// How factors are brought into one form before they are stacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Align {
    /// As they are.
    #[default]
    None,
    /// `U sqrt(S)` and `sqrt(S) V^T` of each product's SVD, the largest entry of a column of `U` positive.
    Balanced,
    /// Balanced, then turned towards the balanced factors of the tasks' mean (orthogonal Procrustes).
    Procrustes,
}

/// Every alignment by name.
pub const ALIGNMENTS: [(&str, Align); 3] =
    [("none", Align::None), ("balanced", Align::Balanced), ("procrustes", Align::Procrustes)];

impl Granularity {
    /// The granularity of that name.
    ///
    /// # Errors
    /// If there is none, naming those there are.
    pub fn parse(name: &str) -> Result<Self> {
        named("granularity", &GRANULARITIES, name)
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(GRANULARITIES.iter().find(|(_, g)| g == self).map_or("", |(name, _)| name))
    }
}

impl Align {
    /// The alignment of that name.
    ///
    /// # Errors
    /// If there is none, naming those there are.
    pub fn parse(name: &str) -> Result<Self> {
        named("alignment", &ALIGNMENTS, name)
    }
}

impl fmt::Display for Align {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALIGNMENTS.iter().find(|(_, a)| a == self).map_or("", |(name, _)| name))
    }
}

fn named<T: Copy>(what: &str, all: &[(&str, T)], name: &str) -> Result<T> {
    let names = || all.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", ");
    let unknown = || Error::Argument(format!("unknown {what} `{name}`: use {}", names()));
    all.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(unknown)
}

/// How many basis models there are to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// So many, the mean of a centred merge among them.
    Basis(usize),
    /// As many as take at most this share of the numbers that all models take.
    Storage(f64),
    /// The fewest with at most this relative error of all differences together (Frobenius).
    Error(f64),
}

/// Merges low-rank models reversibly.
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
    shape: [usize; 2],
    models: usize,
    centred: bool,
    way: Way,
}

enum Way {
    Factors { rank: usize, left: Stack, right: Stack },
    Products { models: Vec<LowRank>, scales: Vec<f64>, eigen: Eigen, rank: Option<usize> },
}

/// Eigenvalues, falling, and the vectors `[k][i]`.
struct Eigen {
    values: Vec<f64>,
    vectors: Vec<f64>,
}

/// One factor of all models, cut into units: vectors of `length` that share coefficients.
struct Stack {
    length: usize,
    models: Vec<Vec<f32>>,
    /// What each model was divided by.
    scales: Vec<f64>,
    mean: Option<Vec<f32>>,
    eigen: Vec<Eigen>,
}

/// The basis models of one layer and the coefficients of each task: what is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    models: usize,
    form: Form,
}

#[derive(Clone, Debug, PartialEq)]
enum Form {
    Factors { shape: [usize; 3], left: Basis, right: Basis },
    Products { mean: Option<LowRank>, basis: Vec<LowRank>, coefficients: Vec<f32> },
}

/// The basis of one factor: `basis [p, units * length]`, `coefficients [units, p, n]`; a mean is beside
/// them, not among the `p`.
#[derive(Clone, Debug, Default, PartialEq)]
struct Basis {
    units: usize,
    mean: Option<Vec<f32>>,
    basis: Vec<f32>,
    coefficients: Vec<f32>,
}

/// A tensor of a [`Space`] as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// As `left.basis`.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Row-major.
    pub values: Vec<f32>,
}

impl Rmm {
    /// With factors as they are, not centred.
    pub fn new(granularity: Granularity) -> Self {
        Self { granularity, ..Self::default() }
    }

    /// With factors brought into one form first.
    pub fn with_align(mut self, align: Align) -> Self {
        self.align = align;
        self
    }

    /// With the mean as the first basis model, or not.
    pub fn with_centred(mut self, centred: bool) -> Self {
        self.centred = centred;
        self
    }

    /// With every task's vectors brought to one norm first, layer by layer, or not: a task of small differences
    /// then counts as much as one of large ones, which would be fitted alone otherwise. Norms go into the
    /// coefficients. Not together with a mean.
    pub fn with_normalized(mut self, normalized: bool) -> Self {
        self.normalized = normalized;
        self
    }

    /// With the basis of [`Granularity::Product`] truncated to this rank.
    ///
    /// # Errors
    /// A rank of zero, another granularity.
    pub fn with_rank(mut self, rank: usize) -> Result<Self> {
        match (rank, self.granularity) {
            (0, _) => Err(Error::Argument("basis models of rank 0 hold nothing".into())),
            (_, Granularity::Product) => {
                self.rank = Some(rank);
                Ok(self)
            }
            (_, other) => {
                Err(Error::Argument(format!("only a basis by product is truncated to a rank, not one by {other}")))
            }
        }
    }

    /// Which vectors share coefficients.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// How factors are brought into one form.
    pub fn align(&self) -> Align {
        self.align
    }

    /// Whether the mean is the first basis model.
    pub fn centred(&self) -> bool {
        self.centred
    }

    /// Whether tasks are brought to one norm first.
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
    /// ranks; both a mean and norms of one; a decomposition that does not converge.
    pub fn solve(&self, models: Vec<LowRank>) -> Result<Solved> {
        if self.centred && self.normalized {
            return Err(Error::Argument("models are either centred or normalized, not both".into()));
        }
        let (shape, count) = (check(models.iter().map(LowRank::shape))?, models.len());
        let models = self.aligned(models)?;
        let way = match self.granularity {
            Granularity::Product => {
                let mut gram = LowRank::gram(&models)?;
                if self.centred {
                    centre(&mut gram, count);
                }
                let norm = |i: usize| if self.normalized { some(gram[i * count + i].max(0.0).sqrt()) } else { 1.0 };
                let scales: Vec<f64> = (0..count).map(norm).collect();
                (0..count * count).for_each(|i| gram[i] /= scales[i / count] * scales[i % count]);
                Way::Products { eigen: Eigen::of(&gram, count)?, models, scales, rank: self.rank }
            }
            granularity => {
                let rank = same_rank(&models)?;
                let left = models.iter().map(|m| m.left().to_vec()).collect();
                let right = models.iter().map(|m| columns(m.right(), rank, shape[1])).collect();
                let length = |rows: usize| if granularity == Granularity::Layer { rows * rank } else { rank };
                let left = Stack::new(left, length(shape[0]), self)?;
                let right = Stack::new(right, length(shape[1]), self)?;
                Way::Factors { rank, left, right }
            }
        };
        Ok(Solved { shape, models: count, centred: self.centred, way })
    }

    /// How many numbers `basis` basis models of these take.
    ///
    /// # Errors
    /// As [`Rmm::outline`].
    pub fn numbers(&self, models: &[[usize; 3]], basis: usize) -> Result<usize> {
        let outline = self.outline(models, basis)?;
        Ok(outline.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum())
    }

    /// Names and shapes of what is kept of one layer with `basis` basis models, the parts of its
    /// [`Space`]; the layer's models have factors of the shapes `[m, r, d]`.
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
    /// An impossible amount, or one that no number of basis models reaches; as [`Rmm::solve`]; what `load`
    /// runs into.
    pub fn choose(
        &self,
        amount: Amount,
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
        match amount {
            Amount::Basis(p) if (1..=models).contains(&p) => Ok(p),
            Amount::Basis(p) => {
                Err(Error::Argument(format!("{p} basis models for {models} models: use 1 to {models}")))
            }
            Amount::Storage(share) if share > 0.0 && share.is_finite() => {
                let sizes = sums(&|tasks| self.sizes(&tasks))?;
                let fits = |p: &usize| sizes[*p] <= share * sizes[0];
                (1..=models).rev().find(fits).ok_or_else(|| {
                    let least = sizes[1.min(models)] / sizes[0].max(1.0);
                    Error::Argument(format!("one basis model takes {least:.3} of all models' storage, not {share}"))
                })
            }
            Amount::Error(most) if most >= 0.0 && most.is_finite() => {
                let errors = sums(&|tasks| self.errors(tasks))?;
                // Rounding leaves about 1e-7 of what is exact.
                let fits = |p: &usize| errors[*p] <= most.max(1e-6).powi(2) * errors[0];
                (1..=models).find(fits).ok_or_else(|| {
                    let least = (errors[models] / errors[0]).sqrt();
                    Error::Argument(format!("{models} basis models have a relative error of {least:.3}, not {most}"))
                })
            }
            Amount::Storage(wrong) | Amount::Error(wrong) => {
                Err(Error::Argument(format!("{wrong} is neither a share of the storage nor a relative error")))
            }
        }
    }

    /// Numbers of all models, then of 1, 2, .. n basis models.
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

    fn aligned(&self, models: Vec<LowRank>) -> Result<Vec<LowRank>> {
        if self.align == Align::None || self.granularity == Granularity::Product {
            return Ok(models);
        }
        let rank = models.iter().map(LowRank::rank).max().unwrap_or(0);
        let balanced = |model: &LowRank| {
            let svd = model.svd()?;
            model.balanced(&svd.u, &svd.s, &svd.v, rank)
        };
        let all = models.iter().map(balanced).collect::<Result<Vec<_>>>()?;
        if self.align == Align::Balanced {
            return Ok(all);
        }
        let share = 1.0 / models.len() as f64;
        let mean = LowRank::sum(&models.iter().map(|m| (share, m)).collect::<Vec<_>>())?;
        let reference = balanced(&mean)?;
        all.iter().map(|model| turned(model, &reference)).collect()
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

/// `L Q` and `Q^T R` with the orthogonal `Q` that brings them nearest to those of `reference`.
fn turned(model: &LowRank, reference: &LowRank) -> Result<LowRank> {
    let ([rows, cols], r) = (model.shape(), model.rank());
    let cross = Mat::from_fn(r, r, |a, b| {
        let left = (0..rows).map(|i| f64::from(model.left()[i * r + a]) * f64::from(reference.left()[i * r + b]));
        let right =
            (0..cols).map(|j| f64::from(model.right()[a * cols + j]) * f64::from(reference.right()[b * cols + j]));
        left.sum::<f64>() + right.sum::<f64>()
    });
    let svd = cross.svd().map_err(|_| diverged(r, r))?;
    let turn = svd.U() * svd.V().transpose();
    let left =
        (0..rows * r).map(|i| (0..r).map(|a| f64::from(model.left()[i / r * r + a]) * turn[(a, i % r)]).sum::<f64>());
    let right = (0..r * cols)
        .map(|i| (0..r).map(|a| f64::from(model.right()[a * cols + i % cols]) * turn[(a, i / cols)]).sum::<f64>());
    LowRank::new(left.map(|v| v as f32).collect(), right.map(|v| v as f32).collect(), [rows, r, cols])
}

/// A norm to divide by.
fn some(norm: f64) -> f64 {
    if norm > 0.0 { norm } else { 1.0 }
}

/// Coefficients `[p, n]` of models that were divided by `scales`.
fn scaled(coefficients: &[f64], scales: &[f64]) -> Vec<f32> {
    coefficients.iter().zip(scales.iter().cycle()).map(|(c, s)| (c * s) as f32).collect()
}

/// The columns of `right [r, d]`, one after another.
fn columns(right: &[f32], r: usize, d: usize) -> Vec<f32> {
    (0..r * d).map(|i| right[i % r * d + i / r]).collect()
}

/// The Gram matrix of what is left of the vectors without their mean.
fn centre(gram: &mut [f64], n: usize) {
    let mean: Vec<f64> = (0..n).map(|i| gram[i * n..(i + 1) * n].iter().sum::<f64>() / n as f64).collect();
    let all = mean.iter().sum::<f64>() / n as f64;
    (0..n * n).for_each(|i| gram[i] += all - mean[i / n] - mean[i % n]);
}

impl Eigen {
    fn of(gram: &[f64], n: usize) -> Result<Self> {
        let (values, vectors) = eigen(&Mat::from_fn(n, n, |i, j| gram[i * n + j]))?;
        Ok(Self { values, vectors: (0..n * n).map(|i| vectors[(i % n, i / n)]).collect() })
    }

    /// Vector `k`.
    fn vector(&self, k: usize) -> &[f64] {
        let n = self.values.len();
        &self.vectors[k * n..(k + 1) * n]
    }
}

impl Stack {
    fn new(mut models: Vec<Vec<f32>>, length: usize, rmm: &Rmm) -> Result<Self> {
        let n = models.len();
        let norm = |m: &Vec<f32>| some(m.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt());
        let scales: Vec<f64> = models.iter().map(|m| if rmm.normalized { norm(m) } else { 1.0 }).collect();
        if rmm.normalized {
            let divided = |(m, s): (&mut Vec<f32>, &f64)| m.iter_mut().for_each(|v| *v = (f64::from(*v) / s) as f32);
            models.iter_mut().zip(&scales).for_each(divided);
        }
        let mean = rmm.centred.then(|| {
            let at = |i: usize| models.iter().map(|m| f64::from(m[i])).sum::<f64>() / n as f64;
            (0..models[0].len()).map(|i| at(i) as f32).collect::<Vec<f32>>()
        });
        if let Some(mean) = &mean {
            models.iter_mut().for_each(|model| model.iter_mut().zip(mean).for_each(|(v, m)| *v -= m));
        }
        let eigen = |unit: usize| {
            let of = |i: usize| &models[i][unit * length..(unit + 1) * length];
            let mut gram = vec![0.0; n * n];
            for i in 0..n {
                for j in 0..=i {
                    let dot = of(i).iter().zip(of(j)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    (gram[i * n + j], gram[j * n + i]) = (dot, dot);
                }
            }
            Eigen::of(&gram, n)
        };
        let eigen = (0..models[0].len() / length).into_par_iter().map(eigen).collect::<Result<Vec<_>>>()?;
        Ok(Self { length, models, scales, mean, eigen })
    }

    /// `fitted` basis vectors of each unit, and coefficients.
    fn basis(&self, fitted: usize) -> Basis {
        let (units, length, n) = (self.eigen.len(), self.length, self.models.len());
        let mut basis = vec![0.0f32; fitted * units * length];
        for (at, value) in basis.iter_mut().enumerate() {
            let (k, place) = (at / (units * length), at % (units * length));
            let weights = self.eigen[place / length].vector(k);
            *value = weights.iter().zip(&self.models).map(|(w, m)| w * f64::from(m[place])).sum::<f64>() as f32;
        }
        let own = |e: &Eigen| scaled(&e.vectors[..fitted * n], &self.scales);
        let coefficients = self.eigen.iter().flat_map(own).collect();
        Basis { units, mean: self.mean.clone(), basis, coefficients }
    }
}

impl Solved {
    /// The space of `basis` basis models, the mean of a centred merge among them.
    ///
    /// # Errors
    /// No basis models or more than models; a decomposition that does not converge.
    pub fn space(&self, basis: usize) -> Result<Space> {
        let n = self.models;
        if basis == 0 || basis > n {
            return Err(Error::Argument(format!("{basis} basis models for {n} models: use 1 to {n}")));
        }
        let fitted = basis - usize::from(self.centred);
        let form = match &self.way {
            Way::Factors { rank, left, right } => {
                let [m, d] = self.shape;
                Form::Factors { shape: [m, *rank, d], left: left.basis(fitted), right: right.basis(fitted) }
            }
            Way::Products { models, scales, eigen, rank } => {
                products(models, scales, eigen, *rank, fitted, self.centred)?
            }
        };
        Ok(Space { models: n, form })
    }

    /// The squared errors of the vectors that are fitted with 1, 2, .. basis models: sums of the dropped
    /// `S^2`. They are those of the factors for [`Granularity::Position`] and [`Granularity::Layer`], and of
    /// the differences themselves, before truncation, for [`Granularity::Product`].
    pub fn dropped(&self) -> Vec<f64> {
        let eigens: Vec<&Eigen> = match &self.way {
            Way::Factors { left, right, .. } => left.eigen.iter().chain(&right.eigen).collect(),
            Way::Products { eigen, .. } => vec![eigen],
        };
        let tail = |from: usize| eigens.iter().map(|e| e.values[from..].iter().sum::<f64>()).sum();
        (1..=self.models).map(|p| tail(p - usize::from(self.centred))).collect()
    }
}

/// Basis models `sum_i V_ik D_i`, truncated on request, and then the coefficients that fit best.
fn products(
    models: &[LowRank],
    scales: &[f64],
    eigen: &Eigen,
    rank: Option<usize>,
    fitted: usize,
    centred: bool,
) -> Result<Form> {
    let n = models.len();
    let combined = |weights: &dyn Fn(usize) -> f64| {
        let terms: Vec<(f64, &LowRank)> = models.iter().enumerate().map(|(i, m)| (weights(i), m)).collect();
        let sum = LowRank::sum(&terms)?;
        rank.map_or(Ok(sum.clone()), |rank| sum.truncated(rank))
    };
    let mean = centred.then(|| combined(&|_| 1.0 / n as f64)).transpose()?;
    // Without their mean, the models' weights lack theirs.
    let shift = |k: usize| if centred { eigen.vector(k).iter().sum::<f64>() / n as f64 } else { 0.0 };
    let one = |k: usize| combined(&|i| (eigen.vector(k)[i] - shift(k)) / scales[i]);
    let basis = (0..fitted).map(one).collect::<Result<Vec<_>>>()?;
    let coefficients = match rank {
        None => scaled(&eigen.vectors[..fitted * n], scales),
        Some(_) => refitted(models, mean.as_ref(), &basis)?,
    };
    Ok(Form::Products { mean, basis, coefficients })
}

/// The coefficients `[p, n]` of least squared error.
fn refitted(models: &[LowRank], mean: Option<&LowRank>, basis: &[LowRank]) -> Result<Vec<f32>> {
    let (p, n) = (basis.len(), models.len());
    if p == 0 {
        return Ok(Vec::new());
    }
    let (values, vectors) = {
        let gram = LowRank::gram(basis)?;
        eigen(&Mat::from_fn(p, p, |i, j| gram[i * p + j]))?
    };
    let mut coefficients = vec![0.0f32; p * n];
    for (i, model) in models.iter().enumerate() {
        let target = |b: &LowRank| Ok(b.dot(model)? - mean.map_or(Ok(0.0), |m| b.dot(m))?);
        let target = basis.iter().map(target).collect::<Result<Vec<f64>>>()?;
        for k in (0..p).filter(|k| values[*k] > 1e-12 * values[0]) {
            let along = (0..p).map(|a| vectors[(a, k)] * target[a]).sum::<f64>() / values[k];
            (0..p).for_each(|a| coefficients[a * n + i] += (along * vectors[(a, k)]) as f32);
        }
    }
    Ok(coefficients)
}

impl Space {
    /// How many models can be rebuilt.
    pub fn models(&self) -> usize {
        self.models
    }

    /// How many numbers it keeps, coefficients included.
    pub fn numbers(&self) -> usize {
        self.parts().iter().map(|part| part.values.len()).sum()
    }

    /// Model `task`, counted from 0.
    ///
    /// # Errors
    /// If there is none.
    pub fn revert(&self, task: usize) -> Result<LowRank> {
        if task >= self.models {
            return Err(Error::Argument(format!("there is no model {task} among {}", self.models)));
        }
        match &self.form {
            Form::Factors { shape: [m, r, d], left, right } => {
                let left = left.revert(task, self.models, m * r);
                let right = columns(&right.revert(task, self.models, d * r), *d, *r);
                LowRank::new(left, right, [*m, *r, *d])
            }
            Form::Products { mean, basis, coefficients } => {
                let weight = |k: usize| f64::from(coefficients[k * self.models + task]);
                let fitted = basis.iter().enumerate().map(|(k, b)| (weight(k), b));
                LowRank::sum(&mean.iter().map(|m| (1.0, m)).chain(fitted).collect::<Vec<_>>())
            }
        }
    }

    /// The squared Frobenius norm of what each of `models` lacks when it is rebuilt.
    ///
    /// # Errors
    /// Other models than those that were merged.
    pub fn squared_errors(&self, models: &[LowRank]) -> Result<Vec<f64>> {
        if models.len() != self.models {
            return Err(Error::Argument(format!("{} models, {} were merged", models.len(), self.models)));
        }
        models.iter().enumerate().map(|(task, model)| self.revert(task)?.squared_distance(model)).collect()
    }

    /// What it consists of, to be stored.
    pub fn parts(&self) -> Vec<Part> {
        let part = |name: &str, shape: &[usize], values: &[f32]| Part {
            name: name.into(),
            shape: shape.to_vec(),
            values: values.to_vec(),
        };
        let n = self.models;
        match &self.form {
            Form::Factors { shape: [m, r, d], left, right } => {
                let mut parts = Vec::new();
                for (side, rows, of) in [("left", *m, left), ("right", *d, right)] {
                    let fitted = of.basis.len() / (rows * r);
                    parts.extend(of.mean.as_ref().map(|mean| part(&format!("{side}.mean"), &[rows, *r], mean)));
                    if fitted > 0 {
                        parts.push(part(&format!("{side}.basis"), &[fitted, rows, *r], &of.basis));
                        parts.push(part(&format!("{side}.coefficients"), &[of.units, fitted, n], &of.coefficients));
                    }
                }
                parts
            }
            Form::Products { mean, basis, coefficients } => {
                let named = mean.iter().map(|m| ("mean".to_string(), m));
                let named = named.chain(basis.iter().enumerate().map(|(k, b)| (format!("basis.{k}"), b)));
                let factors = |(name, m): (String, &LowRank)| {
                    let ([rows, cols], r) = (m.shape(), m.rank());
                    [
                        part(&format!("{name}.left"), &[rows, r], m.left()),
                        part(&format!("{name}.right"), &[r, cols], m.right()),
                    ]
                };
                let mut parts: Vec<Part> = named.flat_map(factors).collect();
                if !basis.is_empty() {
                    parts.push(part("coefficients", &[basis.len(), n], coefficients));
                }
                parts
            }
        }
    }

    /// The space of `models` models that consists of [`Space::parts`], each found by its name.
    ///
    /// # Errors
    /// Parts that are missing or do not go together; what `find` runs into.
    pub fn from_parts(models: usize, find: &mut dyn FnMut(&str) -> Result<Option<Part>>) -> Result<Self> {
        let left = side(models, "left", find)?;
        let form = match (left, side(models, "right", find)?) {
            (Some((m, r, left)), Some((d, rank, right))) if r == rank => {
                Form::Factors { shape: [m, r, d], left, right }
            }
            (None, None) => products_from(models, find)?,
            _ => return Err(unfit("left")),
        };
        Ok(Self { models, form })
    }
}

fn unfit(name: &str) -> Error {
    Error::tensor(name, "is missing or does not go with the others of its layer")
}

/// One side's basis with its rows and rank.
fn side(
    n: usize,
    name: &str,
    find: &mut dyn FnMut(&str) -> Result<Option<Part>>,
) -> Result<Option<(usize, usize, Basis)>> {
    let mean = find(&format!("{name}.mean"))?;
    let basis = find(&format!("{name}.basis"))?;
    let coefficients = find(&format!("{name}.coefficients"))?;
    let (rows, r) = match (mean.as_ref().map(|p| &p.shape[..]), basis.as_ref().map(|p| &p.shape[..])) {
        (None, None) => return Ok(None),
        (Some(&[rows, r]), None) | (None, Some(&[_, rows, r])) => (rows, r),
        (Some(&[rows, r]), Some(&[_, a, b])) if (a, b) == (rows, r) => (rows, r),
        _ => return Err(unfit(name)),
    };
    let mean = mean.map(|p| p.values);
    let found = match (basis, coefficients) {
        (None, None) => Basis { units: 1, mean, ..Basis::default() },
        (Some(basis), Some(coefficients)) => {
            let fits = |c: &[usize]| matches!(c, [units, p, of] if *p == basis.shape[0] && *of == n && (*units == 1 || *units == rows));
            match fits(&coefficients.shape) {
                true => {
                    Basis { units: coefficients.shape[0], mean, basis: basis.values, coefficients: coefficients.values }
                }
                false => return Err(unfit(&format!("{name}.coefficients"))),
            }
        }
        _ => return Err(unfit(&format!("{name}.coefficients"))),
    };
    Ok(Some((rows, r, found)))
}

fn products_from(n: usize, find: &mut dyn FnMut(&str) -> Result<Option<Part>>) -> Result<Form> {
    let mut model = |name: &str| -> Result<Option<LowRank>> {
        match (find(&format!("{name}.left"))?, find(&format!("{name}.right"))?) {
            (None, None) => Ok(None),
            (Some(left), Some(right)) => match (&left.shape[..], &right.shape[..]) {
                (&[m, r], &[rank, d]) if r == rank => Ok(Some(LowRank::new(left.values, right.values, [m, r, d])?)),
                _ => Err(unfit(name)),
            },
            _ => Err(unfit(name)),
        }
    };
    let mean = model("mean")?;
    let mut basis = Vec::new();
    while let Some(next) = model(&format!("basis.{}", basis.len()))? {
        basis.push(next);
    }
    let shapes: Vec<_> = mean.iter().chain(&basis).map(LowRank::shape).collect();
    if shapes.is_empty() || shapes.iter().any(|s| *s != shapes[0]) {
        return Err(unfit("basis"));
    }
    let coefficients = find("coefficients")?;
    match (coefficients, basis.len()) {
        (None, 0) => Ok(Form::Products { mean, basis, coefficients: Vec::new() }),
        (Some(c), p) if c.shape == [p, n] => Ok(Form::Products { mean, basis, coefficients: c.values }),
        _ => Err(unfit("coefficients")),
    }
}

impl Basis {
    /// The factor of `task`, of `size` numbers.
    fn revert(&self, task: usize, n: usize, size: usize) -> Vec<f32> {
        let (fitted, length) = (self.basis.len() / size, size / self.units);
        let at = |place: usize| {
            let start = self.mean.as_ref().map_or(0.0, |mean| f64::from(mean[place]));
            let unit = &self.coefficients[place / length * fitted * n..];
            let along = |k: usize| f64::from(unit[k * n + task]) * f64::from(self.basis[k * size + place]);
            (start + (0..fitted).map(along).sum::<f64>()) as f32
        };
        (0..size).map(at).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::low_rank::tests::{gap, noise, random, squares};

    const SHAPE: [usize; 3] = [12, 3, 9];

    fn models(n: usize) -> Vec<LowRank> {
        // A common part, so that some basis models matter more than others.
        let common = random(SHAPE, 77);
        let one = |i: usize| {
            let own = random(SHAPE, i as u64);
            let mix = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a + 0.5 * b).collect();
            LowRank::new(mix(common.left(), own.left()), mix(common.right(), own.right()), SHAPE).unwrap()
        };
        (0..n).map(one).collect()
    }

    fn every() -> Vec<Rmm> {
        let mut all = Vec::new();
        for (_, granularity) in GRANULARITIES {
            for (_, align) in ALIGNMENTS {
                for centred in [false, true] {
                    all.push(Rmm::new(granularity).with_align(align).with_centred(centred));
                }
            }
        }
        all
    }

    fn total(space: &Space, models: &[LowRank]) -> f64 {
        space.squared_errors(models).unwrap().iter().sum()
    }

    #[test]
    fn as_many_basis_models_as_models_lose_nothing_and_fewer_lose_more() {
        let models = models(4);
        let all: f64 = models.iter().map(LowRank::squared_norm).sum();
        for rmm in every() {
            let solved = rmm.solve(models.clone()).unwrap();
            for (task, model) in models.iter().enumerate() {
                let back = solved.space(4).unwrap().revert(task).unwrap();
                assert!(gap(&back.dense(), &model.dense()) < 1e-5, "{rmm:?}");
            }
            let errors: Vec<f64> = (1..=4).map(|p| total(&solved.space(p).unwrap(), &models)).collect();
            assert!(errors[3] < 1e-10 * all && errors[0] < all, "{rmm:?}: {errors:?}");
            let dropped = solved.dropped();
            assert!(dropped.windows(2).all(|w| w[1] <= w[0]) && dropped[3] < 1e-10 * all);
            if rmm.granularity == Granularity::Product {
                assert!(errors.windows(2).all(|w| w[1] <= w[0] + 1e-10 * all), "{rmm:?}: {errors:?}");
            }
        }
    }

    #[test]
    fn the_error_is_the_sum_of_what_is_dropped() {
        let models = models(5);
        for rmm in every() {
            let solved = rmm.solve(models.clone()).unwrap();
            for p in 1..=5 {
                let space = solved.space(p).unwrap();
                let lost: f64 = match rmm.granularity {
                    Granularity::Product => total(&space, &models),
                    // Of the factors, as they were stacked.
                    _ => rmm
                        .aligned(models.clone())
                        .unwrap()
                        .iter()
                        .enumerate()
                        .map(|(task, model)| {
                            let back = space.revert(task).unwrap();
                            let off = |a: &[f32], b: &[f32]| {
                                squares(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
                            };
                            off(back.left(), model.left()) + off(back.right(), model.right())
                        })
                        .sum(),
                };
                let expected = solved.dropped()[p - 1];
                assert!((lost - expected).abs() < 1e-5 * (1.0 + expected), "{rmm:?} {p}: {lost} {expected}");
            }
        }
    }

    /// The best rank-p fit of the rows of `x [n][len]` by a dense SVD, rebuilt.
    fn dense_fit(x: &[Vec<f32>], p: usize) -> Vec<Vec<f64>> {
        let (n, len) = (x.len(), x[0].len());
        let matrix = Mat::from_fn(len, n, |l, i| f64::from(x[i][l]));
        let svd = matrix.thin_svd().unwrap();
        let s = svd.S().column_vector();
        let at = |l: usize, i: usize| (0..p.min(s.nrows())).map(|k| svd.U()[(l, k)] * s[k] * svd.V()[(i, k)]).sum();
        (0..n).map(|i| (0..len).map(|l| at(l, i)).collect()).collect()
    }

    #[test]
    fn everything_equals_the_dense_svd() {
        let models = models(4);
        let [m, r, d] = SHAPE;
        for p in 1..=3 {
            let product = Rmm::new(Granularity::Product).solve(models.clone()).unwrap().space(p).unwrap();
            let dense = dense_fit(&models.iter().map(LowRank::dense).collect::<Vec<_>>(), p);
            let layer = Rmm::new(Granularity::Layer).solve(models.clone()).unwrap().space(p).unwrap();
            let left = dense_fit(&models.iter().map(|m| m.left().to_vec()).collect::<Vec<_>>(), p);
            let position = Rmm::new(Granularity::Position).solve(models.clone()).unwrap().space(p).unwrap();
            for task in 0..4 {
                let close = |a: &[f32], b: &[f64]| {
                    let b: Vec<f32> = b.iter().map(|v| *v as f32).collect();
                    assert!(gap(a, &b) < 1e-5, "{p} {task}: {}", gap(a, &b));
                };
                close(&product.revert(task).unwrap().dense(), &dense[task]);
                close(layer.revert(task).unwrap().left(), &left[task]);
                let back = position.revert(task).unwrap();
                for row in 0..m {
                    let x: Vec<_> = models.iter().map(|o| o.left()[row * r..(row + 1) * r].to_vec()).collect();
                    close(&back.left()[row * r..(row + 1) * r], &dense_fit(&x, p)[task]);
                }
                for col in 0..d {
                    let column = |o: &LowRank| (0..r).map(|k| o.right()[k * d + col]).collect::<Vec<f32>>();
                    let x: Vec<_> = models.iter().map(column).collect();
                    close(&column(&back), &dense_fit(&x, p)[task]);
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

    #[test]
    fn models_that_are_the_same_need_one() {
        let model = random(SHAPE, 3);
        for rmm in every() {
            let space = rmm.solve(vec![model.clone(); 3]).unwrap().space(1).unwrap();
            assert!(gap(&space.revert(2).unwrap().dense(), &model.dense()) < 1e-5, "{rmm:?}");
        }
    }

    #[test]
    fn the_order_of_models_does_not_matter() {
        let models = models(3);
        let turned: Vec<LowRank> = [2, 0, 1].map(|i| models[i].clone()).into();
        for rmm in every() {
            let one = rmm.solve(models.clone()).unwrap().space(2).unwrap();
            let other = rmm.solve(turned.clone()).unwrap().space(2).unwrap();
            for (task, place) in [(0, 1), (1, 2), (2, 0)] {
                let (a, b) = (one.revert(task).unwrap(), other.revert(place).unwrap());
                assert!(gap(&a.dense(), &b.dense()) < 1e-4, "{rmm:?}");
            }
        }
    }

    #[test]
    fn a_small_task_counts_as_much_as_a_large_one() {
        let grown = |seed: u64, by: f32| {
            let model = random(SHAPE, seed);
            LowRank::new(model.left().iter().map(|v| v * by).collect(), model.right().to_vec(), SHAPE).unwrap()
        };
        let models = [grown(1, 0.01), grown(2, 1.0), grown(3, 100.0)];
        let worst = |rmm: Rmm, p: usize| {
            let errors = rmm.solve(models.to_vec()).unwrap().space(p).unwrap().squared_errors(&models).unwrap();
            errors.iter().zip(&models).map(|(e, m)| (e / m.squared_norm()).sqrt()).fold(0.0, f64::max)
        };
        for granularity in [Granularity::Layer, Granularity::Product] {
            let even = Rmm::new(granularity).with_normalized(true);
            assert!(worst(even, 3) < 1e-5, "{granularity}");
            let both = even.with_centred(true).solve(models.to_vec());
            assert!(both.err().unwrap().to_string().contains("not both"));
        }
        // The largest alone, or something of all.
        let plain = Rmm::new(Granularity::Product);
        let (alone, even) = (worst(plain, 1), worst(plain.with_normalized(true), 1));
        assert!(alone > 0.99 && even < 0.97, "{alone} {even}");
    }

    #[test]
    fn no_random_basis_is_better() {
        let models = models(4);
        let x = Mat::from_fn(12 * 9, 4, |l, i| f64::from(models[i].dense()[l]));
        let best = Rmm::new(Granularity::Product).solve(models.clone()).unwrap().dropped();
        for (seed, p) in [(1, 1), (2, 2), (3, 3), (4, 2)] {
            let values = noise(12 * 9 * p, seed);
            let q = Mat::from_fn(12 * 9, p, |i, k| f64::from(values[i * p + k])).qr().compute_thin_Q();
            let rest = &x - &q * (q.transpose() * &x);
            assert!(rest.squared_norm_l2() >= best[p - 1]);
        }
    }

    #[test]
    fn alignment_forgets_how_the_product_was_split() {
        let models = models(3);
        // The same products from other factors: L Q and Q^-1 R.
        let split = |model: &LowRank, scale: f32| {
            let left = model.left().iter().map(|v| v * scale).collect();
            LowRank::new(left, model.right().iter().map(|v| v / scale).collect(), SHAPE).unwrap()
        };
        let other: Vec<LowRank> = models.iter().zip([1.0, 4.0, 0.1]).map(|(m, s)| split(m, s)).collect();
        let error = |rmm: Rmm, of: &[LowRank]| total(&rmm.solve(of.to_vec()).unwrap().space(1).unwrap(), &models);
        for align in [Align::Balanced, Align::Procrustes] {
            let rmm = Rmm::new(Granularity::Layer).with_align(align);
            assert!((error(rmm, &models) / error(rmm, &other) - 1.0).abs() < 1e-3);
        }
        let plain = Rmm::new(Granularity::Layer);
        assert!((error(plain, &models) / error(plain, &other) - 1.0).abs() > 0.1);
        // Procrustes finds a common form that factors turned at random hide.
        let turned = |model: &LowRank, seed: u64| {
            let values = noise(9, seed);
            let q = Mat::from_fn(3, 3, |i, k| f64::from(values[i * 3 + k])).qr().compute_thin_Q();
            let [m, r, d] = SHAPE;
            let left = (0..m * r)
                .map(|i| (0..r).map(|a| f64::from(model.left()[i / r * r + a]) * q[(a, i % r)]).sum::<f64>() as f32);
            let right = (0..r * d)
                .map(|i| (0..r).map(|a| f64::from(model.right()[a * d + i % d]) * q[(a, i / d)]).sum::<f64>() as f32);
            LowRank::new(left.collect(), right.collect(), SHAPE).unwrap()
        };
        let hidden: Vec<LowRank> = (0..3).map(|i| turned(&random(SHAPE, 5), i)).collect();
        let error = |rmm: Rmm| {
            let space = rmm.solve(hidden.clone()).unwrap().space(1).unwrap();
            total(&space, &hidden) / hidden.iter().map(LowRank::squared_norm).sum::<f64>()
        };
        assert!(error(plain) > 0.05 && error(plain.with_align(Align::Procrustes)) < 1e-9);
    }

    #[test]
    fn storage_is_known_beforehand() {
        let models = models(4);
        let [m, r, d] = SHAPE;
        let shapes = [SHAPE; 4];
        for rmm in every().into_iter().chain([Rmm::new(Granularity::Product).with_rank(2).unwrap()]) {
            let solved = rmm.solve(models.clone()).unwrap();
            for p in 1..=4 {
                let parts: Vec<_> = solved.space(p).unwrap().parts().into_iter().map(|p| (p.name, p.shape)).collect();
                assert_eq!(parts, rmm.outline(&shapes, p).unwrap(), "{rmm:?} {p}");
            }
        }
        assert_eq!(Rmm::default().numbers(&shapes, 2).unwrap(), 2 * (r + 4) * (m + d));
        assert_eq!(Rmm::new(Granularity::Layer).numbers(&shapes, 2).unwrap(), 2 * r * (m + d) + 2 * 2 * 4);
    }

    #[test]
    fn the_amount_may_be_a_number_a_share_or_an_error() {
        let models = models(4);
        let load = |layer: usize| Ok(if layer == 0 { models.clone() } else { vec![models[0].clone(); 4] });
        let rmm = Rmm::new(Granularity::Layer);
        let choose = |amount| rmm.choose(amount, 4, 2, load, || {});
        assert_eq!(choose(Amount::Basis(3)).unwrap(), 3);
        assert!(choose(Amount::Basis(5)).unwrap_err().to_string().contains("use 1 to 4"));
        assert!(choose(Amount::Basis(0)).is_err());
        // A basis model is a quarter of all and a few coefficients.
        assert_eq!(choose(Amount::Storage(0.6)).unwrap(), 2);
        assert_eq!(choose(Amount::Storage(2.0)).unwrap(), 4);
        assert!(choose(Amount::Storage(0.2)).unwrap_err().to_string().contains("one basis model takes 0.2"));
        assert!(choose(Amount::Storage(f64::NAN)).is_err());
        assert_eq!(choose(Amount::Error(0.0)).unwrap(), 4);
        let errors = rmm.errors(models.clone()).unwrap();
        let norm = errors[0] + 4.0 * models[0].squared_norm();
        let relative = (errors[2] / norm).sqrt();
        assert_eq!(choose(Amount::Error(relative * 1.001)).unwrap(), 2);
        assert_eq!(choose(Amount::Error(relative * 0.999)).unwrap(), 3);
        assert!(choose(Amount::Error(-1.0)).is_err());
        let cut = Rmm::new(Granularity::Product).with_rank(1).unwrap();
        assert!(
            cut.choose(Amount::Error(1e-3), 4, 2, load, || {}).unwrap_err().to_string().contains("basis models have")
        );
    }

    #[test]
    fn truncated_basis_models_are_refitted() {
        let models = models(4);
        let error = |rank: usize, p: usize| {
            let rmm = Rmm::new(Granularity::Product).with_rank(rank).unwrap();
            let space = rmm.solve(models.clone()).unwrap().space(p).unwrap();
            (total(&space, &models), space)
        };
        let whole = Rmm::new(Granularity::Product).solve(models.clone()).unwrap().dropped();
        for p in 1..=3 {
            // A rank that all models together have cuts nothing.
            assert!((error(9, p).0 - whole[p - 1]).abs() < 1e-4 * whole[0], "{p}");
            let (lost, space) = error(2, p);
            assert!(lost > whole[p - 1]);
            // Any other coefficients are worse.
            let Form::Products { mean, basis, coefficients } = space.form.clone() else { panic!("products") };
            for i in 0..coefficients.len() {
                let mut moved = coefficients.clone();
                moved[i] += 0.05;
                let form = Form::Products { mean: mean.clone(), basis: basis.clone(), coefficients: moved };
                assert!(total(&Space { models: 4, form }, &models) > lost);
            }
        }
    }

    #[test]
    fn a_space_is_read_as_it_was_stored() {
        let models = models(3);
        for rmm in every() {
            for p in 1..=3 {
                let space = rmm.solve(models.clone()).unwrap().space(p).unwrap();
                let parts = space.parts();
                let mut find = |name: &str| Ok(parts.iter().find(|part| part.name == name).cloned());
                assert_eq!(Space::from_parts(3, &mut find).unwrap().parts(), parts, "{rmm:?}");
                if p > 1 {
                    assert!(Space::from_parts(4, &mut find).is_err(), "{rmm:?}");
                    let mut less = |name: &str| Ok(parts.iter().skip(1).find(|part| part.name == name).cloned());
                    assert!(rmm.centred || Space::from_parts(3, &mut less).is_err(), "{rmm:?}");
                }
            }
        }
        assert!(Space::from_parts(3, &mut |_| Ok(None)).is_err());
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let says = |models: Vec<LowRank>, rmm: Rmm| rmm.solve(models).err().map(|e| e.to_string()).unwrap_or_default();
        let other_rank = || vec![random([4, 2, 5], 1), random([4, 3, 5], 2)];
        assert!(says(vec![], Rmm::default()).contains("no models"));
        assert!(says(vec![random([4, 2, 5], 1), random([4, 2, 6], 2)], Rmm::default()).contains("4x5 and 4x6"));
        assert!(says(other_rank(), Rmm::default()).contains("ranks 2 and 3"));
        assert!(Rmm::new(Granularity::Product).solve(other_rank()).is_ok());
        let balanced = Rmm::default().with_align(Align::Balanced).solve(other_rank()).unwrap().space(2).unwrap();
        assert!(total(&balanced, &other_rank()) < 1e-9);
        assert!(Rmm::default().with_rank(2).is_err() && Rmm::new(Granularity::Product).with_rank(0).is_err());
        assert!(Granularity::parse("row").unwrap_err().to_string().contains("position, layer, product"));
        assert!(Align::parse("svd").unwrap_err().to_string().contains("balanced"));
        let space = Rmm::default().solve(models(2)).unwrap().space(1).unwrap();
        assert!(space.revert(2).is_err() && space.squared_errors(&models(3)).is_err());
        assert!(Rmm::default().solve(models(2)).unwrap().space(3).is_err());
    }
}
