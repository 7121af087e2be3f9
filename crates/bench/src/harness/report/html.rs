//! The results as one self-contained HTML page.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use regrow_sparse_core::Result;

use super::Found;
use crate::harness::paper::Paper;
use crate::harness::picture::{self, Line};
use crate::harness::record::{Record, mean_std};
use crate::harness::{render, run::Entry};

/// The page of all results.
pub(super) fn page(found: &[Found], tables: &[Entry]) -> Result<String> {
    let mut body = String::new();
    for (i, result) in found.iter().enumerate() {
        body += &result.section(i, tables)?;
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
    fn section(&self, number: usize, tables: &[Entry]) -> Result<String> {
        let mut html = format!("<section id=\"r{number}\">\n<h2>{}</h2>\n", text(&self.name()));
        let paper = self.paper(tables)?.filter(Paper::has_figures);
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
        html += &self.table_html();
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
        let over_sparsity = render::lines(self.measure, best.iter().copied(), &self.sparsities(), &self.rows, m);
        let measure = self.measure.axis();
        let title = |of: &str| format!("{measure}, over {of}");
        let mut html = drawn(&title("sparsity"), "sparsity", measure, &over_sparsity, &picture::number);
        let over_flops: Vec<Line> = best.iter().map(|method| self.over_flops(method)).collect();
        // If FLOPs follow from sparsity alone, they would show nothing new.
        if self.flops_vary() {
            let label = |x: f64| format!("{x:.1} %");
            html += &drawn(&title("FLOPs"), "FLOPs left", measure, &over_flops, &label);
        }
        html + &self.densities_html(&best)
    }

    /// As many methods as there are colours: the pruning methods that are best on average.
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

    fn table_html(&self) -> String {
        let columns = self.columns();
        let heads: String = columns.iter().map(|c| format!("<th>{}</th>", text(&c.name(self.measure)))).collect();
        let row = |method: &&str| {
            let cells: String =
                columns.iter().map(|column| format!("<td>{}</td>", self.cell(method, column))).collect();
            format!("<tr><td>{}</td>{cells}</tr>\n", text(method))
        };
        let rows: String = self.methods().iter().map(row).collect();
        format!(
            "<h3>{}</h3>\n<div class=\"wide\"><table><tr><th>zeros</th>{heads}</tr>\n{rows}</table></div>\n",
            self.measure.name()
        )
    }
}

fn published_html(paper: &Paper) -> String {
    let mut items: Vec<String> = paper.statements.iter().map(|s| text(s)).collect();
    items.extend(paper.figures.iter().map(|f| {
        let words = format!("{}, {}{}: {}", f.setting, f.method, f.zeros(), f.text());
        format!("{} <small>({})</small>", text(&words), text(&f.source))
    }));
    if items.is_empty() {
        items.push("no figure was found in a source that could be checked".into());
    }
    let items: String = items.iter().map(|item| format!("<li>{item}</li>\n")).collect();
    format!("<h3>Published</h3>\n<p class=\"meta\">{}</p>\n<ul class=\"plain\">\n{items}</ul>\n", text(&paper.setting))
}

/// A picture, or its error.
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

/// Text escaped for HTML.
fn text(plain: &str) -> String {
    plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
