//! What a strategy of continual learning is: hooks on the one training loop, task after task.

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

/// Where training stands when a strategy's hook is called: the task, the step, the seed.
#[derive(Clone, Copy)]
pub struct TaskContext<'a> {
    /// The tasks.
    pub stream: &'a TaskStream<'a>,
    /// The one at hand.
    pub task: usize,
    /// Which logits losses see.
    pub scope: LogitScope,
    /// Examples per step.
    pub batch: usize,
    /// Steps of the task done so far.
    pub step: usize,
    /// Steps of the task in all.
    pub total_steps: usize,
    /// The source of this step's randomness; see [`TaskContext::seed`].
    pub step_seed: u64,
    /// Where training happens; it follows gradients.
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

    /// A seed of this step's own; another for each `purpose`.
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
        // One row is enough where all examples see the same.
        let few = if examples.iter().all(|e| e.task == examples[0].task) { &examples[..1] } else { examples };
        let rows: Vec<f32> = few.iter().flat_map(row).collect();
        let rows = TensorData::new(rows, [few.len(), classes]);
        logits.clone() + Tensor::from_data(rows, &logits.device())
    }
}

/// What is added to a logit that does not take part: its probability is zero in f32.
const OUT: f32 = -1e9;

/// A strategy: what differs from training each task as it comes.
///
/// Every method has a default that does nothing, so that an empty implementation is fine-tuning. For
/// each task, in this order: [`begin_task`](Strategy::begin_task); for every batch
/// [`losses`](Strategy::losses), [`gradients`](Strategy::gradients), the optimizer,
/// [`after_step`](Strategy::after_step); then [`end_task`](Strategy::end_task). Tasks are tested by
/// [`scores`](Strategy::scores) of what [`eval_model`](Strategy::eval_model) gives.
pub trait Strategy<M: Headed>: Send {
    /// Whether it can be used in `scenario`.
    fn fits(&self, _scenario: Scenario) -> bool {
        true
    }

    /// What the task is trained on.
    fn examples(&self, at: &TaskContext<'_>) -> Vec<Example> {
        at.stream.train(at.task)
    }

    /// The model that the task starts from; called before its training, also of one that is resumed.
    ///
    /// # Errors
    /// If the strategy cannot work on this stream or model.
    fn begin_task(&mut self, model: M, _at: &TaskContext<'_>) -> Result<M> {
        Ok(model)
    }

    /// A pruner beside the training.
    ///
    /// # Errors
    /// If its settings do not fit the task.
    fn pruner(&self, _at: &TaskContext<'_>) -> Result<Box<dyn Pruner>> {
        Ok(Box::new(KeepMasks))
    }

    /// The losses whose mean is descended, unreduced.
    ///
    /// # Errors
    /// If they cannot be computed.
    fn losses(&mut self, model: &M, batch: &[Example], at: &TaskContext<'_>) -> Result<Tensor<1>> {
        Ok(at.cross_entropy(model.logits(at.images(batch)), batch))
    }

    /// What the optimizer gets instead of their gradients.
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

    /// What speaks for each class, `[images, classes]`; the largest is the answer.
    fn scores(&self, model: &M, images: Tensor<4>) -> Tensor<2> {
        model.logits(images)
    }

    /// How many numbers it keeps beside the network, examples in memory apart.
    fn added(&self) -> usize {
        0
    }

    /// Whatever else it has measured, by name, for tables.
    fn findings(&self) -> Vec<(String, f64)> {
        Vec::new()
    }

    /// What it has learned so far, for a run to be resumed.
    fn state(&self) -> State {
        State::default()
    }

    /// Takes back what [`Strategy::state`] gave; `model` is the one that the task starts from.
    ///
    /// # Errors
    /// If it comes from another run.
    fn restore(&mut self, _state: State, _model: &M, _at: &TaskContext<'_>) -> Result<()> {
        Ok(())
    }
}
