//! Fills the RMM table: a cell is one seed, with all ranks and methods.

use std::time::Instant;

use regrow_merging::rmm::{Align, Granularity};
use regrow_merging::{
    DareConfig, LowRank, Operand, Operands, Rmm, RmmConfig, TaskArithmeticConfig, TensorMerge, TiesConfig,
};
use regrow_sparse_core::Result;

use super::RmmTable;
use super::models::{Child, by_lora, by_svd, whole};
use crate::harness::record::Record;
use crate::harness::tasks::Family;

/// The parent on all tasks.
pub const PARENT: &str = "parent";
/// Each task's own model, with all matrices trained and none truncated.
pub const OWN_WHOLE: &str = "own model, not cut";
/// Each task's own low-rank model.
pub const OWN: &str = "own model";
/// What is merged into one model.
pub const WHAT: [&str; 3] = ["not cut", "products", "factors"];
/// How models are merged into one.
pub const RULES: [&str; 4] = ["average", "task arithmetic", "TIES", "DARE"];
/// Basis models.
pub const BASES: [usize; 3] = [1, 2, 3];
/// LoRA and SVD, as patterns of the records.
pub const WAYS: [&str; 2] = ["LoRA", "SVD"];
/// A finding: number of values stored relative to those of all fine-tuned models.
pub const STORAGE: &str = "storage";
/// A finding: the Frobenius norm of the models' errors relative to that of their differences.
pub const ERROR: &str = "relative error";
/// A finding: the factor that was best on held-out images.
const LAMBDA: &str = "lambda";

/// Factors for merged differences, to choose by held-out images.
const LAMBDAS: [f64; 8] = [0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0];

/// Every variant of RMM in the table, by name, without the number of basis models.
pub fn reversible(rank: usize) -> Result<Vec<(&'static str, Rmm)>> {
    let by = |granularity| RmmConfig::new().with_granularity(granularity);
    Ok(vec![
        ("RMM", Rmm::new(Granularity::Position)),
        ("RMM centred", by(Granularity::Position).with_centred(true).init()?),
        ("RMM aligned", by(Granularity::Position).with_align(Align::Procrustes).init()?),
        ("RMM by layer", Rmm::new(Granularity::Layer)),
        ("RMM by layer, aligned", by(Granularity::Layer).with_align(Align::Procrustes).init()?),
        ("RMM by product", by(Granularity::Product).with_rank(Some(rank)).init()?),
    ])
}

/// The rows of one seed.
pub fn of_seed(plan: &RmmTable, family: &Family<'_>, seed: u64) -> Result<Vec<Record>> {
    let whole = whole(family, plan, seed)?;
    let none: Vec<Vec<f32>> = family.base.iter().map(|b| vec![0.0; b.len()]).collect();
    let (parent, own) = (family.together(&none, |task| &task.test), family.apart(&whole));
    let mut rows = Vec::new();
    for rank in &plan.ranks {
        let children = [by_lora(family, plan, *rank, seed)?, by_svd(family, &whole, *rank)?];
        for (way, children) in WAYS.into_iter().zip(children) {
            let cell = Cell { family, way, rank: *rank, seed };
            rows.push(cell.record(PARENT, parent, Instant::now()));
            if way == "SVD" {
                rows.push(cell.record(OWN_WHOLE, own, Instant::now()));
                rows.extend(cell.as_one(WHAT[0], |task| whole[task].clone())?);
            }
            rows.extend(cell.rows(&children)?);
        }
    }
    Ok(rows)
}

/// The fine-tuned models of one low-rank form and rank.
struct Cell<'a> {
    family: &'a Family<'a>,
    way: &'static str,
    rank: usize,
    seed: u64,
}

impl Cell<'_> {
    fn record(&self, method: &str, value: f64, started: Instant) -> Record {
        let row = Record::new(method, 0.0, self.seed, value, started.elapsed().as_secs_f64());
        Record { pattern: self.way.into(), m: self.rank, ..row }
    }

    fn rows(&self, children: &[Child]) -> Result<Vec<Record>> {
        let started = Instant::now();
        let products: Vec<Vec<Vec<f32>>> = children.iter().map(|c| c.iter().map(LowRank::dense).collect()).collect();
        let mut rows = vec![self.record(OWN, self.family.apart(&products), started)];
        rows.extend(self.as_one(WHAT[1], |task| products[task].clone())?);
        rows.extend(self.factors_as_one(children)?);
        for (name, rmm) in reversible(self.rank)? {
            for basis in BASES.into_iter().filter(|p| *p <= children.len()) {
                rows.push(self.reverted(name, &rmm, basis, children)?);
            }
        }
        Ok(rows)
    }

    /// Every rule on whole differences, the factor chosen on held-out images.
    fn as_one(&self, what: &str, of: impl Fn(usize) -> Vec<Vec<f32>>) -> Result<Vec<Record>> {
        let shapes = &self.family.shapes;
        let models: Vec<Vec<Vec<f32>>> = (0..self.family.tasks.len()).map(of).collect();
        let merged = |rule: &str, lambda: f64| {
            let matrix = |l: usize| {
                let of_layer: Vec<&[f32]> = models.iter().map(|m| m[l].as_slice()).collect();
                merge(rule, lambda, self.seed, &self.family.names[l], &shapes[l], &of_layer)
            };
            (0..shapes.len()).map(matrix).collect::<Result<Vec<_>>>()
        };
        RULES.iter().map(|rule| self.chosen(rule, what, |lambda| merged(rule, lambda))).collect()
    }

    /// Every rule on left and on right factors.
    fn factors_as_one(&self, children: &[Child]) -> Result<Vec<Record>> {
        let merged = |rule: &str, lambda: f64| {
            let matrix = |l: usize| {
                let name = &self.family.names[l];
                let of = |side: fn(&LowRank) -> &[f32]| children.iter().map(|c| side(&c[l])).collect::<Vec<_>>();
                let ([m, d], r) = (children[0][l].shape(), children[0][l].rank());
                let left = merge(rule, lambda, self.seed, &format!("{name} left"), &[m, r], &of(LowRank::left))?;
                let right = merge(rule, lambda, self.seed, &format!("{name} right"), &[r, d], &of(LowRank::right))?;
                Ok(LowRank::new(left, right, [m, r, d])?.dense())
            };
            (0..self.family.shapes.len()).map(matrix).collect::<Result<Vec<_>>>()
        };
        RULES.iter().map(|rule| self.chosen(rule, WHAT[2], |lambda| merged(rule, lambda))).collect()
    }

    fn chosen(&self, rule: &str, what: &str, merged: impl Fn(f64) -> Result<Vec<Vec<f32>>>) -> Result<Record> {
        let started = Instant::now();
        let factors = if rule == "average" { &[1.0][..] } else { &LAMBDAS[..] };
        let mut best = (f64::NEG_INFINITY, 0.0, Vec::new());
        for lambda in factors {
            let merged = merged(*lambda)?;
            let held = self.family.together(&merged, |task| &task.held);
            if held > best.0 {
                best = (held, *lambda, merged);
            }
        }
        let value = self.family.together(&best.2, |task| &task.test);
        let findings = [(LAMBDA.into(), best.1), (STORAGE.into(), 1.0 / self.family.tasks.len() as f64)].into();
        Ok(Record { findings, ..self.record(&format!("{rule}, {what}"), value, started) })
    }

    /// Each task by its model rebuilt from `basis` basis models.
    fn reverted(&self, name: &str, rmm: &Rmm, basis: usize, children: &[Child]) -> Result<Record> {
        let started = Instant::now();
        let mut rebuilt = vec![Vec::new(); children.len()];
        let (mut lost, mut norm, mut kept, mut all) = (0.0, 0.0, 0, 0);
        for layer in 0..self.family.shapes.len() {
            let models: Vec<LowRank> = children.iter().map(|c| c[layer].clone()).collect();
            norm += models.iter().map(LowRank::squared_norm).sum::<f64>();
            all += models.iter().map(LowRank::numbers).sum::<usize>();
            let space = rmm.solve(models.clone())?.space(basis)?;
            lost += space.squared_errors(&models)?.iter().sum::<f64>();
            kept += space.numbers();
            for (task, rebuilt) in rebuilt.iter_mut().enumerate() {
                rebuilt.push(space.revert(task)?.dense());
            }
        }
        let findings = [(STORAGE.into(), kept as f64 / all as f64), (ERROR.into(), (lost / norm).sqrt())].into();
        let method = format!("{name}, {basis}");
        Ok(Record { findings, ..self.record(&method, self.family.apart(&rebuilt), started) })
    }
}

/// Merges one tensor of all models into one, as a difference to zero.
fn merge(rule: &str, lambda: f64, seed: u64, name: &str, shape: &[usize], models: &[&[f32]]) -> Result<Vec<f32>> {
    let n = models.len();
    let method: Box<dyn TensorMerge> = match rule {
        "average" => Box::new(TaskArithmeticConfig::new().with_weight((1.0 / n as f64).into()).init(n)?),
        "task arithmetic" => Box::new(TaskArithmeticConfig::new().with_lambda(lambda).init(n)?),
        "TIES" => Box::new(TiesConfig::new().with_density(0.2.into()).with_lambda(lambda).init(n)?),
        _ => Box::new(DareConfig::new().with_density(0.5.into()).with_lambda(lambda).with_seed(seed).init(n)?),
    };
    let names: Vec<String> = (0..n).map(|i| format!("task {i}")).collect();
    let operands: Vec<Operand<'_>> =
        names.iter().zip(models).map(|(name, values)| Operand::new(name, values)).collect();
    let base = vec![0.0; models[0].len()];
    method.merge(&Operands::new(name, shape, Some(&base), &operands)?)
}
