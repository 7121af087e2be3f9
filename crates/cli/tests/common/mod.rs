//! Running the binary, for the tests of its commands.

use std::path::Path;
use std::process::{Command, Output};

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
    let text = String::from_utf8(output.stderr).expect("text");
    assert!(!output.status.success(), "{args:?} succeeded");
    assert!(
        text.starts_with("error: ") && text.trim_end().lines().count() == 1 && !text.contains("panicked"),
        "{text}"
    );
    text
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}
