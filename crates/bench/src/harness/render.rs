//! Output shared by all tables: printed by method and sparsity, claims judged, as JSON, as a picture.

use std::path::Path;

use burn::tensor::Device;
use comfy_table::{CellAlignment, Table, presets};
use regrow_sparse_core::Result;
use serde::Serialize;

use crate::harness::claim::{Claim, Verdict};
use crate::harness::picture::{self, Line};
use crate::harness::record::{Measure, Record, mean_std};
use crate::harness::results::ResultFile;
use crate::harness::{memory, settings};

/// A finished table.
pub struct Outcome<'a, P> {
    /// Its name: that of the command and of the files.
    pub table: &'a str,
    /// What its rows measure.
    pub measure: Measure,
    /// Its plan.
    pub plan: &'a P,
    /// What was measured.
    pub rows: &'a [Record],
    /// The papers' claims about it.
    pub claims: &'a [Claim],
    /// Findings that are not rows, one per line.
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
        self.close_over(out, title, ("sparsity", self.measure.axis()), lines)
    }

    /// [`Outcome::close`] with names of the picture's axes.
    ///
    /// # Errors
    /// As there.
    pub fn close_over(&self, out: &Path, title: &str, (x_name, y_name): (&str, &str), lines: &[Line]) -> Result<()> {
        self.notes.iter().for_each(|note| println!("{note}"));
        let claims: Vec<Verdict> =
            self.claims.iter().filter_map(|claim| claim.judge(self.rows, self.measure)).collect();
        if !claims.is_empty() {
            let unit = self.measure.unit();
            println!(
                "What papers claim, here (each seed's gain averaged over all settings, {unit} with 95 % interval):"
            );
            claims.iter().for_each(|claim| println!("  {claim}"));
        }
        let peak = memory::peak();
        let megabytes = peak.map_or("unknown".into(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6));
        println!("\n{:.0} s in all, peak memory {megabytes}, device {}", self.seconds, settings::devices(self.device));
        let report = ResultFile {
            table: self.table,
            measure: self.measure,
            command: settings::command(),
            device: settings::devices(self.device),
            settings: self.plan,
            seconds: self.seconds,
            peak_memory: peak,
            claims: &claims,
            notes: self.notes,
            rows: self.rows,
        };
        let json = out.join(format!("{}.json", self.table));
        report.write(&json)?;
        picture::write(&out.join(format!("{}.svg", self.table)), title, x_name, y_name, lines)?;
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
    let heads = sparsities.iter().map(|s| format!("{:.4} % {of}", s * 100.0).replace(".0000", "")).collect();
    by_column(methods, heads, &|method, column| cell(method, sparsities[column]), more)
}

/// A table with a row for each method, a column for each of `heads`, and others after them.
pub fn by_column<'a>(
    methods: impl IntoIterator<Item = &'a str>,
    heads: Vec<String>,
    cell: &dyn Fn(&str, usize) -> String,
    more: &[Column<'_>],
) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    let columns = heads.len();
    let others = more.iter().map(|(head, _)| head.to_string());
    table.set_header(["method".to_string()].into_iter().chain(heads).chain(others));
    for method in methods {
        let cells = (0..columns).map(|column| cell(method, column));
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

/// What `measure` draws over sparsity of each method, at one m; zeros anywhere.
pub fn lines<'a>(
    measure: Measure,
    methods: impl IntoIterator<Item = &'a str>,
    sparsities: &[f64],
    rows: &[Record],
    m: usize,
) -> Vec<Line> {
    let line = |method: &str| {
        let point = |s: &f64| {
            let chosen =
                rows.iter().filter(|r| r.pattern.is_empty() && (r.method.as_str(), r.sparsity, r.m) == (method, *s, m));
            let values: Vec<f64> = chosen.map(|r| measure.drawn(r.value)).collect();
            (!values.is_empty()).then(|| mean_std(&values)).map(|(mean, std)| (*s, mean, std))
        };
        Line { name: method.into(), points: sparsities.iter().filter_map(point).collect() }
    };
    methods.into_iter().map(line).collect()
}
