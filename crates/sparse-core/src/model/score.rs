//! One pruning step: `score -> budget -> pattern -> masks`, the same for every scoring method.

use burn::module::Module;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::mask::budget::{Budget, Layer};
use crate::model::masked::{Base, Gradient, apply_masks, attach};
use crate::model::on_device::chosen;
use crate::model::weight::{Select, Weight, weights};
use crate::{Error, Mask, MaskSet, Pattern, Result};

/// Importance of every weight of a layer: larger = kept. A pruning method by scores is one of these.
pub trait Score: Send + Sync {
    /// The method's name, as on the command line.
    fn name(&self) -> &'static str;

    /// One score per weight of `weight`, in its order. `layer` counts the layers from 0.
    ///
    /// # Errors
    /// If the layer cannot be scored, naming it.
    fn score(&self, weight: &Weight, layer: usize) -> Result<Vec<f32>>;

    /// The scores of values that stay on their device, in whatever order they are there; none, as without this, if
    /// a score takes more than the value itself. They must be those of [`Score::score`] to the last bit: an operation
    /// that every device rounds alike, such as an absolute value.
    ///
    /// With it large layers on a device with a memory of its own are pruned there, see [`Recipe::prune`].
    fn on_device(&self, _values: Tensor<2>) -> Option<Tensor<2>> {
        None
    }
}

/// The absolute values of `weight`, the score that most methods share.
pub fn magnitudes(weight: &Weight) -> Vec<f32> {
    weight.values.par_iter().map(|w| w.abs()).collect()
}

/// How a pruning step turns scores into masks: three values that combine freely with any score.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// How the total is shared among layers.
    pub budget: Budget,
    /// Where zeros may stand.
    pub pattern: Pattern,
    /// Which weights take part.
    pub select: Select,
}

impl Recipe {
    /// With another budget.
    pub fn with_budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// With another pattern.
    pub fn with_pattern(mut self, pattern: Pattern) -> Self {
        self.pattern = pattern;
        self
    }

    /// Over another selection of weights.
    pub fn with_select(mut self, select: Select) -> Self {
        self.select = select;
        self
    }

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
        if let Some(chosen) = chosen(&model, self, score, sparsity) {
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
        match chosen(model, self, score, sparsity) {
            Some(chosen) => Ok(chosen.masks),
            None => self.masks(&weights(model, &self.select)?, score, sparsity),
        }
    }

    /// Masks of `weights` at `sparsity`. A weight that is pruned already stays pruned.
    ///
    /// # Errors
    /// Sparsity outside [0, 1) or below what is pruned already, NaN scores, a pattern that does
    /// not divide a layer or dictates another sparsity.
    pub fn masks(&self, weights: &[Weight], score: &dyn Score, sparsity: f64) -> Result<MaskSet> {
        let scored = weights.par_iter().enumerate().map(|(i, w)| score.score(w, i));
        self.masks_of(weights, scored.collect::<Result<_>>()?, sparsity)
    }

    /// The same from scores that are there already, one list for each of `weights`.
    ///
    /// # Errors
    /// As [`Recipe::masks`].
    pub fn masks_of(&self, weights: &[Weight], scores: Vec<Vec<f32>>, sparsity: f64) -> Result<MaskSet> {
        if let Some(fixed) = self.pattern.fixed_sparsity().filter(|fixed| (fixed - sparsity).abs() > 1e-9) {
            return Err(Error::Argument(format!(
                "the pattern {} means sparsity {fixed}, not {sparsity}",
                self.pattern
            )));
        }
        let scored = weights.par_iter().zip(scores).map(|(weight, scores)| checked(weight, scores));
        let scored = scored.collect::<Result<Vec<_>>>()?;
        let layers: Vec<_> =
            weights.iter().zip(&scored).map(|(w, scores)| Layer { name: &w.path, shape: &w.shape, scores }).collect();
        let prune = match self.pattern {
            Pattern::NofM { .. } => vec![0; layers.len()],
            _ => self.budget.allocate(&layers, sparsity)?,
        };
        let mask = |(weight, (scores, prune)): (&Weight, (&Vec<f32>, usize))| {
            let mask = self
                .pattern
                .mask(&weight.shape, scores, prune)
                .map_err(|e| Error::tensor(&weight.path, e.to_string()))?;
            check_within(weight, &mask)?;
            Ok((weight.path.clone(), mask))
        };
        weights
            .par_iter()
            .zip(scored.par_iter().zip(prune))
            .map(mask)
            .collect::<Result<Vec<_>>>()
            .map(MaskSet::from_iter)
    }
}

/// Scores with minus infinity where `weight` is pruned already.
fn checked(weight: &Weight, mut scores: Vec<f32>) -> Result<Vec<f32>> {
    if scores.len() != weight.values.len() {
        return Err(Error::tensor(
            &weight.path,
            format!("has {} scores for {} weights", scores.len(), weight.values.len()),
        ));
    }
    // Whole pieces without an early exit: that the compiler turns into vector instructions.
    let holds_nan = |piece: &[f32]| piece.iter().fold(false, |found, s| found | s.is_nan());
    if scores.par_chunks(1 << 16).any(holds_nan) {
        let nan = scores.iter().position(|s| s.is_nan()).unwrap_or_default();
        return Err(Error::tensor(&weight.path, format!("the score of weight {nan} is NaN")));
    }
    if let Some(mask) = &weight.mask {
        mask.fill_pruned(&mut scores, f32::NEG_INFINITY);
    }
    Ok(scores)
}

fn check_within(weight: &Weight, mask: &Mask) -> Result<()> {
    match &weight.mask {
        Some(before) if !mask.is_within(before) => Err(Error::tensor(
            &weight.path,
            format!("would keep {} weights, but only {} are left", mask.kept(), before.kept()),
        )),
        _ => Ok(()),
    }
}
