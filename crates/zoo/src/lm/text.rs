//! Text to tokens and back, cut into windows.

use std::fs;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use regrow_sparse_core::{Error, Result};
use tokenizers::Tokenizer;

/// The tokenizer of a Hugging Face directory.
pub struct Words {
    tokenizer: Tokenizer,
    vocab: usize,
}

impl Words {
    /// Reads `tokenizer.json` in `folder`, for a model of `vocab` tokens.
    ///
    /// # Errors
    /// A file that is missing or no tokenizer.
    pub fn open(folder: impl AsRef<Path>, vocab: usize) -> Result<Self> {
        let path = folder.as_ref().join("tokenizer.json");
        let bytes = fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| Error::format(&path, e.to_string()))?;
        Ok(Self { tokenizer, vocab })
    }

    /// The tokens of `text`, without special ones.
    ///
    /// # Errors
    /// A token that the model has no embedding for.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let failed = |e: tokenizers::Error| Error::Argument(format!("the text cannot be tokenized: {e}"));
        let tokens = self.tokenizer.encode_fast(text, false).map_err(failed)?.get_ids().to_vec();
        match tokens.iter().find(|t| **t as usize >= self.vocab) {
            Some(token) => Err(Error::Argument(format!(
                "the tokenizer gives token {token}, the model has {} tokens: they do not belong together",
                self.vocab
            ))),
            None => Ok(tokens),
        }
    }

    /// The text of `tokens`.
    ///
    /// # Errors
    /// If the tokenizer knows no such tokens.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let failed = |e: tokenizers::Error| Error::Argument(format!("the tokens have no text: {e}"));
        self.tokenizer.decode(tokens, true).map_err(failed)
    }
}

/// The windows of `len` tokens that `tokens` holds, one after the other; a rest is left out.
///
/// # Errors
/// Windows of fewer than two tokens, or a text shorter than one.
pub fn windows(tokens: &[u32], len: usize) -> Result<Vec<&[u32]>> {
    if len < 2 {
        return Err(Error::Argument("a window needs at least two tokens".into()));
    }
    match tokens.len() >= len {
        true => Ok(tokens.chunks_exact(len).collect()),
        false => Err(Error::Argument(format!("the text has {} tokens, fewer than one window of {len}", tokens.len()))),
    }
}

/// Windows of one length as token numbers `[windows, tokens]`.
pub fn batch(windows: &[&[u32]], device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i64> = windows.iter().flat_map(|w| w.iter().map(|t| i64::from(*t))).collect();
    let tokens = windows.first().map_or(0, |w| w.len());
    Tensor::from_data(TensorData::new(ids, [windows.len(), tokens]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_do_not_overlap_and_leave_the_rest() {
        let tokens: Vec<u32> = (0..7).collect();
        assert_eq!(windows(&tokens, 3).unwrap(), [&[0, 1, 2][..], &[3, 4, 5]]);
        assert!(windows(&tokens, 8).unwrap_err().to_string().contains("7 tokens"));
        assert!(windows(&tokens, 1).is_err());
    }
}
