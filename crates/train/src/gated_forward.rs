//! Networks whose residual blocks can be switched off, sample by sample while training and for good
//! after it.

use burn::module::ModuleDisplay;
use burn::tensor::Tensor;

use crate::Classifier;

/// What decides on one block, sample by sample.
#[derive(Clone, Debug)]
pub struct Gates {
    /// `[batch, 1]`: 1 where the block's branch counts, 0 where only its shortcut does.
    pub whole: Tensor<2>,
    /// `[batch, width]`: the same for each channel of the inside of the branch, where channels are
    /// decided on.
    pub inside: Option<Tensor<2>>,
}

/// A classifier of residual blocks, numbered as the removable groups of its
/// [layout](regrow_sparse_core::model::channel_graph::Layout::removable).
pub trait GatedForward: Classifier + ModuleDisplay {
    /// Logits `[batch, classes]` of `images` `[batch, channels, height, width]`, where `gates(block,
    /// input)` decides on each block from its input `[batch, channels]`, averaged over pixels.
    ///
    /// Gates of 1 leave the network as it is. A gate on the inside stands where the next layer reads,
    /// after the activation; one on the whole multiplies the branch before it is added.
    fn gated(&self, images: Tensor<4>, gates: &mut dyn FnMut(usize, Tensor<2>) -> Gates) -> Tensor<2>;

    /// The network with only the channels that `kept` names for the inside of each block; a block none
    /// of whose channels are kept goes, its shortcut stays.
    ///
    /// `kept` has a list for each block and an entry for each of its channels; blocks it does not reach
    /// stay as they are.
    fn narrowed(self, kept: &[Vec<bool>]) -> Self;
}
