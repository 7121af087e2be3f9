//! Text generation with a decoder, token by token.

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regrow_inference::{DenseExecutor, LayerExecutor};
use regrow_sparse_core::{Error, Result};

use crate::config::Config;
use crate::decoder::{Decoder, Memory};
use crate::text::batch;
use crate::transformer::Transformer;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// 0 takes the most likely token; else tokens are sampled from `softmax(logits / temperature)`.
    pub temperature: f64,
    /// The random seed.
    pub seed: u64,
}

/// Continues `prompt` by `tokens` tokens and passes each to `say`; fewer if the context is full.
///
/// All blocks are in memory, and so are the keys and values of the text: each token is computed alone.
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
    check(&model.config, prompt, choice)?;
    generate_by((&model.whole()?, &mut DenseExecutor), &model.config, model.device(), (prompt, tokens, choice), say)
}

fn check(config: &Config, prompt: &[u32], choice: Choice) -> Result<()> {
    let context = config.context;
    if prompt.is_empty() || prompt.len() > context {
        return Err(Error::Argument(format!("a prompt of {} tokens: this model takes 1 to {context}", prompt.len())));
    }
    if !choice.temperature.is_finite() || choice.temperature < 0.0 {
        return Err(Error::Argument(format!("a temperature of {}: use 0 or more", choice.temperature)));
    }
    Ok(())
}

/// The same for a decoder in memory, with this `config` and on this `device`, where `layers` computes the linear
/// layers.
///
/// # Errors
/// As [`generate`].
pub fn generate_by(
    (decoder, layers): (&Decoder, &mut dyn LayerExecutor),
    config: &Config,
    device: &Device,
    (prompt, tokens, choice): (&[u32], usize, Choice),
    say: &mut dyn FnMut(u32) -> Result<()>,
) -> Result<()> {
    check(config, prompt, choice)?;
    let all = (prompt.len() + tokens).min(config.context);
    let mut memory = Memory::new(config, prompt.len(), all, device);
    let mut random = ChaCha8Rng::seed_from_u64(choice.seed);
    let mut new = prompt.to_vec();
    for _ in prompt.len()..all {
        let hidden = decoder.step(batch(&[&new], device), &mut memory, layers);
        let logits = decoder.head.forward_by(hidden.narrow(1, new.len() - 1, 1), &decoder.embedding, layers);
        new = vec![pick(logits, choice.temperature, &mut random)];
        say(new[0])?;
    }
    Ok(())
}

/// Chooses a token by its logits `[1, 1, vocab]`.
fn pick(logits: Tensor<3>, temperature: f64, random: &mut impl Rng) -> u32 {
    if temperature == 0.0 {
        let likeliest = logits.argmax(2).into_data().iter::<i64>().next().unwrap_or(0);
        return u32::try_from(likeliest).unwrap_or(0);
    }
    let p = softmax(logits / temperature, 2).into_data().convert::<f32>();
    draw(&p.iter::<f32>().collect::<Vec<_>>(), random)
}

/// Samples a token from the probabilities of all.
pub(super) fn draw(p: &[f32], random: &mut impl Rng) -> u32 {
    let mut left: f64 = random.random();
    let fell = p.iter().position(|p| {
        left -= f64::from(*p);
        left < 0.0
    });
    fell.unwrap_or(p.len().saturating_sub(1)) as u32
}
