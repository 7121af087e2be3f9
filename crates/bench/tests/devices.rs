//! A table given to several devices: two peers on this machine, one of which is killed.
#![cfg(feature = "remote")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use regrow_sparse_core::remote::serve::serve;
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
}

impl Peer {
    fn new() -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "a_peer", "--nocapture"]).env(PEER, "1");
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a peer");
        let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let name = lines.map_while(Result::ok).find(|line| line.starts_with("remote:"));
        Self { child, name: name.expect("a ticket") }
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

#[test]
fn a_list_of_devices_is_refused_where_one_computes() {
    let dir = tempfile::tempdir().expect("a folder");
    for (device, table, why) in [
        ("flex,flex", "sms", "is named twice"),
        ("flex,remote:x", "merge", "one device"),
        ("flex,remote:garbage", "sms", "the ticket is garbage"),
        ("flex,flx", "sms", "did you mean `flex`?"),
    ] {
        let said = bench(device, &[table], dir.path()).output().expect("ran");
        let said = String::from_utf8(said.stderr).expect("text");
        assert!(said.starts_with("error: ") && said.contains(why) && said.trim_end().lines().count() == 1, "{said}");
    }
}
