//! A new small Llama: a Hugging Face directory with random weights, for training.

use std::fs;
use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regrow_checkpoint::atomic;
use regrow_sparse_core::{Error, Result};
use safetensors::tensor::{Dtype, SafeTensorError, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Sizes of a Llama with as many key-value heads as heads; its head is tied to the embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Number of tokens in the vocabulary.
    pub vocab: usize,
    /// Width of the hidden states.
    pub width: usize,
    /// Blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Width inside the feed-forward layers.
    pub inner: usize,
    /// Longest sequence, in tokens.
    pub context: usize,
}

/// The standard deviation of initial weights, Llama's own.
const DEVIATION: f32 = 0.02;

impl Sizes {
    /// Writes `config.json` and `model.safetensors` in f32 to `folder`, which is created: norms of one, all other
    /// weights uniform with standard deviation 0.02, the same for the same `seed`.
    ///
    /// # Errors
    /// A width that the heads do not divide, a folder that cannot be written.
    pub fn create(&self, folder: impl AsRef<Path>, seed: u64) -> Result<()> {
        if self.heads == 0 || !self.width.is_multiple_of(2 * self.heads) {
            let reason = format!("{} heads do not divide a width of {} into even parts", self.heads, self.width);
            return Err(Error::Argument(reason));
        }
        let folder = folder.as_ref();
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let text = serde_json::to_vec_pretty(&self.config()).map_err(|e| Error::format(folder, e.to_string()))?;
        atomic::write_atomic(folder.join("config.json"), |out| out.write_all(&text))?;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = self
            .tensors()
            .into_iter()
            .map(|(name, shape)| {
                let bytes = bytes(shape.len() == 1, shape.iter().product(), &mut random);
                (name, shape, bytes)
            })
            .collect();
        let failed = |e: SafeTensorError| Error::format(folder, e.to_string());
        let views = tensors.iter().map(|(name, shape, bytes)| {
            TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name.clone(), view)).map_err(failed)
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        let file = safetensors::serialize(views, None).map_err(failed)?;
        Ok(atomic::write_atomic(folder.join("model.safetensors"), |out| out.write_all(&file))?)
    }

    fn config(&self) -> serde_json::Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": self.vocab,
            "hidden_size": self.width, "num_hidden_layers": self.layers, "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads, "intermediate_size": self.inner, "hidden_act": "silu",
            "max_position_embeddings": self.context, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "tie_word_embeddings": true, "torch_dtype": "float32",
        })
    }

    /// Names and shapes of all tensors.
    fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (d, inner) = (self.width, self.inner);
        let of_block = |i: usize| {
            let square = ["q", "k", "v", "o"].map(|n| (format!("self_attn.{n}_proj"), vec![d, d]));
            let wide = [("gate", vec![inner, d]), ("up", vec![inner, d]), ("down", vec![d, inner])];
            let wide = wide.map(|(n, shape)| (format!("mlp.{n}_proj"), shape));
            let norms = ["input_layernorm", "post_attention_layernorm"].map(|n| (n.to_string(), vec![d]));
            let all = square.into_iter().chain(wide).chain(norms);
            all.map(move |(name, shape)| (format!("model.layers.{i}.{name}.weight"), shape))
        };
        let ends = [("model.embed_tokens.weight", vec![self.vocab, d]), ("model.norm.weight", vec![d])];
        let ends = ends.map(|(name, shape)| (name.to_string(), shape));
        ends.into_iter().chain((0..self.layers).flat_map(of_block)).collect()
    }
}

fn bytes(norm: bool, len: usize, random: &mut ChaCha8Rng) -> Vec<u8> {
    // A uniform number in [-1, 1) has standard deviation 1 / sqrt(3).
    let reach = DEVIATION * 3f32.sqrt();
    let mut draw = || if norm { 1.0 } else { reach * (2.0 * random.random::<f32>() - 1.0) };
    (0..len).flat_map(|_| draw().to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use regrow_checkpoint::Patch;

    use super::*;
    use crate::{Transformer, Window, perplexity, perplexity_of};

    const SIZES: Sizes = Sizes { vocab: 16, width: 16, layers: 2, heads: 2, inner: 24, context: 8 };

    #[test]
    fn a_fresh_model_knows_nothing_whole_or_block_by_block_and_comes_back_unchanged() {
        let (folder, device) = (tempfile::tempdir().unwrap(), regrow_device::current());
        let (source, out) = (folder.path().join("a"), folder.path().join("b"));
        SIZES.create(&source, 3).unwrap();
        let model = Transformer::open(&source, &device).unwrap();
        let tokens: Vec<u32> = (0..32).map(|i| (i * 7 + i / 5) % 16).collect();
        let windows: Vec<Window<'_>> = tokens.chunks(8).map(|tokens| Window { tokens, scored: 7 }).collect();
        let found = perplexity(&model, &windows, &mut |_, _| {}).unwrap();
        assert!((found.value() - 16.0).abs() < 0.5, "{found:?}");
        let whole = model.whole().unwrap();
        let same = perplexity_of(&whole, &model.config, &windows, &device).unwrap();
        assert!((found.loss - same.loss).abs() < 1e-4, "{found:?} {same:?}");
        let mut patch = Patch::create(model.checkpoint(), &out, "").unwrap();
        model.store(&whole, &mut patch).unwrap();
        patch.finish().unwrap();
        let bytes = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
        assert!(bytes(&source) == bytes(&out));
    }

    #[test]
    fn heads_must_divide() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Sizes { heads: 3, ..SIZES }.create(folder.path(), 0).unwrap_err().to_string().contains("3 heads"));
    }
}
