//! Shows the pruning table: printed, as JSON, as a picture, with the rankings that papers report.

use std::path::Path;

use burn::tensor::Device;
use comfy_table::{CellAlignment, Table, presets};
use regrow_sparse_core::Result;

use super::Plan;
use super::rows::DENSE;
use crate::claim::{Claim, Verdict};
use crate::picture::{self, Line};
use crate::record::{Record, Report, accuracies, mean_std, spread};
use crate::{memory, setting};

/// Rankings that papers report, as pairs to compare.
const CLAIMS: [Claim; 10] = [
    Claim { text: "SNIP beats random masks (1810.02340)", better: "SNIP", than: "static random ERK" },
    Claim { text: "GraSP beats SNIP (2002.07376)", better: "GraSP", than: "SNIP" },
    Claim { text: "SynFlow beats SNIP (2006.05467)", better: "SynFlow", than: "SNIP" },
    Claim { text: "IMP beats one-shot pruning (1506.02626)", better: "IMP", than: "one-shot" },
    Claim { text: "DPF beats GMP (2006.07253)", better: "DPF", than: "GMP" },
    Claim { text: "SET beats static masks (1707.04780)", better: "SET", than: "static random ERK" },
    Claim { text: "RigL beats SET (1911.11134)", better: "RigL", than: "SET" },
    Claim { text: "GraNet beats GMP (2106.10404)", better: "GraNet", than: "GMP" },
    Claim { text: "GraNet beats RigL (2106.10404)", better: "GraNet", than: "RigL" },
    Claim {
        text: "GraNet beats RigL from sparse to sparse (2106.10404)",
        better: "GraNet sparse-to-sparse",
        than: "RigL",
    },
];

/// The lines of the picture, where their methods were run.
const DRAWN: [&str; 8] = ["GraNet", "GMP", "RigL", "IMP", "one-shot", "SynFlow", "SNIP", "static random ERK"];

/// Prints the table and writes `pruning.json` and `pruning.svg` to `out`.
///
/// # Errors
/// If a file cannot be written.
pub fn show(plan: &Plan, rows: &[Record], out: &Path, device: &Device, seconds: f64) -> Result<()> {
    println!("Pruning methods at equal training cost\n");
    println!("Ours: {}", describe(plan));
    println!("Test accuracy in percent, mean and standard deviation over {} seeds.\n", plan.seeds.1);
    let accuracy = |method: &str, sparsity: f64| spread(&accuracies(rows, method, sparsity, 1));
    println!("{}\n", table(plan, &accuracy));
    println!("Seconds of wall time of one run (several run side by side).\n");
    println!("{}\n", table(plan, &|method, sparsity| mean_of(rows, method, sparsity, |r| Some(r.seconds), 2)));
    println!("FLOPs of the sparse network for one example, in percent of the dense one's.\n");
    println!("{}\n", table(plan, &|method, sparsity| mean_of(rows, method, sparsity, |r| share(rows, r), 2)));
    let claims: Vec<Verdict> = CLAIMS.iter().filter_map(|claim| claim.judge(rows)).collect();
    println!(
        "Rankings that papers report, here (each seed's difference averaged over the sparsities, with 95 % interval):"
    );
    claims.iter().for_each(|claim| println!("  {claim}"));
    let peak = memory::peak();
    let megabytes = peak.map_or("unknown".into(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6));
    println!("\n{seconds:.0} s in all, peak memory {megabytes}, device {device:?}");
    let report = Report {
        table: "pruning",
        command: setting::command(),
        device: format!("{device:?}"),
        settings: plan,
        seconds,
        peak_memory: peak,
        claims: &claims,
        rows,
    };
    report.write(&out.join("pruning.json"))?;
    draw(plan, rows, &out.join("pruning.svg"))?;
    println!("written: {} and pruning.svg", out.join("pruning.json").display());
    Ok(())
}

fn describe(plan: &Plan) -> String {
    let Plan { dataset, arch, epochs, batch, learning_rate, weight_decay, momentum, .. } = plan;
    format!(
        "{arch} on {dataset}, {epochs} epochs for every method, before, during and after pruning together; SGD with \
         momentum {momentum}, batch {batch}, learning rate {learning_rate} falling along a cosine, weight decay \
         {weight_decay}; masks move every fortieth of the training"
    )
}

fn table(plan: &Plan, cell: &dyn Fn(&str, f64) -> String) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let heads = plan.sparsities.iter().map(|s| format!("{:.4} % zeros", s * 100.0).replace(".0000", ""));
    table.set_header(["method".to_string()].into_iter().chain(heads));
    for method in std::iter::once(DENSE).chain(plan.methods.iter().map(String::as_str)) {
        let cells = plan.sparsities.iter().map(|s| cell(method, if method == DENSE { 0.0 } else { *s }));
        table.add_row([method.to_string()].into_iter().chain(cells));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn mean_of(
    rows: &[Record],
    method: &str,
    sparsity: f64,
    value: impl Fn(&Record) -> Option<f64>,
    digits: usize,
) -> String {
    let chosen = rows.iter().filter(|r| r.method == method && r.sparsity == sparsity);
    let values: Vec<f64> = chosen.filter_map(value).collect();
    if values.is_empty() { "-".into() } else { format!("{:.digits$}", mean_std(&values).0) }
}

/// FLOPs in percent of the dense network's.
fn share(rows: &[Record], row: &Record) -> Option<f64> {
    let dense = rows.iter().find(|r| r.method == DENSE)?.flops?;
    Some(100.0 * row.flops? as f64 / dense as f64)
}

fn draw(plan: &Plan, rows: &[Record], path: &Path) -> Result<()> {
    let others = plan.methods.iter().map(String::as_str).filter(|m| !DRAWN.contains(m));
    let shown = DRAWN.into_iter().filter(|m| plan.methods.iter().any(|n| n == m)).chain(others).take(DRAWN.len());
    let line = |method: &str| {
        let point = |s: &f64| {
            let values: Vec<f64> = accuracies(rows, method, *s, 1).into_iter().map(|(_, a)| a).collect();
            (!values.is_empty()).then(|| mean_std(&values)).map(|(mean, std)| (*s, mean, std))
        };
        Line { name: method.into(), points: plan.sparsities.iter().filter_map(point).collect() }
    };
    let lines: Vec<Line> = shown.map(line).collect();
    let title =
        format!("Pruning methods: {} on {}, {} epochs, {} seeds", plan.arch, plan.dataset, plan.epochs, plan.seeds.1);
    picture::write(path, &title, "sparsity", "test accuracy, %", &lines)
}
