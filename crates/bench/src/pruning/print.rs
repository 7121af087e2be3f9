//! Shows the pruning table: printed, as JSON, as a picture, with the rankings that papers report.

use std::path::Path;

use burn::tensor::Device;
use regrow_sparse_core::Result;

use super::rows::DENSE;
use super::{Comparison, Plan};
use crate::claim::Claim;
use crate::paper::Paper;
use crate::record::{Measure, Record, spread, values};
use crate::show::{self, Outcome};

/// Rankings that papers report, as pairs to compare.
pub const CLAIMS: [Claim; 16] = [
    Claim { text: "SNIP beats random masks (1810.02340)", better: "SNIP", than: "static random ERK" },
    Claim { text: "GraSP beats SNIP (2002.07376)", better: "GraSP", than: "SNIP" },
    Claim { text: "SynFlow beats SNIP (2006.05467)", better: "SynFlow", than: "SNIP" },
    Claim {
        text: "which weights go matters less than how many per layer: SynFlow shuffled does not lose (2203.02549)",
        better: "SynFlow shuffled",
        than: "SynFlow",
    },
    Claim {
        text: "a narrower network with the same layerwise densities beats the mask (2203.02549)",
        better: "PreCrop by SynFlow",
        than: "SynFlow",
    },
    Claim { text: "PreCrop beats SNIP (2203.02549)", better: "PreCrop", than: "SNIP" },
    Claim { text: "PreCrop beats even narrowing (2203.02549)", better: "PreCrop", than: "narrow evenly" },
    Claim { text: "IMP beats one-shot pruning (1506.02626)", better: "IMP", than: "one-shot" },
    Claim { text: "BiP beats IMP (2210.04092)", better: "BiP", than: "IMP" },
    Claim { text: "BiP beats one-shot pruning (2210.04092)", better: "BiP", than: "one-shot" },
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
pub const DRAWN: [&str; 8] = ["GraNet", "GMP", "RigL", "IMP", "one-shot", "SynFlow", "SNIP", "static random ERK"];

/// Prints the table and writes its JSON and its picture to `out`.
///
/// # Errors
/// If a file cannot be written, or the table's `paper.toml` is none.
pub fn show(
    comparison: &Comparison<'_>,
    plan: &Plan,
    rows: &[Record],
    out: &Path,
    device: &Device,
    seconds: f64,
) -> Result<()> {
    let paper = comparison.paper.map(Paper::parse).transpose()?;
    println!("{}\n", comparison.heading);
    if let Some(paper) = &paper {
        println!("{}\n{}\n", paper.title, paper.source);
    }
    println!("Ours: {}", describe(plan, comparison.cost));
    println!("Test accuracy in percent, mean and standard deviation over {} seeds.\n", plan.seeds.1);
    let accuracy = |method: &str, sparsity: f64| spread(&values(rows, method, sparsity, 1));
    let print = |cell: &dyn Fn(&str, f64) -> String| {
        let methods = std::iter::once(DENSE).chain(plan.methods.iter().map(String::as_str));
        let cell = |method: &str, s: f64| cell(method, if method == DENSE { 0.0 } else { s });
        println!("{}\n", show::by_sparsity(methods, (&plan.sparsities, comparison.spared.of), &cell, &[]));
    };
    print(&accuracy);
    println!("Seconds of wall time of one run (several run side by side).\n");
    print(&|method, sparsity| show::mean_of(rows, method, sparsity, |r| Some(r.seconds)));
    println!("FLOPs of the sparse network for one example, in percent of the dense one's.\n");
    print(&|method, sparsity| show::mean_of(rows, method, sparsity, |r| share(rows, r)));
    let Plan { arch, dataset, epochs, .. } = plan;
    let title = format!(
        "{}: {arch} on {dataset}{}, {epochs} epochs, {} seeds",
        comparison.heading,
        plan.part.says(),
        plan.seeds.1
    );
    paper.iter().for_each(Paper::print_figures);
    let notes = (comparison.notes)(plan, rows);
    let outcome = Outcome {
        table: comparison.table,
        measure: Measure::Accuracy,
        plan,
        rows,
        claims: comparison.claims,
        notes: &notes,
        device,
        seconds,
    };
    outcome.close(
        out,
        &title,
        &show::lines(Measure::Accuracy, drawn(comparison.drawn, plan), &plan.sparsities, rows, 1),
    )
}

/// As many methods as there are colours: the chosen ones first.
fn drawn<'a>(first: &'a [&'a str], plan: &'a Plan) -> impl Iterator<Item = &'a str> {
    let chosen = first.iter().copied().filter(|m| plan.methods.iter().any(|n| n == m));
    let others = plan.methods.iter().map(String::as_str).filter(|m| !first.contains(m));
    chosen.chain(others).take(DRAWN.len())
}

fn describe(plan: &Plan, cost: &str) -> String {
    let Plan { dataset, arch, epochs, batch, learning_rate, weight_decay, momentum, .. } = plan;
    format!(
        "{arch} on {dataset}{}, {epochs} epochs {cost}; SGD with \
         momentum {momentum}, batch {batch}, learning rate {learning_rate} falling along a cosine, weight decay \
         {weight_decay}; masks move every fortieth of the training",
        plan.part.says()
    )
}

/// FLOPs in percent of the dense network's.
fn share(rows: &[Record], row: &Record) -> Option<f64> {
    let dense = rows.iter().find(|r| r.method == DENSE)?.flops?;
    Some(100.0 * row.flops? as f64 / dense as f64)
}
