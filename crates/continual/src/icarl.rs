//! iCaRL (Rebuffi et al., arXiv 1611.07725): exemplars, distillation with sigmoids, and classification by the nearest
//! mean of exemplars.
//!
//! ```text
//! L = mean over classes of BCE(logit_c, target_c) + wd ||theta||^2
//! target_c = sigmoid(old logit_c) for classes of earlier tasks, else 1 for the label, 0 for the others
//! answer = argmin_c || phi(x)/||phi(x)|| - mu_c ||        mu_c: mean over exemplars of c, of unit length
//! ```
//!
//! Trained on the task's examples and all exemplars together. `wd` is 1e-5 as in the library mammoth; the mean over
//! mirrored images that it and the authors use is left out, because digits cannot be mirrored.

use burn::config::Config;
use burn::optim::GradientsParams;
use burn::tensor::activation::{log_sigmoid, sigmoid};
use burn::tensor::{Tensor, TensorData};
use regrow_sparse_core::Result;
use regrow_sparse_core::registry::{MethodInfo, Params};
use regrow_sparse_core::state::State;
use regrow_train::classifier::Headed;

use crate::exemplars::{herd, means, nearness, unit};
use crate::memory::{self, Memory};
use crate::params::ParameterVector;
use crate::registry::{MEMORY, TASK_OR_CLASS_SCENARIO};
use crate::strategy::{Strategy, TaskContext};
use crate::stream::{Example, Scenario};

/// Strength of the penalty on all weights.
const DECAY: f64 = 1e-5;

/// The registry's entry.
pub const INFO: MethodInfo = MethodInfo {
    kind: "strategy",
    name: "icarl",
    summary: "exemplars by herding, distillation by sigmoids, answers by the nearest mean",
    paper: "arXiv 1611.07725",
    needs: TASK_OR_CLASS_SCENARIO,
    params: &[MEMORY],
};

/// Settings of [`ICarl`].
#[derive(Config, Debug, PartialEq)]
pub struct ICarlConfig {
    /// Exemplars kept.
    pub memory: usize,
}

impl ICarlConfig {
    /// The strategy.
    ///
    /// # Errors
    /// If the memory holds nothing.
    pub fn init<M>(&self) -> Result<ICarl<M>> {
        INFO.check("memory", self.memory)?;
        Ok(ICarl { memory: Memory::new(self.memory)?, old: None, means: Vec::new() })
    }

    /// From the registry's parameters.
    pub(crate) fn from_params(params: &Params) -> Result<Self> {
        Ok(Self::new(params.count("memory")?))
    }
}

/// iCaRL; made by [`ICarlConfig::init`].
#[derive(Clone, Debug)]
pub struct ICarl<M> {
    memory: Memory,
    /// The network before the task.
    old: Option<M>,
    /// For each class the mean of its exemplars' features.
    means: Vec<f32>,
}

/// The binary cross-entropy of each example, `[examples]`: the mean over classes.
fn binary_cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Tensor<1> {
    let not = targets.clone().neg() + 1.0;
    let both = targets * log_sigmoid(logits.clone()) + not * log_sigmoid(logits.neg());
    both.mean_dim(1).squeeze_dim::<1>(1).neg()
}

impl<M: Headed> Strategy<M> for ICarl<M> {
    fn fits(&self, scenario: Scenario) -> bool {
        scenario != Scenario::Domain
    }

    fn examples(&self, at: &TaskContext<'_>) -> Vec<Example> {
        let exemplars = self.memory.kept().iter().map(|k| k.item.0);
        at.stream.train(at.task).into_iter().chain(exemplars).collect()
    }

    fn begin_task(&mut self, model: M, at: &TaskContext<'_>) -> Result<M> {
        self.memory.quota(at.stream.classes())?;
        self.old = (at.task > 0).then(|| model.valid());
        Ok(model)
    }

    fn losses(&mut self, model: &M, batch: &[Example], at: &TaskContext<'_>) -> Result<Tensor<1>> {
        let (images, classes) = (at.images(batch), at.stream.classes());
        let mut targets = vec![0.0f32; batch.len() * classes];
        at.stream.labels(batch).iter().enumerate().for_each(|(i, label)| targets[i * classes + label] = 1.0);
        let targets = Tensor::<2>::from_data(TensorData::new(targets, [batch.len(), classes]), &images.device());
        let targets = match &self.old {
            Some(old) => {
                let past = at.stream.seen(at.task - 1).end;
                let old_targets = sigmoid(old.logits(images.clone().inner())).narrow(1, 0, past);
                Tensor::cat(vec![old_targets, targets.inner().narrow(1, past, classes - past)], 1)
            }
            None => targets,
        };
        Ok(binary_cross_entropy(model.logits(images), targets))
    }

    fn gradients(&mut self, model: &M, gradients: GradientsParams, _at: &TaskContext<'_>) -> Result<GradientsParams> {
        let g = ParameterVector::gradients(model, &gradients).plus(2.0 * DECAY, &ParameterVector::of(model));
        Ok(g.into_gradients(model, &gradients))
    }

    fn end_task(&mut self, model: M, at: &TaskContext<'_>) -> Result<M> {
        herd(&mut self.memory, &model, at)?;
        self.means = means(&self.memory, &model, at);
        Ok(model)
    }

    fn scores(&self, model: &M, images: Tensor<4>) -> Tensor<2> {
        match self.means.is_empty() {
            true => model.logits(images),
            false => nearness(unit(model.features(images)), &self.means),
        }
    }

    fn added(&self) -> usize {
        self.old.as_ref().map_or(0, |old| old.num_params()) + self.means.len()
    }

    fn state(&self) -> State {
        let mut state = State::default();
        state.set_nested("memory", memory::state(&self.memory));
        state.set_reals("means", self.means.clone());
        state
    }

    fn restore(&mut self, mut state: State, _model: &M, _at: &TaskContext<'_>) -> Result<()> {
        self.means = state.take_reals("means")?;
        self.memory = memory::restored(self.memory.capacity(), state.take_nested("memory"))?;
        Ok(())
    }
}
