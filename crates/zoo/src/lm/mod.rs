//! Language models in Hugging Face directories: decoders of the families Llama, Mistral, Qwen2, Qwen3,
//! OPT and GPT-2, encoders of the families BERT and RoBERTa, read block by block.
//!
//! - [`Transformer`]: the model, its [`Config`] and its weights on disk
//! - [`Words`], [`windows`]: text to tokens, cut into windows
//! - [`perplexity()`]: how good it is

mod block;
mod config;
mod perplexity;
mod rope;
mod text;
mod transformer;

pub use block::{Block, Observer, Places};
pub use config::{Activation, Config, NormKind, Positions};
pub use perplexity::{Perplexity, perplexity};
pub use rope::Rope;
pub use text::{Words, batch, windows};
pub use transformer::{Embedding, Head, Transformer};

/// What the linear layers of a block read, by the number that observers are told.
pub const INPUTS: [&str; 4] = ["the normed hidden states", "the mixed heads", "the normed sum", "the inner states"];
