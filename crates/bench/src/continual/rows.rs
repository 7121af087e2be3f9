//! Runs the continual table, cell by cell: a cell is one seed, scenario and strategy.

use std::path::{Path, PathBuf};

use burn::optim::AdamConfig;
use burn::tensor::Device;
use indicatif::ProgressBar;
use regrow_continual::learn::Progress;
use regrow_continual::stream::Scenario;
use regrow_continual::{AccuracyMatrix, Protocol, learn};
use regrow_device::pool::Crew;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use regrow_train::Checkpointing;
use regrow_train::lr::LrSchedule;
use regrow_zoo::data::Images;

use super::{Method, Plan};
use crate::cells::Cells;
use crate::record::Record;

/// Findings of a row.
pub const BWT: &str = "backward transfer";
/// As the original definition has it.
pub const FORGETTING: &str = "forgetting";
/// Against the untrained network.
pub const FWT: &str = "forward transfer";
/// The mean over time of the mean accuracy so far.
pub const INCREMENTAL: &str = "incremental accuracy";
/// Numbers kept beside the network.
pub const ADDED: &str = "numbers added";
/// Share of test answers that name a class of the last task.
pub const NEWEST: &str = "answers in the last task";
/// Milliseconds per training step.
pub const STEP: &str = "ms per step";

/// The finding that holds the accuracy on task `j` after task `i`.
pub fn place(i: usize, j: usize) -> String {
    format!("after {i} on {j}")
}

/// The row of a strategy in a scenario.
pub fn name(strategy: &str, scenario: Scenario) -> String {
    format!("{strategy}, {scenario}")
}

/// What it takes to fill the table.
pub struct Table<'a> {
    /// Its name, of the files that keep its cells.
    pub name: &'a str,
    /// The plan.
    pub plan: &'a Plan,
    /// The strategies.
    pub methods: &'a [Method],
    /// Images to train on.
    pub train: &'a Images,
    /// Images to test on.
    pub test: &'a Images,
    /// Who trains networks side by side.
    pub crew: Crew<'a>,
    /// Steps between saves within a cell; none without.
    pub every: Option<usize>,
    /// Counts epochs.
    pub bar: &'a ProgressBar,
}

/// A cell that is still open.
type Open<'a> = (u64, Scenario, &'a Method);

impl Table<'_> {
    /// All rows. Finished cells are kept in `out` until the table is complete, and taken from there with
    /// `resume`; a cell under way goes on where it was saved.
    ///
    /// # Errors
    /// If a run fails, naming strategy and scenario, or the rows cannot be kept.
    pub fn fill(&self, out: &Path, resume: bool) -> Result<Vec<Record>> {
        let mut cells = Cells::open(out, self.name, self.plan, resume)?;
        let runs = out.join(format!("{}.runs", self.name));
        if !resume {
            removed(&runs)?;
        }
        let (first, count) = self.plan.seeds;
        let of_seed = |seed: u64| self.open(seed, &cells.rows);
        let open = (first..first + count).map(of_seed).collect::<Result<Vec<_>>>()?.concat();
        cells.fill(self.plan, &self.crew, open.len(), |device, i| {
            let (seed, scenario, method) = open[i];
            let row = name(&method.name, scenario);
            self.bar.set_message(format!("(seed {seed}: {row})"));
            let folder = runs.join(format!("{seed}-{}-{scenario}", method.name));
            let named = |e: Error| Error::Argument(format!("{row}: {e}"));
            Ok(vec![self.cell(scenario, method, seed, folder, device).map_err(named)?])
        })?;
        removed(&runs)?;
        cells.finish()
    }

    /// Cells without a row whose strategy fits the scenario.
    fn open(&self, seed: u64, rows: &[Record]) -> Result<Vec<Open<'_>>> {
        let mut open = Vec::new();
        for scenario in &self.plan.scenarios {
            for method in self.methods {
                let row = name(&method.name, *scenario);
                let done = rows.iter().any(|r| r.seed == seed && r.method == row);
                if !done && method.make(self.plan, *scenario)?.fits(*scenario) {
                    open.push((seed, *scenario, method));
                }
            }
        }
        Ok(open)
    }

    fn cell(&self, scenario: Scenario, method: &Method, seed: u64, folder: PathBuf, device: &Device) -> Result<Record> {
        let plan = self.plan;
        let stream = plan.stream(scenario, (self.train, self.test), seed)?;
        let pixels = self.train.size.iter().product();
        let [first, second] = plan.hidden;
        let device = device.clone().autodiff();
        let net = regrow_zoo::mlp([pixels, first, second, stream.classes()], seed, &device);
        let adam = AdamConfig::new().with_epsilon(1e-8).build();
        let protocol = Protocol {
            epochs: plan.epochs,
            batch: plan.batch,
            lr: LrSchedule::constant(plan.learning_rate),
            seed: mix(seed, 1),
            scope: scenario.default_scope(),
        };
        let save = self.every.map(|every| Checkpointing { dir: folder, every });
        let mut strategy = method.make(plan, scenario)?;
        let mut told = |t: Progress| {
            if t.step.is_multiple_of(t.total.div_ceil(plan.epochs).max(1)) {
                self.bar.inc(1);
            }
        };
        let learned = learn(net, &adam, &mut *strategy, &stream, &protocol, save.as_ref(), &mut told)?;
        let matrix = &learned.matrix;
        let percent = |value: Option<f64>| 100.0 * value.unwrap_or(0.0);
        let mut findings = accuracies(matrix);
        findings.extend([
            (BWT.into(), percent(matrix.backward_transfer())),
            (FORGETTING.into(), percent(matrix.forgetting())),
            (FWT.into(), percent(matrix.forward_transfer(&learned.before))),
            (INCREMENTAL.into(), percent(matrix.incremental_average())),
            (NEWEST.into(), 100.0 * learned.newest),
            (ADDED.into(), strategy.added() as f64),
            (STEP.into(), 1e3 * learned.seconds / learned.steps.max(1) as f64),
        ]);
        findings.extend(strategy.findings());
        let row = name(&method.name, scenario);
        Ok(Record { findings, ..Record::new(&row, 0.0, seed, percent(matrix.average()), learned.seconds) })
    }
}

/// The matrix as findings, in percent.
pub fn accuracies(matrix: &AccuracyMatrix) -> std::collections::BTreeMap<String, f64> {
    let row = |(i, row): (usize, &Vec<f64>)| -> Vec<(String, f64)> {
        row.iter().enumerate().map(|(j, a)| (place(i, j), 100.0 * a)).collect()
    };
    matrix.rows().iter().enumerate().flat_map(row).collect()
}

fn removed(folder: &Path) -> Result<()> {
    match folder.exists() {
        true => std::fs::remove_dir_all(folder).map_err(|e| Error::io(folder, e)),
        false => Ok(()),
    }
}
