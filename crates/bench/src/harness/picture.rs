//! Accuracy over sparsity as an SVG.

use std::path::Path;

use plotters::prelude::*;
use regrow_checkpoint::atomic;
use regrow_sparse_core::{Error, Result};

/// A line of the picture: a name, and x, mean and spread of each point.
pub struct Line {
    /// In the legend.
    pub name: String,
    /// `(x, mean, standard deviation)`.
    pub points: Vec<(f64, f64, f64)>,
}

/// Colours that most colour-blind readers can distinguish (Okabe & Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(140, 140, 140),
];

/// Draws `lines` with error bars of one standard deviation and writes the file atomically. Points are equally spaced
/// and labelled with their x: sparsities crowd near 1.
///
/// # Errors
/// If nothing can be drawn or the file cannot be written.
pub fn write(path: &Path, title: &str, x_name: &str, y_name: &str, lines: &[Line]) -> Result<()> {
    let svg = svg(title, x_name, y_name, lines, &number).map_err(|e| Error::format(path, e))?;
    Ok(atomic::write_atomic(path, |out| out.write_all(svg.as_bytes()))?)
}

/// A number with at most four decimals.
pub fn number(x: f64) -> String {
    format!("{}", (x * 1e4).round() / 1e4)
}

/// The same picture as text, each x labelled by `label`.
///
/// # Errors
/// If nothing can be drawn.
pub fn svg(
    title: &str,
    x_name: &str,
    y_name: &str,
    lines: &[Line],
    label: &dyn Fn(f64) -> String,
) -> Result<String, String> {
    let mut svg = String::new();
    draw(&mut svg, title, x_name, y_name, lines, label)?;
    Ok(svg)
}

fn draw(
    svg: &mut String,
    title: &str,
    x_name: &str,
    y_name: &str,
    lines: &[Line],
    name: &dyn Fn(f64) -> String,
) -> Result<(), String> {
    let said = |e: &dyn std::fmt::Display| e.to_string();
    let mut ticks: Vec<f64> = lines.iter().flat_map(|l| l.points.iter().map(|p| p.0)).collect();
    ticks.sort_by(f64::total_cmp);
    ticks.dedup();
    let place = |x: f64| ticks.iter().position(|t| *t == x).unwrap_or(0) as f64;
    let values = || lines.iter().flat_map(|l| l.points.iter().flat_map(|p| [p.1 - p.2, p.1 + p.2]));
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let margin = ((high - low) * 0.08).max(0.02);
    let area = SVGBackend::with_string(svg, (960, 480)).into_drawing_area();
    area.fill(&WHITE).map_err(|e| said(&e))?;
    let area = area.titled(title, ("sans-serif", 20)).map_err(|e| said(&e))?;
    // Names beside the chart, where they cover nothing.
    let (left, right) = area.split_horizontally(720);
    for (i, line) in lines.iter().enumerate() {
        let (y, colour) = (30 + 22 * i as i32, COLOURS[i % COLOURS.len()]);
        right.draw(&PathElement::new([(4, y), (26, y)], colour.stroke_width(3))).map_err(|e| said(&e))?;
        right.draw(&Text::new(line.name.clone(), (32, y - 6), ("sans-serif", 13))).map_err(|e| said(&e))?;
    }
    let mut chart = ChartBuilder::on(&left)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(-0.2..(ticks.len().max(1) as f64 - 0.8), (low - margin)..(high + margin))
        .map_err(|e| said(&e))?;
    let label = |x: &f64| match ticks.get(x.round() as usize) {
        Some(tick) if (x - x.round()).abs() < 1e-6 => name(*tick),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(ticks.len().max(2) + 1)
        .max_light_lines(0)
        .x_label_formatter(&label)
        .x_desc(x_name)
        .y_desc(y_name)
        .draw()
        .map_err(|e| said(&e))?;
    for (i, line) in lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        // Slightly shifted, so that error bars do not cover each other.
        let aside = (i as f64 - lines.len() as f64 / 2.0) * 0.02;
        let points: Vec<(f64, f64, f64)> = line.points.iter().map(|(x, y, s)| (place(*x) + aside, *y, *s)).collect();
        chart
            .draw_series(LineSeries::new(points.iter().map(|p| (p.0, p.1)), colour.stroke_width(2)))
            .map_err(|e| said(&e))?;
        let bars = points.iter().map(|(x, y, s)| PathElement::new([(*x, y - s), (*x, y + s)], colour.stroke_width(1)));
        chart.draw_series(bars).map_err(|e| said(&e))?;
        chart.draw_series(points.iter().map(|p| Circle::new((p.0, p.1), 3, colour.filled()))).map_err(|e| said(&e))?;
    }
    area.present().map_err(|e| said(&e))
}
