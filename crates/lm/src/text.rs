//! Text to tokens and back, cut into windows.

use std::fs;
use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};
use serde::Deserialize;
use tokenizers::Tokenizer;

/// The tokenizer of a Hugging Face directory.
pub struct Words {
    tokenizer: Tokenizer,
    vocab: usize,
    longest: usize,
}

/// `sentence_bert_config.json`, of which only the length is of use.
#[derive(Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<usize>,
}

impl Words {
    /// Reads `tokenizer.json` in `folder`, for a model of `vocab` tokens. Texts are neither cut nor padded,
    /// whatever lengths the file was saved with.
    ///
    /// # Errors
    /// A file that is missing or no tokenizer.
    pub fn open(folder: impl AsRef<Path>, vocab: usize) -> Result<Self> {
        let path = folder.as_ref().join("tokenizer.json");
        let bytes = fs::read(&path).map_err(|e| Error::io(&path, e))?;
        let failed = |e: tokenizers::Error| Error::format(&path, e.to_string());
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(failed)?;
        tokenizer.with_truncation(None).map_err(failed)?;
        tokenizer.with_padding(None);
        Ok(Self { tokenizer, vocab, longest: longest(folder.as_ref())? })
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

    /// The tokens of a sentence with the special ones that its model expects around it, at most `context`,
    /// and no more than the directory's `sentence_bert_config.json` allows: what is longer is cut before
    /// the last special ones.
    ///
    /// # Errors
    /// As [`Words::encode`].
    pub fn sentence(&self, text: &str, context: usize) -> Result<Vec<u32>> {
        let (before, after) = self.frame()?;
        let mut inner = self.encode(text)?;
        inner.truncate(self.longest.min(context).saturating_sub(before.len() + after.len()));
        Ok([before, inner, after].concat())
    }

    /// The special tokens before and after a text.
    ///
    /// # Errors
    /// As [`Words::encode`].
    pub fn frame(&self) -> Result<(Vec<u32>, Vec<u32>)> {
        let failed = |e: tokenizers::Error| Error::Argument(format!("the tokenizer does not frame texts: {e}"));
        let plain = self.encode("a")?;
        let framed = self.tokenizer.encode_fast("a", true).map_err(failed)?.get_ids().to_vec();
        let start = framed.windows(plain.len().max(1)).position(|part| part == plain).unwrap_or(0);
        let end = (start + plain.len()).min(framed.len());
        Ok((framed[..start].to_vec(), framed[end..].to_vec()))
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

/// The longest sentence that a sentence-transformers directory wants embedded.
fn longest(folder: &Path) -> Result<usize> {
    let path = folder.join("sentence_bert_config.json");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(usize::MAX),
        Err(e) => return Err(Error::io(&path, e)),
    };
    let config: SentenceConfig = serde_json::from_str(&text).map_err(|e| Error::format(&path, e.to_string()))?;
    Ok(config.max_seq_length.unwrap_or(usize::MAX))
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

/// As many windows of `len` of the tokens as asked for: the first ones, one after the other; with a `seed`
/// random ones, which may overlap, as the papers calibrate with.
///
/// # Errors
/// As [`windows`], or a text that holds fewer.
pub fn samples(tokens: &[u32], count: usize, len: usize, seed: Option<u64>) -> Result<Vec<&[u32]>> {
    let all = windows(tokens, len)?;
    if all.len() < count || count == 0 {
        let there = all.len();
        return Err(Error::Argument(format!("the text has {there} windows of {len} tokens, not {count}")));
    }
    let starts = (tokens.len() - len + 1) as u64;
    let random = |seed: u64, i: usize| (mix(seed, i as u64) % starts) as usize;
    Ok(match seed {
        Some(seed) => (0..count).map(|i| &tokens[random(seed, i)..][..len]).collect(),
        None => all[..count].to_vec(),
    })
}

/// A window of a text, the last `scored` of whose tokens are predicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window<'a> {
    /// Its tokens.
    pub tokens: &'a [u32],
    /// How many of the last ones count.
    pub scored: usize,
}

/// Windows of `len` tokens every `stride`, each predicting what none before it has; the last may be
/// shorter. With `stride` equal to `len`, [`windows`] with all but the first token predicted.
///
/// # Errors
/// As [`windows`], or a stride of zero or beyond the window.
pub fn sliding(tokens: &[u32], len: usize, stride: usize) -> Result<Vec<Window<'_>>> {
    if stride == 0 || stride > len {
        return Err(Error::Argument(format!("a stride of {stride} in windows of {len} tokens: use 1 to {len}")));
    }
    let whole = windows(tokens, len)?;
    if stride == len {
        return Ok(whole.into_iter().map(|tokens| Window { tokens, scored: len - 1 }).collect());
    }
    let (mut found, mut begin, mut scored) = (Vec::new(), 0, 1);
    while scored < tokens.len() {
        let end = (begin + len).min(tokens.len());
        found.push(Window { tokens: &tokens[begin..end], scored: end - scored });
        (begin, scored) = (begin + stride, end);
    }
    Ok(found)
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

    const SHORT: &str = r#"{"version": "1.0",
        "truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "a"},
        "added_tokens": [], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"}}"#;

    #[test]
    fn a_text_is_whole_whatever_the_tokenizer_was_saved_with() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("tokenizer.json"), SHORT).unwrap();
        let words = Words::open(folder.path(), 2).unwrap();
        assert_eq!(words.encode("a b b a b").unwrap(), [0, 1, 1, 0, 1]);
        assert_eq!(words.sentence("b", 8).unwrap(), [1]);
        fs::write(folder.path().join("sentence_bert_config.json"), r#"{"max_seq_length": 3}"#).unwrap();
        let words = Words::open(folder.path(), 2).unwrap();
        assert_eq!(words.sentence("a b b a b", 8).unwrap(), [0, 1, 1]);
        assert_eq!(words.sentence("a b b a b", 2).unwrap(), [0, 1]);
    }

    #[test]
    fn windows_do_not_overlap_and_leave_the_rest() {
        let tokens: Vec<u32> = (0..7).collect();
        assert_eq!(windows(&tokens, 3).unwrap(), [&[0, 1, 2][..], &[3, 4, 5]]);
        assert!(windows(&tokens, 8).unwrap_err().to_string().contains("7 tokens"));
        assert!(windows(&tokens, 1).is_err());
    }

    #[test]
    fn samples_are_the_first_windows_or_random_ones() {
        let tokens: Vec<u32> = (0..40).collect();
        assert_eq!(samples(&tokens, 2, 3, None).unwrap(), [&[0, 1, 2][..], &[3, 4, 5]]);
        let random = samples(&tokens, 8, 3, Some(1)).unwrap();
        assert!(random.iter().all(|w| w[2] == w[0] + 2) && random.iter().any(|w| w[0] % 3 != 0));
        assert_eq!(random, samples(&tokens, 8, 3, Some(1)).unwrap());
        assert_ne!(random, samples(&tokens, 8, 3, Some(2)).unwrap());
        assert!(samples(&tokens, 14, 3, None).unwrap_err().to_string().contains("13 windows"));
        assert!(samples(&tokens, 0, 3, None).is_err());
    }

    #[test]
    fn sliding_windows_predict_every_token_once() {
        let tokens: Vec<u32> = (0..8).collect();
        let shape = |len, stride| -> Vec<(u32, usize, usize)> {
            let found = sliding(&tokens, len, stride).unwrap();
            found.iter().map(|w| (w.tokens[0], w.tokens.len(), w.scored)).collect()
        };
        assert_eq!(shape(4, 4), [(0, 4, 3), (4, 4, 3)]);
        assert_eq!(shape(4, 3), [(0, 4, 3), (3, 4, 3), (6, 2, 1)]);
        assert_eq!(shape(5, 1).iter().map(|w| w.2).collect::<Vec<_>>(), [4, 1, 1, 1]);
        assert!(sliding(&tokens, 4, 5).is_err() && sliding(&tokens, 4, 0).is_err());
    }
}
