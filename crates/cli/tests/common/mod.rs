//! Running the binary, for the tests of its commands.
#![allow(dead_code)] // not every helper is of use to every test

pub mod recipes;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use regrow_lm::Sizes;
use serde_json::json;

/// The binary with `args`, without the data that the machine may have.
pub fn regrow(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_regrow")).args(args).env_remove("REGROW_DATA").output().expect("the binary runs")
}

/// What a command that succeeded printed.
pub fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// A failure is one line on stderr and no panic.
pub fn complaint(args: &[&str]) -> String {
    let output = regrow(args);
    assert!(!output.status.success(), "{args:?} succeeded");
    refused(&output)
}

/// The one line of a failure.
pub fn refused(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("text");
    // 2 where the mistake is in the arguments.
    assert!(matches!(output.status.code(), Some(1 | 2)), "{text}");
    assert!(
        text.starts_with("error: ") && text.trim_end().lines().count() == 1 && !text.contains("panicked"),
        "{text}"
    );
    text
}

/// Runs `regrow` with these arguments until `begun` and kills it; whether it was killed before `out` was there.
pub fn killed(args: &[&str], out: &Path, begun: impl Fn() -> bool) -> bool {
    let mut running = Command::new(env!("CARGO_BIN_EXE_regrow"))
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");
    let started = Instant::now();
    while !begun() && !out.exists() && started.elapsed() < Duration::from_secs(300) {
        std::thread::sleep(Duration::from_millis(1));
    }
    running.kill().expect("killed");
    running.wait().expect("gone");
    !out.exists()
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A Llama of two blocks in `folder`, with a tokenizer of the eight words that it knows.
pub fn tiny(folder: &Path) -> PathBuf {
    let dir = folder.join("tiny");
    Sizes { vocab: 8, width: 16, layers: 2, heads: 2, inner: 24, context: 32 }.create(&dir, 1).expect("a model");
    tokenizer(&dir, &["a", "man", "saw", "the", "old", "dog", "in", "town"]);
    dir
}

/// Writes a tokenizer that knows these words, the first for all others.
pub fn tokenizer(dir: &Path, words: &[&str]) {
    let vocab: serde_json::Map<_, _> = words.iter().enumerate().map(|(i, w)| (w.to_string(), i.into())).collect();
    let tokenizer = json!({"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": words[0]}});
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).expect("written");
}

/// The binary with these arguments where no file may grow beyond a few kilobytes, which stands in for a full disk.
#[cfg(unix)]
pub fn on_a_full_disk(command: &mut Command, args: &[&str]) -> Output {
    // 8 blocks of 512 bytes or 1024, whatever the shell counts in.
    let script = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_regrow")]).args(args).output().expect("a shell")
}
