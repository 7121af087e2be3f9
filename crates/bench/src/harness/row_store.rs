//! The finished cells of a table, stored on disk while it runs, so that it can be resumed.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;
use regrow_checkpoint::atomic;
use regrow_device::pool::DevicePool;
use regrow_sparse_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::harness::record::Record;

/// An unfinished table: its plan, which determines every number, and the rows so far.
pub struct RowStore {
    path: PathBuf,
    /// The rows so far.
    pub rows: Vec<Record>,
}

#[derive(Serialize)]
struct Written<'a, P> {
    plan: &'a P,
    rows: &'a [Record],
}

/// What a run of some seeds left: a table, or cells of one.
#[derive(Deserialize)]
struct Part {
    #[serde(alias = "settings")]
    plan: Value,
    rows: Vec<Record>,
}

/// A plan as it is read back: through JSON text, so both sides are rounded alike.
fn as_read<P: Serialize>(plan: &P, path: &Path) -> Result<Value> {
    let read = |text: String| serde_json::from_str(&text);
    serde_json::to_string(plan).and_then(read).map_err(|e| Error::format(path, e.to_string()))
}

/// The seeds of a plan, and the rest of it.
fn split_seeds(mut plan: Value) -> (Value, Value) {
    let seeds = plan.as_object_mut().and_then(|plan| plan.remove("seeds")).unwrap_or_default();
    (seeds, plan)
}

/// The folders `out/part-*`, in the order of their names.
fn parts(out: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(out).into_iter().flatten().flatten();
    let named = found.filter(|entry| entry.file_name().to_string_lossy().starts_with("part-"));
    let mut parts: Vec<PathBuf> = named.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    parts.sort();
    parts
}

impl RowStore {
    /// An empty table `name` in the folder `out`, which is created; with `resume`, also the rows left there by an
    /// interrupted run, and those of runs of some of its seeds in `out/part-*`.
    ///
    /// # Errors
    /// A folder that cannot be made; if such a run had another plan, or its file cannot be read.
    pub fn open<P: Serialize>(out: &Path, name: &str, plan: &P, resume: bool) -> Result<Self> {
        std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
        let mut store = Self::left(out, name, plan, resume)?;
        if resume {
            for part in parts(out) {
                store.take(&part, name, plan)?;
            }
        }
        Ok(store)
    }

    /// What an interrupted run left.
    fn left<P: Serialize>(out: &Path, name: &str, plan: &P, resume: bool) -> Result<Self> {
        let path = out.join(format!("{name}.cells.json"));
        if !resume || !path.exists() {
            return Ok(Self { path, rows: Vec::new() });
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let found: Part = serde_json::from_str(&text).map_err(|e| Error::format(&path, e.to_string()))?;
        match found.plan == as_read(plan, &path)? {
            true => Ok(Self { path, rows: found.rows }),
            false => {
                Err(Error::format(&path, "belongs to a table with other settings; run without --resume to start anew"))
            }
        }
    }

    /// Takes the rows that a run of some seeds left in `folder`, finished or not.
    fn take<P: Serialize>(&mut self, folder: &Path, name: &str, plan: &P) -> Result<()> {
        let files = [format!("{name}.json"), format!("{name}.cells.json")].map(|file| folder.join(file));
        let Some(path) = files.into_iter().find(|path| path.exists()) else { return Ok(()) };
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        let bad = |e: serde_json::Error| Error::format(&path, e.to_string());
        let Part { plan: of_part, rows } = serde_json::from_str(&text).map_err(bad)?;
        let (seeds, others) = split_seeds(as_read(plan, &path)?);
        if split_seeds(of_part).1 != others {
            return Err(Error::format(&path, "belongs to a table with other settings; move its folder away"));
        }
        let [first, count] = serde_json::from_value::<[u64; 2]>(seeds).map_err(bad)?;
        let cell = |r: &Record| (r.seed, r.method.clone(), r.sparsity.to_bits(), r.pattern.clone(), r.m);
        let there: Vec<_> = self.rows.iter().map(cell).collect();
        let wanted = |r: &Record| (first..first + count).contains(&r.seed) && !there.contains(&cell(r));
        self.rows.extend(rows.into_iter().filter(wanted));
        Ok(())
    }

    /// The rows of `work` for the pieces `0..count`, distributed over `pool`, in the pieces' order. Rows of each piece
    /// are stored as soon as they are finished.
    ///
    /// # Errors
    /// Errors of `work`; as [`RowStore::add`].
    pub fn fill<P: Serialize + Sync>(
        &mut self,
        plan: &P,
        pool: &DevicePool<'_>,
        count: usize,
        work: impl Fn(&Device, usize) -> Result<Vec<Record>> + Sync,
    ) -> Result<()> {
        let before = self.rows.len();
        let kept = Mutex::new(&mut *self);
        let made = pool.run(count, |device, piece| {
            let rows = work(device, piece)?;
            kept.lock().unwrap_or_else(PoisonError::into_inner).add(plan, rows.clone())?;
            Ok::<_, Error>(rows)
        })?;
        // So far in the order in which they came.
        self.rows.truncate(before);
        self.rows.extend(made.into_iter().flatten());
        Ok(())
    }

    /// The same, where a piece is a seed: all those of `first..first + count` that have no row.
    ///
    /// # Errors
    /// As [`RowStore::fill`].
    pub fn fill_seeds<P: Serialize + Sync>(
        &mut self,
        plan: &P,
        pool: &DevicePool<'_>,
        (first, count): (u64, u64),
        work: impl Fn(&Device, u64) -> Result<Vec<Record>> + Sync,
    ) -> Result<()> {
        let open = |seed: &u64| !self.rows.iter().any(|row| row.seed == *seed);
        let open: Vec<u64> = (first..first + count).filter(open).collect();
        self.fill(plan, pool, open.len(), |device, piece| work(device, open[piece]))
    }

    /// Adds `rows`, also on disk.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn add<P: Serialize>(&mut self, plan: &P, rows: impl IntoIterator<Item = Record>) -> Result<()> {
        self.rows.extend(rows);
        let written = Written { plan, rows: &self.rows };
        let text = serde_json::to_string(&written).map_err(|e| Error::format(&self.path, e.to_string()))?;
        Ok(atomic::write_atomic(&self.path, |out| out.write_all(text.as_bytes()))?)
    }

    /// The rows of the finished table; the file is removed.
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
