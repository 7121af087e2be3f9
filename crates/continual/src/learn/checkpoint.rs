//! States between two tasks, from which a run resumes.

use std::path::{Path, PathBuf};

use burn::store::ModuleRecord;
use regrow_checkpoint::atomic;
use regrow_sparse_core::state::State;
use regrow_sparse_core::{Error, Result};
use regrow_train::classifier::Headed;
use serde::{Deserialize, Serialize};

use super::{Learned, Protocol, Run};
use crate::metrics::AccuracyMatrix;
use crate::strategy::Strategy;

/// A state between two tasks: a folder `task-N`; a folder with that name is complete.
pub(super) struct TaskCheckpoint(PathBuf);

/// The folder of states within a task.
pub(super) const STEPS: &str = "steps";
const MODEL: &str = "model.bpk";
const STRATEGY: &str = "strategy.safetensors";
const RUN: &str = "run.json";

#[derive(Serialize, Deserialize)]
struct Written {
    protocol: Protocol,
    matrix: AccuracyMatrix,
    before: Vec<f64>,
}

impl TaskCheckpoint {
    /// The state with the most finished tasks in `dir`.
    pub(super) fn newest(dir: &Path, protocol: &Protocol) -> Result<Option<Self>> {
        let Some((_, path)) = Self::all(dir)?.into_iter().max() else { return Ok(None) };
        match Self(path.clone()).written()?.protocol == *protocol {
            true => Ok(Some(Self(path))),
            false => Err(Error::format(&path, "belongs to a run with other settings; remove the folder to start anew")),
        }
    }

    fn all(dir: &Path) -> Result<Vec<(usize, PathBuf)>> {
        if !dir.exists() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))? {
            let entry = entry.map_err(|e| Error::io(dir, e))?;
            let number = entry.file_name().to_str().and_then(|n| n.strip_prefix("task-")?.parse().ok());
            found.extend(number.map(|n| (n, entry.path())));
        }
        Ok(found)
    }

    fn written(&self) -> Result<Written> {
        let path = self.0.join(RUN);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io(&path, e))?;
        serde_json::from_str(&text).map_err(|e| Error::format(&path, e.to_string()))
    }

    /// The network, the accuracies so far and those before the first task; the strategy's state is restored.
    pub(super) fn load<M: Headed>(
        &self,
        fresh: M,
        strategy: &mut dyn Strategy<M>,
        run: &Run<'_>,
    ) -> Result<(M, AccuracyMatrix, Vec<f64>)> {
        let Written { matrix, before, .. } = self.written()?;
        let path = self.0.join(MODEL);
        let record = ModuleRecord::load(&path).map_err(|e| Error::format(&path, e.to_string()))?;
        let model = fresh.valid().try_load_record(record).map_err(|e| Error::format(&path, e.to_string()))?;
        let path = self.0.join(STRATEGY);
        let state = if path.exists() { State::load(&path)? } else { State::default() };
        strategy.restore(state, &model, &run.context(matrix.tasks().saturating_sub(1), 0, 0))?;
        Ok((model, matrix, before))
    }

    /// Writes the state after a task, and removes the one before.
    pub(super) fn write<M: Headed>(
        dir: &Path,
        protocol: &Protocol,
        at: &Learned<M>,
        strategy: &dyn Strategy<M>,
    ) -> Result<()> {
        let task = at.matrix.tasks();
        let before = Self::all(dir)?;
        let beside = dir.join(format!("partial-task-{task}"));
        let io = |e| Error::io(&beside, e);
        if beside.exists() {
            std::fs::remove_dir_all(&beside).map_err(io)?;
        }
        std::fs::create_dir_all(&beside).map_err(io)?;
        let path = beside.join(MODEL);
        at.model.valid().into_record().save(&path).map_err(|e| Error::format(&path, e.to_string()))?;
        let state = strategy.state();
        if !state.is_empty() {
            state.save(&beside.join(STRATEGY))?;
        }
        let written = Written { protocol: protocol.clone(), matrix: at.matrix.clone(), before: at.before.clone() };
        let text = serde_json::to_string(&written).map_err(|e| Error::format(&beside, e.to_string()))?;
        atomic::write_atomic(beside.join(RUN), |out| out.write_all(text.as_bytes()))?;
        std::fs::rename(&beside, dir.join(format!("task-{task}"))).map_err(io)?;
        for (_, old) in before {
            let gone = old.with_file_name("partial-old");
            std::fs::rename(&old, &gone).map_err(|e| Error::io(&old, e))?;
            std::fs::remove_dir_all(&gone).map_err(|e| Error::io(&gone, e))?;
        }
        Ok(())
    }
}

/// Removes all states.
pub(super) fn remove(dir: &Path) -> Result<()> {
    match dir.exists() {
        true => std::fs::remove_dir_all(dir).map_err(|e| Error::io(dir, e)),
        false => Ok(()),
    }
}
