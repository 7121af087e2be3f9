//! `regrow methods` as a user runs it.

mod common;

use common::{complaint, regrow, stdout};

#[test]
fn the_list_one_method_and_json() {
    let all = stdout(&regrow(&["methods"]));
    assert!(all.lines().next().is_some_and(|head| head.contains("kind") && head.contains("needs")), "{all}");
    for name in ["ties", "opcm", "rmm", "model-stock"] {
        assert!(all.lines().any(|line| line.starts_with("merge") && line.contains(name)), "{name}: {all}");
    }
    let ties = stdout(&regrow(&["methods", "merge", "ties"]));
    assert!(
        ties.starts_with("ties (merge): task vectors trimmed") && ties.contains("paper: arXiv 2306.01708"),
        "{ties}"
    );
    assert!(ties.lines().any(|line| line.starts_with("density ") && line.ends_with("[0, 1]")), "{ties}");
    let slerp = stdout(&regrow(&["methods", "merge", "slerp"]));
    assert!(slerp.contains("(must be given)"), "{slerp}");
    let json = stdout(&regrow(&["methods", "merge", "ties", "--json"]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json[0]["name"], "ties");
    assert_eq!(json[0]["params"][1]["default"], "1");
}

#[test]
fn a_table_for_a_readme() {
    let table = stdout(&regrow(&["methods", "merge", "--markdown"]));
    let mut lines = table.lines();
    assert_eq!(lines.next(), Some("| kind | method | what it does | paper | needs |"));
    assert!(lines.all(|line| line.matches(" | ").count() == 4), "{table}");
    assert!(
        table.contains("| `ties` |") && table.contains("[2306.01708](https://arxiv.org/abs/2306.01708)"),
        "{table}"
    );
}

#[test]
fn the_readmes_table_is_that_of_the_registries() {
    let readme = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(readme).expect("the repository has a README");
    let (begin, end) = ("<!-- methods:begin -->", "<!-- methods:end -->");
    let table = readme.split_once(begin).and_then(|(_, rest)| rest.split_once(end)).map(|(table, _)| table.trim());
    let made = stdout(&regrow(&["methods", "--markdown"]));
    assert_eq!(table, Some(made.trim()), "put the output of `regrow methods --markdown` there");
    for kind in ["score", "budget", "layer-solver", "pruner", "merge", "strategy", "weighter"] {
        assert!(made.contains(&format!("| {kind} |")), "{kind}: {made}");
    }
}

#[test]
fn unknown_kinds_and_names_are_one_line() {
    assert!(complaint(&["methods", "merges"]).contains("unknown kind `merges` (did you mean `merge`?)"));
    assert!(complaint(&["methods", "merge", "tiess"]).contains("did you mean `ties`?"));
}
