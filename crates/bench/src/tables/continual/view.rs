//! Shows the continual table by scenario: accuracies over tasks and their matrices as pictures.

use regrow_continual::stream::Scenario;

use super::rows::{ADDED, INCREMENTAL, name};
use super::{Compared, Method, Plan};
use crate::harness::matrix::{self, Panel};
use crate::harness::paper::{Figure, Paper};
use crate::harness::picture::Line;
use crate::harness::prelude::*;
use crate::harness::record::{mean_finding, mean_std, spread, values};
use crate::harness::render;
use crate::harness::streams::{BWT, FORGETTING, STEP, place};

/// The lines of the first picture, where they were run.
pub const DRAWN: [&str; 8] = ["fine-tune", "joint", "EWC", "SI", "LwF", "ER", "DER++", "iCaRL"];

/// As many lines as there are colours.
const LINES: usize = 8;

impl Compared<'_> {
    /// A table for each scenario, accuracies over tasks, and a matrix for each strategy and scenario.
    pub(super) fn shown(&self, rows: &[Record]) -> Result<View> {
        let (plan, paper) = (self.plan, Paper::parse(self.comparison.info.paper)?);
        let caption = |s: &Scenario| format!("{s}-incremental; losses see {}; in percent.", s.default_scope());
        let sections = plan.scenarios.iter().map(|s| (caption(s), self.by_strategy(*s, &paper, rows))).collect();
        let scenario = if plan.scenarios.contains(&Scenario::Class) { Scenario::Class } else { plan.scenarios[0] };
        let title = format!("{}, {} epochs", plan.stream, plan.epochs);
        let pictures = vec![("matrix", matrix::svg(&title, plan.scenarios.len(), &self.panels(rows)))];
        let (title, x, lines) = (format!("{title}: {scenario}"), "tasks trained", self.over_tasks(scenario, rows));
        Ok(View { sections, title, x, y: Some("mean accuracy so far, %"), lines, pictures, notes: Vec::new() })
    }

    fn by_strategy(&self, scenario: Scenario, paper: &Paper, rows: &[Record]) -> comfy_table::Table {
        let Self { comparison, plan, methods, .. } = self;
        let row = |method: &str| name(method, scenario);
        let there = methods.iter().map(|m| m.name.as_str()).filter(|m| rows.iter().any(|r| r.method == row(m)));
        let finding = |method: &str, finding: &str| {
            let of = rows.iter().filter(|r| r.method == row(method));
            spread(&of.filter_map(|r| Some((r.seed, *r.findings.get(finding)?))).collect::<Vec<_>>())
        };
        let mean = |method: &str, finding: &str| mean_finding(rows, &row(method), 0.0, finding);
        let usual = [("BWT", BWT), ("forgetting", FORGETTING), ("incremental", INCREMENTAL)];
        let columns: Vec<(&str, &str)> = usual.into_iter().chain(comparison.columns.iter().copied()).collect();
        let heads = std::iter::once("ACC").chain(columns.iter().map(|(head, _)| *head)).map(String::from).collect();
        let cell = |method: &str, column: usize| match column.checked_sub(1) {
            None => spread(&values(rows, &row(method), 0.0, 1)),
            Some(column) => finding(method, columns[column].1),
        };
        let setting = format!("{}, {scenario}", plan.stream);
        let figures = |method: &str| {
            let those = paper.figures.iter().filter(|f| f.setting == setting && f.method == method);
            let all: Vec<String> = those.map(Figure::text).collect();
            if all.is_empty() { "-".into() } else { all.join(", ") }
        };
        let number = |value: Option<f64>, digits: usize| value.map_or("-".into(), |v| format!("{v:.digits$}"));
        let times = |method: &str| Some(mean(method, STEP)? / mean(comparison.base, STEP)?);
        let versus = format!("times {}", comparison.base);
        let more: [render::Column<'_>; 5] = [
            ("published ACC", &figures),
            ("numbers added", &|m| number(mean(m, ADDED), 0)),
            ("seconds", &|m| render::mean_of(rows, &row(m), 0.0, |r| Some(r.seconds))),
            ("ms per step", &|m| number(mean(m, STEP), 2)),
            (&versus, &|m| number(times(m), 2)),
        ];
        render::by_column(there, heads, &cell, &more)
    }

    /// The mean accuracy on the tasks so far, after each.
    fn over_tasks(&self, scenario: Scenario, rows: &[Record]) -> Vec<Line> {
        let Self { comparison, plan, methods, .. } = self;
        let so_far = |r: &Record, i: usize| -> Option<f64> {
            let seen: Option<Vec<f64>> = (0..=i).map(|j| r.findings.get(&place(i, j)).copied()).collect();
            Some(mean_std(&seen?).0)
        };
        let line = |method: &str| {
            let row = name(method, scenario);
            let point = |i: usize| {
                let values: Vec<f64> = rows.iter().filter(|r| r.method == row).filter_map(|r| so_far(r, i)).collect();
                (!values.is_empty()).then(|| mean_std(&values)).map(|(mean, std)| ((i + 1) as f64, mean, std))
            };
            Line { name: method.into(), points: (0..plan.tasks).filter_map(point).collect() }
        };
        let drawn = comparison.drawn;
        let first = drawn.iter().copied().filter(|d| methods.iter().any(|m| m.name == *d));
        let others = methods.iter().map(|m| m.name.as_str()).filter(|m| !drawn.contains(m));
        first.chain(others).map(line).filter(|line| !line.points.is_empty()).take(LINES).collect()
    }

    /// A panel for each strategy and scenario: means over seeds, empty where a strategy does not fit.
    fn panels(&self, rows: &[Record]) -> Vec<Panel> {
        let Self { plan, methods, .. } = self;
        let panel = |method: &Method, scenario: &Scenario| {
            let row = name(&method.name, *scenario);
            let at = |i: usize, j: usize| mean_finding(rows, &row, 0.0, &place(i, j));
            let line = |i: usize| (0..plan.tasks).map(|j| at(i, j)).collect::<Option<Vec<f64>>>();
            let there: Vec<Vec<f64>> = (0..plan.tasks).filter_map(line).collect();
            Panel { name: if there.is_empty() { format!("{row}: does not fit") } else { row }, rows: there }
        };
        methods.iter().flat_map(|m| plan.scenarios.iter().map(move |s| panel(m, s))).collect()
    }
}

/// Our setting, in a line.
pub fn describe(plan: &Plan) -> String {
    let Plan { stream, tasks, hidden: [a, b], epochs, batch, learning_rate, memory, ewc, si, fisher, .. } = plan;
    format!(
        "{stream}, {tasks} tasks{}; an MLP with hidden layers of {a} and {b}; Adam, learning rate {learning_rate}, \
         fresh for each task, batch {batch}, {epochs} epochs of each task (joint: of all tasks so far); memory of \
         {memory} examples; EWC lambda {ewc:?} on {fisher} examples of each task, SI c {si:?} (task, class, domain), LwF alpha 1, DER++ alpha \
         0.5, beta 0.5, PackNet prunes 75 %, DST-CL 80 % by ERK, grown by gradient every 20 steps{}{}",
        if plan.shuffle_classes { ", classes in an order of each seed" } else { "" },
        [(plan.train_images, "training"), (plan.test_images, "test")]
            .map(|(count, what)| count.map_or_else(String::new, |n| format!("; {n} {what} images")))
            .concat(),
        if plan.validate { "; tested on held-out training images" } else { "" },
    )
}
