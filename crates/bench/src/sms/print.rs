//! Shows the SMS table: printed, as JSON, as a picture, with the paper's figures and claims.

use std::path::Path;

use burn::tensor::Device;
use comfy_table::{CellAlignment, Table, presets};
use regrow_sparse_core::Result;

use super::Plan;
use super::rows::{BEST, DENSE, ENSEMBLE, IMP_LONGER, IMP_MEAN, MEAN, METHODS, ONE_PHASE, REPRUNE, UNIFORM};
use crate::claim::{Claim, Verdict};
use crate::paper::Paper;
use crate::picture::{self, Line};
use crate::record::{Record, Report, accuracies, mean_std, spread};
use crate::{memory, setting};

const PAPER: &str = include_str!("../../../../papers/sms/paper.toml");

/// What the paper says of these methods, as pairs to compare.
const CLAIMS: [Claim; 6] = [
    Claim { text: "SMS beats the mean of its candidates", better: UNIFORM, than: MEAN },
    Claim { text: "SMS beats its best candidate", better: UNIFORM, than: BEST },
    Claim { text: "SMS beats IMP", better: UNIFORM, than: IMP_MEAN },
    Claim { text: "SMS beats IMP with m times the retraining", better: UNIFORM, than: IMP_LONGER },
    Claim { text: "SMS beats averaging first and pruning again", better: UNIFORM, than: REPRUNE },
    Claim { text: "averaging in every phase beats averaging in the last", better: UNIFORM, than: ONE_PHASE },
];

/// Prints the table and writes `sms.json` and `sms.svg` to `out`.
pub fn show(plan: &Plan, rows: &[Record], out: &Path, device: &Device, seconds: f64) -> Result<()> {
    let paper = Paper::parse(PAPER)?;
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
    let claims: Vec<Verdict> = CLAIMS.iter().filter_map(|claim| claim.judge(rows)).collect();
    println!("The paper's claims here (each seed's difference averaged over all settings, points with 95 % interval):");
    claims.iter().for_each(|claim| println!("  {claim}"));
    let peak = memory::peak();
    let megabytes = peak.map_or("unknown".into(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6));
    println!("\n{seconds:.0} s in all, peak memory {megabytes}, device {device:?}");
    let report = Report {
        table: "sms",
        command: setting::command(),
        device: format!("{device:?}"),
        settings: plan,
        seconds,
        peak_memory: peak,
        claims: &claims,
        rows,
    };
    report.write(&out.join("sms.json"))?;
    draw(plan, rows, &out.join("sms.svg"))?;
    println!("written: {} and sms.svg", out.join("sms.json").display());
    Ok(())
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
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let heads = plan.sparsities.iter().map(|s| format!("{:.4} % zeros", s * 100.0).replace(".0000", ""));
    table.set_header(["method".to_string()].into_iter().chain(heads).chain(["seconds".to_string()]));
    for method in METHODS {
        let of =
            |s: f64| if method == DENSE { accuracies(rows, method, 0.0, 1) } else { accuracies(rows, method, s, m) };
        let cells = plan.sparsities.iter().map(|s| spread(&of(*s)));
        let seconds: Vec<f64> =
            rows.iter().filter(|r| r.method == method && (r.m == m || r.m == 1)).map(|r| r.seconds).collect();
        let seconds = if seconds.is_empty() { "-".into() } else { format!("{:.2}", mean_std(&seconds).0) };
        table.add_row([method.to_string()].into_iter().chain(cells).chain([seconds]));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn draw(plan: &Plan, rows: &[Record], path: &Path) -> Result<()> {
    let m = plan.candidates.iter().copied().max().unwrap_or(1);
    let shown = [IMP_MEAN, IMP_LONGER, REPRUNE, ONE_PHASE, MEAN, UNIFORM, ENSEMBLE];
    let line = |method: &&str| {
        let point = |s: &f64| {
            let values: Vec<f64> = accuracies(rows, method, *s, m).into_iter().map(|(_, a)| a).collect();
            (!values.is_empty()).then(|| mean_std(&values)).map(|(mean, std)| (*s, mean, std))
        };
        Line { name: (*method).into(), points: plan.sparsities.iter().filter_map(point).collect() }
    };
    let lines: Vec<Line> = shown.iter().map(line).collect();
    let title = format!("Sparse Model Soups: {} on {}, m = {m}, {} seeds", plan.arch, plan.dataset, plan.seeds.1);
    picture::write(path, &title, "sparsity", "test accuracy, %", &lines)
}
