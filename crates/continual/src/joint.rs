//! Joint training: each task is trained together with all tasks before it. The upper bound of every
//! table; it needs all data for ever.
//!
//! Training goes on from the network of the task before; an epoch is a pass over all examples so far.

use regrow_train::classifier::Headed;

use crate::strategy::{Stage, Strategy};
use crate::stream::Example;

/// All examples of all tasks so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Joint;

impl<M: Headed> Strategy<M> for Joint {
    fn examples(&self, at: &Stage<'_>) -> Vec<Example> {
        (0..=at.task).flat_map(|task| at.stream.train(task)).collect()
    }
}
