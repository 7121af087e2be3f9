//! Learns a stream of tasks one after the other with a strategy, with tests after each.

mod checkpoint;
mod evaluate;
mod task_run;
#[cfg(test)]
mod tests;

use std::time::Instant;

use burn::module::Module;
use burn::optim::Optimizer;
use burn::tensor::Device;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Headed;
use regrow_train::lr::LrSchedule;
use regrow_train::{Checkpointing, StepContext, Training, train_with_hooks};
use serde::{Deserialize, Serialize};

use crate::metrics::AccuracyMatrix;
use crate::params::ParameterVector;
use crate::strategy::{Strategy, TaskContext};
use crate::stream::{LogitScope, TaskStream};
use checkpoint::TaskCheckpoint;
use task_run::TaskRun;

/// How every task is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Protocol {
    /// Passes over each task's examples.
    pub epochs: usize,
    /// Examples of the task per step.
    pub batch: usize,
    /// The learning rate within each task.
    pub lr: LrSchedule,
    /// The random seed.
    pub seed: u64,
    /// Which logits losses use.
    pub scope: LogitScope,
}

/// The result.
#[derive(Clone, Debug)]
pub struct Learned<M> {
    /// The network after the last task, in validation mode.
    pub model: M,
    /// Accuracies after each task.
    pub matrix: AccuracyMatrix,
    /// Accuracies before the first.
    pub before: Vec<f64>,
    /// Share of all test answers, after the last task, that are a class of the last task.
    pub newest: f64,
    /// Seconds of training, excluding tests, in this process.
    pub seconds: f64,
    /// Training steps in this process.
    pub steps: usize,
}

/// Progress within a stream.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The current task.
    pub task: usize,
    /// Steps done in it.
    pub step: usize,
    /// Its total steps.
    pub total: usize,
}

/// Learns the tasks of `stream` one after the other; each has a fresh optimizer.
///
/// With `save`, the run resumes from the newest state in its folder, if there is one: it loses at most `every` steps,
/// and ends with the same matrix as a run without interruption.
///
/// # Errors
/// A strategy that does not fit the scenario, a network without a logit for each class, a loss or weight that is not
/// finite, a state that cannot be written or belongs to another run; errors of the strategy.
pub fn learn<M: Headed, O: Optimizer>(
    model: M,
    optimizer: &O,
    strategy: &mut dyn Strategy<M>,
    stream: &TaskStream<'_>,
    protocol: &Protocol,
    save: Option<&Checkpointing>,
    watch: &mut dyn FnMut(Progress),
) -> Result<Learned<M>> {
    if !strategy.fits(stream.scenario()) {
        return Err(Error::Argument(format!("the strategy does not fit the {} scenario", stream.scenario())));
    }
    let (device, plain) = devices(&model);
    check_head(&model, stream)?;
    let run = Run { stream, protocol, device: &device, plain: &plain };
    let (before, newest) = run.row(&model.valid(), strategy, 0)?;
    let mut at = Learned { model, matrix: AccuracyMatrix::default(), before, newest, seconds: 0.0, steps: 0 };
    if let Some(saved) = save.map(|s| TaskCheckpoint::newest(&s.dir, protocol)).transpose()?.flatten() {
        (at.model, at.matrix, at.before) = saved.load(at.model, strategy, &run)?;
        at.newest = run.row(&at.model, strategy, at.matrix.tasks().saturating_sub(1))?.1;
    }
    for task in at.matrix.tasks()..stream.tasks() {
        let started = Instant::now();
        let steps_of = save.map(|s| Checkpointing { dir: s.dir.join(checkpoint::STEPS), every: s.every });
        let mut report = |step, total| watch(Progress { task, step, total });
        (at.model, at.steps) = {
            let (model, steps) = run.task(at.model, optimizer, strategy, task, steps_of.as_ref(), &mut report)?;
            (model, at.steps + steps)
        };
        at.seconds += started.elapsed().as_secs_f64();
        let (row, newest) = run.row(&at.model, strategy, task)?;
        at.newest = newest;
        at.matrix.push(row)?;
        if let Some(save) = save {
            TaskCheckpoint::write(&save.dir, protocol, &at, strategy)?;
        }
    }
    save.map(|s| checkpoint::remove(&s.dir)).transpose()?;
    Ok(at)
}

/// The training device and the test device.
fn devices<M: Module>(model: &M) -> (Device, Device) {
    let device = model.devices().into_iter().next().unwrap_or_default();
    (device.clone().autodiff(), device.inner())
}

fn check_head<M: Headed>(model: &M, stream: &TaskStream<'_>) -> Result<()> {
    let [_, have] = model.head().weight.lazy_shape().dims::<2>();
    match have == stream.classes() {
        true => Ok(()),
        false => {
            let want = stream.classes();
            Err(Error::Argument(format!("the network has {have} logits, the stream has {want} classes")))
        }
    }
}

/// What is constant over a stream.
struct Run<'a> {
    stream: &'a TaskStream<'a>,
    protocol: &'a Protocol,
    device: &'a Device,
    plain: &'a Device,
}

impl Run<'_> {
    /// The context of a place between two steps of `task`.
    fn context(&self, task: usize, step: usize, total: usize) -> TaskContext<'_> {
        let at = StepContext { seed: mix(self.seed(task), u64::MAX - step as u64), step, total };
        let Protocol { batch, scope, .. } = *self.protocol;
        TaskContext::new(self.stream, task, scope, batch, self.device).at_step(at)
    }

    fn seed(&self, task: usize) -> u64 {
        mix(self.protocol.seed, task as u64)
    }

    /// Trains one task; the model in validation mode, and how many steps were done.
    fn task<M: Headed, O: Optimizer>(
        &self,
        model: M,
        optimizer: &O,
        strategy: &mut dyn Strategy<M>,
        task: usize,
        save: Option<&Checkpointing>,
        watch: &mut dyn FnMut(usize, usize),
    ) -> Result<(M, usize)> {
        let Protocol { epochs, batch, lr, .. } = self.protocol;
        let settings = Training { epochs: *epochs, batch: *batch, lr: lr.clone(), seed: self.seed(task) };
        let examples = strategy.examples(&self.context(task, 0, 0));
        let total = settings.steps_per_epoch(examples.len()) * epochs;
        let context = self.context(task, 0, total);
        let start = model.train();
        let model = strategy.begin_task(start.clone(), &context)?;
        let pruner = strategy.pruner(&context)?;
        let mut done = 0;
        let mut count = |p: regrow_train::Progress<'_>| {
            done += 1;
            watch(p.step, p.total);
        };
        let mut task_run = TaskRun { strategy: &mut *strategy, examples, context, start };
        let model = train_with_hooks(model, optimizer.clone(), pruner, &mut task_run, &settings, save, &mut count)?;
        if !ParameterVector::of(&model).is_finite() {
            let says = format!("weights are no longer finite after task {task}: lower the learning rate");
            return Err(Error::Argument(says));
        }
        let end = self.context(task, total, total);
        Ok((strategy.end_task(model, &end)?.valid(), done))
    }
}
