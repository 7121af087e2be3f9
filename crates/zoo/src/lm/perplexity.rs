//! Perplexity: how surprised a decoder is by a text.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor};
use regrow_sparse_core::Result;
use regrow_sparse_core::blockwise::BlockModel;

use super::decoder::{Decoder, Head};
use super::text::batch;

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
pub fn perplexity(decoder: &Decoder, windows: &[&[u32]], watch: &mut dyn FnMut(usize, usize)) -> Result<Perplexity> {
    let tokens = windows.first().map_or(0, |w| w.len());
    let (places, embedding, head) = (decoder.places(tokens), decoder.embedding()?, decoder.head()?);
    let per = |budget: usize| (budget / tokens.max(1)).max(1);
    let mut sum = Perplexity { loss: 0.0, tokens: 0 };
    for held in windows.chunks(per(HELD)) {
        let parts: Vec<&[&[u32]]> = held.chunks(per(TOGETHER)).collect();
        let mut hidden: Vec<Tensor<3>> =
            parts.iter().map(|part| embedding.forward(batch(part, decoder.device()))).collect();
        for index in 0..decoder.blocks() {
            let block = decoder.load(decoder.checkpoint(), index)?;
            for x in &mut hidden {
                *x = decoder.forward(&block, x.clone(), &places, &mut |_, _| {});
            }
        }
        for (part, x) in parts.iter().zip(hidden) {
            sum.loss += loss(&head, x, batch(part, decoder.device()));
            sum.tokens += part.len() * (tokens - 1);
            watch(sum.tokens, windows.len() * (tokens - 1));
        }
    }
    Ok(sum)
}

/// The summed negative log-likelihood of every token but the first.
fn loss(head: &Head, hidden: Tensor<3>, ids: Tensor<2, Int>) -> f64 {
    let [batch, tokens] = ids.dims();
    let log_p = log_softmax(head.forward(hidden.narrow(1, 0, tokens - 1)), 2);
    let targets = ids.narrow(1, 1, tokens - 1).unsqueeze_dim::<3>(2);
    let chosen = log_p.gather(2, targets).reshape([batch * (tokens - 1)]);
    // Summed in f64: hundreds of thousands of terms.
    -chosen.into_data().convert::<f32>().iter::<f32>().map(f64::from).sum::<f64>()
}
