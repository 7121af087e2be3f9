//! Settings of RMM: granularity, alignment, and how many basis models.

use std::fmt;

use burn::config::Config;
use regrow_sparse_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::Rmm;
use crate::params::{MergeParams, choice};

/// Settings of [`Rmm`].
#[derive(Config, Debug, PartialEq, Eq)]
pub struct RmmConfig {
    /// Which vectors share coefficients.
    #[config(default = "Granularity::Position")]
    pub granularity: Granularity,
    /// How factors are aligned before they are stacked.
    #[config(default = "Align::None")]
    pub align: Align,
    /// Whether the mean is the first basis model.
    #[config(default = false)]
    pub centred: bool,
    /// Whether every task's vectors are scaled to the same norm first, layer by layer. A task of small differences then
    /// counts as much as one of large ones. Norms become part of the coefficients. Not together with `centred`.
    #[config(default = false)]
    pub normalize: bool,
    /// The rank to which the basis models of [`Granularity::Product`] are truncated.
    pub rank: Option<usize>,
}

impl RmmConfig {
    /// The method.
    ///
    /// # Errors
    /// Both centred and normalized; a rank of zero, or a rank with a granularity other than by product.
    pub fn init(&self) -> Result<Rmm> {
        let Self { granularity, align, centred, normalize, rank } = *self;
        if centred && normalize {
            return Err(Error::Argument("models are either centred or normalized, not both".into()));
        }
        match (rank, granularity) {
            (Some(0), _) => Err(Error::Argument("basis models of rank 0 hold nothing".into())),
            (None, _) | (_, Granularity::Product) => {
                Ok(Rmm { granularity, align, centred, normalized: normalize, rank })
            }
            (_, other) => {
                Err(Error::Argument(format!("only a basis by product is truncated to a rank, not one by {other}")))
            }
        }
    }

    /// From the registry's parameters.
    ///
    /// # Errors
    /// Parameters that are missing or of another kind.
    pub fn from_params(params: &MergeParams) -> Result<Self> {
        Ok(Self {
            granularity: params.choice("granularity", &GRANULARITIES)?,
            align: params.choice("align", &ALIGNMENTS)?,
            centred: params.flag("centred")?,
            normalize: params.flag("normalize")?,
            rank: params.optional("rank")?,
        })
    }
}

/// Which vectors share coefficients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// The rows at one position of the left factors, the columns at one position of the right.
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

/// How factors are aligned before they are stacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Align {
    /// Unchanged.
    #[default]
    None,
    /// `U sqrt(S)` and `sqrt(S) V^T` of each product's SVD, the largest entry of a column of `U` positive.
    Balanced,
    /// Balanced, then rotated towards the balanced factors of the tasks' mean (orthogonal Procrustes).
    Procrustes,
}

/// Every alignment by name.
pub const ALIGNMENTS: [(&str, Align); 3] =
    [("none", Align::None), ("balanced", Align::Balanced), ("procrustes", Align::Procrustes)];

/// How many basis models to keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BasisBudget {
    /// This many, including the mean of a centred merge.
    Basis(usize),
    /// As many as take at most this share of the values of all models.
    Storage(f64),
    /// The fewest with at most this relative error of all differences together (Frobenius).
    Error(f64),
}

impl BasisBudget {
    /// From the registry's parameters `basis`, `storage` and `error`, of which one may be given; 2 basis models if none
    /// is.
    ///
    /// # Errors
    /// Several of them, a value that is not a number.
    pub fn from_params(params: &MergeParams) -> Result<Self> {
        let basis = params.optional("basis")?.map(Self::Basis);
        let storage = params.optional("storage")?.map(Self::Storage);
        let error = params.optional("error")?.map(Self::Error);
        let given: Vec<(&str, Self)> = [("basis", basis), ("storage", storage), ("error", error)]
            .into_iter()
            .filter_map(|(name, budget)| Some((name, budget?)))
            .collect();
        match given[..] {
            [] => Ok(Self::Basis(2)),
            [(_, budget)] => Ok(budget),
            _ => {
                let names = given.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" and ");
                Err(Error::Argument(format!("{names} say the same thing: choose one")))
            }
        }
    }
}

impl Granularity {
    /// The granularity with that name.
    ///
    /// # Errors
    /// If there is none; the message lists the known names.
    pub fn parse(name: &str) -> Result<Self> {
        choice("granularity", name, &GRANULARITIES)
    }
}

impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(GRANULARITIES.iter().find(|(_, g)| g == self).map_or("", |(name, _)| name))
    }
}

impl Align {
    /// The alignment with that name.
    ///
    /// # Errors
    /// If there is none; the message lists the known names.
    pub fn parse(name: &str) -> Result<Self> {
        choice("alignment", name, &ALIGNMENTS)
    }
}

impl fmt::Display for Align {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALIGNMENTS.iter().find(|(_, a)| a == self).map_or("", |(name, _)| name))
    }
}
