//! Fine-tuning: each task is trained as it comes, nothing is kept. The lower bound of every table.

use regrow_train::classifier::Headed;

use crate::strategy::Strategy;

/// Nothing but training.
#[derive(Clone, Copy, Debug, Default)]
pub struct FineTune;

impl<M: Headed> Strategy<M> for FineTune {}
