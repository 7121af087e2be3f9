//! Peers on this machine: one process lends its device, others compute on it.
#![cfg(feature = "remote")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{complaint, regrow, stdout, text};
use regrow_zoo::Arch;

/// A process that lends the processor, until it is dropped.
struct Peer {
    child: Child,
    name: String,
}

impl Peer {
    fn new(more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_regrow"));
        command.args(["--device", "flex", "serve"]).args(more).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a peer");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut line = || lines.next().expect("a line").expect("text");
        assert!(line().contains("is lent for"));
        Self { name: line(), child }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn saved(folder: &Path) -> String {
    let file = folder.join("net.safetensors");
    let net = Arch::parse("mlp-small").expect("known").init(10, 3, &burn::tensor::Device::flex());
    regrow_zoo::save(&net, &file).expect("written");
    text(&file).to_string()
}

#[test]
fn what_a_peer_computes_is_what_is_computed_here() {
    let dir = tempfile::tempdir().expect("a folder");
    let net = saved(dir.path());
    let eval = |device: &str| {
        let said = stdout(&regrow(&["--device", device, "eval", &net, "--arch", "mlp-small", "--dataset", "digits"]));
        said.lines().find(|line| line.contains("accuracy") || line.contains('%')).unwrap_or_default().to_string()
    };
    let here = eval("flex");
    assert!(!here.is_empty());
    for more in [&["--lives", "1h"][..], &["--web-socket"]] {
        let peer = Peer::new(more);
        assert_eq!(eval(&peer.name), here);
    }
}

#[test]
fn a_ticket_in_a_file_is_its_owners() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("peer.ticket");
    let peer = Peer::new(&["--ticket-file", text(&file)]);
    assert_eq!(peer.name, format!("written: {}", file.display()));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    }
    stdout(&regrow(&[
        "--device",
        &format!("remote:@{}", file.display()),
        "eval",
        &saved(dir.path()),
        "--arch",
        "mlp-small",
        "--dataset",
        "digits",
    ]));
    fs::write(&file, "remote:mfrggzdf").expect("written");
    let said = complaint(&["--device", &format!("remote:@{}", file.display()), "devices"]);
    assert!(said.contains("peer.ticket") && said.contains("garbage"), "{said}");
    let said = complaint(&["--device", "remote:@nowhere.ticket", "devices"]);
    assert!(said.contains("nowhere.ticket"), "{said}");
}

#[test]
fn strangers_are_refused_in_a_line() {
    let gone = Peer::new(&["--lives", "1h"]).name.clone();
    let said = complaint(&["--device", &gone, "devices"]);
    assert!(said.contains("is not at 127.0.0.1:"), "{said}");
    assert!(!said.contains(gone.trim_start_matches("remote:")), "{said}");

    let peer = Peer::new(&["--web-socket"]);
    let (_, at) = peer.name.split_once('@').expect("a credential");
    for stranger in [format!("ws://{at}"), format!("ws://mfrggzdf@{at}")] {
        let said = complaint(&["--device", &stranger, "devices"]);
        assert!(said.contains("refuses the credential") && !said.contains("mfrggzdf"), "{said}");
    }
    let expired = Peer::new(&["--lives", "1s"]);
    std::thread::sleep(std::time::Duration::from_secs(2));
    let said = complaint(&["--device", &expired.name, "devices"]);
    assert!(said.contains("expired"), "{said}");
    for (bad, why) in [
        ("remote:garbage", "the ticket is garbage"),
        ("ws://10.1.2.3:9", "loopback only"),
        ("ws://127.0.0.1:1", "no peer is at ws://127.0.0.1:1"),
        ("ws://", "is no address"),
    ] {
        let said = complaint(&["--device", bad, "devices"]);
        assert!(said.contains(why), "{bad}: {said}");
    }
}

#[test]
fn what_cannot_be_lent_is_refused_in_a_line() {
    for (bad, why) in [
        (&["--bind", "0.0.0.0:0"][..], "no address to dial"),
        (&["--bind", "192.0.2.1:0"], "cannot be listened at"),
        (&["--bind", "192.0.2.1:0", "--web-socket"], "loopback only"),
        (&["--lives", "1w"], "no unit of time"),
        (&["--ticket-file", "/nowhere/peer.ticket"], "/nowhere"),
    ] {
        let said = complaint(&[&["serve"], bad].concat());
        assert!(said.contains(why), "{bad:?}: {said}");
    }
    // The ticket is written before the "lent" line is printed.
    assert!(regrow(&["serve", "--ticket-file", "/nowhere/peer.ticket"]).stdout.is_empty());
    let peer = Peer::new(&[]);
    let said = complaint(&["--device", &peer.name, "serve"]);
    assert!(said.contains("cannot be lent"), "{said}");
}
