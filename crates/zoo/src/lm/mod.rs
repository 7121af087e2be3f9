//! Language models in Hugging Face directories: decoders of the families Llama, Mistral, Qwen2, Qwen3,
//! OPT and GPT-2, read block by block.
//!
//! - [`Decoder`]: the model, its [`Config`] and its weights on disk
//! - [`Words`], [`windows`]: text to tokens, cut into windows
//! - [`perplexity()`]: how good it is

mod block;
mod config;
mod decoder;
mod perplexity;
mod rope;
mod text;

pub use block::{Block, Observer, Places};
pub use config::{Activation, Config, NormKind, Positions};
pub use decoder::{Decoder, Embedding, Head};
pub use perplexity::{Perplexity, perplexity};
pub use rope::Rope;
pub use text::{Words, batch, windows};

/// What the linear layers of a block read, by the number that observers are told.
pub const INPUTS: [&str; 4] = ["the normed hidden states", "the mixed heads", "the normed sum", "the inner states"];
