//! Every table as a user runs it, small, and on bad input.

use std::path::Path;
use std::process::{Command, Output};

fn bench(args: &[&str], out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(args).arg("--out").arg(out).env_remove("REGROW_DATA").output().expect("the binary runs")
}

const SMALL: [&str; 9] = ["sms", "--seeds", "2", "--sparsity", "0.9", "--m", "2", "--epochs", "5"];

/// Rows without their wall times.
fn figures(out: &Path) -> Vec<serde_json::Value> {
    let json = std::fs::read_to_string(out.join("sms.json")).expect("sms.json");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["table"], "sms");
    assert!(!json["claims"].as_array().expect("claims").is_empty());
    let mut rows = json["rows"].as_array().expect("rows").clone();
    rows.iter_mut().for_each(|row| row["seconds"] = serde_json::Value::Null);
    rows
}

#[test]
fn sms_writes_its_table_and_repeats_itself() {
    let dir = tempfile::tempdir().expect("a folder");
    let (first, second) = (dir.path().join("a"), dir.path().join("b"));
    let output = bench(&SMALL, &first);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    assert!(said.contains("| SMS, uniform ") && said.contains("SMS beats its best candidate"), "{said}");
    assert!(std::fs::read_to_string(first.join("sms.svg")).expect("sms.svg").contains("<svg"));
    let rows = figures(&first);
    assert_eq!(rows.len() % 2, 0, "two seeds");
    // A learned network, not a guess.
    assert!(rows.iter().all(|row| row["accuracy"].as_f64().is_some_and(|a| a > 50.0 && a <= 100.0)));
    assert!(bench(&[&SMALL[..], &["--parallel", "1"]].concat(), &second).status.success());
    assert_eq!(rows, figures(&second), "the same seeds, the same figures, whatever runs side by side");
}

#[test]
fn bad_input_is_one_line_and_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("file");
    std::fs::write(&file, b"").expect("written");
    let complaint = |args: &[&str], out: &Path| {
        let output = bench(args, out);
        let text = String::from_utf8(output.stderr).expect("text");
        assert!(!output.status.success(), "{args:?} succeeded");
        assert!(text.starts_with("error: ") && text.trim_end().lines().count() == 1, "{args:?}: {text}");
        text
    };
    let out = dir.path().join("out");
    assert!(complaint(&["sms", "--m", "0"], &out).contains("at least one candidate"));
    assert!(complaint(&["sms", "--seeds", "0"], &out).contains("at least one seed"));
    assert!(complaint(&["sms", "--sparsity", "1.5"], &out).contains("1.5"));
    assert!(complaint(&["sms", "--dataset", "imagenet"], &out).contains("imagenet"));
    assert!(complaint(&["sms", "--dataset", "mnist"], &out).contains("--data"));
    assert!(complaint(&["sms", "--dataset", "mnist", "--data", "/no/such/folder"], &out).contains("/no/such/folder"));
    complaint(&["sms", "--arch", "resnet20"], &out);
    complaint(&["sms"], &file.join("below-a-file"));
    assert!(!out.join("sms.json").exists());
}
