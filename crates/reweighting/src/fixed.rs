//! Constant weights of sources: uniform, by size, or given.

use regrow_sparse_core::Result;
use regrow_sparse_core::registry::{MethodInfo, Param, Params, Range};

use crate::{PairedLoss, SourceWeighter, normalized};

/// The registry's entry of equal weights.
pub const UNIFORM: MethodInfo = MethodInfo {
    kind: "weighter",
    name: "uniform-sources",
    summary: "every source weighs the same",
    paper: "baseline",
    needs: "data sources",
    params: &[crate::registry::SOURCES],
};

/// The registry's entry of weights by size.
pub const PROPORTIONAL: MethodInfo = MethodInfo {
    kind: "weighter",
    name: "proportional",
    summary: "every source weighs as many examples as it has",
    paper: "baseline",
    needs: "data sources",
    params: &[Param {
        name: "sizes",
        meaning: "examples of each source, as 200:50:7",
        default: "",
        range: Range::Text,
    }],
};

/// The registry's entry of custom weights.
pub const GIVEN: MethodInfo = MethodInfo {
    kind: "weighter",
    name: "given",
    summary: "weights of one's own, made to sum to 1",
    paper: "baseline",
    needs: "data sources",
    params: &[Param {
        name: "weights",
        meaning: "weight of each source, as 0.5:0.3:0.2",
        default: "",
        range: Range::Text,
    }],
};

/// The numbers of a parameter, separated by colons.
fn list<T: std::str::FromStr>(info: &MethodInfo, params: &Params, name: &str) -> Result<Vec<T>> {
    let text = params.text(name)?;
    let range = "numbers separated by colons".to_string();
    let bad = || regrow_sparse_core::Error::InvalidParameter {
        method: info.name.into(),
        parameter: name.into(),
        value: text.clone(),
        range: range.clone(),
    };
    text.split(':').map(|part| part.trim().parse().map_err(|_| bad())).collect()
}

/// Weights for the registry's entry [`PROPORTIONAL`].
pub(crate) fn proportional(params: &Params) -> Result<FixedWeights> {
    FixedWeights::proportional(&list(&PROPORTIONAL, params, "sizes")?)
}

/// Weights for the registry's entry [`GIVEN`].
pub(crate) fn given(params: &Params) -> Result<FixedWeights> {
    FixedWeights::given(&list::<f64>(&GIVEN, params, "weights")?)
}

/// Constant weights: uniform, proportional to sizes, or any given.
#[derive(Clone, Debug)]
pub struct FixedWeights(Vec<f64>);

impl FixedWeights {
    /// All the same.
    ///
    /// # Errors
    /// No source.
    pub fn uniform(sources: usize) -> Result<Self> {
        normalized(&vec![1.0; sources]).map(Self)
    }

    /// Proportional to the size of each.
    ///
    /// # Errors
    /// No source, or all empty.
    pub fn proportional(sizes: &[usize]) -> Result<Self> {
        normalized(&sizes.iter().map(|n| *n as f64).collect::<Vec<_>>()).map(Self)
    }

    /// The given weights, normalized to sum to 1.
    ///
    /// # Errors
    /// If one is negative or not finite, or all are zero.
    pub fn given(weights: &[f64]) -> Result<Self> {
        normalized(weights).map(Self)
    }
}

impl SourceWeighter for FixedWeights {
    fn weights(&self) -> &[f64] {
        &self.0
    }

    fn update(&mut self, _losses: &[Option<PairedLoss>]) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use regrow_testing::assert_close;

    use super::*;

    #[test]
    fn weights_sum_to_one() {
        assert!(FixedWeights::given(&[0.0, 0.0]).is_err() && FixedWeights::uniform(0).is_err());
        assert_close(FixedWeights::proportional(&[1, 3]).unwrap().weights(), &[0.25, 0.75], 0.0);
        assert!(given(&Params::new(0).set("weights", "1:x")).is_err());
        assert_close(given(&Params::new(0).set("weights", "1:3")).unwrap().weights(), &[0.25, 0.75], 0.0);
    }
}
