//! One task of a stream as the training loop sees it.

use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use regrow_sparse_core::state::State;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Headed;
use regrow_train::{StepContext, TrainingTask};

use crate::strategy::{Strategy, TaskContext};
use crate::stream::Example;

/// One task as the training loop sees it.
pub(super) struct TaskRun<'a, M> {
    pub(super) strategy: &'a mut dyn Strategy<M>,
    pub(super) examples: Vec<Example>,
    /// The context before the first step.
    pub(super) context: TaskContext<'a>,
    /// The model that the task started from.
    pub(super) start: M,
}

/// Steps between two checks that the loss is finite: each waits for the device.
const LOSS_CHECK_INTERVAL: usize = 16;

impl<M: Headed> TaskRun<'_, M> {
    fn batch(&self, batch: &[usize]) -> Vec<Example> {
        batch.iter().map(|i| self.examples[*i]).collect()
    }
}

impl<M: Headed> TrainingTask<M> for TaskRun<'_, M> {
    fn len(&self) -> usize {
        self.examples.len()
    }

    fn losses(&mut self, model: &M, batch: &[usize], step: StepContext, device: &Device) -> Result<Tensor<1>> {
        let context = TaskContext { device, ..self.context.at_step(step) };
        let losses = self.strategy.losses(model, &self.batch(batch), &context)?;
        let checked = step.step.is_multiple_of(LOSS_CHECK_INTERVAL) || step.step + 1 == step.total;
        if checked && !losses.clone().inner().sum().into_scalar::<f32>().is_finite() {
            let says = format!("task {}, step {}: the loss is not finite", context.task, step.step);
            return Err(Error::Argument(says));
        }
        Ok(losses)
    }

    fn gradients(
        &mut self,
        model: &M,
        g: GradientsParams,
        step: StepContext,
        device: &Device,
    ) -> Result<GradientsParams> {
        self.strategy.gradients(model, g, &TaskContext { device, ..self.context.at_step(step) })
    }

    fn after_step(&mut self, model: M, batch: &[usize], step: StepContext) -> Result<M> {
        self.strategy.after_step(model, &self.batch(batch), &self.context.at_step(step))
    }

    fn state(&self) -> State {
        self.strategy.state()
    }

    fn restore(&mut self, state: State) -> Result<()> {
        self.strategy.restore(state, &self.start, &self.context)
    }
}
