//! A network for each task, each trained from the initial network: the upper bound of methods that keep tasks apart.
//! Nothing is shared and nothing is forgotten; every task adds a whole network.

use regrow_sparse_core::Result;
use regrow_sparse_core::registry::MethodInfo;
use regrow_sparse_core::state::State;
use regrow_train::classifier::Headed;

use crate::params::ParameterVector;
use crate::registry::TASK_SCENARIO;
use crate::strategy::{Strategy, TaskContext};
use crate::stream::Scenario;

/// The registry's entry.
pub const INFO: MethodInfo = MethodInfo {
    kind: "strategy",
    name: "separate",
    summary: "a network for each task, all from the same start",
    paper: "baseline",
    needs: TASK_SCENARIO,
    params: &[],
};

/// A network for each task.
#[derive(Clone, Debug, Default)]
pub struct Separate {
    /// The network before the first task.
    start: Option<ParameterVector>,
    /// The networks after each task.
    own: Vec<ParameterVector>,
}

impl<M: Headed> Strategy<M> for Separate {
    fn fits(&self, scenario: Scenario) -> bool {
        scenario == Scenario::Task
    }

    fn begin_task(&mut self, model: M, _at: &TaskContext<'_>) -> Result<M> {
        Ok(self.start.get_or_insert_with(|| ParameterVector::of(&model)).clone().put(model))
    }

    fn end_task(&mut self, model: M, _at: &TaskContext<'_>) -> Result<M> {
        self.own.push(ParameterVector::of(&model));
        Ok(model)
    }

    fn eval_model(&self, model: &M, task: usize) -> Result<M> {
        Ok(self.own.get(task).map_or_else(|| model.clone(), |own| own.clone().put(model.clone())))
    }

    fn added(&self) -> usize {
        self.own.iter().map(ParameterVector::len).sum()
    }

    fn state(&self) -> State {
        let mut state = State::default();
        let Some(start) = &self.start else { return state };
        state.set_integer("tasks", self.own.len() as u64);
        state.set_nested("start", start.to_state());
        self.own.iter().enumerate().for_each(|(task, own)| state.set_nested(&format!("task.{task}"), own.to_state()));
        state
    }

    fn restore(&mut self, mut state: State, model: &M, _at: &TaskContext<'_>) -> Result<()> {
        if state.is_empty() {
            return Ok(());
        }
        let tasks = state.integer("tasks")?;
        let mut read = |name: &str| ParameterVector::from_state(state.take_nested(name), model);
        self.start = Some(read("start")?);
        self.own = (0..tasks).map(|task| read(&format!("task.{task}"))).collect::<Result<_>>()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use burn::optim::SgdConfig;
    use regrow_train::lr::LrSchedule;

    use super::*;
    use crate::learn::{Protocol, learn};
    use crate::testing::{Toy, context, net};

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
        assert_eq!(Strategy::<crate::testing::Net>::added(&separate), 3 * ParameterVector::of(&start).len());
        let firsts: Vec<Vec<f32>> = separate.own.iter().map(|own| own.to_host()[0].clone()).collect();
        assert!(firsts[0] != firsts[1] && firsts[1] != firsts[2]);
        let mut back = Separate::default();
        let state = Strategy::<crate::testing::Net>::state(&separate);
        let device = regrow_device::current();
        let at = TaskContext { task: 2, ..context(&stream, scope, 5, &device) };
        back.restore(state.clone(), &start, &at).unwrap();
        assert_eq!(Strategy::<crate::testing::Net>::state(&back), state);
        assert!(back.restore(state, &net(9, 7, 6, 4), &at).is_err(), "another network's");
    }
}
