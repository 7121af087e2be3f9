//! Averaged gradient episodic memory (Chaudhry et al., arXiv 1812.00420, eq. 11): a step must not raise
//! the loss on examples of earlier tasks.
//!
//! ```text
//! g' = g                                    if g . g_ref >= 0
//! g' = g - (g . g_ref / g_ref . g_ref) g_ref          else
//! ```
//!
//! `g_ref` is the gradient on a draw from memory. The memory is a uniform sample of all earlier tasks.

use burn::config::Config;
use burn::optim::GradientsParams;
use regrow_sparse_core::Result;
use regrow_sparse_core::registry::{MethodInfo, Params};
use regrow_sparse_core::state::State;
use regrow_train::classifier::Headed;

use crate::buffer::BufferPolicy;
use crate::memory::{self, Memory};
use crate::params::ParameterVector;
use crate::registry::{ANY_SCENARIO, MEMORY};
use crate::strategy::{Strategy, TaskContext};

/// The registry's entry.
pub const INFO: MethodInfo = MethodInfo {
    kind: "strategy",
    name: "agem",
    summary: "a step must not raise the mean loss on examples of earlier tasks",
    paper: "arXiv 1812.00420",
    needs: ANY_SCENARIO,
    params: &[MEMORY],
};

/// Settings of [`AGem`].
#[derive(Config, Debug, PartialEq)]
pub struct AGemConfig {
    /// Examples kept.
    pub memory: usize,
}

impl AGemConfig {
    /// The strategy.
    ///
    /// # Errors
    /// If the memory holds nothing.
    pub fn init(&self) -> Result<AGem> {
        INFO.check("memory", self.memory)?;
        Ok(AGem { memory: Memory::new(self.memory)? })
    }

    /// From the registry's parameters.
    pub(crate) fn from_params(params: &Params) -> Result<Self> {
        Ok(Self::new(params.count("memory")?))
    }
}

/// Averaged gradient episodic memory; made by [`AGemConfig::init`].
#[derive(Clone, Debug)]
pub struct AGem {
    memory: Memory,
}

/// `g` without its component against `reference`.
pub fn project(g: &ParameterVector, reference: &ParameterVector) -> ParameterVector {
    let (along, length) = (g.dot(reference), reference.dot(reference));
    match along < 0.0 && length > 0.0 {
        true => g.plus(-along / length, reference),
        false => g.clone(),
    }
}

impl<M: Headed> Strategy<M> for AGem {
    fn begin_task(&mut self, model: M, at: &TaskContext<'_>) -> Result<M> {
        self.memory.quota(at.stream.classes())?;
        Ok(model)
    }

    fn gradients(&mut self, model: &M, gradients: GradientsParams, at: &TaskContext<'_>) -> Result<GradientsParams> {
        if self.memory.kept().is_empty() {
            return Ok(gradients);
        }
        let (drawn, _) = memory::draw(&self.memory, 3, at);
        let loss = at.cross_entropy(model.logits(at.images(&drawn)), &drawn).mean();
        let reference = GradientsParams::from_grads(loss.backward(), model);
        let g = project(&ParameterVector::gradients(model, &gradients), &ParameterVector::gradients(model, &reference));
        Ok(g.into_gradients(model, &gradients))
    }

    fn end_task(&mut self, model: M, at: &TaskContext<'_>) -> Result<M> {
        memory::offer_task(&mut self.memory, BufferPolicy::Reservoir, at);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::net;

    #[test]
    fn projected_by_hand_and_at_right_angles() {
        let model = net(2, 1, 1, 1);
        let of = |numbers: [f32; 5]| {
            let [a, b, c, d, e] = numbers;
            ParameterVector::from_host(vec![vec![a, b], vec![c], vec![d], vec![e]], &model).unwrap()
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
