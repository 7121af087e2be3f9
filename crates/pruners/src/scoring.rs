//! Shared by training-time pruners: masks by any score, from a view.

use regrow_sparse_core::model::recipe::Recipe;
use regrow_sparse_core::model::score::Score;
use regrow_sparse_core::model::sparsify::View;
use regrow_sparse_core::model::weight::Weight;
use regrow_sparse_core::{MaskSet, Result};

/// The masks of `weights`, which are of `view`, by `score` at `sparsity`; the view provides the evidence.
pub(crate) fn masks(
    view: &mut dyn View,
    recipe: &Recipe,
    score: &dyn Score,
    weights: &[Weight],
    sparsity: f64,
) -> Result<MaskSet> {
    let evidence = view.evidence(&recipe.needs(score))?;
    recipe.clone().with_evidence(evidence).masks(weights, score, sparsity)
}

/// The stored weights of `view` without their masks: all can be chosen again.
pub(crate) fn unmasked(view: &mut dyn View) -> Result<Vec<Weight>> {
    Ok(view.stored()?.into_iter().map(Weight::unmasked).collect())
}
