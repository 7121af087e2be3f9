//! One block of a transformer: attention and feed-forward layers, each with a norm before or after it.

use burn::module::Module;
use burn::nn::{LayerNorm, Linear, RmsNorm};
use burn::tensor::activation::{gelu, relu, silu};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor, TensorData};
use regrow_inference::{DenseExecutor, LayerExecutor};

use crate::config::{Activation, Config, Positions};
use crate::rope::rotate;

/// A block; its linear layers in the order of [`INPUTS`](crate::INPUTS).
#[derive(Module, Debug)]
pub struct Block {
    pub(super) norm1: Norm,
    pub(super) attention: Attention,
    pub(super) norm2: Norm,
    pub(super) mlp: Mlp,
    /// Whether the norms come after each half, as in encoders.
    pub(super) norms_after: bool,
}

/// A norm of either type.
#[derive(Module, Debug)]
pub enum Norm {
    /// Root mean square.
    Rms(RmsNorm),
    /// Mean and variance.
    Layer(LayerNorm),
}

impl Norm {
    /// Normalizes the last dimension.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Rms(norm) => norm.forward(x),
            Self::Layer(norm) => norm.forward(x),
        }
    }
}

/// Attention whose key and value heads may be shared by several query heads.
#[derive(Module, Debug)]
pub struct Attention {
    /// Queries, keys, values; or one layer for all.
    pub(super) qkv: Vec<Linear>,
    pub(super) out: Linear,
    pub(super) query_norm: Option<RmsNorm>,
    pub(super) key_norm: Option<RmsNorm>,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
}

/// The feed-forward layers: `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` without a gate.
#[derive(Module, Debug)]
pub struct Mlp {
    pub(super) gate: Option<Linear>,
    pub(super) up: Linear,
    pub(super) down: Linear,
    #[module(skip)]
    pub(super) activation: Activation,
}

/// What all blocks need to know about a sequence.
#[derive(Clone, Debug)]
pub struct SequenceContext {
    /// Cosines and sines, where positions are rotary.
    pub(super) tables: Option<[Tensor<2>; 2]>,
    pub(super) sight: Sight,
    /// How many tokens back a token sees, itself included, if not all.
    pub(super) window: Option<usize>,
}

/// The names of the query, key and value layers.
const QKV: [&str; 3] = ["attention.qkv.0", "attention.qkv.1", "attention.qkv.2"];

/// What a token attends to.
#[derive(Clone, Debug)]
pub(super) enum Sight {
    /// Every token.
    All,
    /// Itself and the tokens before it.
    Before,
    /// The tokens whose scores `[tokens, positions]` this leaves unchanged. It is added, not given as a mask: backends
    /// disagree on which tokens a mask selects.
    By(Box<Tensor<2>>),
}

impl SequenceContext {
    /// For sequences of `tokens` tokens.
    pub fn new(config: &Config, tokens: usize, device: &Device) -> Self {
        let tables = Self::tables(config, tokens, device);
        let sight = match config.sliding_window {
            _ if config.encoder => Sight::All,
            Some(window) if window < tokens => Sight::By(Box::new(within(tokens, window, device))),
            _ => Sight::Before,
        };
        Self { tables, sight, window: config.sliding_window }
    }

    /// Cosines and sines for `tokens` tokens.
    pub(super) fn tables(config: &Config, tokens: usize, device: &Device) -> Option<[Tensor<2>; 2]> {
        match &config.positions {
            Positions::Rotary(rope) => Some(rope.tables(tokens, config.head_dim, device)),
            Positions::Learned { .. } => None,
        }
    }

    /// For the one token at `place`, which sees everything that is [`Kept`], with these tables of a longer text.
    pub(super) fn at(place: usize, tables: Option<&[Tensor<2>; 2]>, window: Option<usize>, device: &Device) -> Self {
        let row = |table: &Tensor<2>| table.clone().narrow(0, place, 1);
        let tables = tables.map(|[cos, sin]| [row(cos), row(sin)]);
        let (filled, positions) = (kept(place + 1, window), kept_positions(place + 1, window));
        let sight = match filled == positions {
            true => Sight::All,
            false => Sight::By(Box::new(added(1, positions, |_, to| to < filled, device))),
        };
        Self { tables, sight, window }
    }
}

/// Added to a token's scores: 0 for tokens at most `window` before it, including itself, and for all others a large
/// negative number that masks the score.
fn within(tokens: usize, window: usize, device: &Device) -> Tensor<2> {
    added(tokens, tokens, |from, to| to <= from && from - to < window, device)
}

/// `[tokens, positions]`: 0 where a token attends to a position.
fn added(tokens: usize, positions: usize, seen: impl Fn(usize, usize) -> bool, device: &Device) -> Tensor<2> {
    let added = |i: usize| if seen(i / positions, i % positions) { 0.0 } else { -1e9 };
    let added: Vec<f32> = (0..tokens * positions).map(added).collect();
    Tensor::from_data(TensorData::new(added, [tokens, positions]), device)
}

/// Callback for the inputs of linear layers: the number of the input, and its values `[tokens, d_in]`.
pub type Observer<'a> = dyn FnMut(usize, Tensor<2>) + 'a;

/// Context of a block's run: observer, layer executor, key/value cache.
pub(super) struct Company<'a, 'b> {
    pub(super) observe: &'a mut Observer<'b>,
    pub(super) layers: &'a mut dyn LayerExecutor,
    pub(super) kept: Option<&'a mut Kept>,
}

/// Cache positions allocated at a time: each allocation copies the whole cache.
const ROOM: usize = 64;

/// How many of `tokens` tokens are cached.
fn kept(tokens: usize, window: Option<usize>) -> usize {
    tokens.min(window.unwrap_or(tokens))
}

/// In how many positions.
fn kept_positions(tokens: usize, window: Option<usize>) -> usize {
    kept(tokens.next_multiple_of(ROOM), window)
}

/// The key/value cache, `[1, heads, positions, head_dim]`. Positions after the last token are zeros, reserved for more;
/// with a window, the oldest token outside it is overwritten by the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    both: Option<[Tensor<4>; 2]>,
    /// The number of tokens so far.
    tokens: usize,
    /// The position after the last token's.
    next: usize,
}

impl Kept {
    /// Adds new tokens, one at a time if there were some before; returns everything that they attend to.
    fn add(&mut self, new: [Tensor<4>; 2], window: Option<usize>) -> [Tensor<4>; 2] {
        let [_, heads, count, dim] = new[0].dims();
        self.tokens += count;
        let positions = kept_positions(self.tokens, window);
        let roomy = |x: Tensor<4>| match positions - x.dims()[2] {
            0 => x,
            more => Tensor::cat(vec![x.clone(), Tensor::zeros([1, heads, more, dim], &x.device())], 2),
        };
        let Some(both) = self.both.take() else {
            let last = kept(count, window);
            self.next = last;
            self.both = Some(new.clone().map(|x| roomy(x.narrow(2, count - last, last))));
            // The first tokens attend to each other as `SequenceContext` says.
            return new;
        };
        let place = if window == Some(self.next) { 0 } else { self.next };
        self.next = place + 1;
        let ([keys, values], [k, v]) = (both.map(roomy), new);
        let at = [0..1, 0..heads, place..place + 1, 0..dim];
        let all = [keys.slice_assign(at.clone(), k), values.slice_assign(at, v)];
        self.both = Some(all.clone());
        all
    }
}

impl Block {
    /// Hidden states `[batch, tokens, width]` after the block; `observe` gets the input of each group of linear layers.
    pub fn forward(&self, x: Tensor<3>, context: &SequenceContext, observe: &mut Observer<'_>) -> Tensor<3> {
        self.forward_in(x, context, &mut Company { observe, layers: &mut DenseExecutor, kept: None })
    }

    /// The same with a given executor and cache.
    pub(super) fn forward_in(
        &self,
        x: Tensor<3>,
        context: &SequenceContext,
        company: &mut Company<'_, '_>,
    ) -> Tensor<3> {
        if self.norms_after {
            let x = self.norm1.forward(x.clone() + self.attention.forward(x, context, company));
            return self.norm2.forward(x.clone() + self.mlp.forward(x, company));
        }
        let y = self.attention.forward(self.norm1.forward(x.clone()), context, company);
        let x = x + y;
        x.clone() + self.mlp.forward(self.norm2.forward(x), company)
    }
}

impl Company<'_, '_> {
    fn see(&mut self, input: usize, x: &Tensor<3>) {
        (self.observe)(input, flat(x));
    }

    fn linear(&mut self, name: &str, layer: &Linear, x: Tensor<3>) -> Tensor<3> {
        let [batch, tokens, _] = x.dims();
        let y = self.layers.linear(name, layer, x.flatten(0, 1));
        let width = y.dims()[1];
        y.reshape([batch, tokens, width])
    }
}

/// `[batch, tokens, d]` as `[batch * tokens, d]`.
fn flat(x: &Tensor<3>) -> Tensor<2> {
    x.clone().flatten(0, 1)
}

impl Attention {
    fn forward(&self, x: Tensor<3>, context: &SequenceContext, company: &mut Company<'_, '_>) -> Tensor<3> {
        company.see(0, &x);
        let [batch, tokens, _] = x.dims();
        let qkv = self.qkv.iter().enumerate();
        let projected = qkv.map(|(i, layer)| company.linear(QKV[i.min(2)], layer, x.clone())).collect();
        let [q, k, v] = self.split(projected);
        let split = |t: Tensor<3>, heads: usize| t.reshape([batch, tokens, heads, self.head_dim]);
        let normed = |t: Tensor<4>, norm: &Option<RmsNorm>| if let Some(norm) = norm { norm.forward(t) } else { t };
        let q = normed(split(q, self.heads), &self.query_norm).swap_dims(1, 2);
        let k = normed(split(k, self.kv_heads), &self.key_norm).swap_dims(1, 2);
        let v = split(v, self.kv_heads).swap_dims(1, 2);
        let (q, k) = match &context.tables {
            Some(tables) => (rotate(q, tables), rotate(k, tables)),
            None => (q, k),
        };
        let [k, v] = match &mut company.kept {
            Some(kept) => kept.add([k, v], context.window),
            None => [k, v],
        };
        let mixed = self.mixed([q, k, v], &context.sight);
        let mixed = mixed.swap_dims(1, 2).reshape([batch, tokens, self.heads * self.head_dim]);
        company.see(1, &mixed);
        company.linear("attention.out", &self.out, mixed)
    }

    fn split(&self, mut projected: Vec<Tensor<3>>) -> [Tensor<3>; 3] {
        if projected.len() == 1 {
            let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
            let all = projected.remove(0);
            return [all.clone().narrow(2, 0, q), all.clone().narrow(2, q, kv), all.narrow(2, q + kv, kv)];
        }
        let (v, k, q) = (projected.remove(2), projected.remove(1), projected.remove(0));
        [q, k, v]
    }

    /// Attention output for the queries `[batch, heads, tokens, head_dim]`.
    fn mixed(&self, [q, k, v]: [Tensor<4>; 3], sight: &Sight) -> Tensor<4> {
        let ([batch, heads, tokens, dim], repeats) = (q.dims(), self.heads / self.kv_heads);
        // For one token, the queries that share keys and values are stacked: nothing is repeated.
        let (q, k, v) = match tokens {
            1 => (q.reshape([batch, self.kv_heads, repeats, dim]), k, v),
            _ => (q, self.shared(k), self.shared(v)),
        };
        let [_, groups, rows, _] = q.dims();
        let added = match sight {
            Sight::By(added) => Some(Tensor::clone(added).unsqueeze::<4>().expand([batch, groups, rows, k.dims()[2]])),
            Sight::All | Sight::Before => None,
        };
        let is_causal = matches!(sight, Sight::Before) && tokens > 1;
        let options = AttentionModuleOptions { is_causal, ..AttentionModuleOptions::default() };
        attention(q, k, v, None, added, options).reshape([batch, heads, tokens, dim])
    }

    /// Each key or value head, repeated for the queries that share it.
    fn shared(&self, x: Tensor<4>) -> Tensor<4> {
        let (repeats, [batch, heads, tokens, dim]) = (self.heads / self.kv_heads, x.dims());
        if repeats == 1 {
            return x;
        }
        x.unsqueeze_dim::<5>(2).repeat_dim(2, repeats).reshape([batch, heads * repeats, tokens, dim])
    }
}

impl Mlp {
    fn forward(&self, x: Tensor<3>, company: &mut Company<'_, '_>) -> Tensor<3> {
        company.see(2, &x);
        let act = |t: Tensor<3>| match self.activation {
            Activation::Silu => silu(t),
            Activation::Relu => relu(t),
            Activation::Gelu => gelu(t),
            Activation::GeluTanh => gelu_tanh(t),
        };
        let up = company.linear("mlp.up", &self.up, x.clone());
        let inner = match &self.gate {
            Some(gate) => act(company.linear("mlp.gate", gate, x)) * up,
            None => act(up),
        };
        company.see(3, &inner);
        company.linear("mlp.down", &self.down, inner)
    }
}

/// `x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`.
fn gelu_tanh(x: Tensor<3>) -> Tensor<3> {
    let inner = (x.clone() + x.clone().powf_scalar(3.0) * 0.044_715) * (2.0 / std::f64::consts::PI).sqrt();
    x * 0.5 * (inner.tanh() + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_tokens_are_kept_and_nothing_else() {
        let device = regrow_device::current();
        // Token t as the number t + 1.
        let tokens = |from: usize, to: usize| {
            let values: Vec<f32> = (from..to).map(|t| t as f32 + 1.0).collect();
            Tensor::<4>::from_data(TensorData::new(values, [1, 1, to - from, 1]), &device)
        };
        for (first, window) in [(3, None), (64, None), (3, Some(5)), (5, Some(5)), (9, Some(5)), (60, Some(70))] {
            let mut memory = Kept::default();
            let prompt = memory.add([tokens(0, first), tokens(0, first)], window);
            assert_eq!(prompt.map(|x| x.dims()[2]), [first; 2]);
            for t in first..140 {
                let [keys, values] = memory.add([tokens(t, t + 1), tokens(t, t + 1)], window);
                assert_eq!(keys.dims()[2], kept_positions(t + 1, window), "{first} {window:?} {t}");
                let mut found: Vec<f32> = keys.into_data().iter().collect();
                assert_eq!(found, values.into_data().iter::<f32>().collect::<Vec<_>>());
                // Entries that no token has are after the cached ones: `SequenceContext::at` hides them there.
                let room = found.split_off(kept(t + 1, window));
                assert!(room.iter().all(|v| *v == 0.0), "{first} {window:?} {t}");
                found.sort_by(f32::total_cmp);
                let last = (t + 1 - found.len()..=t).map(|t| t as f32 + 1.0);
                assert!(found.iter().copied().eq(last), "{first} {window:?} {t}: {found:?}");
            }
        }
    }
}
