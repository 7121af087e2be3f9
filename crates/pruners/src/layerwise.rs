//! Prunes a model of blocks layer by layer: any method, any pattern, sparsity distributed by any budget.
//!
//! Budgets that use scores (global, LAMP) see `|w|`, read one layer at a time; OWL and RD gather what they need in a
//! pass over the calibration inputs before anything is pruned.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use regrow_checkpoint::{Checkpoint, Patch, Pruned};
use regrow_sparse_core::layerwise::HiddenStates;
use regrow_sparse_core::layerwise::{
    BlockModel, BlockReconstruction, HeadTarget, LayerRef, LayerSolver, LayerTarget, Walk, prune_unseen,
    read_weight as read,
};
use regrow_sparse_core::mask::budget::{Allocate, Layer};
use regrow_sparse_core::mask::schedule::check_sparsity;
use regrow_sparse_core::model::evidence::{Evidence, Needs};
use regrow_sparse_core::model::score::magnitudes;
use regrow_sparse_core::{Error, Pattern, Result};

use crate::owl::{Owl, mixed};
use crate::rd::Look;

/// The number of sequences that output distortions are measured on: every token is an input.
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
    /// How sparsity is distributed. With N:M patterns, a budget that differs only between blocks, such as OWL, gives a
    /// mixture.
    pub budget: &'a dyn Allocate,
    /// The model's outputs `[batch, tokens, outputs]` from hidden states after the last block, for a budget that needs
    /// output distortions.
    pub outputs: Option<&'a dyn Fn(Tensor<3>) -> Tensor<3>>,
    /// Which layers are pruned, by the names of their tensors.
    pub admits: &'a dyn Fn(&str) -> bool,
    /// The reconstruction of each block after pruning, if any.
    pub mend: Option<&'a dyn BlockReconstruction<M>>,
    /// The model's head, if it is pruned too: at the same sparsity, for any budget.
    pub head: Option<Head<'a>>,
    /// Its embedding, if it is pruned too, and a method that needs no inputs, as it reads token numbers: at the same
    /// sparsity. An embedding that shares the head's matrix is pruned as the head if the head is pruned.
    pub embedding: Option<(LayerRef, &'a dyn LayerSolver)>,
}

/// A head, and its inputs, `[tokens, d_in]`, computed from hidden states after the last block.
pub struct Head<'a> {
    /// The layer.
    pub layer: LayerRef,
    /// Its inputs.
    pub input: &'a dyn Fn(Tensor<3>) -> Tensor<2>,
}

/// The stage of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The model is measured, to distribute the sparsity.
    Looking,
    /// Blocks are being pruned.
    Pruning,
}

impl<M: BlockModel> Layerwise<'_, M> {
    /// Prunes every block into `out`; returns a report for each layer. `hidden` are calibration inputs as the first
    /// block sees them; `watch` is called with the stage, its progress and its total.
    ///
    /// # Errors
    /// A sparsity outside [0, 1), no layer to prune, a budget that does not fit the pattern, and errors of loading,
    /// solving or writing.
    pub fn prune(
        &self,
        context: M::SequenceContext,
        hidden: HiddenStates,
        out: &mut Patch,
        watch: &mut dyn FnMut(Stage, usize, usize),
    ) -> Result<Vec<Pruned>> {
        let goals = self.goals(&context, &hidden, &mut |done, all| watch(Stage::Looking, done, all))?;
        let walk = Walk {
            model: self.model,
            source: self.source,
            context,
            solver: self.solver,
            goal: &|_, layer| goals.get(&layer.tensor).copied(),
            mend: self.mend,
            tail: self.head.as_ref().map(|head| HeadTarget {
                layer: head.layer.clone(),
                goal: LayerTarget { sparsity: self.sparsity, pattern: self.pattern },
                input: head.input,
            }),
        };
        walk.prune(hidden, out, &mut |done| watch(Stage::Pruning, done, self.model.blocks()))?;
        self.prune_embedding(out)?;
        Ok(out.pruned().to_vec())
    }

    /// Prunes the embedding, if requested, as a step after all others.
    fn prune_embedding(&self, out: &mut Patch) -> Result<()> {
        let last = self.model.blocks() + 2;
        let by_head = |layer: &LayerRef| self.head.as_ref().is_some_and(|head| head.layer.tensor == layer.tensor);
        match &self.embedding {
            Some((layer, solver)) if !by_head(layer) && out.done() < last => {
                let goal = LayerTarget { sparsity: self.sparsity, pattern: self.pattern };
                prune_unseen(self.source, layer, *solver, &goal, out)?;
                Ok(out.finish_step(last)?)
            }
            _ => Ok(()),
        }
    }

    /// The target of each pruned layer, by the name of its tensor.
    ///
    /// # Errors
    /// As [`Layerwise::prune`].
    pub fn goals(
        &self,
        context: &M::SequenceContext,
        hidden: &HiddenStates,
        watch: &mut dyn FnMut(usize, usize),
    ) -> Result<BTreeMap<String, LayerTarget>> {
        check_sparsity(self.sparsity)?;
        let layers: Vec<(usize, LayerRef)> = (0..self.model.blocks())
            .flat_map(|block| self.model.layers(block).into_iter().map(move |layer| (block, layer)))
            .filter(|(_, layer)| (self.admits)(&layer.tensor))
            .collect();
        if layers.is_empty() {
            return Err(Error::Argument("no layer was chosen to be pruned".into()));
        }
        let evidence = self.evidence(&layers, context, hidden, watch)?;
        let sparsities = self.sparsities(&layers, &evidence)?;
        let patterns = self.patterns(&layers, &sparsities)?;
        let goal = |((_, layer), (sparsity, pattern)): ((usize, LayerRef), (f64, Pattern))| {
            (layer.tensor, LayerTarget { sparsity, pattern })
        };
        Ok(layers.into_iter().zip(sparsities.into_iter().zip(patterns)).map(goal).collect())
    }

    /// The budget's sparsity for each layer.
    fn sparsities(&self, layers: &[(usize, LayerRef)], evidence: &Evidence) -> Result<Vec<f64>> {
        let shape = |(_, layer): &(usize, LayerRef)| -> Result<Vec<usize>> {
            let mut shape = self.source.entry(&layer.tensor)?.shape.clone();
            if layer.transposed {
                shape.reverse();
            }
            Ok(shape)
        };
        let shapes = layers.iter().map(shape).collect::<Result<Vec<_>>>()?;
        let source = self.source;
        let readers: Vec<_> = layers.iter().map(|(_, layer)| move || sizes(source, layer)).collect();
        let named = layers.iter().zip(&shapes).zip(&readers);
        let seen: Vec<Layer<'_>> = named
            .map(|(((block, layer), shape), read)| Layer::on_demand(&layer.tensor, shape, read).with_block(*block))
            .collect();
        self.budget.sparsities(&seen, evidence, self.sparsity)
    }

    /// Where zeros may be in each layer: for N:M as many of every M as the layer's sparsity requires.
    fn patterns(&self, layers: &[(usize, LayerRef)], sparsities: &[f64]) -> Result<Vec<Pattern>> {
        let Pattern::NofM { m, .. } = self.pattern else { return Ok(vec![self.pattern; layers.len()]) };
        if sparsities.iter().all(|s| *s == self.sparsity) {
            return Ok(vec![self.pattern; layers.len()]);
        }
        let mut blocks: Vec<(usize, f64)> = Vec::new();
        for ((block, _), sparsity) in layers.iter().zip(sparsities) {
            match blocks.last() {
                Some((last, of_last)) if last == block && of_last != sparsity => {
                    let (name, pattern) = (self.budget.name(), self.pattern);
                    let says = format!("{name} shares sparsity among layers, {pattern} leaves it no choice");
                    return Err(Error::Argument(says));
                }
                Some((last, _)) if last == block => {}
                _ => blocks.push((*block, *sparsity)),
            }
        }
        let patterns = mixed(&blocks.iter().map(|(_, sparsity)| *sparsity).collect::<Vec<_>>(), m);
        let by_block: BTreeMap<usize, Pattern> = blocks.iter().map(|(block, _)| *block).zip(patterns).collect();
        Ok(layers.iter().map(|(block, _)| by_block[block]).collect())
    }

    /// What the budget needs besides weights.
    fn evidence(
        &self,
        layers: &[(usize, LayerRef)],
        context: &M::SequenceContext,
        hidden: &HiddenStates,
        watch: &mut dyn FnMut(usize, usize),
    ) -> Result<Evidence> {
        let needs = self.budget.needs();
        let offered = Needs {
            outliers: needs.outliers,
            distortions: needs.distortions.clone().filter(|_| self.outputs.is_some()),
            ..Needs::NONE
        };
        needs.check(&offered, self.budget.name())?;
        let mut evidence = Evidence::default();
        if let Some(outlier) = needs.outliers {
            let blocks = self.model.blocks();
            let owl = Owl { outlier, ..Owl::default() };
            let mut seen = |done| watch(done, blocks);
            let found = owl.look(self.model, self.source, context, hidden, self.admits, &mut seen)?;
            evidence = evidence.with_outliers(layers.iter().map(|(block, _)| found.shares[*block]).collect());
        }
        if let (Some(amounts), Some(outputs)) = (&needs.distortions, self.outputs) {
            let look = Look { model: self.model, source: self.source, context, amounts, admits: self.admits, outputs };
            let curves = look.distortions(&hidden.first(LOOKED_AT)?, watch)?;
            evidence = evidence.with_distortions(curves.into_iter().map(|curve| curve.values).collect());
        }
        Ok(evidence)
    }
}

/// The absolute values of a layer's weights; the memory they are mapped to is released.
fn sizes(source: &Checkpoint, layer: &LayerRef) -> Result<Vec<f32>> {
    let weight = read(source, layer)?;
    source.release(&layer.tensor);
    Ok(magnitudes(&weight))
}
