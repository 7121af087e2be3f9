//! Shows the pruning table: accuracies, times and FLOPs by sparsity.

use super::rows::DENSE;
use super::{Compared, Plan};
use crate::harness::prelude::*;

/// The lines of the picture, where their methods were run.
pub const DRAWN: [&str; 8] = ["GraNet", "GMP", "RigL", "IMP", "one-shot", "SynFlow", "SNIP", "static random ERK"];

impl Compared<'_> {
    /// Methods by sparsity: accuracies, seconds, FLOPs.
    pub(super) fn shown(&self, rows: &[Record]) -> View {
        let (plan, comparison) = (self.plan, self.comparison);
        let methods: Vec<&str> = std::iter::once(DENSE).chain(plan.methods.iter().map(String::as_str)).collect();
        let table = |of: &dyn Fn(f64) -> Column<'static>| {
            let columns: Vec<Column<'_>> = plan.sparsities.iter().map(|s| of(*s)).collect();
            view::table(&methods, rows, &columns)
        };
        let of = comparison.spared.of;
        let dense = rows.iter().find(|r| r.method == DENSE).and_then(|r| r.flops);
        let share = move |row: &Record| Some(100.0 * row.flops? as f64 / dense? as f64);
        let sections = vec![
            ("Test accuracy in percent, mean and standard deviation over seeds.", table(&|s| Column::at(s, of))),
            (
                "Seconds of wall time of one run (several run side by side).",
                table(&|s| Column::mean_at(s, of, 2, |r| Some(r.seconds))),
            ),
            (
                "FLOPs of the sparse network for one example, in percent of the dense one's.",
                table(&|s| Column::mean_at(s, of, 2, share)),
            ),
        ];
        let Plan { arch, dataset, epochs, .. } = plan;
        let title = format!("{}: {arch} on {dataset}{}, {epochs} epochs", comparison.heading, plan.part.says());
        let drawn: Vec<&str> = drawn(comparison.drawn, plan).collect();
        let lines = view::lines(&drawn, rows, view::over_sparsity(Measure::Accuracy));
        View {
            sections: sections.into_iter().map(|(caption, table)| (caption.to_string(), table)).collect(),
            notes: (comparison.notes)(plan, rows),
            title,
            ..View::default().over("sparsity", lines)
        }
    }
}

/// As many methods as there are colours: the chosen ones first.
fn drawn<'a>(first: &'a [&'a str], plan: &'a Plan) -> impl Iterator<Item = &'a str> {
    let chosen = first.iter().copied().filter(|m| plan.methods.iter().any(|n| n == m));
    let others = plan.methods.iter().map(String::as_str).filter(|m| !first.contains(m));
    chosen.chain(others).take(DRAWN.len())
}
