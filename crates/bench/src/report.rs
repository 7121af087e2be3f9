//! `bench report`: every result there is, in one self-contained HTML page.
//!
//! A result is a JSON file that a table wrote ([`crate::record::Report`]). Each gets a section: its
//! claims, judged; what the paper published; accuracy over sparsity and over FLOPs, densities layer by
//! layer where the rows have them; the command that made it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use regrow_checkpoint::atomic;
use regrow_sparse_core::{Error, Result};
use serde::Deserialize;

use crate::paper::Paper;
use crate::picture::{self, Line};
use crate::record::{Measure, Record, mean_std, spread};
use crate::show;

/// Gather the results of tables into one HTML page
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "Example: bench report papers tables --out report.html")]
pub struct Args {
    /// Folders to look in, with all below them; by default `papers` and `tables`, those that are there
    folders: Vec<PathBuf>,
    /// The page
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
}

/// A result file, as far as the page shows it.
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
    claims: Vec<serde_json::Value>,
    #[serde(default)]
    notes: Vec<String>,
    rows: Vec<Record>,
}

/// Writes the page.
///
/// # Errors
/// If no result is found, or the page cannot be written.
pub fn run(args: &Args) -> Result<()> {
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
    let page = page(&found)?;
    atomic::write_atomic(&args.out, |out| out.write_all(page.as_bytes()))?;
    println!("written: {} ({} results)", args.out.display(), found.len());
    Ok(())
}

/// The results in `folder` and below; other JSON files are passed over.
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

fn page(found: &[Found]) -> Result<String> {
    let mut body = String::new();
    for (i, result) in found.iter().enumerate() {
        body += &result.section(i)?;
    }
    let link = |(i, r): (usize, &Found)| {
        let (held, all) = (r.holding(), r.claims.len());
        format!("<li><a href=\"#r{i}\">{}</a> <small>{held} of {all} claims hold</small></li>\n", text(&r.name()))
    };
    let links: String = found.iter().enumerate().map(link).collect();
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Regrow: results</title>\n\
         <style>{STYLE}</style>\n</head>\n<body>\n<h1>Results</h1>\n\
         <p>Every table that was run, with the claims of its paper judged on paired differences over seeds: a claim \
         holds where the 95&nbsp;% interval of the mean difference lies above zero.</p>\n\
         <nav><ul>\n{links}</ul></nav>\n{body}</body>\n</html>\n"
    ))
}

const STYLE: &str = "
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 960px; margin: 0 auto; padding: 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { border-top: 1px solid #ccc; padding-top: 1.5rem; margin-top: 2.5rem; }
nav li { margin: .2rem 0; } small, .meta { color: #555; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; margin: .5rem 0; } th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } td.words { white-space: normal; min-width: 14rem; }
.holds { color: #00694d; font-weight: 600; } .does-not-hold { color: #a53a00; font-weight: 600; } .not-resolved { color: #555; }
svg { width: 100%; min-width: 36rem; height: auto; display: block; margin: .5rem 0; }
code { background: #f3f3f3; padding: .15rem .3rem; border-radius: 3px; overflow-wrap: anywhere; }
ul.plain { padding-left: 1.2rem; } ul.plain li { overflow-wrap: anywhere; }
";

impl Found {
    fn setting(&self, key: &str) -> String {
        match &self.settings[key] {
            serde_json::Value::String(text) => text.clone(),
            serde_json::Value::Null => String::new(),
            other => other.to_string(),
        }
    }

    fn name(&self) -> String {
        let subject = [self.setting("arch"), self.setting("model")].concat();
        format!("{}: {subject} on {}", self.table, [self.setting("dataset"), self.setting("text")].concat())
    }

    fn holding(&self) -> usize {
        self.claims.iter().filter(|c| c["outcome"] == "holds").count()
    }

    /// The paper's published figures, where the table is one paper's.
    fn paper(&self) -> Result<Option<Paper>> {
        let text = match self.table.as_str() {
            "bip" => include_str!("../../../papers/bip/paper.toml"),
            "granet" => include_str!("../../../papers/granet/paper.toml"),
            "pruning" => include_str!("../../../papers/pruning/paper.toml"),
            "rd" => include_str!("../../../papers/rd/paper.toml"),
            "sms" => include_str!("../../../papers/sms/paper.toml"),
            _ => return Ok(None),
        };
        Paper::parse(text).map(Some)
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

    fn section(&self, number: usize) -> Result<String> {
        let mut html = format!("<section id=\"r{number}\">\n<h2>{}</h2>\n", text(&self.name()));
        let paper = self.paper()?;
        if let Some(paper) = &paper {
            let _ = writeln!(html, "<p>{}<br><small>{}</small></p>", text(&paper.title), text(&paper.source));
        }
        let seeds: BTreeSet<u64> = self.rows.iter().map(|r| r.seed).collect();
        let _ = writeln!(
            html,
            "<p class=\"meta\">{} seeds, {:.0} s, {}<br><code>cargo run --release -p regrow-{}</code></p>",
            seeds.len(),
            self.seconds,
            text(&self.device),
            text(&self.command.replacen("bench", "bench --", 1))
        );
        html += &self.claims_html();
        html += &paper.map(|p| published_html(&p)).unwrap_or_default();
        html += &self.pictures_html();
        html += &self.tables_html();
        if !self.notes.is_empty() {
            html += "<h3>Found beside</h3>\n<ul class=\"plain\">\n";
            self.notes.iter().for_each(|note| html += &format!("<li>{}</li>\n", text(note)));
            html += "</ul>\n";
        }
        Ok(html + "</section>\n")
    }

    fn claims_html(&self) -> String {
        if self.claims.is_empty() {
            return String::new();
        }
        let row = |claim: &serde_json::Value| {
            let number = |key: &str| claim[key].as_f64();
            let outcome = claim["outcome"].as_str().unwrap_or_default();
            let difference = number("difference").unwrap_or_default();
            let interval = match number("reach") {
                Some(reach) => format!("[{:+.2}, {:+.2}]", difference - reach, difference + reach),
                None => "one seed".into(),
            };
            format!(
                "<tr><td class=\"words\">{}</td><td class=\"{}\">{}</td><td>{difference:+.2}</td><td>{interval}</td></tr>\n",
                text(claim["claim"].as_str().unwrap_or_default()),
                text(outcome),
                text(&outcome.replace('-', " "))
            )
        };
        let rows: String = self.claims.iter().map(row).collect();
        let unit = self.measure.unit();
        format!(
            "<h3>Claims</h3>\n<div class=\"wide\"><table><tr><th>claim</th><th>here</th><th>gain, {unit}</th>\
             <th>95&nbsp;% interval</th></tr>\n{rows}</table></div>\n"
        )
    }

    fn pictures_html(&self) -> String {
        let m = self.candidates().last().copied().unwrap_or(1);
        let best = self.most_telling(m);
        let over_sparsity = show::lines(self.measure, best.iter().copied(), &self.sparsities(), &self.rows, m);
        let measure = self.measure.axis();
        let title = |of: &str| format!("{measure}, over {of}");
        let mut html = drawn(&title("sparsity"), "sparsity", measure, &over_sparsity, &picture::number);
        let over_flops: Vec<Line> = best.iter().map(|method| self.over_flops(method)).collect();
        // Where FLOPs follow from sparsity alone, they would show nothing new.
        if self.flops_vary() {
            let label = |x: f64| format!("{x:.1} %");
            html += &drawn(&title("FLOPs"), "FLOPs left", measure, &over_flops, &label);
        }
        html + &self.densities_html(&best)
    }

    /// As many methods as there are colours: of all that were pruned, the best on average.
    fn most_telling(&self, m: usize) -> Vec<&str> {
        let mean = |method: &str| {
            let chosen = self.rows.iter().filter(|r| r.method == method && r.m == m && r.sparsity > 0.0);
            let values: Vec<f64> = chosen.map(|r| self.measure.gain(r.value, 1.0)).collect();
            (!values.is_empty()).then(|| mean_std(&values).0)
        };
        let mut all: Vec<(&str, f64)> = self.methods().into_iter().filter_map(|n| Some((n, mean(n)?))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.into_iter().map(|(name, _)| name).take(8).collect()
    }

    fn dense_flops(&self) -> Option<u64> {
        self.rows.iter().find(|r| r.sparsity == 0.0)?.flops
    }

    fn flops_vary(&self) -> bool {
        let Some(dense) = self.dense_flops() else { return false };
        let share = |r: &Record| r.flops.map_or(0.0, |f| f as f64 / dense as f64);
        self.rows.iter().any(|r| r.flops.is_some() && (share(r) - (1.0 - r.sparsity)).abs() > 0.005)
    }

    fn over_flops(&self, method: &str) -> Line {
        let dense = self.dense_flops().unwrap_or(1) as f64;
        let point = |s: &f64| {
            let chosen: Vec<&Record> = self.rows.iter().filter(|r| r.method == method && r.sparsity == *s).collect();
            let flops: Vec<f64> = chosen.iter().filter_map(|r| Some(100.0 * r.flops? as f64 / dense)).collect();
            let values: Vec<f64> = chosen.iter().map(|r| self.measure.drawn(r.value)).collect();
            let (mean, std) = mean_std(&values);
            (!flops.is_empty()).then(|| ((mean_std(&flops).0 * 10.0).round() / 10.0, mean, std))
        };
        Line { name: method.into(), points: self.sparsities().iter().filter_map(point).collect() }
    }

    /// Densities layer by layer at the sparsity in the middle.
    fn densities_html(&self, methods: &[&str]) -> String {
        let all = self.sparsities();
        let Some(sparsity) = all.get(all.len() / 2).copied() else { return String::new() };
        let layers: Vec<&str> = self
            .rows
            .iter()
            .find(|r| !r.densities.is_empty())
            .map_or(Vec::new(), |r| r.densities.iter().map(|(name, _)| name.as_str()).collect());
        let line = |method: &&str| {
            let rows = || self.rows.iter().filter(|r| r.method == *method && r.sparsity == sparsity);
            let point = |(i, layer): (usize, &&str)| {
                let of = |r: &Record| r.densities.iter().find(|(name, _)| name == layer).map(|(_, d)| 100.0 * d);
                let values: Vec<f64> = rows().filter_map(of).collect();
                (!values.is_empty()).then(|| mean_std(&values)).map(|(mean, std)| (i as f64, mean, std))
            };
            Line { name: (*method).into(), points: layers.iter().enumerate().filter_map(point).collect() }
        };
        let lines: Vec<Line> = methods.iter().map(line).filter(|l| !l.points.is_empty()).collect();
        if lines.is_empty() {
            return String::new();
        }
        let label = |x: f64| layers.get(x as usize).map_or(String::new(), |name| short(name));
        let title = format!("density of each layer, {sparsity} of all weights pruned");
        drawn(&title, "layer", "weights left, %", &lines, &label)
    }

    /// A column of the table for each sparsity, and for each pattern.
    fn columns(&self) -> Vec<(f64, &str)> {
        let anywhere = self.sparsities().into_iter().map(|s| (s, ""));
        let mut patterns: Vec<(f64, &str)> = Vec::new();
        for row in self.rows.iter().filter(|r| !r.pattern.is_empty()) {
            let column = (row.sparsity, row.pattern.as_str());
            if !patterns.contains(&column) {
                patterns.push(column);
            }
        }
        anywhere.chain(patterns).collect()
    }

    fn tables_html(&self) -> String {
        self.candidates().into_iter().map(|m| self.table_html(m)).collect()
    }

    fn table_html(&self, m: usize) -> String {
        let columns = self.columns();
        let head = |(sparsity, pattern): &(f64, &str)| match pattern.is_empty() {
            true => format!("<th>{} %</th>", picture::number(sparsity * 100.0)),
            false => format!("<th>{}</th>", text(pattern)),
        };
        let of = |method: &str, sparsity: f64, pattern: &str, m: usize| -> Vec<(u64, f64)> {
            let wanted =
                |r: &&Record| r.method == method && (r.sparsity, r.pattern.as_str(), r.m) == (sparsity, pattern, m);
            self.rows.iter().filter(wanted).map(|r| (r.seed, r.value)).collect()
        };
        let cell = |method: &str, (sparsity, pattern): &(f64, &str)| {
            let pruned = of(method, *sparsity, pattern, m);
            spread(&if pruned.is_empty() { of(method, 0.0, "", 1) } else { pruned })
        };
        let row = |method: &&str| {
            let cells: String = columns.iter().map(|column| format!("<td>{}</td>", cell(method, column))).collect();
            format!("<tr><td>{}</td>{cells}</tr>\n", text(method))
        };
        let (heads, rows): (String, String) =
            (columns.iter().map(head).collect(), self.methods().iter().map(row).collect());
        let of_m = if m > 1 { format!(", m = {m}") } else { String::new() };
        format!(
            "<h3>{}{of_m}</h3>\n<div class=\"wide\"><table><tr><th>zeros</th>{heads}</tr>\n{rows}</table></div>\n",
            self.measure.name()
        )
    }
}

fn published_html(paper: &Paper) -> String {
    let mut items: Vec<String> = paper.statements.iter().map(|s| text(s)).collect();
    items.extend(paper.figures.iter().map(|f| {
        let std = f.std.map_or(String::new(), |s| format!(" ± {s}"));
        let zeros = picture::number(f.sparsity * 100.0);
        let words = format!("{}, {}, {zeros} % zeros: {}{std}", f.setting, f.method, f.value);
        format!("{} <small>({})</small>", text(&words), text(&f.source))
    }));
    if items.is_empty() {
        items.push("no figure was found in a source that could be checked".into());
    }
    let items: String = items.iter().map(|item| format!("<li>{item}</li>\n")).collect();
    format!("<h3>Published</h3>\n<p class=\"meta\">{}</p>\n<ul class=\"plain\">\n{items}</ul>\n", text(&paper.setting))
}

/// A picture, or what went wrong with it.
fn drawn(title: &str, x: &str, y: &str, lines: &[Line], label: &dyn Fn(f64) -> String) -> String {
    if lines.iter().all(|l| l.points.is_empty()) {
        return String::new();
    }
    match picture::svg(title, x, y, lines, label) {
        Ok(svg) => format!("<div class=\"wide\">{svg}</div>\n"),
        Err(e) => format!("<p>no picture: {}</p>\n", text(&e)),
    }
}

/// A layer's path without the words that all have in common.
fn short(path: &str) -> String {
    let path = path.strip_suffix(".weight").unwrap_or(path);
    path.split_once('.').map_or(path, |(_, rest)| rest).to_string()
}

/// Text as HTML has it.
fn text(plain: &str) -> String {
    plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
