//! A pruner for a training loop: the same object works in a user's own loop, in burn-train and in ours.

use burn::module::Module;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer, Optimizer};

use crate::model::evidence::{Evidence, Needs};
use crate::model::masked::{Gradient, apply_masks, scale_under, set_gradient};
use crate::model::optimizer::{OptimizerMasks, PrunedWeightUpdate, masked_optimizer};
use crate::model::probe::Probe;
use crate::model::recipe::Recipe;
use crate::model::score::Score;
use crate::model::weight::{Select, Weight, gradients, stored, weights};
use crate::state::State;
use crate::{Error, MaskSet, Result};

/// What a pruner may read after an optimizer step; nothing is read before it is requested.
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

    /// The masks of the prunable weights by `score`, see [`Recipe::masks_in`]: large weights need not leave their
    /// device.
    ///
    /// # Errors
    /// As [`View::weights`] and [`Recipe::masks`].
    fn masks(&mut self, recipe: &Recipe, score: &dyn Score, sparsity: f64) -> Result<MaskSet> {
        let recipe = recipe.clone().with_evidence(self.evidence(&recipe.needs(score))?);
        recipe.masks(&self.weights()?, score, sparsity)
    }

    /// The gradients of this step's batch, one list for each weight, in the same order. Pruned weights have gradients
    /// if the pruner's [`Pruner::gradient`] is dense.
    ///
    /// # Errors
    /// If the pruner does not request them in this step ([`Pruner::needs_gradients`]), or one is missing or not finite.
    fn gradients(&mut self) -> Result<Vec<Vec<f32>>>;

    /// What `needs` names for the prunable weights: the gradients of this step's batch, and what the user's probe
    /// provides.
    ///
    /// # Errors
    /// As [`View::gradients`], or if no probe provides it.
    fn evidence(&mut self, needs: &Needs) -> Result<Evidence> {
        let others = needs.clone().without_gradients();
        others.check(&Needs::NONE, "the pruner")?;
        let evidence = Evidence::default();
        Ok(if needs.gradients { evidence.with_gradients(self.gradients()?) } else { evidence })
    }
}

/// A pruner's decision after a step.
#[derive(Clone, Debug)]
pub enum Change {
    /// Nothing.
    None,
    /// These masks replace those on the model.
    Masks(MaskSet),
    /// First everything that `cleared` prunes is set to zero, weights and optimizer state; then `masks` replace those
    /// on the model. Weights in both grow back at zero.
    Regrown {
        /// What is set to zero first.
        cleared: MaskSet,
        /// The final masks.
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
    /// If the change cannot be decided.
    fn update(&mut self, step: usize, view: &mut dyn View) -> Result<Change>;

    /// The evidence that its score and its budget need. The gradients of the loss are those of the steps for which
    /// [`Pruner::needs_gradients`] is true; everything else must come from the user's probe.
    fn needs(&self) -> Needs {
        Needs::NONE
    }

    /// Whether the gradients of step `step` are needed.
    fn needs_gradients(&self, _step: usize) -> bool {
        false
    }

    /// Whether step `step` belongs to the pruner: the optimizer skips it; its gradients can be requested.
    fn replaces_optimizer_step(&self, _step: usize) -> bool {
        false
    }

    /// What it has learned so far, to resume a run; empty if masks and step are enough.
    fn state(&self) -> State {
        State::default()
    }

    /// Restores what [`Pruner::state`] returned.
    ///
    /// # Errors
    /// If it comes from another method.
    fn restore(&mut self, _state: State) -> Result<()> {
        Ok(())
    }

    /// Which parameters it may prune.
    fn select(&self) -> Select {
        Select::default()
    }

    /// The gradient that pruned weights receive.
    fn gradient(&self) -> Gradient {
        Gradient::Masked
    }

    /// What the optimizer does to pruned weights.
    fn pruned_weight_update(&self) -> PrunedWeightUpdate {
        PrunedWeightUpdate::Zero
    }
}

impl<P: Pruner> From<P> for Box<dyn Pruner> {
    fn from(pruner: P) -> Self {
        Box::new(pruner)
    }
}

/// No pruning: masks that the model has stay unchanged.
#[derive(Clone, Copy, Debug, Default)]
pub struct KeepMasks;

impl Pruner for KeepMasks {
    fn update(&mut self, _step: usize, _view: &mut dyn View) -> Result<Change> {
        Ok(Change::None)
    }

    fn select(&self) -> Select {
        crate::model::weight::everything()
    }
}

/// A pruner applied to one model: call [`Sparsifier::before_step`] before every optimizer step,
/// [`Sparsifier::after_step`] after it.
pub struct Sparsifier<M> {
    pruner: Box<dyn Pruner>,
    probe: Option<Probe<M>>,
    masks: OptimizerMasks,
    gradients: Option<Vec<Vec<f32>>>,
    fresh: bool,
    step: usize,
}

impl<M: Module> Sparsifier<M> {
    /// A sparsifier and the optimizer to train `model` with: `optimizer`, which treats pruned weights as the pruner
    /// requires. Masks that the model already has apply from the first step.
    ///
    /// # Errors
    /// If the model's masks cannot be read, or the pruner needs evidence that a training step does not provide: then
    /// use [`Sparsifier::with_probe`].
    pub fn new<O: Optimizer>(
        pruner: impl Into<Box<dyn Pruner>>,
        optimizer: O,
        model: &M,
    ) -> Result<(Self, ModuleOptimizer)> {
        Self::over(pruner.into(), None, optimizer, model)
    }

    /// The same with a probe that provides what the pruner's score and budget need besides gradients.
    ///
    /// # Errors
    /// As [`Sparsifier::new`], or if the probe does not provide it.
    pub fn with_probe<O: Optimizer>(
        pruner: impl Into<Box<dyn Pruner>>,
        probe: Probe<M>,
        optimizer: O,
        model: &M,
    ) -> Result<(Self, ModuleOptimizer)> {
        Self::over(pruner.into(), Some(probe), optimizer, model)
    }

    fn over<O: Optimizer>(
        pruner: Box<dyn Pruner>,
        probe: Option<Probe<M>>,
        optimizer: O,
        model: &M,
    ) -> Result<(Self, ModuleOptimizer)> {
        let offered = probe.as_ref().map_or(Needs::NONE, Probe::offers);
        pruner.needs().without_gradients().check(&offered, "the pruner")?;
        let (select, update) = (pruner.select(), pruner.pruned_weight_update());
        let (optimizer, masks) = masked_optimizer(model, &select, optimizer, pruner.gradient(), update);
        let present = crate::model::masked::masks(model)?;
        if !present.is_empty() {
            masks.set(model, &present)?;
        }
        Ok((Self { pruner, probe, masks, gradients: None, fresh: true, step: 0 }, optimizer))
    }

    /// Continues at `step`, after a resume, with what was [pending](Sparsifier::pending) there and the pruner's
    /// [state](Sparsifier::state).
    ///
    /// # Errors
    /// If `pending` belongs to another model, or the state to another pruner.
    pub fn at_step(mut self, step: usize, pending: &MaskSet, state: State, model: &M) -> Result<Self> {
        self.step = step;
        self.pruner.restore(state)?;
        if !pending.is_empty() {
            self.masks.set(model, pending)?;
            self.masks.set(model, &crate::model::masked::masks(model)?)?;
        }
        Ok(self)
    }

    /// What the next optimizer step will zero; save it with the model and the optimizer.
    pub fn pending(&self) -> MaskSet {
        self.masks.pending()
    }

    /// Reads the gradients of the coming step, if the pruner needs them.
    ///
    /// # Errors
    /// If a gradient is missing or not finite; the message names the weight.
    pub fn before_step(&mut self, model: &M, grads: &GradientsParams) -> Result<()> {
        self.before_step_on_devices(model, &[grads])
    }

    /// The same with one batch on each of several devices: their gradients are summed, as the optimizer sums them.
    ///
    /// # Errors
    /// As [`Sparsifier::before_step`].
    pub fn before_step_on_devices(&mut self, model: &M, grads: &[&GradientsParams]) -> Result<()> {
        self.gradients = None;
        if !self.pruner.needs_gradients(self.step) && !self.replaces_optimizer_step() {
            return Ok(());
        }
        let select = self.pruner.select();
        for one in grads {
            let more = gradients(model, &select, one)?;
            match &mut self.gradients {
                None => self.gradients = Some(more),
                Some(sum) => {
                    sum.iter_mut().flatten().zip(more.iter().flatten()).for_each(|(sum, more)| *sum += more);
                }
            }
        }
        Ok(())
    }

    /// Whether the coming step is the pruner's own, so that the optimizer skips it.
    pub fn replaces_optimizer_step(&self) -> bool {
        self.pruner.replaces_optimizer_step(self.step)
    }

    /// What the pruner has learned, see [`Pruner::state`].
    pub fn state(&self) -> State {
        self.pruner.state()
    }

    /// Counts one optimizer step and changes `model` as the pruner decides.
    ///
    /// # Errors
    /// If the pruner cannot decide.
    pub fn after_step(&mut self, model: M) -> Result<M> {
        let gradients = self.gradients.take();
        let (select, probe) = (self.pruner.select(), self.probe.as_ref());
        let mut view = Looking { model: &model, select, gradients, probe };
        let change = self.pruner.update(self.step, &mut view)?;
        self.step += 1;
        let model = match std::mem::take(&mut self.fresh) {
            // Masks from before this pruner may have another gradient form.
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

    fn put_on(&self, model: M, masks: &MaskSet) -> Result<M> {
        tracing::debug!(step = self.step, sparsity = masks.sparsity(), "new masks");
        self.masks.set(&model, masks)?;
        apply_masks(model, masks, self.pruner.gradient(), self.pruner.pruned_weight_update().base())
    }
}

/// A model between two steps, as its pruner sees it.
struct Looking<'a, M> {
    model: &'a M,
    select: Select,
    gradients: Option<Vec<Vec<f32>>>,
    probe: Option<&'a Probe<M>>,
}

impl<M: Module> View for Looking<'_, M> {
    fn weights(&mut self) -> Result<Vec<Weight>> {
        weights(self.model, &self.select)
    }

    fn stored(&mut self) -> Result<Vec<Weight>> {
        stored(self.model, &self.select)
    }

    fn masks(&mut self, recipe: &Recipe, score: &dyn Score, sparsity: f64) -> Result<MaskSet> {
        let recipe = recipe.clone().with_select(self.select.clone());
        let evidence = self.evidence(&recipe.needs(score))?;
        recipe.with_evidence(evidence).masks_in(self.model, score, sparsity)
    }

    fn gradients(&mut self) -> Result<Vec<Vec<f32>>> {
        self.gradients.take().ok_or_else(not_kept)
    }

    fn evidence(&mut self, needs: &Needs) -> Result<Evidence> {
        let others = needs.clone().without_gradients();
        let evidence = match self.probe {
            Some(probe) if !others.is_none() => probe.evidence(self.model, &self.select, &others)?,
            _ => {
                others.check(&Needs::NONE, "the pruner")?;
                Evidence::default()
            }
        };
        if !needs.gradients {
            return Ok(evidence);
        }
        // A copy: the pruner may ask for the gradients too, as GraNet does to regrow.
        Ok(evidence.with_gradients(self.gradients.clone().ok_or_else(not_kept)?))
    }
}

fn not_kept() -> Error {
    let reason = "the gradients of this step were not kept: the pruner's `needs_gradients` must ask for them";
    Error::Argument(reason.into())
}

/// A sparsifier and its optimizer in one, for your own training loop: it steps like Burn's `ModuleOptimizer`.
pub struct PruningOptimizer<M> {
    sparsifier: Sparsifier<M>,
    /// The optimizer inside, for its record or gradient clipping.
    pub optimizer: ModuleOptimizer,
}

impl<M: Module> PruningOptimizer<M> {
    /// Wraps `optimizer` (as `SgdConfig::new().build()` makes it) for `model`.
    ///
    /// # Errors
    /// As [`Sparsifier::new`].
    pub fn new<O: Optimizer>(pruner: impl Into<Box<dyn Pruner>>, optimizer: O, model: &M) -> Result<Self> {
        let (sparsifier, optimizer) = Sparsifier::new(pruner, optimizer, model)?;
        Ok(Self { sparsifier, optimizer })
    }

    /// The same with a probe, see [`Sparsifier::with_probe`].
    ///
    /// # Errors
    /// As [`Sparsifier::with_probe`].
    pub fn with_probe<O: Optimizer>(
        pruner: impl Into<Box<dyn Pruner>>,
        probe: Probe<M>,
        optimizer: O,
        model: &M,
    ) -> Result<Self> {
        let (sparsifier, optimizer) = Sparsifier::with_probe(pruner, probe, optimizer, model)?;
        Ok(Self { sparsifier, optimizer })
    }

    /// One optimizer step, then the pruner's changes.
    ///
    /// # Errors
    /// If the pruner cannot decide, or a gradient that it needs is not finite.
    pub fn step(&mut self, lr: impl Into<ModuleLearningRate>, model: M, grads: GradientsParams) -> Result<M> {
        self.sparsifier.before_step(&model, &grads)?;
        let model = match self.sparsifier.replaces_optimizer_step() {
            true => model,
            false => self.optimizer.step(lr, model, grads),
        };
        self.sparsifier.after_step(model)
    }
}
