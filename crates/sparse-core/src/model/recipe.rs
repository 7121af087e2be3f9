//! How scores become masks: `score -> budget -> pattern -> masks`, the same for every scoring method.

use std::sync::Arc;

use rayon::prelude::*;

use crate::mask::budget::{Allocate, Budget, Layer};
use crate::model::evidence::{Evidence, Needs};
use crate::model::score::{Score, scores};
use crate::model::weight::{Select, Weight};
use crate::{Error, Mask, MaskSet, Pattern, Result};

/// How a pruning step turns scores into masks: values that combine freely with any score.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// How the total is shared among layers.
    pub budget: Arc<dyn Allocate>,
    /// Where zeros may stand.
    pub pattern: Pattern,
    /// Which weights take part.
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

    /// With what [`Recipe::needs`] names, about the weights that will be pruned.
    pub fn with_evidence(mut self, evidence: Evidence) -> Self {
        self.evidence = Arc::new(evidence);
        self
    }

    /// What `score` and the budget need together.
    pub fn needs(&self, score: &(impl Score + ?Sized)) -> Needs {
        score.needs().and(self.budget.needs())
    }

    /// Masks of `weights` at `sparsity`. A weight that is pruned already stays pruned.
    ///
    /// # Errors
    /// Sparsity outside [0, 1) or below what is pruned already, NaN scores, evidence that is missing, a pattern that
    /// does not divide a layer or dictates another sparsity.
    pub fn masks(&self, weights: &[Weight], score: &dyn Score, sparsity: f64) -> Result<MaskSet> {
        self.masks_of(weights, scores(weights, score, &self.evidence)?, sparsity)
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
