//! Statistics of the inputs that a model's layers see, block by block; the model runs unchanged.
//!
//! A [`Calibration`] holds one block and its inputs at a time; [`Calibration::advance`] returns the statistics of the
//! block's inputs and moves on to the next block.

use burn::tensor::Tensor;
use regrow_checkpoint::Checkpoint;

use crate::layerwise::block_model::{BlockModel, LayerRef, observed, read_weight, release, told};
use crate::layerwise::{HiddenStates, InputStatistic, Squares};
use crate::model::weight::Weight;
use crate::{Error, Result};

/// A walk over the blocks of a model.
pub struct Calibration<'a, M: BlockModel> {
    model: &'a M,
    source: &'a Checkpoint,
    context: &'a M::SequenceContext,
    hidden: HiddenStates,
    index: usize,
}

/// Statistics of one block's inputs.
pub struct BlockInputs<S> {
    /// The block's linear layers.
    pub layers: Vec<LayerRef>,
    inputs: Vec<Option<S>>,
}

impl<S> BlockInputs<S> {
    /// The statistic of a layer's input.
    ///
    /// # Errors
    /// A layer that no input has reached.
    pub fn of(&self, layer: &LayerRef) -> Result<&S> {
        let unreached = || Error::tensor(&layer.tensor, "was not reached by the calibration inputs");
        self.inputs.get(layer.input).and_then(Option::as_ref).ok_or_else(unreached)
    }
}

impl<'a, M: BlockModel> Calibration<'a, M> {
    /// Starts before the first block of `model`, whose weights are in `source`; `hidden` are the inputs as that block
    /// sees them, `[1, tokens, width]` each.
    pub fn new(model: &'a M, source: &'a Checkpoint, context: &'a M::SequenceContext, hidden: HiddenStates) -> Self {
        Self { model, source, context, hidden, index: 0 }
    }

    /// The hidden states as the next block sees them; after the last block, its outputs.
    pub fn hidden(&self) -> &HiddenStates {
        &self.hidden
    }

    /// The number of the next block.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Runs the next block without input statistics; returns whether there was one.
    ///
    /// # Errors
    /// As [`Calibration::advance`].
    pub fn pass(&mut self) -> Result<bool> {
        if self.index >= self.model.blocks() {
            return Ok(false);
        }
        let block = self.model.load(self.source, self.index)?;
        let (model, context) = (self.model, self.context);
        self.hidden.advance(|x| model.forward(&block, x, context, &mut |_, _| {}))?;
        self.release();
        Ok(true)
    }

    /// Releases the memory of a finished block: the next block needs it.
    fn release(&mut self) {
        self.model.layers(self.index).iter().for_each(|layer| self.source.release(&layer.tensor));
        self.index += 1;
    }

    /// Runs the next block; returns the statistics of its inputs, or `None` after the last block.
    ///
    /// # Errors
    /// Tensors that are missing or not finite, a file of hidden states that cannot be read or written.
    pub fn advance<S: InputStatistic>(&mut self) -> Result<Option<BlockInputs<S>>> {
        if self.index >= self.model.blocks() {
            return Ok(None);
        }
        let block = self.model.load(self.source, self.index)?;
        let mut inputs: Vec<Option<S>> = Vec::new();
        let mut add = |input: usize, values: Tensor<2>| {
            if inputs.len() <= input {
                inputs.resize_with(input + 1, || None);
            }
            let begin = || S::begin(values.dims()[1], &values.device());
            inputs[input].get_or_insert_with(begin).add(values);
        };
        let (model, context) = (self.model, self.context);
        match self.hidden.one_by_one()? {
            true => self.hidden.advance_each(|x| model.forward(&block, x, context, &mut add))?,
            false => {
                self.hidden.advance_seen(|x| observed(model, &block, x, context), |inputs| told(inputs, &mut add))?
            }
        }
        let layers = self.model.layers(self.index);
        self.release();
        Ok(Some(BlockInputs { layers, inputs }))
    }
}

/// Callback of [`calibrate`]: a block's number, its linear weights and the squared norms of each one's inputs.
pub type Visit<'a> = dyn FnMut(usize, &[(Weight, &Squares)]) -> Result<()> + 'a;

/// Runs the model unchanged over calibration inputs (as for [`Walk::prune`](crate::layerwise::Walk::prune)), which are not modified; `visit` gets each
/// block's number, its linear weights and the squared norms of each one's inputs.
///
/// # Errors
/// Errors of loading or of `visit`, a layer that no input reaches.
pub fn calibrate<M: BlockModel>(
    model: &M,
    source: &Checkpoint,
    context: &M::SequenceContext,
    hidden: &HiddenStates,
    visit: &mut Visit<'_>,
) -> Result<()> {
    let mut survey = Calibration::new(model, source, context, hidden.map(|x| x)?);
    while let Some(seen) = survey.advance::<Squares>()? {
        let reached = |layer: &LayerRef| Ok((read_weight(source, layer)?, seen.of(layer)?));
        let layers = seen.layers.iter().map(reached).collect::<Result<Vec<_>>>()?;
        visit(survey.index() - 1, &layers)?;
        release(model, source, survey.index() - 1);
    }
    Ok(())
}
