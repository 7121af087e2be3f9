//! Errors and storage of a directory of merged adapters: as table, JSON and SVG.

use std::io::Write;
use std::path::Path;

use regrow_checkpoint::atomic;

use super::Manifest;
use crate::error::Result;
use crate::text;

/// Prints the report.
pub fn show(of: &Manifest, json: bool, picture: Option<&Path>, out: &mut dyn Write) -> Result<()> {
    if let Some(path) = picture {
        atomic::write_atomic(path, |file| file.write_all(svg(of).as_bytes()))?;
    }
    match json {
        true => writeln!(out, "{:#}", serde_json::to_value(of)?)?,
        false => writeln!(out, "{}\n{}", table(of), summary(of))?,
    }
    Ok(())
}

/// Relative errors, a row for each layer and a column for each task.
fn table(of: &Manifest) -> String {
    let names = of.tasks.iter().map(|t| text::one_line(&t.name)).collect::<Vec<_>>();
    let header: Vec<&str> = ["layer", "shape"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let error = |e: &f64| format!("{e:.4}");
    let row = |name: &str, shape: &str, errors: &mut dyn Iterator<Item = &f64>| {
        [text::one_line(name), shape.into()].into_iter().chain(errors.map(error)).collect::<Vec<_>>()
    };
    let layers = of.layers.iter().map(|l| row(&l.name, &text::shape(&l.shape), &mut l.relative_errors.iter()));
    let all = row("all", "", &mut of.tasks.iter().map(|t| &t.relative_error));
    text::table(&header, 2, layers.chain([all]).collect())
}

/// How many basis models there are and how much they save.
pub fn summary(of: &Manifest) -> String {
    format!(
        "{} basis models of {} (by {}{}): {} of {} numbers ({})",
        of.basis,
        of.tasks.len(),
        of.granularity,
        if of.centred { ", centred" } else { "" },
        text::grouped(of.numbers),
        text::grouped(of.numbers_of_all),
        text::percent(of.numbers, of.numbers_of_all)
    )
}

/// One line for each task over the layers, as SVG.
fn svg(of: &Manifest) -> String {
    const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8c8c8c"];
    let errors = of.layers.iter().flat_map(|l| l.relative_errors.iter().copied());
    let top = errors.fold(1e-9f64, f64::max);
    let x = |layer: usize| 60.0 + 580.0 * layer as f64 / (of.layers.len().max(2) - 1) as f64;
    let y = |error: f64| 300.0 - 250.0 * error / top;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"860\" height=\"340\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <text x=\"8\" y=\"20\">relative error by layer; {}</text>\n\
         <text x=\"8\" y=\"54\">{top:.3}</text><text x=\"8\" y=\"304\">0</text>\n\
         <text x=\"60\" y=\"330\">layer 1 to {}, in the order of their names</text>\n\
         <path d=\"M60 50V300H640\" fill=\"none\" stroke=\"#999999\"/>\n",
        escaped(&summary(of)),
        of.layers.len()
    );
    for (task, info) in of.tasks.iter().enumerate() {
        let colour = COLOURS[task % COLOURS.len()];
        let at = |(layer, l): (usize, &super::Layer)| {
            let error = l.relative_errors.get(task)?;
            Some(format!("{:.1},{:.1}", x(layer), y(*error)))
        };
        let points: Vec<String> = of.layers.iter().enumerate().filter_map(at).collect();
        svg += &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"654\" y=\"{}\" fill=\"{colour}\">{} ({:.4})</text>\n",
            points.join(" "),
            60 + 18 * task,
            escaped(&info.name),
            info.relative_error
        );
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
