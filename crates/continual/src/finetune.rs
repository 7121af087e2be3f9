//! Fine-tuning: each task is trained in turn, nothing is stored. The lower bound of every table.

use regrow_sparse_core::registry::MethodInfo;
use regrow_train::classifier::Headed;

use crate::registry::ANY_SCENARIO;
use crate::strategy::Strategy;

/// The registry's entry.
pub const INFO: MethodInfo = MethodInfo {
    kind: "strategy",
    name: "finetune",
    summary: "each task is trained as it comes; the lower bound",
    paper: "baseline",
    needs: ANY_SCENARIO,
    params: &[],
};

/// Plain training.
#[derive(Clone, Copy, Debug, Default)]
pub struct FineTune;

impl<M: Headed> Strategy<M> for FineTune {}
