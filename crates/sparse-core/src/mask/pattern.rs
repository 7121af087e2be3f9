//! From scores to a mask: which patterns of zeros are allowed.
//!
//! A tensor is seen as the matrix `[d_out, d_in]`; a convolution `[out, in, kh, kw]` as
//! `[out, in * kh * kw]`.

use std::fmt;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::mask::matrix_dims;
use crate::mask::simd::{SimdKernel, SimdLevel};
use crate::mask::top_k::top_k;
use crate::{Error, Mask, Result};

/// Where zeros may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pattern {
    /// Anywhere.
    #[default]
    Unstructured,
    /// `n` kept of every `m` neighbours along the input dimension (2:4 is `n` 2, `m` 4).
    NofM {
        /// Kept in each group.
        n: usize,
        /// Size of a group.
        m: usize,
    },
    /// Whole blocks of `rows` outputs by `cols` inputs.
    Blocks {
        /// Outputs in a block.
        rows: usize,
        /// Inputs in a block.
        cols: usize,
    },
    /// Whole outputs (neurons, filters).
    Rows,
    /// Whole inputs.
    Columns,
}

impl Pattern {
    /// The sparsity that the pattern itself implies: `1 - n/m` for N:M, none for the others.
    pub fn fixed_sparsity(&self) -> Option<f64> {
        match self {
            Self::NofM { n, m } => Some(1.0 - *n as f64 / *m as f64),
            _ => None,
        }
    }

    /// The mask of a tensor of `shape` with these `scores` (row-major, larger = kept).
    ///
    /// Unstructured: exactly `prune` weights are pruned. Blocks, rows, columns: the `round(prune / size)` groups with
    /// the smallest sum of scores. N:M: `m - n` of every group, independent of `prune`. Ties keep the lower index.
    ///
    /// # Errors
    /// NaN scores; `prune` above the number of weights; a group size that does not divide.
    pub fn mask(&self, shape: &[usize], scores: &[f32], prune: usize) -> Result<Mask> {
        let (rows, cols) = matrix_dims(shape);
        if scores.len() != rows * cols {
            return Err(Error::Argument(format!("{} scores for a tensor of shape {shape:?}", scores.len())));
        }
        match *self {
            Self::Unstructured => {
                let keep = scores.len().checked_sub(prune);
                let keep =
                    keep.ok_or_else(|| Error::Argument(format!("cannot prune {prune} of {} weights", scores.len())))?;
                Mask::from_words(shape, top_k(scores, keep, |x| x)?)
            }
            Self::NofM { n, m } => n_of_m(shape, scores, cols, n, m),
            Self::Blocks { rows: r, cols: c } => groups(shape, scores, prune, r, c),
            Self::Rows => groups(shape, scores, prune, 1, cols),
            Self::Columns => groups(shape, scores, prune, rows, 1),
        }
    }

    /// Parses `unstructured`, `2:4`, `block:4x1`, `rows` or `columns`.
    ///
    /// # Errors
    /// For any other text; the message lists what is known.
    pub fn parse(text: &str) -> Result<Self> {
        let known = || {
            Error::Argument(format!(
                "unknown pattern `{text}`: use unstructured, N:M (as 2:4), block:RxC (as block:4x1), rows or columns"
            ))
        };
        let pair = |text: &str, by: char| -> Option<(usize, usize)> {
            let (a, b) = text.split_once(by)?;
            Some((a.parse().ok()?, b.parse().ok()?))
        };
        match text {
            "unstructured" => Ok(Self::Unstructured),
            "rows" => Ok(Self::Rows),
            "columns" => Ok(Self::Columns),
            _ => match text.strip_prefix("block:") {
                Some(size) => {
                    pair(size, 'x').filter(|(r, c)| r * c > 0).map(|(rows, cols)| Self::Blocks { rows, cols })
                }
                None => pair(text, ':').filter(|(n, m)| 0 < *n && n <= m).map(|(n, m)| Self::NofM { n, m }),
            }
            .ok_or_else(known),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unstructured => f.write_str("unstructured"),
            Self::NofM { n, m } => write!(f, "{n}:{m}"),
            Self::Blocks { rows, cols } => write!(f, "block:{rows}x{cols}"),
            Self::Rows => f.write_str("rows"),
            Self::Columns => f.write_str("columns"),
        }
    }
}

/// Whether every group of `m` neighbours along a row of `cols` keeps at most `n`.
/// Rows that `m` does not divide do not conform.
pub fn conforms(mask: &Mask, n: usize, m: usize) -> bool {
    let (_, cols) = matrix_dims(mask.shape());
    let kept = |group: usize| (0..m).filter(|i| mask.keeps(group * m + i)).count();
    m > 0 && cols.is_multiple_of(m) && (0..mask.len() / m).all(|group| kept(group) <= n)
}

fn n_of_m(shape: &[usize], scores: &[f32], cols: usize, n: usize, m: usize) -> Result<Mask> {
    if m == 0 || n > m || !cols.is_multiple_of(m) {
        return Err(Error::Argument(format!("{n}:{m} does not divide rows of {cols} inputs (shape {shape:?})")));
    }
    // Groups within a word, of sizes known at compile time.
    match m {
        2 => return Mask::from_words(shape, whole_groups::<2, 32>(scores, n)?),
        4 => return Mask::from_words(shape, whole_groups::<4, 16>(scores, n)?),
        8 => return Mask::from_words(shape, whole_groups::<8, 8>(scores, n)?),
        16 => return Mask::from_words(shape, whole_groups::<16, 4>(scores, n)?),
        _ => {}
    }
    if scores.par_iter().any(|s| s.is_nan()) {
        return Err(Error::Argument("a score is NaN".into()));
    }
    // A weight is kept if fewer than n of its group beat it; among equal scores the left one wins.
    let beats = |a: (usize, f32), b: (usize, f32)| a.1 > b.1 || (a.1 == b.1 && a.0 < b.0);
    let keep = |i: usize| {
        let group = i / m * m;
        let better = (group..group + m).filter(|&j| beats((j, scores[j]), (i, scores[i]))).count();
        better < n
    };
    let words = (0..scores.len().div_ceil(64)).into_par_iter().map(|w| {
        let end = (w * 64 + 64).min(scores.len());
        (w * 64..end).fold(0u64, |bits, i| bits | (u64::from(keep(i)) << (i % 64)))
    });
    Mask::from_words(shape, words.collect())
}

/// Words per parallel piece.
const PIECE: usize = 1 << 10;

/// The words of a mask that keeps `n` of every `M` scores, the left one among equal scores; `G` groups fill a word.
fn whole_groups<const M: usize, const G: usize>(scores: &[f32], n: usize) -> Result<Vec<u64>> {
    let mut words = vec![0u64; scores.len().div_ceil(64)];
    let pieces = words.par_chunks_mut(PIECE).zip(scores.par_chunks(64 * PIECE));
    let nan = pieces.map(|(words, scores)| SimdLevel::best().run(Groups::<M, G> { scores, n, words }));
    match nan.reduce(|| false, |a, b| a || b) {
        true => Err(Error::Argument("a score is NaN".into())),
        false => Ok(words),
    }
}

/// A parallel piece.
struct Groups<'a, const M: usize, const G: usize> {
    scores: &'a [f32],
    n: usize,
    words: &'a mut [u64],
}

impl<const M: usize, const G: usize> SimdKernel for Groups<'_, M, G> {
    /// Whether a score is NaN.
    type Output = bool;

    #[inline(always)]
    fn done(self, _level: SimdLevel) -> bool {
        let (whole, rest) = self.scores.as_chunks::<64>();
        let mut nan = false;
        for (word, scores) in self.words.iter_mut().zip(whole) {
            *word = word_of_groups::<M, G>(scores, self.n, &mut nan);
        }
        if let (Some(word), false) = (self.words.get_mut(whole.len()), rest.is_empty()) {
            let mut last = [0.0; 64];
            last[..rest.len()].copy_from_slice(rest);
            *word = word_of_groups::<M, G>(&last, self.n, &mut nan) & (u64::MAX >> (64 - rest.len()));
        }
        nan
    }
}

/// 64 scores, one row per position in a group: every loop over groups reads contiguous memory.
#[inline(always)]
fn word_of_groups<const M: usize, const G: usize>(scores: &[f32; 64], n: usize, nan: &mut bool) -> u64 {
    let mut places = [[0f32; G]; M];
    for (g, group) in scores.as_chunks::<M>().0.iter().enumerate() {
        for (place, score) in places.iter_mut().zip(group) {
            place[g] = *score;
        }
    }
    let mut kept = [0u32; G];
    let mut bad = 0u32;
    for (j, own) in places.iter().enumerate() {
        // How many of its group beat a score; among equal ones the left one wins.
        let mut better = [0u32; G];
        for (i, other) in places.iter().enumerate().filter(|(i, _)| *i != j) {
            for g in 0..G {
                better[g] += if i < j { u32::from(other[g] >= own[g]) } else { u32::from(other[g] > own[g]) };
            }
        }
        for g in 0..G {
            kept[g] |= u32::from(better[g] < n as u32) << j;
            bad |= u32::from(own[g].is_nan());
        }
    }
    *nan |= bad != 0;
    kept.iter().enumerate().fold(0, |word, (g, kept)| word | u64::from(*kept) << (g * M))
}

/// Prunes whole `height` by `width` blocks, smallest sum of scores first.
fn groups(shape: &[usize], scores: &[f32], prune: usize, height: usize, width: usize) -> Result<Mask> {
    let (rows, cols) = matrix_dims(shape);
    if height == 0 || width == 0 || !rows.is_multiple_of(height) || !cols.is_multiple_of(width) {
        return Err(Error::Argument(format!(
            "blocks of {height}x{width} do not divide a matrix of {rows}x{cols} (shape {shape:?})"
        )));
    }
    let (down, across) = (rows / height, cols / width);
    let sum = |group: usize| -> f32 {
        let (top, left) = (group / across * height, group % across * width);
        let row = |r: usize| scores[(top + r) * cols + left..][..width].iter().map(|s| f64::from(*s)).sum::<f64>();
        (0..height).map(row).sum::<f64>() as f32
    };
    let sums: Vec<f32> = (0..down * across).into_par_iter().map(sum).collect();
    let gone = (prune as f64 / (height * width) as f64).round_ties_even() as usize;
    let keep = sums.len().checked_sub(gone);
    let keep = keep.ok_or_else(|| Error::Argument(format!("cannot prune {prune} of {} weights", scores.len())))?;
    let words = top_k(&sums, keep, |x| x)?;
    let kept = |i: usize| {
        let group = i / cols / height * across + i % cols / width;
        words[group / 64] >> (group % 64) & 1 == 1
    };
    Ok(Mask::from_fn(shape, kept))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCORES: [f32; 16] = [
        9.0, 1.0, 8.0, 2.0, //
        3.0, 3.0, 3.0, 3.0, //
        1.0, 5.0, 6.0, 7.0, //
        0.0, 0.0, 4.0, 0.0,
    ];

    fn drawn(pattern: Pattern, prune: usize) -> String {
        let mask = pattern.mask(&[4, 4], &SCORES, prune).unwrap();
        let row = |r: usize| (0..4).map(|c| if mask.keeps(r * 4 + c) { '1' } else { '0' }).collect::<String>();
        (0..4).map(row).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn groups_of_every_size_keep_their_largest_the_first_of_equal_ones() {
        let scores: Vec<f32> = (0..480).map(|i| ((i * 7919 % 13) as f32 - 4.0).max(0.0)).collect();
        for m in [2, 3, 4, 8, 16] {
            for n in 1..=m {
                let mask = Pattern::NofM { n, m }.mask(&[10, 48], &scores, 0).unwrap();
                for group in 0..scores.len() / m {
                    let mut order: Vec<usize> = (group * m..(group + 1) * m).collect();
                    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
                    assert!(order.iter().enumerate().all(|(i, at)| mask.keeps(*at) == (i < n)), "{n}:{m}");
                }
            }
        }
    }

    #[test]
    fn every_level_chooses_the_same_of_each_group() {
        let scores: Vec<f32> = (0..300).map(|i| (i * 7919 % 13) as f32 - 4.0).collect();
        for level in SimdLevel::all() {
            for n in 1..=4 {
                let mut words = [0u64; 5];
                assert!(!level.run(Groups::<4, 16> { scores: &scores, n, words: &mut words }), "{level}");
                let want = Pattern::NofM { n, m: 4 }.mask(&[1, 300], &scores, 0).unwrap();
                assert_eq!(words, want.words(), "{level}, {n}:4");
            }
            let mut words = [0u64; 1];
            let scores = [1.0, 2.0, f32::NAN, 3.0];
            assert!(level.run(Groups::<4, 16> { scores: &scores, n: 2, words: &mut words }), "{level}");
        }
    }

    #[test]
    fn masks_as_the_eye_sees_them() {
        assert_eq!(drawn(Pattern::Unstructured, 8), "1010 1100 0111 0010");
        assert_eq!(drawn(Pattern::NofM { n: 2, m: 4 }, 0), "1010 1100 0011 1010");
        assert_eq!(drawn(Pattern::NofM { n: 1, m: 2 }, 0), "1010 1010 0101 1010");
        assert_eq!(drawn(Pattern::Rows, 8), "1111 0000 1111 0000");
        assert_eq!(drawn(Pattern::Columns, 8), "1010 1010 1010 1010");
        assert_eq!(drawn(Pattern::Blocks { rows: 2, cols: 2 }, 8), "1100 1100 0011 0011");
    }

    #[test]
    fn what_does_not_divide_is_refused() {
        let says = |p: Pattern| p.mask(&[2, 3], &[0.0; 6], 3).unwrap_err().to_string();
        assert!(says(Pattern::NofM { n: 2, m: 4 }).contains("2:4 does not divide rows of 3"));
        assert!(says(Pattern::Blocks { rows: 2, cols: 2 }).contains("2x2 do not divide"));
        assert!(Pattern::Unstructured.mask(&[2, 3], &[0.0; 6], 7).is_err());
        assert!(Pattern::Unstructured.mask(&[2, 3], &[f32::NAN; 6], 1).is_err());
        assert!(Pattern::NofM { n: 1, m: 3 }.mask(&[2, 3], &[f32::NAN; 6], 1).is_err());
        for (last, cols) in [(63, 64), (3, 4)] {
            let mut scores = vec![1.0; cols];
            scores[last] = f32::NAN;
            assert!(Pattern::NofM { n: 2, m: 4 }.mask(&[1, cols], &scores, 0).is_err());
        }
    }

    #[test]
    fn names_are_read_back() {
        for text in ["unstructured", "2:4", "block:4x1", "rows", "columns"] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "4:2", "0:4", "block:0x1", "2:x"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn counts_are_exact(rows in 1usize..9, groups in 1usize..9, share in 0.0f64..1.0, seed in any::<u32>()) {
            let n = rows * groups * 4;
            let scores: Vec<f32> = (0..n as u32).map(|i| (i ^ seed).wrapping_mul(2654435761).rotate_left(9) as f32).collect();
            let prune = (share * n as f64).round_ties_even() as usize;
            let shape = [rows, groups * 4];
            prop_assert_eq!(Pattern::Unstructured.mask(&shape, &scores, prune).unwrap().pruned(), prune);
            let half = Pattern::NofM { n: 2, m: 4 }.mask(&shape, &scores, 0).unwrap();
            prop_assert_eq!(half.pruned(), n / 2);
            prop_assert!(conforms(&half, 2, 4));
            let rows_gone = Pattern::Rows.mask(&shape, &scores, prune).unwrap().pruned();
            prop_assert_eq!(rows_gone % (groups * 4), 0);
        }
    }
}
