//! Joint training: each task is trained together with all tasks before it. The upper bound of every table; it must keep
//! all data.
//!
//! Training continues from the network of the previous task; an epoch is a pass over all examples so far.

use regrow_sparse_core::registry::MethodInfo;
use regrow_train::classifier::Headed;

use crate::registry::ANY_SCENARIO;
use crate::strategy::{Strategy, TaskContext};
use crate::stream::Example;

/// The registry's entry.
pub const INFO: MethodInfo = MethodInfo {
    kind: "strategy",
    name: "joint",
    summary: "each task is trained together with all before it; the upper bound",
    paper: "baseline",
    needs: ANY_SCENARIO,
    params: &[],
};

/// All examples of all tasks so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Joint;

impl<M: Headed> Strategy<M> for Joint {
    fn examples(&self, at: &TaskContext<'_>) -> Vec<Example> {
        (0..=at.task).flat_map(|task| at.stream.train(task)).collect()
    }
}
