//! Bits of a mask to bytes and back, 64 at a time, in parallel.

use rayon::prelude::*;

use crate::mask::simd::{SimdKernel, SimdLevel};

/// Words per parallel piece: fewer are not worth distributing.
const PIECE: usize = 1 << 10;
/// Rows and columns of the square tiles in which bits are transposed: the bits of a word.
const SIDE: usize = 64;

/// 64 bools as bits, low bit first.
pub(crate) fn packed(truths: &[bool; 64]) -> u64 {
    let byte = |eight: &[bool; 8]| u64::from_le_bytes(eight.map(u8::from)).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    truths.as_chunks::<8>().0.iter().enumerate().fold(0, |word, (at, eight)| word | byte(eight) << (8 * at))
}

/// The bits of `bools`, low bit first.
pub(crate) fn words(bools: &[bool]) -> Vec<u64> {
    let word = |bools: &[bool]| match bools.try_into() {
        Ok(whole) => packed(whole),
        Err(_) => bools.iter().enumerate().fold(0, |word, (b, truth)| word | u64::from(*truth) << b),
    };
    bools.par_chunks(64).with_min_len(PIECE).map(word).collect()
}

/// The first `len` bits as bools.
pub(crate) fn bools(words: &[u64], len: usize) -> Vec<bool> {
    let mut bools = vec![false; len];
    let pieces = bools.par_chunks_mut(64 * PIECE).zip(words.par_chunks(PIECE));
    pieces.for_each(|(bools, words)| SimdLevel::best().run(Bools { words, bools }));
    bools
}

struct Bools<'a> {
    words: &'a [u64],
    bools: &'a mut [bool],
}

impl SimdKernel for Bools<'_> {
    type Output = ();

    #[inline(always)]
    fn done(self, _level: SimdLevel) {
        let (whole, rest) = self.bools.as_chunks_mut::<64>();
        for (bools, word) in whole.iter_mut().zip(self.words) {
            for (b, bool) in bools.iter_mut().enumerate() {
                *bool = word >> b & 1 == 1;
            }
        }
        if let Some(word) = self.words.get(whole.len()) {
            rest.iter_mut().enumerate().for_each(|(b, bool)| *bool = word >> b & 1 == 1);
        }
    }
}

/// The bits of a row-major matrix `[rows, cols]` as the bools of its transpose `[cols, rows]`.
pub(crate) fn bools_transposed(words: &[u64], rows: usize, cols: usize) -> Vec<bool> {
    let mut bools = vec![false; rows * cols];
    let bands = bools.par_chunks_mut((SIDE * rows).max(1)).enumerate();
    bands.for_each(|(band, bools)| SimdLevel::best().run(Band { words, rows, cols, left: band * SIDE, bools }));
    bools
}

/// The columns from `left` on, as many as `bools` has rows.
struct Band<'a> {
    words: &'a [u64],
    rows: usize,
    cols: usize,
    left: usize,
    bools: &'a mut [bool],
}

impl SimdKernel for Band<'_> {
    type Output = ();

    #[inline(always)]
    fn done(self, _level: SimdLevel) {
        for top in (0..self.rows).step_by(SIDE) {
            let height = SIDE.min(self.rows - top);
            let mut square = [0u64; SIDE];
            for (r, word) in square[..height].iter_mut().enumerate() {
                *word = word_at(self.words, (top + r) * self.cols + self.left);
            }
            for (c, row) in self.bools.chunks_exact_mut(self.rows).enumerate() {
                let column = &mut row[top..][..height];
                // A length known at compile time lets the compiler vectorize.
                if let Some(column) = column.as_mut_array::<SIDE>() {
                    column.iter_mut().zip(&square).for_each(|(b, word)| *b = word >> c & 1 == 1);
                } else {
                    column.iter_mut().zip(&square).for_each(|(b, word)| *b = word >> c & 1 == 1);
                }
            }
        }
    }
}

/// 64 bits starting at bit `start`; zeros past the end.
#[inline(always)]
fn word_at(words: &[u64], start: usize) -> u64 {
    let (at, shift) = (start / 64, start % 64);
    let low = words.get(at).map_or(0, |word| word >> shift);
    let high = words.get(at + 1).filter(|_| shift > 0).map_or(0, |word| word << (64 - shift));
    low | high
}

/// Sets to `value` those of `values` whose bit is not set.
pub(crate) fn fill_unset(words: &[u64], values: &mut [f32], value: f32) {
    let pieces = values.par_chunks_mut(64 * PIECE).zip(words.par_chunks(PIECE));
    pieces.for_each(|(values, words)| SimdLevel::best().run(Fill { words, values, value }));
}

struct Fill<'a> {
    words: &'a [u64],
    values: &'a mut [f32],
    value: f32,
}

impl SimdKernel for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn done(self, _level: SimdLevel) {
        // Arithmetic rather than a branch: a processor cannot predict which bits are set.
        let chosen = |word: u64, b: usize, old: f32| {
            let kept = ((word >> b & 1) as u32).wrapping_neg();
            f32::from_bits(old.to_bits() & kept | self.value.to_bits() & !kept)
        };
        let (whole, rest) = self.values.as_chunks_mut::<64>();
        for (values, word) in whole.iter_mut().zip(self.words).filter(|(_, word)| **word != u64::MAX) {
            for (b, value) in values.iter_mut().enumerate() {
                *value = chosen(*word, b, *value);
            }
        }
        if let Some(word) = self.words.get(whole.len()) {
            rest.iter_mut().enumerate().for_each(|(b, value)| *value = chosen(*word, b, *value));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bits_go_to_bytes_and_back(truths in prop::collection::vec(any::<bool>(), 0..300)) {
            let packed = words(&truths);
            prop_assert!(truths.iter().enumerate().all(|(i, truth)| packed[i / 64] >> (i % 64) & 1 == u64::from(*truth)));
            prop_assert_eq!(&bools(&packed, truths.len()), &truths);
        }

        #[test]
        fn transposed_bits_are_those_of_the_transpose(rows in 0usize..140, cols in 0usize..140, seed in any::<u64>()) {
            let truth = |i: usize| (seed ^ (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).count_ones().is_multiple_of(2);
            let truths: Vec<bool> = (0..rows * cols).map(truth).collect();
            let turned = bools_transposed(&words(&truths), rows, cols);
            prop_assert!(turned.iter().enumerate().all(|(i, turned)| *turned == truths[i % rows * cols + i / rows]));
        }

        #[test]
        fn every_level_does_the_same(truths in prop::collection::vec(any::<bool>(), 1..300)) {
            let packed = words(&truths);
            for level in SimdLevel::all() {
                let mut out = vec![false; truths.len()];
                level.run(Bools { words: &packed, bools: &mut out });
                prop_assert_eq!(&out, &truths);
                let mut values = vec![1.0; truths.len()];
                level.run(Fill { words: &packed, values: &mut values, value: -2.0 });
                let want: Vec<f32> = truths.iter().map(|truth| if *truth { 1.0 } else { -2.0 }).collect();
                prop_assert_eq!(values, want);
                let mut out = vec![false; truths.len()];
                level.run(Band { words: &packed, rows: truths.len(), cols: 1, left: 0, bools: &mut out });
                prop_assert_eq!(&out, &truths);
            }
        }
    }
}
