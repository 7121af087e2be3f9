//! Errors and their one-line messages.

use std::error::Error as _;
use std::io;
use std::process::ExitCode;

use crate::text::one_line;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A checkpoint, mask or argument was rejected.
    #[error(transparent)]
    Core(#[from] regrow_sparse_core::Error),
    /// A checkpoint could not be read or written.
    #[error(transparent)]
    Checkpoint(#[from] regrow_checkpoint::Error),
    /// A device is missing or was lost.
    #[error(transparent)]
    Device(#[from] regrow_device::Error),
    /// The report could not be printed.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
    /// The report could not be converted to JSON.
    #[error("the report cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// An invalid argument, or a file that does not fit it.
    #[error("{0}")]
    Argument(String),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Prints `failure` and its causes as one line and returns the exit code.
pub fn report(failure: &Error) -> ExitCode {
    // `regrow inspect ... | head` closes the pipe: the reader has finished, which is not an error.
    if matches!(failure, Error::Output(e) if e.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    let mut message = failure.to_string();
    let mut cause = failure.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        // Most messages already contain their cause.
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = inner.source();
    }
    eprintln!("error: {}", one_line(&message));
    ExitCode::FAILURE
}

/// Prints clap's output: help and version unchanged, an error as one line.
pub fn report_usage(usage: &clap::Error) -> ExitCode {
    if !usage.use_stderr() || usage.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        usage.exit()
    }
    // The error comes first, perhaps a tip; usage and a hint at --help follow.
    let message = usage.to_string();
    let paragraphs = message.split("\n\n").take_while(|p| !p.starts_with("Usage:") && !p.starts_with("For more"));
    let lines = paragraphs.map(|p| p.split_whitespace().collect::<Vec<_>>().join(" "));
    eprintln!("{} (see --help)", one_line(&lines.collect::<Vec<_>>().join("; ")));
    ExitCode::from(2)
}
