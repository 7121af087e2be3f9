//! Networks whose residual blocks can be switched off, per sample during training and permanently afterwards.

use burn::module::ModuleDisplay;
use burn::tensor::Tensor;

use crate::Classifier;

/// The gates of one block, per sample.
#[derive(Clone, Debug)]
pub struct Gates {
    /// `[batch, 1]`: 1 if the block's branch is used, 0 if only its shortcut is.
    pub whole: Tensor<2>,
    /// `[batch, width]`: the same for each channel inside the branch, if channels are gated.
    pub inside: Option<Tensor<2>>,
}

/// A classifier of residual blocks, numbered as the removable groups of its
/// [layout](regrow_sparse_core::model::channel_graph::ChannelGraph::removable).
pub trait GatedForward: Classifier + ModuleDisplay {
    /// Logits `[batch, classes]` of `images` `[batch, channels, height, width]`, where `gates(block, input)` returns
    /// the gates of each block from its input `[batch, channels]`, averaged over pixels.
    ///
    /// Gates of 1 leave the network unchanged. A gate on the inside multiplies the activation that the next layer
    /// reads; one on the whole multiplies the branch before it is added.
    fn gated(&self, images: Tensor<4>, gates: &mut dyn FnMut(usize, Tensor<2>) -> Gates) -> Tensor<2>;

    /// The network with only the channels that `kept` names for the inside of each block; a block with no kept channel
    /// is removed, its shortcut stays.
    ///
    /// `kept` has a list for each block and an entry for each of its channels; blocks past its end stay unchanged.
    fn narrowed(self, kept: &[Vec<bool>]) -> Self;
}
