//! A model of blocks pruned layer by layer: any method, any pattern, sparsity shared by any of these.
//!
//! | sharing | sparsity of a layer |
//! | --- | --- |
//! | [`Sharing::Uniform`] | the same everywhere |
//! | [`Sharing::Owl`] | by its block's outliers (see [`owl`](crate::owl)) |
//! | [`Sharing::Rd`] | by what pruning it does to the outputs (see [`rd`](crate::rd)) |

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use regrow_checkpoint::{Checkpoint, Patch, Pruned};
use regrow_sparse_core::layerwise::Hidden;
use regrow_sparse_core::layerwise::{BlockModel, Goal, LayerRef, LayerSolver, Mend, Tail, Walk, prune_unseen};
use regrow_sparse_core::mask::schedule::check_sparsity;
use regrow_sparse_core::{Budget, Error, Pattern, Result};

use crate::owl::{Owl, mixed};
use crate::rd::{Look, allocate};

/// How sparsity is shared among layers.
#[derive(Clone, Copy)]
pub enum Sharing<'a> {
    /// Equally.
    Uniform,
    /// More where there are fewer outliers; of N:M patterns a mixture, block by block.
    Owl(Owl),
    /// Least output distortion.
    Rd {
        /// The amounts at which each layer is measured.
        amounts: &'a [f64],
        /// The model's outputs `[batch, tokens, outputs]` of hidden states after the last block.
        outputs: &'a dyn Fn(Tensor<3>) -> Tensor<3>,
    },
}

/// Units that weights are counted in where a budget is solved for.
const UNITS: usize = 4000;
/// Sequences that output distortions are measured on, of those there are: every token is an input.
const LOOKED_AT: usize = 8;

/// A model to prune, and how.
pub struct Layerwise<'a, M: BlockModel> {
    /// The model.
    pub model: &'a M,
    /// Its weights.
    pub source: &'a Checkpoint,
    /// The method.
    pub solver: &'a dyn LayerSolver,
    /// The fraction of all chosen weights to prune, in [0, 1).
    pub sparsity: f64,
    /// Unstructured or N:M.
    pub pattern: Pattern,
    /// How sparsity is shared.
    pub sharing: Sharing<'a>,
    /// Which layers are pruned, by the names of their tensors.
    pub admits: &'a dyn Fn(&str) -> bool,
    /// What is done to each block after it is pruned, if anything.
    pub mend: Option<&'a dyn Mend<M>>,
    /// The model's head, if it is to be pruned too: at the same sparsity, whatever the sharing.
    pub head: Option<Head<'a>>,
    /// Its embedding, if that is to be pruned too, and a method that needs no inputs, as it reads numbers
    /// of tokens: at the same sparsity. One that is the head's own matrix is left to the head where that
    /// is pruned.
    pub embedding: Option<(LayerRef, &'a dyn LayerSolver)>,
}

/// A head, and what it reads, `[tokens, d_in]`, of hidden states after the last block.
pub struct Head<'a> {
    /// The layer.
    pub layer: LayerRef,
    /// What it reads.
    pub input: &'a dyn Fn(Tensor<3>) -> Tensor<2>,
}

/// What a run is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The model is looked at, to share the sparsity.
    Looking,
    /// Blocks are pruned.
    Pruning,
}

impl<M: BlockModel> Layerwise<'_, M> {
    /// Prunes every block into `out`; what became of each layer. `hidden` are calibration inputs as the
    /// first block sees them; `watch` is told what is done of each stage, and of how much.
    ///
    /// # Errors
    /// A sparsity outside [0, 1), no layer to prune, a sharing that does not go with the pattern, and
    /// whatever loading, solving or writing runs into.
    pub fn prune(
        &self,
        places: M::Places,
        hidden: Hidden,
        out: &mut Patch,
        watch: &mut dyn FnMut(Stage, usize, usize),
    ) -> Result<Vec<Pruned>> {
        let goals = self.goals(&places, &hidden, &mut |done, all| watch(Stage::Looking, done, all))?;
        let walk = Walk {
            model: self.model,
            source: self.source,
            places,
            solver: self.solver,
            goal: &|_, layer| goals.get(&layer.tensor).copied(),
            mend: self.mend,
            tail: self.head.as_ref().map(|head| Tail {
                layer: head.layer.clone(),
                goal: Goal { sparsity: self.sparsity, pattern: self.pattern },
                input: head.input,
            }),
        };
        walk.prune(hidden, out, &mut |done| watch(Stage::Pruning, done, self.model.blocks()))?;
        self.prune_embedding(out)?;
        Ok(out.pruned().to_vec())
    }

    /// Prunes the embedding, if it is to be, as a step after all others.
    fn prune_embedding(&self, out: &mut Patch) -> Result<()> {
        let last = self.model.blocks() + 2;
        let by_head = |layer: &LayerRef| self.head.as_ref().is_some_and(|head| head.layer.tensor == layer.tensor);
        match &self.embedding {
            Some((layer, solver)) if !by_head(layer) && out.done() < last => {
                let goal = Goal { sparsity: self.sparsity, pattern: self.pattern };
                prune_unseen(self.source, layer, *solver, &goal, out)?;
                out.finish_step(last)
            }
            _ => Ok(()),
        }
    }

    /// The goal of each layer that is pruned, by the name of its tensor.
    ///
    /// # Errors
    /// As [`Layerwise::prune`].
    pub fn goals(
        &self,
        places: &M::Places,
        hidden: &Hidden,
        watch: &mut dyn FnMut(usize, usize),
    ) -> Result<BTreeMap<String, Goal>> {
        check_sparsity(self.sparsity)?;
        let layers: Vec<(usize, String)> = (0..self.model.blocks())
            .flat_map(|block| self.model.layers(block).into_iter().map(move |layer| (block, layer.tensor)))
            .filter(|(_, tensor)| (self.admits)(tensor))
            .collect();
        if layers.is_empty() {
            return Err(Error::Argument("no layer was chosen to be pruned".into()));
        }
        match self.sharing {
            Sharing::Uniform => {
                let goal = Goal { sparsity: self.sparsity, pattern: self.pattern };
                Ok(layers.into_iter().map(|(_, tensor)| (tensor, goal)).collect())
            }
            Sharing::Owl(owl) => {
                let blocks = self.by_outliers(owl, places, hidden, watch)?;
                Ok(layers.into_iter().map(|(block, tensor)| (tensor, blocks[block])).collect())
            }
            Sharing::Rd { amounts, outputs } => {
                let look =
                    Look { model: self.model, source: self.source, places, amounts, admits: self.admits, outputs };
                self.by_distortion(&look, hidden, watch)
            }
        }
    }

    /// OWL's goal of each block.
    fn by_outliers(
        &self,
        owl: Owl,
        places: &M::Places,
        hidden: &Hidden,
        watch: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Goal>> {
        let mut seen = |done| watch(done, self.model.blocks());
        let found = owl.look(self.model, self.source, places, hidden, self.admits, &mut seen)?;
        let sparsities = owl.sparsities(&found, self.sparsity)?;
        let patterns = match self.pattern {
            Pattern::NofM { m, .. } => mixed(&sparsities, m),
            pattern => vec![pattern; sparsities.len()],
        };
        Ok(sparsities.into_iter().zip(patterns).map(|(sparsity, pattern)| Goal { sparsity, pattern }).collect())
    }

    /// RD's goal of each layer.
    fn by_distortion(
        &self,
        look: &Look<'_, M>,
        hidden: &Hidden,
        watch: &mut dyn FnMut(usize, usize),
    ) -> Result<BTreeMap<String, Goal>> {
        if self.pattern != Pattern::Unstructured {
            let pattern = self.pattern;
            return Err(Error::Argument(format!("RD shares sparsity among layers, {pattern} leaves it no choice")));
        }
        let curves = look.distortions(&hidden.first(LOOKED_AT)?, watch)?;
        let Budget::Explicit(shares) = allocate(&curves, look.amounts, self.sparsity, UNITS)? else {
            return Err(Error::Argument("RD gave no share for each layer".into()));
        };
        let goal = |(tensor, sparsity)| (tensor, Goal { sparsity, pattern: Pattern::Unstructured });
        Ok(shares.into_iter().map(goal).collect())
    }
}
