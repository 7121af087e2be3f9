//! Shows the SMS table: printed, as JSON, as a picture, with the paper's figures and claims.

use std::path::Path;

use burn::tensor::Device;
use comfy_table::Table;
use regrow_sparse_core::Result;

use super::Plan;
use super::rows::{DENSE, ENSEMBLE, IMP_LONGER, IMP_MEAN, MEAN, METHODS, ONE_PHASE, REPRUNE, UNIFORM};
use crate::harness::paper::Paper;
use crate::harness::record::{Measure, Record, mean_std, spread, values};
use crate::harness::render::{self, Outcome};

/// Prints the table and writes `sms.json` and `sms.svg` to `out`.
pub fn show(plan: &Plan, rows: &[Record], out: &Path, device: &Device, seconds: f64) -> Result<()> {
    let paper = Paper::parse(super::INFO.paper)?;
    println!("{}\n{}\n", paper.title, paper.source);
    println!("Ours: {}", describe(plan));
    println!(
        "Test accuracy in percent, mean and standard deviation over {} seeds; seconds of wall time per row.\n",
        plan.seeds.1
    );
    for m in &plan.candidates {
        println!("m = {m}\n{}\n", table(plan, rows, *m));
    }
    paper.print_figures();
    let m = plan.candidates.iter().copied().max().unwrap_or(1);
    let title = format!("Sparse Model Soups: {} on {}, m = {m}, {} seeds", plan.arch, plan.dataset, plan.seeds.1);
    let shown = [IMP_MEAN, IMP_LONGER, REPRUNE, ONE_PHASE, MEAN, UNIFORM, ENSEMBLE];
    let outcome = Outcome {
        table: "sms",
        measure: Measure::Accuracy,
        plan,
        rows,
        claims: &paper.claims,
        notes: &[],
        device,
        seconds,
    };
    outcome.close(out, &title, &render::lines(Measure::Accuracy, shown, &plan.sparsities, rows, m))
}

fn describe(plan: &Plan) -> String {
    let Plan { dataset, arch, pretrain_epochs, phase_epochs, phases, batch, learning_rate, weight_decay, .. } = plan;
    format!(
        "{arch} on {dataset}, {pretrain_epochs} epochs dense, then {phases} phases of {phase_epochs} epochs; global magnitude; \
         SGD with momentum {}, batch {batch}, learning rate {learning_rate} falling linearly (phases warm up for a tenth), \
         weight decay {weight_decay}; candidates differ in {}",
        plan.momentum,
        match plan.vary {
            super::Vary::Seed => "the order of the examples",
            super::Vary::WeightDecay => "weight decay",
            super::Vary::LearningRate => "learning rate",
        }
    )
}

fn table(plan: &Plan, rows: &[Record], m: usize) -> Table {
    let cell = |method: &str, s: f64| match method == DENSE {
        true => spread(&values(rows, method, 0.0, 1)),
        false => spread(&values(rows, method, s, m)),
    };
    let seconds = |method: &str| {
        let chosen = rows.iter().filter(|r| r.method == method && (r.m == m || r.m == 1));
        let seconds: Vec<f64> = chosen.map(|r| r.seconds).collect();
        if seconds.is_empty() { "-".into() } else { format!("{:.2}", mean_std(&seconds).0) }
    };
    render::by_sparsity(METHODS, (&plan.sparsities, "zeros"), &cell, &[("seconds", &seconds)])
}
