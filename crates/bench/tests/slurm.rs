//! A table as a Slurm array, under a stand-in for the scheduler: two tasks at once, one killed and run
//! again.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

const TABLE: [&str; 9] =
    ["pruning", "--seeds", "3", "--sparsity", "0.8,0.9", "--epochs", "6", "--method", "GMP,GraNet,one-shot"];

fn bench(more: &[&str], out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(TABLE).args(more).arg("--out").arg(out);
    command
}

/// What sets one table apart from another of the same plan: times differ from run to run.
fn rows(out: &Path) -> Vec<(String, String)> {
    let json = fs::read_to_string(out.join("pruning.json")).expect("pruning.json");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let row =
        |row: &Value| (format!("{} {} {}", row["method"], row["sparsity"], row["seed"]), row["value"].to_string());
    let mut rows: Vec<_> = json["rows"].as_array().expect("rows").iter().map(row).collect();
    rows.sort();
    rows
}

/// What Slurm does with a script: runs it with the number of the task in its environment.
fn task(script: &Path, number: usize) -> Child {
    let mut command = Command::new("bash");
    command.arg(script).env("SLURM_ARRAY_TASK_ID", number.to_string());
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a task")
}

#[test]
fn tasks_make_the_same_table() {
    let dir = tempfile::tempdir().expect("a folder");
    let (whole, out) = (dir.path().join("whole"), dir.path().join("in tasks"));
    assert!(bench(&[], &whole).output().expect("ran").status.success());
    let said = bench(&["--slurm"], &out).output().expect("ran");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let script = dir.path().join("table.sh");
    fs::write(&script, &said.stdout).expect("written");
    let said = String::from_utf8(said.stdout).expect("text");
    assert!(said.contains("#SBATCH --array=0-2\n"), "{said}");

    let (mut first, mut second) = (task(&script, 0), task(&script, 1));
    // Killed with kill -9 once it has kept some cells.
    let (kept, started) = (out.join("part-1/pruning.cells.json"), Instant::now());
    while !kept.exists() && started.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_millis(5));
    }
    second.kill().expect("killed");
    second.wait().expect("gone");
    assert!(first.wait().expect("done").success());
    assert!(!out.join("part-1/pruning.json").exists(), "killed too late for this test");
    assert!(task(&script, 1).wait().expect("done").success());
    // The third task never ran: gathering makes what is missing.
    assert!(bench(&["--resume"], &out).output().expect("ran").status.success());
    assert_eq!(rows(&out), rows(&whole));
}

#[test]
fn parts_of_another_table_are_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    let part = dir.path().join("part-0");
    let few = ["pruning", "--seeds", "1", "--sparsity", "0.5", "--epochs", "4", "--method", "one-shot", "--out"];
    let made = Command::new(env!("CARGO_BIN_EXE_bench")).args(few).arg(&part).output().expect("ran");
    assert!(made.status.success());
    let said = bench(&["--resume"], dir.path()).output().expect("ran");
    let said = String::from_utf8(said.stderr).expect("text");
    assert!(said.starts_with("error: ") && said.contains("part-0") && said.contains("other settings"), "{said}");
}
