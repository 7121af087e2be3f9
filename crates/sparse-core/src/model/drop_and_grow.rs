//! Dropping and growing: a layer drops its smallest weights and grows as many others.
//!
//! The number of weights of a layer stays exactly the same.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::mask::top_k::top_k;
use crate::model::weight::Weight;
use crate::{Error, Mask, Result};

/// Which pruned weights may grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Candidates {
    /// Those that were pruned before this step.
    #[default]
    Pruned,
    /// These and the ones just dropped, which then keep their values.
    PrunedAndDropped,
}

/// The mask of `weight` after `count` of its kept weights are dropped, smallest absolute value first, and as many
/// grown, largest `growth` first (one value per weight). Ties go to the lower index: it stays, it grows.
///
/// `count` is limited to the number of kept weights, and of weights that may grow.
///
/// # Errors
/// If a weight or a growth value is NaN, or there is not one growth value per weight.
pub fn drop_and_grow(weight: &Weight, count: usize, growth: &[f32], candidates: Candidates) -> Result<Mask> {
    if growth.len() != weight.values.len() {
        let counts = format!("has {} growth values for {} weights", growth.len(), weight.values.len());
        return Err(Error::tensor(&weight.path, counts));
    }
    let before = weight.mask_or_dense();
    let count = match candidates {
        Candidates::Pruned => count.min(before.kept()).min(before.pruned()),
        Candidates::PrunedAndDropped => count.min(before.kept()),
    };
    let named = |e: Error| Error::tensor(&weight.path, e.to_string());
    let size = among(&before, &weight.values, f32::abs);
    let left = Mask::from_words(weight.shape.clone(), top_k(&size, before.kept() - count, |x| x).map_err(named)?)?;
    let free = match candidates {
        Candidates::Pruned => before.inverted(),
        Candidates::PrunedAndDropped => left.inverted(),
    };
    let wish = among(&free, growth, |g| g);
    let grown = Mask::from_words(weight.shape.clone(), top_k(&wish, count, |x| x).map_err(named)?)?;
    left.or(&grown)
}

/// `key` of the values where `mask` keeps, minus infinity elsewhere.
fn among(mask: &Mask, values: &[f32], key: impl Fn(f32) -> f32 + Sync) -> Vec<f32> {
    let mut out = vec![f32::NEG_INFINITY; values.len()];
    // One word of the mask at a time: words without a weight cost one comparison.
    let words = out.par_chunks_mut(64).zip(values.par_chunks(64)).zip(mask.words()).with_min_len(1 << 10);
    words.for_each(|((out, values), word)| {
        let mut left = *word;
        while left != 0 {
            let i = left.trailing_zeros() as usize;
            out[i] = key(values[i]);
            left &= left - 1;
        }
    });
    out
}

/// Growth values that pick at random: uniform in [0, 1), the same for the same `seed`.
pub fn random_growth(len: usize, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..len).map(|_| rng.random()).collect()
}

#[cfg(test)]
mod tests {
    use burn::module::ParamId;
    use proptest::prelude::*;

    use super::*;

    fn weight(values: &[f32], keep: &str) -> Weight {
        let keep: Vec<bool> = keep.chars().map(|c| c == '1').collect();
        let mask = Mask::from_fn([values.len()], |i| keep[i]);
        Weight {
            path: "w".into(),
            id: ParamId::new(),
            shape: vec![values.len()],
            values: values.to_vec(),
            mask: Some(mask),
        }
    }

    fn drawn(mask: &Mask) -> String {
        mask.to_bools().iter().map(|keep| if *keep { '1' } else { '0' }).collect()
    }

    #[test]
    fn the_smallest_go_and_the_most_wanted_come() {
        let w = weight(&[4.0, -1.0, 0.0, 0.0, 2.0, 0.0], "110010");
        let growth = [9.0, 9.0, 1.0, 3.0, 9.0, 2.0];
        assert_eq!(drawn(&drop_and_grow(&w, 1, &growth, Candidates::Pruned).unwrap()), "100110");
        assert_eq!(drawn(&drop_and_grow(&w, 2, &growth, Candidates::Pruned).unwrap()), "100101");
        // The dropped one has the largest growth value and grows back at once.
        assert_eq!(drawn(&drop_and_grow(&w, 1, &growth, Candidates::PrunedAndDropped).unwrap()), "110010");
        assert_eq!(drawn(&drop_and_grow(&w, 0, &growth, Candidates::Pruned).unwrap()), "110010");
    }

    #[test]
    fn a_kept_zero_is_dropped_before_any_other() {
        let w = weight(&[0.0, 1.0, 0.0, 0.0], "1100");
        assert_eq!(drawn(&drop_and_grow(&w, 1, &[0.0, 0.0, 0.0, 5.0], Candidates::Pruned).unwrap()), "0101");
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        let w = weight(&[1.0, 2.0, 0.0], "110");
        assert!(drop_and_grow(&w, 1, &[0.0], Candidates::Pruned).is_err());
        let says = drop_and_grow(&w, 1, &[0.0, 0.0, f32::NAN], Candidates::Pruned).unwrap_err().to_string();
        assert!(says.starts_with("w: "), "{says}");
    }

    proptest! {
        #[test]
        fn the_number_of_weights_stays(
            values in prop::collection::vec(-3i32..4, 1..200), seed in any::<u64>(), count in 0usize..300, both in any::<bool>(),
        ) {
            let keep: String = (0..values.len()).map(|i| if (seed >> (i % 61)) & 1 == 1 { '1' } else { '0' }).collect();
            let values: Vec<f32> = values.iter().zip(keep.chars()).map(|(v, k)| if k == '1' { *v as f32 } else { 0.0 }).collect();
            let w = weight(&values, &keep);
            let candidates = if both { Candidates::PrunedAndDropped } else { Candidates::Pruned };
            let after = drop_and_grow(&w, count, &random_growth(values.len(), seed), candidates).unwrap();
            prop_assert_eq!(after.kept(), w.mask_or_dense().kept());
        }
    }
}
