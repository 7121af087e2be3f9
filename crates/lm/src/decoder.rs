//! A decoder that is completely in memory, for training, and writing it back to disk.

use burn::module::{Module, Param};
use burn::nn::{Linear, RmsNorm};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use regrow_checkpoint::Patch;
use regrow_inference::{
    Compressed, DenseExecutor, ForwardWith, LayerExecutor, LayerTiming, Options, ScopedExecutor, compress,
};
use regrow_sparse_core::layerwise::{BlockModel, LayerRef};
use regrow_sparse_core::model::weight::{Select, transposed};
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use regrow_train::{Problem, StepContext};

use crate::block::{Block, Company, Kept, Norm, SequenceContext};
use crate::config::Config;
use crate::generate::draw;
use crate::text::batch;
use crate::transformer::{Embedding, HEAD_WEIGHT, Head, Transformer};

/// A decoder in memory: embedding, blocks, head.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Tokens to hidden states.
    pub embedding: Embedding,
    /// The blocks.
    pub blocks: Vec<Block>,
    /// Hidden states to logits.
    pub head: Head,
}

/// A tensor of a model by its name in the checkpoint.
struct Stored {
    name: String,
    values: Vec<f32>,
}

impl Transformer {
    /// Loads the whole decoder, for training on the device with gradients.
    ///
    /// # Errors
    /// Tensors that are missing or not finite, an encoder.
    pub fn whole(&self) -> Result<Decoder> {
        let head = self.head()?;
        let blocks = (0..self.blocks()).map(|index| self.load(self.checkpoint(), index)).collect::<Result<_>>()?;
        Ok(Decoder { embedding: self.embedding()?, blocks, head })
    }

    /// Overwrites the tensors of `out`, a copy of this model, with those of `decoder`, as its layers use them:
    /// reparameterized weights are stored with their effective values.
    ///
    /// # Errors
    /// A value that is not finite or beyond its type, a failure to write.
    pub fn store(&self, decoder: &Decoder, out: &mut Patch) -> Result<()> {
        self.each_tensor(decoder, &mut |name, values| Ok(out.write_f32(self.checkpoint().entry(&name)?, &values)?))
    }

    /// Passes the tensors of `decoder`, which has this model's shape, to `f`: each with its name in the checkpoint, its
    /// values in the checkpoint's order.
    ///
    /// # Errors
    /// Those of `f`.
    pub fn each_tensor(&self, decoder: &Decoder, f: &mut dyn FnMut(String, Vec<f32>) -> Result<()>) -> Result<()> {
        let names = &self.config.names;
        let mut all = vec![Stored::matrix(self.name(names.embedding), &decoder.embedding.tokens)];
        if let (Some(name), Some(table)) = (names.positions, &decoder.embedding.positions) {
            all.push(Stored::matrix(self.name(name), table));
        }
        all.extend(norm(self.name(names.final_norm), &decoder.head.norm));
        if let Some(Linear { weight, .. }) = &decoder.head.untied {
            all.push(Stored { name: HEAD_WEIGHT.into(), values: numbers(weight.val().transpose()) });
        }
        all.into_iter().try_for_each(|t| f(t.name, t.values))?;
        let of_block = |(index, block)| self.of_block(index, block).into_iter();
        decoder.blocks.iter().enumerate().flat_map(of_block).try_for_each(|t| f(t.name, t.values))
    }

    /// The tensors of block `index`.
    fn of_block(&self, index: usize, block: &Block) -> Vec<Stored> {
        let names = &self.config.names;
        let norms = [(names.norm1, &block.norm1), (names.norm2, &block.norm2)];
        let of_heads =
            [("self_attn.q_norm", &block.attention.query_norm), ("self_attn.k_norm", &block.attention.key_norm)];
        let mut all: Vec<Stored> = norms.iter().flat_map(|(part, n)| norm(self.block_name(index, part), n)).collect();
        for (part, norm) in of_heads {
            all.extend(norm.iter().map(|RmsNorm { gamma, .. }| Stored::vector(self.block_name(index, part), gamma)));
        }
        for (layer, linear) in self.layers(index).iter().zip(linears(block)) {
            all.extend(stored_linear(layer, linear));
        }
        all
    }

    /// Writes the tensors of block `index`.
    pub(super) fn write_block(&self, index: usize, block: &Block, out: &mut Patch) -> Result<()> {
        let mut tensors = self.of_block(index, block).into_iter();
        Ok(tensors.try_for_each(|t| out.write_f32(self.checkpoint().entry(&t.name)?, &t.values))?)
    }
}

impl Stored {
    fn matrix(name: String, param: &Param<Tensor<2>>) -> Self {
        Self { name: format!("{name}.weight"), values: numbers(param.val()) }
    }

    fn vector(name: String, param: &Param<Tensor<1>>) -> Self {
        Self { name: format!("{name}.weight"), values: numbers(param.val()) }
    }
}

/// A norm's scale, and its shift if it has one.
fn norm(name: String, norm: &Norm) -> Vec<Stored> {
    let (gamma, beta) = match norm {
        Norm::Rms(norm) => (&norm.gamma, None),
        Norm::Layer(norm) => (&norm.gamma, norm.beta.as_ref()),
    };
    let shift = beta.map(|beta| Stored { name: format!("{name}.bias"), values: numbers(beta.val()) });
    [Stored::vector(name, gamma)].into_iter().chain(shift).collect()
}

/// The linear layers of a block, in the order of [`BlockModel::layers`].
fn linears(block: &Block) -> impl Iterator<Item = &Linear> {
    let (attention, mlp) = (&block.attention, &block.mlp);
    attention.qkv.iter().chain([&attention.out]).chain(&mlp.gate).chain([&mlp.up, &mlp.down])
}

/// Burn's `[d_in, d_out]` converted to the checkpoint's layout, and the bias.
fn stored_linear(layer: &LayerRef, linear: &Linear) -> Vec<Stored> {
    let weight = linear.weight.val();
    let [d_in, d_out] = weight.dims();
    let values = numbers(weight);
    let values = if layer.transposed { values } else { transposed(&values, d_in, d_out) };
    let name = layer.tensor.trim_end_matches("weight");
    let bias = linear.bias.as_ref().map(|bias| Stored { name: format!("{name}bias"), values: numbers(bias.val()) });
    [Stored { name: layer.tensor.clone(), values }].into_iter().chain(bias).collect()
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

impl Decoder {
    /// Selects the linear layers of the blocks; if the head is the embedding's own matrix, the last linear layer is not
    /// a head.
    pub fn layers(&self) -> Select {
        if self.head.untied.is_some() { Select::default() } else { Select::default().with_head() }
    }

    /// Logits `[batch, tokens, vocab]` of token numbers `[batch, tokens]`, for a model of this `config`.
    pub fn forward(&self, ids: Tensor<2, Int>, config: &Config) -> Tensor<3> {
        let context = SequenceContext::new(config, ids.dims()[1], &ids.device());
        self.head.forward(self.run(self.embedding.forward(ids), &context), &self.embedding)
    }

    /// Hidden states `[batch, tokens, width]` after all blocks.
    pub(super) fn run(&self, hidden: Tensor<3>, context: &SequenceContext) -> Tensor<3> {
        self.run_by(hidden, context, &mut DenseExecutor)
    }

    /// The same, with linear layers computed by `layers`.
    pub(super) fn run_by(
        &self,
        hidden: Tensor<3>,
        context: &SequenceContext,
        layers: &mut dyn LayerExecutor,
    ) -> Tensor<3> {
        let step = |x: Tensor<3>, (i, block): (usize, &Block)| {
            let layers = &mut ScopedExecutor::new(format!("blocks.{i}"), &mut *layers);
            block.forward_in(x, context, &mut Company { observe: &mut |_, _| {}, layers, kept: None })
        };
        self.blocks.iter().enumerate().fold(hidden, step)
    }

    /// Hidden states `[1, tokens, width]` of tokens that come after those in `memory`.
    pub(super) fn step(&self, ids: Tensor<2, Int>, memory: &mut Memory, layers: &mut dyn LayerExecutor) -> Tensor<3> {
        let [_, tokens] = ids.dims();
        let context = match memory.tokens {
            0 => memory.first.clone(),
            place => SequenceContext::at(place, memory.tables.as_ref(), memory.first.window, &ids.device()),
        };
        let mut hidden = self.embedding.forward_at(ids, memory.tokens);
        for (i, (block, kept)) in self.blocks.iter().zip(&mut memory.kept).enumerate() {
            let layers = &mut ScopedExecutor::new(format!("blocks.{i}"), &mut *layers);
            let company = &mut Company { observe: &mut |_, _| {}, layers, kept: Some(kept) };
            hidden = block.forward_in(hidden, &context, company);
        }
        memory.tokens += tokens;
        hidden
    }

    /// Makes linear layers, including the head, sparse if they are faster that way on tokens `[batch, tokens]`.
    /// `config` is the model's.
    ///
    /// # Errors
    /// Weights that are not finite.
    pub fn compress(
        self,
        ids: Tensor<2, Int>,
        config: &Config,
        options: &Options,
    ) -> Result<(Compressed<Self>, Vec<LayerTiming>)> {
        let context = SequenceContext::new(config, ids.dims()[1], &ids.device());
        let hidden = self.embedding.forward(ids);
        compress(self, (hidden, &context), options)
    }
}

impl<'a> ForwardWith<(Tensor<3>, &'a SequenceContext)> for Decoder {
    type Output = Tensor<3>;

    fn run(&self, (hidden, context): (Tensor<3>, &'a SequenceContext), layers: &mut dyn LayerExecutor) -> Tensor<3> {
        let hidden = self.run_by(hidden, context, layers);
        self.head.forward_by(hidden, &self.embedding, layers)
    }
}

/// A decoder's cache for a text that is continued token by token.
pub(super) struct Memory {
    kept: Vec<Kept>,
    tokens: usize,
    /// For the first tokens, which are processed together.
    first: SequenceContext,
    /// Cosines and sines for every possible token, if positions are rotary.
    tables: Option<[Tensor<2>; 2]>,
}

impl Memory {
    /// For a text that starts with `first` tokens and may have `all`.
    pub(super) fn new(config: &Config, first: usize, all: usize, device: &Device) -> Self {
        let kept = vec![Kept::default(); config.layers];
        let (first, tables) =
            (SequenceContext::new(config, first, device), SequenceContext::tables(config, all, device));
        Self { kept, tokens: 0, first, tables }
    }
}

/// Predicting the next token in windows of one length: the loss of a window is the mean negative
/// log-likelihood of all its tokens but the first, in nats.
#[derive(Clone, Debug)]
pub struct NextToken<'a> {
    config: &'a Config,
    windows: Vec<&'a [u32]>,
}

impl<'a> NextToken<'a> {
    /// Over `windows`, for a model of this `config`.
    ///
    /// # Errors
    /// No window, windows of different lengths or of a length that the model does not support.
    pub fn new(config: &'a Config, windows: Vec<&'a [u32]>) -> Result<Self> {
        let len = windows.first().map_or(0, |w| w.len());
        if !(2..=config.context).contains(&len) || windows.iter().any(|w| w.len() != len) {
            let reason = format!("windows to train on must be of one length, of 2 to {} tokens", config.context);
            return Err(Error::Argument(reason));
        }
        Ok(Self { config, windows })
    }
}

impl NextToken<'_> {
    /// The sum over window `index` of the log-likelihood of a token after each position, in nats, `[1]`: not the token
    /// of the text, but one sampled, with `seed`, from the model's own distribution.
    ///
    /// Tokens are sampled independently, so the square of this sum's gradient has the expectation of the sum of
    /// squares: the Fisher information of the window.
    pub fn drawn(&self, model: &Decoder, index: usize, seed: u64, device: &Device) -> Tensor<1> {
        let mut random = ChaCha8Rng::seed_from_u64(mix(seed, index as u64));
        let ids = batch(&self.windows[index..=index], device);
        let said = log_softmax(model.forward(ids, self.config), 2);
        let [_, tokens, vocab] = said.dims();
        let p: Vec<f32> = said.clone().exp().into_data().convert::<f32>().iter::<f32>().collect();
        let drawn: Vec<u32> = p.chunks(vocab).map(|p| draw(p, &mut random)).collect();
        said.gather(2, batch(&[&drawn], device).reshape([1, tokens, 1])).sum()
    }
}

impl Problem<Decoder> for NextToken<'_> {
    fn len(&self) -> usize {
        self.windows.len()
    }

    fn losses(&self, model: &Decoder, chosen: &[usize], _moment: StepContext, device: &Device) -> Tensor<1> {
        let windows: Vec<&[u32]> = chosen.iter().map(|i| self.windows[*i]).collect();
        let ids = batch(&windows, device);
        let [_, tokens] = ids.dims();
        let logits = model.forward(ids.clone(), self.config).narrow(1, 0, tokens - 1);
        let targets = ids.narrow(1, 1, tokens - 1).unsqueeze_dim::<3>(2);
        log_softmax(logits, 2).gather(2, targets).neg().mean_dim(1).flatten(0, 2)
    }
}
