//! A pruner inside burn-train: wrap the model, launch `SupervisedTraining` as usual.
//!
//! burn-train calls `TrainStep::optimize` at every step; [`Pruned`] overrides it and lets the pruner see the weights
//! after each step. Feature `train`.

use std::any::Any;
use std::sync::{Arc, Mutex, PoisonError};

use burn::module::Module;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams, Optimizer};
use burn_train::{InferenceStep, TrainOutput, TrainStep};

use regrow_sparse_core::model::probe::Probe;
use regrow_sparse_core::model::sparsify::{Pruner, Sparsifier};
use regrow_sparse_core::{Error, Result};

/// A model with a pruner; trains and evaluates like the model alone.
#[derive(Module, Debug)]
pub struct Pruned<M: Module> {
    model: M,
    #[module(skip)]
    state: Shared,
}

/// What all clones of one [`Pruned`] share: burn-train clones the model, but there is only one pruner.
#[derive(Clone)]
struct Shared(Arc<Mutex<State>>);

struct State {
    /// A `Sparsifier<M>`: the module's derive does not allow a field of that type.
    sparsifier: Box<dyn Any + Send>,
    failed: Option<Error>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sparsifier")
    }
}

impl<M: Module + 'static> Pruned<M> {
    /// Wraps `model`; also returns the optimizer for burn-train's `Learner`, which keeps pruned weights at zero.
    ///
    /// # Errors
    /// As [`Sparsifier::new`].
    pub fn new<O: Optimizer>(
        pruner: impl Into<Box<dyn Pruner>>,
        optimizer: O,
        model: M,
    ) -> Result<(Self, ModuleOptimizer)> {
        let (sparsifier, optimizer) = Sparsifier::new(pruner, optimizer, &model)?;
        Ok((Self::over(sparsifier, model), optimizer))
    }

    /// The same with a probe, see [`Sparsifier::with_probe`].
    ///
    /// # Errors
    /// As [`Sparsifier::with_probe`].
    pub fn with_probe<O: Optimizer>(
        pruner: impl Into<Box<dyn Pruner>>,
        probe: Probe<M>,
        optimizer: O,
        model: M,
    ) -> Result<(Self, ModuleOptimizer)> {
        let (sparsifier, optimizer) = Sparsifier::with_probe(pruner, probe, optimizer, &model)?;
        Ok((Self::over(sparsifier, model), optimizer))
    }

    fn over(sparsifier: Sparsifier<M>, model: M) -> Self {
        Self { model, state: Shared(Arc::new(Mutex::new(State { sparsifier: Box::new(sparsifier), failed: None }))) }
    }

    /// The trained model with its masks.
    ///
    /// # Errors
    /// Errors from choosing masks: burn-train's steps cannot report them, so from then on the model was trained without
    /// pruning.
    pub fn finish(self) -> Result<M> {
        let failed = self.state.0.lock().unwrap_or_else(PoisonError::into_inner).failed.take();
        failed.map_or(Ok(self.model), Err)
    }

    /// Shows the pruner the gradients of each device. True if the step is the pruner's own.
    fn before_step(&self, grads: &[&GradientsParams]) -> bool {
        let mut guard = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.failed.is_none() {
            let outcome = guard.sparsifier().and_then(|s| s.before_step_on_devices(&self.model, grads));
            guard.note(outcome);
        }
        guard.failed.is_none() && guard.sparsifier::<M>().is_ok_and(|s| s.replaces_optimizer_step())
    }

    fn after_step(self) -> Self {
        let Self { model, state } = self;
        let mut guard = state.0.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.failed.is_some() {
            drop(guard);
            return Self { model, state };
        }
        let before = model.clone();
        let outcome = guard.sparsifier().and_then(|s| s.after_step(model));
        let model = guard.note(outcome).unwrap_or(before);
        drop(guard);
        Self { model, state }
    }
}

impl State {
    /// The sparsifier of the trained model.
    fn sparsifier<M: Module + 'static>(&mut self) -> Result<&mut Sparsifier<M>> {
        let other = || Error::Argument("the pruner belongs to a model of another type".into());
        self.sparsifier.downcast_mut().ok_or_else(other)
    }

    /// Stores the first error for [`Pruned::finish`].
    fn note<T>(&mut self, outcome: Result<T>) -> Option<T> {
        outcome
            .inspect_err(|error| tracing::error!(%error, "no more pruning in this training"))
            .map_err(|error| self.failed = Some(error))
            .ok()
    }
}

impl<M: Module + TrainStep + 'static> TrainStep for Pruned<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: Self::Input) -> TrainOutput<Self::Output> {
        self.model.step(item)
    }

    fn optimize(self, optim: &mut ModuleOptimizer, lr: ModuleLearningRate, grads: GradientsParams) -> Self {
        match self.before_step(&[&grads]) {
            true => self.after_step(),
            false => Self { model: optim.step(lr, self.model, grads), state: self.state }.after_step(),
        }
    }

    fn optimize_multi(self, optim: &mut ModuleOptimizer, lr: ModuleLearningRate, grads: MultiGradientsParams) -> Self {
        let each: Vec<&GradientsParams> = grads.grads.iter().map(|(grads, _)| grads).collect();
        match self.before_step(&each) {
            true => self.after_step(),
            false => Self { model: optim.step_multi(lr, self.model, grads), state: self.state }.after_step(),
        }
    }
}

impl<M: Module + InferenceStep> InferenceStep for Pruned<M> {
    type Input = M::Input;
    type Output = M::Output;

    fn step(&self, item: Self::Input) -> Self::Output {
        self.model.step(item)
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::optim::SgdConfig;
    use burn::tensor::Tensor;

    use super::*;
    use regrow_sparse_core::model::sparsify::{Change, View};
    use regrow_sparse_core::model::weight::Select;

    #[derive(Module, Debug)]
    struct Net {
        layer: Linear,
    }

    impl TrainStep for Net {
        type Input = Tensor<2>;
        type Output = ();

        fn step(&self, x: Tensor<2>) -> TrainOutput<()> {
            TrainOutput::new(self, self.layer.forward(x).sum().backward(), ())
        }
    }

    /// Sends the gradients of every step.
    struct Listening(std::sync::mpsc::Sender<Vec<Vec<f32>>>);

    impl Pruner for Listening {
        fn update(&mut self, _step: usize, view: &mut dyn View) -> Result<Change> {
            let _ = self.0.send(view.gradients()?);
            Ok(Change::None)
        }

        fn needs_gradients(&self, _step: usize) -> bool {
            true
        }

        fn select(&self) -> Select {
            Select::default().with_head()
        }
    }

    #[test]
    fn a_pruner_gets_the_gradients_of_all_devices_summed() {
        let device = regrow_device::current().autodiff();
        let net = Net { layer: LinearConfig::new(2, 1).with_bias(false).init(&device) };
        let (heard, hears) = std::sync::mpsc::channel();
        let (pruned, mut optimizer) = Pruned::new(Listening(heard), SgdConfig::new().build(), net).unwrap();
        let grads = |x: [f32; 2]| (pruned.step(Tensor::from_data([x], &device)).grads, device.clone());
        let both = MultiGradientsParams { grads: vec![grads([1.0, 2.0]), grads([10.0, 20.0])] };
        let pruned = pruned.clone().optimize_multi(&mut optimizer, 0.1.into(), both);
        pruned.finish().unwrap();
        assert_eq!(hears.recv().unwrap(), [[11.0, 22.0]]);
    }
}
