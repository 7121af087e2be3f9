//! Averaged gradient episodic memory (Chaudhry et al., arXiv 1812.00420, eq. 11): a step must not raise
//! the loss on examples of earlier tasks.
//!
//! ```text
//! g' = g                                    if g . g_ref >= 0
//! g' = g - (g . g_ref / g_ref . g_ref) g_ref          else
//! ```
//!
//! `g_ref` is the gradient on a draw from memory. The memory is a uniform sample of all earlier tasks.

use burn::optim::GradientsParams;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::Result;
use regrow_sparse_core::classifier::Headed;

use crate::buffer::Keeping;
use crate::memory::{self, Memory};
use crate::params::Vector;
use crate::strategy::{Stage, Strategy};

/// Averaged gradient episodic memory.
#[derive(Clone, Debug)]
pub struct AGem {
    memory: Memory,
}

impl AGem {
    /// With a memory of `capacity` examples.
    ///
    /// # Errors
    /// If it holds nothing.
    pub fn new(capacity: usize) -> Result<Self> {
        Ok(Self { memory: Memory::new(capacity)? })
    }
}

/// `g` without what goes against `reference`.
pub fn project(g: &Vector, reference: &Vector) -> Vector {
    let (along, length) = (g.dot(reference), reference.dot(reference));
    match along < 0.0 && length > 0.0 {
        true => g.plus(-along / length, reference),
        false => g.clone(),
    }
}

impl<M: Headed> Strategy<M> for AGem {
    fn begin(&mut self, model: M, at: &Stage<'_>) -> Result<M> {
        self.memory.quota(at.stream.classes())?;
        Ok(model)
    }

    fn gradients(&mut self, model: &M, gradients: GradientsParams, at: &Stage<'_>) -> Result<GradientsParams> {
        if self.memory.kept().is_empty() {
            return Ok(gradients);
        }
        let (drawn, _) = memory::draw(&self.memory, 3, at);
        let loss = at.cross_entropy(model.logits(at.images(&drawn)), &drawn).mean();
        let reference = GradientsParams::from_grads(loss.backward(), model);
        let g = project(&Vector::gradients(model, &gradients), &Vector::gradients(model, &reference));
        Ok(g.into_gradients(model, &gradients))
    }

    fn end(&mut self, model: M, at: &Stage<'_>) -> Result<M> {
        let mut task = at.stream.train(at.task);
        task.shuffle(&mut ChaCha8Rng::seed_from_u64(at.seed(5)));
        memory::offer(&mut self.memory, &task, |_| Vec::new(), Keeping::Reservoir, at);
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
