//! A model as a sequence of blocks, of which one at a time is in memory.

use burn::tensor::Tensor;
use regrow_checkpoint::{Checkpoint, Patch};

use crate::model::weight::{Weight, transposed};
use crate::{Error, Result};

/// A linear layer of a block on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRef {
    /// Its weight's name in the checkpoint.
    pub tensor: String,
    /// Which of the block's inputs it reads; layers that read the same input share one statistic.
    pub input: usize,
    /// Its position among the layers that read this input.
    pub place: usize,
    /// Whether it is stored `[d_in, d_out]`.
    pub transposed: bool,
}

/// A model as a sequence of blocks.
pub trait BlockModel: Sync {
    /// A block in memory.
    type Block: Sync;
    /// What all blocks need to know about a sequence.
    type SequenceContext: Sync;

    /// How many blocks there are.
    fn blocks(&self) -> usize;

    /// The linear layers of block `index`.
    fn layers(&self, index: usize) -> Vec<LayerRef>;

    /// Loads block `index` from `source`, a checkpoint with this model's tensors.
    ///
    /// # Errors
    /// Tensors that are missing, of other shapes, or not finite.
    fn load(&self, source: &Checkpoint, index: usize) -> Result<Self::Block>;

    /// Overwrites the tensors of block `index` in `out`, a copy of this model, with those of `block`, as its layers use
    /// them: reparameterized weights are stored with their effective values.
    ///
    /// # Errors
    /// A value that is not finite or beyond its type, a failure to write.
    fn store_block(&self, index: usize, block: &Self::Block, out: &mut Patch) -> Result<()>;

    /// `block` with other values, row-major `[d_out, d_in]`, for the weight of `layer`.
    fn replaced(&self, block: &Self::Block, layer: &LayerRef, values: &[f32]) -> Self::Block;

    /// Hidden states `[batch, tokens, width]` after `block`; `observe` is called with the number of an input and its
    /// values `[tokens, d_in]` before the layers that read it.
    fn forward(
        &self,
        block: &Self::Block,
        hidden: Tensor<3>,
        context: &Self::SequenceContext,
        observe: &mut dyn FnMut(usize, Tensor<2>),
    ) -> Tensor<3>;
}

/// Inputs of layers, each with its number.
pub(crate) type Inputs = Vec<(usize, Tensor<2>)>;

/// Hidden states after `block`, and the inputs of its layers.
pub(crate) fn observed<M: BlockModel>(
    model: &M,
    block: &M::Block,
    x: Tensor<3>,
    context: &M::SequenceContext,
) -> (Tensor<3>, Inputs) {
    let mut inputs = Vec::new();
    let x = model.forward(block, x, context, &mut |input, values| inputs.push((input, values)));
    (x, inputs)
}

pub(crate) fn told(inputs: Inputs, add: &mut dyn FnMut(usize, Tensor<2>)) {
    inputs.into_iter().for_each(|(input, values)| add(input, values));
}

/// Releases the memory that block `index` of `source` is mapped to: the next block needs it.
pub(crate) fn release<M: BlockModel>(model: &M, source: &Checkpoint, index: usize) {
    model.layers(index).iter().for_each(|layer| source.release(&layer.tensor));
}

/// A layer's weight, row-major `[d_out, d_in]`.
///
/// # Errors
/// No such tensor, or one that is not finite.
pub fn read_weight(source: &Checkpoint, layer: &LayerRef) -> Result<Weight> {
    let entry = source.entry(&layer.tensor)?;
    let (values, shape) = (source.read_f32(&layer.tensor)?, entry.shape.clone());
    if !values.iter().all(|v| v.is_finite()) {
        return Err(Error::tensor(&layer.tensor, "holds NaN or infinity"));
    }
    let (values, shape) = match layer.transposed {
        true => (transposed(&values, shape[0], shape[1]), vec![shape[1], shape[0]]),
        false => (values, shape),
    };
    Ok(Weight { path: layer.tensor.clone(), id: burn::module::ParamId::new(), shape, values, mask: None })
}
