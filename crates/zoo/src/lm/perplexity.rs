//! Perplexity: how surprised a model is by a text.

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Int, Tensor};
use regrow_sparse_core::Result;
use regrow_sparse_core::blockwise::BlockModel;

use super::text::batch;
use super::transformer::{Head, Transformer};

/// Tokens whose hidden states are held at once.
const HELD: usize = 1 << 16;
/// Tokens that go through a block, or through the head, together.
const TOGETHER: usize = 1 << 11;

/// A perplexity and what it is the mean of.
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

/// The perplexity over `windows` of one length, each by itself: every token but the first of a window
/// is predicted from those before it.
///
/// One block is in memory at a time, and the hidden states of some tens of thousands of tokens. `watch`
/// is told the tokens done and all there are.
///
/// # Errors
/// Weights that are missing or not finite.
pub fn perplexity(model: &Transformer, windows: &[&[u32]], watch: &mut dyn FnMut(usize, usize)) -> Result<Perplexity> {
    let tokens = windows.first().map_or(0, |w| w.len());
    let (places, embedding, head) = (model.places(tokens), model.embedding()?, model.head()?);
    let per = |budget: usize| (budget / tokens.max(1)).max(1);
    let mut sum = Perplexity { loss: 0.0, tokens: 0 };
    for held in windows.chunks(per(HELD)) {
        let parts: Vec<&[&[u32]]> = held.chunks(per(TOGETHER)).collect();
        let mut hidden: Vec<Tensor<3>> =
            parts.iter().map(|part| embedding.forward(batch(part, model.device()))).collect();
        for index in 0..model.blocks() {
            let block = model.load(model.checkpoint(), index)?;
            for x in &mut hidden {
                *x = model.forward(&block, x.clone(), &places, &mut |_, _| {});
            }
        }
        for (part, x) in parts.iter().zip(hidden) {
            sum.loss += loss(&head, x, batch(part, model.device()));
            sum.tokens += part.len() * (tokens - 1);
            watch(sum.tokens, windows.len() * (tokens - 1));
        }
    }
    Ok(sum)
}

/// The summed negative log-likelihood of every token but the first.
fn loss(head: &Head, hidden: Tensor<3>, ids: Tensor<2, Int>) -> f64 {
    let [_, tokens] = ids.dims();
    let logits = head.forward(hidden.narrow(1, 0, tokens - 1));
    let targets = ids.narrow(1, 1, tokens - 1).unsqueeze_dim::<3>(2);
    let chosen = softmax(logits.clone(), 2).gather(2, targets.clone()).into_data().convert::<f32>();
    // Where a probability is too small for an f32, its logarithm still is not.
    if chosen.iter::<f32>().any(|p| p < 1e-30) {
        let chosen = log_softmax(logits, 2).gather(2, targets).into_data().convert::<f32>();
        return -chosen.iter::<f32>().map(f64::from).sum::<f64>();
    }
    // Summed in f64: hundreds of thousands of terms.
    -chosen.iter::<f32>().map(|p| f64::from(p).ln()).sum::<f64>()
}
