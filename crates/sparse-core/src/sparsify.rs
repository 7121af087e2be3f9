//! A pruner beside a training loop: the same object behind a user's own loop, burn-train and ours.

use burn::module::Module;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer, Optimizer};

use crate::masked::{Base, Gradient, apply_masks};
use crate::optimizer::{OptimizerMasks, masked_optimizer};
use crate::weight::{Select, Weight, weights};
use crate::{MaskSet, Result};

/// What a training-time pruner decides: whether new masks are due after a step, and which.
pub trait Pruner: Send + 'static {
    /// The masks to put on the model after optimizer step `step` (counted from 0); `None` to leave
    /// them. `weights` reads the model's prunable weights and is only called when needed.
    ///
    /// # Errors
    /// If the masks cannot be chosen.
    fn update(&mut self, step: usize, weights: &mut dyn FnMut() -> Result<Vec<Weight>>) -> Result<Option<MaskSet>>;

    /// Which parameters it may prune.
    fn select(&self) -> Select {
        Select::default()
    }

    /// The gradient that pruned weights receive.
    fn gradient(&self) -> Gradient {
        Gradient::Masked
    }

    /// What becomes of the base of a pruned weight.
    fn base(&self) -> Base {
        Base::Zeroed
    }
}

/// No pruning: whatever masks the model carries stay as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepMasks;

impl Pruner for KeepMasks {
    fn update(&mut self, _step: usize, _weights: &mut dyn FnMut() -> Result<Vec<Weight>>) -> Result<Option<MaskSet>> {
        Ok(None)
    }

    fn select(&self) -> Select {
        crate::masked::everything()
    }
}

/// A pruner at work on one model: call [`Sparsifier::after_step`] after every optimizer step.
pub struct Sparsifier {
    pruner: Box<dyn Pruner>,
    masks: OptimizerMasks,
    step: usize,
}

impl Sparsifier {
    /// A sparsifier and the optimizer to train `model` with: `optimizer`, kept zero under the
    /// masks. Masks that the model carries already hold from the first step.
    ///
    /// # Errors
    /// If the masks that the model carries cannot be read.
    pub fn new<M: Module, O: Optimizer>(
        pruner: impl Pruner,
        optimizer: O,
        model: &M,
    ) -> Result<(Self, ModuleOptimizer)> {
        let (optimizer, masks) = masked_optimizer(model, &pruner.select(), optimizer, pruner.gradient());
        let present = crate::masked::masks(model)?;
        if !present.is_empty() && pruner.base() == Base::Zeroed {
            masks.set(model, &present)?;
        }
        Ok((Self { pruner: Box::new(pruner), masks, step: 0 }, optimizer))
    }

    /// Continues at `step`, after a resume.
    pub fn at_step(mut self, step: usize) -> Self {
        self.step = step;
        self
    }

    /// Counts one optimizer step and puts new masks on `model` if they are due.
    ///
    /// # Errors
    /// If the pruner cannot choose masks.
    pub fn after_step<M: Module>(&mut self, model: M) -> Result<M> {
        let select = self.pruner.select();
        let due = self.pruner.update(self.step, &mut || weights(&model, &select))?;
        self.step += 1;
        let Some(new) = due else { return Ok(model) };
        tracing::debug!(step = self.step, sparsity = new.sparsity(), "new masks");
        if self.pruner.base() == Base::Zeroed {
            self.masks.set(&model, &new)?;
        }
        apply_masks(model, &new, self.pruner.gradient(), self.pruner.base())
    }
}

/// A sparsifier and its optimizer in one, for a training loop of one's own: it steps as Burn's
/// `ModuleOptimizer` does.
pub struct PruningOptimizer {
    sparsifier: Sparsifier,
    /// The optimizer inside, for its record or gradient clipping.
    pub optimizer: ModuleOptimizer,
}

impl PruningOptimizer {
    /// Wraps `optimizer` (as `SgdConfig::new().build()` makes it) for `model`.
    ///
    /// # Errors
    /// If masks that the model carries cannot be read.
    pub fn new<M: Module, O: Optimizer>(pruner: impl Pruner, optimizer: O, model: &M) -> Result<Self> {
        let (sparsifier, optimizer) = Sparsifier::new(pruner, optimizer, model)?;
        Ok(Self { sparsifier, optimizer })
    }

    /// One optimizer step; then new masks, if they are due.
    ///
    /// # Errors
    /// If the pruner cannot choose masks.
    pub fn step<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        grads: GradientsParams,
    ) -> Result<M> {
        let model = self.optimizer.step(lr, model, grads);
        self.sparsifier.after_step(model)
    }
}
