//! Dark experience replay and DER++ (Buzzega et al., arXiv 2004.07211, eq. 4-6): the memory stores the network's logits
//! for each example on insertion, and the network is trained to reproduce them.
//!
//! ```text
//! L = CE(batch) + alpha MSE(f(x'), z') + beta CE(f(x''), y'')
//! ```
//!
//! `x'`, `x''` are two draws from memory, `z'` the logits at insertion; MSE is the mean over examples and classes. DER
//! lacks the last term.

use burn::config::Config;
use burn::tensor::{Tensor, TensorData};
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
    name: "der++",
    summary: "replay that keeps old logits and labels; DER where beta is 0",
    paper: "arXiv 2004.07211",
    needs: ANY_SCENARIO,
    params: &[
        MEMORY,
        Param {
            name: "alpha",
            meaning: "weight of old logits (the paper: 0.1 to 1)",
            default: "0.5",
            range: Range::NON_NEGATIVE,
        },
        Param {
            name: "beta",
            meaning: "weight of old labels (the paper: 0.5 to 1)",
            default: "0.5",
            range: Range::NON_NEGATIVE,
        },
    ],
};

/// Settings of [`DerPp`].
#[derive(Config, Debug, PartialEq)]
pub struct DerPpConfig {
    /// Examples kept.
    pub memory: usize,
    /// Weight of old logits. The paper takes 0.1 to 1.
    #[config(default = 0.5)]
    pub alpha: f64,
    /// Weight of old labels; 0 is DER. The paper takes 0.5 to 1.
    #[config(default = 0.5)]
    pub beta: f64,
}

impl DerPpConfig {
    /// The strategy.
    ///
    /// # Errors
    /// If the memory's capacity is zero, `alpha` or `beta` are negative or not finite.
    pub fn init(&self) -> Result<DerPp> {
        INFO.check("memory", self.memory)?;
        INFO.check("alpha", self.alpha)?;
        INFO.check("beta", self.beta)?;
        Ok(DerPp { memory: Memory::new(self.memory)?, alpha: self.alpha, beta: self.beta, logits: None })
    }

    /// From the registry's parameters.
    pub(crate) fn from_params(params: &Params) -> Result<Self> {
        let config = Self::new(params.count("memory")?);
        Ok(config.with_alpha(params.real("alpha")?).with_beta(params.real("beta")?))
    }
}

/// DER++; made by [`DerPpConfig::init`].
#[derive(Clone, Debug)]
pub struct DerPp {
    memory: Memory,
    alpha: f64,
    beta: f64,
    /// The logits of the current batch.
    logits: Option<Tensor<2>>,
}

impl<M: Headed> Strategy<M> for DerPp {
    fn begin_task(&mut self, model: M, at: &TaskContext<'_>) -> Result<M> {
        self.memory.quota(at.stream.classes())?;
        Ok(model)
    }

    fn losses(&mut self, model: &M, batch: &[Example], at: &TaskContext<'_>) -> Result<Tensor<1>> {
        let logits = model.logits(at.images(batch));
        self.logits = Some(logits.clone().inner());
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

    fn after_step(&mut self, model: M, batch: &[Example], at: &TaskContext<'_>) -> Result<M> {
        let logits: Vec<f32> = self.logits.take().map_or_else(Vec::new, |t| t.into_data().iter().collect());
        let classes = at.stream.classes();
        let row = |i: usize| logits[i * classes..(i + 1) * classes].to_vec();
        memory::offer(&mut self.memory, batch, row, BufferPolicy::Reservoir, at);
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
