//! How every table is shown: printed by method and sparsity, claims judged, as JSON, as a picture.

use std::path::Path;

use burn::tensor::Device;
use comfy_table::{CellAlignment, Table, presets};
use regrow_sparse_core::Result;
use serde::Serialize;

use crate::claim::{Claim, Verdict};
use crate::picture::{self, Line};
use crate::record::{Record, Report, accuracies, mean_std};
use crate::{memory, setting};

/// A table that is complete.
pub struct Outcome<'a, P> {
    /// Its name: that of the command and of the files.
    pub table: &'a str,
    /// Its plan.
    pub plan: &'a P,
    /// What was measured.
    pub rows: &'a [Record],
    /// What papers claim of it.
    pub claims: &'a [Claim],
    /// Findings that are no rows, a line each.
    pub notes: &'a [String],
    /// Where it ran.
    pub device: &'a Device,
    /// Seconds of wall time in all.
    pub seconds: f64,
}

impl<P: Serialize> Outcome<'_, P> {
    /// Prints notes, claims and costs, and writes `<table>.json` and `<table>.svg` to `out`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn close(&self, out: &Path, title: &str, lines: &[Line]) -> Result<()> {
        self.notes.iter().for_each(|note| println!("{note}"));
        let claims: Vec<Verdict> = self.claims.iter().filter_map(|claim| claim.judge(self.rows)).collect();
        println!(
            "What papers claim, here (each seed's difference averaged over all settings, points with 95 % interval):"
        );
        claims.iter().for_each(|claim| println!("  {claim}"));
        let peak = memory::peak();
        let megabytes = peak.map_or("unknown".into(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6));
        println!("\n{:.0} s in all, peak memory {megabytes}, device {:?}", self.seconds, self.device);
        let report = Report {
            table: self.table,
            command: setting::command(),
            device: format!("{:?}", self.device),
            settings: self.plan,
            seconds: self.seconds,
            peak_memory: peak,
            claims: &claims,
            notes: self.notes,
            rows: self.rows,
        };
        let json = out.join(format!("{}.json", self.table));
        report.write(&json)?;
        picture::write(&out.join(format!("{}.svg", self.table)), title, "sparsity", "test accuracy, %", lines)?;
        println!("written: {} and {}.svg", json.display(), self.table);
        Ok(())
    }
}

/// A column's head, and its cell of each method.
pub type Column<'a> = (&'a str, &'a dyn Fn(&str) -> String);

/// A table with a row for each method and a column for each sparsity `of` something, and others after
/// them.
pub fn by_sparsity<'a>(
    methods: impl IntoIterator<Item = &'a str>,
    (sparsities, of): (&[f64], &str),
    cell: &dyn Fn(&str, f64) -> String,
    more: &[Column<'_>],
) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let heads = sparsities.iter().map(|s| format!("{:.4} % {of}", s * 100.0).replace(".0000", ""));
    let others = more.iter().map(|(head, _)| head.to_string());
    table.set_header(["method".to_string()].into_iter().chain(heads).chain(others));
    for method in methods {
        let cells = sparsities.iter().map(|s| cell(method, *s));
        let others = more.iter().map(|(_, cell)| cell(method));
        table.add_row([method.to_string()].into_iter().chain(cells).chain(others));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The mean of a value over the rows of one method and sparsity.
pub fn mean_of(rows: &[Record], method: &str, sparsity: f64, value: impl Fn(&Record) -> Option<f64>) -> String {
    let chosen = rows.iter().filter(|r| r.method == method && r.sparsity == sparsity);
    let values: Vec<f64> = chosen.filter_map(value).collect();
    if values.is_empty() { "-".into() } else { format!("{:.2}", mean_std(&values).0) }
}

/// Accuracy over sparsity of each method, at one m.
pub fn lines<'a>(
    methods: impl IntoIterator<Item = &'a str>,
    sparsities: &[f64],
    rows: &[Record],
    m: usize,
) -> Vec<Line> {
    let line = |method: &str| {
        let point = |s: &f64| {
            let values: Vec<f64> = accuracies(rows, method, *s, m).into_iter().map(|(_, a)| a).collect();
            (!values.is_empty()).then(|| mean_std(&values)).map(|(mean, std)| (*s, mean, std))
        };
        Line { name: method.into(), points: sparsities.iter().filter_map(point).collect() }
    };
    methods.into_iter().map(line).collect()
}
