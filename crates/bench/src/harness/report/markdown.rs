//! A Markdown page for each paper: its claims and figures next to ours. The same results give the same text.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use regrow_checkpoint::atomic;
use regrow_sparse_core::{Error, Result};

use super::Found;
use crate::harness::paper::{Figure, Paper};
use crate::harness::run::Entry;
use crate::harness::view;

/// Writes `<table>.md` to `folder` for each table that has results.
pub(super) fn write(folder: &Path, found: &[Found], tables: &[Entry]) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
    let mut pages = 0;
    for entry in tables {
        let of = |result: &&Found| result.entry(tables).is_some_and(|own| own.info.name == entry.info.name);
        let own: Vec<&Found> = found.iter().filter(of).collect();
        if own.is_empty() {
            continue;
        }
        let text = page(entry, &own)?;
        atomic::write_atomic(folder.join(format!("{}.md", entry.info.name)), |out| out.write_all(text.as_bytes()))?;
        pages += 1;
    }
    println!("written: {pages} pages in {}", folder.display());
    Ok(())
}

/// The page of a table from its results.
pub(super) fn page(entry: &Entry, results: &[&Found]) -> Result<String> {
    let paper = Paper::parse(entry.info.paper)?;
    let mut text = format!("# {}\n\n{}\n\n{}\n\n", paper.title, linked(&paper.source), entry.info.summary);
    let _ = writeln!(text, "```console\n{}\n```\n", entry.info.example);
    let _ = writeln!(text, "The paper's setting: {}.\n", paper.setting.trim_end_matches('.'));
    if !paper.statements.is_empty() {
        text += "What it says:\n\n";
        paper.statements.iter().for_each(|statement| text += &format!("- {statement}\n"));
        text.push('\n');
    }
    results.iter().for_each(|result| text += &result.part());
    text += &published(&paper, results);
    Ok(text)
}

/// `arXiv 2308.10438, https://..` with its addresses as links.
fn linked(source: &str) -> String {
    let word = |word: &str| {
        let address = word.trim_end_matches([';', ',', '.']);
        if word.starts_with("https://") { word.replacen(address, &format!("<{address}>"), 1) } else { word.into() }
    };
    source.split(' ').map(word).collect::<Vec<String>>().join(" ")
}

/// The published figures, next to ours if a result has the same method and zeros.
fn published(paper: &Paper, results: &[&Found]) -> String {
    if paper.figures.is_empty() {
        return "## Published\n\nNo figure of the paper's tables was found in a source that could be checked.\n".into();
    }
    let mut text =
        String::from("## Published, and ours\n\n| setting | method | published | ours (result) | source |\n");
    text += "| --- | --- | --: | --- | --- |\n";
    for figure in &paper.figures {
        let ours: Vec<String> = results.iter().filter_map(|result| result.beside(figure)).collect();
        let ours = if ours.is_empty() { "-".into() } else { ours.join("; ") };
        let row =
            [&figure.setting, &format!("{}{}", figure.method, figure.zeros()), &figure.text(), &ours, &figure.source];
        text += &format!("| {} |\n", row.map(|cell| escaped(cell)).join(" | "));
    }
    text
}

/// Text escaped for a table cell.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

impl Found {
    /// The name of the file, which tells a table's results apart.
    fn file(&self) -> String {
        self.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
    }

    fn part(&self) -> String {
        let seeds: BTreeSet<u64> = self.rows.iter().map(|r| r.seed).collect();
        let mut text = format!("## {} ({})\n\n```console\n{}\n```\n\n", self.name(), self.file(), self.command);
        let memory = self.peak_memory.map_or_else(String::new, |b| format!(", peak memory {:.0} MB", b as f64 / 1e6));
        let _ = writeln!(text, "{} seeds, {:.0} s on {}{memory}.\n", seeds.len(), self.seconds, escaped(&self.device));
        text += &self.table();
        text += &self.verdicts();
        if !self.notes.is_empty() {
            self.notes.iter().for_each(|note| text += &format!("- {note}\n"));
            text.push('\n');
        }
        text
    }

    /// Methods by setting, mean and standard deviation over seeds.
    fn table(&self) -> String {
        let columns = self.columns();
        let heads: Vec<String> = columns.iter().map(|column| escaped(&column.name(self.measure))).collect();
        let mut text = format!("{}, mean ± standard deviation over seeds:\n\n", self.measure.name());
        let _ = writeln!(text, "| method | {} |\n| --- |{}", heads.join(" | "), " --: |".repeat(columns.len()));
        for method in self.methods() {
            let cells: Vec<String> = columns.iter().map(|column| self.cell(method, column)).collect();
            let _ = writeln!(text, "| {} | {} |", escaped(method), cells.join(" | "));
        }
        text + "\n"
    }

    /// The claims with their verdicts.
    fn verdicts(&self) -> String {
        if self.claims.is_empty() {
            return String::new();
        }
        let unit = self.measure.unit();
        let mut text = format!("| claim | here | gain, {unit} | 95 % interval |\n| --- | --- | --: | --: |\n");
        for claim in &self.claims {
            let number = |key: &str| claim[key].as_f64();
            let difference = number("difference").unwrap_or_default();
            let interval = match number("reach") {
                Some(reach) => format!("[{:+.2}, {:+.2}]", difference - reach, difference + reach),
                None => "one seed".into(),
            };
            let word = |key: &str| escaped(claim[key].as_str().unwrap_or_default());
            let outcome = word("outcome").replace('-', " ");
            let _ = writeln!(text, "| {} | {outcome} | {difference:+.2} | {interval} |", word("claim"));
        }
        text + "\n"
    }

    /// Our value for a published figure, with its file: the same method, zeros, pattern and candidates. A figure's
    /// setting may be a stream and the end of a row's name, such as `split-mnist, class`.
    fn beside(&self, figure: &Figure) -> Option<String> {
        let of_stream = |(stream, end): (&str, &str)| {
            (self.setting("stream") == stream).then(|| format!("{}, {end}", figure.method))
        };
        let named = figure.setting.rsplit_once(", ").and_then(of_stream);
        let rows: Vec<_> = self
            .rows
            .iter()
            .filter(|r| r.method == figure.method || Some(&r.method) == named.as_ref())
            .filter(|r| r.sparsity == figure.sparsity && r.pattern == figure.pattern.as_deref().unwrap_or_default())
            .filter(|r| figure.m.is_none_or(|m| m == r.m))
            .collect();
        (!rows.is_empty()).then(|| format!("{} ({})", view::over_seeds(&rows, |r| Some(r.value)), self.file()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::gather;
    use crate::harness::paper::Figure;
    use crate::tables;

    #[test]
    fn a_committed_result_becomes_a_page_that_repeats_itself() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../papers/opcm");
        let mut found = Vec::new();
        gather(folder.as_ref(), &mut found).unwrap();
        found.retain(|result| result.path.ends_with("digits.json"));
        let entry = tables::find("opcm").unwrap();
        let page = super::page(entry, &found.iter().collect::<Vec<_>>()).unwrap();
        for part in [
            "# Merging Models on the Fly",
            "bench opcm --seeds 5 --out tables",
            "## opcm: mlp-small on digits (digits)",
            "| OPCM beats the average | does not hold | -4.81 | [-8.46, -1.15] |",
            "| CLIP-ViT-B/32, mean of 20 tasks | each task's own model | 89.77 | - | examples/opcm/results/vit-b-32.csv",
        ] {
            assert!(page.contains(part), "{part} is missing in\n{page}");
        }
        assert_eq!(super::linked("a, https://b.org/c; d"), "a, <https://b.org/c>; d");
        let figure = |setting: &str| Figure {
            setting: setting.into(),
            method: "ER".into(),
            sparsity: 0.0,
            pattern: None,
            m: None,
            value: 90.0,
            std: None,
            source: String::new(),
        };
        let mut streams = Vec::new();
        gather(format!("{folder}/../continual").as_ref(), &mut streams).unwrap();
        let beside = |setting: &str| streams.iter().filter_map(|r| r.beside(&figure(setting))).count();
        assert!(beside("split-mnist, class") > 0 && beside("split-fashion, class") == 0);
        let row = page.lines().find(|line| line.starts_with("| OPCM |")).unwrap();
        assert!(row.contains(" ± "), "{row}");
        assert_eq!(page, super::page(entry, &found.iter().collect::<Vec<_>>()).unwrap());
    }
}
