//! The type and storage of a written language model.

use regrow_checkpoint::storage::Storage;
use regrow_checkpoint::{Dtype, Form};
use regrow_lm::Transformer;
use regrow_sparse_core::layerwise::BlockModel;

/// This type and storage for `model`, whose linear layers may be packed.
pub fn form(model: &Transformer, dtype: Option<Dtype>, storage: Storage) -> Form {
    let layers = (0..model.blocks()).flat_map(|index| model.layers(index)).map(|layer| layer.tensor);
    // Inference engines look for linear layers: the embedding is not one, the head is.
    Form { dtype, storage, layers: layers.chain(["lm_head.weight".to_string()]).collect() }
}
