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
use regrow_sparse_core::Result;
use regrow_train::classifier::Headed;

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
        memory::offer_task(&mut self.memory, Keeping::Reservoir, at);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::net;

    #[test]
    fn projected_by_hand_and_at_right_angles() {
        let model = net(2, 1, 1, 1);
        let of = |numbers: [f32; 5]| {
            let [a, b, c, d, e] = numbers;
            Vector::from_host(vec![vec![a, b], vec![c], vec![d], vec![e]], &model).unwrap()
        };
        let (g, against) = (of([1.0, -1.0, 0.0, 0.0, 0.0]), of([0.0, 1.0, 0.0, 0.0, 0.0]));
        assert_eq!(project(&g, &against).to_host(), of([1.0, 0.0, 0.0, 0.0, 0.0]).to_host());
        let (g, against) = (of([0.3, -2.0, 0.1, 0.7, -1.0]), of([0.5, 1.0, 0.4, 0.2, 0.9]));
        assert!(project(&g, &against).dot(&against).abs() < 1e-6);
        let along = of([0.5, -1.0, 0.4, 0.2, -0.9]);
        assert_eq!(project(&g, &along).to_host(), g.to_host(), "nothing is in the way");
        assert_eq!(project(&g, &g.zeros()).to_host(), g.to_host());
    }
}
