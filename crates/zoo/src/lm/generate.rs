//! Text from a decoder, one token after the other.

use burn::tensor::Tensor;
use burn::tensor::activation::softmax;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::blockwise::BlockModel;
use regrow_sparse_core::{Error, Result};

use super::text::batch;
use super::transformer::Transformer;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// 0 takes the likeliest; else tokens are drawn from `softmax(logits / temperature)`.
    pub temperature: f64,
    /// The source of randomness.
    pub seed: u64,
}

/// Continues `prompt` by `tokens` tokens, handing each to `say`; less where the context is full.
///
/// All blocks are in memory. Every token is computed from the whole text before it: the time grows with
/// the square of its length.
///
/// # Errors
/// An empty prompt or one longer than the context, a temperature that is negative or not finite, weights
/// that are missing or not finite, an encoder.
pub fn generate(
    model: &Transformer,
    prompt: &[u32],
    tokens: usize,
    choice: Choice,
    say: &mut dyn FnMut(u32) -> Result<()>,
) -> Result<()> {
    let context = model.config.context;
    if prompt.is_empty() || prompt.len() > context {
        return Err(Error::Argument(format!("a prompt of {} tokens: this model takes 1 to {context}", prompt.len())));
    }
    if !choice.temperature.is_finite() || choice.temperature < 0.0 {
        return Err(Error::Argument(format!("a temperature of {}: use 0 or more", choice.temperature)));
    }
    let (embedding, head) = (model.embedding()?, model.head()?);
    let blocks = (0..model.blocks()).map(|i| model.load(model.checkpoint(), i)).collect::<Result<Vec<_>>>()?;
    let mut random = ChaCha8Rng::seed_from_u64(choice.seed);
    let mut text = prompt.to_vec();
    for _ in 0..tokens.min(context - prompt.len()) {
        let places = model.places(text.len());
        let mut hidden = embedding.forward(batch(&[&text], model.device()));
        for block in &blocks {
            hidden = model.forward(block, hidden, &places, &mut |_, _| {});
        }
        let next = pick(head.forward(hidden.narrow(1, text.len() - 1, 1), &embedding), choice.temperature, &mut random);
        text.push(next);
        say(next)?;
    }
    Ok(())
}

/// A token by its logits `[1, 1, vocab]`.
fn pick(logits: Tensor<3>, temperature: f64, random: &mut impl Rng) -> u32 {
    if temperature == 0.0 {
        let likeliest = logits.argmax(2).into_data().iter::<i64>().next().unwrap_or(0);
        return u32::try_from(likeliest).unwrap_or(0);
    }
    let p = softmax(logits / temperature, 2).into_data().convert::<f32>();
    let mut left: f64 = random.random();
    let count = p.num_elements();
    let fell = p.iter::<f32>().position(|p| {
        left -= f64::from(p);
        left < 0.0
    });
    fell.unwrap_or(count.saturating_sub(1)) as u32
}
