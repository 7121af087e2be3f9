//! Language models in Hugging Face directories: decoders of the families Llama, Mistral, Qwen2, Qwen3,
//! OPT and GPT-2, encoders of the families BERT and RoBERTa, read block by block.
//!
//! - [`Transformer`]: the model, its [`Config`] and its weights on disk
//! - [`Decoder`]: the whole model in memory, for training on [`NextToken`]
//! - [`Sizes`]: a new small Llama; [`Language`]: an endless text for it
//! - [`Words`], [`windows`]: text to tokens, cut into windows
//! - [`perplexity()`]: how good it is; [`embeddings`]: an encoder's embeddings of sentences
//! - [`generate()`]: text from it

pub mod adapter;
mod block;
mod config;
mod decoder;
mod fresh;
mod generate;
#[cfg(feature = "hub")]
pub mod hub;
mod language;
mod perplexity;
mod rope;
mod sentences;
mod text;
mod transformer;

pub use block::{Block, Observer, SequenceContext};
pub use config::{Activation, Config, NormKind, Positions};
pub use decoder::{Decoder, NextToken};
pub use fresh::Sizes;
pub use generate::{Choice, generate, generate_by};
pub use language::Language;
pub use perplexity::{Perplexity, perplexity, perplexity_by, perplexity_of, together};
pub use rope::Rope;
pub use sentences::{cosine, embeddings};
pub use text::{Window, Words, batch, samples, sliding, windows};
pub use transformer::{Embedding, Head, Transformer};

/// The inputs of the linear layers of a block, by the number that observers get.
pub const INPUTS: [&str; 4] = ["the normed hidden states", "the mixed heads", "the normed sum", "the inner states"];

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
