//! Perplexity: how well a model predicts a text.

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Int, Tensor};
use regrow_inference::{DenseExecutor, LayerExecutor};
use regrow_sparse_core::Result;

use crate::block::SequenceContext;
use crate::config::Config;
use crate::decoder::Decoder;
use crate::text::{Window, batch};
use crate::transformer::{Embedding, Head, Transformer};

/// Tokens whose hidden states are in memory at once.
pub(super) const HELD: usize = 1 << 16;
/// Tokens that pass through a block, or through the head, together.
pub(super) const TOGETHER: usize = 1 << 11;

/// A perplexity, as loss and number of tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Perplexity {
    /// Sum of the negative log-likelihoods, in nats.
    pub loss: f64,
    /// Tokens predicted.
    pub tokens: usize,
}

impl Perplexity {
    /// `exp(loss / tokens)`.
    pub fn value(&self) -> f64 {
        (self.loss / self.tokens.max(1) as f64).exp()
    }
}

/// The perplexity over `windows`, each independently: its last tokens, as many as it specifies, are predicted from
/// those before them.
///
/// One block is in memory at a time, and the hidden states of some tens of thousands of tokens. `watch` is called with
/// the finished tokens and the total.
///
/// # Errors
/// Weights that are missing or not finite; an encoder.
pub fn perplexity(
    model: &Transformer,
    windows: &[Window<'_>],
    watch: &mut dyn FnMut(usize, usize),
) -> Result<Perplexity> {
    let (embedding, head) = (model.embedding()?, model.head()?);
    let mut run = |hidden: &mut [Tensor<3>], _: &mut dyn LayerExecutor| model.run(hidden);
    over((&embedding, &head), model.device(), windows, (&mut run, &mut DenseExecutor), watch)
}

/// The same for a decoder that is completely in memory, with its `config`, on `device`.
pub fn perplexity_of(
    decoder: &Decoder,
    config: &Config,
    windows: &[Window<'_>],
    device: &Device,
) -> Result<Perplexity> {
    perplexity_by((decoder, &mut DenseExecutor), config, windows, device, &mut |_, _| {})
}

/// The same with linear layers computed by `layers`; `watch` as in [`perplexity`].
pub fn perplexity_by(
    (decoder, layers): (&Decoder, &mut dyn LayerExecutor),
    config: &Config,
    windows: &[Window<'_>],
    device: &Device,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<Perplexity> {
    let mut run = |hidden: &mut [Tensor<3>], layers: &mut dyn LayerExecutor| {
        for x in hidden {
            let context = SequenceContext::new(config, x.dims()[1], device);
            // Not shared: layers may work in place.
            let own = std::mem::replace(x, Tensor::empty([1, 1, 1], device));
            *x = decoder.run_by(own, &context, layers);
        }
        Ok(())
    };
    over((&decoder.embedding, &decoder.head), device, windows, (&mut run, layers), watch)
}

/// The token numbers `[windows, tokens]` of the first windows that pass through a model together: the sample a model is
/// compressed for.
pub fn together(windows: &[Window<'_>], device: &Device) -> Tensor<2, Int> {
    let longest = windows.iter().map(|w| w.tokens.len()).max().unwrap_or(0).max(1);
    let first = alike(windows, (TOGETHER / longest).max(1)).into_iter().next().unwrap_or_default();
    batch(&first.iter().map(|w| w.tokens).collect::<Vec<_>>(), device)
}

/// Runs the blocks on hidden states, with linear layers computed by an executor.
type Run<'a> = dyn FnMut(&mut [Tensor<3>], &mut dyn LayerExecutor) -> Result<()> + 'a;

/// The perplexity of the model whose blocks are `run`, its linear layers computed by `layers`.
fn over(
    (embedding, head): (&Embedding, &Head),
    device: &Device,
    windows: &[Window<'_>],
    (run, layers): (&mut Run<'_>, &mut dyn LayerExecutor),
    watch: &mut dyn FnMut(usize, usize),
) -> Result<Perplexity> {
    let longest = windows.iter().map(|w| w.tokens.len()).max().unwrap_or(0).max(1);
    let all = windows.iter().map(|w| w.scored).sum();
    let mut sum = Perplexity { loss: 0.0, tokens: 0 };
    for held in windows.chunks((HELD / longest).max(1)) {
        let parts: Vec<&[Window<'_>]> = alike(held, (TOGETHER / longest).max(1));
        let ids = |part: &&[Window<'_>]| batch(&part.iter().map(|w| w.tokens).collect::<Vec<_>>(), device);
        let mut hidden: Vec<_> = parts.iter().map(|part| embedding.forward(ids(part))).collect();
        run(&mut hidden, layers)?;
        for (part, x) in parts.iter().zip(hidden) {
            let scored = part[0].scored;
            let [_, tokens, _] = x.dims();
            let logits = head.forward_by(x.narrow(1, tokens - 1 - scored, scored), embedding, layers);
            sum.loss += loss(logits, ids(part), scored);
            sum.tokens += part.len() * scored;
            watch(sum.tokens, all);
        }
    }
    Ok(sum)
}

/// Groups of consecutive windows of equal size, at most `most` long.
fn alike<'a, 'b>(windows: &'a [Window<'b>], most: usize) -> Vec<&'a [Window<'b>]> {
    let kind = |w: &Window<'_>| (w.tokens.len(), w.scored);
    windows.chunk_by(|a, b| kind(a) == kind(b)).flat_map(|run| run.chunks(most)).collect()
}

/// The summed negative log-likelihood of the last `scored` tokens, each from the `logits` of the one before.
fn loss(logits: Tensor<3>, ids: Tensor<2, Int>, scored: usize) -> f64 {
    let [_, tokens] = ids.dims();
    let targets = ids.narrow(1, tokens - scored, scored).unsqueeze_dim::<3>(2);
    let chosen = softmax(logits.clone(), 2).gather(2, targets.clone()).into_data().convert::<f32>();
    // A probability may be too small for f32 when its logarithm is not.
    if chosen.iter::<f32>().any(|p| p < 1e-30) {
        let chosen = log_softmax(logits, 2).gather(2, targets).into_data().convert::<f32>();
        return -chosen.iter::<f32>().map(f64::from).sum::<f64>();
    }
    // Summed in f64: hundreds of thousands of terms.
    -chosen.iter::<f32>().map(|p| f64::from(p).ln()).sum::<f64>()
}
