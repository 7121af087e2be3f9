//! What a table or a merging method needs to know of an image classifier, and no more.

use burn::module::Module;
use burn::nn::BatchNorm;
use burn::tensor::Tensor;

/// An image classifier: a Burn module from images to logits.
///
/// Implement it for your own model to run it through this project's training loop and soups.
pub trait Classifier: Module {
    /// Logits `[batch, classes]` of `images` `[batch, channels, height, width]`.
    fn logits(&self, images: Tensor<4>) -> Tensor<2>;

    /// Calls `f` once with every batch-norm layer. A model without any keeps this default.
    fn batch_norms(&mut self, _f: &mut dyn FnMut(&mut BatchNorm)) {}
}
