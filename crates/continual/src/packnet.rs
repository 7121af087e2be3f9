//! PackNet (Mallya & Lazebnik, arXiv 1711.05769): each task gets the largest of the free weights; the others are set to
//! zero and left to later tasks.
//!
//! ```text
//! train the free weights;  per layer keep the top (1 - s) of them by |w|, zero the others;  retrain
//! owner[w] = task;         task k is tested with the weights whose owner is <= k
//! ```
//!
//! Weights of earlier tasks are used but do not change. Biases and norms are frozen after the first task, the head
//! belongs to each task; the head is not pruned. Two thirds of a task's steps come before the pruning. The optimizer is
//! kept (the authors start a new one): pruned weights are reset to zero after every step, for any optimizer.
//!
//! The authors' frozen norms use frozen statistics in training too. Ours use the batch's statistics in training, which
//! fits tasks with one kind of image; for others there is [`PackNetConfig::norms`].

use burn::config::Config;
use regrow_sparse_core::mask::top_k::top_k;
use regrow_sparse_core::model::weight::stored;
use regrow_sparse_core::registry::{MethodInfo, Param, Params, Range};
use regrow_sparse_core::state::State;
use regrow_sparse_core::{Error, Mask, MaskSet, Result};
use regrow_train::classifier::Headed;

use crate::isolation::{Frozen, Isolation, inverted, is_head, select, uniform, union};
use crate::params::{NORMS, ParameterFlags, ParameterVector, within};
use crate::registry::TASK_SCENARIO;
use crate::strategy::{Strategy, TaskContext};
use crate::stream::{Example, Scenario};

/// The share of a task's steps that come before the pruning.
const BEFORE: f64 = 2.0 / 3.0;

/// The registry's entry.
pub const INFO: MethodInfo = MethodInfo {
    kind: "strategy",
    name: "packnet",
    summary: "each task gets the largest of the weights that are still free",
    paper: "arXiv 1711.05769",
    needs: TASK_SCENARIO,
    params: &[
        Param {
            name: "sparsity",
            meaning: "fraction of each layer's free weights that a task leaves (the paper: 0.5 or 0.75)",
            default: "0.75",
            range: Range::SPARSITY,
        },
        Param {
            name: "norms",
            meaning: "norms of each task's own (not in the paper)",
            default: "false",
            range: Range::Flag,
        },
    ],
};

/// Settings of [`PackNet`].
#[derive(Config, Debug, PartialEq)]
pub struct PackNetConfig {
    /// Fraction of each layer's free weights that is pruned after each task, in (0, 1). The paper takes 0.5 or 0.75.
    #[config(default = 0.75)]
    pub sparsity: f64,
    /// Whether each task has its own norms, including their statistics. Not in the paper.
    #[config(default = false)]
    pub norms: bool,
}

impl PackNetConfig {
    /// The strategy.
    ///
    /// # Errors
    /// If the sparsity is outside (0, 1).
    pub fn init(&self) -> Result<PackNet> {
        match self.sparsity > 0.0 && self.sparsity < 1.0 {
            true => Ok(PackNet { config: self.clone(), tasks: Isolation::default(), frozen: None }),
            false => Err(Error::InvalidParameter {
                method: INFO.name.into(),
                parameter: "sparsity".into(),
                value: self.sparsity.to_string(),
                range: "(0, 1)".into(),
            }),
        }
    }

    /// From the registry's parameters.
    pub(crate) fn from_params(params: &Params) -> Result<Self> {
        Ok(Self::new().with_sparsity(params.real("sparsity")?).with_norms(params.flag("norms")?))
    }
}

/// PackNet; made by [`PackNetConfig::init`].
#[derive(Clone, Debug)]
pub struct PackNet {
    config: PackNetConfig,
    tasks: Isolation,
    frozen: Option<Frozen>,
}

impl PackNet {
    /// The fraction of prunable weights that no task owns yet.
    ///
    /// # Errors
    /// If the masks of tasks do not fit each other.
    pub fn free(&self) -> Result<f64> {
        Ok(union(&self.tasks.masks)?.map_or(1.0, |owned| owned.sparsity()))
    }

    /// Weights of `model` that no task before `task` owns.
    fn unowned<M: Headed>(&self, model: &M, task: usize) -> Result<MaskSet> {
        let owned = union(&self.tasks.masks[..task])?;
        owned.map_or_else(|| uniform(model, true), |owned| Ok(inverted(&owned)))
    }

    /// Only the weights in `masks` may change, and the head, norms if each task has its own, and in the first task
    /// everything else.
    fn freeze<M: Headed>(&mut self, model: &M, masks: &MaskSet, values: ParameterVector, task: usize) -> Result<()> {
        let head = is_head(model);
        let norms = within(model, &|kind| self.config.norms && NORMS.contains(&kind));
        let free = ParameterFlags::kept(model, masks, &|id| task == 0 || head(id) || norms.contains(&id))?;
        self.frozen = Some(Frozen { free, values });
        Ok(())
    }

    /// Chooses the task's weights among the free ones.
    fn choose<M: Headed>(&self, model: &M, free: &MaskSet) -> Result<MaskSet> {
        let one = |weight: regrow_sparse_core::model::weight::Weight| {
            let mask = free.get(&weight.path).cloned().unwrap_or_else(|| Mask::dense(weight.shape.clone()));
            let size = |i: usize| if mask.keeps(i) { weight.values[i].abs() } else { f32::NEG_INFINITY };
            let sizes: Vec<f32> = (0..weight.values.len()).map(size).collect();
            let keep = ((1.0 - self.config.sparsity) * mask.kept() as f64).round() as usize;
            Ok((weight.path, Mask::from_words(weight.shape, top_k(&sizes, keep, |s| s)?)?))
        };
        stored(model, &select())?.into_iter().map(one).collect()
    }

    /// The mask with which `task` is tested.
    fn mask(&self, task: usize) -> Result<Option<MaskSet>> {
        union(&self.tasks.masks[..(task + 1).min(self.tasks.masks.len())])
    }

    /// The step after which weights are chosen.
    fn pruning_step(total: usize) -> usize {
        (BEFORE * total as f64).ceil() as usize
    }
}

impl<M: Headed> Strategy<M> for PackNet {
    fn fits(&self, scenario: Scenario) -> bool {
        scenario == Scenario::Task
    }

    fn begin_task(&mut self, model: M, at: &TaskContext<'_>) -> Result<M> {
        let free = self.unowned(&model, at.task)?;
        if free.pruned() == free.weights() {
            return Err(Error::Argument(format!("task {} finds no free weight: prune more of each task", at.task)));
        }
        self.freeze(&model, &free, ParameterVector::of(&model), at.task)?;
        Ok(model)
    }

    fn after_step(&mut self, model: M, _batch: &[Example], at: &TaskContext<'_>) -> Result<M> {
        let model = match &self.frozen {
            Some(frozen) => frozen.hold(model),
            None => model,
        };
        if at.step + 1 != Self::pruning_step(at.total_steps) {
            return Ok(model);
        }
        let free = self.unowned(&model, at.task)?;
        let chosen = self.choose(&model, &free)?;
        self.tasks.masks.push(chosen.clone());
        let values = self.without_free(&model, &ParameterVector::of(&model), at.task)?;
        self.freeze(&model, &chosen, values.clone(), at.task)?;
        Ok(values.put(model))
    }

    fn end_task(&mut self, model: M, _at: &TaskContext<'_>) -> Result<M> {
        self.tasks.record_task(&model)?;
        Ok(model)
    }

    fn eval_model(&self, model: &M, task: usize) -> Result<M> {
        match (self.mask(task)?, self.tasks.own.get(task)) {
            (Some(mask), Some(own)) => self.tasks.task_model(model, &mask, own),
            _ => Ok(model.clone()),
        }
    }

    fn added(&self) -> usize {
        self.tasks.added()
    }

    fn findings(&self) -> Vec<(String, f64)> {
        self.free().map(|free| ("weights used".into(), 100.0 * (1.0 - free))).into_iter().collect()
    }

    fn state(&self) -> State {
        self.tasks.state()
    }

    fn restore(&mut self, state: State, model: &M, at: &TaskContext<'_>) -> Result<()> {
        self.tasks = Isolation::restored(state, model)?;
        if let Some(chosen) = self.tasks.masks.get(at.task).cloned() {
            let values = self.without_free(model, &ParameterVector::of(model), at.task)?;
            self.freeze(model, &chosen, values, at.task)?;
        }
        Ok(())
    }
}

impl PackNet {
    /// `values` with the weights that no task up to `task` owns set to zero.
    fn without_free<M: Headed>(&self, model: &M, values: &ParameterVector, task: usize) -> Result<ParameterVector> {
        let owned = union(&self.tasks.masks[..=task])?.map_or_else(|| uniform(model, true), Ok)?;
        Ok(values.or_else(&ParameterFlags::kept(model, &owned, &|_| true)?, &values.zeros()))
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::optim::SgdConfig;
    use burn::optim::decay::WeightDecayConfig;
    use burn::optim::momentum::MomentumConfig;
    use regrow_train::Classifier;
    use regrow_train::lr::LrSchedule;

    use super::*;
    use crate::learn::{Protocol, learn};
    use crate::testing::{Net, Toy, net};

    /// PackNet that shows every earlier task's logits before each task.
    struct Watched(PackNet, Vec<Vec<Vec<f32>>>);

    fn logits(packnet: &PackNet, model: &Net, task: usize, at: &TaskContext<'_>) -> Vec<f32> {
        let images = at.stream.images(&at.stream.train(task), &regrow_device::current());
        let classes = at.stream.classes_of(task);
        let shown = packnet.eval_model(&model.valid(), task).unwrap();
        shown.logits(images).narrow(1, classes.start, classes.len()).into_data().iter().collect()
    }

    impl Strategy<Net> for Watched {
        fn begin_task(&mut self, model: Net, at: &TaskContext<'_>) -> Result<Net> {
            self.0.begin_task(model, at)
        }
        fn after_step(&mut self, model: Net, batch: &[Example], at: &TaskContext<'_>) -> Result<Net> {
            self.0.after_step(model, batch, at)
        }
        fn end_task(&mut self, model: Net, at: &TaskContext<'_>) -> Result<Net> {
            let model = self.0.end_task(model, at)?;
            self.1.push((0..=at.task).map(|task| logits(&self.0, &model, task, at)).collect());
            Ok(model)
        }
        fn eval_model(&self, model: &Net, task: usize) -> Result<Net> {
            self.0.eval_model(model, task)
        }
    }

    #[test]
    fn earlier_tasks_say_the_same_to_the_bit() {
        let data = Toy::new(60, 6);
        let stream = data.split(Scenario::Task, 3);
        // Everything that changes weights without a gradient: momentum and weight decay.
        let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
        let decay = WeightDecayConfig::new(1e-2);
        let sgd = SgdConfig::new().with_momentum(Some(momentum)).with_weight_decay(Some(decay)).build();
        let scope = Scenario::Task.default_scope();
        let protocol = Protocol { epochs: 6, batch: 5, lr: LrSchedule::constant(0.05), seed: 3, scope };
        let mut watched = Watched(PackNetConfig::new().with_sparsity(0.5).init().unwrap(), Vec::new());
        learn(net(9, 16, 6, 4), &sgd, &mut watched, &stream, &protocol, None, &mut |_| {}).unwrap();
        let Watched(packnet, said) = watched;
        assert_eq!(said[1][0], said[0][0]);
        assert_eq!((&said[2][0], &said[2][1]), (&said[0][0], &said[1][1]));
        assert_eq!(packnet.free().unwrap(), 0.125, "a half of a half of a half is left");
        let kept: usize = packnet.tasks.masks.iter().map(|m| m.weights() - m.pruned()).sum();
        let together = union(&packnet.tasks.masks).unwrap().unwrap();
        assert_eq!(together.weights() - together.pruned(), kept, "no weight has two owners");
    }
}
