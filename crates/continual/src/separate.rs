//! A network for each task, all from the one that the stream began with: the upper bound of methods that
//! keep tasks apart. Nothing is shared and nothing forgotten; every task adds a whole network.

use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Headed;

use crate::params::Vector;
use crate::strategy::{Stage, Strategy};
use crate::stream::Scenario;

/// A network for each task.
#[derive(Clone, Debug, Default)]
pub struct Separate {
    /// The network before the first task.
    start: Option<Vector>,
    /// Those after each.
    own: Vec<Vector>,
}

impl<M: Headed> Strategy<M> for Separate {
    fn fits(&self, scenario: Scenario) -> bool {
        scenario == Scenario::Task
    }

    fn begin(&mut self, model: M, _at: &Stage<'_>) -> Result<M> {
        Ok(self.start.get_or_insert_with(|| Vector::of(&model)).clone().put(model))
    }

    fn end(&mut self, model: M, _at: &Stage<'_>) -> Result<M> {
        self.own.push(Vector::of(&model));
        Ok(model)
    }

    fn shown(&self, model: &M, task: usize) -> Result<M> {
        Ok(self.own.get(task).map_or_else(|| model.clone(), |own| own.clone().put(model.clone())))
    }

    fn added(&self) -> usize {
        self.own.iter().map(Vector::len).sum()
    }

    fn state(&self) -> Vec<Vec<f32>> {
        self.start.iter().chain(&self.own).flat_map(Vector::to_host).collect()
    }

    fn restore(&mut self, state: Vec<Vec<f32>>, model: &M, _at: &Stage<'_>) -> Result<()> {
        let tensors = Vector::of(model).to_host().len();
        if !state.len().is_multiple_of(tensors.max(1)) {
            return Err(Error::Argument("a saved state belongs to another network".into()));
        }
        let one = |numbers: &[Vec<f32>]| Vector::from_host(numbers.to_vec(), model);
        let mut all = state.chunks(tensors.max(1)).map(one).collect::<Result<Vec<_>>>()?.into_iter();
        (self.start, self.own) = (all.next(), all.collect());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use burn::optim::SgdConfig;
    use regrow_train::lr::LrSchedule;

    use super::*;
    use crate::learn::{Protocol, learn};
    use crate::testing::{Toy, net};

    #[test]
    fn a_task_learns_what_it_would_learn_alone_and_nothing_is_forgotten() {
        let data = Toy::new(60, 6);
        let stream = data.split(Scenario::Task, 3);
        let scope = Scenario::Task.default_scope();
        let protocol = Protocol { epochs: 4, batch: 5, lr: LrSchedule::constant(0.05), seed: 3, scope };
        let mut separate = Separate::default();
        let sgd = SgdConfig::new().build();
        let start = net(9, 8, 6, 4);
        let learned = learn(start.clone(), &sgd, &mut separate, &stream, &protocol, None, &mut |_| {}).unwrap();
        assert_eq!(learned.matrix.forgetting(), Some(0.0));
        assert_eq!(Strategy::<crate::testing::Net>::added(&separate), 3 * Vector::of(&start).len());
        let firsts: Vec<Vec<f32>> = separate.own.iter().map(|own| own.to_host()[0].clone()).collect();
        assert!(firsts[0] != firsts[1] && firsts[1] != firsts[2]);
        let mut back = Separate::default();
        let state = Strategy::<crate::testing::Net>::state(&separate);
        let bad = state[1..].to_vec();
        let device = regrow_device::current();
        let moment = regrow_train::Moment { seed: 0, step: 0, total: 0 };
        let at = Stage { stream: &stream, task: 2, scope, batch: 5, moment, device: &device };
        back.restore(state.clone(), &start, &at).unwrap();
        assert_eq!(Strategy::<crate::testing::Net>::state(&back), state);
        assert!(back.restore(bad, &start, &at).is_err());
    }
}
