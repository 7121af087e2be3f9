//! A method that prunes one linear layer by the inputs it has seen.

use burn::tensor::{Bool, Device, Tensor};
use serde::{Deserialize, Serialize};

use crate::mask::budget::rounded;
use crate::model::evidence::Evidence;
use crate::model::score::{LayerView, Score};
use crate::model::weight::Weight;
use crate::{Error, Mask, Pattern, Result};

/// A layer's target sparsity, and where zeros may be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerTarget {
    /// The fraction of weights to prune, in [0, 1).
    pub sparsity: f64,
    /// Unstructured or N:M.
    pub pattern: Pattern,
}

impl LayerTarget {
    /// The mask of a layer with these scores, larger kept: `round(sparsity * n)` of all its weights are pruned, or as
    /// many as the pattern requires.
    ///
    /// # Errors
    /// Scores that are NaN, a pattern that does not divide the layer.
    pub fn mask(&self, weight: &Weight, scores: &[f32]) -> Result<Mask> {
        let prune = rounded(self.sparsity, scores.len());
        self.pattern.mask(&weight.shape, scores, prune).map_err(|e| Error::tensor(&weight.path, e.to_string()))
    }
}

/// A layer's new weights.
#[derive(Clone, Debug, PartialEq)]
pub struct PrunedLayer {
    /// The mask of the kept weights.
    pub mask: Mask,
    /// New values, row-major `[d_out, d_in]`, if kept weights change too.
    pub values: Option<Vec<f32>>,
}

/// A method that prunes one linear layer by the inputs it has seen.
pub trait LayerSolver {
    /// Its name, as on the command line.
    fn name(&self) -> &'static str;

    /// Whether it uses inputs at all; if not, blocks are neither loaded nor run.
    fn needs_inputs(&self) -> bool {
        true
    }

    /// Starts to observe an input of `d_in` columns, whose values are on `device`.
    fn observe(&self, d_in: usize, device: &Device) -> Box<dyn InputObserver>;
}

/// The statistics a solver collects of an input.
pub trait InputObserver {
    /// Adds one sequence: its values `[tokens, d_in]`.
    fn add(&mut self, sequence: Tensor<2>);

    /// Prunes a layer that reads this input.
    ///
    /// # Errors
    /// Weights or inputs that are not finite, a pattern that does not divide a row.
    fn solve(&self, weight: &Weight, goal: &LayerTarget) -> Result<PrunedLayer>;

    /// What [`InputObserver::solve`] keeps of a layer whose weight stays on its device, true where kept. Returns
    /// `None`, as by default, if it also changes values or must solve on the CPU. The result must match to the last
    /// bit: [`Scores`](crate::mask::top_k::Scores) helps.
    ///
    /// `values` are the weight's, all finite; `outputs` is their output dimension.
    fn kept_on_device(&self, _values: &Tensor<2>, _outputs: usize, _goal: &LayerTarget) -> Option<Tensor<2, Bool>> {
        None
    }
}

/// A score that uses weights alone, as a layer solver: each layer by itself.
#[derive(Clone, Debug)]
pub struct DataFree<S>(pub S);

impl<S: Score + Clone + 'static> LayerSolver for DataFree<S> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn needs_inputs(&self) -> bool {
        false
    }

    fn observe(&self, _d_in: usize, _device: &Device) -> Box<dyn InputObserver> {
        Box::new(self.clone())
    }
}

impl<S: Score + Clone + 'static> InputObserver for DataFree<S> {
    fn add(&mut self, _sequence: Tensor<2>) {}

    fn solve(&self, weight: &Weight, goal: &LayerTarget) -> Result<PrunedLayer> {
        let scores = self.0.score(&LayerView { weight, index: 0 }, &Evidence::NONE)?;
        let mask = goal.mask(weight, &scores)?;
        Ok(PrunedLayer { mask, values: None })
    }
}
