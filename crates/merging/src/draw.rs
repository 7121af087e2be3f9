//! Random bits, the same for any number of threads and any order of the models.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use regrow_sparse_core::seed::mix;

/// Entries drawn from one stream.
const PIECE: usize = 1 << 14;

/// A seed for the tensor `tensor` of the model `model`.
pub(crate) fn seed(seed: u64, tensor: &str, model: &str) -> u64 {
    let of = |seed, text: &str| text.bytes().fold(mix(seed, text.len() as u64), |s, byte| mix(s, byte.into()));
    of(of(seed, tensor), model)
}

/// A bit for each of `count` entries, low bit first, set with the entry's probability.
pub(crate) fn bits(count: usize, seed: u64, probability: impl Fn(usize) -> f64 + Sync) -> Vec<u64> {
    let mut words = vec![0u64; count.div_ceil(64)];
    words.par_chunks_mut(PIECE / 64).enumerate().for_each(|(piece, words)| {
        let mut random = ChaCha8Rng::seed_from_u64(mix(seed, piece as u64));
        for (w, word) in words.iter_mut().enumerate() {
            let at = piece * PIECE + w * 64;
            for bit in 0..64.min(count - at) {
                let threshold = (probability(at + bit) * (1u64 << 32) as f64) as u64;
                *word |= u64::from(u64::from(random.next_u32()) < threshold) << bit;
            }
        }
    });
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_as_the_probability_says() {
        let count = |p: f64| bits(100_001, 7, |_| p).iter().map(|w| w.count_ones()).sum::<u32>();
        assert_eq!((count(0.0), count(1.0)), (0, 100_001));
        // Four standard deviations.
        assert!((f64::from(count(0.3)) - 30_000.0).abs() < 4.0 * 145.0, "{}", count(0.3));
    }

    #[test]
    fn tensors_and_models_have_draws_of_their_own() {
        let draw = |s, tensor, model| bits(640, seed(s, tensor, model), |_| 0.5);
        assert_eq!(draw(1, "a", "b"), draw(1, "a", "b"));
        for other in [draw(2, "a", "b"), draw(1, "b", "b"), draw(1, "a", "a"), draw(1, "ab", "")] {
            assert_ne!(draw(1, "a", "b"), other);
        }
    }
}
