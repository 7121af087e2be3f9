//! How important each weight of a layer is: what a pruning method by scores says.

use std::sync::Arc;

use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::Result;
pub use crate::model::evidence::LayerView;
use crate::model::evidence::{Evidence, Needs};
use crate::model::weight::Weight;

/// Importance of every weight of a layer: larger = kept. A score-based pruning method implements this.
///
/// It works with every budget, pattern and schedule, after, before and during training.
pub trait Score: Send + Sync {
    /// The method's name, as on the command line.
    fn name(&self) -> &'static str;

    /// What it uses besides the weights: exactly that is provided.
    fn needs(&self) -> Needs {
        Needs::NONE
    }

    /// One score per weight of `layer`, in its order.
    ///
    /// # Errors
    /// If the layer cannot be scored, naming it.
    fn score(&self, layer: &LayerView<'_>, evidence: &Evidence) -> Result<Vec<f32>>;

    /// Brings the scores of all layers to a common scale; does nothing by default.
    fn normalize(&self, _scores: &mut [Vec<f32>]) {}

    /// The scores of values that stay on their device, in any order; `None`, as by default, if a score needs more than
    /// the value itself. They must equal those of [`Score::score`] to the last bit: use operations that every device
    /// rounds alike, such as an absolute value.
    ///
    /// With it, large layers on a device with its own memory are pruned there, see [`Recipe::prune`](crate::model::recipe::Recipe::prune).
    fn on_device(&self, _values: Tensor<2>) -> Option<Tensor<2>> {
        None
    }
}

/// A score behind a pointer is a score.
macro_rules! pointed {
    ($($pointer:ty),*) => {$(
        impl<S: Score + ?Sized> Score for $pointer {
            fn name(&self) -> &'static str {
                (**self).name()
            }

            fn needs(&self) -> Needs {
                (**self).needs()
            }

            fn score(&self, layer: &LayerView<'_>, evidence: &Evidence) -> Result<Vec<f32>> {
                (**self).score(layer, evidence)
            }

            fn normalize(&self, scores: &mut [Vec<f32>]) {
                (**self).normalize(scores);
            }

            fn on_device(&self, values: Tensor<2>) -> Option<Tensor<2>> {
                (**self).on_device(values)
            }
        }
    )*};
}

pointed!(Box<S>, Arc<S>, &S);

/// The scores of all `weights` by `score`, one list for each.
///
/// # Errors
/// If a layer cannot be scored, naming it.
pub fn scores(weights: &[Weight], score: &(impl Score + ?Sized), evidence: &Evidence) -> Result<Vec<Vec<f32>>> {
    let views = weights.par_iter().enumerate().map(|(index, weight)| LayerView { weight, index });
    let mut all = views.map(|layer| score.score(&layer, evidence)).collect::<Result<Vec<_>>>()?;
    score.normalize(&mut all);
    Ok(all)
}

/// The absolute values of `weight`, the score that most methods share.
pub fn magnitudes(weight: &Weight) -> Vec<f32> {
    weight.values.par_iter().map(|w| w.abs()).collect()
}
