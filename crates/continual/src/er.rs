//! Experience replay (Chaudhry et al., arXiv 1902.10486): every batch is extended by as many examples from memory, and
//! is offered to the memory after the step.
//!
//! ```text
//! L = CE over the batch and the replayed examples together
//! ```

use burn::config::Config;
use burn::tensor::Tensor;
use regrow_sparse_core::Result;
use regrow_sparse_core::registry::{MethodInfo, Param, Params, Range};
use regrow_sparse_core::state::State;
use regrow_train::classifier::Headed;

use crate::buffer::BufferPolicy;
use crate::memory::{self, Memory};
use crate::registry::{ANY_SCENARIO, MEMORY};
use crate::strategy::{Strategy, TaskContext};
use crate::stream::Example;

/// The registry's entry.
pub const INFO: MethodInfo = MethodInfo {
    kind: "strategy",
    name: "er",
    summary: "every batch is joined by as many examples from memory",
    paper: "arXiv 1902.10486",
    needs: ANY_SCENARIO,
    params: &[
        MEMORY,
        Param {
            name: "policy",
            meaning: "which examples stay when the memory is full",
            default: "reservoir",
            range: Range::Choice(&BufferPolicy::NAMES),
        },
    ],
};

/// Settings of [`Er`].
#[derive(Config, Debug, PartialEq)]
pub struct ErConfig {
    /// Examples kept.
    pub memory: usize,
    /// Which examples stay when the memory is full.
    #[config(default = "BufferPolicy::Reservoir")]
    pub policy: BufferPolicy,
}

impl ErConfig {
    /// The strategy.
    ///
    /// # Errors
    /// If the memory's capacity is zero.
    pub fn init(&self) -> Result<Er> {
        INFO.check("memory", self.memory)?;
        Ok(Er { memory: Memory::new(self.memory)?, policy: self.policy })
    }

    /// From the registry's parameters.
    pub(crate) fn from_params(params: &Params) -> Result<Self> {
        Ok(Self::new(params.count("memory")?).with_policy(BufferPolicy::parse(&params.text("policy")?)?))
    }
}

/// Experience replay; made by [`ErConfig::init`].
#[derive(Clone, Debug)]
pub struct Er {
    memory: Memory,
    policy: BufferPolicy,
}

impl<M: Headed> Strategy<M> for Er {
    fn begin_task(&mut self, model: M, at: &TaskContext<'_>) -> Result<M> {
        self.memory.quota(at.stream.classes())?;
        Ok(model)
    }

    fn losses(&mut self, model: &M, batch: &[Example], at: &TaskContext<'_>) -> Result<Tensor<1>> {
        let (replayed, _) = memory::draw(&self.memory, 3, at);
        let both = [batch, &replayed].concat();
        Ok(at.cross_entropy(model.logits(at.images(&both)), &both))
    }

    fn after_step(&mut self, model: M, batch: &[Example], at: &TaskContext<'_>) -> Result<M> {
        memory::offer(&mut self.memory, batch, |_| Vec::new(), self.policy, at);
        Ok(model)
    }

    fn state(&self) -> State {
        memory::state(&self.memory)
    }

    fn restore(&mut self, state: State, _model: &M, _at: &TaskContext<'_>) -> Result<()> {
        self.memory = memory::restored(self.memory.capacity(), state)?;
        Ok(())
    }
}
