//! A table of one's own on the public harness: its options, its settings, its files, and a run that was interrupted.

use std::sync::atomic::{AtomicUsize, Ordering};

use regrow_bench::harness::prelude::*;
use regrow_bench::harness::run::Entry;
use serde_json::{Value, json};

const INFO: Info = Info {
    name: "doubling",
    summary: "A number against its double",
    example: "bench doubling --start 2",
    paper: r#"
        title = "Doubling"
        source = "arXiv 0000.00000"
        setting = "none"

        [[claims]]
        text = "double beats single"
        better = "double"
        than = "single"
    "#,
    measure: Measure::Accuracy,
};

/// How often rows were made.
static MADE: AtomicUsize = AtomicUsize::new(0);

#[derive(clap::Args, Clone, Debug, Serialize)]
struct Doubling {
    /// The number to begin with
    #[arg(long, default_value_t = 1.0)]
    start: f64,
}

impl Table for Doubling {
    type Data = ();

    fn check(&mut self, _common: &Common) -> Result<()> {
        ensure(self.start > 0.0, "there is nothing to double (--start)")
    }

    fn open(&self, _folder: Option<&Path>) -> Result<()> {
        Ok(())
    }

    fn settings(&self) -> Vec<Setting> {
        ["single", "double"].map(|method| Setting::method(method).at(0.5)).into()
    }

    fn rows(&self, setting: &Setting, seed: u64, context: &Context<'_, ()>) -> Result<Vec<Record>> {
        MADE.fetch_add(1, Ordering::Relaxed);
        let shared = context.of_seed(seed, |_| Ok(self.start + seed as f64))?;
        let factor = if setting.name() == "double" { 2.0 } else { 1.0 };
        Ok(vec![Record::new(setting.name(), 0.5, seed, factor * *shared, 0.0)])
    }

    fn describe(&self, _data: &()) -> String {
        format!("from {}", self.start)
    }
}

#[test]
fn a_table_of_ones_own_runs_resumes_and_is_refused_with_other_settings() {
    let dir = tempfile::tempdir().expect("a folder");
    let out = dir.path().to_str().expect("its name");
    let entry = Entry::of::<Doubling>(&INFO);
    let run = |more: &[&str]| {
        let words = [&["doubling", "--seeds", "3", "--out", out], more].concat();
        entry.run(&entry.command().try_get_matches_from(words).expect("options"))
    };
    run(&["--start", "2"]).expect("a table");
    assert_eq!(MADE.load(Ordering::Relaxed), 6);
    let text = std::fs::read_to_string(dir.path().join("doubling.json")).expect("its file");
    let whole: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(whole["settings"], json!({ "start": 2.0, "seeds": [0, 3] }));
    assert_eq!(whole["claims"][0]["outcome"], "holds");
    let values: Vec<f64> =
        whole["rows"].as_array().expect("rows").iter().map(|r| r["value"].as_f64().expect("a number")).collect();
    regrow_testing::assert_close(&values, &[2.0, 4.0, 3.0, 6.0, 4.0, 8.0], 0.0);
    assert!(dir.path().join("doubling.svg").exists());
    // What an interrupted run leaves: of the second seed one row is missing, the third is not begun.
    let rows = &whole["rows"].as_array().expect("rows")[..3];
    let left = json!({ "plan": whole["settings"], "rows": rows }).to_string();
    std::fs::write(dir.path().join("doubling.cells.json"), &left).expect("written");
    run(&["--start", "2", "--resume"]).expect("the rest");
    assert_eq!(MADE.load(Ordering::Relaxed), 9);
    let text = std::fs::read_to_string(dir.path().join("doubling.json")).expect("its file");
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["rows"], whole["rows"]);
    // Other settings are another table.
    std::fs::write(dir.path().join("doubling.cells.json"), &left).expect("written");
    assert!(run(&["--start", "3", "--resume"]).unwrap_err().to_string().contains("other settings"));
    assert!(run(&["--start", "0"]).unwrap_err().to_string().contains("--start"));
}
