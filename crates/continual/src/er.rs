//! Experience replay (Chaudhry et al., arXiv 1902.10486): every batch is joined by as many examples
//! from memory, and enters the memory after the step.
//!
//! ```text
//! L = CE over the batch and the replayed examples together
//! ```

use burn::tensor::Tensor;
use regrow_sparse_core::Result;
use regrow_train::classifier::Headed;

use crate::buffer::Keeping;
use crate::memory::{self, Memory};
use crate::strategy::{Stage, Strategy};
use crate::stream::Example;

/// Experience replay.
#[derive(Clone, Debug)]
pub struct Er {
    memory: Memory,
    keeping: Keeping,
}

impl Er {
    /// With a memory of `capacity` examples, a reservoir.
    ///
    /// # Errors
    /// If it holds nothing.
    pub fn new(capacity: usize) -> Result<Self> {
        Ok(Self { memory: Memory::new(capacity)?, keeping: Keeping::Reservoir })
    }

    /// With another choice of what stays.
    pub fn with_keeping(mut self, keeping: Keeping) -> Self {
        self.keeping = keeping;
        self
    }
}

impl<M: Headed> Strategy<M> for Er {
    fn begin(&mut self, model: M, at: &Stage<'_>) -> Result<M> {
        self.memory.quota(at.stream.classes())?;
        Ok(model)
    }

    fn losses(&mut self, model: &M, batch: &[Example], at: &Stage<'_>) -> Result<Tensor<1>> {
        let (replayed, _) = memory::draw(&self.memory, 3, at);
        let both = [batch, &replayed].concat();
        Ok(at.cross_entropy(model.logits(at.images(&both)), &both))
    }

    fn stepped(&mut self, model: M, batch: &[Example], at: &Stage<'_>) -> Result<M> {
        memory::offer(&mut self.memory, batch, |_| Vec::new(), self.keeping, at);
        Ok(model)
    }

    fn state(&self) -> Vec<Vec<f32>> {
        memory::state(&self.memory)
    }

    fn restore(&mut self, state: Vec<Vec<f32>>, _model: &M, _at: &Stage<'_>) -> Result<()> {
        self.memory = memory::restored(self.memory.capacity(), &state)?;
        Ok(())
    }
}
