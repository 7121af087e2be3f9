//! A transformer on disk, loaded piece by piece: its embedding, one block at a time, its head.

use std::path::Path;

use burn::module::{Module, Param, ParamId};
use burn::nn::{LayerNormConfig, Linear, RmsNorm, RmsNormConfig};
use burn::tensor::{Device, Int, Tensor, TensorData};
use regrow_checkpoint::{Checkpoint, Patch};
use regrow_inference::{DenseExecutor, LayerExecutor};
use regrow_sparse_core::layerwise::advance_all;
use regrow_sparse_core::layerwise::{BlockModel, LayerRef};
use regrow_sparse_core::{Error, Result};

use crate::block::{Attention, Block, Mlp, Norm, Observer, SequenceContext};
use crate::config::{Config, NormKind, Positions};

/// A transformer of one of the families that [`Config`] reads, its weights in a checkpoint.
#[derive(Debug)]
pub struct Transformer {
    /// Its sizes and conventions.
    pub config: Config,
    checkpoint: Checkpoint,
    device: Device,
}

/// The head's name, and that of its weight.
pub(super) const HEAD: &str = "lm_head";
pub(super) const HEAD_WEIGHT: &str = "lm_head.weight";

/// What turns tokens into hidden states.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[vocab, width]`.
    pub(super) tokens: Param<Tensor<2>>,
    /// A row for each position, `offset` rows before them.
    pub(super) positions: Option<Param<Tensor<2>>>,
    pub(super) offset: usize,
    /// What encoders add to every token, `[1, width]`.
    kind: Option<Param<Tensor<2>>>,
    /// The norm of the sum, in encoders.
    norm: Option<Norm>,
}

/// What turns hidden states into logits.
#[derive(Module, Debug)]
pub struct Head {
    pub(super) norm: Norm,
    /// The embedding's own weights where there is none.
    pub(super) untied: Option<Linear>,
}

impl Transformer {
    /// Opens a Hugging Face directory; weights are read when they are asked for.
    ///
    /// # Errors
    /// A folder without `config.json` or weights, a family or variant that is not supported, tensors
    /// that are missing or of other shapes than the configuration has.
    pub fn open(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let folder = folder.as_ref();
        let checkpoint = Checkpoint::open(folder)?;
        let config = Config::read(folder, &checkpoint)?;
        let decoder = Self { config, checkpoint, device: device.clone() };
        for index in 0..decoder.config.layers {
            for layer in decoder.layers(index) {
                decoder.shape_of(&layer)?;
            }
        }
        Ok(decoder)
    }

    /// The tensors on disk.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Where tensors are loaded to.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Loads the embedding.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape, or holds NaN or infinity.
    pub fn embedding(&self) -> Result<Embedding> {
        let Config { vocab, width, context, names, .. } = &self.config;
        let matrix = |name: &str, shape| -> Result<_> {
            Ok(Param::from_tensor(self.matrix(&self.checkpoint, &self.name(name), shape)?))
        };
        let offset = if let Positions::Learned { offset } = self.config.positions { offset } else { 0 };
        let positions = names.positions.map(|name| matrix(name, [context + offset, *width])).transpose()?;
        let [kind, norm] = names.of_encoder.map_or([None; 2], |parts| parts.map(Some));
        Ok(Embedding {
            tokens: matrix(names.embedding, [*vocab, *width])?,
            positions,
            offset,
            kind: kind.map(|name| self.first_kind(name)).transpose()?,
            norm: norm.map(|name| self.norm(&self.checkpoint, &self.name(name))).transpose()?,
        })
    }

    /// The vector of the first kind of token: there is only one in a single text.
    fn first_kind(&self, name: &str) -> Result<Param<Tensor<2>>> {
        let name = self.name(name);
        let rows = self.checkpoint.entry(&format!("{name}.weight"))?.shape.first().copied().unwrap_or(0);
        let table = self.matrix(&self.checkpoint, &name, [rows.max(1), self.config.width])?;
        Ok(Param::from_tensor(table.narrow(0, 0, 1)))
    }

    /// Loads the final norm and the head's own weights, unless those are the embedding's.
    ///
    /// # Errors
    /// As [`Transformer::embedding`]; an encoder, which has none.
    pub fn head(&self) -> Result<Head> {
        if self.config.encoder {
            let reason = format!("is a {}, an encoder, which predicts no next token", self.config.family);
            return Err(Error::format(self.checkpoint.path(), reason));
        }
        let Config { vocab, width, names, .. } = &self.config;
        let norm = self.norm(&self.checkpoint, &self.name(names.final_norm))?;
        let untied = self.checkpoint.entry(HEAD_WEIGHT).is_ok().then(|| {
            let weight = self.matrix(&self.checkpoint, HEAD, [*vocab, *width])?.transpose();
            Ok::<_, Error>(Linear { weight: Param::from_tensor(weight), bias: None })
        });
        Ok(Head { norm, untied: untied.transpose()? })
    }

    /// The matrix that makes logits: the head's own, or the embedding's where they share one.
    ///
    /// # Errors
    /// An encoder, which has none.
    pub fn head_layer(&self) -> Result<LayerRef> {
        let tied = !self.head()?.has_own();
        Ok(match tied {
            true => self.embedding_layer(),
            false => LayerRef { tensor: HEAD_WEIGHT.into(), input: 0, place: 0, transposed: false },
        })
    }

    /// The matrix that token numbers look rows up in.
    pub fn embedding_layer(&self) -> LayerRef {
        let tensor = format!("{}.weight", self.name(self.config.names.embedding));
        LayerRef { tensor, input: 0, place: 0, transposed: false }
    }

    /// Takes hidden states `[batch, tokens, width]` through all blocks, one block in memory at a time.
    ///
    /// # Errors
    /// As [`Transformer::embedding`].
    pub fn run(&self, hidden: &mut [Tensor<3>]) -> Result<()> {
        for index in 0..self.config.layers {
            let block = self.load(&self.checkpoint, index)?;
            // The values were copied; what the file is mapped to is not needed.
            self.layers(index).iter().for_each(|layer| self.checkpoint.release(&layer.tensor));
            for x in hidden.chunk_by_mut(|a, b| a.dims() == b.dims()) {
                let context = self.context(x[0].dims()[1]);
                advance_all(x, |x| block.forward(x, &context, &mut |_, _| {}));
            }
        }
        Ok(())
    }

    /// What blocks need to know of sequences of `tokens` tokens.
    pub fn context(&self, tokens: usize) -> SequenceContext {
        SequenceContext::new(&self.config, tokens, &self.device)
    }

    pub(super) fn name(&self, part: &str) -> String {
        format!("{}{part}", self.config.names.prefix)
    }

    pub(super) fn block_name(&self, index: usize, part: &str) -> String {
        format!("{}{}.{index}.{part}", self.config.names.prefix, self.config.names.blocks)
    }

    /// `[d_out, d_in]` of a linear layer by the configuration, refused where the checkpoint has another.
    fn shape_of(&self, layer: &LayerRef) -> Result<[usize; 2]> {
        let Config { width, heads, kv_heads, head_dim, inner, names, .. } = &self.config;
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        let shape = match (layer.input, layer.place) {
            (0, _) if names.qkv.len() == 1 => [q + 2 * kv, *width],
            (0, 0) => [q, *width],
            (0, _) => [kv, *width],
            (1, _) => [*width, q],
            (2, _) => [*inner, *width],
            _ => [*width, *inner],
        };
        let stored = if layer.transposed { [shape[1], shape[0]] } else { shape };
        self.check(&self.checkpoint, &layer.tensor, &stored)?;
        Ok(shape)
    }

    fn check(&self, source: &Checkpoint, tensor: &str, shape: &[usize]) -> Result<()> {
        let found = &source.entry(tensor)?.shape;
        match found.as_slice() == shape {
            true => Ok(()),
            false => {
                let reason = format!("tensor {tensor:?} has shape {found:?}, config.json says {shape:?}");
                Err(Error::format(source.path(), reason))
            }
        }
    }

    /// `name.weight` of this shape, as it is stored.
    fn matrix(&self, source: &Checkpoint, name: &str, shape: [usize; 2]) -> Result<Tensor<2>> {
        let tensor = format!("{name}.weight");
        self.check(source, &tensor, &shape)?;
        Ok(Tensor::from_data(TensorData::new(finite(source, &tensor)?, shape), &self.device))
    }

    fn vector(&self, source: &Checkpoint, tensor: &str, len: usize) -> Result<Param<Tensor<1>>> {
        self.check(source, tensor, &[len])?;
        let values = TensorData::new(finite(source, tensor)?, [len]);
        Ok(Param::from_tensor(Tensor::from_data(values, &self.device)))
    }

    /// `name.bias`, if there is one.
    fn bias(&self, source: &Checkpoint, name: &str, len: usize) -> Result<Option<Param<Tensor<1>>>> {
        let tensor = format!("{name}.bias");
        source.entry(&tensor).is_ok().then(|| self.vector(source, &tensor, len)).transpose()
    }

    fn linear(&self, source: &Checkpoint, layer: &LayerRef) -> Result<Linear> {
        let [d_out, d_in] = self.shape_of(layer)?;
        let name = layer.tensor.trim_end_matches(".weight");
        // Burn stores [d_in, d_out]; the transpose is a view.
        let weight = match layer.transposed {
            true => self.matrix(source, name, [d_in, d_out])?,
            false => self.matrix(source, name, [d_out, d_in])?.transpose(),
        };
        Ok(Linear { weight: Param::from_tensor(weight), bias: self.bias(source, name, d_out)? })
    }

    fn norm(&self, source: &Checkpoint, name: &str) -> Result<Norm> {
        let width = self.config.width;
        match self.config.norm {
            NormKind::Rms { .. } => Ok(Norm::Rms(self.rms(source, name, width)?)),
            NormKind::Layer { eps } => {
                let mut norm = LayerNormConfig::new(width).with_epsilon(eps).init(&self.device);
                norm.gamma = self.vector(source, &format!("{name}.weight"), width)?;
                norm.beta = self.bias(source, name, width)?;
                Ok(Norm::Layer(norm))
            }
        }
    }

    fn rms(&self, source: &Checkpoint, name: &str, len: usize) -> Result<RmsNorm> {
        let eps = if let NormKind::Rms { eps } = self.config.norm { eps } else { 1e-6 };
        let gamma = self.vector(source, &format!("{name}.weight"), len)?;
        Ok(RmsNorm { gamma, ..RmsNormConfig::new(len).with_epsilon(eps).init(&self.device) })
    }
}

/// The values of a tensor, refused where one is not finite.
fn finite(source: &Checkpoint, tensor: &str) -> Result<Vec<f32>> {
    let values = source.read_f32(tensor)?;
    match values.iter().all(|v| v.is_finite()) {
        true => Ok(values),
        false => Err(Error::format(source.path(), format!("tensor {tensor:?} holds NaN or infinity"))),
    }
}

impl BlockModel for Transformer {
    type Block = Block;
    type SequenceContext = SequenceContext;

    fn blocks(&self) -> usize {
        self.config.layers
    }

    fn layers(&self, index: usize) -> Vec<LayerRef> {
        let names = &self.config.names;
        let gate_up: Vec<&str> = names.gate.into_iter().chain([names.up]).collect();
        let groups: [&[&str]; 4] = [names.qkv, &[names.attention_out], &gate_up, &[names.down]];
        let layer = |input: usize, place: usize, part: &str| LayerRef {
            tensor: format!("{}.weight", self.block_name(index, part)),
            input,
            place,
            transposed: names.transposed,
        };
        let of_group = |(input, parts): (usize, &&[&str])| -> Vec<LayerRef> {
            parts.iter().enumerate().map(|(place, part)| layer(input, place, part)).collect()
        };
        groups.iter().enumerate().flat_map(of_group).collect()
    }

    fn load(&self, source: &Checkpoint, index: usize) -> Result<Block> {
        let Config { heads, kv_heads, head_dim, names, activation, .. } = &self.config;
        let mut groups: [Vec<Linear>; 4] = Default::default();
        for layer in self.layers(index) {
            groups[layer.input].push(self.linear(source, &layer)?);
        }
        let [qkv, mut out, mut gate_up, mut down] = groups;
        let missing = || Error::format(source.path(), format!("block {index} lacks a linear layer"));
        let head_norm = |part: &str| {
            let name = self.block_name(index, part);
            let there = source.entry(&format!("{name}.weight")).is_ok();
            there.then(|| self.rms(source, &name, *head_dim)).transpose()
        };
        Ok(Block {
            norm1: self.norm(source, &self.block_name(index, names.norm1))?,
            attention: Attention {
                qkv,
                out: out.pop().ok_or_else(missing)?,
                query_norm: head_norm("self_attn.q_norm")?,
                key_norm: head_norm("self_attn.k_norm")?,
                heads: *heads,
                kv_heads: *kv_heads,
                head_dim: *head_dim,
            },
            norm2: self.norm(source, &self.block_name(index, names.norm2))?,
            mlp: Mlp {
                up: gate_up.pop().ok_or_else(missing)?,
                gate: gate_up.pop(),
                down: down.pop().ok_or_else(missing)?,
                activation: *activation,
            },
            norms_after: self.config.encoder,
        })
    }

    fn store_block(&self, index: usize, block: &Block, out: &mut Patch) -> Result<()> {
        self.write_block(index, block, out)
    }

    fn replaced(&self, block: &Block, layer: &LayerRef, values: &[f32]) -> Block {
        let mut block = block.clone();
        let Block { attention, mlp, .. } = &mut block;
        let of_group = match layer.input {
            0 => attention.qkv.get_mut(layer.place),
            1 => Some(&mut attention.out),
            2 => mlp.gate.iter_mut().chain([&mut mlp.up]).nth(layer.place),
            _ => Some(&mut mlp.down),
        };
        if let Some(linear) = of_group {
            let [d_in, d_out] = linear.weight.dims();
            let weight: Tensor<2> = Tensor::from_data(TensorData::new(values.to_vec(), [d_out, d_in]), &self.device);
            linear.weight = Param::from_tensor(weight.transpose());
        }
        block
    }

    fn forward(&self, block: &Block, x: Tensor<3>, context: &SequenceContext, observe: &mut Observer<'_>) -> Tensor<3> {
        block.forward(x, context, observe)
    }
}

impl Embedding {
    /// Hidden states `[batch, tokens, width]` of token numbers `[batch, tokens]`.
    pub fn forward(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        self.forward_at(ids, 0)
    }

    /// The same of tokens after the `first` of a text.
    pub(super) fn forward_at(&self, ids: Tensor<2, Int>, first: usize) -> Tensor<3> {
        let [batch, tokens] = ids.dims();
        let table = self.tokens.val();
        let width = table.dims()[1];
        let hidden = table.select(0, ids.flatten::<1>(0, 1)).reshape([batch, tokens, width]);
        let hidden = match &self.positions {
            Some(table) => hidden + table.val().narrow(0, self.offset + first, tokens).unsqueeze::<3>(),
            None => hidden,
        };
        let hidden = match &self.kind {
            Some(kind) => hidden + kind.val().unsqueeze::<3>(),
            None => hidden,
        };
        match &self.norm {
            Some(norm) => norm.forward(hidden),
            None => hidden,
        }
    }
}

impl Head {
    /// Whether it has weights of its own, not the embedding's.
    pub fn has_own(&self) -> bool {
        self.untied.is_some()
    }

    /// What the matrix of the head reads, `[batch * tokens, width]`, of hidden states after the last block.
    pub fn input(&self, hidden: Tensor<3>) -> Tensor<2> {
        self.norm.forward(hidden).flatten(0, 1)
    }

    /// Logits `[batch, tokens, vocab]` of hidden states `[batch, tokens, width]`; `embedding` is the model's.
    pub fn forward(&self, hidden: Tensor<3>, embedding: &Embedding) -> Tensor<3> {
        self.forward_by(hidden, embedding, &mut DenseExecutor)
    }

    /// The same where `layers` computes its matrix, as `head`.
    pub(super) fn forward_by(
        &self,
        hidden: Tensor<3>,
        embedding: &Embedding,
        layers: &mut dyn LayerExecutor,
    ) -> Tensor<3> {
        let [batch, tokens, _] = hidden.dims();
        let flat = self.input(hidden);
        let logits = match &self.untied {
            Some(linear) => layers.linear("head", linear, flat),
            None => {
                // No parameter of its own: gradients are the embedding's.
                let weight = Param::initialized(ParamId::new(), embedding.tokens.val().transpose());
                layers.linear("head", &Linear { weight, bias: None }, flat)
            }
        };
        let vocab = logits.dims()[1];
        logits.reshape([batch, tokens, vocab])
    }
}
