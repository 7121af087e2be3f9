//! Learning without forgetting (Li & Hoiem, arXiv 1606.09282): on the new task's data the network's outputs for old
//! classes must not change.
//!
//! ```text
//! L = CE + alpha KD          KD: distillation from the network before the task, temperature T
//! ```
//!
//! The task-incremental scenario has one `KD` for the logits of each old task, as in the paper; the class-incremental
//! one a single `KD` over all old classes (as in the library mammoth), the domain-incremental one over all logits. The
//! paper records the old answers before the task; here the old network is run, which is equivalent without
//! augmentation. The paper's warm-up, in which only the logits of new classes are trained, is off by default
//! ([`LwfConfig::warm_up`]), as in mammoth.

use std::ops;

use burn::config::Config;
use burn::tensor::Tensor;
use regrow_sparse_core::Result;
use regrow_sparse_core::registry::{MethodInfo, Param, Params, Range};
use regrow_train::classifier::Headed;

use crate::distill::distillation;
use crate::isolation::{Frozen, is_head};
use crate::params::{ParameterFlags, ParameterVector};
use crate::registry::ANY_SCENARIO;
use crate::strategy::{Strategy, TaskContext};
use crate::stream::{Example, Scenario};

/// The registry's entry.
pub const INFO: MethodInfo = MethodInfo {
    kind: "strategy",
    name: "lwf",
    summary: "on new data the outputs for old classes are distilled from the network before the task",
    paper: "arXiv 1606.09282",
    needs: ANY_SCENARIO,
    params: &[
        Param { name: "alpha", meaning: "weight of the distillation", default: "1", range: Range::NON_NEGATIVE },
        Param { name: "temperature", meaning: "temperature of the distillation", default: "2", range: Range::POSITIVE },
        Param {
            name: "warm-up",
            meaning: "share of a task's steps in which only the logits of its classes learn",
            default: "0",
            range: Range::FRACTION,
        },
    ],
};

/// Settings of [`Lwf`]; the defaults are the paper's.
#[derive(Config, Debug, PartialEq)]
pub struct LwfConfig {
    /// Weight of the distillation.
    #[config(default = 1.0)]
    pub alpha: f64,
    /// Temperature of the distillation.
    #[config(default = 2.0)]
    pub temperature: f64,
    /// Share of the steps of each task except the first in which only the logits of its classes are trained.
    #[config(default = 0.0)]
    pub warm_up: f64,
}

impl LwfConfig {
    /// The strategy.
    ///
    /// # Errors
    /// If `alpha` is negative, the temperature not above zero, or the share outside [0, 1].
    pub fn init<M>(&self) -> Result<Lwf<M>> {
        INFO.check("alpha", self.alpha)?;
        INFO.check("temperature", self.temperature)?;
        INFO.check("warm-up", self.warm_up)?;
        Ok(Lwf { config: self.clone(), old: None, frozen: None })
    }

    /// From the registry's parameters.
    pub(crate) fn from_params(params: &Params) -> Result<Self> {
        let config = Self::new().with_alpha(params.real("alpha")?).with_temperature(params.real("temperature")?);
        Ok(config.with_warm_up(params.real("warm-up")?))
    }
}

/// Learning without forgetting; made by [`LwfConfig::init`].
#[derive(Clone, Debug)]
pub struct Lwf<M> {
    config: LwfConfig,
    /// The network before the task.
    old: Option<M>,
    frozen: Option<Frozen>,
}

/// All of `model` except the head's logits of `classes`.
fn all_but<M: Headed>(model: &M, classes: ops::Range<usize>) -> Frozen {
    let (is_head, count) = (is_head(model), model.head().weight.lazy_shape().dims::<2>()[1]);
    let free = ParameterFlags::of_numbers(model, &|id, place| is_head(id) && classes.contains(&(place % count)));
    Frozen { free, values: ParameterVector::of(model) }
}

/// Groups of logits that are distilled together.
fn groups(at: &TaskContext<'_>) -> Vec<ops::Range<usize>> {
    match at.stream.scenario() {
        Scenario::Task => (0..at.task).map(|task| at.stream.classes_of(task)).collect(),
        Scenario::Class => vec![at.stream.seen(at.task - 1)],
        Scenario::Domain => std::iter::once(0..at.stream.classes()).collect(),
    }
}

impl<M: Headed> Strategy<M> for Lwf<M> {
    fn begin_task(&mut self, model: M, at: &TaskContext<'_>) -> Result<M> {
        self.old = (at.task > 0).then(|| model.valid());
        let warms = at.task > 0 && self.config.warm_up > 0.0;
        self.frozen = warms.then(|| all_but(&model, at.stream.classes_of(at.task)));
        Ok(model)
    }

    fn losses(&mut self, model: &M, batch: &[Example], at: &TaskContext<'_>) -> Result<Tensor<1>> {
        let images = at.images(batch);
        let logits = model.logits(images.clone());
        let mut losses = at.cross_entropy(logits.clone(), batch);
        if let Some(old) = &self.old {
            let targets = old.logits(images.inner());
            for group in groups(at) {
                losses = losses
                    + distillation(targets.clone(), logits.clone(), group, self.config.temperature) * self.config.alpha;
            }
        }
        Ok(losses)
    }

    fn after_step(&mut self, model: M, _batch: &[Example], at: &TaskContext<'_>) -> Result<M> {
        let warm = (at.step as f64) < self.config.warm_up * at.total_steps as f64;
        Ok(match &self.frozen {
            Some(frozen) if warm => frozen.hold(model),
            _ => model,
        })
    }

    fn added(&self) -> usize {
        self.old.as_ref().map_or(0, |old| old.num_params())
    }
}

#[cfg(test)]
mod tests {
    use burn::optim::SgdConfig;
    use burn::optim::decay::WeightDecayConfig;
    use regrow_train::lr::LrSchedule;

    use super::*;
    use crate::learn::{Protocol, learn};
    use crate::testing::{Net, Toy, net};

    /// The parameters after two tasks.
    fn learned(warm_up: f64, tasks: usize) -> Vec<Vec<f32>> {
        let data = Toy::new(60, 6);
        let stream = data.split(Scenario::Task, 3);
        let scope = Scenario::Task.default_scope();
        let protocol = Protocol { epochs: 3, batch: 5, lr: LrSchedule::constant(0.05), seed: 3, scope };
        let sgd = SgdConfig::new().with_weight_decay(Some(WeightDecayConfig::new(1e-2))).build();
        let mut lwf = LwfConfig::new().with_warm_up(warm_up).init().unwrap();
        let mut kept = Kept(&mut lwf, tasks, Vec::new());
        learn(net(9, 16, 6, 4), &sgd, &mut kept, &stream, &protocol, None, &mut |_| {}).unwrap();
        kept.2
    }

    /// LwF that records the parameters after each of the given number of tasks.
    struct Kept<'a>(&'a mut Lwf<Net>, usize, Vec<Vec<f32>>);

    impl Strategy<Net> for Kept<'_> {
        fn begin_task(&mut self, model: Net, at: &TaskContext<'_>) -> Result<Net> {
            self.0.begin_task(model, at)
        }
        fn losses(&mut self, model: &Net, batch: &[Example], at: &TaskContext<'_>) -> Result<Tensor<1>> {
            self.0.losses(model, batch, at)
        }
        fn after_step(&mut self, model: Net, batch: &[Example], at: &TaskContext<'_>) -> Result<Net> {
            self.0.after_step(model, batch, at)
        }
        fn end_task(&mut self, model: Net, at: &TaskContext<'_>) -> Result<Net> {
            if at.task + 1 == self.1 {
                self.2 = ParameterVector::of(&model).to_host();
            }
            Ok(model)
        }
    }

    #[test]
    fn while_it_warms_up_only_logits_of_new_classes_move() {
        let (first, warm, whole) = (learned(1.0, 1), learned(1.0, 2), learned(0.5, 2));
        // Hidden weights and biases, then the head's [16, 6] and its biases; the second task has classes 2, 3.
        assert_eq!((&warm[0], &warm[1]), (&first[0], &first[1]));
        for (place, (a, b)) in warm[2].iter().zip(&first[2]).enumerate() {
            assert_eq!([2, 3].contains(&(place % 6)), a != b, "{place}");
        }
        assert!(warm[3][2] != first[3][2] && warm[3][0] == first[3][0]);
        assert!(whole[0] != first[0], "after it all move");
        assert!(LwfConfig::new().with_warm_up(f64::NAN).init::<Net>().is_err());
    }
}
