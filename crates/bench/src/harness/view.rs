//! How a table's rows are shown: columns of numbers by method, lines of a picture.

use std::collections::BTreeSet;

use comfy_table::Table;

use crate::harness::info::Info;
use crate::harness::picture::Line;
use crate::harness::record::{Measure, Record, mean_std};
use crate::harness::render::by_column;

/// Everything to print and draw.
#[derive(Default)]
pub struct View {
    /// Tables, each with its title.
    pub sections: Vec<(String, Table)>,
    /// Findings that are not rows, one per line.
    pub notes: Vec<String>,
    /// The title of the picture; by default the table's summary.
    pub title: String,
    /// The picture's x axis.
    pub x: &'static str,
    /// The picture's y axis, if it is not the measure.
    pub y: Option<&'static str>,
    /// The picture's lines.
    pub lines: Vec<Line>,
    /// More pictures: the suffix of the file name after the table's name, and the SVG.
    pub pictures: Vec<(&'static str, String)>,
}

/// A column: its head, and its cell from the rows of a method.
pub struct Column<'a> {
    head: String,
    cell: Box<Cell<'a>>,
}

type Cell<'a> = dyn Fn(&[&Record]) -> String + 'a;

impl<'a> Column<'a> {
    /// A custom column.
    pub fn new(head: impl Into<String>, cell: impl Fn(&[&Record]) -> String + 'a) -> Self {
        Self { head: head.into(), cell: Box::new(cell) }
    }

    /// The rows' values, such as `97.31 ± 0.42` over seeds.
    pub fn value(head: impl Into<String>) -> Self {
        Self::new(head, |rows| over_seeds(rows, |r| Some(r.value)))
    }

    /// The values at a sparsity; for methods that do not prune, at sparsity zero.
    pub fn at(sparsity: f64, of: &str) -> Self {
        let head = format!("{:.4} % {of}", sparsity * 100.0).replace(".0000", "");
        Self::new(head, move |rows| over_seeds(&there(rows, sparsity), |r| Some(r.value)))
    }

    /// The mean of something at a sparsity; for methods that do not prune, at sparsity zero.
    pub fn mean_at(sparsity: f64, of: &str, digits: usize, value: impl Fn(&Record) -> Option<f64> + 'a) -> Self {
        let head = Self::at(sparsity, of).head;
        Self::new(head, move |rows| mean(&there(rows, sparsity), digits, &value))
    }

    /// A finding, such as `97.31 ± 0.42` over seeds.
    pub fn finding(head: impl Into<String>, name: impl Into<String>) -> Self {
        let name = name.into();
        Self::new(head, move |rows| over_seeds(rows, |r| r.findings.get(&name).copied()))
    }

    /// The mean of something over all rows that have it.
    pub fn mean(head: impl Into<String>, digits: usize, of: impl Fn(&Record) -> Option<f64> + 'a) -> Self {
        Self::new(head, move |rows| mean(rows, digits, &of))
    }

    /// The standard deviation within each seed, such as over orders or repetitions; the mean over seeds.
    pub fn spread_within_seeds(head: impl Into<String>) -> Self {
        let spread = |rows: &[&Record]| by_seed(rows, |of| mean_std(of).1, |r| Some(r.value));
        Self::new(head, move |rows| format!("{:.2}", mean_std(&spread(rows)).0))
    }

    /// Seconds of wall time.
    pub fn seconds() -> Self {
        Self::mean("seconds", 2, |r| Some(r.seconds))
    }
}

/// The rows at a sparsity, or without zeros.
fn there<'a>(rows: &[&'a Record], sparsity: f64) -> Vec<&'a Record> {
    let at = |s: f64| rows.iter().copied().filter(|r| r.sparsity == s).collect::<Vec<_>>();
    let found = at(sparsity);
    if found.is_empty() { at(0.0) } else { found }
}

/// A finding of a row, for [`Column::mean`].
pub fn finding(name: &str) -> impl Fn(&Record) -> Option<f64> + '_ {
    move |row| row.findings.get(name).copied()
}

/// `of` each seed's rows; a value for each seed in the order of the rows.
pub fn by_seed(rows: &[&Record], of: impl Fn(&[f64]) -> f64, value: impl Fn(&Record) -> Option<f64>) -> Vec<f64> {
    let mut seeds: Vec<u64> = rows.iter().map(|r| r.seed).collect();
    seeds.dedup();
    let of_seed = |seed: u64| {
        let found: Vec<f64> = rows.iter().filter(|r| r.seed == seed).filter_map(|r| value(r)).collect();
        (!found.is_empty()).then(|| of(&found))
    };
    seeds.into_iter().filter_map(of_seed).collect()
}

/// The mean and standard deviation over seeds of each seed's mean.
pub fn over_seeds(rows: &[&Record], value: impl Fn(&Record) -> Option<f64>) -> String {
    let found = by_seed(rows, |of| mean_std(of).0, value);
    if found.is_empty() {
        return "-".into();
    }
    let (mean, std) = mean_std(&found);
    format!("{mean:.2} ± {std:.2}")
}

/// The mean over all rows.
pub fn mean(rows: &[&Record], digits: usize, of: impl Fn(&Record) -> Option<f64>) -> String {
    let found: Vec<f64> = rows.iter().filter_map(|r| of(r)).collect();
    if found.is_empty() { "-".into() } else { format!("{:.digits$}", mean_std(&found).0) }
}

/// A row for each method, in their order, and a cell of each column.
pub fn table<M: AsRef<str>>(methods: &[M], rows: &[Record], columns: &[Column<'_>]) -> Table {
    let heads = columns.iter().map(|column| column.head.clone()).collect();
    let of = |method: &str| rows.iter().filter(|r| r.method == method).collect::<Vec<_>>();
    by_column(methods.iter().map(AsRef::as_ref), heads, &|method, column| (columns[column].cell)(&of(method)), &[])
}

/// A line for each method: means over rows of the points that `points` finds in each.
pub fn lines<M: AsRef<str>>(methods: &[M], rows: &[Record], points: impl Fn(&Record) -> Vec<(f64, f64)>) -> Vec<Line> {
    let line = |method: &M| {
        let mut found: Vec<(f64, Vec<f64>)> = Vec::new();
        for (x, y) in rows.iter().filter(|r| r.method == method.as_ref()).flat_map(&points) {
            match found.iter_mut().find(|(at, _)| *at == x) {
                Some((_, values)) => values.push(y),
                None => found.push((x, vec![y])),
            }
        }
        found.sort_by(|a, b| a.0.total_cmp(&b.0));
        let point = |(x, values): (f64, Vec<f64>)| (x, mean_std(&values).0, mean_std(&values).1);
        Line { name: method.as_ref().into(), points: found.into_iter().map(point).collect() }
    };
    methods.iter().map(line).collect()
}

/// The points of a row over sparsity: of unstructured ones, as `measure` draws its value.
pub fn over_sparsity(measure: Measure) -> impl Fn(&Record) -> Vec<(f64, f64)> {
    move |row| match row.pattern.is_empty() && row.sparsity > 0.0 {
        true => vec![(row.sparsity, measure.drawn(row.value))],
        false => Vec::new(),
    }
}

/// Methods in the order of their first rows.
pub fn methods(rows: &[Record]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for row in rows {
        if !found.contains(&row.method) {
            found.push(row.method.clone());
        }
    }
    found
}

/// The names of all findings.
fn findings(rows: &[Record]) -> BTreeSet<&str> {
    rows.iter().flat_map(|r| r.findings.keys().map(String::as_str)).collect()
}

/// The sparsities there are, but none.
pub fn sparsities(rows: &[Record]) -> Vec<f64> {
    let mut found: Vec<f64> = rows.iter().map(|r| r.sparsity).filter(|s| *s > 0.0).collect();
    found.sort_by(f64::total_cmp);
    found.dedup();
    found
}

impl View {
    /// Methods by sparsity and their seconds; the first eight that prune as lines of a picture.
    pub fn by_sparsity(info: &Info, rows: &[Record]) -> Self {
        let (methods, sparsities) = (methods(rows), sparsities(rows));
        let columns = sparsities.iter().map(|s| Column::at(*s, "zeros")).chain([Column::seconds()]);
        let columns: Vec<Column<'_>> = columns.collect();
        let drawn: Vec<&String> =
            methods.iter().filter(|m| rows.iter().any(|r| r.method == **m && r.sparsity > 0.0)).take(8).collect();
        let mut view = Self::new(info.measure, table(&methods, rows, &columns));
        for name in findings(rows) {
            let columns: Vec<Column<'_>> =
                sparsities.iter().map(|s| Column::mean_at(*s, "zeros", 3, finding(name))).collect();
            let those: Vec<&String> = methods
                .iter()
                .filter(|m| rows.iter().any(|r| r.method == **m && r.findings.contains_key(name)))
                .collect();
            view.sections.push((format!("Means of the {name}."), table(&those, rows, &columns)));
        }
        view.over("sparsity", lines(&drawn, rows, over_sparsity(info.measure)))
    }

    /// This, or methods by sparsity where nothing is to be shown.
    pub(crate) fn or_by_sparsity(self, info: &Info, rows: &[Record]) -> Self {
        if !self.sections.is_empty() {
            return self;
        }
        let Self { notes, title, pictures, .. } = self;
        Self { notes, title, pictures, ..Self::by_sparsity(info, rows) }
    }

    /// One table of what `measure` says.
    pub fn new(measure: Measure, table: Table) -> Self {
        Self {
            sections: vec![(format!("{}, mean and standard deviation over seeds.", measure.name()), table)],
            ..Self::default()
        }
    }

    /// The picture.
    pub fn over(self, x: &'static str, lines: Vec<Line>) -> Self {
        Self { x, lines, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(method: &str, seed: u64, sparsity: f64, value: f64) -> Record {
        Record::new(method, sparsity, seed, value, 1.0)
    }

    #[test]
    fn seeds_count_once_and_the_dense_network_stands_in_every_column() {
        let rows = [
            row("dense", 0, 0.0, 90.0),
            row("dense", 1, 0.0, 92.0),
            row("a", 0, 0.5, 80.0),
            row("a", 0, 0.5, 82.0),
            row("a", 1, 0.5, 84.0),
        ];
        let info = Info { name: "t", summary: "", example: "", paper: "", measure: Measure::Accuracy };
        let view = View::by_sparsity(&info, &rows);
        let said = view.sections[0].1.to_string();
        assert!(said.contains("| dense  | 91.00 ± 1.41 |") && said.contains("82.50 ± 2.12"), "{said}");
        let [line] = &view.lines[..] else { panic!("one line") };
        assert_eq!((line.name.as_str(), line.points.len()), ("a", 1));
        assert_eq!(line.points[0], (0.5, 82.0, 2.0));
    }
}
