//! `bench report`: all results, in one self-contained HTML page or as a Markdown page for each paper.
//!
//! A result is a JSON file that a table wrote ([`crate::harness::results::ResultFile`]).

mod html;
mod markdown;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regrow_checkpoint::atomic;
use regrow_sparse_core::{Error, Result};
use serde::Deserialize;

use crate::harness::paper::Paper;
use crate::harness::picture;
use crate::harness::record::{Measure, Record};
use crate::harness::run::Entry;
use crate::harness::view;

/// Gather the results of tables into one HTML page, or a Markdown page for each paper
#[derive(clap::Args, Clone, Debug)]
#[command(
    after_help = "Examples:\n  bench report papers tables --out report.html\n  bench report papers --markdown docs/src/papers"
)]
pub struct Args {
    /// Folders to search recursively; by default `papers` and `tables`, if they exist
    folders: Vec<PathBuf>,
    /// The output page
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
    /// Instead of the page, write a Markdown page for each paper that has results to this folder
    #[arg(long, value_name = "DIR")]
    markdown: Option<PathBuf>,
}

/// The fields of a result file that the page shows.
#[derive(Deserialize)]
struct Found {
    #[serde(skip)]
    path: PathBuf,
    table: String,
    #[serde(default)]
    measure: Measure,
    command: String,
    device: String,
    settings: serde_json::Value,
    seconds: f64,
    #[serde(default)]
    peak_memory: Option<u64>,
    #[serde(default)]
    claims: Vec<serde_json::Value>,
    #[serde(default)]
    notes: Vec<String>,
    rows: Vec<Record>,
}

/// Writes the page, or the pages, of the results of `tables`.
///
/// # Errors
/// If no result is found, or a page cannot be written.
pub fn run(args: &Args, tables: &[Entry]) -> Result<()> {
    let usual = || ["papers", "tables"].map(PathBuf::from).into_iter().filter(|p| p.is_dir()).collect();
    let folders: Vec<PathBuf> = if args.folders.is_empty() { usual() } else { args.folders.clone() };
    let mut found = Vec::new();
    for folder in &folders {
        gather(folder, &mut found)?;
    }
    if found.is_empty() {
        return Err(Error::Argument("no result of a table was found: run one first, as `bench sms`".into()));
    }
    found.sort_by(|a, b| (&a.table, &a.path).cmp(&(&b.table, &b.path)));
    if let Some(folder) = &args.markdown {
        return markdown::write(folder, &found, tables);
    }
    let page = html::page(&found, tables)?;
    atomic::write_atomic(&args.out, |out| out.write_all(page.as_bytes()))?;
    println!("written: {} ({} results)", args.out.display(), found.len());
    Ok(())
}

/// The results in `folder` and below; other JSON files are skipped.
fn gather(folder: &Path, found: &mut Vec<Found>) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if path.is_dir() {
            gather(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "json") {
            let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
            found.extend(serde_json::from_str::<Found>(&text).map(|f| Found { path, ..f }));
        }
    }
    Ok(())
}

impl Found {
    fn setting(&self, key: &str) -> String {
        match &self.settings[key] {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null => String::new(),
            other => other.to_string(),
        }
    }

    fn name(&self) -> String {
        let model = [self.setting("arch"), self.setting("model")].concat();
        let data = [self.setting("dataset"), self.setting("text"), self.setting("stream")].concat();
        match (model.is_empty(), data.is_empty()) {
            (_, true) => format!("{}: {model}", self.table),
            (true, _) => format!("{}: {data}", self.table),
            _ => format!("{}: {model} on {data}", self.table),
        }
    }

    fn holding(&self) -> usize {
        self.claims.iter().filter(|c| c["outcome"] == "holds").count()
    }

    /// The paper's published figures and claims, where the table is in `tables`.
    fn paper(&self, tables: &[Entry]) -> Result<Option<Paper>> {
        self.entry(tables).map(|entry| Paper::parse(entry.info.paper)).transpose()
    }

    /// Its table in the registry; of a table in parts, as `reweighting-language`, the whole.
    fn entry<'a>(&self, tables: &'a [Entry]) -> Option<&'a Entry> {
        let named = |name: &str| tables.iter().find(|entry| entry.info.name == name);
        named(&self.table).or_else(|| named(self.table.split_once('-')?.0))
    }

    fn sparsities(&self) -> Vec<f64> {
        let anywhere = self.rows.iter().filter(|r| r.pattern.is_empty());
        let mut all: Vec<f64> = anywhere.map(|r| r.sparsity).filter(|s| *s > 0.0).collect();
        all.sort_by(f64::total_cmp);
        all.dedup();
        all
    }

    /// Methods in the order of their first row.
    fn methods(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        self.rows.iter().map(|r| r.method.as_str()).filter(|m| seen.insert(*m)).collect()
    }

    /// The numbers of candidates among the pruned rows; 1 where that does not matter.
    fn candidates(&self) -> Vec<usize> {
        let all: BTreeSet<usize> = self.rows.iter().filter(|r| r.sparsity > 0.0).map(|r| r.m).collect();
        all.into_iter().collect()
    }

    /// The columns of a table: sparsity, pattern and candidates of each, that of no pruning alone where there is no other.
    fn columns(&self) -> Vec<Column> {
        let mut all: Vec<Column> = Vec::new();
        for row in self.rows.iter().filter(|r| r.sparsity > 0.0 || !r.pattern.is_empty()) {
            let column = Column { sparsity: row.sparsity, pattern: row.pattern.clone(), m: Some(row.m) };
            if !all.contains(&column) {
                all.push(column);
            }
        }
        if all.is_empty() {
            all.push(Column { sparsity: 0.0, pattern: String::new(), m: None });
        }
        all.sort_by(|a, b| (a.m, &a.pattern).cmp(&(b.m, &b.pattern)).then(a.sparsity.total_cmp(&b.sparsity)));
        all
    }

    /// What a method reached in a column, as `97.31 ± 0.42` over seeds; of one that does not prune, what it reached.
    fn cell(&self, method: &str, column: &Column) -> String {
        let of = |holds: &dyn Fn(&Record) -> bool| {
            let rows = self.rows.iter().filter(|r| r.method == method && holds(r));
            view::over_seeds(&rows.collect::<Vec<_>>(), |r| Some(r.value))
        };
        let pruned = of(&|r| column.holds(r));
        let dense = || of(&|r| r.sparsity == 0.0 && r.pattern.is_empty() && (r.m == 1 || column.m.is_none()));
        if pruned == "-" { dense() } else { pruned }
    }
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
struct Column {
    sparsity: f64,
    pattern: String,
    /// Candidates; any, where they are no column's.
    m: Option<usize>,
}

impl Column {
    fn holds(&self, row: &Record) -> bool {
        (row.sparsity, row.pattern.as_str()) == (self.sparsity, self.pattern.as_str())
            && self.m.is_none_or(|m| m == row.m)
    }

    /// As `90 %`, `2:4` or `SVD, m = 4`.
    fn name(&self, measure: Measure) -> String {
        let zeros = format!("{} %", picture::number(self.sparsity * 100.0));
        let what = if self.pattern.is_empty() { zeros } else { self.pattern.clone() };
        match (self.m, self.sparsity > 0.0 || !self.pattern.is_empty()) {
            (_, false) => measure.name().into(),
            (Some(m), true) if m > 1 => format!("{what}, m = {m}"),
            _ => what,
        }
    }
}
