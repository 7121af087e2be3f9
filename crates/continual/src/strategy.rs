//! Strategies of continual learning: hooks on the training loop, task after task.

use burn::optim::GradientsParams;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use regrow_sparse_core::Result;
use regrow_sparse_core::model::sparsify::{KeepMasks, Pruner};
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::state::State;
use regrow_train::StepContext;
use regrow_train::classifier::Headed;

use crate::stream::{Example, LogitScope, Scenario, TaskStream};

/// The context of a strategy's hook: the task, the step, the seed.
#[derive(Clone, Copy)]
pub struct TaskContext<'a> {
    /// The tasks.
    pub stream: &'a TaskStream<'a>,
    /// The current task.
    pub task: usize,
    /// Which logits losses use.
    pub scope: LogitScope,
    /// Examples per step.
    pub batch: usize,
    /// Steps of the task done so far.
    pub step: usize,
    /// Total steps of the task.
    pub total_steps: usize,
    /// The seed of this step's randomness; see [`TaskContext::seed`].
    pub step_seed: u64,
    /// The training device; it supports gradients.
    pub device: &'a Device,
}

impl<'a> TaskContext<'a> {
    /// Before the first step of `task`.
    pub fn new(
        stream: &'a TaskStream<'a>,
        task: usize,
        scope: LogitScope,
        batch: usize,
        device: &'a Device,
    ) -> TaskContext<'a> {
        Self { stream, task, scope, batch, step: 0, total_steps: 0, step_seed: 0, device }
    }

    /// The same task at another step.
    pub fn at_step(&self, step: StepContext) -> Self {
        Self { step: step.step, total_steps: step.total, step_seed: step.seed, ..*self }
    }

    /// A seed for this step; a different one for each `purpose`.
    pub fn seed(&self, purpose: u64) -> u64 {
        mix(self.step_seed, purpose)
    }

    /// The images of `batch`, augmented where the data set is.
    pub fn images(&self, batch: &[Example]) -> Tensor<4> {
        self.stream.augmented(batch, self.step_seed, self.device)
    }

    /// The cross-entropy `[examples]` of `logits` `[examples, classes]` within the [scope](LogitScope).
    pub fn cross_entropy(&self, logits: Tensor<2>, examples: &[Example]) -> Tensor<1> {
        let labels: Vec<i64> = self.stream.labels(examples).into_iter().map(|l| l as i64).collect();
        let labels = TensorData::new(labels, [examples.len(), 1]);
        let labels = Tensor::<2, Int>::from_data(labels, &logits.device());
        log_softmax(self.scoped(logits, examples), 1).gather(1, labels).squeeze_dim::<1>(1).neg()
    }

    /// `logits` with those out of scope so low that they do not count.
    fn scoped(&self, logits: Tensor<2>, examples: &[Example]) -> Tensor<2> {
        let classes = self.stream.classes();
        let range = |task: usize| self.stream.in_scope(self.scope, task, self.task);
        if examples.iter().all(|e| range(e.task) == (0..classes)) {
            return logits;
        }
        let row = |e: &Example| {
            let range = range(e.task);
            (0..classes).map(move |c| if range.contains(&c) { 0.0 } else { OUT })
        };
        // One row is enough if all examples have the same scope.
        let few = if examples.iter().all(|e| e.task == examples[0].task) { &examples[..1] } else { examples };
        let rows: Vec<f32> = few.iter().flat_map(row).collect();
        let rows = TensorData::new(rows, [few.len(), classes]);
        logits.clone() + Tensor::from_data(rows, &logits.device())
    }
}

/// Added to a logit out of scope: its probability is then zero in f32.
const OUT: f32 = -1e9;

/// A strategy: the difference to training each task in turn.
///
/// Every method has a default that does nothing, so an empty implementation is fine-tuning. For each task, in this
/// order: [`begin_task`](Strategy::begin_task); for every batch [`losses`](Strategy::losses),
/// [`gradients`](Strategy::gradients), the optimizer, [`after_step`](Strategy::after_step); then
/// [`end_task`](Strategy::end_task). Tasks are tested with [`scores`](Strategy::scores) of the model from
/// [`eval_model`](Strategy::eval_model).
pub trait Strategy<M: Headed>: Send {
    /// Whether it can be used in `scenario`.
    fn fits(&self, _scenario: Scenario) -> bool {
        true
    }

    /// The training examples of the task.
    fn examples(&self, at: &TaskContext<'_>) -> Vec<Example> {
        at.stream.train(at.task)
    }

    /// The model that the task starts from; called before its training, also when it is resumed.
    ///
    /// # Errors
    /// If the strategy cannot work on this stream or model.
    fn begin_task(&mut self, model: M, _at: &TaskContext<'_>) -> Result<M> {
        Ok(model)
    }

    /// A pruner for the training.
    ///
    /// # Errors
    /// If its settings do not fit the task.
    fn pruner(&self, _at: &TaskContext<'_>) -> Result<Box<dyn Pruner>> {
        Ok(Box::new(KeepMasks))
    }

    /// The losses whose mean is minimized, unreduced.
    ///
    /// # Errors
    /// If they cannot be computed.
    fn losses(&mut self, model: &M, batch: &[Example], at: &TaskContext<'_>) -> Result<Tensor<1>> {
        Ok(at.cross_entropy(model.logits(at.images(batch)), batch))
    }

    /// Replaces the gradients of the losses before the optimizer gets them.
    ///
    /// # Errors
    /// If that cannot be computed.
    fn gradients(&mut self, _model: &M, gradients: GradientsParams, _at: &TaskContext<'_>) -> Result<GradientsParams> {
        Ok(gradients)
    }

    /// The model after the optimizer's step.
    ///
    /// # Errors
    /// If it cannot be changed.
    fn after_step(&mut self, model: M, _batch: &[Example], _at: &TaskContext<'_>) -> Result<M> {
        Ok(model)
    }

    /// The model after the task, in validation mode.
    ///
    /// # Errors
    /// If the strategy cannot finish the task.
    fn end_task(&mut self, model: M, _at: &TaskContext<'_>) -> Result<M> {
        Ok(model)
    }

    /// The model with which `task` is tested.
    ///
    /// # Errors
    /// If it cannot be made.
    fn eval_model(&self, model: &M, _task: usize) -> Result<M> {
        Ok(model.clone())
    }

    /// The score of each class, `[images, classes]`; the largest is the answer.
    fn scores(&self, model: &M, images: Tensor<4>) -> Tensor<2> {
        model.logits(images)
    }

    /// How many values it stores besides the network, excluding examples in memory.
    fn added(&self) -> usize {
        0
    }

    /// Other measurements, by name, for tables.
    fn findings(&self) -> Vec<(String, f64)> {
        Vec::new()
    }

    /// What it has learned so far, to resume a run.
    fn state(&self) -> State {
        State::default()
    }

    /// Restores what [`Strategy::state`] returned; `model` is the one that the task starts from.
    ///
    /// # Errors
    /// If it comes from another run.
    fn restore(&mut self, _state: State, _model: &M, _at: &TaskContext<'_>) -> Result<()> {
        Ok(())
    }
}
