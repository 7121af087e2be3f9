//! The cells of a table done so far, kept on disk while it runs, so that it can be resumed.

use std::path::{Path, PathBuf};

use regrow_sparse_core::{Error, Result, atomic};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::record::Record;

/// A table under way: its plan, which decides every number, and the rows there are.
pub struct Cells {
    path: PathBuf,
    /// The rows so far.
    pub rows: Vec<Record>,
}

#[derive(Serialize)]
struct Written<'a, P> {
    plan: &'a P,
    rows: &'a [Record],
}

#[derive(Deserialize)]
struct Found<P> {
    plan: P,
    rows: Vec<Record>,
}

impl Cells {
    /// An empty table `name` in the folder `out`; with `resume`, what an interrupted run left there.
    ///
    /// # Errors
    /// If that run had another plan, or its file cannot be read.
    pub fn open<P: DeserializeOwned + PartialEq>(out: &Path, name: &str, plan: &P, resume: bool) -> Result<Self> {
        let path = out.join(format!("{name}.cells.json"));
        if !resume || !path.exists() {
            return Ok(Self { path, rows: Vec::new() });
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let found: Found<P> = serde_json::from_str(&text).map_err(|e| Error::format(&path, e.to_string()))?;
        match found.plan == *plan {
            true => Ok(Self { path, rows: found.rows }),
            false => {
                Err(Error::format(&path, "belongs to a table with other settings; run without --resume to start anew"))
            }
        }
    }

    /// Keeps `rows` as well, on disk.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn add<P: Serialize>(&mut self, plan: &P, rows: impl IntoIterator<Item = Record>) -> Result<()> {
        self.rows.extend(rows);
        let written = Written { plan, rows: &self.rows };
        let text = serde_json::to_string(&written).map_err(|e| Error::format(&self.path, e.to_string()))?;
        atomic::write_atomic(&self.path, |out| out.write_all(text.as_bytes()))
    }

    /// The rows of the finished table; the file goes.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn finish(self) -> Result<Vec<Record>> {
        if self.path.exists() {
            std::fs::remove_file(&self.path).map_err(|e| Error::io(&self.path, e))?;
        }
        Ok(self.rows)
    }
}
