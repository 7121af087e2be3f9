//! Shows the continual table: printed by scenario, as JSON, accuracies over tasks and their matrices as
//! pictures, the claims of papers judged.

use std::path::Path;

use burn::tensor::Device;
use regrow_checkpoint::atomic;
use regrow_continual::stream::Scenario;
use regrow_sparse_core::Result;

use super::matrix::{self, Panel};
use super::rows::{ADDED, BWT, FORGETTING, INCREMENTAL, STEP, name, place};
use super::{Comparison, Method, Plan};
use crate::claim::{Claim, Verdict};
use crate::paper::{Figure, Paper};
use crate::picture::{self, Line};
use crate::record::{Measure, Record, Report, mean_finding, mean_std, spread, values};
use crate::{memory, setting, show};

/// What papers claim of their methods.
pub const CLAIMS: [Claim; 17] = [
    Claim { text: "task: EWC beats fine-tuning (1612.00796)", better: "EWC, task", than: "fine-tune, task" },
    Claim { text: "task: SI beats fine-tuning (1703.04200)", better: "SI, task", than: "fine-tune, task" },
    Claim { text: "task: LwF beats fine-tuning (1606.09282)", better: "LwF, task", than: "fine-tune, task" },
    Claim { text: "domain: EWC beats fine-tuning (1612.00796)", better: "EWC, domain", than: "fine-tune, domain" },
    Claim { text: "domain: SI beats fine-tuning (1703.04200)", better: "SI, domain", than: "fine-tune, domain" },
    Claim { text: "class: replay is required, ER beats EWC (1904.07734)", better: "ER, class", than: "EWC, class" },
    Claim { text: "class: ER beats LwF (1904.07734)", better: "ER, class", than: "LwF, class" },
    Claim { text: "class: DER++ beats ER (2004.07211)", better: "DER++, class", than: "ER, class" },
    Claim { text: "domain: DER++ beats ER (2004.07211)", better: "DER++, domain", than: "ER, domain" },
    Claim { text: "task: DER++ beats ER (2004.07211)", better: "DER++, task", than: "ER, task" },
    Claim { text: "class: iCaRL beats LwF (1611.07725)", better: "iCaRL, class", than: "LwF, class" },
    Claim { text: "class: WA beats iCaRL (1911.07053)", better: "WA, class", than: "iCaRL, class" },
    Claim { text: "task: GEM beats fine-tuning (1706.08840)", better: "GEM, task", than: "fine-tune, task" },
    Claim { text: "task: A-GEM beats fine-tuning (1812.00420)", better: "A-GEM, task", than: "fine-tune, task" },
    Claim { text: "task: PackNet beats LwF (1711.05769)", better: "PackNet, task", than: "LwF, task" },
    Claim { text: "domain: joint training beats ER", better: "joint, domain", than: "ER, domain" },
    Claim { text: "class: joint training beats DER++", better: "joint, class", than: "DER++, class" },
];

/// The lines of the first picture, where they were run.
pub const DRAWN: [&str; 8] = ["fine-tune", "joint", "EWC", "SI", "LwF", "ER", "DER++", "iCaRL"];

/// As many lines as there are colours.
const LINES: usize = 8;

/// What is to be shown.
pub struct Shown<'a> {
    /// The table.
    pub comparison: &'a Comparison<'a>,
    /// Its plan.
    pub plan: &'a Plan,
    /// The strategies that were run.
    pub methods: &'a [Method],
    /// What was measured.
    pub rows: &'a [Record],
}

/// Prints the table and writes its JSON and pictures to `out`.
///
/// # Errors
/// If a file cannot be written, or the table's `paper.toml` is none.
pub fn show(shown: &Shown<'_>, out: &Path, device: &Device, seconds: f64) -> Result<()> {
    let Shown { comparison, plan, rows, .. } = shown;
    let paper = Paper::parse(comparison.paper)?;
    println!("{}\n{}\n", paper.title, paper.source);
    println!("Ours: {}", describe(plan));
    println!(
        "Mean and standard deviation over {} seeds; accuracy, transfer and forgetting in percent.\n",
        plan.seeds.1
    );
    for scenario in &plan.scenarios {
        println!("{scenario}-incremental; losses see {}\n", scenario.default_scope());
        println!("{}\n", shown.by_strategy(*scenario, &paper));
    }
    published(&paper);
    let claims: Vec<Verdict> = comparison.claims.iter().filter_map(|c| c.judge(rows, Measure::Accuracy)).collect();
    if !claims.is_empty() {
        println!("What papers claim, here (points of average accuracy with 95 % interval):");
        claims.iter().for_each(|claim| println!("  {claim}"));
    }
    shown.write(&claims, out, device, seconds)
}

/// Lists the published figures with their sources.
fn published(paper: &Paper) {
    println!("Published ({}):", paper.setting);
    paper.statements.iter().for_each(|statement| println!("  {statement}"));
    for f in &paper.figures {
        println!("  {}: {} {} ({})", f.setting, f.method, f.text(), f.source);
    }
    println!();
}

impl Shown<'_> {
    fn by_strategy(&self, scenario: Scenario, paper: &Paper) -> comfy_table::Table {
        let Self { comparison, plan, methods, rows } = self;
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
        let more: [show::Column<'_>; 5] = [
            ("published ACC", &figures),
            ("numbers added", &|m| number(mean(m, ADDED), 0)),
            ("seconds", &|m| show::mean_of(rows, &row(m), 0.0, |r| Some(r.seconds))),
            ("ms per step", &|m| number(mean(m, STEP), 2)),
            (&versus, &|m| number(times(m), 2)),
        ];
        show::by_column(there, heads, &cell, &more)
    }

    fn write(&self, claims: &[Verdict], out: &Path, device: &Device, seconds: f64) -> Result<()> {
        let Self { comparison: Comparison { table, .. }, plan, rows, .. } = self;
        let peak = memory::peak();
        let megabytes = peak.map_or("unknown".into(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6));
        println!("\n{seconds:.0} s in all, peak memory {megabytes}, device {device:?}");
        let report = Report {
            table,
            measure: Measure::Accuracy,
            command: setting::command(),
            device: format!("{device:?}"),
            settings: plan,
            seconds,
            peak_memory: peak,
            claims,
            notes: &[],
            rows,
        };
        let json = out.join(format!("{table}.json"));
        report.write(&json)?;
        let title = format!("{}, {} epochs, {} seeds", plan.stream, plan.epochs, plan.seeds.1);
        let scenario = if plan.scenarios.contains(&Scenario::Class) { Scenario::Class } else { plan.scenarios[0] };
        let lines = self.over_tasks(scenario);
        let (path, heading) = (out.join(format!("{table}.svg")), format!("{title}: {scenario}"));
        picture::write(&path, &heading, "tasks trained", "mean accuracy so far, %", &lines)?;
        let path = out.join(format!("{table}-matrix.svg"));
        let svg = matrix::svg(&title, plan.scenarios.len(), &self.panels());
        atomic::write_atomic(&path, |file| file.write_all(svg.as_bytes()))?;
        println!("written: {}, {table}.svg, {table}-matrix.svg", json.display());
        Ok(())
    }

    /// The mean accuracy on the tasks so far, after each.
    fn over_tasks(&self, scenario: Scenario) -> Vec<Line> {
        let Self { comparison, plan, methods, rows } = self;
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
    fn panels(&self) -> Vec<Panel> {
        let Self { plan, methods, rows, .. } = self;
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

fn describe(plan: &Plan) -> String {
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
