//! Shows the RD table.

use std::path::Path;

use burn::tensor::Device;
use regrow_sparse_core::Result;

use super::Plan;
use super::rows::{BUDGETS, DENSE, RETRAINED};
use crate::claim::Claim;
use crate::paper::Paper;
use crate::record::{Measure, Record, spread, values};
use crate::show::{self, Outcome};

const PAPER: &str = include_str!("../../../../papers/rd/paper.toml");

/// What the paper says of its budgets.
const CLAIMS: [Claim; 8] = [
    Claim { text: "RD beats uniform without retraining", better: "RD", than: "uniform" },
    Claim { text: "RD beats ERK without retraining", better: "RD", than: "ERK" },
    Claim { text: "RD beats global without retraining", better: "RD", than: "global" },
    Claim { text: "RD beats LAMP without retraining", better: "RD", than: "LAMP" },
    Claim { text: "RD beats uniform after retraining", better: "RD, retrained", than: "uniform, retrained" },
    Claim { text: "RD beats ERK after retraining", better: "RD, retrained", than: "ERK, retrained" },
    Claim { text: "RD beats global after retraining", better: "RD, retrained", than: "global, retrained" },
    Claim { text: "RD beats LAMP after retraining", better: "RD, retrained", than: "LAMP, retrained" },
];

/// Prints the table and writes `rd.json` and `rd.svg` to `out`.
pub fn show(plan: &Plan, rows: &[Record], notes: &[String], out: &Path, device: &Device, seconds: f64) -> Result<()> {
    let paper = Paper::parse(PAPER)?;
    println!("{}\n{}\n", paper.title, paper.source);
    println!("Ours: {}", describe(plan));
    println!("Test accuracy in percent, mean and standard deviation over {} seeds.\n", plan.seeds.1);
    let retrained = BUDGETS.map(|name| format!("{name}{RETRAINED}"));
    let names = [DENSE].into_iter().chain(BUDGETS).chain(retrained.iter().map(String::as_str));
    let there = names.filter(|name| rows.iter().any(|r| r.method == *name));
    let cell = |method: &str, s: f64| spread(&values(rows, method, if method == DENSE { 0.0 } else { s }, 1));
    println!("{}\n", show::by_sparsity(there, (&plan.sparsities, "zeros"), &cell, &[]));
    paper.print_figures();
    let title = format!("RD budgets: {} on {}, not retrained", plan.arch, plan.dataset);
    let outcome =
        Outcome { table: "rd", measure: Measure::Accuracy, plan, rows, claims: &CLAIMS, notes, device, seconds };
    outcome.close(out, &title, &show::lines(Measure::Accuracy, BUDGETS, &plan.sparsities, rows, 1))
}

fn describe(plan: &Plan) -> String {
    let Plan { dataset, arch, epochs, retrain, amounts, most, calibration, .. } = plan;
    let network = match &plan.checkpoint {
        Some(file) => format!("{arch} from {file}"),
        None => format!("{arch} trained for {epochs} epochs"),
    };
    format!(
        "{network} on {dataset}; magnitude within each layer; distortions at {amounts} amounts up to {most} of each layer on \
         {calibration} training images; {retrain} epochs of retraining{}",
        plan.part.says()
    )
}
