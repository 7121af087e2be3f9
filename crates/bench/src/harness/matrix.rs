//! Accuracy matrices as an SVG: a panel for each strategy and scenario, dark where accuracy is high.

use std::fmt::Write as _;

/// A panel: its name, and accuracies in percent, a row for each task trained.
pub struct Panel {
    /// Above the panel.
    pub name: String,
    /// Accuracies in percent.
    pub rows: Vec<Vec<f64>>,
}

/// Side of a cell, in pixels.
const CELL: usize = 30;
/// Room above a panel for its name, and between panels.
const GAP: usize = 34;

/// The picture, `columns` panels to a line.
pub fn svg(title: &str, columns: usize, panels: &[Panel]) -> String {
    let tasks = panels.iter().map(|p| p.rows.len()).max().unwrap_or(1);
    let columns = columns.max(1);
    let (wide, high) = ((tasks * CELL).max(130) + GAP, tasks * CELL + GAP);
    let (width, height) = (columns * wide + GAP, panels.len().div_ceil(columns) * high + 70);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{GAP}\" y=\"26\" font-size=\"18\">{}</text>\n\
         <text x=\"{GAP}\" y=\"44\" font-size=\"12\" fill=\"#555\">rows: after training a task; columns: tested \
         on a task; percent</text>\n",
        text(title)
    );
    for (i, panel) in panels.iter().enumerate() {
        draw(&mut svg, panel, GAP + i % columns * wide, 70 + i / columns * high);
    }
    svg + "</svg>\n"
}

fn draw(svg: &mut String, panel: &Panel, x: usize, y: usize) {
    let _ = writeln!(svg, "<text x=\"{x}\" y=\"{}\" font-size=\"13\">{}</text>", y - 6, text(&panel.name));
    for (i, row) in panel.rows.iter().enumerate() {
        for (j, value) in row.iter().enumerate() {
            let (x, y) = (x + j * CELL, y + i * CELL);
            let (fill, ink) = (colour(*value), if *value > 55.0 { "white" } else { "black" });
            // Future tasks are only outlined.
            let faint = if j > i { " opacity=\"0.45\"" } else { "" };
            let _ = writeln!(
                svg,
                "<g{faint}><rect x=\"{x}\" y=\"{y}\" width=\"{CELL}\" height=\"{CELL}\" fill=\"{fill}\" \
                 stroke=\"white\"/><text x=\"{}\" y=\"{}\" font-size=\"11\" fill=\"{ink}\" \
                 text-anchor=\"middle\">{value:.0}</text></g>",
                x + CELL / 2,
                y + CELL / 2 + 4
            );
        }
    }
}

/// From near white at 0 to dark blue at 100.
fn colour(percent: f64) -> String {
    let share = (percent / 100.0).clamp(0.0, 1.0);
    let mix = |low: f64, high: f64| (low + (high - low) * share).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(240.0, 8.0), mix(244.0, 48.0), mix(249.0, 107.0))
}

fn text(plain: &str) -> String {
    plain.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accuracy_has_its_cell() {
        let panel = |name: &str| Panel { name: name.into(), rows: vec![vec![100.0, 0.0], vec![50.0, 96.4]] };
        let svg = svg("a < b", 2, &[panel("ER, class"), panel("joint"), panel("SI")]);
        assert_eq!(svg.matches("<rect").count(), 1 + 3 * 4);
        assert_eq!(svg.matches(">96<").count(), 3);
        assert!(svg.contains("a &lt; b") && svg.contains("ER, class") && svg.contains("#08306b"));
    }
}
