//! Shared by tables of continual learning: findings of a stream of tasks, and their matrices.

use burn::optim::AdamConfig;
use indicatif::ProgressBar;
use regrow_continual::learn::Progress;
use regrow_continual::stream::{Scenario, TaskStream};
use regrow_continual::{AccuracyMatrix, Protocol, Strategy, learn};
use regrow_sparse_core::Result;
use regrow_train::classifier::Headed;
use regrow_train::lr::{Decay, LrSchedule};

use crate::harness::info::Info;
use crate::harness::matrix::{self, Panel};
use crate::harness::record::{Record, mean_finding};
use crate::harness::view::{self, Column, View};

/// A finding: the change of accuracies since they were learned.
pub const BWT: &str = "backward transfer";
/// A finding: forgetting by the original definition.
pub const FORGETTING: &str = "forgetting";
/// A finding: milliseconds per training step.
pub const STEP: &str = "ms per step";

/// The name of the finding for the accuracy on task `j` after task `i`.
pub fn place(i: usize, j: usize) -> String {
    format!("after {i} on {j}")
}

/// The matrix as findings, in percent.
pub fn accuracies(matrix: &AccuracyMatrix) -> std::collections::BTreeMap<String, f64> {
    let row = |(i, row): (usize, &Vec<f64>)| -> Vec<(String, f64)> {
        row.iter().enumerate().map(|(j, a)| (place(i, j), 100.0 * a)).collect()
    };
    matrix.rows().iter().enumerate().flat_map(row).collect()
}

/// A number of a matrix in percent.
pub fn percent(value: Option<f64>) -> f64 {
    100.0 * value.unwrap_or(0.0)
}

/// Moves `bar` once an epoch.
pub fn ticks(bar: &ProgressBar, epochs: usize) -> impl FnMut(Progress) {
    move |told: Progress| {
        if told.step.is_multiple_of(told.total.div_ceil(epochs).max(1)) {
            bar.inc(1);
        }
    }
}

/// The matrix of a method's rows, means over seeds; empty if there are none.
pub fn panel(method: &str, rows: &[Record], tasks: usize) -> Panel {
    let line = |i: usize| (0..tasks).map(|j| mean_finding(rows, method, 0.0, &place(i, j))).collect();
    Panel { name: method.into(), rows: (0..tasks).filter_map(line).collect() }
}

/// A learning rate that drops to a tenth after each third of a task.
pub fn in_thirds(rate: f64) -> LrSchedule {
    let decay = Decay::Step { milestones: vec![1.0 / 3.0, 2.0 / 3.0], factor: 0.1 };
    LrSchedule { decay, ..LrSchedule::constant(rate) }
}

/// How each task of a task-incremental stream is trained, by Adam.
pub struct TaskTraining {
    /// Passes over each task's examples.
    pub epochs: usize,
    /// Examples per step.
    pub batch: usize,
    /// The learning rate within a task.
    pub lr: LrSchedule,
    /// Order of the examples.
    pub seed: u64,
}

impl TaskTraining {
    /// Learns all tasks; the row `name` of `seed` with the accuracies of all tasks.
    ///
    /// # Errors
    /// If a training fails.
    pub fn row<M: Headed>(
        self,
        (name, seed): (&str, u64),
        model: M,
        strategy: &mut dyn Strategy<M>,
        stream: &TaskStream<'_>,
        bar: &ProgressBar,
    ) -> Result<Record> {
        let (adam, mut told) = (AdamConfig::new().with_epsilon(1e-8).build(), ticks(bar, self.epochs));
        let Self { epochs, batch, lr, seed: order } = self;
        let protocol = Protocol { epochs, batch, lr, seed: order, scope: Scenario::Task.default_scope() };
        let learned = learn(model, &adam, strategy, stream, &protocol, None, &mut told)?;
        let mut findings = accuracies(&learned.matrix);
        findings.extend([
            (BWT.into(), percent(learned.matrix.backward_transfer())),
            (FORGETTING.into(), percent(learned.matrix.forgetting())),
            (STEP.into(), 1e3 * learned.seconds / learned.steps.max(1) as f64),
        ]);
        findings.extend(strategy.findings());
        let row = Record::new(name, 0.0, seed, percent(learned.matrix.average()), learned.seconds);
        Ok(Record { findings, ..row })
    }
}

/// Accuracies on all tasks after the last, with `more` columns; as a picture, and as matrices.
pub fn view(info: &Info, methods: &[String], rows: &[Record], tasks: usize, more: Vec<Column<'_>>) -> View {
    let last = tasks.saturating_sub(1);
    let each = (0..tasks).map(|t| Column::finding(format!("task {}", t + 1), place(last, t)));
    let first = [Column::value("ACC"), Column::finding("BWT", BWT)].into_iter().chain(each).chain(more);
    let columns: Vec<Column<'_>> =
        first.chain([Column::mean("ms per step", 2, view::finding(STEP)), Column::seconds()]).collect();
    let points =
        |r: &Record| (0..tasks).filter_map(|t| Some(((t + 1) as f64, *r.findings.get(&place(last, t))?))).collect();
    let panels: Vec<Panel> = methods.iter().map(|method| panel(method, rows, tasks)).collect();
    let shown = View::new(info.measure, view::table(methods, rows, &columns));
    let pictures = vec![("matrix", matrix::svg(info.summary, 3, &panels))];
    View { pictures, ..shown.over("task", view::lines(methods, rows, points)) }
}
