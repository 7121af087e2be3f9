//! Learning without forgetting (Li & Hoiem, arXiv 1606.09282): on the new task's data the network must
//! go on saying of old classes what it said before.
//!
//! ```text
//! L = CE + alpha KD          KD: distillation from the network before the task, temperature T
//! ```
//!
//! The task-incremental scenario has one `KD` for the logits of each old task, as the paper; the
//! class-incremental one a single `KD` over all old classes (as the library mammoth), the
//! domain-incremental one over all logits. The paper's answers are recorded before the task; here the
//! old network is asked, which is the same without augmentation. There is no warm-up of the new logits.

use std::ops::Range;

use burn::tensor::Tensor;
use regrow_sparse_core::Result;
use regrow_sparse_core::classifier::Headed;

use crate::distill::{distillation, factor, temperature};
use crate::strategy::{Stage, Strategy};
use crate::stream::{Example, Scenario};

/// Learning without forgetting.
#[derive(Clone, Debug)]
pub struct Lwf<M> {
    alpha: f64,
    temperature: f64,
    old: Option<M>,
}

impl<M> Lwf<M> {
    /// With weight `alpha` of the distillation (the paper: 1) and its temperature (the paper: 2).
    ///
    /// # Errors
    /// If `alpha` is negative or the temperature not above zero.
    pub fn new(alpha: f64, temperature: f64) -> Result<Self> {
        let alpha = factor(alpha, "weight of the distillation (alpha)")?;
        Ok(Self { alpha, temperature: self::temperature(temperature)?, old: None })
    }
}

/// Groups of logits that are distilled together.
fn groups(at: &Stage<'_>) -> Vec<Range<usize>> {
    match at.stream.scenario() {
        Scenario::Task => (0..at.task).map(|task| at.stream.classes_of(task)).collect(),
        Scenario::Class => vec![at.stream.seen(at.task - 1)],
        Scenario::Domain => std::iter::once(0..at.stream.classes()).collect(),
    }
}

impl<M: Headed> Strategy<M> for Lwf<M> {
    fn begin(&mut self, model: M, at: &Stage<'_>) -> Result<M> {
        self.old = (at.task > 0).then(|| model.valid());
        Ok(model)
    }

    fn losses(&mut self, model: &M, batch: &[Example], at: &Stage<'_>) -> Result<Tensor<1>> {
        let images = at.images(batch);
        let logits = model.logits(images.clone());
        let mut losses = at.cross_entropy(logits.clone(), batch);
        if let Some(old) = &self.old {
            let said = old.logits(images.inner());
            for group in groups(at) {
                losses = losses + distillation(said.clone(), logits.clone(), group, self.temperature) * self.alpha;
            }
        }
        Ok(losses)
    }

    fn added(&self) -> usize {
        self.old.as_ref().map_or(0, |old| old.num_params())
    }
}
