//! Shows the CLR table.

use std::path::Path;

use burn::tensor::Device;
use regrow_checkpoint::atomic;
use regrow_sparse_core::Result;

use super::Plan;
use super::ground::Ground;
use super::rows::{ANCHOR, CLR, FINE_TUNE, NORMS, PACKNET, PER_TASK, SEPARATE, SHARE};
use crate::claim::Claim;
use crate::continual::matrix::{self, Panel};
use crate::continual::rows::{BWT, STEP, place};
use crate::paper::Paper;
use crate::picture::Line;
use crate::record::{Measure, Record, mean_finding, mean_std, spread, values};
use crate::show::{self, Outcome};

const PAPER: &str = include_str!("../../../../papers/clr/paper.toml");

/// What the paper says of its method, and what its parts are worth.
const CLAIMS: [Claim; 4] = [
    Claim { text: "CLR beats one network fine-tuned task after task (2307.11386)", better: CLR, than: FINE_TUNE },
    Claim { text: "CLR beats PackNet (2307.11386)", better: CLR, than: PACKNET },
    Claim { text: "a network for each task is the upper bound", better: SEPARATE, than: CLR },
    Claim { text: "kernels are more than norms of each task's own", better: CLR, than: NORMS },
];

/// Prints the table and writes `clr.json`, `clr.svg` and `clr-matrix.svg` to `out`.
///
/// # Errors
/// If a file cannot be written.
pub fn show(plan: &Plan, ground: &Ground, rows: &[Record], out: &Path, device: &Device, seconds: f64) -> Result<()> {
    let paper = Paper::parse(PAPER)?;
    println!("{}\n{}\n", paper.title, paper.source);
    println!("Ours: {}", describe(plan, ground));
    println!(
        "Mean and standard deviation over {} seeds, in percent. The anchor answers {} % of its own classes rightly.\n\
         Added per task: numbers kept for each, heads apart (a bit of a mask is 1/32), and what share of the network\n\
         without its head that is.\n",
        plan.seeds.1,
        plan.methods.first().and_then(|m| mean_finding(rows, m, 0.0, ANCHOR)).map_or("-".into(), |a| format!("{a:.1}")),
    );
    println!("{}\n", table(plan, ground, rows));
    paper.print_figures();
    let title = format!("CLR, {}: accuracy on each task after the last", plan.stream);
    let (measure, claims, notes) = (Measure::Accuracy, &CLAIMS, &[]);
    let outcome = Outcome { table: "clr", measure, plan, rows, claims, notes, device, seconds };
    outcome.close_over(out, &title, "task", &lines(plan, ground, rows))?;
    let svg = matrix::svg(&format!("CLR, {}", plan.stream), 3, &panels(plan, ground, rows));
    atomic::write_atomic(out.join("clr-matrix.svg"), |file| file.write_all(svg.as_bytes()))
}

fn table(plan: &Plan, ground: &Ground, rows: &[Record]) -> comfy_table::Table {
    let last = ground.tasks.len() - 1;
    let heads = ["ACC".to_string(), "BWT".into()];
    let heads = heads.into_iter().chain((0..=last).map(|t| format!("task {}", t + 1))).collect();
    let finding = |method: &str, name: &str| {
        let of = rows.iter().filter(|r| r.method == method);
        spread(&of.filter_map(|r| Some((r.seed, *r.findings.get(name)?))).collect::<Vec<_>>())
    };
    let cell = |method: &str, column: usize| match column {
        0 => spread(&values(rows, method, 0.0, 1)),
        1 => finding(method, BWT),
        _ => finding(method, &place(last, column - 2)),
    };
    let number = |method: &str, name: &str, digits: usize| {
        mean_finding(rows, method, 0.0, name).map_or("-".into(), |v| format!("{v:.digits$}"))
    };
    let more: [show::Column<'_>; 4] = [
        ("added per task", &|m| number(m, PER_TASK, 0)),
        ("%", &|m| number(m, SHARE, 2)),
        ("seconds", &|m| show::mean_of(rows, m, 0.0, |r| Some(r.seconds))),
        ("ms per step", &|m| number(m, STEP, 2)),
    ];
    show::by_column(plan.methods.iter().map(String::as_str), heads, &cell, &more)
}

fn lines(plan: &Plan, ground: &Ground, rows: &[Record]) -> Vec<Line> {
    let last = ground.tasks.len() - 1;
    let line = |method: &String| {
        let point = |task: usize| {
            let of = rows.iter().filter(|r| r.method == *method);
            let found: Vec<f64> = of.filter_map(|r| r.findings.get(&place(last, task)).copied()).collect();
            (!found.is_empty()).then(|| mean_std(&found)).map(|(mean, std)| ((task + 1) as f64, mean, std))
        };
        Line { name: method.clone(), points: (0..=last).filter_map(point).collect() }
    };
    plan.methods.iter().map(line).collect()
}

fn panels(plan: &Plan, ground: &Ground, rows: &[Record]) -> Vec<Panel> {
    let tasks = ground.tasks.len();
    let panel = |method: &String| {
        let line = |i: usize| (0..tasks).map(|j| mean_finding(rows, method, 0.0, &place(i, j))).collect();
        Panel { name: method.clone(), rows: (0..tasks).filter_map(line).collect() }
    };
    plan.methods.iter().map(panel).collect()
}

fn describe(plan: &Plan, ground: &Ground) -> String {
    let Plan { blocks, anchor_epochs, epochs, batch, learning_rate, packnet, .. } = plan;
    let tasks: Vec<String> = ground.tasks.iter().enumerate().map(|(i, t)| format!("{} {}", i + 1, t.name)).collect();
    format!(
        "{} (16, 32 and 64 channels), trained {anchor_epochs} epochs on {}; tasks: {}; {} and {} images to \
         train on; {epochs} epochs each with Adam, learning rate {learning_rate}, a tenth after each third, batch {batch}; \
         PackNet prunes {:.0} % and has norms of each task's own{}",
        if *blocks == 0 { "three convolutions with batch norm".into() } else { format!("ResNet-{}", 6 * blocks + 2) },
        ground.anchor.name,
        tasks.join("; "),
        ground.anchor.train.labels.len(),
        ground.tasks.iter().map(|t| t.train.labels.len().to_string()).collect::<Vec<_>>().join(", "),
        100.0 * packnet,
        if plan.validate { "; tested on held-out training images" } else { "" },
    )
}
