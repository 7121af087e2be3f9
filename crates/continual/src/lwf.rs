//! Learning without forgetting (Li & Hoiem, arXiv 1606.09282): on the new task's data the network must
//! go on saying of old classes what it said before.
//!
//! ```text
//! L = CE + alpha KD          KD: distillation from the network before the task, temperature T
//! ```
//!
//! The task-incremental scenario has one `KD` for the logits of each old task, as the paper; the
//! class-incremental one a single `KD` over all old classes (as the library mammoth), the
//! domain-incremental one over all logits. The paper's answers are recorded before the task; here the
//! old network is asked, which is the same without augmentation. The paper's warm-up, in which only the
//! logits of new classes learn, is off unless asked for ([`Lwf::with_warm_up`]), as in mammoth.

use std::ops::Range;

use burn::tensor::Tensor;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Headed;

use crate::distill::{distillation, factor, temperature};
use crate::isolation::{Frozen, is_head};
use crate::params::{Flags, Vector};
use crate::strategy::{Stage, Strategy};
use crate::stream::{Example, Scenario};

/// Learning without forgetting.
#[derive(Clone, Debug)]
pub struct Lwf<M> {
    alpha: f64,
    temperature: f64,
    warm_up: f64,
    old: Option<M>,
    frozen: Option<Frozen>,
}

impl<M> Lwf<M> {
    /// With weight `alpha` of the distillation (the paper: 1) and its temperature (the paper: 2).
    ///
    /// # Errors
    /// If `alpha` is negative or the temperature not above zero.
    pub fn new(alpha: f64, temperature: f64) -> Result<Self> {
        let alpha = factor(alpha, "weight of the distillation (alpha)")?;
        Ok(Self { alpha, temperature: self::temperature(temperature)?, warm_up: 0.0, old: None, frozen: None })
    }

    /// With the first share of the steps of each task but the first for the logits of its classes alone.
    ///
    /// # Errors
    /// If the share is outside [0, 1].
    pub fn with_warm_up(mut self, share: f64) -> Result<Self> {
        match (0.0..=1.0).contains(&share) {
            true => {
                self.warm_up = share;
                Ok(self)
            }
            false => Err(Error::Argument(format!("{share} is no share of the steps to warm up: use 0 to 1"))),
        }
    }
}

/// All of `model` but the head's logits of `classes`.
fn all_but<M: Headed>(model: &M, classes: Range<usize>) -> Frozen {
    let (is_head, count) = (is_head(model), model.head().weight.lazy_shape().dims::<2>()[1]);
    let free = Flags::of_numbers(model, &|id, place| is_head(id) && classes.contains(&(place % count)));
    Frozen { free, values: Vector::of(model) }
}

/// Groups of logits that are distilled together.
fn groups(at: &Stage<'_>) -> Vec<Range<usize>> {
    match at.stream.scenario() {
        Scenario::Task => (0..at.task).map(|task| at.stream.classes_of(task)).collect(),
        Scenario::Class => vec![at.stream.seen(at.task - 1)],
        Scenario::Domain => std::iter::once(0..at.stream.classes()).collect(),
    }
}

impl<M: Headed> Strategy<M> for Lwf<M> {
    fn begin(&mut self, model: M, at: &Stage<'_>) -> Result<M> {
        self.old = (at.task > 0).then(|| model.valid());
        let warms = at.task > 0 && self.warm_up > 0.0;
        self.frozen = warms.then(|| all_but(&model, at.stream.classes_of(at.task)));
        Ok(model)
    }

    fn losses(&mut self, model: &M, batch: &[Example], at: &Stage<'_>) -> Result<Tensor<1>> {
        let images = at.images(batch);
        let logits = model.logits(images.clone());
        let mut losses = at.cross_entropy(logits.clone(), batch);
        if let Some(old) = &self.old {
            let said = old.logits(images.inner());
            for group in groups(at) {
                losses = losses + distillation(said.clone(), logits.clone(), group, self.temperature) * self.alpha;
            }
        }
        Ok(losses)
    }

    fn stepped(&mut self, model: M, _batch: &[Example], at: &Stage<'_>) -> Result<M> {
        let warm = (at.moment.step as f64) < self.warm_up * at.moment.total as f64;
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
        let mut lwf = Lwf::new(1.0, 2.0).unwrap().with_warm_up(warm_up).unwrap();
        let mut kept = Kept(&mut lwf, tasks, Vec::new());
        learn(net(9, 16, 6, 4), &sgd, &mut kept, &stream, &protocol, None, &mut |_| {}).unwrap();
        kept.2
    }

    /// LwF that keeps the parameters after so many tasks.
    struct Kept<'a>(&'a mut Lwf<Net>, usize, Vec<Vec<f32>>);

    impl Strategy<Net> for Kept<'_> {
        fn begin(&mut self, model: Net, at: &Stage<'_>) -> Result<Net> {
            self.0.begin(model, at)
        }
        fn losses(&mut self, model: &Net, batch: &[Example], at: &Stage<'_>) -> Result<Tensor<1>> {
            self.0.losses(model, batch, at)
        }
        fn stepped(&mut self, model: Net, batch: &[Example], at: &Stage<'_>) -> Result<Net> {
            self.0.stepped(model, batch, at)
        }
        fn end(&mut self, model: Net, at: &Stage<'_>) -> Result<Net> {
            if at.task + 1 == self.1 {
                self.2 = Vector::of(&model).to_host();
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
        assert!(Lwf::<Net>::new(1.0, 2.0).unwrap().with_warm_up(f64::NAN).is_err());
    }
}
