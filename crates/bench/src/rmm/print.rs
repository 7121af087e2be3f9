//! Shows the RMM table.

use std::path::Path;

use burn::tensor::Device;
use regrow_sparse_core::Result;

use super::Plan;
use super::rows::{BASES, ERROR, OWN, OWN_WHOLE, PARENT, RULES, STORAGE, WAYS, WHAT, reversible};
use crate::claim::Claim;
use crate::kin;
use crate::paper::Paper;
use crate::picture::Line;
use crate::record::{Measure, Record, mean_std, spread};
use crate::show::{self, Outcome};

const PAPER: &str = include_str!("../../../../papers/rmm/paper.toml");

/// What the paper says: one model for all breaks where weights are of low rank, RMM keeps them.
const CLAIMS: [Claim; 12] = [
    Claim {
        text: "task arithmetic breaks: worse on factors than on models that are not cut",
        better: "task arithmetic, not cut",
        than: "task arithmetic, factors",
    },
    Claim {
        text: "TIES breaks: worse on factors than on models that are not cut",
        better: "TIES, not cut",
        than: "TIES, factors",
    },
    Claim {
        text: "DARE breaks: worse on factors than on models that are not cut",
        better: "DARE, not cut",
        than: "DARE, factors",
    },
    Claim {
        text: "task arithmetic of products, too, is worse than of models that are not cut",
        better: "task arithmetic, not cut",
        than: "task arithmetic, products",
    },
    Claim { text: "own low-rank models beat task arithmetic of them", better: OWN, than: "task arithmetic, products" },
    Claim { text: "RMM with 2 basis models beats the average", better: "RMM, 2", than: "average, products" },
    Claim {
        text: "RMM with 2 basis models beats task arithmetic of products",
        better: "RMM, 2",
        than: "task arithmetic, products",
    },
    Claim { text: "RMM with 2 basis models beats TIES of products", better: "RMM, 2", than: "TIES, products" },
    Claim { text: "RMM with 2 basis models beats DARE of products", better: "RMM, 2", than: "DARE, products" },
    Claim {
        text: "RMM with 2 basis models beats task arithmetic of factors",
        better: "RMM, 2",
        than: "task arithmetic, factors",
    },
    Claim { text: "coefficients by position beat those by layer", better: "RMM, 2", than: "RMM by layer, 2" },
    Claim {
        text: "own low-rank models beat RMM with 3 basis models (RMM keeps them where this does not hold)",
        better: OWN,
        than: "RMM, 3",
    },
];

/// Prints the table and writes `rmm.json` and `rmm.svg` to `out`.
pub fn show(plan: &Plan, rows: &[Record], out: &Path, device: &Device, seconds: f64) -> Result<()> {
    let paper = Paper::parse(PAPER)?;
    println!("{}\n{}\n", paper.title, paper.source);
    println!("Ours: {}", describe(plan));
    println!(
        "Test accuracy in percent, mean over tasks; mean and standard deviation over {} seeds. Storage: numbers kept over\n\
         those of all children; error: relative, of the differences (both means over all columns).\n",
        plan.kin.seeds.1
    );
    let columns: Vec<(&str, usize)> = WAYS.iter().flat_map(|way| plan.ranks.iter().map(|r| (*way, *r))).collect();
    let methods = methods(rows)?;
    let heads = columns.iter().map(|(way, rank)| format!("{way} {rank}")).collect();
    let cell = |method: &str, column: usize| spread(&values(rows, method, columns[column]));
    let mean = |name: &'static str| move |method: &str| mean_of(rows, method, name);
    let (storage, error) = (mean(STORAGE), mean(ERROR));
    let more: [show::Column<'_>; 2] = [("storage", &storage), ("error", &error)];
    println!("{}\n", show::by_column(methods.iter().map(String::as_str), heads, &cell, &more));
    paper.print_figures();
    let notes = kept(rows, &columns);
    let title = format!("RMM: {} tasks of {}, {}, cut by SVD", plan.kin.count, plan.kin.dataset, plan.kin.arch);
    let outcome = Outcome {
        table: "rmm",
        measure: Measure::Accuracy,
        plan,
        rows,
        claims: &CLAIMS,
        notes: &notes,
        device,
        seconds,
    };
    outcome.close_over(out, &title, "rank", &lines(rows, &plan.ranks))
}

/// The rows in their order, those that were measured.
fn methods(rows: &[Record]) -> Result<Vec<String>> {
    let one = [PARENT, OWN_WHOLE, OWN].map(String::from);
    let merged = WHAT.iter().flat_map(|what| RULES.iter().map(move |rule| format!("{rule}, {what}")));
    let ways = reversible(1)?;
    let spaces = ways.iter().flat_map(|(name, _)| BASES.map(|p| format!("{name}, {p}")));
    let all = one.into_iter().chain(merged).chain(spaces);
    Ok(all.filter(|name| rows.iter().any(|r| r.method == *name)).collect())
}

fn values(rows: &[Record], method: &str, (way, rank): (&str, usize)) -> Vec<(u64, f64)> {
    let wanted = rows.iter().filter(|r| r.method == method && r.pattern == way && r.m == rank);
    wanted.map(|r| (r.seed, r.value)).collect()
}

fn mean_of(rows: &[Record], method: &str, finding: &str) -> String {
    let found = rows.iter().filter(|r| r.method == method).filter_map(|r| r.findings.get(finding).copied());
    let found: Vec<f64> = found.collect();
    if found.is_empty() { "-".into() } else { format!("{:.3}", mean_std(&found).0) }
}

/// How much of the own models' accuracy is left.
fn kept(rows: &[Record], columns: &[(&str, usize)]) -> Vec<String> {
    let mean = |method: &str, column| {
        let found: Vec<f64> = values(rows, method, column).into_iter().map(|(_, v)| v).collect();
        if found.is_empty() { f64::NAN } else { mean_std(&found).0 }
    };
    let line = |method: &&str| {
        let shares =
            columns.iter().map(|c| format!("{} {}: {:.1} %", c.0, c.1, 100.0 * mean(method, *c) / mean(OWN, *c)));
        format!("of the own models' accuracy, {method} keeps {}", shares.collect::<Vec<_>>().join(", "))
    };
    ["task arithmetic, products", "RMM, 1", "RMM, 2", "RMM, 3"].iter().map(line).collect()
}

fn lines(rows: &[Record], ranks: &[usize]) -> Vec<Line> {
    let shown =
        [OWN, "task arithmetic, products", "TIES, products", "task arithmetic, factors", "RMM, 1", "RMM, 2", "RMM, 3"];
    let line = |method: &str| {
        let point = |rank: &usize| {
            let found: Vec<f64> = values(rows, method, ("SVD", *rank)).into_iter().map(|(_, v)| v).collect();
            (!found.is_empty()).then(|| mean_std(&found)).map(|(mean, std)| (*rank as f64, mean, std))
        };
        Line { name: method.into(), points: ranks.iter().filter_map(point).collect() }
    };
    shown.into_iter().map(line).collect()
}

fn describe(plan: &Plan) -> String {
    let (Plan { rate, lora_rate, .. }, kin::Plan { dataset, arch, epochs, tune, batch, .. }) = (plan, &plan.kin);
    let tasks = plan.kin.tasks_in_words();
    format!(
        "{arch} on {dataset}, {epochs} epochs; {tasks}, {tune} epochs each of the weight matrices, biases \
         fixed; SGD with momentum 0.9, batch {batch}, learning rate {rate} (LoRA {lora_rate}, alpha / r 2) along a cosine; \
         factors of merged differences chosen on held-out images, TIES keeps 0.2, DARE 0.5"
    )
}
