//! Reweighting on least squares: how many steps loss-based weights of examples (arXiv 2502.06733) save,
//! and whether ScaleBiO's weights of sources (arXiv 2406.19976) find the noisy ones.
//!
//! Examples: 1000 rows of 10 numbers, interpolated by one vector; in nine of ten rows all but two numbers are twenty
//! times smaller, so that most rows are redundant. All rows have length 1 (the setting in which the method helps) or,
//! as a counter-example, lengths drawn log-normally. SGD from zero on batches of 32; the result is the number of steps
//! until the mean squared distance to the solution is below 1e-4.
//!
//! Sources: 500 rows each, labelled by the true vector, with noise, by another vector, by its negative.

use std::time::Instant;

use rand::RngExt;
use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use regrow_reweighting::{
    BatchSources, FixedWeights, LossBased, LossBasedConfig, LossShape, SampleWeighter, ScaleBiOConfig, SourceWeighter,
};
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::harness::paper::Paper;
use crate::harness::picture::{self, Line};
use crate::harness::record::{Measure, Record, mean_std, spread, values};
use crate::harness::render::{self, Outcome};
use crate::harness::row_store::RowStore;

use super::Args;

/// Everything that determines the table's numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Plan {
    dataset: String,
    rates: Vec<f64>,
    most: usize,
    seeds: (u64, u64),
}

const DIM: usize = 10;
const ROWS: usize = 1000;
const BATCH: usize = 32;
/// The mean squared distance to the solution at which a run is done.
const TARGET: f64 = 1e-4;
/// The suffix of a method's name if rows have unequal lengths.
const UNEQUAL: &str = ", unequal lengths";

/// The weighting methods, as rows of the table.
fn ways() -> Vec<(String, LossShape, f64)> {
    let heated = |shape: LossShape| [1.0, 0.4].map(|r| (format!("{}, r {r}", shape.name()), shape, r));
    let shapes = [LossShape::LinearUpper, LossShape::Quadratic, LossShape::Upper, LossShape::Extremes];
    std::iter::once(("uniform".to_string(), LossShape::Uniform, 1.0))
        .chain(shapes.into_iter().flat_map(heated))
        .collect()
}

/// Runs this part of the table.
///
/// # Errors
/// Impossible settings, an output folder that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    if args.most == 0 || args.rates.is_empty() || args.rates.iter().any(|r| !(*r > 0.0 && r.is_finite())) {
        return Err(Error::Argument("the table needs at least one step and learning rates above 0".into()));
    }
    let seeds = (args.common.first_seed, args.common.seeds);
    let plan = Plan { dataset: "least squares".into(), rates: args.rates.clone(), most: args.most, seeds };
    let started = Instant::now();
    let mut store = RowStore::open(&args.common.out, "reweighting", &plan, args.common.resume)?;
    for seed in seeds.0..seeds.0 + seeds.1 {
        if store.rows.iter().any(|row| row.seed == seed) {
            continue;
        }
        let mut rows = Vec::new();
        for equal in [true, false] {
            let problem = Problem::new(equal, seed);
            for (name, shape, r) in ways() {
                rows.push(cell(&plan, &problem, (name, shape, r), equal, seed)?);
            }
        }
        store.add(&plan, rows)?;
    }
    let notes = sources(&plan)?;
    print(&plan, &store.finish()?, &notes, args, started.elapsed().as_secs_f64())
}

/// Rows and their labels, and the vector that made them.
struct Problem {
    rows: Vec<[f64; DIM]>,
    truth: [f64; DIM],
}

/// A number of the standard normal distribution (Box & Muller).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

fn vector(rng: &mut ChaCha8Rng) -> [f64; DIM] {
    std::array::from_fn(|_| normal(rng))
}

fn dot(a: &[f64; DIM], b: &[f64; DIM]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Problem {
    fn new(equal: bool, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(mix(seed, 1));
        let truth = vector(&mut rng);
        let row = |i: usize| {
            let mut row = vector(&mut rng);
            if !i.is_multiple_of(10) {
                row[2..].iter_mut().for_each(|x| *x *= 0.05);
            }
            let length = if equal { 1.0 } else { (0.8 * normal(&mut rng)).exp() };
            let scale = length / dot(&row, &row).sqrt();
            row.map(|x| x * scale)
        };
        Self { rows: (0..ROWS).map(row).collect(), truth }
    }

    /// Steps until the target, at most `most`.
    fn steps(&self, weighter: &mut LossBased, rate: f64, most: usize, seed: u64) -> Result<usize> {
        let (mut w, mut rng) = ([0.0; DIM], ChaCha8Rng::seed_from_u64(mix(seed, 2)));
        for step in 0..most {
            let apart: f64 = w.iter().zip(&self.truth).map(|(a, b)| (a - b) * (a - b)).sum::<f64>() / DIM as f64;
            if apart < TARGET {
                return Ok(step);
            }
            if !apart.is_finite() || apart > 1e12 {
                return Ok(most);
            }
            let batch: Vec<&[f64; DIM]> =
                index::sample(&mut rng, ROWS, BATCH).into_iter().map(|i| &self.rows[i]).collect();
            let errors: Vec<f64> = batch.iter().map(|x| dot(x, &w) - dot(x, &self.truth)).collect();
            let losses: Vec<f64> = errors.iter().map(|e| 0.5 * e * e).collect();
            for ((x, e), weight) in batch.iter().zip(&errors).zip(weighter.weigh(&losses)?) {
                w.iter_mut().zip(*x).for_each(|(w, x)| *w -= rate * weight * e * x);
            }
        }
        Ok(most)
    }
}

/// The row of one weighting method: its steps at the learning rate that is best for it.
fn cell(
    plan: &Plan,
    problem: &Problem,
    (name, shape, r): (String, LossShape, f64),
    equal: bool,
    seed: u64,
) -> Result<Record> {
    let started = Instant::now();
    let weighter = LossBasedConfig::new().with_shape(shape).with_temperature(r).init()?;
    let at = |rate: &f64| Ok((*rate, problem.steps(&mut weighter.clone(), *rate, plan.most, seed)?));
    let steps = plan.rates.iter().map(at).collect::<Result<Vec<_>>>()?;
    let best = steps.iter().map(|(_, steps)| *steps).min().unwrap_or(plan.most);
    let name = if equal { name } else { name + UNEQUAL };
    let findings = steps.into_iter().map(|(rate, steps)| (at_rate(rate), steps as f64)).collect();
    Ok(Record { findings, ..Record::new(&name, 0.0, seed, best as f64, started.elapsed().as_secs_f64()) })
}

fn at_rate(rate: f64) -> String {
    format!("steps at rate {rate}")
}

/// Sources by name: how their labels are generated.
const SOURCES: [&str; 5] = ["clean", "clean too", "noisy", "another vector", "negative"];

/// ScaleBiO's weights, and the result of training with them, in words.
fn sources(plan: &Plan) -> Result<Vec<String>> {
    let (mut found, mut errors) = (vec![Vec::new(); SOURCES.len()], vec![Vec::new(); 3]);
    for seed in plan.seeds.0..plan.seeds.0 + plan.seeds.1 {
        let pool = Pool::new(seed);
        let mut bilevel = ScaleBiOConfig::new(SOURCES.len()).with_learning_rate(0.02).init()?;
        let alpha = bilevel.alpha();
        pool.train(&mut bilevel, alpha, seed)?;
        found.iter_mut().zip(bilevel.weights()).for_each(|(all, p)| all.push(*p));
        let oracle = FixedWeights::given(&[1.0, 1.0, 0.0, 0.0, 0.0])?;
        let learned = FixedWeights::given(bilevel.weights())?;
        for (all, mut weighter) in errors.iter_mut().zip([FixedWeights::uniform(SOURCES.len())?, learned, oracle]) {
            let w = pool.train(&mut weighter, 0.0, seed)?;
            all.push(w.iter().zip(&pool.truth).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / DIM as f64);
        }
    }
    let shown = |values: &Vec<f64>, digits: usize| {
        let (mean, std) = mean_std(values);
        format!("{mean:.digits$} ± {std:.digits$}")
    };
    let weights: Vec<String> = SOURCES.iter().zip(&found).map(|(s, p)| format!("{s} {}", shown(p, 3))).collect();
    let trained: Vec<String> = ["uniform", "ScaleBiO's", "the clean ones only"]
        .iter()
        .zip(&errors)
        .map(|(by, e)| format!("{by} {}", shown(e, 4)))
        .collect();
    Ok(vec![
        format!("ScaleBiO's weights of five sources (uniform and proportional: 0.2 each): {}", weights.join(", ")),
        format!("mean squared distance to the solution, trained with weights: {}", trained.join(", ")),
    ])
}

/// Five sources of rows and labels, and a small clean validation set.
struct Pool {
    rows: Vec<([f64; DIM], f64, usize)>,
    validation: Vec<([f64; DIM], f64)>,
    truth: [f64; DIM],
}

impl Pool {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(mix(seed, 3));
        let (truth, other) = (vector(&mut rng), vector(&mut rng));
        let mut row = |source: usize| {
            let x = vector(&mut rng);
            let noise = 3.0 * normal(&mut rng);
            let y = match source {
                0 | 1 => dot(&x, &truth),
                2 => dot(&x, &truth) + noise,
                3 => dot(&x, &other),
                _ => -dot(&x, &truth),
            };
            (x, y, source)
        };
        let rows = (0..500 * SOURCES.len()).map(|i| row(i % SOURCES.len())).collect();
        let validation = (0..50).map(|_| row(0)).map(|(x, y, _)| (x, y)).collect();
        Self { rows, validation, truth }
    }

    /// Trains two vectors by `weighter`, one of them also on the validation set if `alpha` is above 0; returns the
    /// other, which never used it.
    fn train(&self, weighter: &mut impl SourceWeighter, alpha: f64, seed: u64) -> Result<[f64; DIM]> {
        let (mut u, mut w, rate) = ([0.0; DIM], [0.0; DIM], 0.02);
        let mut rng = ChaCha8Rng::seed_from_u64(mix(seed, 4));
        for _ in 0..1500 {
            let batch: Vec<_> =
                index::sample(&mut rng, self.rows.len(), 64).into_iter().map(|i| self.rows[i]).collect();
            let of: Vec<usize> = batch.iter().map(|(_, _, source)| *source).collect();
            let sources = BatchSources::new(&of, SOURCES.len())?;
            let factors = sources.factors(weighter.weights())?;
            let losses =
                |v: &[f64; DIM]| -> Vec<f64> { batch.iter().map(|(x, y, _)| 0.5 * (dot(x, v) - y).powi(2)).collect() };
            let means = sources.mean_losses(&losses(&w), &losses(&u))?;
            let train = |v: &[f64; DIM]| {
                let mut g = [0.0; DIM];
                for ((x, y, _), f) in batch.iter().zip(&factors) {
                    let e = f64::from(*f) * (dot(x, v) - y) / batch.len() as f64;
                    g.iter_mut().zip(x).for_each(|(g, x)| *g += e * x);
                }
                g
            };
            let (of_u, of_w, of_v) = (train(&u), train(&w), self.pull(&w, &mut rng));
            for d in 0..DIM {
                u[d] -= rate * of_u[d];
                // Divided by alpha, so that both have one learning rate.
                w[d] -= rate * (of_w[d] + if alpha > 0.0 { of_v[d] / alpha } else { 0.0 });
            }
            weighter.update(&means)?;
        }
        Ok(u)
    }

    /// The gradient of the validation loss on a batch of ten.
    fn pull(&self, w: &[f64; DIM], rng: &mut ChaCha8Rng) -> [f64; DIM] {
        let mut g = [0.0; DIM];
        for i in index::sample(rng, self.validation.len(), 10) {
            let (x, y) = &self.validation[i];
            let e = (dot(x, w) - y) / 10.0;
            g.iter_mut().zip(x).for_each(|(g, x)| *g += e * x);
        }
        g
    }
}

fn print(plan: &Plan, rows: &[Record], notes: &[String], args: &Args, seconds: f64) -> Result<()> {
    println!("Least squares: {ROWS} rows of {DIM}, batches of {BATCH}; steps until the mean squared distance");
    println!("to the solution is below {TARGET:e}; {} stands for: not reached.\n", plan.most);
    let names: Vec<String> = ways().into_iter().flat_map(|(n, _, _)| [n.clone(), n + UNEQUAL]).collect();
    let heads = plan.rates.iter().map(|r| format!("rate {r}")).collect();
    let cell = |method: &str, column: usize| {
        let of = rows.iter().filter(|r| r.method == method);
        let rate = at_rate(plan.rates[column]);
        spread(&of.filter_map(|r| Some((r.seed, *r.findings.get(&rate)?))).collect::<Vec<_>>())
    };
    let best = |method: &str| spread(&values(rows, method, 0.0, 1));
    println!("{}\n", render::by_column(names.iter().map(String::as_str), heads, &cell, &[("at its best rate", &best)]));
    let line = |name: &String| Line {
        name: name.clone(),
        points: plan
            .rates
            .iter()
            .map(|rate| {
                let of = rows.iter().filter(|r| r.method == *name);
                let steps: Vec<f64> = of.filter_map(|r| r.findings.get(&at_rate(*rate))).map(|s| s.log10()).collect();
                let (mean, std) = mean_std(&steps);
                (*rate, mean, std)
            })
            .collect(),
    };
    let lines: Vec<Line> = names.iter().filter(|n| !n.ends_with(UNEQUAL)).take(8).map(line).collect();
    let device = regrow_device::current();
    let paper = Paper::parse(super::INFO.paper)?;
    let (measure, claims) = (Measure::Steps, &paper.claims[..]);
    let outcome = Outcome { table: "reweighting", measure, plan, rows, claims, notes, device: &device, seconds };
    let title = "Steps to the target, decimal logarithm, over learning rates";
    outcome.close(&args.common.out, title, &lines)?;
    // Drawn again: its points are learning rates.
    picture::write(&args.common.out.join("reweighting.svg"), title, "learning rate", measure.axis(), &lines)
}
