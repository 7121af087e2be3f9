//! Fine-tuned models that arrive one after another: used to measure continual merging.

use std::time::Instant;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use regrow_merging::TensorMerge;
use regrow_sparse_core::Result;
use regrow_sparse_core::seed::mix;

use crate::harness::record::Record;
use crate::harness::tasks::Family;

/// A difference to the parent, tensor by tensor.
pub type Merged = Vec<Vec<f32>>;

/// A finding: how many values must be kept until the next model arrives, relative to those of one model.
pub const KEPT: &str = "models kept";
/// A finding: the change in accuracy on the first task's images between its own model and the last.
pub const FIRST: &str = "first task, change";

/// The finding that holds the accuracy on the tasks so far after `t` models.
pub fn finding_after(t: usize) -> String {
    format!("after {t:02}")
}

/// The models of one seed, in one order.
pub struct Arrivals<'a> {
    /// Their parent and tasks.
    pub family: &'a Family<'a>,
    /// Their differences to it, task by task.
    pub models: &'a [Merged],
    /// The order in which they arrive.
    pub line: Vec<usize>,
    seed: u64,
    order: usize,
}

impl<'a> Arrivals<'a> {
    /// The models of `seed` in its order number `order`.
    pub fn new(family: &'a Family<'a>, models: &'a [Merged], seed: u64, order: usize) -> Self {
        let mut line: Vec<usize> = (0..models.len()).collect();
        line.shuffle(&mut ChaCha8Rng::seed_from_u64(mix(seed, 1000 + order as u64)));
        Self { family, models, line, seed, order }
    }

    /// The models of these tasks, merged by `method`.
    ///
    /// # Errors
    /// Those of the method.
    pub fn merged(&self, tasks: &[usize], method: &dyn TensorMerge) -> Result<Merged> {
        self.family.merged(&tasks.iter().map(|task| &self.models[*task]).collect::<Vec<_>>(), method)
    }

    /// A row measured without merging; `m` counts orders from 1.
    pub fn constant(&self, name: &str, value: f64) -> Record {
        Record { m: self.order + 1, ..Record::new(name, 0.0, self.seed, value, 0.0) }
    }

    /// The row of a method that merges all models so far each time and must keep the values of `kept` models.
    ///
    /// # Errors
    /// Errors of `merge`.
    pub fn remerged(&self, name: &str, kept: usize, merge: impl Fn(&[usize]) -> Result<Merged>) -> Result<Record> {
        self.row(name, kept, || (1..=self.line.len()).map(|t| merge(&self.line[..t])).collect())
    }

    /// The row of a method whose `steps` are the merged differences after each model.
    ///
    /// # Errors
    /// Errors of `steps`.
    pub fn row(&self, name: &str, kept: usize, steps: impl FnOnce() -> Result<Vec<Merged>>) -> Result<Record> {
        let (started, steps) = (Instant::now(), steps()?);
        let (seconds, all) = (started.elapsed().as_secs_f64(), self.line.len());
        let on = |t: usize, of: usize| self.family.accuracy_on(&self.line[..of], &steps[t - 1], |task| &task.test);
        let along = (1..=all).map(|t| (finding_after(t), on(t, t)));
        let beside = [(KEPT.to_string(), kept as f64), (FIRST.to_string(), on(all, 1) - on(1, 1))];
        let findings = along.chain(beside).collect();
        Ok(Record { seconds, findings, ..self.constant(name, on(all, all)) })
    }
}
