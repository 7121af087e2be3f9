//! A custom strategy, compared with all the others in the table.
//!
//! `cargo run --release -p regrow-examples --example my_strategy -- --strategy "mine,fine-tune,EWC" --seeds 3`

use clap::Parser;
use regrow_bench::tables::continual::{Args, Method, run};
use regrow_continual::params::ParameterVector;
use regrow_continual::{Example, Strategy, TaskContext};
use regrow_sparse_core::Result;
use regrow_zoo::Net;

/// After every step all weights go back a little of the way to where the task found them:
/// `theta <- theta + pull (theta* - theta)`.
struct Tethered {
    pull: f64,
    start: Option<ParameterVector>,
}

impl Strategy<Net> for Tethered {
    fn begin_task(&mut self, model: Net, at: &TaskContext<'_>) -> Result<Net> {
        self.start = (at.task > 0).then(|| ParameterVector::of(&model));
        Ok(model)
    }

    fn after_step(&mut self, model: Net, _batch: &[Example], _at: &TaskContext<'_>) -> Result<Net> {
        let Some(start) = &self.start else { return Ok(model) };
        let now = ParameterVector::of(&model);
        Ok(now.plus(self.pull, &start.minus(&now)).put(model))
    }
}

fn main() -> Result<()> {
    let mine = Method::new("mine", |_| Ok(Tethered { pull: 0.05, start: None }));
    run(&Args::parse(), &[mine]) // the one line
}
