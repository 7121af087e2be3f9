//! PackNet (Mallya & Lazebnik, arXiv 1711.05769): each task gets the largest of the weights that are
//! still free; the rest is set to zero and left to the tasks to come.
//!
//! ```text
//! train the free weights;  per layer keep the top (1 - s) of them by |w|, zero the others;  retrain
//! owner[w] = task;         task k is tested with the weights whose owner is <= k
//! ```
//!
//! Weights of earlier tasks take part but do not move. Biases and norms are frozen after the first task,
//! the head belongs to each task; the head is not pruned. Of a task's steps, two in three come before the
//! pruning. The optimizer goes on through it (the authors begin a new one): what is pruned is set back to
//! zero after every step, whatever the optimizer does.
//!
//! The authors' frozen norms work with frozen statistics in training too. Ours are trained with those of
//! the batch, which fits tasks of one kind of image; for others there is [`PackNet::with_norms`].

use regrow_sparse_core::mask::top_k::top_k;
use regrow_sparse_core::model::weight::stored;
use regrow_sparse_core::{Error, Mask, MaskSet, Result};
use regrow_train::classifier::Headed;

use crate::isolation::{Frozen, Isolation, inverted, is_head, select, uniform, union};
use crate::params::{Flags, NORMS, Vector, within};
use crate::strategy::{Stage, Strategy};
use crate::stream::{Example, Scenario};

/// The share of a task's steps that come before the pruning.
const BEFORE: f64 = 2.0 / 3.0;

/// PackNet.
#[derive(Clone, Debug)]
pub struct PackNet {
    sparsity: f64,
    norms: bool,
    tasks: Isolation,
    frozen: Option<Frozen>,
}

impl PackNet {
    /// Pruning the fraction `sparsity` of each layer's free weights after each task (the paper: 0.5 or
    /// 0.75).
    ///
    /// # Errors
    /// If it is outside (0, 1).
    pub fn new(sparsity: f64) -> Result<Self> {
        match sparsity > 0.0 && sparsity < 1.0 {
            true => Ok(Self { sparsity, norms: false, tasks: Isolation::default(), frozen: None }),
            false => Err(Error::Argument(format!("{sparsity} is no share to be pruned: use a number between 0 and 1"))),
        }
    }

    /// With norms, their statistics too, of each task's own. Not in the paper.
    pub fn with_norms(mut self) -> Self {
        self.norms = true;
        self
    }

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

    /// Only the weights in `masks` may move, the head, norms where each task has its own, and in the first
    /// task all else.
    fn freeze<M: Headed>(&mut self, model: &M, masks: &MaskSet, values: Vector, task: usize) -> Result<()> {
        let head = is_head(model);
        let norms = within(model, &|kind| self.norms && NORMS.contains(&kind));
        let free = Flags::kept(model, masks, &|id| task == 0 || head(id) || norms.contains(&id))?;
        self.frozen = Some(Frozen { free, values });
        Ok(())
    }

    /// Chooses the task's weights among the free ones.
    fn choose<M: Headed>(&self, model: &M, free: &MaskSet) -> Result<MaskSet> {
        let one = |weight: regrow_sparse_core::model::weight::Weight| {
            let mask = free.get(&weight.path).cloned().unwrap_or_else(|| Mask::dense(weight.shape.clone()));
            let size = |i: usize| if mask.keeps(i) { weight.values[i].abs() } else { f32::NEG_INFINITY };
            let sizes: Vec<f32> = (0..weight.values.len()).map(size).collect();
            let keep = ((1.0 - self.sparsity) * mask.kept() as f64).round() as usize;
            Ok((weight.path, Mask::from_words(weight.shape, top_k(&sizes, keep, |s| s)?)?))
        };
        stored(model, &select())?.into_iter().map(one).collect()
    }

    /// The mask with which `task` is tested.
    fn mask(&self, task: usize) -> Result<Option<MaskSet>> {
        union(&self.tasks.masks[..(task + 1).min(self.tasks.masks.len())])
    }

    /// The step after which weights are chosen.
    fn turn(total: usize) -> usize {
        (BEFORE * total as f64).ceil() as usize
    }
}

impl<M: Headed> Strategy<M> for PackNet {
    fn fits(&self, scenario: Scenario) -> bool {
        scenario == Scenario::Task
    }

    fn begin(&mut self, model: M, at: &Stage<'_>) -> Result<M> {
        let free = self.unowned(&model, at.task)?;
        if free.pruned() == free.weights() {
            return Err(Error::Argument(format!("task {} finds no free weight: prune more of each task", at.task)));
        }
        self.freeze(&model, &free, Vector::of(&model), at.task)?;
        Ok(model)
    }

    fn stepped(&mut self, model: M, _batch: &[Example], at: &Stage<'_>) -> Result<M> {
        let model = match &self.frozen {
            Some(frozen) => frozen.hold(model),
            None => model,
        };
        if at.moment.step + 1 != Self::turn(at.moment.total) {
            return Ok(model);
        }
        let free = self.unowned(&model, at.task)?;
        let chosen = self.choose(&model, &free)?;
        self.tasks.masks.push(chosen.clone());
        let values = self.taken(&model, &Vector::of(&model), at.task)?;
        self.freeze(&model, &chosen, values.clone(), at.task)?;
        Ok(values.put(model))
    }

    fn end(&mut self, model: M, _at: &Stage<'_>) -> Result<M> {
        self.tasks.leave(&model)?;
        Ok(model)
    }

    fn shown(&self, model: &M, task: usize) -> Result<M> {
        match (self.mask(task)?, self.tasks.own.get(task)) {
            (Some(mask), Some(own)) => self.tasks.show(model, &mask, own),
            _ => Ok(model.clone()),
        }
    }

    fn added(&self) -> usize {
        self.tasks.added()
    }

    fn findings(&self) -> Vec<(String, f64)> {
        self.free().map(|free| ("weights used".into(), 100.0 * (1.0 - free))).into_iter().collect()
    }

    fn state(&self) -> Vec<Vec<f32>> {
        self.tasks.state()
    }

    fn restore(&mut self, state: Vec<Vec<f32>>, model: &M, at: &Stage<'_>) -> Result<()> {
        self.tasks = Isolation::restored(state, model)?;
        if let Some(chosen) = self.tasks.masks.get(at.task).cloned() {
            let values = self.taken(model, &Vector::of(model), at.task)?;
            self.freeze(model, &chosen, values, at.task)?;
        }
        Ok(())
    }
}

impl PackNet {
    /// `values` with the weights that no task up to `task` owns at zero.
    fn taken<M: Headed>(&self, model: &M, values: &Vector, task: usize) -> Result<Vector> {
        let owned = union(&self.tasks.masks[..=task])?.map_or_else(|| uniform(model, true), Ok)?;
        Ok(values.or_else(&Flags::kept(model, &owned, &|_| true)?, &values.zeros()))
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

    fn logits(packnet: &PackNet, model: &Net, task: usize, at: &Stage<'_>) -> Vec<f32> {
        let images = at.stream.images(&at.stream.train(task), &regrow_device::current());
        let classes = at.stream.classes_of(task);
        let shown = packnet.shown(&model.valid(), task).unwrap();
        shown.logits(images).narrow(1, classes.start, classes.len()).into_data().iter().collect()
    }

    impl Strategy<Net> for Watched {
        fn begin(&mut self, model: Net, at: &Stage<'_>) -> Result<Net> {
            self.0.begin(model, at)
        }
        fn stepped(&mut self, model: Net, batch: &[Example], at: &Stage<'_>) -> Result<Net> {
            self.0.stepped(model, batch, at)
        }
        fn end(&mut self, model: Net, at: &Stage<'_>) -> Result<Net> {
            let model = self.0.end(model, at)?;
            self.1.push((0..=at.task).map(|task| logits(&self.0, &model, task, at)).collect());
            Ok(model)
        }
        fn shown(&self, model: &Net, task: usize) -> Result<Net> {
            self.0.shown(model, task)
        }
    }

    #[test]
    fn earlier_tasks_say_the_same_to_the_bit() {
        let data = Toy::new(60, 6);
        let stream = data.split(Scenario::Task, 3);
        // All that moves weights without a gradient: momentum and weight decay.
        let momentum = MomentumConfig::new().with_momentum(0.9).with_dampening(0.0);
        let decay = WeightDecayConfig::new(1e-2);
        let sgd = SgdConfig::new().with_momentum(Some(momentum)).with_weight_decay(Some(decay)).build();
        let scope = Scenario::Task.default_scope();
        let protocol = Protocol { epochs: 6, batch: 5, lr: LrSchedule::constant(0.05), seed: 3, scope };
        let mut watched = Watched(PackNet::new(0.5).unwrap(), Vec::new());
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
