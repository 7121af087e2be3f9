//! Dark experience replay and DER++ (Buzzega et al., arXiv 2004.07211, eq. 4-6): the memory keeps what
//! the network said when an example came, and the network must go on saying it.
//!
//! ```text
//! L = CE(batch) + alpha MSE(f(x'), z') + beta CE(f(x''), y'')
//! ```
//!
//! `x'`, `x''` are two draws from memory, `z'` the logits at insertion; MSE is the mean over examples and
//! classes. DER has no last term.

use burn::tensor::{Tensor, TensorData};
use regrow_sparse_core::Result;
use regrow_train::classifier::Headed;

use crate::buffer::Keeping;
use crate::distill::factor;
use crate::memory::{self, Memory};
use crate::strategy::{Stage, Strategy};
use crate::stream::Example;

/// DER++; DER with `beta` 0.
#[derive(Clone, Debug)]
pub struct DerPp {
    memory: Memory,
    alpha: f64,
    beta: f64,
    /// The logits of the batch under way.
    said: Option<Tensor<2>>,
}

impl DerPp {
    /// With a memory of `capacity` examples; the paper's `alpha` is 0.1 to 1, its `beta` 0.5 to 1.
    ///
    /// # Errors
    /// If the memory holds nothing, `alpha` or `beta` are negative or not finite.
    pub fn new(capacity: usize, alpha: f64, beta: f64) -> Result<Self> {
        let (alpha, beta) =
            (factor(alpha, "weight of old logits (alpha)")?, factor(beta, "weight of old labels (beta)")?);
        Ok(Self { memory: Memory::new(capacity)?, alpha, beta, said: None })
    }
}

impl<M: Headed> Strategy<M> for DerPp {
    fn begin(&mut self, model: M, at: &Stage<'_>) -> Result<M> {
        self.memory.quota(at.stream.classes())?;
        Ok(model)
    }

    fn losses(&mut self, model: &M, batch: &[Example], at: &Stage<'_>) -> Result<Tensor<1>> {
        let logits = model.logits(at.images(batch));
        self.said = Some(logits.clone().inner());
        let mut losses = at.cross_entropy(logits, batch);
        if self.memory.kept().is_empty() {
            return Ok(losses);
        }
        let (replayed, z) = memory::draw(&self.memory, 3, at);
        let z = Tensor::<2>::from_data(TensorData::new(z, [replayed.len(), at.stream.classes()]), at.device);
        let apart = model.logits(at.images(&replayed)) - z;
        losses = losses + apart.powi_scalar(2).mean() * self.alpha;
        if self.beta > 0.0 {
            let (replayed, _) = memory::draw(&self.memory, 4, at);
            let again = at.cross_entropy(model.logits(at.images(&replayed)), &replayed);
            losses = losses + again.mean() * self.beta;
        }
        Ok(losses)
    }

    fn stepped(&mut self, model: M, batch: &[Example], at: &Stage<'_>) -> Result<M> {
        let said: Vec<f32> = self.said.take().map_or_else(Vec::new, |t| t.into_data().iter().collect());
        let classes = at.stream.classes();
        let row = |i: usize| said[i * classes..(i + 1) * classes].to_vec();
        memory::offer(&mut self.memory, batch, row, Keeping::Reservoir, at);
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
