//! The language model's texts: two clean sources, and three noisy ones.

use std::path::Path;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regrow_lm::{Language, Sizes};
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};

/// One source.
pub struct Source {
    /// Such as `Shakespeare, noisy`.
    pub name: String,
    /// Whether it is clean.
    pub clean: bool,
    /// Training tokens.
    pub train: Vec<u32>,
    /// Test tokens.
    pub test: Vec<u32>,
    /// Validation tokens; none in noisy sources.
    pub held: Vec<u32>,
}

/// The sources of one seed, and the model's sizes.
pub struct Corpus {
    /// Two clean ones first.
    pub sources: Vec<Source>,
    /// The language model.
    pub sizes: Sizes,
}

/// Noisy sources: name, which clean source they are made from, and whether all of it is scrambled.
const NOISY: [(&str, usize, bool); 3] = [(", noisy", 0, false), (", noisy", 1, false), (", scrambled", 0, true)];

/// How much longer a noisy source is than a clean one, at most.
const LONGER: usize = 2;

/// A clean source: its name, and its training, validation and test tokens.
type Clean = (String, Vec<u32>, Vec<u32>, Vec<u32>);

impl Corpus {
    /// Two synthetic languages of 16 tokens, drawn from `seed`.
    ///
    /// # Errors
    /// A noise outside the allowed range.
    pub fn made_up(noise: f64, seed: u64) -> Result<Self> {
        let sizes = Sizes { vocab: 16, width: 32, layers: 2, heads: 2, inner: 64, context: 32 };
        let clean = ["first language", "second language"].into_iter().enumerate().map(|(i, name)| {
            let language = Language::new(sizes.vocab, mix(seed, i as u64))?;
            let text = |len: usize, which: u64| language.text(len, mix(seed, 10 * (i as u64 + 1) + which));
            Ok((name.to_string(), text(60_000, 0), text(4_000, 1), text(4_000, 2)))
        });
        Self::new(clean.collect::<Result<_>>()?, sizes, noise, seed)
    }

    /// Shakespeare and WikiText-2 as bytes, from the files in `folder`.
    ///
    /// # Errors
    /// A missing file, a noise outside the allowed range.
    pub fn real(folder: Option<&Path>, noise: f64, seed: u64) -> Result<Self> {
        let folder = folder.ok_or_else(|| {
            Error::Argument("the real texts need a folder: give --data DIR or set REGROW_DATA".into())
        })?;
        let sizes = Sizes { vocab: 256, width: 64, layers: 2, heads: 4, inner: 128, context: 64 };
        let read = |name: &str| -> Result<Vec<u32>> {
            let path = folder.join(name);
            Ok(std::fs::read(&path).map_err(|e| Error::io(&path, e))?.into_iter().map(u32::from).collect())
        };
        let (plays, wiki) = (read("tinyshakespeare.txt")?, read("wikitext2-valid.txt")?);
        let parts = |name: &str, mut text: Vec<u32>, test: Option<Vec<u32>>| {
            let held = text.split_off(text.len() * 9 / 10);
            let (held, own) = held.split_at(held.len() / 2);
            let mut test = test.unwrap_or_else(|| own.to_vec());
            test.truncate(MEASURED);
            (name.to_string(), text, held.to_vec(), test)
        };
        let test = read("wikitext2-test.txt")?;
        let clean = vec![parts("Shakespeare", plays, None), parts("WikiText", wiki, Some(test))];
        Self::new(clean, sizes, noise, seed)
    }

    /// From each clean source's name and its training, validation and test tokens.
    fn new(clean: Vec<Clean>, sizes: Sizes, noise: f64, seed: u64) -> Result<Self> {
        if !(noise > 0.0 && noise <= 1.0) {
            return Err(Error::Argument(format!("{noise} is no share of tokens to replace: use above 0 to 1")));
        }
        // Clean sources lack half of their text; noisy ones have all of it.
        let whole = |i: usize| &clean[i].1;
        let source = |(n, (suffix, of, scrambled)): (usize, (&str, usize, bool))| {
            let share = if scrambled { 1.0 } else { noise };
            let noisy = |text: &[u32], which: u64| noisy(text, share, mix(seed, 100 * (n as u64 + 1) + which));
            let (train, test) = (noisy(whole(of), 0), noisy(&clean[of].3, 1));
            Source { name: format!("{}{suffix}", clean[of].0), clean: false, train, test, held: Vec::new() }
        };
        let noisy: Vec<Source> = NOISY.into_iter().enumerate().map(source).collect();
        let clean = clean.into_iter().map(|(name, mut train, held, test)| {
            train.truncate(train.len() / LONGER);
            Source { name, clean: true, train, test, held }
        });
        Ok(Self { sources: clean.chain(noisy).collect(), sizes })
    }
}

/// Number of test tokens of a real text.
const MEASURED: usize = 32_768;

/// `text` with the share `noise` of its tokens replaced by others of it, drawn from `seed`.
fn noisy(text: &[u32], noise: f64, seed: u64) -> Vec<u32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut one = |token: &u32| match rng.random::<f64>() < noise {
        true => text[rng.random_range(0..text.len())],
        false => *token,
    };
    text.iter().map(&mut one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_replaces_its_share_and_keeps_the_tokens_frequencies() {
        let text: Vec<u32> = (0..20_000).map(|i| if i % 4 == 0 { 1 } else { 2 + i % 3 }).collect();
        let noised = noisy(&text, 0.5, 3);
        // Half are replaced at random; with these shares of four tokens, a fraction of 0.25 stays by chance.
        let changed = text.iter().zip(&noised).filter(|(a, b)| a != b).count() as f64 / 20_000.0;
        assert!((changed - 0.375).abs() < 0.02, "{changed}");
        let ones = noised.iter().filter(|t| **t == 1).count() as f64 / 20_000.0;
        assert!((ones - 0.25).abs() < 0.02, "{ones}");
        assert_eq!(noisy(&text, 0.5, 3), noised);
    }

    #[test]
    fn there_are_two_clean_sources_and_three_longer_noisy_ones() {
        let corpus = Corpus::made_up(0.5, 1).unwrap();
        let clean: Vec<bool> = corpus.sources.iter().map(|s| s.clean).collect();
        assert_eq!(clean, [true, true, false, false, false]);
        assert_eq!(corpus.sources[2].train.len(), 2 * corpus.sources[0].train.len());
        assert!(Corpus::made_up(0.0, 1).is_err() && Corpus::made_up(f64::NAN, 1).is_err());
        assert!(Corpus::real(None, 0.5, 1).err().unwrap().to_string().contains("--data"));
    }
}
