//! A pruner beside a training loop: the same object behind a user's own loop, burn-train and ours.

use burn::module::Module;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer, Optimizer};

use crate::model::masked::{Gradient, apply_masks, scale_under, set_gradient};
use crate::model::optimizer::{OptimizerMasks, Under, masked_optimizer};
use crate::model::score::{Recipe, Score};
use crate::model::weight::{Select, Weight, gradients, stored, weights};
use crate::{Error, MaskSet, Result};

/// What a pruner may look at after an optimizer step; nothing is read before it is asked for.
pub trait View {
    /// The prunable weights: effective values (zero where masked) and masks.
    ///
    /// # Errors
    /// If there is none, or a value is not finite.
    fn weights(&mut self) -> Result<Vec<Weight>>;

    /// The same with the stored values, those under masks included.
    ///
    /// # Errors
    /// As [`View::weights`].
    fn stored(&mut self) -> Result<Vec<Weight>>;

    /// The masks of the prunable weights by `score`, see [`Recipe::masks_in`]: large weights need not leave their device
    /// for them.
    ///
    /// # Errors
    /// As [`View::weights`] and [`Recipe::masks`].
    fn masks(&mut self, recipe: &Recipe, score: &dyn Score, sparsity: f64) -> Result<MaskSet> {
        recipe.masks(&self.weights()?, score, sparsity)
    }

    /// The gradients of this step's batch, one list for each weight, in the same order. Pruned
    /// weights have theirs if the pruner's [`Pruner::gradient`] is dense.
    ///
    /// # Errors
    /// If the pruner does not watch this step, or a gradient is missing or not finite.
    fn gradients(&mut self) -> Result<Vec<Vec<f32>>>;
}

/// What a pruner decides after a step.
#[derive(Clone, Debug)]
pub enum Change {
    /// Nothing.
    None,
    /// These masks replace those on the model.
    Masks(MaskSet),
    /// First everything that `cleared` prunes is set to zero, weights and optimizer state; then
    /// `masks` replace those on the model. What both concern comes back at zero.
    Regrown {
        /// What goes to zero first.
        cleared: MaskSet,
        /// The masks that stay.
        masks: MaskSet,
    },
    /// The stored values that these masks prune are multiplied by the factor; nothing is masked.
    Scale(MaskSet, f32),
}

impl From<Option<MaskSet>> for Change {
    fn from(masks: Option<MaskSet>) -> Self {
        masks.map_or(Self::None, Self::Masks)
    }
}

/// A training-time method: what changes after which step.
pub trait Pruner: Send + 'static {
    /// What to change after optimizer step `step` (counted from 0).
    ///
    /// # Errors
    /// If that cannot be decided.
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change>;

    /// Whether the gradients of step `step` will be asked for.
    fn watches(&self, _step: usize) -> bool {
        false
    }

    /// Whether step `step` belongs to the pruner: the optimizer leaves it out, its gradients may be
    /// asked for.
    fn takes(&self, _step: usize) -> bool {
        false
    }

    /// What it has learned so far, for a run to be resumed; nothing if masks and step say it all.
    fn state(&self) -> Vec<Vec<f32>> {
        Vec::new()
    }

    /// Takes back what [`Pruner::state`] gave.
    fn restore(&mut self, _state: Vec<Vec<f32>>) {}

    /// Which parameters it may prune.
    fn select(&self) -> Select {
        Select::default()
    }

    /// The gradient that pruned weights receive.
    fn gradient(&self) -> Gradient {
        Gradient::Masked
    }

    /// What the optimizer does to pruned weights.
    fn under(&self) -> Under {
        Under::Zero
    }
}

impl Pruner for Box<dyn Pruner> {
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change> {
        (**self).update(step, view)
    }

    fn watches(&self, step: usize) -> bool {
        (**self).watches(step)
    }

    fn takes(&self, step: usize) -> bool {
        (**self).takes(step)
    }

    fn state(&self) -> Vec<Vec<f32>> {
        (**self).state()
    }

    fn restore(&mut self, state: Vec<Vec<f32>>) {
        (**self).restore(state);
    }

    fn select(&self) -> Select {
        (**self).select()
    }

    fn gradient(&self) -> Gradient {
        (**self).gradient()
    }

    fn under(&self) -> Under {
        (**self).under()
    }
}

/// No pruning: whatever masks the model carries stay as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepMasks;

impl Pruner for KeepMasks {
    fn update(&mut self, _step: usize, _view: &mut dyn View) -> Result<Change> {
        Ok(Change::None)
    }

    fn select(&self) -> Select {
        crate::model::masked::everything()
    }
}

/// A pruner at work on one model: [`Sparsifier::before_step`] before every optimizer step,
/// [`Sparsifier::after_step`] after it.
pub struct Sparsifier {
    pruner: Box<dyn Pruner>,
    masks: OptimizerMasks,
    gradients: Option<Vec<Vec<f32>>>,
    fresh: bool,
    step: usize,
}

impl Sparsifier {
    /// A sparsifier and the optimizer to train `model` with: `optimizer`, which treats pruned
    /// weights as the pruner wants. Masks that the model carries already hold from the first step.
    ///
    /// # Errors
    /// If the masks that the model carries cannot be read.
    pub fn new<M: Module, O: Optimizer>(
        pruner: impl Pruner,
        optimizer: O,
        model: &M,
    ) -> Result<(Self, ModuleOptimizer)> {
        let (optimizer, masks) =
            masked_optimizer(model, &pruner.select(), optimizer, pruner.gradient(), pruner.under());
        let present = crate::model::masked::masks(model)?;
        if !present.is_empty() {
            masks.set(model, &present)?;
        }
        Ok((Self { pruner: Box::new(pruner), masks, gradients: None, fresh: true, step: 0 }, optimizer))
    }

    /// Continues at `step`, after a resume, with what was [pending](Sparsifier::pending) there and
    /// the pruner's [state](Sparsifier::state).
    ///
    /// # Errors
    /// If `pending` belongs to another model.
    pub fn at_step<M: Module>(
        mut self,
        step: usize,
        pending: &MaskSet,
        state: Vec<Vec<f32>>,
        model: &M,
    ) -> Result<Self> {
        self.step = step;
        self.pruner.restore(state);
        if !pending.is_empty() {
            self.masks.set(model, pending)?;
            self.masks.set(model, &crate::model::masked::masks(model)?)?;
        }
        Ok(self)
    }

    /// What the next optimizer step will zero, to be saved with the model and the optimizer.
    pub fn pending(&self) -> MaskSet {
        self.masks.pending()
    }

    /// Reads the gradients of the step to come, if the pruner wants them.
    ///
    /// # Errors
    /// If a gradient is missing or not finite, naming the weight.
    pub fn before_step<M: Module>(&mut self, model: &M, grads: &GradientsParams) -> Result<()> {
        self.gradients = match self.pruner.watches(self.step) || self.takes_step() {
            true => Some(gradients(model, &self.pruner.select(), grads)?),
            false => None,
        };
        Ok(())
    }

    /// Whether the step to come is the pruner's own, to be left out by the optimizer.
    pub fn takes_step(&self) -> bool {
        self.pruner.takes(self.step)
    }

    /// What the pruner has learned, see [`Pruner::state`].
    pub fn state(&self) -> Vec<Vec<f32>> {
        self.pruner.state()
    }

    /// Counts one optimizer step and changes `model` as the pruner decides.
    ///
    /// # Errors
    /// If the pruner cannot decide.
    pub fn after_step<M: Module>(&mut self, model: M) -> Result<M> {
        let gradients = self.gradients.take();
        let mut view = Looking { model: &model, select: self.pruner.select(), gradients };
        let change = self.pruner.update(self.step, &mut view)?;
        self.step += 1;
        let model = match std::mem::take(&mut self.fresh) {
            // Masks from before this pruner may have another form of gradient.
            true => set_gradient(model, self.pruner.gradient(), &|_| true),
            false => model,
        };
        match change {
            Change::None => Ok(model),
            Change::Scale(masks, factor) => scale_under(model, &masks, factor),
            Change::Masks(masks) => self.put_on(model, &masks),
            Change::Regrown { cleared, masks } => {
                self.masks.set(&model, &cleared)?;
                let model = scale_under(model, &cleared, 0.0)?;
                self.put_on(model, &masks)
            }
        }
    }

    fn put_on<M: Module>(&self, model: M, masks: &MaskSet) -> Result<M> {
        tracing::debug!(step = self.step, sparsity = masks.sparsity(), "new masks");
        self.masks.set(&model, masks)?;
        apply_masks(model, masks, self.pruner.gradient(), self.pruner.under().base())
    }
}

/// A model between two steps, as its pruner sees it.
struct Looking<'a, M> {
    model: &'a M,
    select: Select,
    gradients: Option<Vec<Vec<f32>>>,
}

impl<M: Module> View for Looking<'_, M> {
    fn weights(&mut self) -> Result<Vec<Weight>> {
        weights(self.model, &self.select)
    }

    fn stored(&mut self) -> Result<Vec<Weight>> {
        stored(self.model, &self.select)
    }

    fn masks(&mut self, recipe: &Recipe, score: &dyn Score, sparsity: f64) -> Result<MaskSet> {
        recipe.clone().with_select(self.select.clone()).masks_in(self.model, score, sparsity)
    }

    fn gradients(&mut self) -> Result<Vec<Vec<f32>>> {
        let missing = "the gradients of this step were not kept: the pruner's `watches` must ask for them";
        self.gradients.take().ok_or_else(|| Error::Argument(missing.into()))
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

    /// One optimizer step; then whatever the pruner changes.
    ///
    /// # Errors
    /// If the pruner cannot decide, or a gradient that it needs is not finite.
    pub fn step<M: Module>(
        &mut self,
        lr: impl Into<ModuleLearningRate>,
        model: M,
        grads: GradientsParams,
    ) -> Result<M> {
        self.sparsifier.before_step(&model, &grads)?;
        let model = match self.sparsifier.takes_step() {
            true => model,
            false => self.optimizer.step(lr, model, grads),
        };
        self.sparsifier.after_step(model)
    }
}
