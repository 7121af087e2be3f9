//! `regrow methods`: the methods of every kind, as the registries of the crates list them.

use std::io::Write;

use regrow_sparse_core::registry::{MethodInfo, unknown_method};

use crate::error::Result;
use crate::text;

/// List methods and their parameters
///
/// All methods, those of a KIND, or one by its NAME with its parameters, their defaults and ranges.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  regrow methods\n  regrow methods merge\n  regrow methods merge ties\n  \
                        regrow methods --json")]
pub struct Args {
    /// The kind of method, such as merge
    kind: Option<String>,
    /// The method
    name: Option<String>,
    /// As JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// As a table in Markdown: a line for each kind, or of one KIND a line for each method
    #[arg(long)]
    markdown: bool,
}

/// The descriptions of all methods of all crates.
pub fn all() -> Vec<MethodInfo> {
    [
        regrow_pruners::registry::methods(),
        regrow_merging::methods(),
        regrow_continual::registry::methods(),
        regrow_reweighting::registry::methods(),
    ]
    .concat()
}

/// Prints the requested methods.
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    let chosen = chosen(all(), args.kind.as_deref(), args.name.as_deref())?;
    if args.json {
        writeln!(out, "{:#}", serde_json::to_value(&chosen)?)?;
    } else if args.markdown {
        let table = if args.kind.is_some() { markdown(&chosen) } else { overview(&chosen) };
        write!(out, "{table}")?;
    } else if let ([method], Some(_)) = (&chosen[..], &args.name) {
        write!(out, "{}", details(method))?;
    } else {
        let row = |m: &MethodInfo| [m.kind, m.name, m.summary, m.paper, m.needs].map(String::from).to_vec();
        writeln!(out, "{}", text::table(&COLUMNS, 5, chosen.iter().map(row).collect()))?;
    }
    Ok(())
}

const COLUMNS: [&str; 5] = ["kind", "method", "what it does", "paper", "needs"];

/// The methods of that kind and name.
fn chosen(all: Vec<MethodInfo>, kind: Option<&str>, name: Option<&str>) -> Result<Vec<MethodInfo>> {
    let Some(kind) = kind else { return Ok(all) };
    let of_kind: Vec<MethodInfo> = all.iter().filter(|m| m.kind == kind).copied().collect();
    if of_kind.is_empty() {
        let mut kinds: Vec<MethodInfo> = all.iter().map(|m| MethodInfo { kind: "kind", name: m.kind, ..*m }).collect();
        kinds.sort_by_key(|m| m.name);
        kinds.dedup_by_key(|m| m.name);
        return Err(unknown_method(kind, &kinds).into());
    }
    let Some(name) = name else { return Ok(of_kind) };
    match of_kind.iter().find(|m| m.name == name) {
        Some(method) => Ok(vec![*method]),
        None => Err(unknown_method(name, &of_kind).into()),
    }
}

/// One method with its parameters.
fn details(method: &MethodInfo) -> String {
    let MethodInfo { kind, name, summary, paper, needs, params } = method;
    let head = format!("{name} ({kind}): {summary}\npaper: {paper}\nneeds: {needs}\n");
    if params.is_empty() {
        return head + "parameters: none\n";
    }
    let default = |default: &str| if default.is_empty() { "(must be given)".into() } else { default.to_string() };
    let rows = params.iter().map(|p| vec![p.name.into(), p.meaning.into(), default(p.default), p.range.to_string()]);
    format!("{head}\n{}\n", text::table(&["parameter", "meaning", "default", "range"], 4, rows.collect()))
}

/// A line for each kind with the names of its methods.
fn overview(methods: &[MethodInfo]) -> String {
    let mut kinds: Vec<(&str, Vec<String>)> = Vec::new();
    for method in methods {
        let name = format!("`{}`", method.name);
        match kinds.iter_mut().find(|(kind, _)| *kind == method.kind) {
            Some((_, names)) => names.push(name),
            None => kinds.push((method.kind, vec![name])),
        }
    }
    let row = |(kind, names): &(&str, Vec<String>)| format!("| {kind} | {} |\n", names.join(", "));
    "| kind | methods |\n| --- | --- |\n".to_string() + &kinds.iter().map(row).collect::<String>()
}

/// A line for each method.
fn markdown(methods: &[MethodInfo]) -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let paper = |paper: &str| match paper.strip_prefix("arXiv ") {
        Some(id) => format!("[{id}](https://arxiv.org/abs/{id})"),
        None => cell(paper),
    };
    let row = |m: &MethodInfo| {
        format!("| {} | `{}` | {} | {} | {} |\n", m.kind, m.name, cell(m.summary), paper(m.paper), cell(m.needs))
    };
    let head = format!("| {} |\n| --- | --- | --- | --- | --- |\n", COLUMNS.join(" | "));
    head + &methods.iter().map(row).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_found_by_kind_and_name() {
        let of = |kind, name| chosen(all(), kind, name).map(|found| found.len()).map_err(|e| e.to_string());
        assert_eq!(of(None, None), Ok(all().len()));
        assert_eq!(of(Some("merge"), None), Ok(regrow_merging::ALL.len()));
        assert_eq!(of(Some("merge"), Some("ties")), Ok(1));
        assert!(of(Some("merg"), None).unwrap_err().starts_with("unknown kind `merg` (did you mean `merge`?)"));
        assert!(of(Some("merge"), Some("tie")).unwrap_err().starts_with("unknown merge `tie` (did you mean `ties`?)"));
    }

    #[test]
    fn names_are_unique_within_a_kind() {
        let mut names: Vec<_> = all().iter().map(|m| (m.kind, m.name)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all().len());
    }
}
