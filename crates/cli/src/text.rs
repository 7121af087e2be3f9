//! Numbers and tables as the reports print them.

use comfy_table::{CellAlignment, Table, presets};

/// `1234567` as `1,234,567`.
pub fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `0.8` as `80.00 %`; a part that is short of the whole never shows as 100 %, one above zero never
/// as 0 %.
pub fn percent(part: usize, whole: usize) -> String {
    if whole == 0 {
        return "0.00 %".into();
    }
    let value = 100.0 * part as f64 / whole as f64;
    match format!("{value:.2} %").as_str() {
        "100.00 %" if part < whole => "> 99.99 %".into(),
        "0.00 %" if part > 0 => "< 0.01 %".into(),
        text => text.into(),
    }
}

/// A shape as `64x3x3x3`; a scalar as `scalar`.
pub fn shape(sizes: &[usize]) -> String {
    match sizes {
        [] => "scalar".into(),
        _ => sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("x"),
    }
}

/// Whether a tensor is an embedding, by its name: its rows are looked up, not multiplied.
pub fn is_embedding(name: &str) -> bool {
    ["embed", "wte", "wpe", "shared.weight", "lookup"].iter().any(|mark| name.contains(mark))
}

/// `text` with line breaks and other control characters, which names in a file may hold, escaped.
pub fn one_line(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect()
}

/// A table without lines: the first `left` columns flush left, the others flush right.
pub fn table(header: &[&str], left: usize, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec()).add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index >= left {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn percentages_do_not_round_to_all_or_nothing() {
        let shown = [(0, 3), (1, 1_000_000), (4, 5), (999_999, 1_000_000), (3, 3), (0, 0)];
        let expected = ["0.00 %", "< 0.01 %", "80.00 %", "> 99.99 %", "100.00 %", "0.00 %"];
        assert_eq!(shown.map(|(part, whole)| percent(part, whole)), expected);
    }

    #[test]
    fn shapes_and_odd_names() {
        assert_eq!(shape(&[64, 3, 3]), "64x3x3");
        assert_eq!(shape(&[]), "scalar");
        assert_eq!(one_line("a\nb"), "a\\nb");
    }
}
