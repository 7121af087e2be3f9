//! `--sparse`: which layers of a model run sparse, and how long the model takes dense and sparse.

use std::io::Write;
use std::time::{Duration, Instant};

use regrow_inference::LayerTiming;

use crate::error::Result;
use crate::text;

/// Time spent dense and sparse.
#[derive(Default)]
pub struct Both {
    /// Dense.
    pub dense: Duration,
    /// Sparse.
    pub sparse: Duration,
}

impl Both {
    /// The sparse time over the dense one.
    pub fn ratio(&self) -> f64 {
        self.sparse.as_secs_f64() / self.dense.as_secs_f64().max(1e-9)
    }
}

/// Adds the time of `work` to `sum`.
pub fn timed<T>(sum: &mut Duration, work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let done = work();
    *sum += start.elapsed();
    done
}

/// A line for each kind of layer, and how many are sparse.
pub fn report(verdicts: &[LayerTiming], out: &mut dyn Write) -> Result<()> {
    let kind =
        |v: &LayerTiming| (v.shape.clone(), (100.0 * v.sparsity).round() as i64, v.batch, v.chosen, v.untried.clone());
    let mut kinds: Vec<(&LayerTiming, usize)> = Vec::new();
    for verdict in verdicts {
        match kinds.iter_mut().find(|(first, _)| kind(first) == kind(verdict)) {
            Some((_, count)) => *count += 1,
            None => kinds.push((verdict, 1)),
        }
    }
    let row = |(verdict, count): &(&LayerTiming, usize)| {
        let zeros = format!("{:.0} %", 100.0 * verdict.sparsity);
        let time = verdict.dense.map_or_else(String::new, |t| format!("{:.3}", 1e3 * t.as_secs_f64()));
        vec![
            verdict.to_string(),
            text::shape(&verdict.shape),
            count.to_string(),
            zeros,
            verdict.batch.to_string(),
            time,
        ]
    };
    let header = ["now", "shape", "layers", "zeros", "inputs", "dense ms"];
    writeln!(out, "{}", text::table(&header, 2, kinds.iter().map(row).collect()))?;
    let sparse = verdicts.iter().filter(|v| v.chosen.is_some()).count();
    writeln!(out, "{sparse} of {} layers are sparse now", verdicts.len())?;
    Ok(())
}
