//! The JSON file that a table writes.

use std::path::Path;

use regrow_checkpoint::atomic;
use regrow_sparse_core::{Error, Result};
use serde::Serialize;

use crate::harness::claim::Verdict;
use crate::harness::record::{Measure, Record};

/// The file that a table writes.
#[derive(Serialize)]
pub struct ResultFile<'a, S> {
    /// The table's name.
    pub table: &'a str,
    /// What its rows measure.
    pub measure: Measure,
    /// The command that made it.
    pub command: String,
    /// Where it ran.
    pub device: String,
    /// Its settings.
    pub settings: S,
    /// Seconds of wall time in all.
    pub seconds: f64,
    /// Peak memory in bytes.
    pub peak_memory: Option<u64>,
    /// The paper's claims, judged.
    pub claims: &'a [Verdict],
    /// Findings that are not measurements, one per line.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub notes: &'a [String],
    /// The measurements.
    pub rows: &'a [Record],
}

impl<S: Serialize> ResultFile<'_, S> {
    /// Writes it as JSON, completely or not at all.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::format(path, e.to_string()))?;
        Ok(atomic::write_atomic(path, |out| out.write_all(text.as_bytes()))?)
    }
}
