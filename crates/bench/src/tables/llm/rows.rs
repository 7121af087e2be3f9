//! Measures the table of language models: a cell is one method, budget and target, with its retrainings.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use burn::tensor::Device;
use indicatif::ProgressBar;
use regrow_checkpoint::Patch;
use regrow_device::pool::DevicePool;
use regrow_lm::{NextToken, Transformer, batch, perplexity, perplexity_of, sliding};
use regrow_pruners::perp::{Form, rate};
use regrow_pruners::registry::{LAYER_SOLVERS, Params, find};
use regrow_pruners::{Allocate, Budget, Layerwise, Owl, Perp};
use regrow_sparse_core::layerwise::HiddenStates;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Pattern, Result};
use regrow_train::Training;

use super::model::ModelData;
use super::{Args, Plan};
use crate::harness::record::Record;
use crate::harness::row_store::RowStore;

/// The model that is not pruned.
pub const DENSE: &str = "dense";
/// Findings: the share of parameters that were trained, in percent.
pub const TRAINED: &str = "trained, %";
/// Windows in a step of retraining.
const BATCH: usize = 8;

/// What it takes to fill the table.
pub struct Table<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// The command line, which names files.
    pub args: &'a Args,
    /// Where a seed's model is trained.
    pub device: &'a Device,
    /// The device pool.
    pub pool: DevicePool<'a>,
    /// Counts cells.
    pub bar: &'a ProgressBar,
}

/// A model to be pruned in one way.
#[derive(Clone, Copy)]
struct Cell<'a> {
    method: &'a str,
    owl: bool,
    goal: (f64, Pattern),
}

/// The name shown in the table.
pub fn shown(method: &str) -> &str {
    match method {
        "wanda" => "Wanda",
        "sparsegpt" => "SparseGPT",
        other => other,
    }
}

/// The row of `method`, its sparsity shared by outliers or not, retrained or not.
pub fn row(method: &str, owl: bool, form: Option<&str>) -> String {
    let owl = if owl { ", OWL" } else { "" };
    let form = form.map_or_else(String::new, |form| format!(", {form}"));
    format!("{}{owl}{form}", shown(method))
}

/// How many cells a seed has, the training of its model included.
pub fn cells(plan: &Plan) -> usize {
    1 + all(plan).count()
}

fn all(plan: &Plan) -> impl Iterator<Item = Cell<'_>> {
    plan.methods.iter().flat_map(move |method| {
        [false, true]
            .into_iter()
            .flat_map(move |owl| plan.goals.iter().map(move |goal| Cell { method, owl, goal: *goal }))
    })
}

impl Table<'_> {
    /// All rows, and findings in words. Finished cells are kept in `out` until the table is complete.
    ///
    /// # Errors
    /// If a cell fails, naming its row, or the rows cannot be kept.
    pub fn fill(&self, out: &Path, resume: bool) -> Result<(Vec<Record>, Vec<String>)> {
        let mut store = RowStore::open(out, "llm", self.plan, resume)?;
        let mut floors = Vec::new();
        let (first, count) = self.plan.seeds;
        for seed in first..first + count {
            let open: Vec<Cell<'_>> = all(self.plan).filter(|c| !c.done(&store.rows, seed)).collect();
            let dense = store.rows.iter().any(|r| r.method == DENSE && r.seed == seed);
            if dense && open.is_empty() {
                continue;
            }
            let say = |what: String| self.bar.set_message(format!("(seed {seed}: {what})"));
            say("the dense model".into());
            let data = ModelData::new(self.args, self.plan, seed, self.device, &say)?;
            floors.extend(data.floor);
            if !dense {
                store.add(self.plan, [self.dense(&data, seed)?])?;
            }
            self.bar.inc(1);
            store.fill(self.plan, &self.pool, open.len(), |device, i| {
                say(open[i].name());
                let rows = self.cell(&data, open[i], seed, device)?;
                self.bar.inc(1);
                Ok(rows)
            })?;
        }
        let floor = floors.iter().sum::<f64>() / floors.len().max(1) as f64;
        let notes = (!floors.is_empty())
            .then(|| format!("least perplexity that any model of this language can have: {floor:.2}"));
        Ok((store.finish()?, notes.into_iter().collect()))
    }

    fn dense(&self, data: &ModelData, seed: u64) -> Result<Record> {
        let started = Instant::now();
        let model = Transformer::open(&data.folder, self.device)?;
        let value = measured(&model, data)?;
        Ok(Record::new(DENSE, 0.0, seed, value, started.elapsed().as_secs_f64()))
    }

    /// The rows of one pruning setting: without retraining, and retrained.
    fn cell(&self, data: &ModelData, cell: Cell<'_>, seed: u64, device: &Device) -> Result<Vec<Record>> {
        // Parallel cells need separate folders.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let out = data.place.path().join(format!("pruned{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let named = |e: Error| Error::Argument(format!("{}: {e}", cell.name()));
        let started = Instant::now();
        self.prune(data, cell, seed, (&out, device)).map_err(named)?;
        let seconds = started.elapsed().as_secs_f64();
        let model = Transformer::open(&out, device)?;
        let record = |form: Option<&str>, value, seconds| Record {
            pattern: if cell.goal.1 == Pattern::Unstructured { String::new() } else { cell.goal.1.to_string() },
            ..Record::new(&row(cell.method, cell.owl, form), cell.goal.0, seed, value, seconds)
        };
        let mut rows = vec![record(None, measured(&model, data).map_err(named)?, seconds)];
        for form in self.forms(cell) {
            let started = Instant::now();
            let (value, trained) = self.retrain(&model, data, form, (seed, device)).map_err(named)?;
            let row = record(Some(form), value, seconds + started.elapsed().as_secs_f64());
            rows.push(Record { findings: [(TRAINED.into(), trained)].into(), ..row });
        }
        std::fs::remove_dir_all(&out).map_err(|e| Error::io(&out, e))?;
        Ok(rows)
    }

    /// The retrainings of a cell: every form after magnitude pruning, the first after all.
    fn forms(&self, cell: Cell<'_>) -> &[String] {
        match (self.plan.steps, cell.method == "magnitude" && !cell.owl) {
            (0, _) => &[],
            (_, true) => &self.plan.forms,
            (_, false) => &self.plan.forms[..self.plan.forms.len().min(1)],
        }
    }

    fn prune(&self, data: &ModelData, cell: Cell<'_>, seed: u64, (out, device): (&Path, &Device)) -> Result<()> {
        let model = Transformer::open(&data.folder, device)?;
        let solver = find(LAYER_SOLVERS, cell.method)?.build(&Params::new(seed))?;
        let embedding = model.embedding()?;
        let hidden = data.calibration.iter().map(|s| embedding.forward(batch(&[s], device))).collect();
        let mut patch = Patch::create(model.checkpoint(), out, "")?;
        let owl = Owl::default();
        let budget: &dyn Allocate = if cell.owl { &owl } else { &Budget::Uniform };
        let run = Layerwise {
            model: &model,
            source: model.checkpoint(),
            solver: solver.as_ref(),
            sparsity: cell.goal.0,
            pattern: cell.goal.1,
            budget,
            outputs: None,
            admits: &|_| true,
            mend: None,
            head: None,
            embedding: None,
        };
        run.prune(model.context(data.window), HiddenStates::in_memory(hidden), &mut patch, &mut |_, _, _| {})?;
        Ok(patch.finish()?)
    }

    /// The perplexity of `model` after it was retrained and merged, and the percentage of its parameters
    /// that were trained.
    fn retrain(
        &self,
        model: &Transformer,
        data: &ModelData,
        form: &str,
        (seed, device): (u64, &Device),
    ) -> Result<(f64, f64)> {
        let Plan { steps, rank, learning_rate, .. } = self.plan;
        let decoder = model.whole()?;
        let perp = Perp::new(Form::parse(form)?).with_rank(*rank, 2.0 * *rank as f64)?.with_pruned(decoder.layers());
        let trained = perp.trained(&perp.prepare(decoder.clone(), seed)?)?;
        let count = (steps * BATCH).min(data.training.len()).max(1);
        let epochs = (steps * BATCH).div_ceil(count);
        let windows = data.training[..count].iter().map(Vec::as_slice).collect();
        let problem = NextToken::new(&model.config, windows)?;
        let settings = Training { epochs, batch: BATCH, lr: rate(*learning_rate), seed: mix(seed, 6) };
        let decoder = perp.merge(perp.retrain(decoder, &problem, &settings, None, &mut |_| {})?)?;
        let windows = sliding(&data.test, data.window, data.window)?;
        let value = perplexity_of(&decoder, &model.config, &windows, device)?.value();
        Ok((finite(value)?, 100.0 * trained.trained as f64 / trained.all as f64))
    }
}

impl Cell<'_> {
    fn name(&self) -> String {
        format!("{} at {} {}", row(self.method, self.owl, None), self.goal.0, self.goal.1)
    }

    fn done(&self, rows: &[Record], seed: u64) -> bool {
        let (name, pattern) = (row(self.method, self.owl, None), self.goal.1.to_string());
        let alike = |r: &Record| r.pattern == pattern || (r.pattern.is_empty() && self.goal.1 == Pattern::Unstructured);
        rows.iter().any(|r| r.seed == seed && r.method == name && r.sparsity == self.goal.0 && alike(r))
    }
}

/// Perplexity in windows that do not overlap.
fn measured(model: &Transformer, data: &ModelData) -> Result<f64> {
    let windows = sliding(&data.test, data.window, data.window)?;
    finite(perplexity(model, &windows, &mut |_, _| {})?.value())
}

fn finite(value: f64) -> Result<f64> {
    match value.is_finite() {
        true => Ok(value),
        false => Err(Error::Argument("its perplexity is not finite".into())),
    }
}
