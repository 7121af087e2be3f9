//! Shows the RMM table: methods by low-rank form and rank.

use super::RmmTable;
use super::rows::{BASES, ERROR, OWN, OWN_WHOLE, PARENT, RULES, STORAGE, WAYS, WHAT, reversible};
use crate::harness::picture::Line;
use crate::harness::prelude::*;
use crate::harness::record::mean_std;

impl RmmTable {
    /// A column for each way and rank; storage and error beside them.
    pub(super) fn shown(&self, rows: &[Record]) -> Result<View> {
        let columns: Vec<(&str, usize)> = WAYS.iter().flat_map(|way| self.ranks.iter().map(|r| (*way, *r))).collect();
        let of = |(way, rank): &(&'static str, usize)| {
            let (way, rank) = (*way, *rank);
            Column::new(format!("{way} {rank}"), move |rows| {
                let those: Vec<&Record> = rows.iter().copied().filter(|r| r.pattern == way && r.m == rank).collect();
                view::over_seeds(&those, |r| Some(r.value))
            })
        };
        let beside =
            [("storage", STORAGE), ("error", ERROR)].map(|(head, of)| Column::mean(head, 3, view::finding(of)));
        let shown: Vec<Column<'_>> = columns.iter().map(of).chain(beside).collect();
        let caption = "Test accuracy in percent, mean over tasks; mean and standard deviation over seeds. Storage: numbers \
                       kept over\nthose of all children; error: relative, of the differences (both means over all columns).";
        let sections = vec![(caption.to_string(), view::table(&methods(rows)?, rows, &shown))];
        let plan = &self.models.plan;
        let title = format!("RMM: {} tasks of {}, {}, cut by SVD", plan.count, plan.dataset, plan.arch);
        let view = View { sections, title, notes: kept(rows, &columns), ..View::default() };
        Ok(view.over("rank", lines(rows, &self.ranks)))
    }
}

/// The measured rows, in order.
fn methods(rows: &[Record]) -> Result<Vec<String>> {
    let one = [PARENT, OWN_WHOLE, OWN].map(String::from);
    let merged = WHAT.iter().flat_map(|what| RULES.iter().map(move |rule| format!("{rule}, {what}")));
    let ways = reversible(1)?;
    let spaces = ways.iter().flat_map(|(name, _)| BASES.map(|p| format!("{name}, {p}")));
    let all = one.into_iter().chain(merged).chain(spaces);
    Ok(all.filter(|name| rows.iter().any(|r| r.method == *name)).collect())
}

fn values(rows: &[Record], method: &str, (way, rank): (&str, usize)) -> Vec<(u64, f64)> {
    let wanted = rows.iter().filter(|r| r.method == method && r.pattern == way && r.m == rank);
    wanted.map(|r| (r.seed, r.value)).collect()
}

/// How much of the own models' accuracy remains.
fn kept(rows: &[Record], columns: &[(&str, usize)]) -> Vec<String> {
    let mean = |method: &str, column| {
        let found: Vec<f64> = values(rows, method, column).into_iter().map(|(_, v)| v).collect();
        if found.is_empty() { f64::NAN } else { mean_std(&found).0 }
    };
    let line = |method: &&str| {
        let shares =
            columns.iter().map(|c| format!("{} {}: {:.1} %", c.0, c.1, 100.0 * mean(method, *c) / mean(OWN, *c)));
        format!("of the own models' accuracy, {method} keeps {}", shares.collect::<Vec<_>>().join(", "))
    };
    ["task arithmetic, products", "RMM, 1", "RMM, 2", "RMM, 3"].iter().map(line).collect()
}

fn lines(rows: &[Record], ranks: &[usize]) -> Vec<Line> {
    let shown =
        [OWN, "task arithmetic, products", "TIES, products", "task arithmetic, factors", "RMM, 1", "RMM, 2", "RMM, 3"];
    let line = |method: &str| {
        let point = |rank: &usize| {
            let found: Vec<f64> = values(rows, method, ("SVD", *rank)).into_iter().map(|(_, v)| v).collect();
            (!found.is_empty()).then(|| mean_std(&found)).map(|(mean, std)| (*rank as f64, mean, std))
        };
        Line { name: method.into(), points: ranks.iter().filter_map(point).collect() }
    };
    shown.into_iter().map(line).collect()
}
