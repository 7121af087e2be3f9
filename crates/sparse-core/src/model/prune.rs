//! One pruning step of a Burn model: on the model's device where that is possible, else by the processor.

use burn::module::Module;

use crate::model::masked::{Base, Gradient, apply_masks, attach};
use crate::model::on_device::masks_on_device;
use crate::model::recipe::Recipe;
use crate::model::score::Score;
use crate::model::weight::weights;
use crate::{MaskSet, Result};

impl Recipe {
    /// Prunes `model` to `sparsity` by `score`: what is pruned is set to zero. Returns it with its
    /// masks.
    ///
    /// Where a model of large layers (a million weights each, in the mean) is on a device with a memory of its own,
    /// such as a GPU, and a score can be had there ([`Score::on_device`]), unstructured and N:M masks are chosen there,
    /// the same ones bit for bit: weights do not travel. Only should several weights of a group of N:M be so small
    /// (below 1.2e-38) that a device takes them for zero might it keep another one of them.
    ///
    /// # Errors
    /// As [`Recipe::masks`]; also if the model has no weight to prune, or one that is not finite.
    pub fn prune<M: Module>(&self, model: M, score: &dyn Score, sparsity: f64) -> Result<(M, MaskSet)> {
        if let Some(chosen) = masks_on_device(&model, self, score, sparsity) {
            return Ok((attach(model, &chosen.pruned, Gradient::Masked, Base::Zeroed), chosen.masks));
        }
        let masks = self.masks(&weights(&model, &self.select)?, score, sparsity)?;
        Ok((apply_masks(model, &masks, Gradient::Masked, Base::Zeroed)?, masks))
    }

    /// Masks of the weights of `model` at `sparsity` by `score`, chosen where [`Recipe::prune`] chooses them. A weight
    /// that is pruned already stays pruned.
    ///
    /// # Errors
    /// As [`Recipe::prune`].
    pub fn masks_in<M: Module>(&self, model: &M, score: &dyn Score, sparsity: f64) -> Result<MaskSet> {
        match masks_on_device(model, self, score, sparsity) {
            Some(chosen) => Ok(chosen.masks),
            None => self.masks(&weights(model, &self.select)?, score, sparsity),
        }
    }
}
