//! The training loop, one for everything: pruning, soups, continual learning.
//!
//! A run is a function of the starting model and the seed: the order of the examples in epoch `e` and the augmentation
//! of step `t` are drawn from `(seed, e)` and `(seed, t)`, never from a shared generator, so a run resumed at any step
//! continues as if it had never stopped.

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::{GradientsParams, ModuleOptimizer, Optimizer, OptimizerRecord};
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::{Device, Tensor};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::lr::LrSchedule;
use regrow_checkpoint::atomic;
use regrow_sparse_core::model::masked::{Base, Gradient, apply_masks, masks};
use regrow_sparse_core::model::sparsify::{Pruner, Sparsifier};
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::state;
use regrow_sparse_core::{Error, MaskSet, Result};

/// A learning problem: examples by index, and the loss of each.
pub trait Problem<M>: Sync {
    /// How many examples there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The loss of each example of `batch`, `[batch]`, unreduced, on `device`. All randomness (augmentation) is drawn
    /// from the seed of `context`.
    fn losses(&self, model: &M, batch: &[usize], context: StepContext, device: &Device) -> Tensor<1>;
}

/// A problem with hooks: the losses of a batch, and the effect of a step on the model, may depend on the steps before.
/// Strategies of continual learning are such tasks.
///
/// The loop calls, for each batch: [`TrainingTask::losses`], then [`TrainingTask::gradients`], the optimizer, and
/// [`TrainingTask::after_step`]. Every [`Problem`] is a task that only has losses.
pub trait TrainingTask<M> {
    /// How many examples there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The losses whose mean is minimized, unreduced, on `device`: of the examples of `batch`, and of anything else
    /// that is learned from.
    ///
    /// # Errors
    /// If they cannot be computed.
    fn losses(&mut self, model: &M, batch: &[usize], context: StepContext, device: &Device) -> Result<Tensor<1>>;

    /// Replaces the gradients of the losses before the optimizer gets them.
    ///
    /// # Errors
    /// If that cannot be computed.
    fn gradients(
        &mut self,
        _model: &M,
        gradients: GradientsParams,
        _context: StepContext,
        _device: &Device,
    ) -> Result<GradientsParams> {
        Ok(gradients)
    }

    /// The model after the optimizer's step, changed if the method does so.
    ///
    /// # Errors
    /// If it cannot be changed.
    fn after_step(&mut self, model: M, _batch: &[usize], _context: StepContext) -> Result<M> {
        Ok(model)
    }

    /// What it has learned so far, to resume a run.
    fn state(&self) -> state::State {
        state::State::default()
    }

    /// Restores what [`TrainingTask::state`] returned.
    ///
    /// # Errors
    /// If it comes from another task.
    fn restore(&mut self, _state: state::State) -> Result<()> {
        Ok(())
    }
}

/// A problem as a task without hooks.
struct WithoutHooks<'a, P>(&'a P);

impl<M, P: Problem<M>> TrainingTask<M> for WithoutHooks<'_, P> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn losses(&mut self, model: &M, batch: &[usize], context: StepContext, device: &Device) -> Result<Tensor<1>> {
        Ok(self.0.losses(model, batch, context, device))
    }
}

/// A batch's position in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepContext {
    /// The seed of this batch's randomness.
    pub seed: u64,
    /// Steps done before it.
    pub step: usize,
    /// Steps of the whole run.
    pub total: usize,
}

impl StepContext {
    /// The fraction of the run that is done, in [0, 1).
    pub fn progress(&self) -> f64 {
        self.step as f64 / self.total.max(1) as f64
    }
}

/// The settings of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// Passes over the examples.
    pub epochs: usize,
    /// Examples per step; a last, smaller batch is dropped unless it is the only one.
    pub batch: usize,
    /// The learning rate.
    pub lr: LrSchedule,
    /// The seed of all randomness of the run.
    pub seed: u64,
}

impl Training {
    /// Steps in an epoch over `examples` examples.
    pub fn steps_per_epoch(&self, examples: usize) -> usize {
        (examples / self.batch.max(1)).max(1)
    }

    fn check(&self, examples: usize) -> Result<()> {
        match (examples, self.batch) {
            (0, _) => Err(Error::Argument("there are no examples to train on".into())),
            (_, 0) => Err(Error::Argument("a batch needs at least one example".into())),
            _ => Ok(()),
        }
    }
}

/// Where and how often a run is saved.
#[derive(Clone, Debug)]
pub struct Checkpointing {
    /// A folder used by this run only; it contains the newest state.
    pub dir: PathBuf,
    /// Steps between two saves.
    pub every: usize,
}

/// One step done.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Steps done.
    pub step: usize,
    /// Steps in all.
    pub total: usize,
    /// Mean loss of the batch; fetching it waits for the device.
    pub loss: &'a Tensor<1>,
}

/// Trains `model` and returns it in validation mode (no gradients, batch norm fixed).
///
/// With `save`, the run continues from the newest state in its folder, if there is one, and the state is removed when
/// the run ends. `watch` is called after every step.
///
/// # Errors
/// No examples, an empty batch, a pruner that cannot choose masks, a state that cannot be written or belongs to another
/// run.
pub fn train<M: Module, O: Optimizer>(
    model: M,
    optimizer: O,
    pruner: impl Into<Box<dyn Pruner>>,
    problem: &impl Problem<M>,
    settings: &Training,
    save: Option<&Checkpointing>,
    watch: &mut dyn FnMut(Progress<'_>),
) -> Result<M> {
    train_with_hooks(model, optimizer, pruner, &mut WithoutHooks(problem), settings, save, watch)
}

/// [`train`] with the hooks of `task` in every step.
///
/// # Errors
/// As [`train`], and errors of the task.
pub fn train_with_hooks<M: Module, O: Optimizer>(
    model: M,
    optimizer: O,
    pruner: impl Into<Box<dyn Pruner>>,
    task: &mut impl TrainingTask<M>,
    settings: &Training,
    save: Option<&Checkpointing>,
    watch: &mut dyn FnMut(Progress<'_>),
) -> Result<M> {
    settings.check(task.len())?;
    let pruner = pruner.into();
    let gradient = pruner.gradient();
    let resumed = save.map(|s| State::newest(&s.dir, settings)).transpose()?.flatten();
    let mut model = match &resumed {
        Some(state) => state.model(model, gradient)?.train(),
        None => model.train(),
    };
    let (mut sparsifier, mut optimizer) = Sparsifier::new(pruner, optimizer, &model)?;
    let mut first = 0;
    if let Some(state) = resumed {
        first = state.step;
        optimizer = optimizer.load_record(state.optimizer()?);
        sparsifier = sparsifier.at_step(first, &state.masks(PENDING)?, state.learned()?, &model)?;
        task.restore(state.task()?)?;
    }
    let device = model.devices().into_iter().next().unwrap_or_default().autodiff();
    let per_epoch = settings.steps_per_epoch(task.len());
    let total = per_epoch * settings.epochs;
    let mut order = Vec::new();
    for step in first..total {
        if order.is_empty() || step % per_epoch == 0 {
            order = shuffled(task.len(), settings.seed, step / per_epoch);
        }
        let at = step % per_epoch * settings.batch;
        let batch = &order[at..(at + settings.batch).min(order.len())];
        let context = StepContext { seed: mix(settings.seed, step as u64), step, total };
        let loss = task.losses(&model, batch, context, &device)?.mean();
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let grads = task.gradients(&model, grads, context, &device)?;
        sparsifier.before_step(&model, &grads)?;
        if !sparsifier.replaces_optimizer_step() {
            model = optimizer.step(settings.lr.at(step, total), model, grads);
        }
        model = task.after_step(model, batch, context)?;
        model = sparsifier.after_step(model)?;
        watch(Progress { step: step + 1, total, loss: &loss });
        if let Some(save) = save.filter(|s| (step + 1) % s.every.max(1) == 0 && step + 1 < total) {
            let (pending, learned) = (sparsifier.pending(), sparsifier.state());
            let task = task.state();
            let at = Snapshot { step: step + 1, model: &model, optimizer: &optimizer, pending, learned, task };
            State::write(&save.dir, settings, &at)?;
        }
    }
    save.map(|s| State::remove(&s.dir)).transpose()?;
    Ok(model.valid())
}

/// The order of the examples in `epoch`.
fn shuffled(len: usize, seed: u64, epoch: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..len).collect();
    order.shuffle(&mut ChaCha8Rng::seed_from_u64(mix(seed, epoch as u64)));
    order
}

/// A saved run: a folder `step-N` with the model, its masks, the optimizer and the settings. It is written under
/// another name and renamed, so a folder with that name is complete.
struct State {
    dir: PathBuf,
    step: usize,
}

const SETTINGS: &str = "run.json";
const MODEL: &str = "model.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const MASKS: &str = "masks.safetensors";
const PENDING: &str = "pending.safetensors";
const LEARNED: &str = "learned.safetensors";
const TASK: &str = "task.safetensors";

/// What to save between two steps.
struct Snapshot<'a, M> {
    step: usize,
    model: &'a M,
    optimizer: &'a ModuleOptimizer,
    pending: MaskSet,
    learned: state::State,
    task: state::State,
}

impl State {
    fn newest(dir: &Path, settings: &Training) -> Result<Option<Self>> {
        let Some(state) = Self::all(dir)?.into_iter().max_by_key(|s| s.step) else { return Ok(None) };
        let path = state.dir.join(SETTINGS);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let saved: Training = serde_json::from_str(&text).map_err(|e| Error::format(&path, e.to_string()))?;
        match saved == *settings {
            true => Ok(Some(state)),
            false => Err(Error::format(&path, "belongs to a run with other settings; remove the folder to start anew")),
        }
    }

    fn all(dir: &Path) -> Result<Vec<Self>> {
        if !dir.exists() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
            let entry = entry.map_err(|e| Error::io(dir, e))?;
            let name = entry.file_name();
            let step = name.to_str().and_then(|n| n.strip_prefix("step-")).and_then(|n| n.parse().ok());
            found.extend(step.map(|step| Self { dir: entry.path(), step }));
        }
        Ok(found)
    }

    fn model<M: Module>(&self, fresh: M, gradient: Gradient) -> Result<M> {
        let fresh = apply_masks(fresh, &self.masks(MASKS)?, gradient, Base::Kept)?;
        let path = self.dir.join(MODEL);
        let record = ModuleRecord::load(&path).map_err(|e| unreadable(&path, e))?;
        fresh.try_load_record(record).map_err(|e| unreadable(&path, e))
    }

    /// The masks in the file `name`; empty if there is no such file.
    fn masks(&self, name: &str) -> Result<MaskSet> {
        let path = self.dir.join(name);
        if path.exists() { MaskSet::load(&path) } else { Ok(MaskSet::new()) }
    }

    /// What the task had learned; empty if there is no such file.
    fn task(&self) -> Result<state::State> {
        let path = self.dir.join(TASK);
        if path.exists() { state::State::load(&path) } else { Ok(state::State::default()) }
    }

    /// What the pruner had learned; empty if there is no such file.
    fn learned(&self) -> Result<state::State> {
        let path = self.dir.join(LEARNED);
        if path.exists() { state::State::load(&path) } else { Ok(state::State::default()) }
    }

    fn optimizer(&self) -> Result<OptimizerRecord> {
        let path = self.dir.join(OPTIMIZER);
        OptimizerRecord::load(&path).map_err(|e| unreadable(&path, e))
    }

    fn write<M: Module>(dir: &Path, settings: &Training, at: &Snapshot<'_, M>) -> Result<()> {
        let before = Self::all(dir)?;
        let step = at.step;
        let beside = dir.join(format!("partial-{step}"));
        let io = |e| Error::io(&beside, e);
        if beside.exists() {
            std::fs::remove_dir_all(&beside).map_err(io)?;
        }
        std::fs::create_dir_all(&beside).map_err(io)?;
        for (name, masks) in [(MASKS, &masks(at.model)?), (PENDING, &at.pending)] {
            if !masks.is_empty() {
                masks.save(beside.join(name))?;
            }
        }
        if !at.learned.is_empty() {
            at.learned.save(&beside.join(LEARNED))?;
        }
        if !at.task.is_empty() {
            at.task.save(&beside.join(TASK))?;
        }
        let path = beside.join(MODEL);
        at.model.valid().into_record().save(&path).map_err(|e| unreadable(&path, e))?;
        let path = beside.join(OPTIMIZER);
        at.optimizer.save(&path).map_err(|e| unreadable(&path, e))?;
        let text = serde_json::to_string_pretty(settings).map_err(|e| Error::format(&beside, e.to_string()))?;
        atomic::write_atomic(beside.join(SETTINGS), |out| out.write_all(text.as_bytes()))?;
        std::fs::rename(&beside, dir.join(format!("step-{step}"))).map_err(io)?;
        before.iter().try_for_each(Self::discard)
    }

    /// Removes the states and the folder.
    fn remove(dir: &Path) -> Result<()> {
        Self::all(dir)?.iter().try_for_each(Self::discard)?;
        match dir.exists() {
            true => std::fs::remove_dir_all(dir).map_err(|e| Error::io(dir, e)),
            false => Ok(()),
        }
    }

    /// Renamed first: a folder named `step-N` is always complete.
    fn discard(&self) -> Result<()> {
        let gone = self.dir.with_file_name(format!("partial-{}", self.step));
        std::fs::rename(&self.dir, &gone).map_err(|e| Error::io(&self.dir, e))?;
        std::fs::remove_dir_all(&gone).map_err(|e| Error::io(&gone, e))
    }
}

fn unreadable(path: &Path, e: RecordError) -> Error {
    Error::format(path, e.to_string())
}
