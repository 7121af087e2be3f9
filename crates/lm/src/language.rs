//! A synthetic language: endless text with known entropy, for models that are trained on the spot.
//!
//! Each token depends on the two before it: every pair has [`CHANCES`]`.len()` successors with these probabilities.

use rand::seq::index::sample;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use regrow_sparse_core::seed::mix;
use regrow_sparse_core::{Error, Result};

/// The probabilities of the successors of a pair of tokens.
pub const CHANCES: [f64; 4] = [0.55, 0.25, 0.15, 0.05];

/// Which tokens may follow which pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Language {
    tokens: usize,
    successors: Vec<[u32; CHANCES.len()]>,
}

impl Language {
    /// A language of `tokens` tokens, the same for the same `seed`.
    ///
    /// # Errors
    /// Fewer tokens than a pair has successors, or more than a table of pairs can hold.
    pub fn new(tokens: usize, seed: u64) -> Result<Self> {
        if !(CHANCES.len()..=4096).contains(&tokens) {
            let least = CHANCES.len();
            return Err(Error::Argument(format!("a language of {tokens} tokens: use {least} to 4096")));
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = || {
            let drawn = sample(&mut random, tokens, CHANCES.len());
            std::array::from_fn(|i| drawn.index(i) as u32)
        };
        Ok(Self { tokens, successors: (0..tokens * tokens).map(|_| draw()).collect() })
    }

    /// A text of `len` tokens, the same for the same `seed`.
    pub fn text(&self, len: usize, seed: u64) -> Vec<u32> {
        let mut random = ChaCha8Rng::seed_from_u64(mix(seed, 1));
        let (mut before, mut last) = (0, 0);
        let mut next = || {
            let mut chance: f64 = random.random();
            let found = CHANCES.iter().position(|p| {
                chance -= p;
                chance < 0.0
            });
            let token = self.successors[before * self.tokens + last][found.unwrap_or(0)];
            (before, last) = (last, token as usize);
            token
        };
        (0..len).map(|_| next()).collect()
    }

    /// The lowest perplexity that a model can reach, given the two tokens before: `exp` of the entropy.
    pub fn floor(&self) -> f64 {
        CHANCES.iter().map(|p| -p * p.ln()).sum::<f64>().exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_obeys_its_language() {
        let language = Language::new(8, 1).unwrap();
        let text = language.text(40_000, 2);
        assert_eq!(text, language.text(40_000, 2));
        assert_ne!(text, language.text(40_000, 3));
        let mut counts = [0usize; CHANCES.len()];
        for w in text.windows(3) {
            let successors = &language.successors[w[0] as usize * 8 + w[1] as usize];
            counts[successors.iter().position(|t| *t == w[2]).expect("a successor")] += 1;
        }
        for (count, chance) in counts.iter().zip(CHANCES) {
            assert!((*count as f64 / 39_998.0 - chance).abs() < 0.01, "{counts:?}");
        }
    }

    #[test]
    fn sizes_are_checked_and_the_floor_is_the_entropy() {
        assert!(Language::new(3, 0).is_err() && Language::new(5000, 0).is_err());
        let bits: f64 = [0.55f64, 0.25, 0.15, 0.05].iter().map(|p| -p * p.log2()).sum();
        assert!((Language::new(8, 0).unwrap().floor() - 2f64.powf(bits)).abs() < 1e-12);
    }
}
