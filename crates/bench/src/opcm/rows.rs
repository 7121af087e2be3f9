//! Fills the OPCM table: a cell is one seed, with all orders and methods.

use std::collections::BTreeMap;
use std::time::Instant;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use regrow_merging::opcm::Difference;
use regrow_merging::{Opcm, Operand, Operands, TaskArithmetic, TensorMerge, Ties};
use regrow_sparse_core::Result;
use regrow_sparse_core::seed::mix;

use super::Plan;
use crate::record::Record;
use crate::tasks::Family;

/// The parent on all tasks.
pub const PARENT: &str = "parent";
/// Each task's own model.
pub const OWN: &str = "own model";
/// The method.
pub const OPCM: &str = "OPCM";
/// The same without projection: sums scaled to the mean norm.
pub const SCALED: &str = "OPCM without projection";
/// From all models so far.
pub const AVERAGE: &str = "average";
/// From all models so far, the factor of the authors' code.
pub const ARITHMETIC: &str = "task arithmetic, 0.3";
/// From all models so far, the factor chosen on held-out images of the tasks so far.
pub const ARITHMETIC_CHOSEN: &str = "task arithmetic, chosen";
/// From all models so far, a fifth kept, the factor chosen likewise.
pub const TIES_CHOSEN: &str = "TIES, chosen";
/// A finding: numbers that must be kept until the next model arrives, over those of one model.
pub const KEPT: &str = "models kept";
/// A finding's beginning: accuracy on the tasks so far after so many models.
pub const AFTER: &str = "after ";
/// A finding: accuracy of the first task's images after all models less after its own.
pub const FIRST: &str = "first task, change";

/// Factors for sums of differences, to choose from.
const LAMBDAS: [f64; 8] = [0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0];

/// The models of one seed.
struct Children<'a> {
    plan: &'a Plan,
    family: Family<'a>,
    differences: Vec<Vec<Vec<f32>>>,
    seed: u64,
}

/// A merged difference to the parent.
type Merged = Vec<Vec<f32>>;

/// Merges the models of these numbers anew.
type Again<'a> = dyn Fn(&[usize]) -> Result<Merged> + 'a;

/// The rows of one seed.
pub fn of_seed(plan: &Plan, family: Family<'_>, seed: u64) -> Result<Vec<Record>> {
    let kin = &plan.kin;
    let learn = |task: usize| {
        let net = family.learn(family.trainable(), task, kin.tune, plan.rate, mix(seed, 1))?;
        Ok(family.differences(&net))
    };
    let differences = (0..kin.count).map(learn).collect::<Result<Vec<_>>>()?;
    let none: Merged = family.base.iter().map(|b| vec![0.0; b.len()]).collect();
    let (parent, own) = (family.together(&none, |task| &task.test), family.apart(&differences));
    let children = Children { plan, family, differences, seed };
    let mut rows = Vec::new();
    for order in 0..plan.orders {
        let mut line: Vec<usize> = (0..kin.count).collect();
        line.shuffle(&mut ChaCha8Rng::seed_from_u64(mix(seed, 1000 + order as u64)));
        rows.push(children.record(PARENT, order, parent, 0.0, BTreeMap::new()));
        rows.push(children.record(OWN, order, own, 0.0, BTreeMap::new()));
        rows.extend(children.in_order(order, &line)?);
    }
    Ok(rows)
}

impl Children<'_> {
    /// A row; `m` counts orders from 1.
    fn record(&self, method: &str, order: usize, value: f64, seconds: f64, findings: BTreeMap<String, f64>) -> Record {
        Record { m: order + 1, findings, ..Record::new(method, 0.0, self.seed, value, seconds) }
    }

    fn in_order(&self, order: usize, line: &[usize]) -> Result<Vec<Record>> {
        let mut rows = Vec::new();
        for (name, matrices) in [(OPCM, true), (SCALED, false)] {
            let started = Instant::now();
            let steps = self.one_by_one(line, matrices)?;
            let seconds = started.elapsed().as_secs_f64();
            rows.push(self.judged(name, order, line, &steps, 1.0, seconds));
        }
        let again: [(&str, &Again<'_>, f64); 4] = [
            (AVERAGE, &|so_far| self.sum(so_far, 1.0 / so_far.len() as f64), 1.0),
            (ARITHMETIC, &|so_far| self.sum(so_far, 0.3), 1.0),
            (ARITHMETIC_CHOSEN, &|so_far| self.chosen(so_far, &|lambda| self.sum(so_far, lambda)), 1.0),
            (TIES_CHOSEN, &|so_far| self.chosen(so_far, &|lambda| self.ties(so_far, lambda)), line.len() as f64),
        ];
        for (name, merge, kept) in again {
            let started = Instant::now();
            let steps = (1..=line.len()).map(|t| merge(&line[..t])).collect::<Result<Vec<_>>>()?;
            let seconds = started.elapsed().as_secs_f64();
            rows.push(self.judged(name, order, line, &steps, kept, seconds));
        }
        Ok(rows)
    }

    /// The merged difference after each model.
    fn one_by_one(&self, line: &[usize], matrices: bool) -> Result<Vec<Merged>> {
        let empty = |shape: &Vec<usize>| Difference {
            values: vec![0.0; shape.iter().product()],
            matrix: <[usize; 2]>::try_from(shape.clone()).ok().filter(|_| matrices),
        };
        let mut merged: Vec<Difference> = self.family.shapes.iter().map(empty).collect();
        let (opcm, mut state, mut steps) = (Opcm::new(self.plan.alpha)?, None, Vec::new());
        for task in line {
            state = Some(opcm.add(state, &mut merged, &self.differences[*task])?);
            steps.push(merged.iter().map(|d| d.values.clone()).collect());
        }
        Ok(steps)
    }

    /// What became of the tasks, after each model and after all.
    fn judged(&self, name: &str, order: usize, line: &[usize], steps: &[Merged], kept: f64, seconds: f64) -> Record {
        let on = |merged: &Merged, tasks: &[usize]| {
            let net = self.family.with(merged);
            let of = |task: &usize| self.family.lab.accuracy(&net, &self.family.tasks[*task].test);
            tasks.iter().map(of).sum::<f64>() / tasks.len() as f64
        };
        let mut findings = BTreeMap::from([(KEPT.to_string(), kept)]);
        for (t, merged) in steps.iter().enumerate() {
            findings.insert(format!("{AFTER}{:02}", t + 1), on(merged, &line[..=t]));
        }
        let last = &steps[steps.len() - 1];
        findings.insert(FIRST.into(), on(last, &line[..1]) - on(&steps[0], &line[..1]));
        self.record(name, order, on(last, line), seconds, findings)
    }

    /// `lambda` times the sum of the differences of these tasks.
    fn sum(&self, tasks: &[usize], lambda: f64) -> Result<Merged> {
        self.merged(tasks, &TaskArithmetic::new(vec![1.0; tasks.len()], lambda))
    }

    fn ties(&self, tasks: &[usize], lambda: f64) -> Result<Merged> {
        self.merged(tasks, &Ties::new(vec![1.0; tasks.len()], vec![0.2; tasks.len()], lambda)?)
    }

    fn merged(&self, tasks: &[usize], method: &dyn TensorMerge) -> Result<Merged> {
        let one = |l: usize| {
            let names: Vec<String> = tasks.iter().map(|task| format!("task {task}")).collect();
            let of = tasks.iter().zip(&names).map(|(task, name)| Operand::new(name, &self.differences[*task][l]));
            let models: Vec<Operand<'_>> = of.collect();
            let base = vec![0.0; self.family.base[l].len()];
            method.merge(&Operands::new(&self.family.names[l], &self.family.shapes[l], Some(&base), &models)?)
        };
        (0..self.family.shapes.len()).map(one).collect()
    }

    /// With the factor that is best on held-out images of these tasks.
    fn chosen(&self, tasks: &[usize], merged: &dyn Fn(f64) -> Result<Merged>) -> Result<Merged> {
        let mut best = (f64::NEG_INFINITY, Vec::new());
        for lambda in LAMBDAS {
            let merged = merged(lambda)?;
            let net = self.family.with(&merged);
            let on = |task: &usize| self.family.lab.accuracy(&net, &self.family.tasks[*task].held);
            let held: f64 = tasks.iter().map(on).sum();
            if held > best.0 {
                best = (held, merged);
            }
        }
        Ok(best.1)
    }
}
