//! Pruning a model that is larger than memory: one block at a time, from the inputs of its layers.
//!
//! A layer solver uses a weight and the inputs that reach it. [`Walk::prune`] carries the hidden states of some
//! calibration inputs from block to block: the block is loaded and run with its layers' inputs observed, its weights
//! are solved and written, and it is run again as written, so that the next block sees the inputs that it will see in
//! the pruned model.

use burn::tensor::Tensor;
use regrow_checkpoint::{Checkpoint, Patch, Pruned};

use crate::layerwise::HiddenStates;
use crate::layerwise::block_model::{BlockModel, LayerRef, observed, read_weight, release, told};
use crate::layerwise::solver::{InputObserver, LayerSolver, LayerTarget, PrunedLayer};
use crate::model::weight::{Weight, transposed};
use crate::{Error, Result};

/// The slot of number `index`, created if missing.
fn slot<T>(context: &mut Vec<Option<T>>, index: usize) -> &mut Option<T> {
    if context.len() <= index {
        context.resize_with(index + 1, || None);
    }
    &mut context[index]
}

fn unreached(layer: &LayerRef) -> Error {
    Error::tensor(&layer.tensor, "was not reached by the calibration inputs")
}

/// Changes a block once its layers are pruned, before the next block sees its outputs.
pub trait BlockReconstruction<M: BlockModel> {
    /// The block to write in place of `block`, which is pruned: zeros stay where they are. `inputs` are the block's
    /// inputs, `wanted` its outputs for them before pruning.
    ///
    /// # Errors
    /// Errors of the reconstruction.
    fn reconstruct(
        &self,
        model: &M,
        index: usize,
        block: M::Block,
        context: &M::SequenceContext,
        inputs: &HiddenStates,
        wanted: &HiddenStates,
    ) -> Result<M::Block>;
}

/// A linear layer behind the last block, such as a language model's head.
pub struct HeadTarget<'a> {
    /// The layer.
    pub layer: LayerRef,
    /// Its target.
    pub goal: LayerTarget,
    /// The inputs it reads, `[tokens, d_in]`, computed from hidden states after the last block.
    pub input: &'a dyn Fn(Tensor<3>) -> Tensor<2>,
}

/// A model to prune, and how.
pub struct Walk<'a, M: BlockModel> {
    /// The model.
    pub model: &'a M,
    /// Its weights.
    pub source: &'a Checkpoint,
    /// What all blocks need to know about a calibration sequence.
    pub context: M::SequenceContext,
    /// The method.
    pub solver: &'a dyn LayerSolver,
    /// The target of a layer of block `index`; `None` leaves it dense.
    pub goal: &'a dyn Fn(usize, &LayerRef) -> Option<LayerTarget>,
    /// The reconstruction of each block after pruning, if any.
    pub mend: Option<&'a dyn BlockReconstruction<M>>,
    /// The layer to prune behind the last block, if any.
    pub tail: Option<HeadTarget<'a>>,
}

impl<M: BlockModel> Walk<'_, M> {
    /// Prunes every block into `out`; returns a report for each layer.
    ///
    /// `hidden` are the calibration inputs as the first block sees them, `[1, tokens, width]` each. Blocks that are
    /// already in `out` are run but not solved again. `watch` is called with the number of finished blocks after each
    /// block.
    ///
    /// # Errors
    /// Errors of loading, solving or writing.
    pub fn prune(
        &self,
        mut hidden: HiddenStates,
        out: &mut Patch,
        watch: &mut dyn FnMut(usize),
    ) -> Result<Vec<Pruned>> {
        let (first, blocks) = (out.done(), self.model.blocks());
        let runs = self.solver.needs_inputs() || self.mend.is_some();
        for index in 0..blocks {
            if index >= first {
                self.solve_block(index, &hidden, out)?;
                out.finish_step(index + 1)?;
            }
            // The last block's outputs may not be needed.
            if runs && (index + 1 < blocks || self.tail.is_some()) {
                let block = self.model.load(&out.checkpoint()?, index)?;
                let (model, context) = (self.model, &self.context);
                hidden.advance(|x| model.forward(&block, x, context, &mut |_, _| {}))?;
            }
            release(self.model, self.source, index);
            watch(index + 1);
        }
        if let Some(tail) = self.tail.as_ref().filter(|_| out.done() <= blocks) {
            self.solve_tail(tail, &hidden, out)?;
            out.finish_step(blocks + 1)?;
        }
        Ok(out.pruned().to_vec())
    }

    /// Prunes the layer behind the last block and writes it.
    fn solve_tail(&self, tail: &HeadTarget<'_>, hidden: &HiddenStates, out: &mut Patch) -> Result<()> {
        let weight = read_weight(self.source, &tail.layer)?;
        let mut observer: Option<Box<dyn InputObserver>> = None;
        if self.solver.needs_inputs() {
            hidden.each(|x| {
                let values = (tail.input)(x);
                let fresh = || self.solver.observe(values.dims()[1], &values.device());
                observer.get_or_insert_with(fresh).add(values);
            })?;
        }
        let observer = observer.unwrap_or_else(|| self.solver.observe(weight.dims().1, &regrow_device::current()));
        let solved = observer.solve(&weight, &tail.goal)?;
        write(self.source, &tail.layer, weight, solved, out)
    }

    /// Prunes block `index`, reconstructs it, and writes it.
    fn solve_block(&self, index: usize, hidden: &HiddenStates, out: &mut Patch) -> Result<()> {
        let Some(mend) = self.mend else { return self.solve_layers(index, hidden, out) };
        let block = self.model.load(self.source, index)?;
        let (model, context) = (self.model, &self.context);
        let wanted = hidden.map(|x| model.forward(&block, x, context, &mut |_, _| {}))?;
        drop(block);
        self.solve_layers(index, hidden, out)?;
        let block = self.model.load(&out.checkpoint()?, index)?;
        let block = mend.reconstruct(self.model, index, block, &self.context, hidden, &wanted)?;
        self.model.store_block(index, &block, out)
    }

    /// Prunes the layers of block `index` and writes them.
    fn solve_layers(&self, index: usize, hidden: &HiddenStates, out: &mut Patch) -> Result<()> {
        let seen = if self.solver.needs_inputs() { self.watched(index, hidden)? } else { Vec::new() };
        for layer in self.model.layers(index) {
            let Some(goal) = (self.goal)(index, &layer) else { continue };
            let weight = read_weight(self.source, &layer)?;
            let solved = match seen.get(layer.input).and_then(Option::as_ref) {
                Some(observer) => observer.solve(&weight, &goal)?,
                None if self.solver.needs_inputs() => return Err(unreached(&layer)),
                None => self.solver.observe(weight.dims().1, &regrow_device::current()).solve(&weight, &goal)?,
            };
            write(self.source, &layer, weight, solved, out)?;
        }
        Ok(())
    }

    /// What the solver has observed of each input of block `index`.
    fn watched(&self, index: usize, hidden: &HiddenStates) -> Result<Vec<Option<Box<dyn InputObserver>>>> {
        let block = self.model.load(self.source, index)?;
        let mut seen: Vec<Option<Box<dyn InputObserver>>> = Vec::new();
        let (model, context) = (self.model, &self.context);
        let mut add = |input: usize, values: Tensor<2>| {
            let observer = slot(&mut seen, input);
            observer.get_or_insert_with(|| self.solver.observe(values.dims()[1], &values.device())).add(values);
        };
        match hidden.one_by_one()? {
            true => hidden.each(|x| drop(model.forward(&block, x, context, &mut add)))?,
            false => hidden.look(|x| observed(model, &block, x, context).1, |inputs| told(inputs, &mut add))?,
        }
        Ok(seen)
    }
}

/// Prunes one layer whose inputs are unknown with a `solver` that needs none, and writes it.
///
/// # Errors
/// A weight that is not finite, a pattern that does not divide a row, a failure to write.
pub fn prune_unseen(
    source: &Checkpoint,
    layer: &LayerRef,
    solver: &dyn LayerSolver,
    goal: &LayerTarget,
    out: &mut Patch,
) -> Result<()> {
    let weight = read_weight(source, layer)?;
    let solved = solver.observe(weight.dims().1, &regrow_device::current()).solve(&weight, goal)?;
    write(source, layer, weight, solved, out)
}

/// Writes a solved layer.
fn write(source: &Checkpoint, layer: &LayerRef, weight: Weight, solved: PrunedLayer, out: &mut Patch) -> Result<()> {
    let PrunedLayer { mask, values } = solved;
    let mut values = values.unwrap_or(weight.values);
    mask.fill_pruned(&mut values, 0.0);
    let values = if layer.transposed {
        transposed(&values, mask.shape()[0], mask.len() / mask.shape()[0].max(1))
    } else {
        values
    };
    out.write_f32(source.entry(&layer.tensor)?, &values)?;
    out.note(Pruned { tensor: layer.tensor.clone(), weights: mask.len(), zeros: mask.pruned() });
    Ok(())
}
