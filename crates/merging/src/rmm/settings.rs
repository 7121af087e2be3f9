//! What RMM may be told: granularity, alignment, amount.

use std::fmt;

use regrow_sparse_core::{Error, Result};

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
