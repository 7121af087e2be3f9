//! One pruning step: `score -> budget -> pattern -> masks`, the same for every scoring method.

use std::ops::Deref;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::mask::budget::{Allocate, Budget, Layer};
use crate::model::evidence::{Evidence, Needs};
use crate::model::masked::{Base, Gradient, apply_masks, attach};
use crate::model::on_device::chosen;
use crate::model::weight::{Select, Weight, weights};
use crate::{Error, Mask, MaskSet, Pattern, Result};

/// One layer as a score sees it.
#[derive(Clone, Copy, Debug)]
pub struct LayerView<'a> {
    /// Its weight.
    pub weight: &'a Weight,
    /// Its index among the layers that are scored together, from 0.
    pub index: usize,
}

impl Deref for LayerView<'_> {
    type Target = Weight;

    fn deref(&self) -> &Weight {
        self.weight
    }
}

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
    /// With it, large layers on a device with its own memory are pruned there, see [`Recipe::prune`].
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

/// How a pruning step turns scores into masks: options that combine freely with any score.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// How the total is distributed over layers.
    pub budget: Arc<dyn Allocate>,
    /// Where zeros may be.
    pub pattern: Pattern,
    /// Which weights are pruned.
    pub select: Select,
    /// What the score and the budget need besides the weights.
    pub evidence: Arc<Evidence>,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            budget: Arc::new(Budget::Global),
            pattern: Pattern::default(),
            select: Select::default(),
            evidence: Arc::default(),
        }
    }
}

impl Recipe {
    /// With another budget: one of [`Budget`] or any other.
    pub fn with_budget(mut self, budget: impl Into<Box<dyn Allocate>>) -> Self {
        self.budget = Arc::from(budget.into());
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

    /// With what [`Recipe::needs`] names, for the weights that will be pruned.
    pub fn with_evidence(mut self, evidence: Evidence) -> Self {
        self.evidence = Arc::new(evidence);
        self
    }

    /// What `score` and the budget need together.
    pub fn needs(&self, score: &(impl Score + ?Sized)) -> Needs {
        score.needs().and(self.budget.needs())
    }

    /// Prunes `model` to `sparsity` by `score`: pruned weights are set to zero. Returns the model with its masks.
    ///
    /// If a model of large layers (on average a million weights each) is on a device with its own memory, such as a
    /// GPU, and the score can be computed there ([`Score::on_device`]), unstructured and N:M masks are chosen there,
    /// identical bit for bit: weights are not copied. Only if several weights of an N:M group are so small (below
    /// 1.2e-38) that the device flushes them to zero may it keep a different one of them.
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

    /// Masks of the weights of `model` at `sparsity` by `score`, computed where [`Recipe::prune`] computes them. A
    /// weight that is pruned already stays pruned.
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
    /// Sparsity outside [0, 1) or below what is pruned already, NaN scores, missing evidence, a pattern that does not
    /// divide a layer or implies another sparsity.
    pub fn masks(&self, weights: &[Weight], score: &dyn Score, sparsity: f64) -> Result<MaskSet> {
        self.masks_of(weights, scores(weights, score, &self.evidence)?, sparsity)
    }

    /// The same from existing scores, one list for each of `weights`.
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
        let named = weights.iter().zip(&scored).map(|(w, scores)| Layer::new(&w.path, &w.shape, scores));
        let layers: Vec<_> = named.enumerate().map(|(i, layer)| layer.with_block(i)).collect();
        let prune = match self.pattern {
            Pattern::NofM { .. } => vec![0; layers.len()],
            _ => self.budget.allocate(&layers, &self.evidence, sparsity)?,
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
    // Whole pieces without an early exit: the compiler vectorizes that.
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
