//! A table given to several devices: two peers on this machine, one of which is killed.
#![cfg(feature = "remote")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use regrow_device::remote::serve::serve;
use serde_json::Value;

/// What makes a process of this test a peer.
const PEER: &str = "REGROW_TEST_PEER";

/// No test by itself: what [`Peer`] starts this program for.
#[test]
fn a_peer() {
    if std::env::var_os(PEER).is_some() {
        let at = "127.0.0.1:0".parse().expect("an address");
        let lent = serve(&Device::flex(), at, Duration::from_secs(600)).expect("lent");
        println!("\n{}", lent.name());
        let _ended = lent.wait();
    }
}

/// Another process that lends the processor, until it is dropped.
struct Peer {
    child: Child,
    name: String,
    /// Held open: the harness there may say later that its test takes long.
    _lines: BufReader<ChildStdout>,
}

impl Peer {
    fn new() -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "a_peer", "--nocapture"]).env(PEER, "1");
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a peer");
        let mut lines = BufReader::new(child.stdout.take().expect("its output"));
        let name = lines.by_ref().lines().map_while(Result::ok).find(|line| line.starts_with("remote:"));
        Self { child, name: name.expect("a ticket"), _lines: lines }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn bench(device: &str, table: &[&str], out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench"));
    command.args(["--device", device]).args(table).arg("--out").arg(out).stderr(Stdio::piped());
    command
}

/// The rows of a table without their times.
fn rows(out: &Path, table: &str) -> Vec<(String, String)> {
    let json = fs::read_to_string(out.join(format!("{table}.json"))).expect("a table");
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let row = |row: &Value| {
        (format!("{} {} {} {}", row["method"], row["sparsity"], row["seed"], row["m"]), row["value"].to_string())
    };
    let mut rows: Vec<_> = json["rows"].as_array().expect("rows").iter().map(row).collect();
    rows.sort();
    rows
}

#[test]
fn a_soup_of_several_devices_is_the_same_and_outlives_a_peer() {
    let dir = tempfile::tempdir().expect("a folder");
    let (whole, spread) = (dir.path().join("whole"), dir.path().join("spread"));
    let table = ["sms", "--seeds", "2", "--sparsity", "0.9", "--m", "3", "--epochs", "20"];
    let said = bench("flex", &table, &whole).output().expect("ran");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));

    let (first, mut second) = (Peer::new(), Peer::new());
    let devices = format!("flex,{},{}", first.name, second.name);
    let running = bench(&devices, &[&table[..], &["--parallel", "1"]].concat(), &spread).spawn().expect("a table");
    // Killed with kill -9 while the second cell is made.
    let (kept, started) = (spread.join("sms.cells.json"), Instant::now());
    let cells = || fs::read_to_string(&kept).map_or(0, |text| text.matches("\"method\"").count());
    while cells() < 2 && started.elapsed() < Duration::from_secs(120) {
        sleep(Duration::from_millis(5));
    }
    second.child.kill().expect("killed");
    let said = running.wait_with_output().expect("done");
    let errors = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && errors.contains("is lost"), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    assert_eq!(rows(&spread, "sms"), rows(&whole, "sms"));
    // What is shown and kept names peers, and holds none of their secrets.
    let json = fs::read_to_string(spread.join("sms.json")).expect("a table");
    assert!(json.contains("peer ") && !json.contains(&first.name["remote:".len()..]), "{json}");
}

#[test]
fn cells_of_a_table_go_to_a_peer() {
    let dir = tempfile::tempdir().expect("a folder");
    let (whole, spread) = (dir.path().join("whole"), dir.path().join("spread"));
    let table = ["pruning", "--seeds", "1", "--sparsity", "0.9", "--epochs", "4", "--method", "GMP,one-shot,SNIP"];
    assert!(bench("flex", &table, &whole).output().expect("ran").status.success());
    let peer = Peer::new();
    let devices = format!("flex,{}", peer.name);
    let said = bench(&devices, &[&table[..], &["--parallel", "1"]].concat(), &spread).output().expect("ran");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(rows(&spread, "pruning"), rows(&whole, "pruning"));
}

/// That each table has the same figures with a peer beside.
fn same_with_a_peer(tables: &[&[&str]]) {
    let dir = tempfile::tempdir().expect("a folder");
    let peer = Peer::new();
    let devices = format!("flex,{}", peer.name);
    for table in tables {
        let (whole, spread) = (dir.path().join("whole").join(table[0]), dir.path().join("spread").join(table[0]));
        let ran = |device: &str, out: &Path| {
            let said = bench(device, &[table, &["--parallel", "1"][..]].concat(), out).output().expect("ran");
            assert!(said.status.success(), "{}: {}", table[0], String::from_utf8_lossy(&said.stderr));
        };
        ran("flex", &whole);
        ran(&devices, &spread);
        let name = if table[0] == "reweighting" { "reweighting-language" } else { table[0] };
        assert_eq!(rows(&spread, name), rows(&whole, name), "{name}");
    }
}

#[test]
fn seeds_of_a_table_go_to_a_peer() {
    same_with_a_peer(&[
        &["merge", "--seeds", "2", "--epochs", "1", "--parent-epochs", "1"],
        &["opcm", "--seeds", "2", "--epochs", "1", "--tune", "1", "--count", "2", "--orders", "1"],
        &["rd", "--seeds", "2", "--epochs", "1", "--retrain", "1", "--amounts", "4", "--sparsity", "0.9"],
        &["rmm", "--seeds", "2", "--epochs", "1", "--tune", "1", "--count", "2", "--rank", "4"],
    ]);
}

#[test]
fn cells_of_a_language_model_go_to_a_peer() {
    same_with_a_peer(&[
        &["llm", "--seeds", "1", "--sparsity", "0.5", "--pattern", "2:4", "--method", "wanda", "--steps", "2"],
        &["reweighting", "--seeds", "1", "--part", "language", "--steps", "3"],
    ]);
}

#[test]
fn a_list_of_devices_with_a_mistake_is_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    for (device, why) in [
        ("flex,flex", "is named twice"),
        ("flex,remote:garbage", "the ticket is garbage"),
        ("flex,flx", "did you mean `flex`?"),
    ] {
        let said = bench(device, &["sms"], dir.path()).output().expect("ran");
        let said = String::from_utf8(said.stderr).expect("text");
        assert!(said.starts_with("error: ") && said.contains(why) && said.trim_end().lines().count() == 1, "{said}");
    }
}
