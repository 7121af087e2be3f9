//! Shows the table of language models.

use std::path::Path;

use burn::tensor::Device;
use regrow_sparse_core::{Pattern, Result};

use super::Plan;
use super::rows::{DENSE, TRAINED, row};
use crate::harness::paper::Paper;
use crate::harness::picture::number;
use crate::harness::record::{Measure, Record, mean_std, spread};
use crate::harness::render::{self, Outcome};

/// Prints the table and writes `llm.json` and `llm.svg` to `out`.
///
/// # Errors
/// If a file cannot be written.
pub fn show(plan: &Plan, rows: &[Record], notes: &[String], out: &Path, device: &Device, seconds: f64) -> Result<()> {
    let paper = Paper::parse(super::INFO.paper)?;
    println!("{}\n{}\n", paper.title, paper.source);
    println!("Ours: {}", describe(plan));
    println!("Perplexity, mean and standard deviation over {} seeds.\n", plan.seeds.1);
    let first = plan.forms.first().map(String::as_str);
    let plain = plan.methods.iter().flat_map(|m| [false, true].map(|owl| row(m, owl, None)));
    let retrained = plan.methods.iter().flat_map(|m| [false, true].map(|owl| row(m, owl, first)));
    table(plan, rows, std::iter::once(DENSE.to_string()).chain(plain).chain(retrained).collect(), &|found| {
        spread(&found.iter().map(|r| (r.seed, r.value)).collect::<Vec<_>>())
    });
    if plan.steps > 0 && plan.methods.iter().any(|m| m == "magnitude") {
        println!("By what is retrained after magnitude pruning.\n");
        let forms = plan.forms.iter().map(|form| row("magnitude", false, Some(form)));
        table(plan, rows, std::iter::once(row("magnitude", false, None)).chain(forms).collect(), &|found| {
            spread(&found.iter().map(|r| (r.seed, r.value)).collect::<Vec<_>>())
        });
    }
    println!("Seconds of wall time of one run (several run side by side).\n");
    let all: Vec<String> =
        plan.methods.iter().flat_map(|m| [row(m, false, None), row(m, true, None), row(m, false, first)]).collect();
    table(plan, rows, all, &|found| match found {
        [] => "-".into(),
        _ => format!("{:.2}", mean_std(&found.iter().map(|r| r.seconds).collect::<Vec<_>>()).0),
    });
    paper.print_figures();
    let title = match &plan.model {
        Some(model) => format!("Language models: {model}"),
        None => "Language models: a small Llama on a made-up language".into(),
    };
    let measure = Measure::Perplexity;
    let outcome = Outcome { table: "llm", measure, plan, rows, claims: &paper.claims, notes, device, seconds };
    let sparsities: Vec<f64> = plan.goals.iter().filter(|g| g.1 == Pattern::Unstructured).map(|g| g.0).collect();
    let drawn: Vec<String> = plan
        .methods
        .iter()
        .flat_map(|m| [row(m, false, None), row(m, true, None), row(m, false, first)])
        .take(8)
        .collect();
    let lines = render::lines(measure, drawn.iter().map(String::as_str), &sparsities, rows, 1);
    outcome.close(out, &title, &lines)
}

/// A row for each name, a column for each target; for retrained rows, the share of trained parameters.
fn table(plan: &Plan, rows: &[Record], names: Vec<String>, cell: &dyn Fn(&[&Record]) -> String) {
    let there: Vec<String> = names.into_iter().filter(|name| rows.iter().any(|r| r.method == *name)).collect();
    let heads = plan.goals.iter().map(|(sparsity, pattern)| match pattern {
        Pattern::Unstructured => format!("{} % zeros", number(sparsity * 100.0)),
        pattern => pattern.to_string(),
    });
    let of = |name: &str, column: usize| {
        let (sparsity, pattern) = plan.goals[column];
        let pattern = if pattern == Pattern::Unstructured { String::new() } else { pattern.to_string() };
        let wanted =
            |r: &&Record| r.method == name && (name == DENSE || (r.sparsity == sparsity && r.pattern == pattern));
        cell(&rows.iter().filter(wanted).collect::<Vec<_>>())
    };
    let trained = |name: &str| {
        let found = rows.iter().find(|r| r.method == name).and_then(|r| r.findings.get(TRAINED));
        found.map_or_else(String::new, |share| format!("{share:.2}"))
    };
    let any = there.iter().any(|name| !trained(name).is_empty());
    let more: &[render::Column<'_>] = if any { &[(TRAINED, &trained)] } else { &[] };
    println!("{}\n", render::by_column(there.iter().map(String::as_str), heads.collect(), &of, more));
}

fn describe(plan: &Plan) -> String {
    let Plan { samples, steps, learning_rate, rank, training, .. } = plan;
    let model = match (&plan.model, &plan.texts) {
        (Some(model), Some([calibration, text])) => {
            format!("{model}, calibrated on {samples} random windows of {calibration}, measured on {text}")
        }
        _ => format!(
            "a Llama of 3 blocks, trained for {training} steps on a made-up language, calibrated on {samples} random \
             windows"
        ),
    };
    format!("{model}; retrained for {steps} steps, AdamW, rate {learning_rate}, rank {rank}")
}
